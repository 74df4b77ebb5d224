"""Centred kernel alignment from HSIC sums, its standard errors, and how it settles.

Divided once and never clipped; what is not defined is NaN with its reason.
"""

from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int

from allcnn.similarity.hsic import HsicParts, HsicSums

ENOUGH_MINIBATCHES: Final = 8
"""Standard errors from fewer are qualified wherever they are shown."""


class Alignment(NamedTuple):
    """CKA of every row representation with every column one.

    Attributes:
        matrix: above 1 or below 0 where estimates near the bounds are; NaN where not defined.
        reasons: why an entry is NaN, by row and column.
    """

    matrix: Float64[np.ndarray, "r c"]
    reasons: dict[tuple[int, int], str]


class StandardErrors(NamedTuple):
    """How far each CKA would scatter if the minibatches were drawn again.

    Attributes:
        values: NaN where not defined.
        reason: the sentence why values are NaN; empty where none are.
    """

    values: Float64[np.ndarray, "r c"]
    reason: str


def align(sums: HsicSums) -> Alignment:
    """Divide HSIC sums into CKA (Kornblith et al. 2019, eq. 2; Nguyen et al. 2021, eq. 3).

    Undefined, and NaN, where a representation's HSIC with itself is not above 0: it is constant,
    or has too few examples for its signal.
    """
    undefined = np.argwhere(~(_positive(sums.rows)[:, None] & _positive(sums.columns)[None, :]))
    reasons = {(int(i), int(j)): _reason(sums, i, j) for i, j in undefined}
    return Alignment(_ratio(sums), reasons)


def jackknife(parts: HsicParts) -> StandardErrors:
    """Estimate standard errors of CKA by deleting one minibatch at a time, whatever their sizes.

    With g minibatches of m_j of n examples, h_j = n/m_j, CKA θ of all and θ_j of all but j,

        p_j = h_j θ - (h_j - 1) θ_j,  θ_J = g θ - Σ (1 - m_j/n) θ_j,
        variance = 1/g Σ (p_j - θ_J)² / (h_j - 1)

    (Busing, Meijer and van der Leeden 1999, "Delete-m Jackknife for Unequal m", Statistics and
    Computing 9:3-8). With 2 minibatches error bars are often too short, from 4 on they mostly hold;
    ``caution`` qualifies those from fewer than 8.

    NaN for fewer than 2 minibatches, where CKA is NaN, and where a deletion leaves an HSIC of a
    representation with itself that is not above 0.
    """
    theta = _ratio(parts.total())
    if len(parts) < 2:
        found = "is 1 minibatch" if len(parts) else "are 0 minibatches"
        reason = f"there {found}; standard errors need 2 or more"
        return StandardErrors(np.full_like(theta, np.nan), reason)
    others = _leave_one_out(parts)
    shifts = others.cross  # overwritten, since all minibatches of a large matrix are large
    for j in range(len(parts)):
        shifts[j] = theta - _ratio(others[j])
    # With u_j = θ - θ_j: p_j = θ + (h_j - 1) u_j and θ_J = θ + Σ (1 - m_j/n) u_j.
    shares = parts.sizes / parts.sizes.sum()
    odds = (1 - shares) / shares
    bias, squares = np.zeros_like(theta), np.zeros_like(theta)
    for share, u in zip(shares, shifts, strict=True):
        bias += (1 - share) * u
    for h, u in zip(odds, shifts, strict=True):
        squares += np.square(h * u - bias) / h
    return StandardErrors(np.sqrt(squares / len(parts)), _why_missing(theta, others))


def caution(n_minibatches: int) -> str:
    """Return how standard errors from so many minibatches are qualified; empty from 8 on."""
    if n_minibatches >= ENOUGH_MINIBATCHES:
        return ""
    return f"standard errors from {n_minibatches} minibatches, likely too small"


def convergence(parts: HsicParts) -> Float64[np.ndarray, "b r c"]:
    """Return CKA of the first 1, 2, ... b minibatches; the last is that of all."""
    total = HsicSums.zero(*parts.cross.shape[1:])
    curve = np.empty_like(parts.cross)
    for j in range(len(parts)):
        total = total.merge(parts[j])
        curve[j] = _ratio(total)
    return curve


def _ratio(sums: HsicSums) -> Float64[np.ndarray, "r c"]:
    (rows, e), (columns, f) = map(_near_1, (sums.rows, sums.columns))
    # One root of the product, not a product of roots: x / sqrt(x * x) is exactly 1.
    roots = np.sqrt(rows[:, None] * columns[None, :])
    matrix: Float64[np.ndarray, "r c"] = np.ldexp(sums.cross, -e[:, None] - f[None, :]) / roots
    return matrix


def _near_1(
    self_sums: Float64[np.ndarray, "m"],
) -> tuple[Float64[np.ndarray, "m"], Int[np.ndarray, "m"]]:
    """Return numbers divided by 4**e, since products of two may leave float64, and e."""
    positive = np.where(_positive(self_sums), self_sums, np.nan)
    e = np.frexp(positive)[1] // 2
    return np.ldexp(positive, -2 * e), e


def _positive(self_sums: Float64[np.ndarray, "..."]) -> Bool[np.ndarray, "..."]:
    positive: Bool[np.ndarray, "..."] = np.isfinite(self_sums) & (self_sums > 0)
    return positive


def _reason(sums: HsicSums, i: int, j: int) -> str:
    sides = {f"row {i}": sums.rows[i], f"column {j}": sums.columns[j]}
    wrong = [
        f"the HSIC of {side} with itself sums to {value:.6g}"
        for side, value in sides.items()
        if not _positive(value)
    ]
    return " and ".join(wrong) + "; CKA needs a finite sum above 0"


def _leave_one_out(parts: HsicParts) -> HsicParts:
    """Return for each minibatch the sums over all others."""
    return HsicParts(
        _sums_of_others(parts.cross),
        _sums_of_others(parts.rows),
        _sums_of_others(parts.columns),
        parts.sizes.sum() - parts.sizes,
    )


def _sums_of_others(x: Float64[np.ndarray, "b ..."]) -> Float64[np.ndarray, "b ..."]:
    # Those before and those after, rather than the total less one: beside a minibatch with an
    # outlier, whose HSIC grows with its fourth power, rounding would leave nothing of the others.
    others = np.zeros_like(x)
    np.cumsum(x[:-1], axis=0, out=others[1:])
    after = np.zeros_like(x[0])
    for j in reversed(range(len(x) - 1)):
        after += x[j + 1]
        others[j] += after
    return others


def _why_missing(theta: Float64[np.ndarray, "r c"], others: HsicParts) -> str:
    undefined = np.isnan(theta)
    rows, columns = (_positive(x.min(axis=0)) for x in (others.rows, others.columns))
    lost = ~(rows[:, None] & columns[None, :] | undefined)
    why = [f"CKA itself is not defined for {undefined.sum()}"] if undefined.any() else []
    if lost.any():
        i, j = np.argwhere(lost)[0]
        b = int(np.argmin(_positive(others.rows[:, i]) & _positive(others.columns[:, j])))
        why.append(f"without minibatch {b} {_reason(others[b], i, j)}")
    if not why:
        return ""
    missing = f"{(undefined | lost).sum()} of {theta.size} standard errors are missing"
    return f"{missing}: {', and '.join(why)}"
