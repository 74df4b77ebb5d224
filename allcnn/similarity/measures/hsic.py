"""The Hilbert-Schmidt independence criterion (Gretton et al. 2005; Song et al. 2012)."""

from dataclasses import dataclass
from math import nan
from typing import Any, ClassVar

from allcnn.definitions.fields import setting
from allcnn.similarity.measures.measure import Matrix, Measure, PairSums


@dataclass(frozen=True)
class Hsic(Measure):
    """HSIC of two Grams, the mean over minibatches weighted by their examples.

    Unbiased, the inner product of U-centred Grams (Székely and Rizzo 2014), which is equation 5 of
    Song et al. (2012): negative about half the time near independence, and never clipped. Biased,
    tr(KHLH)/(n-1)² with H = I - 11ᵀ/n (Gretton et al. 2005, eq. 9): too large by O(1/n).
    """

    name: ClassVar[str] = "hsic"
    title: ClassVar[str] = "HSIC"
    limits: ClassVar[tuple[float, float] | None] = None
    sums_name: ClassVar[str] = "hsic"

    estimator: str = setting(
        "unbiased",
        "of HSIC: unbiased or biased, summed over minibatches; exact, of all examples",
        choices=("unbiased", "biased", "exact"),
    )

    @property
    def skips_diagonal(self) -> bool:
        return self.estimator != "biased"

    @property
    def least_examples(self) -> int:
        return 4 if self.skips_diagonal else 2

    @property
    def is_whole(self) -> bool:
        return self.estimator == "exact"

    @property
    def how(self) -> str:
        return f"{self.estimator} HSIC"

    def features(self, K: Any) -> Any:
        """Return the U-centred Gram, or HKH for biased HSIC, whose rows and columns sum to 0."""
        xp, n = K.__array_namespace__(), len(K)
        a, b = (n - 2, n - 1) if self.skips_diagonal else (n, n)
        pairs = ~xp.eye(n, dtype=bool) if self.skips_diagonal else xp.ones((n, n), dtype=bool)
        K = xp.where(pairs, K, 0)
        rows, columns = K.sum(axis=1) / a, K.sum(axis=0) / a
        centred = K - rows[:, None] - columns[None, :] + rows.sum() / b
        return xp.where(pairs, centred, 0)

    def centred(self, K: Matrix) -> Matrix:
        return self.features(K)

    def factor(self, n: int) -> float:
        """Return 1/(n(n-3)), or 1/(n-1)² for biased HSIC."""
        return 1 / (n * (n - 3)) if self.skips_diagonal else 1 / (n - 1) ** 2

    def finish(self, sums: PairSums) -> Matrix:
        """Return the mean over minibatches; NaN over none."""
        if not sums.n_examples:
            return sums.cross * nan
        mean: Matrix = sums.cross / sums.n_examples
        return mean - (mean - mean)  # NaN where it is not finite
