"""Where the rows of a network's taps go: the store of activations, and that of Grams."""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
from jaxtyping import Float

from allcnn.extract.gram_medians import keep_median_distance
from allcnn.similarity import gram
from store import GramWriter, Writer
from store.model.narrowing import narrow_rows


class Sink(Protocol):
    """Where the rows of a network's taps go."""

    @property
    def next_row(self) -> int:
        """The first row that is not kept yet."""

    def take(self, tap: str, start: int, rows: Float[np.ndarray, "n ..."]) -> None:
        """Keep rows of a tap; rows that are kept already are passed over."""

    def finish(self) -> None:
        """Do what needs more than one minibatch."""


class ActivationSink:
    """The activation store, a writer a tap; a minibatch is written while the next is computed."""

    def __init__(self, writers: Mapping[str, Writer], thread: ThreadPoolExecutor) -> None:
        self._writers = writers
        self._thread = thread
        self._pending: list[Future[None]] = []
        self._start = 0
        self._failed = False

    @property
    def next_row(self) -> int:
        """The first row that a tap lacks."""
        return min(writer.n_committed for writer in self._writers.values())

    def take(self, tap: str, start: int, rows: Float[np.ndarray, "n ..."]) -> None:
        """Have rows of a tap written, unless it has them."""
        if start != self._start:
            # Else the minibatches that wait to be written would fill the memory.
            self._wait()
            self._start = start
        # A kill may have left some taps further than others.
        if self._writers[tap].n_committed == start:
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

    def __init__(self, writers: Mapping[str, GramWriter]) -> None:
        self._writers = writers
        self._next = {tap: writer.n_committed for tap, writer in writers.items()}
        self._held: dict[str, list[Float[np.ndarray, "n ..."]]] = {tap: [] for tap in writers}

    @property
    def next_row(self) -> int:
        """The first row that a tap lacks."""
        return min(self._start(tap) for tap in self._writers)

    def take(self, tap: str, start: int, rows: Float[np.ndarray, "n ..."]) -> None:
        """Hold rows of a tap, and write the Gram of a minibatch once it is whole."""
        writer, held = self._writers[tap], self._held[tap]
        whole = self._next[tap] == len(_ranges(writer))
        if whole or self._start(tap) != start - sum(map(len, held)):
            return
        key = writer.meta.key
        held.append(narrow_rows(rows, key.dtype, str(key.of)))
        first, stop = _ranges(writer)[self._next[tap]]
        if sum(map(len, held)) == stop - first:
            X = held[0] if len(held) == 1 else np.concatenate(held)
            held.clear()
            writer.append(*gram.gram(gram.pooled(X, key.pool), key.kernel, writer.unit))
            self._next[tap] += 1

    def finish(self) -> None:
        """Keep the median distances of linear Grams, the units of RBF bandwidths."""
        for writer in self._writers.values():
            keep_median_distance(writer)

    def _start(self, tap: str) -> int:
        ranges, index = _ranges(self._writers[tap]), self._next[tap]
        return ranges[index][0] if index < len(ranges) else ranges[-1][1]


def _ranges(writer: GramWriter) -> tuple[tuple[int, int], ...]:
    return writer.meta.ranges
