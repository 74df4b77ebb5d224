"""The interface of a measure: an inner product of features of two Grams."""

from abc import ABC, abstractmethod
from math import inf
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeAlias

from allcnn.definitions.registry import Varying

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Matrix: TypeAlias = "NDArray[np.float64]"
"""Quoted, as commands that need no NumPy ask for names and settings."""


class PairSums(NamedTuple):
    """Inner products of every row representation with every column one, as sums over minibatches.

    Of a minibatch of n examples they count n times. Where a list is compared with itself, ``cross``
    is exactly symmetric and its diagonal is ``rows`` and ``columns``.
    """

    cross: Matrix  # of row i with column j
    rows: Matrix  # of row i with itself
    columns: Matrix  # of column j with itself
    n_examples: int  # summed over


class Measure(Varying, ABC):
    """A measure of similarity; a subclass is a frozen dataclass of its settings.

    Of each representation's Gram in a minibatch it takes features. All pairs come from one product
    of these; their sums over minibatches are finished into values, with standard errors by the
    jackknife, permutations and classes alike for all measures.
    """

    title: ClassVar[str]
    """Its name in figures and tables."""

    limits: ClassVar[tuple[float, float] | None] = (0.0, 1.0)
    """Ends of its colours, outside of which values may lie; None for those of the values."""

    sums_name: ClassVar[str] = "products"
    """The name by which the sums are kept."""

    @property
    def least_examples(self) -> int:
        """Fewest examples of a minibatch for which it is defined."""
        return 4

    @property
    def skips_diagonal(self) -> bool:
        """Whether the diagonal of a Gram does not enter its features."""
        return False

    @property
    def is_whole(self) -> bool:
        """Whether all examples are one minibatch: unbiased HSIC, from tiles of the Gram."""
        return False

    @property
    def qualifier(self) -> str:
        """The settings that titles say beside its name."""
        return ", ".join(map(str, self.to_json().values()))

    @property
    def how(self) -> str:
        """How it is computed, in words of tables and messages."""
        return f"{self.qualifier} {self.title}".strip()

    @abstractmethod
    def features(self, K: Any) -> Any:
        """Return the n² features that enter the inner product, of a Gram of n examples.

        Computed by ``K.__array_namespace__()``, of NumPy or JAX. A constant added to the Gram must
        not change them, a factor on it must be one on them, since Grams are scaled so that float32
        holds them, and another order of the examples must only reorder them: feature i, j is of
        examples i and j.
        """

    def centred(self, K: Matrix) -> Matrix:
        """Return a float64 Gram that float32 holds, of the same features."""
        means = K.mean(axis=0)
        return K - means[:, None] - means[None, :] + means.mean()

    @abstractmethod
    def factor(self, n: int) -> float:
        """Return the factor of the inner product for a minibatch of n examples."""

    @abstractmethod
    def finish(self, sums: PairSums) -> Matrix:
        """Return values from sums over all minibatches; NaN where they are not defined."""

    def limits_of(self, values: Matrix) -> tuple[float, float]:
        """Return the ends of the scale of colours for some values."""
        if self.limits is not None:
            return self.limits
        finite = values[abs(values) < inf]
        low, high = float(finite.min(initial=0)), float(finite.max(initial=-inf))
        return low, high if high > low else low + 1

    def why_undefined(self, sums: PairSums, i: int, j: int) -> str:
        """Return why the value of row i and column j is NaN."""
        return f"{self.title} of row {i} with column {j} is not defined"
