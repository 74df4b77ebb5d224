"""The cosine kernel."""

from dataclasses import dataclass
from typing import Any, ClassVar

from allcnn.similarity.kernels.kernel import BaseKernel, Kernel, Pairs


@dataclass(frozen=True)
class Cosine(Kernel):
    """xᵀy / (|x| |y|); a row of zeros has no direction, and stays zero."""

    name: ClassVar[str] = "cosine"
    base: ClassVar[BaseKernel] = "cosine"
    is_base: ClassVar[bool] = True

    def transform(self, pairs: Pairs) -> Any:
        return pairs.products
