"""Write one representation, minibatch after minibatch: data first, promise last."""

import math
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, Self, cast

import numpy.typing as npt
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from store.arrays.activations import ACTIVATIONS
from store.arrays.committed import (
    Committed,
    Form,
    M,
    Meta,
    Records,
    block_range,
    is_ours,
    parse,
)
from store.arrays.coordinates import (
    Coordinates,
    check_like_others,
    check_same,
    coordinates_of,
    digests,
)
from store.arrays.removed_taps import note_made
from store.errors import (
    ConflictError,
    DamagedChunkError,
    MisalignedWriteError,
    SchemaError,
    StoreError,
    StoreLocationError,
    unreadable,
)
from store.model.array_interop import as_real
from store.model.narrowing import narrow_rows
from store.model.schema import Attributes, Commit, RepresentationMeta
from store.storage.claims import CLAIM, Claim, claim
from store.storage.paths import (
    Address,
    Place,
    as_place,
    check_unlinked,
    entry_names,
    is_leftover,
    remove_tree,
    zarr_store,
)
from store.storage.remote_errors import reaching
from store.zarrfiles.chunk_files import chunk_file, parts_of, write_chunk
from store.zarrfiles.drafts import drafted
from store.zarrfiles.layout import (
    COMMITS,
    COORDINATES,
    LATER,
    SOURCE,
    as_digest,
    crc32c,
    create_root,
)
from store.zarrfiles.metadata_files import (
    NODE,
    ArrayNode,
    read_array,
    read_attributes,
    write_attributes,
)

Compression = Literal["none", "zstd"]

_MAY_DIFFER = {"created_by", "created_at", "attributes", "n_taps", "precision"}
_COMPRESSORS: Final[Mapping[Compression, tuple[Any, ...]]] = {
    "none": (Crc32cCodec(),),
    "zstd": (ZstdCodec(level=1), Crc32cCodec()),
}


class CommittedWriter(Committed[M]):
    """Fills one array; use ``open``, which also resumes, preferably in a ``with`` block.

    It claims the array until it is closed: two writers at once would overwrite each other's commit
    records.
    """

    def __init__(
        self,
        root: Place,
        meta: M,
        records: Records,
        attributes: Mapping[str, Any],
        held: Claim,
    ) -> None:
        super().__init__(root, meta, records, attributes)
        self._claim = held
        self._node = self._array_node()
        self._made_of: tuple[Coordinates, Compression] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let others write; a second time does nothing."""
        with reaching(self.store_path), written(f"cannot let go of {self.place}"):
            self._claim.release()

    @classmethod
    def open(
        cls,
        store: Address,
        meta: M,
        samples: npt.ArrayLike,
        labels: npt.ArrayLike,
        compression: Compression = "none",
        source: str | None = None,
        afresh: int | None = None,
    ) -> Self:
        """Create an array, or resume it at the first block that is not committed.

        Args:
            store: folder or address of the store, made where there is none.
            meta: of the array; who made it, and when, may differ on resuming. Attributes may too:
                those that are given take the place of those that are stored.
            samples: index of every row's example in its data set.
            labels: class of every row's example.
            compression: of a new array; ``zstd`` takes less room and several times as long.
            source: digest of what the array is computed from; an array of another source is made
                afresh.
            afresh: make the array afresh whatever is there, also what cannot be read, and note as
                taken back that many of its first rows (of Grams: minibatches).

        Raises ConflictError where the key is stored with other metadata or coordinates, or another
        array on the sample set with other coordinates; ClaimedError while another writer is at work
        on it.
        """
        coordinates = coordinates_of(samples, labels, meta)
        if compression not in _COMPRESSORS:
            known = " or ".join(map(repr, _COMPRESSORS))
            raise SchemaError(
                f"compression of {meta.key} is {compression!r}", remedy=f"use {known}"
            )
        root = as_place(store)
        create_root(root, cls.form.kind)
        folder = root / meta.key.path
        # Of what is not marked as whole, everything in the array's folder will be removed.
        check_unlinked(root, [*meta.key.path.split("/"), cls.form.array])
        if NODE not in _members(folder, cls.form):
            cls._admit(root, meta, digests(coordinates))
        with reaching(root), written(f"cannot create {folder}"):
            held = claim(folder / cls.form.array)
            try:
                stored = None
                if afresh is None:
                    stored = _stored(folder, meta, coordinates, cls.form)
                if stored is None or _is_of_another(stored[2], source):
                    marks: dict[str, Any] = {} if source is None else {SOURCE: source}
                    if afresh:
                        n = -(-min(afresh, meta.length) // meta.block_length)
                        marks[LATER] = [None] * n
                    _create(root, meta, coordinates, cls.form, compression, marks)
                    stored = _stored(folder, meta, coordinates, cls.form)
                assert stored is not None
                writer = cls(root, *stored, held)
                writer._made_of = coordinates, compression
                writer._update_attributes(meta.attributes)
                return writer
            except BaseException:
                held.release()
                raise

    @classmethod
    def _admit(cls, root: Place, meta: M, coordinates: Mapping[str, str]) -> None:
        """Raise ConflictError where a new array does not fit what is stored beside it."""

    def _update_attributes(self, wanted: Attributes) -> None:
        if wanted and dict(wanted) != dict(self.meta.attributes):
            meta = self.form.from_json(self.meta.to_json() | {"attributes": dict(wanted)})
            self._put({self.form.mark: meta.to_json()})
            self.meta = meta

    def _make_again(self, meta: M) -> None:
        """Make the array afresh, with other metadata; until that is done nothing counts."""
        assert self._made_of is not None
        coordinates, compression = self._made_of
        marks = {SOURCE: source} if (source := self._attributes.get(SOURCE)) else {}
        with reaching(self.store_path), written(f"cannot create {self.place}"):
            _create(self.store_path, meta, coordinates, self.form, compression, marks)
        stored = _stored(self.place, meta, coordinates, self.form)
        assert stored is not None
        self.meta, records, self._attributes = stored
        self._set_records(records)
        self._node = self._array_node()
        self.__dict__.pop("_array", None)

    def take_back(self, starts: Collection[int]) -> None:
        """Take back the records of damaged blocks, by where they begin: they have to be appended.

        Until then they do not count, nor do those behind them, whose records are kept.
        """
        found = (*self._commits, *self._later)
        known = [block_range(self.meta, i)[0] for i in range(len(found))]
        if unknown := set(starts).difference(known):
            raise MisalignedWriteError(
                f"{self.form.unit} {min(unknown)} of {self.meta.key}",
                f"begins none of its {len(found)} blocks of {self.meta.block_length}",
            )
        left = (None if at in starts else each for at, each in zip(known, found, strict=True))
        if (records := tuple(left)) != found:
            what = f"cannot write to {self.place}"
            with reaching(self.store_path), written(what, "; fix that and run again"):
                self._put_records(records)

    def _write(self, values: npt.NDArray[Any]) -> None:
        """Write and commit the next block, whose form the caller has checked."""
        start, stop = block_range(self.meta, len(self._commits))
        with self._writing(start, stop):
            commit = Commit(start, stop, self._store(start, values))
            # Committed last: a crash can lose this block but never claim it.
            self._put_records((*self._commits, commit, *self._later[1:]))

    def _put_records(self, records: Records) -> None:
        put = [each and each.to_json() for each in records]
        n = put.index(None) if None in put else len(put)
        self._put({COMMITS: put[:n], LATER: put[n:]} | self._notes(records))
        self._set_records(records)

    def _notes(self, records: Records) -> dict[str, Any]:
        """Return other attributes that change with the records."""
        return {}

    def _put(self, changes: dict[str, Any]) -> None:
        # Once more: at an address the claim may have ended while a chunk was written.
        self._claim.renew()
        attributes = self._attributes | changes
        if not attributes.get(LATER):
            attributes.pop(LATER, None)
        write_attributes(self.place, attributes)
        self._attributes = attributes

    def _store(self, start: int, values: npt.NDArray[Any]) -> str:
        """Write the chunks of a block and return its digest."""
        self._claim.renew()
        root, array = self.store_path, self.place / self.form.array
        if not self._ours or not isinstance(root, Path) or not isinstance(array, Path):
            self._array[start : start + len(values)] = values
            return crc32c(values)
        index = start // self.meta.block_length
        crcs = [
            write_chunk(root, chunk_file(array, index, j, values.ndim), part, chunks)
            for j, part, chunks in parts_of(values, self._node.chunks)
        ]
        # The bytes of several parts have another order than those of the block.
        return as_digest(crcs[0]) if len(crcs) == 1 and crcs[0] is not None else crc32c(values)

    @contextmanager
    def _writing(self, start: int, stop: int) -> Iterator[None]:
        units = self.form.units
        what = f"cannot write {units} {start} to {stop - 1} of {self.place}"
        with (
            reaching(self.store_path),
            written(what, f"; committed {units} are safe, so fix that and run again"),
        ):
            yield

    @property
    def _ours(self) -> bool:
        return is_ours(self._node, self.meta)

    def _array_node(self) -> ArrayNode:
        node = read_array(self.place / self.form.array)
        if node is None:
            remedy = unreadable("it", self.form.verb)
            raise DamagedChunkError(str(self.place), "has lost its array", remedy=remedy)
        return node

    @cached_property
    def _array(self) -> zarr.Array[Any]:
        store = zarr_store(self.place / self.form.array, read_only=False)
        array = zarr.open_array(store, mode="r+", zarr_format=3)
        # Looking for empty chunks takes ten times the CPU of writing them. Not part of the stored
        # metadata, so it has to be said on every opening.
        return cast("zarr.Array[Any]", array.with_config({"write_empty_chunks": True}))


class Writer(CommittedWriter[RepresentationMeta]):
    """Fills one representation, minibatch after minibatch; use ``Writer.open``, which also resumes.

    Another writer of the same representation is refused until this one is closed, whole or dead.
    """

    form: ClassVar[Form[RepresentationMeta]] = ACTIVATIONS

    @classmethod
    def _admit(cls, root: Place, meta: RepresentationMeta, coordinates: Mapping[str, str]) -> None:
        # Grams take theirs from activations, which this has let in.
        check_like_others(root, meta, coordinates)

    def append(self, rows: npt.ArrayLike) -> None:
        """Write and commit the next minibatch: ``batch_rows`` rows, or the rest at the end.

        NaN and infinities that the network computed are stored as they are. A finite value that
        the stored dtype cannot hold raises ActivationOverflowError before anything is written, and
        rows that vary too little for its precision raise PrecisionError: leave the cast to this
        method. Other than real numbers raise ArrayError.
        """
        start, stop = block_range(self.meta, len(self._commits))
        values = self._check_aligned(as_real(rows, str(self.meta.key)), start, stop)
        self._write(narrow_rows(values, self.meta.dtype, str(self.meta.key)))
        if self.complete:
            self.close()

    def _check_aligned(self, rows: npt.NDArray[Any], start: int, stop: int) -> npt.NDArray[Any]:
        if self.complete:
            raise MisalignedWriteError(
                f"{self.meta.key} has all its {self.meta.n_samples} rows", remedy="stop appending"
            )
        wanted = (stop - start, *self.meta.shape)
        if rows.shape != wanted:
            raise MisalignedWriteError(
                f"{self.meta.key} got rows of shape {rows.shape}",
                remedy=(
                    f"rows {start} to {stop - 1} need {wanted}: append whole minibatches in order"
                ),
            )
        return rows


@contextmanager
def written(what: str, advice: str = "") -> Iterator[None]:
    """Turn what an operating system refuses into one sentence."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        raise StoreLocationError(f"{what}: {error.strerror or error}{advice}") from error


def _stored(
    folder: Place, meta: M, coordinates: Coordinates, form: Form[M]
) -> tuple[M, Records, dict[str, Any]] | None:
    """Return what a writer resumes, having checked that it is the same; None where nothing is."""
    attributes = read_attributes(folder)
    stored = None if attributes is None else parse(form, attributes, meta.key.path)
    if attributes is None or stored is None:
        return None
    _check_same(folder, stored[0], meta)
    check_same(folder, attributes, digests(coordinates), form)
    _remove_leftovers(folder)
    return *stored, attributes


def _is_of_another(attributes: Mapping[str, Any], source: str | None) -> bool:
    # Where no source is recorded, the checkpoint's digest has to do.
    return source is not None and attributes.get(SOURCE, source) != source


def _members(folder: Place, form: Form[Any]) -> list[str]:
    """Return what is in a group's folder; raises SchemaError for what no store wrote."""
    members, found = {form.array, "sample", "label", NODE}, entry_names(folder)
    odd = [name for name in found if name not in members and not is_leftover(name)]
    if odd:
        raise SchemaError(f"{folder} holds {odd[0]!r}, which no store wrote", remedy="move it away")
    return found


def _create(
    root: Place,
    meta: M,
    coordinates: Coordinates,
    form: Form[M],
    compression: Compression,
    marks: dict[str, Any],
) -> None:
    """Make a group afresh, clearing what an interrupted creation left there."""
    folder = root / meta.key.path
    there = entry_names(folder)
    # First what makes it a group: the rest is nothing without it.
    for name in (NODE, "sample", "label"):
        if name in there:
            remove_tree(folder / name)
    for name in entry_names(folder / form.array):
        if name != CLAIM:
            remove_tree(folder / form.array / name)
    with drafted(root, meta.key.path) as group:
        _create_arrays(group, meta, coordinates, form, compression)
    # Written last: until then readers skip the group and writers start it afresh.
    marked = {form.mark: meta.to_json(), COORDINATES: digests(coordinates), COMMITS: []}
    write_attributes(folder, {**marked, **marks})
    note_made(root.joinpath(*meta.key.path.split("/")[:3]), meta.key.path.split("/")[3])


def _create_arrays(
    group: zarr.Group,
    meta: M,
    coordinates: Coordinates,
    form: Form[M],
    compression: Compression,
) -> None:
    """Make the arrays of a group, its coordinates filled, the other one empty."""
    for name, values in coordinates.items():
        group.create_array(
            name,
            data=values,
            chunks=values.shape,
            dimension_names=("sample",),
            filters=None,
            compressors=_COMPRESSORS["none"],
            config={"write_empty_chunks": True},
        )
    array = form.array_form(meta)
    group.create_array(
        form.array,
        shape=array.shape,
        chunks=array.chunks,
        dtype=array.dtype,
        fill_value=math.nan,
        dimension_names=array.dimensions,
        attributes=dict(array.attributes),
        filters=None,
        compressors=_COMPRESSORS[compression],
    )


def _check_same(folder: Place, stored: Meta, meta: Meta) -> None:
    found, wanted = _flat(stored), _flat(meta)
    for name, value in found.items():
        if name.partition(".")[0] not in _MAY_DIFFER and wanted[name] != value:
            raise ConflictError(
                f"{folder} is stored with {name} {_shown(value)}, not {_shown(wanted[name])}",
                remedy="give the same, or write under another name",
            )


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _flat(meta: Meta) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in meta.to_json().items():
        nested = value if isinstance(value, dict) else None
        flat |= {name: value} if nested is None else {f"{name}.{k}": v for k, v in nested.items()}
    return flat


def _remove_leftovers(folder: Place) -> None:
    """Remove what kills left in a group that is claimed: no other writer is at work in it."""
    if isinstance(folder, Path):  # an address has none
        for inside, _, names in os.walk(folder):
            # Harmless, but Zarr and xarray warn about files that they do not know.
            for name in filter(is_leftover, names):
                Path(inside, name).unlink(missing_ok=True)
