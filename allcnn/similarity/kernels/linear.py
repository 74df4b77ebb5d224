"""The linear kernel."""

from dataclasses import dataclass
from typing import Any, ClassVar

from allcnn.similarity.kernels.kernel import Kernel, Pairs


@dataclass(frozen=True)
class Linear(Kernel):
    """xᵀy."""

    name: ClassVar[str] = "linear"
    is_base: ClassVar[bool] = True
    shows_sums: ClassVar[bool] = True

    def transform(self, pairs: Pairs) -> Any:
        return pairs.products
