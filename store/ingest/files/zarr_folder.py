"""Arrays in .zarr folders of versions 2 and 3; zarr itself refuses the codec that loads pickles."""

import math
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import zarr

from store.errors import ArrayError
from store.ingest.files.arrays import ArrayFile, counting, plain
from store.ingest.files.formats import ZARR_MARKS

ADVICE: Final = "write it again with zarr"
_OWN: Final = "allcnn_store"
_TEXTS: Final = "T"


def open_file(path: Path, opened: ExitStack) -> Iterator[ArrayFile]:
    """Open every array, by its path below the folder; raises ValueError for symbolic links."""
    for name in sorted(_find_nodes(path), key=counting):
        node = zarr.open(path / name, mode="r")
        if _OWN in node.attrs:
            remedy = "name the folder above it as --workspace"
            raise ArrayError(str(path), "is a store of this program already", remedy=remedy)
        if isinstance(node, zarr.Array):
            yield _open_array(name or path.name.removesuffix(".zarr"), node)


def _find_nodes(path: Path) -> set[str]:
    """Return the folders that have metadata, as paths below one, which is the empty one."""
    nodes = {""}
    for folder, folders, files in os.walk(path):
        below = os.path.relpath(folder, path).replace(os.sep, "/")
        for name in (*folders, *files):
            if os.path.islink(os.path.join(folder, name)):
                raise ValueError(f"{below}/{name} is a link")
        if below != "." and not set(ZARR_MARKS).isdisjoint(files):
            nodes.add(below)
    return nodes


def _open_array(name: str, array: Any) -> ArrayFile:
    shape, dtype = array.shape, np.dtype(array.dtype)
    if dtype.kind == _TEXTS:
        return ArrayFile(name, shape, np.dtype("U"), lambda rows: _as_texts(array[rows]))
    if dtype.hasobject or dtype.names:
        return plain(ArrayFile(name, shape, dtype, None))
    remark, wanted, found = "", array.nchunks, array.nchunks_initialized
    if math.prod(shape) and not found:
        raise ValueError(f"none of {wanted} chunks of {name} is there")
    if math.prod(shape) and found != wanted:
        remark = (
            f"lacks {wanted - found} of {wanted} chunks, which are read as {array.fill_value}, as"
            " zarr leaves out chunks of this value alone"
        )
    return ArrayFile(name, shape, dtype, array.__getitem__, remark=remark)


def _as_texts(rows: Any) -> npt.NDArray[np.str_]:
    # NumPy casts its strings of any length to no others.
    return np.array(np.asarray(rows).tolist(), dtype=str).reshape(np.shape(rows))
