"""Arrays of which only what was committed counts: what all kinds of stores share in reading."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import numpy.typing as npt
import zarr
from zarr.buffer.cpu import NDBuffer

from store.errors import (
    DamagedChunkError,
    InvalidKeyError,
    RowRangeError,
    SchemaError,
    StoreError,
    StoreLocationError,
    UnfinishedError,
    pass_on,
    unreadable,
)
from store.model.schema import Commit, GramKey, Meta, RepresentationKey, Span
from store.storage.paths import Place, check_inside, zarr_store
from store.storage.remote_errors import reaching
from store.zarrfiles.chunk_files import CHUNK_KEYS, CODECS, Move, move_block, read_chunk
from store.zarrfiles.layout import COMMITS, COORDINATES, LATER, Kind, crc32c, open_root
from store.zarrfiles.metadata_files import NODE, ArrayNode, read_array, read_attributes

READABLE_CODECS = frozenset(
    {"bytes", "crc32c", "zstd", "gzip", "blosc", "transpose", "sharding_indexed"}
)
"""Codecs that Zarr itself has; others might run code that a store names."""


M = TypeVar("M", bound=Meta)


@dataclass(frozen=True)
class ArrayForm:
    """How the array of a group is stored."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype[Any]
    dimensions: tuple[str, ...]
    attributes: Mapping[str, str]


@dataclass(frozen=True)
class Form(Generic[M]):
    """How the groups of one kind of store look, and the words of its errors.

    Attributes:
        kind: of store.
        mark: attribute of a group that holds its metadata.
        from_json: rebuilds these metadata.
        array: name of the array.
        array_form: how the array is stored.
        depth: components of a group's path.
        unit: what the first axis counts, such as ``row``.
        units: its plural.
        verb: what makes such a group, such as ``extract``.
    """

    kind: Kind
    mark: str
    from_json: Callable[[object], M]
    array: str
    array_form: Callable[[M], ArrayForm]
    depth: int
    unit: str
    units: str
    verb: str


Records = tuple[Commit | None, ...]
"""One record a block, in order; None for a block whose record was taken back."""

Stored = tuple[M, Records, dict[str, Any]]
"""Metadata, commit records and attributes of a group."""


class Committed(Generic[M]):
    """One array and the part of it that counts; what reading and writing share."""

    form: ClassVar[Form[Any]]

    def __init__(
        self, root: Place, meta: M, records: Records, attributes: Mapping[str, Any]
    ) -> None:
        self.meta = meta
        self.store_path = root
        self._set_records(records)
        self._attributes = dict(attributes)

    def _set_records(self, records: Records) -> None:
        n = records.index(None) if None in records else len(records)
        self.commits = tuple(filter(None, records[:n]))
        """Records of what counts, in the order of the first axis."""
        self._later = records[n:]

    @property
    def place(self) -> Place:
        """Folder of its group."""
        return self.store_path / self.meta.key.path

    @property
    def kept(self) -> tuple[Commit, ...]:
        """Records of whole blocks behind one that was taken back; they count once that is there."""
        return tuple(filter(None, self._later))

    @property
    def taken_back(self) -> tuple[Span, ...]:
        """Blocks whose records were taken back because they were damaged."""
        later = enumerate(self._later, start=len(self.commits))
        return tuple(self.meta.block(i) for i, record in later if record is None)

    @property
    def n_recorded(self) -> int:
        """How many rows (of Grams: minibatches) have counted, also if they were taken back."""
        return self.meta.block(len(self.commits) + len(self._later) - 1)[1]

    @property
    def missing(self) -> tuple[Span, ...]:
        """Blocks that are to be written: those that were taken back, then those never written."""
        never = range(len(self.commits) + len(self._later), self.meta.n_blocks)
        return self.taken_back + tuple(map(self.meta.block, never))

    @property
    def n_committed(self) -> int:
        """How many rows (of Grams: minibatches) count, and can be read."""
        return self.commits[-1].stop if self.commits else 0

    @property
    def complete(self) -> bool:
        """Whether all of them count."""
        return self.n_committed == self.meta.length

    def _move(self, move: Move, node: ArrayNode, start: int, block: npt.NDArray[Any]) -> str | None:
        """Read or write chunks past Zarr, which copies them more often; return their digest.

        None, and nothing done, where they are no local files of bytes and a checksum, one block of
        the first axis each.
        """
        root, (rows, *rest) = self.store_path, node.chunks
        if (
            not isinstance(root, Path)
            or node.codecs != CODECS
            or node.chunk_keys != CHUNK_KEYS
            or rows != min(self.meta.block_length, self.meta.length)
            or len(node.chunks) != len(node.shape)
            or tuple(rest[1:]) != node.shape[2:]
        ):
            return None
        chunks = root / self.meta.key.path / self.form.array / "c"
        folder = chunks / str(start // self.meta.block_length)
        return move_block(move, root, folder, block, node.chunks)


class CommittedReader(Committed[M]):
    """An array as committed when it was opened, every digest verified; pickles as path and key."""

    unknown: ClassVar[type[StoreError]]
    """Raised for what is not there."""

    @classmethod
    def at(cls, root: Place, path: str) -> Self | None:
        """Open the group with a path, None where none is, or while it is being created."""
        check_inside(root, root / path / NODE)
        with reaching(root):
            stored = parse(cls.form, read_attributes(root / path), path)
        return None if stored is None else cls(root, *stored)

    @classmethod
    def get(cls, root: Place, key: object) -> Self:
        """Open what has a key; raises as ``store[key]`` does."""
        if not isinstance(key, RepresentationKey | GramKey):
            remedy = "find(run=..., tap=...) takes names, and what it finds has its key"
            raise InvalidKeyError(f"{key!r} is no key", remedy=remedy)
        found = cls.at(root, key.path)
        # A path may say less than a key.
        if found is not None and found.meta.key == key:
            return found
        if found is None and read_attributes(root / key.path) is not None:
            remedy = f"{cls.form.verb} the rest first"
            raise UnfinishedError(f"{key} is being created in {root}", remedy=remedy)
        raise cls.unknown(f"{root} holds no {key} on {key.sample_set}; {cls.form.verb} it first")

    @classmethod
    def _reopen(cls, root: Place, key: object) -> Self:
        open_root(root, cls.form.kind)
        return cls.get(root, key)

    def __reduce__(self) -> tuple[Any, ...]:
        return self._reopen, (self.store_path, self.meta.key)

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self.meta.key.text}:"
            f" {self.n_committed} of {self.meta.length} {self.form.units}>"
        )

    @cached_property
    def samples(self) -> npt.NDArray[np.int64]:
        """Index of every row's example in its data set, committed or not."""
        return self._coordinate("sample", np.dtype(np.int64))

    @cached_property
    def labels(self) -> npt.NDArray[np.int32]:
        """Class of every row's example, committed or not."""
        return self._coordinate("label", np.dtype(np.int32))

    @cached_property
    def _array_form(self) -> ArrayForm:
        return self.form.array_form(self.meta)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row (of Grams: a minibatch)."""
        return math.prod(self._array_form.shape[1:]) * self._array_form.dtype.itemsize

    def _blocks(self, start: int, stop: int) -> tuple[Commit, ...]:
        """Return the commits that a range touches, having checked that it can be read."""
        units, n, key = self.form.units, self.meta.length, self.meta.key
        for bound in (start, stop):
            if not isinstance(bound, int | np.integer):
                raise RowRangeError(
                    repr(bound), f"is no number of {units} of {key}", "give integers"
                )
        if not 0 <= start <= stop <= n:
            what, wanted = f"{units} {start} to {stop} of {key}", f"want 0 <= start <= stop <= {n}"
            raise RowRangeError(what, "are no range", wanted)
        if stop > self.n_committed:
            raise UnfinishedError(
                f"{key} has {self.n_committed} of {n} {units}, and {self.form.unit} {stop - 1} was"
                " asked for",
                remedy=f"{self.form.verb} the rest first",
            )
        if start == stop:
            return ()
        first, last = start // self.meta.block_length, (stop - 1) // self.meta.block_length
        return self.commits[first : last + 1]

    def _read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return a range, reading every block that it touches whole."""
        blocks = self._blocks(start, stop)
        out = self._empty(stop - start)
        for block in blocks:
            low, high = max(start, block.start), min(stop, block.stop)
            target = out[low - start : high - start]
            if len(target) == block.stop - block.start:
                self._fill(block, target)
            else:
                rows = self._empty(block.stop - block.start)
                self._fill(block, rows)
                target[...] = rows[low - block.start : high - block.start]
        return out

    def _empty(self, length: int) -> npt.NDArray[Any]:
        return np.empty((length, *self._array_form.shape[1:]), self._array_form.dtype)

    def check(self, block: Commit) -> DamagedChunkError | None:
        """Read what was committed at once; return the error where it is damaged."""
        try:
            self._fill(block, self._empty(block.stop - block.start))
        except DamagedChunkError as error:
            return error
        return None

    def _fill(self, block: Commit, target: npt.NDArray[Any]) -> None:
        with self._reading(f"{self.form.units} {block.start} to {block.stop - 1}") as what:
            found = self._move(read_chunk, self._node, block.start, target)
            if found is None:
                rows = slice(block.start, block.stop)
                self._array.get_basic_selection(rows, out=NDBuffer.from_numpy_array(target))
                found = crc32c(target)
        self._check_digest(what, found, block.digest)

    def _coordinate(self, name: str, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        with self._reading(f"{name}s") as what:
            self._member(name)
            values = np.asarray(self._opened(name)[:], dtype)
        digests = self._attributes.get(COORDINATES)
        wanted = digests.get(name) if isinstance(digests, dict) else None
        self._check_digest(what, crc32c(values), wanted)
        return values

    @contextmanager
    def _reading(self, what: str) -> Iterator[str]:
        """Say in one sentence what a disk refuses, and of which values: they may be lost."""
        with reaching(self.store_path):
            try:
                yield what
            except StoreError:
                raise
            except (ValueError, RuntimeError) as error:  # a checksum, another length, no zstd frame
                pass_on(error)
                raise self._damaged(what, str(error)) from error
            except OSError as error:
                if not isinstance(self.store_path, Path):
                    raise
                if not isinstance(error, PermissionError):
                    raise self._damaged(what, error.strerror or str(error)) from error
                found = f"may not be read ({error.strerror}): ask the owner of {self.place}"
                raise StoreLocationError(f"{what} of {self.meta.key.title}", found) from error

    def _check_digest(self, what: str, found: str, committed: object) -> None:
        if found != committed:
            raise self._damaged(what, f"digest {found}, committed {committed}")

    def _damaged(self, what: str, reason: str) -> DamagedChunkError:
        remedy = unreadable(self.place, self.form.verb)
        return DamagedChunkError.of(f"{what} of {self.meta.key.title}", reason, remedy)

    @cached_property
    def _node(self) -> ArrayNode:
        """How the array is stored, which must be as its metadata have it."""
        node, wanted = self._member(self.form.array), self._array_form
        if (node.shape, node.dtype) != (wanted.shape, wanted.dtype.name):
            raise self._damaged("metadata", f"{node.dtype} {node.shape}, not {wanted.shape}")
        return node

    @cached_property
    def _array(self) -> zarr.Array[Any]:
        return self._opened(self.form.array)

    def _member(self, name: str) -> ArrayNode:
        try:
            check_inside(self.store_path, self.place / name)
            node = read_array(self.place / name)
        except SchemaError as error:
            raise self._damaged("metadata", f"array {name!r} is unreadable") from error
        if node is None:
            raise self._damaged("metadata", f"array {name!r} is missing or unreadable")
        foreign = set(node.codec_names) - READABLE_CODECS
        if foreign:
            raise self._damaged("metadata", f"array {name!r} has the codec {min(foreign)!r}")
        return node

    def _opened(self, name: str) -> zarr.Array[Any]:
        """Open what ``_member`` has let in."""
        store = zarr_store(self.place / name, read_only=True)
        try:
            return zarr.open_array(store, mode="r", zarr_format=3)
        except (KeyError, ValueError, TypeError, FileNotFoundError) as error:
            raise self._damaged("metadata", f"array {name!r} is missing or unreadable") from error


def parse(form: Form[M], attributes: dict[str, Any] | None, path: str) -> Stored[M] | None:
    """Take a group's attributes apart; None where there is none, or while it is being created."""
    if attributes is None or form.mark not in attributes:
        return None
    meta = form.from_json(attributes[form.mark])
    if meta.key.path != path:
        remedy = "rename the folder to what it holds"
        raise SchemaError(f"the folder {path}", f"holds {meta.key.path}", remedy=remedy)
    found, later = attributes.get(COMMITS), attributes.get(LATER, [])
    if not isinstance(found, list) or not isinstance(later, list):
        raise SchemaError(path, "has no list of commit records", remedy=unreadable("it", form.verb))
    records = [None if r is None else Commit.from_json(r) for r in [*found, *later]]
    wanted = [meta.block(i) for i in range(meta.n_blocks)]
    if len(records) > len(wanted) or any(
        record and (record.start, record.stop) != block
        for record, block in zip(records, wanted, strict=False)
    ):
        wrong = f"do not follow one another in blocks of {meta.block_length} {form.units}"
        remedy = unreadable("it", form.verb)
        raise SchemaError(f"the commit records of {path}", wrong, remedy=remedy)
    return meta, tuple(records), attributes
