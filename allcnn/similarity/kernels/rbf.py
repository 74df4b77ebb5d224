"""The Gaussian (RBF) kernel."""

from dataclasses import dataclass
from typing import Any, ClassVar, Final

from allcnn.definitions.bounds import Bounds
from allcnn.definitions.fields import setting
from allcnn.similarity.kernels.kernel import Kernel, Pairs

SIGMA: Final = Bounds(1e-9, 1e9, whole=False)
"""Beyond, the kernel is the identity or constant, and the squared bandwidth overflows."""


@dataclass(frozen=True)
class Rbf(Kernel):
    """exp(-|x-y|²/(2s²)), s a fraction of the median distance."""

    name: ClassVar[str] = "rbf"
    uses_median: ClassVar[bool] = True

    sigma: float = setting(
        0.4,
        "RBF bandwidths, as fractions of the median distance, such as 0.2,0.4,0.8",
        SIGMA,
        several=True,
    )

    def scale(self, median: float) -> float:
        """Return the bandwidth s, a distance."""
        return self.sigma * median

    def transform(self, pairs: Pairs) -> Any:
        """Return the kernel less 1, its value at distance 0."""
        return self.less(pairs, 0.0)[0]

    def less(self, pairs: Pairs, origin: Any) -> tuple[Any, Any]:
        """Return the kernel less its value at ``origin``, which keeps all digits."""
        xp = pairs.squared.__array_namespace__()
        # Divided twice: the square of s may overflow where the distances do not.
        logarithms = (origin - pairs.squared) / pairs.scale / pairs.scale
        return xp.expm1(logarithms / 2), -origin / pairs.scale / pairs.scale / 2

    def tile_origin(self, usual: float, scale: float) -> float | None:
        """Return the usual distance; None for bandwidths above it, where the kernel is flat."""
        # Not beyond what float64 holds, for bandwidths of less than a thirtieth of that distance.
        return min(usual, 1200 * scale * scale) if scale * scale < usual else None

    @property
    def title(self) -> str:
        return f"RBF {self.sigma:g}"
