"""Centred kernel alignment from HSIC sums: divided once, never clipped, NaN with its reason."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from allcnn.hsic import HsicSums


class Cka(NamedTuple):
    """CKA of every row representation with every column one.

    Attributes:
        matrix: above 1 or below 0 where estimates near the bounds are; NaN where not defined.
        reasons: why an entry is NaN, by row and column.
    """

    matrix: Float64[np.ndarray, "r c"]
    reasons: dict[tuple[int, int], str]


def cka(sums: HsicSums) -> Cka:
    """Divide HSIC sums into CKA (Kornblith et al. 2019, eq. 2; Nguyen et al. 2021, eq. 3).

    Undefined, and NaN, where a representation's HSIC with itself is not above 0: it is constant,
    or has too few examples for its signal.
    """
    rows, columns = _defined(sums.rows), _defined(sums.columns)
    # One root of the product, not a product of roots: x / sqrt(x * x) is exactly 1.
    matrix = sums.cross / np.sqrt(rows[:, None] * columns[None, :])
    undefined = np.argwhere(np.isnan(rows)[:, None] | np.isnan(columns)[None, :])
    return Cka(matrix, {(int(i), int(j)): _reason(sums, i, j) for i, j in undefined})


def _defined(self_sums: Float64[np.ndarray, "m"]) -> Float64[np.ndarray, "m"]:
    return np.where(np.isfinite(self_sums) & (self_sums > 0), self_sums, np.nan)


def _reason(sums: HsicSums, i: int, j: int) -> str:
    sides = {f"row {i}": sums.rows[i], f"column {j}": sums.columns[j]}
    wrong = [
        f"the HSIC of {side} with itself sums to {value:.6g}"
        for side, value in sides.items()
        if not 0 < value < np.inf
    ]
    return " and ".join(wrong) + "; CKA needs a finite sum above 0"
