"""Where the rows of a network's taps go: the store of activations, and that of Grams."""

from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import chain

import numpy as np
from jaxtyping import Float

from allcnn.provenance import stamp
from allcnn.similarity import gram, median_distance, pair_sums
from store import GramKey, GramMeta, Grams, GramWriter, RepresentationMeta, Writer, open_grams
from store.model.narrowing import narrow_rows
from store.model.schema import Span


class ActivationSink:
    """The activation store, a writer a tap; a minibatch is written while the next is computed."""

    def __init__(
        self,
        writers: Mapping[str, Writer],
        closing: ExitStack,
        *,
        only_taken_back: bool = False,
    ) -> None:
        self._writers = writers
        # Entered after the writers, so that it ends before they are closed.
        self._thread = closing.enter_context(ThreadPoolExecutor(2, "writing"))
        blocks = {tap: _blocks(writer, only_taken_back) for tap, writer in writers.items()}
        self._missing = {tap: {start for start, _ in spans} for tap, spans in blocks.items()}
        self._pending: list[Future[None]] = []
        self._start = 0
        self._failed = False

    def lacks(self, start: int, stop: int) -> bool:
        """Return whether any tap lacks a minibatch."""
        return any(start in starts for starts in self._missing.values())

    def take(self, tap: str, start: int, rows: Float[np.ndarray, "n ..."]) -> None:
        """Have rows of a tap written, unless it has them."""
        if start != self._start:
            # Else the minibatches that wait to be written would fill the memory.
            self._wait()
            self._start = start
        # A kill may have left some taps further than others, and a repair gaps.
        if start in self._missing.get(tap, ()):
            self._pending.append(self._thread.submit(self._append, tap, rows))

    def finish(self) -> None:
        """Wait until all is written; raises what writing raised."""
        self._wait()

    def _append(self, tap: str, rows: Float[np.ndarray, "n ..."]) -> None:
        if self._failed:
            return
        try:
            self._writers[tap].append(rows)
        except BaseException:
            self._failed = True
            raise

    def _wait(self) -> None:
        pending, self._pending = self._pending, []
        for each in pending:
            each.result()


class GramSink:
    """The Gram store, a writer a tap; rows are held until their minibatch is whole."""

    def __init__(self, writers: Mapping[str, GramWriter], *, only_taken_back: bool = False) -> None:
        self._writers = writers
        self._missing = {
            tap: deque(missing_rows(writer, only_taken_back)) for tap, writer in writers.items()
        }
        self._held: dict[str, list[Float[np.ndarray, "n ..."]]] = {tap: [] for tap in writers}

    def lacks(self, start: int, stop: int) -> bool:
        """Return whether any tap lacks a Gram of some of these rows."""
        missing = chain.from_iterable(self._missing.values())
        return any(first < stop and start < end for first, end in missing)

    def take(self, tap: str, start: int, rows: Float[np.ndarray, "n ..."]) -> None:
        """Hold rows of a tap, and write the Gram of a minibatch once it is whole."""
        missing = self._missing.get(tap)
        if not missing:
            return
        writer, held = self._writers[tap], self._held[tap]
        n_held = sum(map(len, held))
        if missing[0][0] != start - n_held:
            return
        key = writer.meta.key
        held.append(narrow_rows(rows, key.dtype, str(key.of)))
        first, stop = missing[0]
        if n_held + len(rows) == stop - first:
            X = held[0] if len(held) == 1 else np.concatenate(held)
            held.clear()
            writer.append(*gram.gram(gram.pooled(X, key.pool), key.kernel, writer.unit))
            missing.popleft()

    def finish(self) -> None:
        """Keep the median distances of linear Grams, the units of RBF bandwidths."""
        for writer in self._writers.values():
            keep_median_distance(writer)


Sink = ActivationSink | GramSink
"""Where the rows of a network's taps go."""


def gram_meta(of: RepresentationMeta, key: GramKey) -> GramMeta:
    """Return what the Grams of a representation are stored with."""
    return GramMeta(
        key,
        of.sample_set,
        of.tap_index,
        tuple(pair_sums.split_minibatches(of.n_samples, key.batch_size)),
        attributes=of.attributes,
        n_taps=of.n_taps,
        **stamp(),
    )


def missing_rows(writer: GramWriter, only_taken_back: bool = False) -> list[Span]:
    """Return the rows of each minibatch whose Gram is to be written."""
    blocks = _blocks(writer, only_taken_back)
    return [rows for first, stop in blocks for rows in writer.meta.ranges[first:stop]]


def _blocks(writer: Writer | GramWriter, only_taken_back: bool) -> tuple[Span, ...]:
    return writer.taken_back if only_taken_back else writer.missing


def median_distance_of(grams: Grams) -> float:
    """Return the median distance of whole linear Grams, which are read where it is not kept."""
    if grams.median_distance is not None:
        return grams.median_distance
    n, step = grams.meta.length, grams.meta.block_length
    blocks = (grams.read(start, min(start + step, n)) for start in range(0, n, step))
    return median_distance.median_of_grams(chain.from_iterable(blocks))


def keep_median_distance(writer: GramWriter) -> None:
    """Keep the median distance with linear Grams that have become whole."""
    key = writer.meta.key
    if writer.complete and key.kernel == "linear" and writer.median_distance is None:
        writer.set_median_distance(median_distance_of(open_grams(writer.store_path)[key]))
