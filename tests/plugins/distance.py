"""The kernel of distance covariance."""

from dataclasses import dataclass
from typing import Any, ClassVar

from allcnn.similarity.kernels import Kernel, Pairs


@dataclass(frozen=True)
class Distance(Kernel):
    """-|x-y|; its HSIC is squared distance covariance (Sejdinovic et al. 2013)."""

    name: ClassVar[str] = "distance"

    def transform(self, pairs: Pairs) -> Any:
        """Return minus the distances."""
        xp = pairs.squared.__array_namespace__()
        return -xp.sqrt(pairs.squared)
