"""Arrays in .zarr folders of versions 2 and 3; zarr itself refuses the codec that loads pickles."""

import math
import os
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import zarr
from zarr.errors import ZarrUserWarning

from store.errors import ArrayError
from store.ingest.files.arrays import ArrayFile, counting, plain
from store.ingest.files.formats import ZARR_MARKS

ADVICE: Final = "write it again with zarr"
_OWN: Final = "allcnn_store"
_TEXTS: Final = "T"


def open_file(path: Path, opened: ExitStack) -> list[ArrayFile]:
    """Open every array, by its path below the folder."""
    with warnings.catch_warnings():
        # Warnings about files that are no part of it; ``_find_arrays`` misses none that is.
        warnings.simplefilter("ignore", ZarrUserWarning)
        nodes = _find_nodes(path)
        node = zarr.open(str(path), mode="r")
        if _OWN in node.attrs:
            remedy = "name the folder above it as --workspace"
            raise ArrayError(str(path), "is a store of this program already", remedy=remedy)
        if isinstance(node, zarr.Array):
            return [_open_array(path.name.removesuffix(".zarr"), node)]
        return [_open_array(name, array) for name, array in _find_arrays(node, nodes)]


def _find_nodes(path: Path) -> set[str]:
    """Return the folders below one that have metadata; raises ValueError for symbolic links."""
    nodes = set()
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            if os.path.islink(os.path.join(folder, name)):
                raise ValueError(f"{os.path.relpath(os.path.join(folder, name), path)} is a link")
        if not set(ZARR_MARKS).isdisjoint(files):
            nodes.add(os.path.relpath(folder, path).replace(os.sep, "/"))
    return nodes - {"."}


def _find_arrays(group: Any, nodes: set[str]) -> list[tuple[str, Any]]:
    members = sorted(group.members(max_depth=None), key=lambda member: counting(member[0]))
    # Zarr skips nodes that it cannot read.
    if lost := nodes - {name for name, _ in members}:
        raise ValueError(f"{min(lost)} in it is no array or group that Zarr can read")
    return [(name, member) for name, member in members if isinstance(member, zarr.Array)]


def _open_array(name: str, array: Any) -> ArrayFile:
    shape, dtype = array.shape, np.dtype(array.dtype)
    if dtype.kind == _TEXTS:
        return ArrayFile(name, shape, np.dtype("U"), lambda rows: _as_texts(array[rows]))
    if dtype.hasobject or dtype.names:
        return plain(ArrayFile(name, shape, dtype, None))
    remark, wanted, found = "", array.nchunks, array.nchunks_initialized
    if math.prod(shape) and not found:
        raise ValueError(f"none of {wanted} chunks of {array.path or 'the array'} is there")
    if math.prod(shape) and found != wanted:
        remark = (
            f"lacks {wanted - found} of {wanted} chunks, which are read as {array.fill_value}, as"
            " zarr leaves out chunks of this value alone"
        )
    return ArrayFile(name, shape, dtype, array.__getitem__, remark=remark)


def _as_texts(rows: Any) -> npt.NDArray[np.str_]:
    # NumPy casts its strings of any length to no others.
    return np.array(np.asarray(rows).tolist(), dtype=str).reshape(np.shape(rows))
