"""Arrays in .zarr folders of versions 2 and 3; zarr itself refuses the codec that loads pickles."""

import math
import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import zarr
from zarr.errors import ZarrUserWarning

from store.errors import ArrayError
from store.ingest.files.arrays import (
    MOST_ARRAYS,
    Converted,
    Lazy,
    Listed,
    Refused,
    check_form,
    reading,
)
from store.ingest.files.formats import ZARR_MARKS
from store.ingest.files.names import counting

ADVICE: Final = "write it again with zarr"
_OWN: Final = "allcnn_store"
_TEXTS: Final = "T"


def open_file(path: Path, opened: ExitStack) -> list[Listed]:
    """Open every array, by its path below the folder."""
    with reading(str(path), ADVICE), warnings.catch_warnings():
        # Of files that are no part of it; ``_walk`` misses none that is.
        warnings.simplefilter("ignore", ZarrUserWarning)
        nodes = _find_nodes(path)
        node = zarr.open(str(path), mode="r")
        if _OWN in node.attrs:
            raise ArrayError(
                f"{path} is a store of this program already; name the folder above it as"
                " --workspace"
            )
        return list(_walk(path, node, nodes))


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


def _walk(path: Path, node: Any, nodes: set[str]) -> Iterator[Listed]:
    if isinstance(node, zarr.Array):
        yield _listed(path.name.removesuffix(".zarr"), str(path), node)
        return
    members = sorted(node.members(max_depth=None), key=lambda member: counting(member[0]))
    if len(members) > MOST_ARRAYS:
        raise ValueError(f"it holds more than {MOST_ARRAYS} arrays")
    # Zarr passes over what it cannot read.
    if lost := nodes - {name for name, _ in members}:
        raise ValueError(f"{min(lost)} in it is no array or group that Zarr can read")
    for name, member in members:
        if isinstance(member, zarr.Array):
            yield _listed(name, f"{path}:{name}", member)


def _listed(name: str, source: str, array: Any) -> Listed:
    dtype = np.dtype(array.dtype)
    lazy = Lazy(source, ADVICE, array.shape, dtype, array.__getitem__)
    if dtype.kind == _TEXTS:
        return Listed(name, Converted(lazy, np.dtype("U"), _as_texts))
    if dtype.hasobject or dtype.names:
        reason = f"is of type {str(dtype)[:40]}; write plain numbers"
        return Listed(name, Refused(array.shape, source, reason))
    check_form(source, array.shape, dtype)
    return Listed(name, lazy, _missing(array))


def _as_texts(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.array(rows.tolist(), dtype=str).reshape(rows.shape)


def _missing(array: Any) -> str | None:
    """Return a remark where chunks are not there; raises ValueError where none is."""
    if not math.prod(array.shape):
        return None
    wanted, found = array.nchunks, array.nchunks_initialized
    if not found:
        raise ValueError(f"none of {wanted} chunks of {array.path or 'the array'} is there")
    if found == wanted:
        return None
    return (
        f"lacks {wanted - found} of {wanted} chunks, which are read as {array.fill_value}, as zarr"
        " leaves out chunks of this value alone"
    )
