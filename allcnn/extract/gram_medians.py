"""The median distance that Grams hold, kept beside them so that they need not be read for it."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from allcnn.similarity import median_distance as bandwidth
from store import Grams, GramWriter, open_grams


def median_distance(grams: Grams) -> float:
    """Return the median distance of whole linear Grams; what none is kept of is read."""
    kept = grams.median_distance
    return bandwidth.median_of_grams(_triangles(grams)) if kept is None else kept


def keep_median_distance(writer: GramWriter) -> None:
    """Keep it with linear Grams that have become whole; not having it costs their reading alone."""
    key = writer.meta.key
    if writer.complete and key.kernel == "linear" and writer.median_distance is None:
        writer.set_median_distance(median_distance(open_grams(writer.store_path)[key]))


def _triangles(grams: Grams) -> Iterator[Float[np.ndarray, "t"]]:
    step = grams.meta.block_length
    for start in range(0, grams.meta.length, step):
        yield from grams.read(start, min(start + step, grams.meta.length))
