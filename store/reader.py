"""Open an activation store, list what it holds, and read committed rows, every digest verified."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.buffer.cpu import NDBuffer

from store.errors import (
    DamagedChunkError,
    RowRangeError,
    UnfinishedError,
    UnknownRepresentationError,
)
from store.layout import (
    COORDINATES,
    Committed,
    child_names,
    crc32c,
    find_group,
    local_path,
    open_root,
    parse_representation,
)
from store.schema import Commit, RepresentationKey, RepresentationMeta, SampleSet


class Representation(Committed):
    """The rows of one tap that were committed when it was opened; pickles as its path and key."""

    def __init__(
        self,
        store: Path,
        group: zarr.Group,
        meta: RepresentationMeta,
        commits: tuple[Commit, ...],
    ) -> None:
        super().__init__(group, meta, commits)
        self._store = store

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self._store, self.key)

    def __repr__(self) -> str:
        return f"<Representation {self.key.path}: {self.n_committed} of {self.meta.n_samples} rows>"

    @property
    def key(self) -> RepresentationKey:
        """Where it is stored."""
        return self.meta.key

    @cached_property
    def samples(self) -> npt.NDArray[np.int64]:
        """Index of every row's example in its data set, committed or not."""
        return self._coordinate("sample", np.dtype(np.int64))

    @cached_property
    def labels(self) -> npt.NDArray[np.int32]:
        """Class of every row's example, committed or not."""
        return self._coordinate("label", np.dtype(np.int32))

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return rows start to stop (exclusive) in the stored dtype, of shape (rows, *meta.shape).

        Every minibatch that the range touches is read whole and its digest verified; ranges of
        whole minibatches are cheapest. Raises UnfinishedError for rows not yet committed and
        DamagedChunkError for rows that are not those that were written.
        """
        self._check_range(start, stop)
        out = np.empty((stop - start, *self.meta.shape), self._dtype)
        for block in self._blocks(start, stop):
            low, high = max(start, block.start), min(stop, block.stop)
            target = out[low - start : high - start]
            if len(target) == block.stop - block.start:
                self._fill(block, target)
            else:
                rows = np.empty((block.stop - block.start, *self.meta.shape), self._dtype)
                self._fill(block, rows)
                target[...] = rows[low - block.start : high - block.start]
        return out

    @property
    def _dtype(self) -> np.dtype[Any]:
        return np.dtype(self.meta.dtype).newbyteorder("<")

    def _blocks(self, start: int, stop: int) -> tuple[Commit, ...]:
        if start == stop:
            return ()
        first, last = start // self.meta.batch_rows, (stop - 1) // self.meta.batch_rows
        return self._commits[first : last + 1]

    def _check_range(self, start: int, stop: int) -> None:
        if not 0 <= start <= stop <= self.meta.n_samples:
            raise RowRangeError(
                f"rows {start} to {stop} of {self.key} are no range; want"
                f" 0 <= start <= stop <= {self.meta.n_samples}"
            )
        if stop > self.n_committed:
            raise UnfinishedError(
                f"{self.key} has {self.n_committed} of {self.meta.n_samples} rows, and row"
                f" {stop - 1} was asked for; finish its extraction"
            )

    def _fill(self, block: Commit, target: npt.NDArray[Any]) -> None:
        rows = f"rows {block.start} to {block.stop - 1}"
        selection = slice(block.start, block.stop)
        try:
            self._array.get_basic_selection(selection, out=NDBuffer.from_numpy_array(target))
        except ValueError as error:  # the codec's checksum, or a chunk of another length
            raise self._damaged(rows, str(error)) from error
        found = crc32c(target)
        if found != block.digest:
            raise self._damaged(rows, f"digest {found}, committed {block.digest}")

    def _damaged(self, what: str, reason: str) -> DamagedChunkError:
        return DamagedChunkError(
            f"{what} of tap {self.key.tap} of run {self.key.run}, checkpoint {self.key.checkpoint}"
            f" are damaged ({reason.rstrip('.')}): delete {self._store / self.key.path} and"
            " extract it again"
        )

    @cached_property
    def _array(self) -> zarr.Array[Any]:
        array = self._member("activations")
        wanted = (self.meta.n_samples, *self.meta.shape)
        if array.shape != wanted or array.dtype != self._dtype:
            raise self._damaged("metadata", f"{array.dtype} {array.shape} instead of {wanted}")
        return array

    def _member(self, name: str) -> zarr.Array[Any]:
        try:
            array = self._group[name]
        except (KeyError, ValueError) as error:
            raise self._damaged("metadata", f"array {name!r} is missing or unreadable") from error
        if not isinstance(array, zarr.Array):
            raise self._damaged("metadata", f"{name!r} is no array")
        return array

    def _coordinate(self, name: str, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        try:
            values = np.asarray(self._member(name)[:], dtype)
        except ValueError as error:
            raise self._damaged(f"{name}s", str(error)) from error
        digests = self._group.attrs.get(COORDINATES)
        wanted = digests.get(name) if isinstance(digests, dict) else None
        if crc32c(values) != wanted:
            raise self._damaged(f"{name}s", f"digest {crc32c(values)}, committed {wanted}")
        return values


@dataclass(frozen=True)
class Summary:
    """One checkpoint of one run on one sample set.

    ``complete`` speaks of the taps that were created: the store knows no network.
    ``n_committed`` is that of the tap with the fewest; ``n_bytes`` counts committed rows.
    """

    sample_set: str
    run: str
    checkpoint: str
    n_taps: int
    n_committed: int
    n_rows: int
    n_bytes: int
    dtype: str
    complete: bool


class Store:
    """An activation store, read only; pickles as its path."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = local_path(path)
        self._root = open_root(self.path, "activations")

    def __reduce__(self) -> tuple[Any, ...]:
        return Store, (self.path,)

    def __repr__(self) -> str:
        return f"<Store {self.path}>"

    def __getitem__(self, key: RepresentationKey) -> Representation:
        """Open one representation.

        Raises UnknownRepresentationError for what is not there, UnfinishedError while it is
        being created.
        """
        found = self._open(key)
        if found is not None:
            return found
        if find_group(self._root, key.path) is not None:
            raise UnfinishedError(f"{key} is being created in {self.path}; finish its extraction")
        raise UnknownRepresentationError(
            f"{self.path} holds no {key} on {key.sample_set}; extract it first"
        )

    def find(
        self,
        run: str | None = None,
        checkpoint: str | None = None,
        sample_set: str | None = None,
    ) -> list[Representation]:
        """Open what is stored, narrowed by exact names.

        Sorted by sample set, run, checkpoint and position in the network.
        """
        found = []
        for keys in self._checkpoints(run, checkpoint, sample_set):
            taps = [tap for tap in map(self._open, keys) if tap is not None]
            found += sorted(taps, key=lambda tap: (tap.meta.tap_index, tap.key.tap))
        return found

    def keys(self) -> list[RepresentationKey]:
        """Return the keys of all representations, in the order of ``find``."""
        return [found.key for found in self.find()]

    def sample_sets(self) -> list[SampleSet]:
        """Return the sample sets, sorted by name."""
        found = {tap.meta.sample_set: None for tap in self.find()}
        return sorted(found, key=lambda sample_set: sample_set.name)

    def summaries(self) -> list[Summary]:
        """Return one row a sample set, run and checkpoint; reads metadata alone."""
        taps = groupby(
            self.find(), lambda tap: (tap.key.sample_set, tap.key.run, tap.key.checkpoint)
        )
        return [_summary(list(group)) for _, group in taps]

    def _open(self, key: RepresentationKey) -> Representation | None:
        group = find_group(self._root, key.path)
        if group is None:
            return None
        stored = parse_representation(group.attrs, key)
        return None if stored is None else Representation(self.path, group, *stored)

    def _checkpoints(
        self, run: str | None, checkpoint: str | None, sample_set: str | None
    ) -> Iterator[list[RepresentationKey]]:
        for s in _matching(self.path, sample_set):
            for r in _matching(self.path / s, run):
                for c in _matching(self.path / s / r, checkpoint):
                    taps = child_names(self.path / s / r / c)
                    yield [RepresentationKey(s, r, c, tap) for tap in taps]


def open(path: str | os.PathLike[str]) -> Store:
    """Open an activation store for reading.

    Raises StoreLocationError where there is none, SchemaError for a foreign or newer one.
    """
    return Store(path)


def _reopen(path: Path, key: RepresentationKey) -> Representation:
    return Store(path)[key]


def _matching(path: Path, name: str | None) -> list[str]:
    return [child for child in child_names(path) if name in (None, child)]


def _summary(taps: list[Representation]) -> Summary:
    key, n_rows = taps[0].key, taps[0].meta.n_samples
    return Summary(
        sample_set=key.sample_set,
        run=key.run,
        checkpoint=key.checkpoint,
        n_taps=len(taps),
        n_committed=min(tap.n_committed for tap in taps),
        n_rows=n_rows,
        n_bytes=sum(map(_committed_bytes, taps)),
        dtype=", ".join(sorted({tap.meta.dtype for tap in taps})),
        complete=all(tap.complete for tap in taps),
    )


def _committed_bytes(tap: Representation) -> int:
    row_bytes = int(np.prod(tap.meta.shape)) * np.dtype(tap.meta.dtype).itemsize
    return tap.n_committed * row_bytes
