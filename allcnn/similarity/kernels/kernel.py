"""The interface of a kernel: a function of two examples, derived from a linear or cosine Gram."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal, NamedTuple

from allcnn.definitions.registry import Varying

BaseKernel = Literal["linear", "cosine"]
"""Kernels whose Grams are computed from rows, and kept; all others are derived from these."""


class Pairs(NamedTuple):
    """Pairs of examples of one representation, in arrays of one shape, of NumPy or JAX."""

    products: Any  # their base kernel; linear ones are of rows shifted by a row near their mean
    squared: Any  # their squared distances, of normalised rows where the base is the cosine kernel
    scale: Any  # the value of ``Kernel.scale``


class Kernel(Varying, ABC):
    """A kernel; a subclass is a frozen dataclass of its settings.

    Kernel matrices are centred before they are compared, so that a constant may be left out.
    """

    base: ClassVar[BaseKernel] = "linear"
    """Which Gram matrix it is derived from."""

    uses_median: ClassVar[bool] = False
    """Whether it needs the median distance between examples."""

    is_base: ClassVar[bool] = False
    """Whether it is the base kernel itself."""

    shows_sums: ClassVar[bool] = False
    """Whether layers are identified by the sums themselves, too, such as HSIC beside CKA."""

    @abstractmethod
    def transform(self, pairs: Pairs) -> Any:
        """Return the kernel of pairs, elementwise, by ``pairs.squared.__array_namespace__()``."""

    def scale(self, median: float) -> float:
        """Return the scale of the transform for a median distance, such as a bandwidth."""
        return median

    def less(self, pairs: Pairs, origin: Any) -> tuple[Any, Any]:
        """Return the kernel less its value at a squared distance, and the log of a factor of it.

        For kernels that would lose digits beside a constant; by default nothing is subtracted.
        """
        return self.transform(pairs), 0.0

    def tile_origin(self, usual: float, scale: float) -> float | None:
        """Return the origin that all tiles of a large matrix share, from a usual squared distance.

        None to subtract the kernels of both examples with the mean instead.
        """
        return None

    @property
    def title(self) -> str:
        """Its name in figures, with the settings that tell results apart."""
        return self.name

    @property
    def slug(self) -> str:
        """Its name in names of files."""
        return self.title.replace(" ", "").lower()
