"""Write one representation, minibatch after minibatch: data first, promise last."""

import math
import os
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import Crc32cCodec

from store.activations import ACTIVATIONS
from store.committed import Committed, Form, M, Meta, block_range, parse
from store.errors import (
    ActivationOverflowError,
    ConflictError,
    DamagedChunkError,
    MisalignedWriteError,
    SchemaError,
    StoreLocationError,
)
from store.layout import (
    COMMITS,
    COORDINATES,
    crc32c,
    create_root,
    find_group,
    is_leftover,
    local_path,
)
from store.schema import Commit, RepresentationMeta

_MAY_DIFFER = {"created_by", "created_at"}
_CODECS: dict[str, Any] = {"filters": None, "compressors": (Crc32cCodec(),)}


class CommittedWriter(Committed[M]):
    """Fills one array; use ``open``, which also resumes.

    One writer an array: two at once would overwrite each other's commit records.
    """

    def __init__(
        self, folder: Path, group: zarr.Group, meta: M, commits: tuple[Commit, ...]
    ) -> None:
        super().__init__(group, meta, commits)
        self._folder = folder
        self._attributes = group.attrs.asdict()
        self._array = self._open_array()

    @classmethod
    def open(
        cls,
        store: str | os.PathLike[str],
        meta: M,
        samples: npt.ArrayLike,
        labels: npt.ArrayLike,
    ) -> Self:
        """Create an array, or resume it after what was last committed.

        Args:
            store: folder of the store, made where there is none.
            meta: of the array; ``created_by`` and ``created_at`` may differ on resuming.
            samples: index of every row's example in its data set.
            labels: class of every row's example.

        Raises ConflictError where the key is stored with other metadata or coordinates.
        """
        coordinates = {
            "sample": _coordinate("samples", samples, np.dtype(np.int64), meta),
            "label": _coordinate("labels", labels, np.dtype(np.int32), meta),
        }
        digests = {name: crc32c(values) for name, values in coordinates.items()}
        path = local_path(store)
        root = create_root(path, cls.form.kind)
        folder = path / meta.key.path
        group = find_group(root, meta.key.path)
        stored = None if group is None else parse(cls.form, group.attrs, meta.key.path)
        if group is not None and stored is not None:
            _check_same(folder, stored[0], meta)
            _check_same_coordinates(folder, group, digests, cls.form)
            _remove_leftovers(folder)
            return cls(folder, group, *stored)
        try:
            group = _create_group(root, meta, folder, cls.form)
            _create_arrays(group, meta, coordinates, cls.form)
            # Written last: until then readers skip the group and writers start it afresh.
            group.attrs.put({cls.form.mark: meta.to_json(), COORDINATES: digests, COMMITS: []})
        except OSError as error:
            raise StoreLocationError(
                f"cannot create {folder}: {error.strerror or error}"
            ) from error
        return cls(folder, group, meta, ())

    def _write(self, values: npt.NDArray[Any]) -> None:
        """Write and commit the next block, whose form the caller has checked."""
        start, stop = block_range(self.meta, len(self._commits))
        commit = Commit(start, stop, crc32c(values))
        try:
            self._array[start:stop] = values
            self._commit(commit)
        except OSError as error:
            units = self.form.units
            raise StoreLocationError(
                f"cannot write {units} {start} to {stop - 1} of {self._folder}:"
                f" {error.strerror or error}; committed {units} are safe, so mend it and run again"
            ) from error

    def _commit(self, commit: Commit) -> None:
        commits = (*self._commits, commit)
        # Committed last: a crash can lose this block but never claim it.
        self._put({COMMITS: [c.to_json() for c in commits]})
        self._commits = commits

    def _put(self, changes: dict[str, Any]) -> None:
        attributes = self._attributes | changes
        self._group.attrs.put(attributes)
        self._attributes = attributes

    def _open_array(self) -> zarr.Array[Any]:
        array = self._group.get(self.form.array)
        if not isinstance(array, zarr.Array):
            raise DamagedChunkError(
                f"{self._folder} has lost its array; delete it and {self.form.verb} it again"
            )
        # Looking for empty chunks takes ten times the CPU of writing them. Not part of the stored
        # metadata, so it has to be said on every opening.
        return cast("zarr.Array[Any]", array.with_config({"write_empty_chunks": True}))


class Writer(CommittedWriter[RepresentationMeta]):
    """Fills one representation, minibatch after minibatch; use ``Writer.open``, which also resumes.

    One writer a representation: two at once would overwrite each other's commit records.
    """

    form: ClassVar[Form[RepresentationMeta]] = ACTIVATIONS

    def append(self, rows: npt.ArrayLike) -> None:
        """Write and commit the next minibatch: ``batch_rows`` rows, or the rest at the end.

        NaN and infinities that the network computed are stored as they are. A finite value that
        the stored dtype cannot hold raises ActivationOverflowError before anything is written:
        leave the cast to this method.
        """
        start, stop = block_range(self.meta, len(self._commits))
        values = self._check_aligned(np.asarray(rows), start, stop)
        self._write(narrow(values, self.meta.dtype, str(self.meta.key)))

    def _check_aligned(self, rows: npt.NDArray[Any], start: int, stop: int) -> npt.NDArray[Any]:
        if self.complete:
            raise MisalignedWriteError(
                f"{self.meta.key} has all its {self.meta.n_samples} rows; stop appending"
            )
        wanted = (stop - start, *self.meta.shape)
        if rows.shape != wanted:
            raise MisalignedWriteError(
                f"{self.meta.key} got rows of shape {rows.shape}; rows {start} to {stop - 1} need"
                f" {wanted}: append whole minibatches in order"
            )
        return rows


def narrow(values: npt.NDArray[Any], dtype: str, name: str) -> npt.NDArray[Any]:
    """Return values as they are stored: C order, little endian.

    Raises ActivationOverflowError, which calls them ``name``, where a finite one would become
    infinite.
    """
    if values.dtype.kind != "f":
        values = values.astype(np.float32)  # bfloat16 to float16 does not report an overflow
    try:
        # The processor's overflow flag costs nothing; looking for the maximum, a fifth of the cast.
        with np.errstate(over="raise"):
            return values.astype(np.dtype(dtype).newbyteorder("<"), order="C", copy=False)
    except FloatingPointError:
        largest = np.abs(values[np.isfinite(values)]).max()
        raise ActivationOverflowError(
            f"{name} reaches {largest:g}, and {dtype} ends at {np.finfo(dtype).max:.6g};"
            " store it as a wider dtype"
        ) from None


def _coordinate(
    name: str, values: npt.ArrayLike, dtype: np.dtype[Any], meta: Meta
) -> npt.NDArray[Any]:
    array, n = np.asarray(values), meta.sample_set.n_samples
    if array.shape != (n,) or array.dtype.kind not in "iu":
        raise MisalignedWriteError(
            f"{name} of {meta.key} are {array.dtype} of shape {array.shape}; want {n}"
            " integers, one a row"
        )
    return array.astype(dtype, order="C", copy=False)


def _create_group(root: zarr.Group, meta: Meta, folder: Path, form: Form[Any]) -> zarr.Group:
    """Make a group afresh, clearing what an interrupted creation left there."""
    members = {form.array, "sample", "label", "zarr.json"}
    found = os.listdir(folder) if folder.is_dir() else []
    odd = [name for name in found if name not in members and not is_leftover(name)]
    if odd:
        raise SchemaError(f"{folder} holds {odd[0]!r}, which no store wrote; move it away")
    return root.create_group(meta.key.path, overwrite=True)


def _create_arrays(
    group: zarr.Group, meta: M, coordinates: dict[str, npt.NDArray[Any]], form: Form[M]
) -> None:
    """Make the arrays of a group, its coordinates filled, the other one empty."""
    for name, values in coordinates.items():
        group.create_array(
            name, data=values, chunks=values.shape, dimension_names=("sample",), **_CODECS
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
        **_CODECS,
    )


def _check_same(folder: Path, stored: Meta, meta: Meta) -> None:
    found, wanted = _flat(stored), _flat(meta)
    for name, value in found.items():
        if name not in _MAY_DIFFER and wanted[name] != value:
            raise ConflictError(
                f"{folder} is stored with {name} {_shown(value)}, not {_shown(wanted[name])};"
                " delete that folder or write to another store"
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


def _check_same_coordinates(
    folder: Path, group: zarr.Group, wanted: dict[str, str], form: Form[Any]
) -> None:
    found = group.attrs.get(COORDINATES)
    if not isinstance(found, dict) or set(found) != set(wanted):
        raise SchemaError(
            f"{folder} has no digests of its coordinates; delete it, {form.verb} again"
        )
    for name, digest in wanted.items():
        if found[name] != digest:
            raise ConflictError(
                f"{folder} is stored with other {name}s (digest {found[name]}, not {digest});"
                " delete that folder or write to another store"
            )


def _remove_leftovers(folder: Path) -> None:
    # Harmless, but Zarr and xarray warn about files that they do not know.
    for name in filter(is_leftover, os.listdir(folder)):
        (folder / name).unlink(missing_ok=True)
