"""Write one representation, minibatch after minibatch: data first, promise last."""

import math
import os
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, Self, cast

import numpy.typing as npt
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from store.arrays.committed import Committed, Form, M, Records, Stored, parse
from store.arrays.coordinates import (
    Coordinates,
    check_like_others,
    coordinates_of,
    digests,
    recorded,
)
from store.arrays.reader import ACTIVATIONS
from store.arrays.tap_folders import note_removed
from store.errors import (
    ConflictError,
    DamagedChunkError,
    MisalignedWriteError,
    SchemaError,
    unreadable,
)
from store.model.array_interop import as_real
from store.model.field_checks import shown
from store.model.names import TAP_DEPTH
from store.model.narrowing import narrow_rows
from store.model.schema import Attributes, Commit, Meta, RepresentationMeta
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
from store.zarrfiles.chunk_files import write_chunk
from store.zarrfiles.layout import (
    COMMITS,
    COORDINATES,
    LATER,
    SOURCE,
    crc32c,
    create_root,
    drafted,
    writing,
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


MadeOf = tuple[Coordinates, Compression]


class CommittedWriter(Committed[M]):
    """Fills one array; use ``open``, which also resumes, preferably in a ``with`` block.

    Until it is closed or dead, others are refused: two would overwrite each other's commit records.
    """

    def __init__(self, root: Place, stored: Stored[M], held: Claim, made_of: MadeOf) -> None:
        super().__init__(root, *stored)
        self._claim, self._made_of = held, made_of
        self._node = self._array_node()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let others write; a second time does nothing."""
        with writing(self.store_path, f"cannot let go of {self.place}"):
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
            source: digest of what the array is computed from; one of another source is replaced.
            afresh: replace whatever is there, also what cannot be read, and note as taken back that
                many of its first rows (of Grams: minibatches).

        Raises ConflictError where the key is stored with other metadata or coordinates, or another
        array on the sample set with other coordinates; ClaimedError while another writer is at work
        on it.
        """
        made_of = coordinates_of(samples, labels, meta), compression
        if compression not in _COMPRESSORS:
            wanted = f"use {' or '.join(map(repr, _COMPRESSORS))}"
            raise SchemaError(f"compression of {meta.key}", f"is {compression!r}", wanted)
        root = as_place(store)
        create_root(root, cls.form.kind)
        folder = root / meta.key.path
        # Unless the group is marked as whole, everything in the array's folder will be removed.
        check_unlinked(root, [*meta.key.path.split("/"), cls.form.array])
        is_new = NODE not in _members(folder, cls.form)
        # Grams take theirs from activations, which this has let in.
        if is_new and isinstance(meta, RepresentationMeta):
            check_like_others(root, meta, digests(made_of[0]))
        marks: dict[str, Any] = {} if source is None else {SOURCE: source}
        if afresh:
            marks[LATER] = [None] * -(-min(afresh, meta.length) // meta.block_length)
        with writing(root, f"cannot create {folder}"):
            return cls._made(root, meta, made_of, marks, keep=afresh is None)

    @classmethod
    def _made(
        cls, root: Place, meta: M, made_of: MadeOf, marks: dict[str, Any], *, keep: bool
    ) -> Self:
        """Claim an array and return its writer; ``keep`` what is there, if it is of the source."""
        folder = root / meta.key.path
        held = claim(folder / cls.form.array)
        try:
            stored = _stored(folder, meta, made_of[0], cls.form) if keep else None
            # Where no source is recorded, the checkpoint's digest has to do.
            source = marks.get(SOURCE)
            if stored is None or source not in (None, stored[2].get(SOURCE, source)):
                stored = _create(root, meta, cls.form, made_of, marks)
            _remove_leftovers(folder)
            writer = cls(root, stored, held, made_of)
            writer._update_attributes(meta.attributes)
            return writer
        except BaseException:
            held.release()
            raise

    def _update_attributes(self, wanted: Attributes) -> None:
        if wanted and dict(wanted) != dict(self.meta.attributes):
            meta = self.form.from_json(self.meta.to_json() | {"attributes": dict(wanted)})
            self._put({self.form.mark: meta.to_json()})
            self.meta = meta

    def _make_again(self, meta: M) -> None:
        """Create the array again, with other metadata; until that is done nothing counts."""
        marks = {SOURCE: source} if (source := self._attributes.get(SOURCE)) else {}
        with writing(self.store_path, f"cannot create {self.place}"):
            made = _create(self.store_path, meta, self.form, self._made_of, marks)
        self.meta, records, self._attributes = made
        self._set_records(records)
        self._node = self._array_node()
        self.__dict__.pop("_array", None)

    def take_back(self, starts: Collection[int]) -> None:
        """Take back the records of damaged blocks, by where they begin: they have to be appended.

        Until then they do not count, nor do those behind them, whose records are kept.
        """
        found = (*self.commits, *self._later)
        known = [self.meta.block(i)[0] for i in range(len(found))]
        if unknown := set(starts).difference(known):
            raise MisalignedWriteError(
                f"{self.form.unit} {min(unknown)} of {self.meta.key}",
                f"begins none of its {len(found)} blocks of {self.meta.block_length}",
            )
        left = (None if at in starts else each for at, each in zip(known, found, strict=True))
        if (records := tuple(left)) != found:
            what = f"cannot write to {self.place}"
            with writing(self.store_path, what, "; fix that and run again"):
                self._put_records(records)

    def _write(self, values: npt.NDArray[Any]) -> None:
        """Write and commit the next block, whose form the caller has checked."""
        start, stop = self.meta.block(len(self.commits))
        units = self.form.units
        what = f"cannot write {units} {start} to {stop - 1} of {self.place}"
        advice = f"; committed {units} are safe, so fix that and run again"
        with writing(self.store_path, what, advice):
            self._claim.renew()
            digest = self._move(write_chunk, self._node, start, values)
            if digest is None:
                self._array[start:stop] = values
                digest = crc32c(values)
            # Committed last: a crash can lose this block but never claim it.
            self._put_records((*self.commits, Commit(start, stop, digest), *self._later[1:]))

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
        self._attributes = write_attributes(self.place, attributes)

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
    """Fills one representation, minibatch after minibatch; use ``Writer.open``, which resumes."""

    form: ClassVar[Form[RepresentationMeta]] = ACTIVATIONS

    def append(self, rows: npt.ArrayLike) -> None:
        """Write and commit the next minibatch: ``batch_rows`` rows, or the rest at the end.

        NaN and infinities that the network computed are stored as they are. A finite value that
        the stored dtype cannot hold raises ActivationOverflowError before anything is written, and
        rows that vary too little for its precision raise PrecisionError: leave the cast to this
        method. Other than real numbers raise ArrayError.
        """
        start, stop = self.meta.block(len(self.commits))
        name, n = str(self.meta.key), self.meta.n_samples
        values, shape = as_real(rows, name), (stop - start, *self.meta.shape)
        if start >= n:
            raise MisalignedWriteError(name, f"has all its {n} rows", "stop appending")
        if values.shape != shape:
            wanted = f"rows {start} to {stop - 1} need {shape}: append whole minibatches in order"
            raise MisalignedWriteError(name, f"got rows of shape {values.shape}", wanted)
        self._write(narrow_rows(values, self.meta.dtype, name))
        if self.complete:
            self.close()


def _stored(folder: Place, meta: M, coordinates: Coordinates, form: Form[M]) -> Stored[M] | None:
    """Return what a writer resumes, having checked that it is the same; None where nothing is."""
    stored = parse(form, read_attributes(folder), meta.key.path)
    if stored is None:
        return None
    wanted = _flat(meta, own := digests(coordinates))
    kept = recorded(stored[2], own)
    if kept is None:
        remedy = unreadable("it", form.verb)
        raise SchemaError(str(folder), "has no digests of its coordinates", remedy=remedy)
    for name, value in _flat(stored[0], kept).items():
        if name.partition(".")[0] not in _MAY_DIFFER and wanted[name] != value:
            raise ConflictError(
                f"{folder} is stored with {name} {shown(value)}, not {shown(wanted[name])}",
                remedy="give the same, or write under another name",
            )
    return stored


def _flat(meta: Meta, coordinates: Mapping[str, str]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in meta.to_json().items():
        nested = value if isinstance(value, dict) else None
        flat |= {name: value} if nested is None else {f"{name}.{k}": v for k, v in nested.items()}
    return flat | {f"digest of {name}s": each for name, each in coordinates.items()}


def _members(folder: Place, form: Form[Any]) -> list[str]:
    """Return what is in a group's folder; raises SchemaError for what no store wrote."""
    members, found = {form.array, "sample", "label", NODE}, entry_names(folder)
    odd = [name for name in found if name not in members and not is_leftover(name)]
    if odd:
        raise SchemaError(f"{folder} holds {odd[0]!r}, which no store wrote", remedy="move it away")
    return found


def _create(
    root: Place, meta: M, form: Form[M], made_of: MadeOf, marks: dict[str, Any]
) -> Stored[M]:
    """Create a group, clearing what an interrupted creation left there; return its contents."""
    folder, (coordinates, compression) = root / meta.key.path, made_of
    there = entry_names(folder)
    # First what makes it a group: the rest is nothing without it.
    for name in (NODE, "sample", "label"):
        if name in there:
            remove_tree(folder / name)
    for name in entry_names(folder / form.array):
        if name != CLAIM:
            remove_tree(folder / form.array / name)
    array = form.array_form(meta)
    with drafted(root, meta.key.path) as group:
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
    # Written last: until then readers skip the group and writers create it again.
    marked = {form.mark: meta.to_json(), COORDINATES: digests(coordinates), COMMITS: []} | marks
    sealed = write_attributes(folder, marked)
    *network, tap = meta.key.path.split("/")[: TAP_DEPTH + 1]
    note_removed(root.joinpath(*network), tap, is_removed=False)
    return meta, tuple(marks.get(LATER, ())), sealed


def _remove_leftovers(folder: Place) -> None:
    """Remove files of killed writers from a group that is claimed: no other is at work in it."""
    if isinstance(folder, Path):  # an address has none
        for inside, _, names in os.walk(folder):
            # Harmless, but Zarr and xarray warn about files that they do not know.
            for name in filter(is_leftover, names):
                Path(inside, name).unlink(missing_ok=True)
