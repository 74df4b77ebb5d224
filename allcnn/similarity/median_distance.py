"""The median distance between examples, the unit of the RBF kernel's bandwidths.

Only pairs at a distance above 0 count, so that files that begin with dead rows, or hold many equal
ones, have a unit, too: all pairs within minibatches, whose Grams hold them, or those of a sample
that is spread over the whole set.
"""

from collections.abc import Callable, Iterable

import numpy as np
from jaxtyping import Float, Float64, Int

from allcnn.similarity import gram, gram_error
from allcnn.similarity.gram import Rows

ReadBlock = Callable[[int, int], Rows]

SAMPLE_ROWS = 1024
"""Examples of a sample; their 523,776 pairs determine a median to about a thousandth."""

BLOCK_ROWS = 256
"""Examples of a block, two of which are held at a time."""


def median_of_grams(packed: Iterable[Float[np.ndarray, "t"]]) -> float:
    """Return the median distance of all pairs within minibatches, from packed linear Grams.

    0.0 where all pairs are equal, as in a dead layer, and NaN where an example is not finite:
    neither can scale a bandwidth.
    """
    return _median(_above_zero(gram_error.packed_squared_distances(each)) for each in packed)


def sample_rows(n: int) -> Int[np.ndarray, "k"]:
    """Return the places of up to 1,024 of ``n`` examples, one drawn from each stretch of them.

    Drawn, since every sixteenth may be unlike the others.
    """
    if n <= SAMPLE_ROWS:
        return np.arange(n)
    bounds = np.linspace(0, n, SAMPLE_ROWS + 1).astype(np.int64)
    return np.random.default_rng(0).integers(bounds[:-1], bounds[1:])


def median_of_rows(read_block: ReadBlock, n: int, reference: gram.Reference) -> float:
    """Return the median distance of all pairs of ``n`` examples, as `median_of_grams`.

    ``read_block(start, stop)`` is called so that at most two blocks are held at a time.
    Raises ValueError for n < 2.
    """
    if n < 2:
        raise ValueError(f"the median distance of {n} examples is not defined; use 2 or more")
    spans = [(start, min(start + BLOCK_ROWS, n)) for start in range(0, n, BLOCK_ROWS)]
    found = []
    for i, span in enumerate(spans):
        A = read_block(*span)
        own = gram.cross_gram(A, A, reference)
        found.append(_above_zero(own.squared_distances()[np.triu_indices(len(A), k=1)]))
        found += [_between(A, read_block, other, reference) for other in spans[i + 1 :]]
    return _median(found)


def _between(
    A: Rows, read_block: ReadBlock, span: tuple[int, int], reference: gram.Reference
) -> Float64[np.ndarray, "k"]:
    # The block lives in this call alone, so the next is not read while it is still held.
    return _above_zero(gram.cross_gram(A, read_block(*span), reference).squared_distances())


def _above_zero(squared: Float[np.ndarray, "..."]) -> Float64[np.ndarray, "k"]:
    # Not-a-numbers are kept: they make the median one.
    return squared[squared != 0].astype(np.float64)


def _median(squared: Iterable[Float64[np.ndarray, "k"]]) -> float:
    together = np.concatenate([np.empty(0), *squared])
    return float(np.median(np.sqrt(together))) if together.size else 0.0
