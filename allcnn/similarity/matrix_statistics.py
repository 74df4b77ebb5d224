"""Means of matrices and how far they spread: over pairs of networks, and over classes."""

from collections.abc import Sequence
from itertools import combinations, permutations
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from allcnn.similarity.layer_identification import as_blocks


class Spread(NamedTuple):
    """The mean of some matrices, entry by entry, and their standard deviation.

    Attributes:
        mean: of the values that are defined; NaN where none is.
        deviation: with n - 1 below, for n values; NaN where fewer than two are defined.
        n: matrices.
    """

    mean: Float[np.ndarray, "r c"]
    deviation: Float[np.ndarray, "r c"]
    n: int


def spread(matrices: Sequence[Float[np.ndarray, "r c"]]) -> Spread:
    """Return mean and standard deviation of matrices of one shape; NaN counts as not there."""
    if not len(matrices):
        raise ValueError("there are no matrices to average; give one or more")
    values = np.ma.masked_invalid(np.stack([np.asarray(m, np.float64) for m in matrices]))
    n = values.count(axis=0)
    mean = values.mean(axis=0)
    squares = np.square(values - mean).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        deviation = np.sqrt(np.ma.filled(squares, 0.0) / (n - 1))
    deviation[n < 2] = np.nan
    return Spread(np.ma.filled(mean, np.nan), deviation, len(matrices))


def between_networks(
    matrix: Float[np.ndarray, "m m"], networks: Sequence[str], taps: Sequence[str]
) -> Spread:
    """Return mean and spread over all pairs of different networks of one architecture.

    Row and column k are tap ``taps[k]`` of network ``networks[k]`` (Kornblith et al. 2019, Figure
    2, and section 6.1). A pair counts once, by the mean of both orders: the two hold the same
    numbers, so that their difference is no spread between networks. Raises ValueError for fewer
    than two networks, and where taps differ.
    """
    _, blocks = as_blocks(matrix, networks, taps)
    n = len(dict.fromkeys(networks))
    # Ordered pairs come row after row of all networks against each other, without the diagonal.
    of_pair = dict(zip(permutations(range(n), 2), blocks, strict=True))
    pairs = combinations(range(n), 2)
    return spread([spread([of_pair[i, j], of_pair[j, i]]).mean for i, j in pairs])
