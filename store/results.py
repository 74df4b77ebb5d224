"""Keep the matrices of comparisons: one Zarr group a result, complete or absent."""

import errno
import json
import math
import os
import re
import secrets
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import Crc32cCodec

from store.committed import READABLE_CODECS
from store.draft import drafted
from store.errors import (
    DamagedChunkError,
    SchemaError,
    StoreError,
    StoreLocationError,
    UnfinishedError,
    UnknownResultError,
)
from store.layout import crc32c, create_root, has_store, open_root
from store.nodes import read_array, read_attributes, write_attributes
from store.place import (
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
from store.reach import reaching
from store.schema import RepresentationKey, check_component

RESULT: Final = "allcnn_result"
DIGESTS: Final = "allcnn_digests"

_SWAPS, _LOOKS = 5, 20
_SWAPPING_S = 0.01
"""As many looks as that take far longer than a result is absent while another takes its place."""

_OCCUPIED: Final = (errno.ENOTEMPTY, errno.EEXIST)

Matrix = npt.NDArray[np.float64]
Sizes = npt.NDArray[np.int64]

ARRAYS: Final[dict[str, tuple[str, ...]]] = {
    "cka": ("row", "column"),
    "hsic": ("row", "column"),
    "hsic_rows": ("row",),
    "hsic_columns": ("column",),
    "bandwidths_rows": ("row",),
    "bandwidths_columns": ("column",),
    "standard_errors": ("row", "column"),
    "minibatch_sizes": ("minibatch",),
    "hsic_minibatches": ("minibatch", "row", "column"),
    "hsic_rows_minibatches": ("minibatch", "row"),
    "hsic_columns_minibatches": ("minibatch", "column"),
    "baseline": ("permutation", "row", "column"),
}
"""The arrays of numbers in a result, and their dimensions."""

_REQUIRED = {"cka", "hsic", "hsic_rows", "hsic_columns"}
_INTEGERS = {"minibatch_sizes"}


@dataclass(frozen=True, eq=False)
class SimilarityResult:
    """A CKA matrix with the sums it came from; arrays are float64, sizes int64.

    Attributes:
        name: of the comparison, safe as a folder's name.
        rows: representations along the first axis.
        columns: representations along the second axis.
        cka: ratio of the sums below; NaN where a self-HSIC sum is not positive.
        hsic: weighted sums over minibatches of HSIC between row and column.
        hsic_rows: the same of each row's representation with itself.
        hsic_columns: the same of each column's representation with itself.
        n_examples: rows of the sample set that were used.
        kernel: such as ``linear`` or ``rbf``.
        sigma: bandwidth as a fraction of the median distance, None for kernels without one.
        estimator: such as ``unbiased``.
        batch_size: examples a minibatch.
        bandwidths_rows: absolute bandwidth of each row's kernel, None for kernels without one.
        bandwidths_columns: absolute bandwidth of each column's kernel.
        reasons: (row, column, sentence) for entries that are NaN.
        provenance: JSON values such as versions, checkpoint digests and time.
        standard_errors: of the entries of ``cka``, None where none were computed.
        standard_errors_reason: sentence why standard errors are NaN, else empty.
        minibatch_sizes: examples of each minibatch, None in older results.
        hsic_minibatches: (minibatch, row, column), the terms of ``hsic``.
        hsic_rows_minibatches: (minibatch, row), those of ``hsic_rows``.
        hsic_columns_minibatches: (minibatch, column), those of ``hsic_columns``.
        baseline: (permutation, row, column), CKA with examples matched at random.
        pool: ``whole``, or ``mean`` where convolutional taps were averaged over space.
        label: class whose examples were compared, None for all of them.
        n_skipped: minibatches that had too few examples of that class.
        sources: how many representations came from activations, and how many from kept Grams.
    """

    name: str
    rows: tuple[RepresentationKey, ...]
    columns: tuple[RepresentationKey, ...]
    cka: Matrix
    hsic: Matrix
    hsic_rows: Matrix
    hsic_columns: Matrix
    n_examples: int
    kernel: str
    sigma: float | None
    estimator: str
    batch_size: int
    bandwidths_rows: Matrix | None = None
    bandwidths_columns: Matrix | None = None
    reasons: tuple[tuple[int, int, str], ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)
    standard_errors: Matrix | None = None
    standard_errors_reason: str = ""
    minibatch_sizes: Sizes | None = None
    hsic_minibatches: Matrix | None = None
    hsic_rows_minibatches: Matrix | None = None
    hsic_columns_minibatches: Matrix | None = None
    baseline: Matrix | None = None
    pool: str = "whole"
    label: int | None = None
    n_skipped: int = 0
    sources: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        check_component("result", self.name)
        lengths = {"row": len(self.rows), "column": len(self.columns)}
        for name in ARRAYS:
            values = getattr(self, name)
            if values is not None or name in _REQUIRED:
                self._check_shape(name, np.shape(values), lengths)
                object.__setattr__(self, name, np.ascontiguousarray(values, dtype_of(name)))
        if len(self.sources) != 2:
            raise SchemaError(
                f"sources of result {self.name} are {self.sources}; want two counts,"
                " of activations and of kept Grams"
            )

    def _check_shape(self, name: str, shape: tuple[int, ...], lengths: dict[str, int]) -> None:
        if len(shape) == len(ARRAYS[name]):
            for dimension, size in zip(ARRAYS[name], shape, strict=True):
                # The first array that has minibatches or permutations says how many there are.
                lengths.setdefault(dimension, size)
        wanted = tuple(lengths.get(dimension, dimension) for dimension in ARRAYS[name])
        if shape != wanted:
            raise SchemaError(f"{name} of result {self.name} has shape {shape}; want {wanted}")


def check_writable(store: Address) -> None:
    """Make a store of results where there is none, and find out whether one can be written there.

    Raises StoreLocationError where not: better before a long computation than after it.
    """
    place = as_place(store)
    probe = place / f".{os.getpid()}-{secrets.token_hex(4)}.partial"
    with reaching(place):
        create_root(place, "similarity")
        try:
            write_bytes(probe, b"")
            probe.unlink()
        except OSError as error:
            raise StoreLocationError(
                f"cannot write to {place} ({error.strerror or error}), where the result would be"
                " kept; make it writable, or use a workspace of your own"
            ) from error


def write_result(store: Address, result: SimilarityResult) -> None:
    """Write a result, replacing one of the same name only after the new one is complete.

    At an address, where nothing can be renamed at once, the old one is removed first.
    """
    place = as_place(store)
    record = _to_json(result)
    root = create_root(place, "similarity")
    with reaching(place):
        if isinstance(place, Path):
            _replace_result(place, root, result, record)
        else:
            remove_tree(place / result.name)
            with drafted(place, result.name) as group:
                _write_arrays(group, result)
            _write_record(place / result.name, result, record)


def _replace_result(
    place: Path, root: zarr.Group, result: SimilarityResult, record: dict[str, Any]
) -> None:
    # Names beginning with a dot are not results, so nobody lists or reads these two. Every writer
    # has its own, as others may be writing the same result.
    own = f".{result.name}.{os.getpid()}-{secrets.token_hex(4)}"
    draft, replaced = place / f"{own}.partial", place / f"{own}.replaced"
    try:
        _write_arrays(root.create_group(draft.name), result)
        _write_record(draft, result, record)
        _swap(draft, place / result.name, replaced)
    except OSError:
        shutil.rmtree(draft, ignore_errors=True)  # a full disk needs the room
        raise


def _swap(draft: Path, target: Path, replaced: Path) -> None:
    """Put a draft in the place of a result; where others are faster every time, theirs stays."""
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


def read_result(store: Address, name: str) -> SimilarityResult:
    """Read a finished result.

    Raises UnknownResultError where there is none, UnfinishedError where writing was interrupted,
    DamagedChunkError where values are not those that were written.
    """
    check_component("result", name)
    place = as_place(store)
    open_root(place, "similarity")
    check_inside(place, place / name)
    for _ in range(_LOOKS):
        before = _identity(place / name)
        try:
            return _read(place, name)
        except (StoreError, OSError):
            if before is None and _has_draft(place, name):
                time.sleep(_SWAPPING_S)  # perhaps its writer is between two renames
            elif _identity(place / name) == before:
                raise  # nobody has put another in its place meanwhile
    return _read(place, name)


def _identity(folder: Place) -> tuple[int, int] | None:
    """Return what differs once a result was replaced; at an address nothing tells."""
    with suppress(OSError):
        if isinstance(folder, Path):
            found = folder.stat()
            return found.st_ino, found.st_ctime_ns
    return None


def _read(place: Place, name: str) -> SimilarityResult:
    with reaching(place):
        attributes = read_attributes(place / name)
        if attributes is None and not _has_draft(place, name):
            raise UnknownResultError(f"{place} holds no result {name!r}; compute it first")
        if attributes is None or RESULT not in attributes:
            raise UnfinishedError(f"result {name} in {place} was not finished; compute it again")
        digests = _digests(place / name, attributes)
        arrays = {n: read_numbers(place / name, n, digests[n]) for n in ARRAYS if n in digests}
    return rebuild(place / name, name, attributes[RESULT], arrays)


def _has_draft(place: Place, name: str) -> bool:
    draft = re.compile(rf"\.{re.escape(name)}(\.\d+-[0-9a-f]{{8}})?\.partial")
    return any(map(draft.fullmatch, entry_names(place)))


def list_results(store: Address) -> list[str]:
    """Return the names of finished results, sorted."""
    place = as_place(store)
    open_root(place, "similarity")
    with reaching(place):
        return [name for name in child_names(place) if _is_finished(place / name)]


def has_result(store: Address, name: str) -> bool:
    """Return whether a finished result has this name; a store not yet there has none."""
    check_component("result", name)
    place = as_place(store)
    if not has_store(place):
        return False
    open_root(place, "similarity")
    with reaching(place):
        return _is_finished(place / name)


def _is_finished(folder: Place) -> bool:
    return RESULT in (read_attributes(folder) or {})


def _arrays(result: SimilarityResult) -> dict[str, npt.NDArray[Any]]:
    present = {name: getattr(result, name) for name in ARRAYS}
    return {name: values for name, values in present.items() if values is not None}


def _write_arrays(group: zarr.Group, result: SimilarityResult) -> None:
    for name, values in _arrays(result).items():
        _write_array(group, name, values, ARRAYS[name])
    for name, keys in (("row", result.rows), ("column", result.columns)):
        labels = np.array([str(key) for key in keys], dtype=np.dtypes.StringDType())
        group.create_array(name, data=labels, chunks=(max(1, len(keys)),), dimension_names=(name,))


def _write_record(folder: Place, result: SimilarityResult, record: dict[str, Any]) -> None:
    """Write a group's attributes, last: without them it is unfinished."""
    digests = {name: crc32c(values) for name, values in _arrays(result).items()}
    write_attributes(folder, {DIGESTS: digests, RESULT: record})


def dtype_of(name: str) -> np.dtype[Any]:
    """Return the type of the numbers in an array of a result."""
    return np.dtype(np.int64 if name in _INTEGERS else np.float64)


def _write_array(
    group: zarr.Group, name: str, values: npt.NDArray[Any], dimensions: tuple[str, ...]
) -> None:
    group.create_array(
        name,
        data=values,
        chunks=tuple(max(1, size) for size in values.shape),
        filters=None,
        compressors=(Crc32cCodec(),),
        fill_value=0 if name in _INTEGERS else math.nan,
        dimension_names=dimensions,
        config={"write_empty_chunks": True},
    )


def _digests(folder: Place, attributes: Mapping[str, Any]) -> dict[str, Any]:
    digests = attributes.get(DIGESTS)
    if not isinstance(digests, dict):
        raise SchemaError(f"{folder} has no digests; delete it and compute it again")
    return digests


def read_numbers(folder: Place, name: str, digest: object) -> npt.NDArray[Any]:
    """Read an array of a result; raises DamagedChunkError where its digest is another."""
    where = f"{name} of result {folder.name} in {folder.parent}"
    try:
        node = read_array(folder / name)
        if node is None or not READABLE_CODECS.issuperset(node.codec_names):
            raise ValueError(
                "it has a codec that Zarr itself does not know" if node else "no array"
            )
        array = zarr.open_array(zarr_store(folder / name, read_only=True), mode="r", zarr_format=3)
        values = np.ascontiguousarray(array[:], dtype_of(name))
    except (KeyError, ValueError, TypeError, RuntimeError, FileNotFoundError) as error:
        raise DamagedChunkError(f"{where} is damaged ({error}); compute it again") from error
    if crc32c(values) != digest:
        raise DamagedChunkError(f"{where} is not what was written; compute it again")
    return values


def _to_json(result: SimilarityResult) -> dict[str, Any]:
    names = [f.name for f in fields(result) if f.name not in ARRAYS]
    record = {name: getattr(result, name) for name in names} | {
        "rows": [key.path for key in result.rows],
        "columns": [key.path for key in result.columns],
        "reasons": [list(reason) for reason in result.reasons],
        "sources": list(result.sources),
    }
    try:
        json.dumps(record)
    except (TypeError, ValueError) as error:
        raise SchemaError(f"result {result.name} cannot be JSON: {error}") from error
    return record


def rebuild(
    folder: Place, name: str, values: object, arrays: dict[str, npt.NDArray[Any]]
) -> SimilarityResult:
    """Put a result together; raises SchemaError where its record and its arrays do not fit."""
    if not isinstance(values, dict):
        raise SchemaError(f"{folder} is malformed; compute it again")
    try:
        result = SimilarityResult(
            **values
            | arrays
            | {
                "rows": tuple(map(RepresentationKey.from_path, values["rows"])),
                "columns": tuple(map(RepresentationKey.from_path, values["columns"])),
                "reasons": tuple((i, j, why) for i, j, why in values["reasons"]),
                "sources": tuple(values.get("sources", (0, 0))),
            }
        )
    except (TypeError, KeyError, ValueError) as error:
        raise SchemaError(f"{folder} is malformed ({error}); compute it again") from error
    if result.name != name:
        raise SchemaError(f"{folder} holds result {result.name}; rename the folder to that")
    return result
