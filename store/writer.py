"""Write one representation, minibatch after minibatch: data first, promise last."""

import os
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import numpy.typing as npt
import zarr

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
    META,
    Committed,
    block_range,
    crc32c,
    create_arrays,
    create_group,
    create_root,
    find_group,
    is_leftover,
    local_path,
    parse_representation,
)
from store.schema import Commit, RepresentationMeta

_MAY_DIFFER = {"created_by", "created_at"}


class Writer(Committed):
    """Fills one representation; use ``Writer.open``, which also resumes.

    One writer a representation: two at once would overwrite each other's commit records.
    """

    def __init__(
        self,
        folder: Path,
        group: zarr.Group,
        meta: RepresentationMeta,
        commits: tuple[Commit, ...],
    ) -> None:
        super().__init__(group, meta, commits)
        self._folder = folder
        self._attributes = group.attrs.asdict()
        self._array = _open_array(folder, group)

    @classmethod
    def open(
        cls,
        store: str | os.PathLike[str],
        meta: RepresentationMeta,
        samples: npt.ArrayLike,
        labels: npt.ArrayLike,
    ) -> Self:
        """Create a representation, or resume it after its last committed row.

        Args:
            store: folder of the activation store, made where there is none.
            meta: of the representation; ``created_by`` and ``created_at`` may differ on resuming.
            samples: index of every row's example in its data set.
            labels: class of every row's example.

        Raises ConflictError where the key is stored with other metadata or coordinates.
        """
        rows = _coordinate("samples", samples, np.dtype(np.int64), meta)
        classes = _coordinate("labels", labels, np.dtype(np.int32), meta)
        coordinates = {"sample": crc32c(rows), "label": crc32c(classes)}
        path = local_path(store)
        root = create_root(path, "activations")
        folder = path / meta.key.path
        group = find_group(root, meta.key.path)
        stored = None if group is None else parse_representation(group.attrs, meta.key)
        if group is not None and stored is not None:
            _check_same(folder, stored[0], meta)
            _check_same_coordinates(folder, group, coordinates)
            _remove_leftovers(folder)
            return cls(folder, group, *stored)
        try:
            group = create_group(root, meta.key, folder)
            create_arrays(group, meta, rows, classes)
            # Written last: until then readers skip the group and writers start it afresh.
            group.attrs.put({META: meta.to_json(), COORDINATES: coordinates, COMMITS: []})
        except OSError as error:
            raise StoreLocationError(
                f"cannot create {folder}: {error.strerror or error}"
            ) from error
        return cls(folder, group, meta, ())

    def append(self, rows: npt.ArrayLike) -> None:
        """Write and commit the next minibatch: ``batch_rows`` rows, or the rest at the end.

        NaN and infinities that the network computed are stored as they are. A finite value that
        the stored dtype cannot hold raises ActivationOverflowError before anything is written:
        leave the cast to this method.
        """
        start, stop = block_range(self.meta, len(self._commits))
        values = _cast(self._check_aligned(np.asarray(rows), start, stop), self.meta)
        commit = Commit(start, stop, crc32c(values))
        try:
            self._array[start:stop] = values
            self._commit(commit)
        except OSError as error:
            raise StoreLocationError(
                f"cannot write rows {start} to {stop - 1} of {self._folder}:"
                f" {error.strerror or error}; committed rows are safe, so mend it and run again"
            ) from error

    def _commit(self, commit: Commit) -> None:
        commits = (*self._commits, commit)
        # Committed last: a crash can lose this minibatch but never claim it.
        self._group.attrs.put(self._attributes | {COMMITS: [c.to_json() for c in commits]})
        self._commits = commits

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


def _cast(rows: npt.NDArray[Any], meta: RepresentationMeta) -> npt.NDArray[Any]:
    if rows.dtype.kind != "f":
        rows = rows.astype(np.float32)  # bfloat16 casts to float16 without reporting an overflow
    try:
        # The processor's overflow flag costs nothing; looking for the maximum, a fifth of the cast.
        with np.errstate(over="raise"):
            return rows.astype(np.dtype(meta.dtype).newbyteorder("<"), order="C", copy=False)
    except FloatingPointError:
        largest = np.abs(rows[np.isfinite(rows)]).max()
        raise ActivationOverflowError(
            f"{meta.key} reaches {largest:g}, and {meta.dtype} ends at"
            f" {np.finfo(meta.dtype).max:.0f}; store it as a wider dtype"
        ) from None


def _coordinate(
    name: str, values: npt.ArrayLike, dtype: np.dtype[Any], meta: RepresentationMeta
) -> npt.NDArray[Any]:
    array = np.asarray(values)
    if array.shape != (meta.n_samples,) or array.dtype.kind not in "iu":
        raise MisalignedWriteError(
            f"{name} of {meta.key} are {array.dtype} of shape {array.shape}; want {meta.n_samples}"
            " integers, one a row"
        )
    return array.astype(dtype, order="C", copy=False)


def _open_array(folder: Path, group: zarr.Group) -> zarr.Array[Any]:
    array = group.get("activations")
    if not isinstance(array, zarr.Array):
        raise DamagedChunkError(f"{folder} has lost its array; delete it and extract it again")
    # Looking for empty chunks takes ten times the CPU of writing them. Not part of the stored
    # metadata, so it has to be said on every opening.
    return cast("zarr.Array[Any]", array.with_config({"write_empty_chunks": True}))


def _check_same(folder: Path, stored: RepresentationMeta, meta: RepresentationMeta) -> None:
    found, wanted = _flat(stored), _flat(meta)
    for name, value in found.items():
        if name not in _MAY_DIFFER and wanted[name] != value:
            raise ConflictError(
                f"{folder} is stored with {name} {value!r}, not {wanted[name]!r};"
                " delete that folder or write to another store"
            )


def _flat(meta: RepresentationMeta) -> dict[str, Any]:
    values = meta.to_json()
    nested = values.pop("sample_set")
    return {f"sample_set.{name}": value for name, value in nested.items()} | values


def _check_same_coordinates(folder: Path, group: zarr.Group, wanted: dict[str, str]) -> None:
    found = group.attrs.get(COORDINATES)
    if not isinstance(found, dict) or set(found) != set(wanted):
        raise SchemaError(f"{folder} has no digests of its coordinates; delete it, extract again")
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
