"""Centred kernel alignment (Kornblith et al. 2019, eq. 2; Nguyen, Raghu and Kornblith 2021)."""

from dataclasses import dataclass
from typing import ClassVar

from allcnn.similarity.measures.hsic import Hsic
from allcnn.similarity.measures.measure import Matrix, PairSums
from allcnn.similarity.measures.ratio import ratio, why_no_ratio


@dataclass(frozen=True)
class Cka(Hsic):
    """Σ n·HSIC(K, L) / √(Σ n·HSIC(K, K) · Σ n·HSIC(L, L)), with sums over minibatches of n."""

    name: ClassVar[str] = "cka"
    title: ClassVar[str] = "CKA"
    limits: ClassVar[tuple[float, float] | None] = (0.0, 1.0)

    def finish(self, sums: PairSums) -> Matrix:
        """Divide the sums once, never clipped.

        NaN where a representation's HSIC with itself is not above 0: it is constant, or has too few
        examples for its signal.
        """
        return ratio(sums)

    def why_undefined(self, sums: PairSums, i: int, j: int) -> str:
        return why_no_ratio(sums, i, j, "HSIC", self.title)
