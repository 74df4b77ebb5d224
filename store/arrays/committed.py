"""Arrays of which only what was committed counts: what all kinds of stores share in reading."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import zarr
from zarr.buffer.cpu import NDBuffer

from store.errors import (
    DamagedChunkError,
    RowRangeError,
    SchemaError,
    StoreError,
    StoreLocationError,
    UnfinishedError,
    unreadable,
)
from store.model.schema import Attributes, Commit, SampleSet
from store.storage.exhaustion import pass_on
from store.storage.paths import Place, check_inside, zarr_store
from store.storage.remote_errors import reaching
from store.zarrfiles.chunk_files import CHUNK_KEYS, CODECS, chunk_file, parts_of, read_chunk
from store.zarrfiles.layout import COMMITS, COORDINATES, LATER, Kind, as_digest, crc32c
from store.zarrfiles.metadata_files import ArrayNode, read_array

READABLE_CODECS = frozenset(
    {"bytes", "crc32c", "zstd", "gzip", "blosc", "transpose", "sharding_indexed"}
)
"""What Zarr itself decodes; others might run code that a store names."""


class Key(Protocol):
    """Where something is stored."""

    @property
    def path(self) -> str:
        """Path of the group below the store's root."""

    @property
    def text(self) -> str:
        """The names that it stands for, joined by ``/``."""

    @property
    def sample_set(self) -> str:
        """Name of the sample set, the first component of the path."""


class Meta(Protocol):
    """What an array is, and how its first axis is cut into what is written at once."""

    @property
    def key(self) -> Key:
        """Where it is stored."""

    @property
    def sample_set(self) -> SampleSet:
        """The examples, in their order."""

    @property
    def tap_index(self) -> int:
        """Position of the tap in its network, from 0."""

    @property
    def attributes(self) -> Attributes:
        """Facts about the network."""

    @property
    def n_taps(self) -> int | None:
        """Taps of the network, None where the writer did not know."""

    @property
    def length(self) -> int:
        """Length of the finished array along its first axis."""

    @property
    def block_length(self) -> int:
        """How much of the first axis is written and committed at once."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""


M = TypeVar("M", bound=Meta)

Span = tuple[int, int]
"""A range of the first axis: the first row, or minibatch of Grams, and the one after the last."""


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
    """What the groups of one kind of store look like, and what its errors say.

    Attributes:
        kind: of store.
        mark: attribute of a group that holds its metadata.
        from_json: rebuilds these metadata.
        array: name of the array.
        array_form: how the array is stored.
        depth: components of a group's path.
        unit: what the first axis counts, such as ``row``.
        units: its plural.
        block: what is committed at once, ``{}`` being its length.
        finish: what to do where something is missing.
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
    block: str
    finish: str
    verb: str


Records = tuple[Commit | None, ...]
"""One record a block, in order; None for a block whose record was taken back."""


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
        self._commits, self._later = tuple(filter(None, records[:n])), records[n:]

    @property
    def place(self) -> Place:
        """Folder of its group."""
        return self.store_path / self.meta.key.path

    @property
    def commits(self) -> tuple[Commit, ...]:
        """Records of what counts, in the order of the first axis."""
        return self._commits

    @property
    def kept(self) -> tuple[Commit, ...]:
        """Records of whole blocks behind one that was taken back; they count once that is there."""
        return tuple(filter(None, self._later))

    @property
    def taken_back(self) -> tuple[Span, ...]:
        """Blocks whose records were taken back because they were damaged."""
        later = enumerate(self._later, start=len(self._commits))
        return tuple(block_range(self.meta, i) for i, record in later if record is None)

    @property
    def n_recorded(self) -> int:
        """How many rows (of Grams: minibatches) have counted, also if they were taken back."""
        return block_range(self.meta, len(self._commits) + len(self._later) - 1)[1]

    @property
    def missing(self) -> tuple[Span, ...]:
        """Blocks that are to be written: those that were taken back, then those never written."""
        never = range(len(self._commits) + len(self._later), n_blocks(self.meta))
        return self.taken_back + tuple(block_range(self.meta, i) for i in never)

    @property
    def n_committed(self) -> int:
        """How many rows (of Grams: minibatches) count, and can be read."""
        return self._commits[-1].stop if self._commits else 0

    @property
    def complete(self) -> bool:
        """Whether all of them count."""
        return self.n_committed == self.meta.length


class CommittedReader(Committed[M]):
    """What was committed when it was opened, every digest verified."""

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

    @property
    @abstractmethod
    def _name(self) -> str:
        """What an error calls it."""

    @cached_property
    def _array_form(self) -> ArrayForm:
        return self.form.array_form(self.meta)

    def _blocks(self, start: int, stop: int) -> tuple[Commit, ...]:
        """Return the commits that a range touches, having checked that it can be read."""
        for bound in (start, stop):
            if not isinstance(bound, int | np.integer):
                raise RowRangeError(
                    f"{bound!r} is no number of {self.form.units} of {self.meta.key}",
                    remedy="give integers",
                )
        self._check_range(start, stop)
        if start == stop:
            return ()
        first, last = start // self.meta.block_length, (stop - 1) // self.meta.block_length
        return self._commits[first : last + 1]

    def _check_range(self, start: int, stop: int) -> None:
        units, n = self.form.units, self.meta.length
        if not 0 <= start <= stop <= n:
            raise RowRangeError(
                f"{units} {start} to {stop} of {self.meta.key} are no range",
                remedy=f"want 0 <= start <= stop <= {n}",
            )
        if stop > self.n_committed:
            raise UnfinishedError(
                f"{self.meta.key} has {self.n_committed} of {n} {units}, and {self.form.unit}"
                f" {stop - 1} was asked for",
                remedy=f"{self.form.finish}",
            )

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
        what = f"{self.form.units} {block.start} to {block.stop - 1}"
        with reaching(self.store_path):
            try:
                found = self._read(block, target)
            except (ValueError, RuntimeError) as error:  # a checksum, another length, no zstd frame
                pass_on(error)
                raise self._damaged(what, str(error)) from error
            except OSError as error:
                self._raise_unreadable(what, error)
                raise
        if found != block.digest:
            raise self._damaged(what, f"digest {found}, committed {block.digest}")

    def _read(self, block: Commit, target: npt.NDArray[Any]) -> str:
        """Fill ``target`` with a block and return its digest."""
        root, place = self.store_path, self.place / self.form.array
        if not self._ours or not isinstance(root, Path) or not isinstance(place, Path):
            selection = slice(block.start, block.stop)
            self._array.get_basic_selection(selection, out=NDBuffer.from_numpy_array(target))
            return crc32c(target)
        index = block.start // self.meta.block_length
        crcs = [
            read_chunk(root, chunk_file(place, index, j, target.ndim), part, chunks)
            for j, part, chunks in parts_of(target, self._node.chunks)
        ]
        # The bytes of several parts have another order than those of the block.
        return as_digest(crcs[0]) if len(crcs) == 1 and crcs[0] is not None else crc32c(target)

    @property
    def _ours(self) -> bool:
        """Whether its chunks are files that need no decoding: Zarr copies them more often."""
        return is_ours(self._node, self.meta)

    def _raise_unreadable(self, what: str, error: OSError) -> None:
        """Raise a sentence for what a local disk refuses: it may be lost, or another user's."""
        if isinstance(error, StoreError) or not isinstance(self.store_path, Path):
            return
        if isinstance(error, PermissionError):
            raise StoreLocationError(
                f"{what} of {self._name} may not be read ({error.strerror}): ask the owner of"
                f" {self.place}"
            ) from error
        raise self._damaged(what, error.strerror or str(error)) from error

    def _damaged(self, what: str, reason: str) -> DamagedChunkError:
        remedy = unreadable(self.place, self.form.verb)
        return DamagedChunkError.of(f"{what} of {self._name}", reason, remedy)

    @cached_property
    def _node(self) -> ArrayNode:
        """How the array is stored, which must be as its metadata have it."""
        node, wanted = self._member(self.form.array), self._array_form
        if (node.shape, node.dtype) != (wanted.shape, wanted.dtype.name):
            raise self._damaged("metadata", f"{node.dtype} {node.shape}, not {wanted.shape}")
        return node

    @cached_property
    def _array(self) -> zarr.Array[Any]:
        self._node  # noqa: B018  # checked before Zarr looks at it
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

    def _open(self, name: str) -> zarr.Array[Any]:
        self._member(name)
        return self._opened(name)

    def _opened(self, name: str) -> zarr.Array[Any]:
        store = zarr_store(self.place / name, read_only=True)
        try:
            return zarr.open_array(store, mode="r", zarr_format=3)
        except (KeyError, ValueError, TypeError, FileNotFoundError) as error:
            raise self._damaged("metadata", f"array {name!r} is missing or unreadable") from error

    def _coordinate(self, name: str, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        with reaching(self.store_path):
            try:
                values = np.asarray(self._open(name)[:], dtype)
            except (ValueError, RuntimeError) as error:
                pass_on(error)
                raise self._damaged(f"{name}s", str(error)) from error
            except OSError as error:
                self._raise_unreadable(f"{name}s", error)
                raise
        digests = self._attributes.get(COORDINATES)
        wanted = digests.get(name) if isinstance(digests, dict) else None
        if crc32c(values) != wanted:
            raise self._damaged(f"{name}s", f"digest {crc32c(values)}, committed {wanted}")
        return values


def is_ours(node: ArrayNode, meta: Meta) -> bool:
    """Return whether chunks are bytes and a checksum, one block of the first axis each."""
    rows, *rest = node.chunks
    return (
        node.codecs == CODECS
        and node.chunk_keys == CHUNK_KEYS
        and rows == min(meta.block_length, meta.length)
        and tuple(rest[1:]) == node.shape[2:]
    )


def parse(form: Form[M], attributes: Mapping[str, Any], path: str) -> tuple[M, Records] | None:
    """Return a group's metadata and commit records, or None while it is being created."""
    if form.mark not in attributes:
        return None
    meta = form.from_json(attributes[form.mark])
    if meta.key.path != path:
        raise SchemaError(
            f"the folder {path}",
            f"holds {meta.key.path}",
            remedy="rename the folder to what it holds",
        )
    found, later = attributes.get(COMMITS), attributes.get(LATER, [])
    if not isinstance(found, list) or not isinstance(later, list):
        raise SchemaError(path, "has no list of commit records", remedy=unreadable("it", form.verb))
    records = [None if r is None else Commit.from_json(r) for r in [*found, *later]]
    wanted = [block_range(meta, i) for i in range(n_blocks(meta))]
    if len(records) > len(wanted) or any(
        record and (record.start, record.stop) != block
        for record, block in zip(records, wanted, strict=False)
    ):
        raise SchemaError(
            f"the commit records of {path}",
            f"do not follow one another in {form.block.format(meta.block_length)}",
            remedy=unreadable("it", form.verb),
        )
    return meta, tuple(records)


def n_blocks(meta: Meta) -> int:
    """Return in how many blocks an array is written."""
    return -(-meta.length // meta.block_length)


def block_range(meta: Meta, index: int) -> tuple[int, int]:
    """Return where a block begins on the first axis, and where the next one would."""
    start = index * meta.block_length
    return start, min(start + meta.block_length, meta.length)
