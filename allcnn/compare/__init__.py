"""The bridge from the stores to CKA matrices, through tasks that Dask schedules.

First every representation's Grams, where they are not kept yet, then all pairs from the Grams. Sums
are put together in the order of the rows, whatever order the tasks finished in.
"""

from typing import TYPE_CHECKING

from store.lazy import lazy

if TYPE_CHECKING:
    from allcnn.compare.candidates import network_of
    from allcnn.compare.compute import compare
    from allcnn.compare.select import choose
    from store import SimilarityResult

__all__ = ["SimilarityResult", "choose", "compare", "network_of"]

__getattr__ = lazy(
    __name__,
    {
        "allcnn.compare.candidates": "network_of",
        "allcnn.compare.compute": "compare",
        "allcnn.compare.select": "choose",
        "store": "SimilarityResult",
    },
)
