"""Write all taps of one network, computed by any library: minibatches of any size, in order."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import product
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from store.arrays.reader import Representation, Store
from store.arrays.writer import Compression, Writer
from store.errors import (
    ArrayError,
    ConflictError,
    MisalignedWriteError,
    StoreError,
    UnfinishedError,
)
from store.model.array_interop import as_rows, check_mapping
from store.model.examples import Examples
from store.model.schema import Attributes, DType, RepresentationKey, RepresentationMeta, SampleSet
from store.storage.paths import Address, as_place
from store.zarrfiles.layout import has_store

Taps = dict[str, npt.NDArray[Any]]

DTYPE: Final[DType] = "float32"
BATCH_ROWS: Final = 256


class NetworkWriter:
    """Fills the taps of one network, minibatch after minibatch; opened again, it goes on.

    The rows that are appended first define the taps, their order and their shapes. NaN and
    infinities that the network computed are stored as they are. Use it in a ``with`` block, which
    raises UnfinishedError at its end where rows are missing; those that are there stay.

    Args:
        store: folder or address of the store, made where there is none.
        run: name of the trained network.
        checkpoint: name of its state, such as ``final``.
        examples: the examples of the rows, in their order.
        digest: of all that the activations depend on, as ``store.digest`` gives it; a network of
            the same name and another digest is refused.
        dtype: as stored; others are cast, unless that loses how examples differ (PrecisionError).
        batch_rows: rows of a minibatch of the store; rows may be appended in other numbers.
        channels_first: whether arrays of three and four axes are (n, c, position) and (n, c, h, w),
            as PyTorch's are, which are stored with their channels last: those of all taps, or of
            the named ones.
        attributes: facts about the network, such as ``{"depth": 18, "seed": 0}``; they replace
            those that are stored, except those of kept Grams.
        compression: of the chunks of new taps.
        created_by: program and version.
        taps: names of all of them in the network's order, where they are known before the first
            rows: they are compared with the stored ones at once, and if one of them is missing,
            rows are requested from the first on.
    """

    def __init__(
        self,
        store: Address,
        *,
        run: str,
        checkpoint: str,
        examples: Examples,
        digest: str,
        dtype: DType = DTYPE,
        batch_rows: int = BATCH_ROWS,
        channels_first: bool | Collection[str] = False,
        attributes: Attributes | None = None,
        compression: Compression = "none",
        created_by: str | None = None,
        taps: Sequence[str] | None = None,
    ) -> None:
        self._store = as_place(store)
        self._examples = examples
        self._channels_first = channels_first
        self._compression = compression
        self._like = common_meta(
            run, checkpoint, examples, digest, dtype, batch_rows, attributes, created_by
        )
        self._name = f"{run}@{checkpoint}"
        stored, wanted = self.stored(), dict(self._like.attributes)
        if taps is not None:
            self._check_names(stored, list(taps))
        self._taps = taps
        self._next_row = _common_rows(stored, taps)
        for tap in stored:
            if wanted and dict(tap.meta.attributes) != wanted:
                self.open_tap(replace(tap.meta, attributes=wanted)).close()
        self._writers: dict[str, Writer] = {}
        self._held: list[Taps] = []
        self._open = ExitStack()
        self._failed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close()
        if kind is None and not self.complete:
            found = f"has {self.next_row} of {self.n_samples} rows"
            remedy = "append the others: opened again, it goes on after the last whole minibatch"
            raise UnfinishedError(self._name, found, remedy=remedy)

    @property
    def n_samples(self) -> int:
        """Rows of the finished arrays."""
        return self._like.n_samples

    @property
    def next_row(self) -> int:
        """The row that has to be appended next."""
        return self._next_row

    @property
    def complete(self) -> bool:
        """Whether all rows are there."""
        return self._next_row == self.n_samples

    def minibatches(self) -> Iterator[slice]:
        """Yield the rows that are to be computed and appended, a minibatch at a time."""
        while not self.complete:
            self._check_not_failed()
            start, stop = self._next_row, self._block_end(self._next_row)
            yield slice(start, stop)
            self._check_not_failed()
            if self._next_row == start:
                found = f"got nothing after rows {start} to {stop - 1} were asked for"
                raise self._misaligned(found, "append them before asking for more")

    def append(self, taps: Mapping[str, Any], start: int | None = None) -> None:
        """Take the next rows of all taps; every whole minibatch is written and committed.

        Rows are NumPy arrays, PyTorch tensors on any device, or what NumPy can convert, of shape
        (n, c), (n, position, c) or (n, h, w, c). Raises ArrayError or MisalignedWriteError for
        others before anything is written, also where ``start``, the row that they begin at, is not
        ``next_row``. After an error in writing, ``next_row`` is the first row that some tap lacks,
        and no more is taken until the network is opened again: some of these rows are stored.
        """
        self._check_not_failed()
        first = self._next_row
        if start not in (None, first):
            found = f"got rows from row {start} on, and row {first} is next"
            raise self._misaligned(found, "go on from next_row")
        check_mapping(taps)
        arrays = {name: as_rows(name, tap, self._channels_first) for name, tap in taps.items()}
        stop = first + self._count_rows(arrays)
        if not self._writers:
            self._open_writers(arrays)
        self._check_shapes(arrays)
        try:
            while self._next_row < stop:
                here, end = self._next_row, min(stop, self._block_end(self._next_row))
                self._take({name: X[here - first : end - first] for name, X in arrays.items()}, end)
        except BaseException:
            # Appended again, these rows would be read as the next ones.
            self._failed = True
            self._held.clear()
            self._next_row = min(writer.n_committed for writer in self._writers.values())
            with suppress(StoreError):  # the first error is the one to report
                self.close()
            raise

    def close(self) -> None:
        """Release the taps; rows that make no whole minibatch have to be appended again."""
        self._next_row -= sum(len(next(iter(part.values()))) for part in self._held)
        self._held.clear()
        self._writers = {}
        self._open.close()

    def stored(self) -> list[Representation]:
        """Return the taps that are stored already, whole or not."""
        return stored_taps(self._store, self._like)

    def take_back_damaged(self) -> None:
        """Request damaged minibatches again.

        Raises DamagedChunkError for damaged coordinates and metadata, which are not among the rows.
        """
        for tap in self.stored():
            _ = tap.samples, tap.labels
            damaged = [c.start for c in (*tap.commits, *tap.kept) if tap.check(c) is not None]
            if damaged:
                with self.open_tap(tap.meta) as writer:
                    writer.take_back(damaged)
        self._next_row = _common_rows(self.stored(), self._taps)

    def open_tap(self, meta: RepresentationMeta) -> Writer:
        """Open one tap for writing."""
        indices, labels = self._examples.indices, self._examples.labels
        return Writer.open(self._store, meta, indices, labels, compression=self._compression)

    def _misaligned(self, found: str, remedy: str) -> MisalignedWriteError:
        return MisalignedWriteError(self._name, found, remedy=remedy)

    def _check_not_failed(self) -> None:
        if self._failed:
            found = f"failed at row {self._next_row}"
            raise self._misaligned(found, "open it again and go on from next_row")

    def _block_end(self, row: int) -> int:
        size = self._like.batch_rows
        return min((row // size + 1) * size, self.n_samples)

    def _take(self, part: Taps, stop: int) -> None:
        """Hold rows until their minibatch is whole, then write it."""
        if stop < self._block_end(self._next_row):
            # Copied: the caller may compute the next ones into the same memory.
            self._held.append({name: np.array(rows) for name, rows in part.items()})
        else:
            first = (stop - 1) // self._like.batch_rows * self._like.batch_rows
            for name, writer in self._writers.items():
                # After a kill some taps may have more rows than others.
                if writer.n_committed == first:
                    rows = [held[name] for held in self._held] + [part[name]]
                    writer.append(rows[0] if len(rows) == 1 else np.concatenate(rows))
            self._held.clear()
        self._next_row = stop

    def _count_rows(self, arrays: Taps) -> int:
        """Return the number of rows, the same for all taps and not too many."""
        counts = {name: len(rows) for name, rows in arrays.items()}
        if len(set(counts.values())) != 1:
            found = ", ".join(f"{n} of {name}" for name, n in counts.items()) or "no taps"
            raise self._misaligned(f"got {found}", "append the same rows of all taps")
        n = next(iter(counts.values()))
        if self._next_row + n > self.n_samples:
            found = f"got {n} rows after row {self._next_row}, and there are {self.n_samples}"
            raise self._misaligned(f"{found} examples", "append one row an example")
        return n

    def _check_shapes(self, arrays: Taps) -> None:
        if set(arrays) != set(self._writers):
            found = f"got the taps {', '.join(arrays)}, and before them {', '.join(self._writers)}"
            raise self._misaligned(found, "append all of them each time")
        for name, rows in arrays.items():
            before, got = self._writers[name].meta.shape, rows.shape[1:]
            if got != before:
                found = f"got rows of shape {got}, and before them {before}"
                advice = "give all rows one shape"
                raise MisalignedWriteError(f"{self._name}:{name}", found, advice)

    def _open_writers(self, arrays: Taps) -> None:
        stored = self.stored()
        self._check_names(stored, list(arrays))
        if _common_rows(stored, list(arrays)) < self._next_row:
            found = "lost rows since it was opened for writing, or lacks a tap"
            advice = "open it again, and give their names, taps=[...]"
            raise ConflictError(self._name, found, remedy=advice)
        with ExitStack() as opened:
            writers: dict[str, Writer] = {}
            for index, (name, rows) in enumerate(arrays.items()):
                key = replace(self._like.key, tap=name)
                shape, n_taps = rows.shape[1:], len(arrays)
                meta = replace(self._like, key=key, tap_index=index, shape=shape, n_taps=n_taps)
                writers[name] = opened.enter_context(self.open_tap(meta))
            self._open = opened.pop_all()
        self._writers = writers

    def _check_names(self, stored: Sequence[Representation], names: Sequence[str]) -> None:
        """Raise ConflictError unless the stored taps are these, or some of them, in order."""
        for tap in stored:
            index, n_taps = tap.meta.tap_index, tap.meta.n_taps
            if names[index : index + 1] == [tap.key.tap] and n_taps in (None, len(names)):
                continue
            there = ", ".join(each.key.tap for each in stored)
            of = "" if n_taps in (None, len(stored)) else f" of {n_taps}"
            raise ConflictError(
                self._name,
                f"is stored with the taps {there}{of}, and got {', '.join(names)}",
                remedy="append the same ones in the same order, or use another name",
            )


def common_meta(
    run: str,
    checkpoint: str,
    examples: Examples,
    digest: str,
    dtype: DType,
    batch_rows: int,
    attributes: Attributes | None,
    created_by: str | None,
) -> RepresentationMeta:
    """Return the metadata that all taps of a network share, of a tap that stands for any."""
    if not isinstance(getattr(examples, "sample_set", None), SampleSet):
        advice = "give what store.Examples.of or store.Examples.like returns"
        raise ArrayError("examples", f"are {examples!r}", remedy=advice)
    return RepresentationMeta(
        key=RepresentationKey(examples.sample_set.name, run, checkpoint, "any"),
        sample_set=examples.sample_set,
        checkpoint_digest=digest,
        tap_index=0,
        shape=(1,),
        dtype=dtype,
        batch_rows=batch_rows,
        created_by=created_by or f"allcnn-cka {version('allcnn-cka')}",
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        attributes={} if attributes is None else attributes,
    )


def stored_taps(
    store: Address,
    like: RepresentationMeta,
    must_agree: Sequence[str] = ("checkpoint_digest", "dtype", "batch_rows"),
) -> list[Representation]:
    """Return the stored taps of a network; raises ConflictError for those of another network."""
    if not has_store(store):
        return []
    key = like.key
    found = Store(store).find(run=key.run, checkpoint=key.checkpoint, sample_set=key.sample_set)
    for tap, name in product(found, must_agree):
        kept, wanted = getattr(tap.meta, name), getattr(like, name)
        if kept != wanted:
            conflict = f"is stored with {name} {kept!r}, not {wanted!r}"
            remedy = "give the same, or write under another name"
            raise ConflictError(f"{tap.key} on {key.sample_set}", conflict, remedy=remedy)
    return found


def _common_rows(stored: Sequence[Representation], names: Sequence[str] | None) -> int:
    """Return the number of rows that all taps of a network have: 0 where one is not stored."""
    known = [tap.meta.n_taps or 0 for tap in stored]
    n_taps = max(known, default=0) if names is None else len(names)
    return 0 if len(stored) < n_taps else min((tap.n_committed for tap in stored), default=0)
