"""The bridge from the stores to CKA matrices, through tasks that Dask schedules.

First every representation's Grams, where they are not kept yet, then all pairs from the Grams. Sums
are put together in the order of the rows, whatever order the tasks finished in.
"""

from typing import TYPE_CHECKING

from store.lazy import lazy

if TYPE_CHECKING:
    from allcnn.compare.candidates import network_of as network_of
    from allcnn.compare.compute import compare as compare
    from allcnn.compare.select import choose as choose
    from store import SimilarityResult as SimilarityResult

__getattr__, __all__ = lazy(__name__, __file__)
