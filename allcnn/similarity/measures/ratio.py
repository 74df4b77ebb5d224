"""Sums divided by those of both sides with themselves, as CKA and correlations are."""

import numpy as np
from numpy.typing import NDArray

from allcnn.similarity.measures.measure import Matrix, PairSums


def ratio(sums: PairSums) -> Matrix:
    """Return cross / √(rows · columns); NaN where a representation's own sum is not above 0."""
    (rows, e), (columns, f) = map(_near_1, (sums.rows, sums.columns))
    # One root of the product, not a product of roots: x / sqrt(x * x) is exactly 1.
    roots = np.sqrt(rows[:, None] * columns[None, :])
    matrix: Matrix = np.ldexp(sums.cross, -e[:, None] - f[None, :]) / roots
    return matrix


def why_no_ratio(sums: PairSums, i: int, j: int, of: str, title: str) -> str:
    """Return which side's own sum is not above 0."""
    sides = {f"row {i}": sums.rows[i], f"column {j}": sums.columns[j]}
    wrong = [
        f"the {of} of {side} with itself sums to {value:.6g}"
        for side, value in sides.items()
        if not positive(value)
    ]
    return " and ".join(wrong) + f"; {title} needs a finite sum above 0"


def positive(own: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which sums are finite and above 0."""
    found: NDArray[np.bool_] = np.isfinite(own) & (own > 0)
    return found


def _near_1(own: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return numbers divided by 4**e, since products of two may leave float64, and e."""
    defined = np.where(positive(own), own, np.nan)
    e = np.frexp(defined)[1] // 2
    return np.ldexp(defined, -2 * e), e
