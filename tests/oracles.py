"""Slow float64 answers that share no algebra with the code under test."""

import itertools

import numpy as np
from scipy.spatial.distance import pdist, squareform


def hsic_by_definition(K, L):
    """Mean over ordered 4-tuples of examples, O(n^4) (Song et al. 2012, eq. 3)."""
    K, L = np.asarray(K, np.float64), np.asarray(L, np.float64)
    tuples = itertools.permutations(range(len(K)), 4)
    return np.mean([K[i, j] * (L[i, j] + L[q, r] - 2 * L[i, q]) for i, j, q, r in tuples])


def song_hsic(K, L):
    """Unbiased HSIC as written by Song et al. (2012, eq. 5), without centring any matrix."""
    K, L = np.array(K, np.float64), np.array(L, np.float64)
    n = len(K)
    np.fill_diagonal(K, 0)
    np.fill_diagonal(L, 0)
    one = np.ones(n)
    trace = np.trace(K @ L)
    means = (one @ K @ one) * (one @ L @ one) / ((n - 1) * (n - 2))
    return (trace + means - 2 / (n - 2) * (one @ K @ L @ one)) / (n * (n - 3))


def biased_hsic_by_trace(K, L):
    """Trace of KHLH with an explicit centring matrix (Gretton et al. 2005, eq. 9)."""
    n = len(K)
    H = np.eye(n) - np.ones((n, n)) / n
    return np.trace(np.float64(K) @ H @ np.float64(L) @ H) / (n - 1) ** 2


ORACLES = {"unbiased": song_hsic, "biased": biased_hsic_by_trace, "exact": song_hsic}


def linear_gram64(X):
    """Multiply the rows less their mean, without which float64 too loses digits in song_hsic."""
    flat = np.asarray(X).reshape(len(X), -1)
    return sum((B - B.mean(0)) @ (B - B.mean(0)).T for B in _column_blocks(flat))


def cosine_gram64(X):
    """Normalise the rows, then multiply them less their mean; a row of zeros stays zero."""
    flat = np.asarray(X).reshape(len(X), -1)
    norms = np.sqrt(sum((B * B).sum(1) for B in _column_blocks(flat)))[:, None]
    unit = (B / np.where(norms, norms, 1) for B in _column_blocks(flat))
    return sum((B - B.mean(0)) @ (B - B.mean(0)).T for B in unit)


def centred(K):
    """Subtract the means of rows and columns: what a shift of the features leaves alone."""
    K = np.float64(K)
    return K - K.mean(0)[None, :] - K.mean(1)[:, None] + K.mean()


def mean_pooled64(X):
    """Average all axes but first and last, one example at a time."""
    return np.stack([np.float64(x).reshape(-1, x.shape[-1]).mean(0) for x in X])


def squared_distances64(X):
    """Sum squared differences of all pairs i < j, in the order of scipy's ``pdist``."""
    return sum(pdist(B, "sqeuclidean") for B in _column_blocks(np.asarray(X).reshape(len(X), -1)))


def rbf_gram64(X, sigma):
    return np.exp(-squareform(squared_distances64(X)) / (2 * sigma**2))


def median_distance64(X, ranges=None):
    """Return the median over pairs that differ, of all examples or of those within ranges."""
    ranges = [(0, len(X))] if ranges is None else ranges
    squared = np.concatenate([squared_distances64(X[start:stop]) for start, stop in ranges])
    return float(np.median(np.sqrt(squared[squared > 0]))) if squared.any() else 0.0


def activations(n=40, shape=(5, 5, 700), mean=0.0, dtype=np.float32, seed=0):
    """Rows with a few strong directions; wider than one tile of columns by default."""
    rng = np.random.default_rng(seed)
    p = int(np.prod(shape))
    X = rng.standard_normal((n, 8)) @ rng.standard_normal((8, p)) + rng.standard_normal((n, p))
    return (X + mean * 3).astype(dtype).reshape(n, *shape)


def relative_error(found, wanted):
    return np.abs(found - wanted).max() / np.abs(wanted).max()


def cka64(
    rows,
    columns,
    ranges,
    *,
    kernel="linear",
    fraction=0.4,
    estimator="unbiased",
    pool="whole",
):
    """CKA of every array of ``rows`` with every one of ``columns``, over minibatch ``ranges``.

    sigma is ``fraction`` of the median distance within minibatches. The exact estimator is the
    unbiased one over all rows, up to 1,024, at once, whatever the ranges. NaN where not defined.
    """
    hsic = ORACLES[estimator]
    if estimator == "exact":
        ranges = [(0, len(rows[0]))]
    if pool == "mean":
        rows, columns = ([mean_pooled64(X) for X in side] for side in (rows, columns))
    Ks = [_minibatch_grams(X, ranges, kernel, fraction) for X in rows]
    Ls = [_minibatch_grams(X, ranges, kernel, fraction) for X in columns]

    def summed(A, B):
        return sum(len(K) * hsic(K, L) for K, L in zip(A, B, strict=True))

    self_products = np.outer([summed(K, K) for K in Ks], [summed(L, L) for L in Ls])
    cross = np.array([[summed(K, L) for L in Ls] for K in Ks])
    defined = self_products > 0
    return np.where(defined, cross / np.sqrt(np.where(defined, self_products, 1)), np.nan)


def _minibatch_grams(X, ranges, kernel, fraction):
    if kernel == "rbf":
        sigma = fraction * median_distance64(X, ranges)
        return [rbf_gram64(X[start:stop], sigma) for start, stop in ranges]
    gram = {"linear": linear_gram64, "cosine": cosine_gram64}[kernel]
    return [gram(X[start:stop]) for start, stop in ranges]


def _column_blocks(flat, width=8192):
    # A block at a time: a float64 copy of 512 rows of the first layer would take 1.2 GB.
    return (
        flat[:, start : start + width].astype(np.float64)
        for start in range(0, flat.shape[1], width)
    )


def conv64(images, kernel, stride, padding):
    """Convolve NHWC images with an HWIO kernel, one kernel position at a time."""
    images, kernel = np.float64(images), np.float64(kernel)
    k, side = len(kernel), images.shape[1]
    total = max((-(-side // stride) - 1) * stride + k - side, 0) if padding == "SAME" else 0
    low, high = total // 2, total - total // 2
    images = np.pad(images, ((0, 0), (low, high), (low, high), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(images, (k, k), (1, 2))
    return np.einsum("nyxcij,ijco->nyxo", windows[:, ::stride, ::stride], kernel)


def jackknife64(cross, rows, columns, sizes):
    """Follow the formulas for one CKA of Busing, Meijer and van der Leeden (1999).

    The arguments are lists of one number a minibatch: n·HSIC of the pair, of either with itself,
    and examples.
    """

    def cka_without(deleted):
        kept = [j for j in range(len(sizes)) if j != deleted]
        own = sum(rows[j] for j in kept) * sum(columns[j] for j in kept)
        return sum(cross[j] for j in kept) / own**0.5

    n, g, theta = sum(sizes), len(sizes), cka_without(None)
    deleted = [cka_without(j) for j in range(g)]
    estimate = g * theta - sum((1 - m / n) * t for m, t in zip(sizes, deleted, strict=True))
    variance = 0.0
    for m, t in zip(sizes, deleted, strict=True):
        h = n / m
        pseudo = h * theta - (h - 1) * t
        variance += (pseudo - estimate) ** 2 / (h - 1) / g
    return variance**0.5
