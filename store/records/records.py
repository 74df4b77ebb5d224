"""Records of numbers: one Zarr group each, of arrays and of facts as JSON, complete or absent.

What results of comparisons and of probes share: the arrays go into a draft, the facts and a digest
of every array are written last, and the draft takes the place of an older record of that name.
"""

import errno
import math
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import Crc32cCodec

from store.arrays.committed import READABLE_CODECS
from store.errors import (
    DamagedChunkError,
    SchemaError,
    StoreError,
    StoreLocationError,
    UnfinishedError,
)
from store.model.field_checks import check_text, check_utc, shown
from store.model.names import check_component
from store.model.schema import RepresentationKey
from store.model.strict_json import as_read
from store.storage.exhaustion import pass_on
from store.storage.file_lock import is_free, is_same, try_lock
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
from store.zarrfiles.drafts import drafted
from store.zarrfiles.layout import Kind, crc32c, create_root, has_store, open_root
from store.zarrfiles.metadata_files import read_array, read_attributes, write_attributes

DIGESTS: Final = "allcnn_digests"
"""Attribute of a record: a digest of each of its arrays."""

_SWAPS, _LOOKS = 5, 20
_SWAPPING_S = 0.01
"""As many looks as that take far longer than a record is absent while another takes its place."""

_OWN: Final = r"\.{}\.\d+-[0-9a-f]{{8}}\.(partial|replaced)"
"""What a local writer calls the folders of a record with a name."""

_OCCUPIED: Final = (errno.ENOTEMPTY, errno.EEXIST)

Matrix = npt.NDArray[np.float64]
Sizes = npt.NDArray[np.int64]
Arrays = dict[str, npt.NDArray[Any]]

T = TypeVar("T")


@dataclass(frozen=True)
class RecordForm(Generic[T]):
    """What the records of one kind of store look like, and what errors say of them.

    Attributes:
        kind: of store.
        noun: what errors call a record.
        mark: attribute of a group that holds the facts.
        sides: facts that list the representations which a record is about, by the texts of
            their keys.
        labels: returns by dimension, from the facts, the names of its places, which xarray shows.
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
    sides: tuple[str, ...]
    labels: Callable[[Mapping[str, Any]], dict[str, list[str]]]
    dimensions: Callable[[str], tuple[str, ...]]
    first: tuple[str, ...]
    integers: frozenset[str]
    unknown: type[StoreError]
    check: Callable[[Mapping[str, Any]], None]
    make: Callable[[Mapping[str, Any], Arrays], T]

    def dtype_of(self, array: str) -> np.dtype[Any]:
        """Return the type of the numbers in an array."""
        return np.dtype(np.int64 if array in self.integers else np.float64)


@dataclass(frozen=True)
class Content:
    """What is written of one record.

    Attributes:
        name: of the record, and of its folder.
        facts: JSON values.
        arrays: of numbers, those that are there.
    """

    name: str
    facts: dict[str, Any]
    arrays: Arrays


def check_writable(store: Address, kind: Kind) -> None:
    """Make a store of records where there is none, and find out whether one can be written there.

    Raises StoreLocationError where not: better before a long computation than after it.
    """
    place = as_place(store)
    trial = place / ".writable.partial"
    with reaching(place):
        create_root(place, kind)
        try:
            write_bytes(trial, b"")
            trial.unlink(missing_ok=True)
        except OSError as error:
            raise StoreLocationError(
                f"cannot write to {place} ({error.strerror or error}), where the result would be"
                " kept",
                remedy="make it writable, or use a workspace of your own",
            ) from error


def tap_names(texts: list[str]) -> list[str]:
    """Return what representations are called, of the texts of their keys."""
    return [str(RepresentationKey.from_text(text)) for text in texts]


def write_record(store: Address, form: RecordForm[Any], content: Content) -> None:
    """Write a record, replacing one of the same name only after the new one is complete.

    At an address, where nothing can be renamed at once, the old one is removed first.
    """
    place = as_place(store)
    _check_readable(form, content)
    create_root(place, form.kind)
    with reaching(place):
        if isinstance(place, Path):
            _replace(place, form, content)
        else:
            remove_tree(place / content.name)
            with drafted(place, content.name) as group:
                _write_arrays(group, form, content)
            _write_facts(place / content.name, form, content)


def _check_readable(form: RecordForm[Any], content: Content) -> None:
    """Raise SchemaError for facts that reading would refuse: they would replace an older record."""
    try:
        # Provenance may have NaN in it.
        form.check(as_read(content.facts, constants=True))
    except (TypeError, KeyError, ValueError) as error:
        raise SchemaError(f"{form.noun} {content.name} cannot be written: {error}") from error


def _replace(place: Path, form: RecordForm[Any], content: Content) -> None:
    with _locked_draft(place, content.name) as draft:
        try:
            group = zarr.create_group(zarr_store(draft, read_only=False), zarr_format=3)
            _write_arrays(group, form, content)
            _write_facts(draft, form, content)
            _swap(draft, place / content.name, draft.with_suffix(".replaced"))
        except OSError:
            shutil.rmtree(draft, ignore_errors=True)  # a full disk needs the room
            raise
    _remove_leftovers(place, content.name)


@contextmanager
def _locked_draft(place: Path, name: str) -> Iterator[Path]:
    """Make a folder to write a record in, and lock it: without its lock it is what a kill left.

    A name beginning with a dot is no record, so nobody lists or reads it. Every writer has its own,
    as others may be writing the same record.
    """
    while True:
        draft = place / f".{name}.{os.getpid()}-{secrets.token_hex(4)}.partial"
        draft.mkdir()
        # Until it is locked, another writer may take it for what a kill left, and remove it.
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
    """Remove what kills left of writing a record, and nothing of a living writer."""
    for found in filter(re.compile(_OWN.format(re.escape(name))).fullmatch, entry_names(place)):
        draft = (place / found).with_suffix(".partial")
        if not draft.exists() or is_free(draft):
            with suppress(OSError):  # somebody else has just removed it
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


def read_record(store: Address, form: RecordForm[T], name: str) -> T:
    """Read a finished record.

    Raises the form's error where there is none, UnfinishedError where writing was interrupted,
    DamagedChunkError where values are not those that were written.
    """
    check_component(form.noun, name)
    place = as_place(store)
    open_root(place, form.kind)
    check_inside(place, place / name)
    for _ in range(_LOOKS):
        before = _identity(place / name)
        try:
            return _read(place, form, name)
        except (StoreError, OSError):
            if before is None and _has_draft(place, name):
                time.sleep(_SWAPPING_S)  # perhaps its writer is between two renames
            elif _identity(place / name) == before:
                raise  # nobody has put another in its place meanwhile
    return _read(place, form, name)


def _identity(folder: Place) -> tuple[int, int] | None:
    """Return what differs once a record was replaced; at an address nothing tells."""
    with suppress(OSError):
        if isinstance(folder, Path):
            found = folder.stat()
            return found.st_ino, found.st_ctime_ns
    return None


def _read(place: Place, form: RecordForm[T], name: str) -> T:
    with reaching(place):
        attributes = read_attributes(place / name)
        if attributes is None and not _has_draft(place, name):
            raise form.unknown(f"{place} holds no {form.noun} {name!r}; compute it first")
        if attributes is None or form.mark not in attributes:
            raise UnfinishedError(
                f"{form.noun} {name} in {place} was not finished", remedy="compute it again"
            )
        digests = _digests(place / name, attributes)
        arrays = {
            array: read_numbers(place / name, form, array, digest)
            for array, digest in digests.items()
        }
    return rebuilt(place / name, form, attributes[form.mark], arrays)


def rebuilt(folder: Place, form: RecordForm[T], facts: object, arrays: Arrays) -> T:
    """Put a record together; raises SchemaError where it does not fit, or has another's name."""
    checked = check_facts(folder, form, facts)
    try:
        record = form.make(checked, arrays)
    except (TypeError, KeyError, ValueError) as error:
        raise _malformed(folder, error) from error
    if checked["name"] != folder.name:
        found = f"holds {form.noun} {checked['name']}"
        raise SchemaError(str(folder), found, remedy="rename the folder to that")
    return record


def _malformed(folder: Place, why: object) -> SchemaError:
    return SchemaError(str(folder), f"is malformed ({why})", remedy="compute it again")


def read_facts(folder: Place, form: RecordForm[Any]) -> dict[str, Any] | None:
    """Return the facts of a finished record, without its numbers; None where there is none.

    Raises SchemaError or DamagedChunkError where they are not what is written.
    """
    attributes = read_attributes(folder) or {}
    return check_facts(folder, form, attributes[form.mark]) if form.mark in attributes else None


def check_facts(folder: Place, form: RecordForm[Any], facts: object) -> dict[str, Any]:
    """Return the facts of a record, or raise SchemaError where they have other types or bounds."""
    try:
        if not isinstance(facts, dict):
            raise TypeError("no JSON object")
        form.check(facts)
    except (TypeError, KeyError, ValueError) as error:
        why = f"{error} is missing" if isinstance(error, KeyError) else error
        raise _malformed(folder, why) from error
    return facts


def check_provenance(facts: Mapping[str, Any]) -> None:
    """Raise SchemaError unless a record says who made it in the way that every kind does."""
    provenance = facts.get("provenance", {})
    if not isinstance(provenance, dict):
        raise SchemaError(
            f"provenance is {shown(provenance)}", remedy="want names with JSON values"
        )
    if provenance.get("created_at", "") != "":
        check_utc("created_at", provenance["created_at"])
    for program, version in check_dict("versions", provenance.get("versions")).items():
        check_text("a program", program)
        check_text(f"version of {program}", version)


def check_dict(name: str, value: object) -> dict[str, Any]:
    """Return what JSON has as an object, and an empty one for None; else raise SchemaError."""
    if not isinstance(value, dict | None):
        raise SchemaError(f"{name} is {shown(value)}", remedy="want names with JSON values")
    return value or {}


def _has_draft(place: Place, name: str) -> bool:
    draft = re.compile(rf"\.{re.escape(name)}(\.\d+-[0-9a-f]{{8}})?\.partial")
    return any(map(draft.fullmatch, entry_names(place)))


def list_records(store: Address, form: RecordForm[Any]) -> list[str]:
    """Return the names of finished records, sorted; one that is damaged is among them.

    Reading that one raises what is wrong with it, and the others can be read.
    """
    place = as_place(store)
    open_root(place, form.kind)
    with reaching(place):
        return [name for name in child_names(place) if _is_record(place / name, form)]


def has_record(store: Address, form: RecordForm[Any], name: str) -> bool:
    """Return whether a finished record has this name; a store not yet there has none."""
    check_component(form.noun, name)
    place = as_place(store)
    if not has_store(place):
        return False
    open_root(place, form.kind)
    with reaching(place):
        return _is_finished(place / name, form)


def _is_record(folder: Place, form: RecordForm[Any]) -> bool:
    try:
        return _is_finished(folder, form)
    except (SchemaError, DamagedChunkError):
        return True


def _is_finished(folder: Place, form: RecordForm[Any]) -> bool:
    return form.mark in (read_attributes(folder) or {})


def _write_arrays(group: zarr.Group, form: RecordForm[Any], content: Content) -> None:
    for name, values in content.arrays.items():
        group.create_array(
            name,
            data=values,
            chunks=tuple(max(1, size) for size in values.shape),
            filters=None,
            compressors=(Crc32cCodec(),),
            fill_value=0 if name in form.integers else math.nan,
            dimension_names=form.dimensions(name),
            config={"write_empty_chunks": True},
        )
    for name, names in form.labels(content.facts).items():
        labels = np.array(names, dtype=np.dtypes.StringDType())
        group.create_array(
            name,
            data=labels,
            chunks=(max(1, len(names)),),
            filters=None,
            # Some flipped bits of what zstd writes change no letter, and no one would find them.
            compressors=(Crc32cCodec(),),
            dimension_names=(name,),
        )


def _write_facts(folder: Place, form: RecordForm[Any], content: Content) -> None:
    """Write a group's attributes, last: without them it is unfinished."""
    digests = {name: crc32c(values) for name, values in content.arrays.items()}
    write_attributes(folder, {DIGESTS: digests, form.mark: content.facts})


def _digests(folder: Place, attributes: Mapping[str, Any]) -> dict[str, Any]:
    digests = attributes.get(DIGESTS)
    if not isinstance(digests, dict):
        raise SchemaError(str(folder), "has no digests", remedy="delete it and compute it again")
    return digests


def has_array(form: RecordForm[Any], name: str) -> bool:
    """Return whether an array of a record may have this name."""
    try:
        form.dimensions(name)
    except (KeyError, SchemaError):
        return False
    return True


def read_numbers(
    folder: Place, form: RecordForm[Any], name: str, digest: object
) -> npt.NDArray[Any]:
    """Read an array of a record; raises DamagedChunkError where its digest is another."""
    where = f"{name} of {form.noun} {folder.name} in {folder.parent}"
    if not has_array(form, name):
        found = f"has no array {shown(name)}"
        raise SchemaError(str(folder), found, remedy="delete it and compute it again")
    try:
        node = read_array(folder / name)
        if node is None or not READABLE_CODECS.issuperset(node.codec_names):
            raise ValueError(
                "it has a codec that Zarr itself does not know" if node else "no array"
            )
        array = zarr.open_array(zarr_store(folder / name, read_only=True), mode="r", zarr_format=3)
        values = np.ascontiguousarray(array[:], form.dtype_of(name))
    except (KeyError, ValueError, TypeError, RuntimeError, FileNotFoundError) as error:
        pass_on(error)
        raise DamagedChunkError.of(where, error, "compute it again", "is") from error
    if crc32c(values) != digest:
        raise DamagedChunkError(where, "is not what was written", remedy="compute it again")
    return values


def check_shape(
    what: str,
    dimensions: tuple[str, ...],
    shape: tuple[int, ...],
    lengths: dict[str, int],
) -> None:
    """Raise SchemaError unless an array has the lengths of its dimensions.

    The first array that has a dimension of unknown length says how long that is.
    """
    if len(shape) == len(dimensions):
        for dimension, size in zip(dimensions, shape, strict=True):
            lengths.setdefault(dimension, size)
    wanted = tuple(lengths.get(dimension, dimension) for dimension in dimensions)
    if shape != wanted:
        raise SchemaError(f"{what} has shape {shape}", remedy=f"want {wanted}")
