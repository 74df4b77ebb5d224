"""Records of numbers: one Zarr group each, of arrays and of facts as JSON, complete or absent.

Results of comparisons and of probes are such: the arrays go into a draft, the facts and a digest of
every array are written last, and the draft takes the place of an older record of that name.
"""

import errno
import math
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import Crc32cCodec

from store.arrays.committed import READABLE_CODECS
from store.errors import DamagedChunkError, SchemaError, StoreError, UnfinishedError, pass_on
from store.model.field_checks import check_text, check_utc, shown
from store.model.names import check_component
from store.model.schema import RepresentationKey, as_json
from store.model.strict_json import as_read
from store.storage.local_files import is_free, is_same, try_lock
from store.storage.paths import (
    Address,
    Place,
    as_place,
    check_inside,
    child_names,
    entry_names,
    remove_tree,
    write_bytes,
    zarr_store,
)
from store.storage.remote_errors import reaching
from store.zarrfiles.layout import (
    Kind,
    crc32c,
    create_root,
    drafted,
    has_store,
    open_root,
    writing,
)
from store.zarrfiles.metadata_files import read_array, read_attributes, write_attributes

DIGESTS: Final = "allcnn_digests"
"""Attribute of a record: a digest of each of its arrays."""

_CODECS: Final = READABLE_CODECS | {"vlen-utf8"}

_SWAPS, _LOOKS = 5, 20
_SWAPPING_S = 0.01
"""As many looks as that take far longer than a record is absent while another takes its place."""

_OWN: Final = r"\.{}\.\d+-[0-9a-f]{{8}}\.(partial|replaced)"
"""Names of the folders in which a local writer makes a record."""

_OCCUPIED: Final = (errno.ENOTEMPTY, errno.EEXIST)

Matrix = npt.NDArray[np.float64]
Sizes = npt.NDArray[np.int64]
Arrays = dict[str, npt.NDArray[Any]]

T = TypeVar("T")


@dataclass(frozen=True)
class RecordForm(Generic[T]):
    """How the records of one kind of store look, and the words of their errors.

    Attributes:
        kind: of store.
        noun: what errors call a record.
        mark: attribute of a group that holds the facts.
        own: fields of a record that are arrays; the others are facts, as JSON values.
        arrays_of: returns the arrays of a record by their names.
        axes: by dimension, the fact that lists its places, of which xarray shows the names.
        sides: those of these facts that list representations, by the texts of their keys.
        dimensions: of an array of numbers, by its name; raises for no name of one.
        first: names by which a folder that lost its metadata is known for a record.
        integers: those of int64; others are float64.
        unknown: what is raised for a record that is not there.
        check: raises SchemaError for facts that lists of records could not show.
        make: puts a record together from its facts and arrays; raises TypeError, KeyError or
            ValueError where these do not fit.
    """

    kind: Kind
    noun: str
    mark: str
    own: Collection[str]
    arrays_of: Callable[[T], Arrays]
    axes: Mapping[str, str]
    sides: tuple[str, ...]
    dimensions: Callable[[str], tuple[str, ...]]
    first: tuple[str, ...]
    integers: frozenset[str]
    unknown: type[StoreError]
    check: Callable[[Mapping[str, Any]], None]
    make: Callable[[Mapping[str, Any], Arrays], T]

    def dtype_of(self, array: str) -> np.dtype[Any]:
        """Return the type of the numbers in an array."""
        return np.dtype(np.int64 if array in self.integers else np.float64)

    def facts_of(self, record: Any) -> dict[str, Any]:
        """Return what is written of a record beside its arrays."""
        names = [each.name for each in fields(record) if each.name not in self.own]
        return {name: as_json(getattr(record, name)) for name in names}

    def labels(self, facts: Mapping[str, Any]) -> dict[str, list[str]]:
        """Return by dimension the names of its places."""
        return {
            axis: [
                str(RepresentationKey.from_text(each) if fact in self.sides else each)
                for each in facts[fact]
            ]
            for axis, fact in self.axes.items()
        }

    def as_stored(self, record: Any) -> Arrays:
        """Return the arrays of a record in the types in which they are stored.

        Raises SchemaError unless they have the lengths of their dimensions; the first array that
        has a dimension of unknown length says how long that is.
        """
        made: Arrays = {}
        lengths = {axis: len(getattr(record, fact)) for axis, fact in self.axes.items()}
        for name, values in self.arrays_of(record).items():
            dimensions, shape = self.dimensions(name), np.shape(values)
            if len(shape) == len(dimensions):
                lengths = dict(zip(dimensions, shape, strict=True)) | lengths
            wanted = tuple(lengths.get(dimension, dimension) for dimension in dimensions)
            if shape != wanted:
                what = f"{name} of {self.noun} {record.name}"
                raise SchemaError(what, f"has shape {shape}", f"want {wanted}")
            made[name] = np.ascontiguousarray(values, self.dtype_of(name))
        return made

    def write(self, store: Address, record: T) -> None:
        """Write a record, replacing one of the same name only after the new one is complete.

        At an address, where nothing can be renamed at once, the old one is removed first.
        """
        place, facts, arrays = as_place(store), self.facts_of(record), self.arrays_of(record)
        name = facts["name"]
        try:  # else what cannot be read would replace an older record; provenance may have NaN
            self.check(as_read(facts, constants=True))
        except (TypeError, KeyError, ValueError) as error:
            raise SchemaError(f"{self.noun} {name} cannot be written: {error}") from error
        create_root(place, self.kind)
        with reaching(place):
            if isinstance(place, Path):
                self._replace(place, facts, arrays)
            else:
                remove_tree(place / name)
                self._fill(place, name, facts, arrays)

    def _replace(self, place: Path, facts: dict[str, Any], arrays: Arrays) -> None:
        name = facts["name"]
        with _locked_draft(place, name) as draft:
            try:
                self._fill(place, draft.name, facts, arrays)
                _swap(draft, place / name, draft.with_suffix(".replaced"))
            except OSError:
                shutil.rmtree(draft, ignore_errors=True)  # a full disk needs the room
                raise
        _remove_leftovers(place, name)

    def _fill(self, place: Place, path: str, facts: dict[str, Any], arrays: Arrays) -> None:
        """Write a group, its attributes last: without them it is unfinished."""
        labels = {
            name: np.array(names, dtype=np.dtypes.StringDType())
            for name, names in self.labels(facts).items()
        }
        with drafted(place, path) as group:
            for name, values in (arrays | labels).items():
                fill: dict[str, Any] = {"fill_value": 0 if name in self.integers else math.nan}
                group.create_array(
                    name,
                    data=values,
                    chunks=tuple(max(1, size) for size in values.shape),
                    filters=None,
                    # Not zstd: some flipped bits of what it writes change no letter of a label,
                    # and no one would find them.
                    compressors=(Crc32cCodec(),),
                    dimension_names=(name,) if name in labels else self.dimensions(name),
                    config={"write_empty_chunks": True},
                    **({} if name in labels else fill),
                )
        digests = {name: crc32c(values) for name, values in arrays.items()}
        write_attributes(place / path, {DIGESTS: digests, self.mark: facts})

    def read(self, store: Address, name: str) -> T:
        """Read a finished record.

        Raises UnknownResultError, or UnknownProbeError, where there is none, UnfinishedError where
        writing was interrupted, DamagedChunkError where values are not those that were written.
        """
        check_component(self.noun, name)
        place = as_place(store)
        open_root(place, self.kind)
        check_inside(place, place / name)
        for _ in range(_LOOKS):
            before = _identity(place / name)
            try:
                return self._read(place, name)
            except (StoreError, OSError):
                if before is None and _has_draft(place, name):
                    time.sleep(_SWAPPING_S)  # perhaps its writer is between two renames
                elif _identity(place / name) == before:
                    raise  # no other writer has put another in its place meanwhile
        return self._read(place, name)

    def _read(self, place: Place, name: str) -> T:
        folder = place / name
        with reaching(place):
            attributes = read_attributes(folder)
            if attributes is None and not _has_draft(place, name):
                raise self.unknown(f"{place} holds no {self.noun} {name!r}; compute it first")
            if attributes is None or self.mark not in attributes:
                raise UnfinishedError(
                    f"{self.noun} {name} in {place} was not finished", remedy="compute it again"
                )
            digests = attributes.get(DIGESTS)
            if not isinstance(digests, dict):
                remedy = "delete it and compute it again"
                raise SchemaError(str(folder), "has no digests", remedy=remedy)
            arrays = {each: self.read_numbers(folder, each, digests[each]) for each in digests}
        return self.rebuilt(folder, attributes[self.mark], arrays)

    def read_numbers(self, folder: Place, name: str, digest: object) -> npt.NDArray[Any]:
        """Read an array of a record; raises DamagedChunkError where its digest is another."""
        where = f"{name} of {self.noun} {folder.name} in {folder.parent}"
        if not self.has_array(name):
            found = f"has no array {shown(name)}"
            raise SchemaError(str(folder), found, remedy="delete it and compute it again")
        values = read_values(folder / name, self.dtype_of(name), where)
        if crc32c(values) != digest:
            raise DamagedChunkError(where, "is not what was written", remedy="compute it again")
        return values

    def has_array(self, name: str) -> bool:
        """Return whether an array of a record may have this name."""
        with suppress(KeyError, SchemaError):
            return bool(self.dimensions(name))
        return False

    def rebuilt(self, folder: Place, facts: object, arrays: Arrays) -> T:
        """Put a record together; SchemaError where it does not fit, or has another's name."""
        checked = self.check_facts(folder, facts)
        with _well_formed(folder):
            record = self.make(checked, arrays)
        if checked["name"] != folder.name:
            found = f"holds {self.noun} {checked['name']}"
            raise SchemaError(str(folder), found, remedy="rename the folder to that")
        return record

    def read_facts(self, folder: Place) -> dict[str, Any] | None:
        """Return the facts of a finished record, without its numbers; None where there is none."""
        attributes = read_attributes(folder) or {}
        return self.check_facts(folder, attributes[self.mark]) if self.mark in attributes else None

    def check_facts(self, folder: Place, facts: object) -> dict[str, Any]:
        """Return the facts of a record; SchemaError where they have other types or bounds."""
        with _well_formed(folder):
            if not isinstance(facts, dict):
                raise TypeError("no JSON object")
            self.check(facts)
        return facts

    def names(self, store: Address) -> list[str]:
        """Return the names of finished records, sorted; one that is damaged is among them."""
        place = as_place(store)
        open_root(place, self.kind)
        return [name for name in child_names(place) if self._is_finished(place / name)]

    def _is_finished(self, folder: Place) -> bool:
        with suppress(SchemaError, DamagedChunkError):
            return self.mark in (read_attributes(folder) or {})
        return True

    def has(self, store: Address, name: str) -> bool:
        """Return whether a finished record has this name; a store not yet there has none."""
        check_component(self.noun, name)
        place = as_place(store)
        if not has_store(place):
            return False
        open_root(place, self.kind)
        return self.mark in (read_attributes(place / name) or {})


def read_values(folder: Place, dtype: np.dtype[Any], where: str) -> npt.NDArray[Any]:
    """Read an array; raises DamagedChunkError, which calls it ``where``, if that fails."""
    try:
        node = read_array(folder)
        if node is None or not _CODECS.issuperset(node.codec_names):
            foreign = "it has a codec that Zarr itself does not know"
            raise ValueError(foreign if node else "no array")
        array = zarr.open_array(zarr_store(folder, read_only=True), mode="r", zarr_format=3)
        return np.ascontiguousarray(array[:], dtype)
    except (KeyError, ValueError, TypeError, RuntimeError, FileNotFoundError) as error:
        pass_on(error)
        raise DamagedChunkError.of(where, error, "compute it again", "is") from error


def check_writable(store: Address, kind: Kind) -> None:
    """Make a store of records where there is none, and find out whether one can be written there.

    Raises StoreLocationError where not: better before a long computation than after it.
    """
    place = as_place(store)
    trial = place / ".writable.partial"
    create_root(place, kind)
    advice = "; make it writable, or use a workspace of your own"
    with writing(place, f"cannot write to {place}, where the result would be kept", advice):
        write_bytes(trial, b"")
        trial.unlink(missing_ok=True)


@contextmanager
def _locked_draft(place: Path, name: str) -> Iterator[Path]:
    """Make a folder to write a record in, and lock it: an unlocked one was left by a kill.

    A name that begins with a dot is no record, so none is listed or read. Every writer has its own,
    as others may be writing the same record.
    """
    while True:
        draft = place / f".{name}.{os.getpid()}-{secrets.token_hex(4)}.partial"
        draft.mkdir()
        # Until it is locked, another writer may take it for a leftover, and remove it.
        try:
            descriptor = os.open(draft, os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            if try_lock(descriptor) is not False and is_same(descriptor, draft):
                yield draft
                return
        finally:
            os.close(descriptor)


def _remove_leftovers(place: Path, name: str) -> None:
    """Remove the drafts of a record that killed writers left, and none of a living writer."""
    for found in filter(re.compile(_OWN.format(re.escape(name))).fullmatch, entry_names(place)):
        draft = (place / found).with_suffix(".partial")
        if not draft.exists() or is_free(draft):
            with suppress(OSError):  # another writer has just removed it
                remove_tree(place / found)


def _swap(draft: Path, target: Path, replaced: Path) -> None:
    """Put a draft in the place of a record; where others are faster every time, theirs stays."""
    for _ in range(_SWAPS):
        with suppress(FileNotFoundError):  # another writer has moved it
            if target.exists():
                target.rename(replaced)
        try:
            draft.rename(target)
        except OSError as error:
            if error.errno not in _OCCUPIED:
                with suppress(OSError):
                    replaced.rename(target)
                raise
        shutil.rmtree(replaced, ignore_errors=True)
        if not draft.exists():
            return
    shutil.rmtree(draft, ignore_errors=True)


def _identity(folder: Place) -> tuple[int, int] | None:
    """Return what differs once a record was replaced; None at an address."""
    with suppress(OSError):
        if isinstance(folder, Path):
            found = folder.stat()
            return found.st_ino, found.st_ctime_ns
    return None


@contextmanager
def _well_formed(folder: Place) -> Iterator[None]:
    try:
        yield
    except (TypeError, KeyError, ValueError) as error:
        why = f"{error} is missing" if isinstance(error, KeyError) else error
        found = f"is malformed ({why})"
        raise SchemaError(str(folder), found, remedy="compute it again") from error


def check_provenance(facts: Mapping[str, Any]) -> None:
    """Raise SchemaError unless a record says who made it in the way that every kind does."""
    provenance = facts.get("provenance", {})
    if not isinstance(provenance, dict):
        raise SchemaError("provenance", f"is {shown(provenance)}", "want names with JSON values")
    if provenance.get("created_at", "") != "":
        check_utc("created_at", provenance["created_at"])
    for program, version in check_dict("versions", provenance.get("versions")).items():
        check_text("a program", program)
        check_text(f"version of {program}", version)


def check_dict(name: str, value: object) -> dict[str, Any]:
    """Return what JSON has as an object, and an empty one for None; else raise SchemaError."""
    if not isinstance(value, dict | None):
        raise SchemaError(name, f"is {shown(value)}", "want names with JSON values")
    return value or {}


def _has_draft(place: Place, name: str) -> bool:
    draft = re.compile(rf"\.{re.escape(name)}(\.\d+-[0-9a-f]{{8}})?\.partial")
    return any(map(draft.fullmatch, entry_names(place)))
