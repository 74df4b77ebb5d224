"""Standard errors of a measure over minibatches, and how it settles with their number."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Shaped

from allcnn.similarity.measures import Matrix, Measure
from allcnn.similarity.pair_sums import MinibatchSums, merged, zero_sums


class StandardErrors(NamedTuple):
    """How far each value would scatter if the minibatches were drawn again."""

    values: Float64[np.ndarray, "r c"]  # NaN where not defined
    reason: str  # the sentence why values are NaN; empty where none are


def jackknife(parts: MinibatchSums, measure: Measure) -> StandardErrors:
    """Estimate standard errors by deleting one minibatch at a time, whatever their sizes.

    With g minibatches of m_j of n examples, h_j = n/m_j, a value θ of all and θ_j of all but j,

        p_j = h_j θ - (h_j - 1) θ_j,  θ_J = g θ - Σ (1 - m_j/n) θ_j,
        variance = 1/g Σ (p_j - θ_J)² / (h_j - 1)

    (Busing, Meijer and van der Leeden 1999, "Delete-m Jackknife for Unequal m", Statistics and
    Computing 9:3-8). With 2 minibatches error bars are often too short, from 4 on they mostly hold;
    ``errors_caution`` qualifies those from fewer than 8.

    NaN for fewer than 2 minibatches, where the value is NaN, and where a deletion leaves it so.
    """
    theta = measure.finish(parts.total())
    if len(parts) < 2:
        found = "is 1 minibatch" if len(parts) else "are 0 minibatches"
        reason = f"there {found}; standard errors need 2 or more"
        return StandardErrors(np.full_like(theta, np.nan), reason)
    sums = parts.cross, parts.rows, parts.columns, parts.sizes
    others = MinibatchSums(*map(_sums_of_others, sums))
    shifts = others.cross  # overwritten, since all minibatches of a large matrix are large
    for j in range(len(parts)):
        shifts[j] = theta - measure.finish(others[j])
    # With u_j = θ - θ_j: p_j = θ + (h_j - 1) u_j and θ_J = θ + Σ (1 - m_j/n) u_j.
    shares = parts.sizes / parts.sizes.sum()
    odds = (1 - shares) / shares
    bias, squares = np.zeros_like(theta), np.zeros_like(theta)
    for share, u in zip(shares, shifts, strict=True):
        bias += (1 - share) * u
    for h, u in zip(odds, shifts, strict=True):
        squares += np.square(h * u - bias) / h
    reason = _why_missing(theta, shifts, others, measure)
    return StandardErrors(np.sqrt(squares / len(parts)), reason)


def convergence(parts: MinibatchSums, measure: Measure) -> Float64[np.ndarray, "b r c"]:
    """Return the values of the first 1, 2, ... b minibatches; the last is that of all."""
    total = zero_sums(*parts.cross.shape[1:])
    curve = np.empty_like(parts.cross)
    for j in range(len(parts)):
        total = merged(total, parts[j])
        curve[j] = measure.finish(total)
    return curve


def _sums_of_others(x: Shaped[np.ndarray, "b ..."]) -> Shaped[np.ndarray, "b ..."]:
    # Those before and those after, rather than the total less one: beside a minibatch with an
    # outlier, whose HSIC grows with its fourth power, rounding would leave nothing of the others.
    others = np.zeros_like(x)
    np.cumsum(x[:-1], axis=0, out=others[1:])
    after = np.zeros_like(x[0])
    for j in reversed(range(len(x) - 1)):
        after += x[j + 1]
        others[j] += after
    return others


def _why_missing(theta: Matrix, shifts: Matrix, others: MinibatchSums, measure: Measure) -> str:
    undefined = np.isnan(theta)
    lost = np.isnan(shifts).any(axis=0) & ~undefined
    why = []
    if undefined.any():
        why.append(f"{measure.title} itself is not defined for {undefined.sum()}")
    if lost.any():
        i, j = np.argwhere(lost)[0]
        b = int(np.argmax(np.isnan(shifts[:, i, j])))
        why.append(f"without minibatch {b} {measure.why_undefined(others[b], int(i), int(j))}")
    if not why:
        return ""
    missing = f"{(undefined | lost).sum()} of {theta.size} standard errors are missing"
    return f"{missing}: {', and '.join(why)}"
