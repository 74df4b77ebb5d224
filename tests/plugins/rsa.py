"""Representational similarity analysis (Kriegeskorte, Mur and Bandettini 2008)."""

from dataclasses import dataclass
from typing import Any, ClassVar

from allcnn.similarity.measures import Matrix, Measure, PairSums
from allcnn.similarity.measures.ratio import ratio, why_no_ratio


@dataclass(frozen=True)
class Rsa(Measure):
    """Pearson's correlation of squared distances between examples, within minibatches."""

    name: ClassVar[str] = "rsa"
    title: ClassVar[str] = "RSA"
    limits: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    sums_name: ClassVar[str] = "covariance"

    def features(self, K: Any) -> Any:
        """Return squared distances less their mean, 0 on the diagonal."""
        xp, n = K.__array_namespace__(), len(K)
        norms = xp.diagonal(K)
        squared = norms[:, None] + norms[None, :] - 2 * K
        pairs = ~xp.eye(n, dtype=bool)
        mean = xp.where(pairs, squared, 0).sum() / (n * (n - 1))
        return xp.where(pairs, squared - mean, 0)

    def factor(self, n: int) -> float:
        """Return one over the number of pairs."""
        return 1 / (n * (n - 1))

    def finish(self, sums: PairSums) -> Matrix:
        """Return covariances over both standard deviations."""
        return ratio(sums)

    def why_undefined(self, sums: PairSums, i: int, j: int) -> str:
        """Return which variance is 0."""
        return why_no_ratio(sums, i, j, "covariance", self.title)
