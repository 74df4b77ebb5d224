"""How exact the squared distances are that a Gram matrix holds, and which of them are 0.

A squared distance is K_ii + K_jj - 2 K_ij. Where rows lie far from the reference that they are
shifted by, or from the others, the three are large, and rounding is all that is left of it.
"""

from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int

Matrix = Float[np.ndarray, "a b"]
Norms = Float[np.ndarray, "n"]

LIMIT = 1e-5
"""Largest error of a squared distance, against the usual one, that CKA does not show."""

_ROUNDINGS, _OF_MANY, _MANY = 16, 8, 2048
"""Unit roundoffs of both squared norms by which a squared distance is off: of a few features, and
of many, whose sums are made of pieces.

For 65,000 pairs, with any number of features, none was off by more, and the mean by a tenth; rows
near a constant that is not taken out reach twice as much.
"""

_USUAL = 0.4
"""Quantile of the distances of which errors are shares. Not the median: that of all minibatches may
lie below it where half of the pairs are far apart."""

_NEAR, _NEAR_LIMIT = 0.005, 3e-4
"""Quantile of the distances within classes, as of a hundred that lie far apart, and the largest
error against it that CKA of a single class does not show."""

TINY, HUGE = 1e-30, 1e37
"""Squared norms of float32 rows beyond these may have lost digits, or overflow in a sum."""

_SAMPLED_PAIRS = 4096


def error_bound(K: Matrix, p: int, *norms: Norms, usual: float | None = None) -> float:
    """Return a bound of the errors of squared distances, as a share of usual ones.

    An error counts wherever it is: wide kernels see distances far above the median.

    Args:
        K: products of rows with others, in the precision in which they were computed.
        p: features of a row.
        norms: squared norms of the rows and of the others; none for a Gram matrix, which has them
            on its diagonal.
        usual: the usual squared distance; None for that of these rows.

    Infinite for float32 where a distance is within its error, where those within classes lost
    digits, and where norms leave its range; NaN where float64 values are not finite.
    """
    a, b = norms or (K.diagonal(), K.diagonal())
    with np.errstate(over="ignore", invalid="ignore"):
        sums = a[:, None] + b[None, :]
        squared, errors = sums - 2 * K, _errors(sums, p)
        if not norms:
            np.fill_diagonal(squared, np.inf)
            np.fill_diagonal(errors, 0)
        in_range = TINY < max(float(a.max()), float(b.max())) < HUGE
        if K.dtype == np.float32 and not (in_range and bool((squared > errors).all())):
            return np.inf
        near, own = _near_and_usual(squared, errors)
        usual, largest = own if usual is None else usual, float(errors.max())
        if K.dtype == np.float32 and largest > _NEAR_LIMIT * near:
            return np.inf
        return largest / usual if usual != 0 else 0.0


def usual_distance(K: Float[np.ndarray, "n n"]) -> float:
    """Return the usual squared distance above 0 of a Gram; 0 where all are 0."""
    with np.errstate(over="ignore", invalid="ignore"):
        sums = K.diagonal()[:, None] + K.diagonal()[None, :]
        return _near_and_usual(sums - 2 * K, _errors(sums))[1]


def centred_bound(K: Float[np.ndarray, "n n"], p: int) -> float:
    """Estimate the bound for the Gram of the same rows, shifted by their mean."""
    with np.errstate(over="ignore", invalid="ignore"):
        means = K.mean(axis=1)
        norms = K.diagonal() - 2 * means + means.mean()
        usual = usual_distance(K)
        return float(2 * _errors(norms, p).max()) / usual if usual != 0 else np.inf


def squared_distances(K: Matrix, *norms: Norms) -> Matrix:
    """Return the squared distances, exactly 0 where they are within their errors.

    Takes what `error_bound` takes.
    """
    a, b = norms or (K.diagonal(), K.diagonal())
    return _resolved(a[:, None] + b[None, :], K)


def packed_squared_distances(packed: Float[np.ndarray, "t"]) -> Float[np.ndarray, "t"]:
    """Return them of a Gram's upper triangle, row after row, with the zeros of its diagonal."""
    rows, columns = _triangle(packed.size)
    norms = packed[rows == columns]
    return _resolved(norms[rows] + norms[columns], packed)


def _resolved(
    sums: Float[np.ndarray, "..."], K: Float[np.ndarray, "..."]
) -> Float[np.ndarray, "..."]:
    with np.errstate(over="ignore", invalid="ignore"):
        squared = sums - 2 * K
        squared[squared <= _errors(sums)] = 0  # NaN stays
    return squared


def _errors(sums: Float[np.ndarray, "..."], p: int | None = None) -> Float[np.ndarray, "..."]:
    """Return bounds of errors; where ``p`` is not known, those that are certainly possible."""
    if p is None:
        p = _MANY if sums.dtype == np.float32 else 0
    roundings = _OF_MANY if p >= _MANY else _ROUNDINGS
    return sums * sums.dtype.type(roundings * np.finfo(sums.dtype).eps / 2)


def _near_and_usual(squared: Matrix, errors: Matrix) -> tuple[float, float]:
    """Return quantiles of the distances above 0, of a sample of pairs; 0 where all are 0."""
    chosen = _some_pairs(*squared.shape)
    some, least = squared.ravel()[chosen], errors.ravel()[chosen]
    above = some[(some > least) & (some < np.inf)]
    if not above.size:
        finite = squared[(squared > errors) & (squared < np.inf)]
        only = float(finite.min()) if finite.size else float(0 * errors.max())
        return only, only
    near, usual = (int(share * above.size) for share in (_NEAR, _USUAL))
    above.partition((near, usual))
    return float(above[near]), float(above[usual])


@lru_cache(maxsize=16)
def _some_pairs(n: int, m: int) -> Int[np.ndarray, "k"]:
    """Draw pairs at random: every sixteenth row, say, may be unlike the others."""
    drawn = np.random.default_rng(0).integers(0, n * m, min(_SAMPLED_PAIRS, 4 * n * m))
    return np.unique(drawn)


@lru_cache(maxsize=4)
def _triangle(size: int) -> tuple[Int[np.ndarray, "t"], Int[np.ndarray, "t"]]:
    return np.triu_indices((int(np.sqrt(8 * size + 1)) - 1) // 2)
