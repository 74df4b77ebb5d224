"""Sums divided by those of both sides with themselves, as CKA and correlations are."""

from math import inf
from typing import Any

from allcnn.similarity.measures.measure import Matrix, PairSums


def ratio(sums: PairSums) -> Matrix:
    """Return cross / √(rows · columns); NaN where a representation's own sum is not above 0."""
    xp: Any = sums.cross.__array_namespace__()
    (rows, e), (columns, f) = (_near_1(own, xp) for own in (sums.rows, sums.columns))
    # One root of the product, not a product of roots: x / sqrt(x * x) is exactly 1.
    roots = xp.sqrt(rows[:, None] * columns[None, :])
    return xp.ldexp(sums.cross, -e[:, None] - f[None, :]) / roots


def why_no_ratio(sums: PairSums, i: int, j: int, of: str, title: str) -> str:
    """Return which side's own sum is not above 0."""
    sides = {f"row {i}": sums.rows[i], f"column {j}": sums.columns[j]}
    wrong = [
        f"the {of} of {side} with itself sums to {value:.6g}"
        for side, value in sides.items()
        if not positive(value)
    ]
    return " and ".join(wrong) + f"; {title} needs a finite sum above 0"


def positive(own: Any) -> Any:
    """Return which sums are finite and above 0."""
    return (own > 0) & (own < inf)


def _near_1(own: Any, xp: Any) -> tuple[Any, Any]:
    """Return numbers divided by 4**e, since products of two may leave float64, and e."""
    defined = xp.where(positive(own), own, xp.nan)
    e = xp.frexp(defined)[1] // 2
    return xp.ldexp(defined, -2 * e), e
