"""Where things lie in a store: roots, groups, arrays, chunks and digests."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import google_crc32c
import numpy as np
import numpy.typing as npt
import zarr
from zarr.errors import BaseZarrError, ContainsGroupError

from store.errors import SchemaError, StoreLocationError
from store.schema import SCHEMA_VERSION, RepresentationMeta, is_component

Kind = Literal["activations", "grams", "similarity"]

MAX_CHUNK_BYTES = 64 * 2**20
"""Above this a minibatch is split over its first spatial axis."""

STORE_MARK: Final = "allcnn_store"
META: Final = "allcnn_representation"
COORDINATES: Final = "allcnn_coordinates"
COMMITS: Final = "allcnn_commits"

_UNREADABLE = (BaseZarrError, FileNotFoundError, ValueError, KeyError, TypeError)


def local_path(path: str | os.PathLike[str]) -> Path:
    """Return ``path`` as a folder's; raises StoreLocationError for an address such as s3://."""
    if "://" in os.fspath(path):
        raise StoreLocationError(f"{os.fspath(path)} is an address; a store is a local folder")
    return Path(path)


def has_store(path: str | os.PathLike[str]) -> bool:
    """Return whether something is at ``path`` but what a kill leaves before a store is made.

    Whether that is a store of ours, opening it tells.
    """
    where = local_path(path)
    if not where.is_dir():
        return where.exists()
    return any(not is_leftover(name) for name in os.listdir(where))


def open_root(path: Path, kind: Kind, mode: Literal["r", "r+"] = "r") -> zarr.Group:
    """Open the root of a store.

    Raises StoreLocationError where no folder is, SchemaError for a foreign or newer one.
    """
    if not path.exists():
        raise StoreLocationError(f"no store at {path}: write one first, or correct the path")
    if not path.is_dir():
        raise StoreLocationError(f"{path} is a file; a store is a folder")
    try:
        root = zarr.open_group(path, mode=mode, zarr_format=3, use_consolidated=False)
    except _UNREADABLE as error:
        raise SchemaError(f"{path} is no Zarr v3 group; give the folder of a store") from error
    _check_mark(path, root.attrs.get(STORE_MARK), kind)
    return root


def create_root(path: Path, kind: Kind) -> zarr.Group:
    """Open the root of a store for writing, making it where there is none yet."""
    if path.is_dir() and not (path / "zarr.json").exists():
        _check_vacant(path)
    if not path.exists() or (path.is_dir() and not (path / "zarr.json").exists()):
        mark = {STORE_MARK: {"kind": kind, "schema_version": SCHEMA_VERSION}}
        try:
            zarr.create_group(path, zarr_format=3, attributes=mark)
        except ContainsGroupError:
            pass  # another writer came first
        except OSError as error:
            raise StoreLocationError(
                f"cannot make a store at {path}: {error.strerror or error}"
            ) from error
    return open_root(path, kind, "r+")


def child_names(path: Path) -> list[str]:
    """Return the names of the folders in ``path`` that can be components of a key, sorted.

    Zarr's own listing warns about the ``*.partial`` files that a kill leaves behind.
    """
    try:
        with os.scandir(path) as entries:
            return sorted(e.name for e in entries if is_component(e.name) and e.is_dir())
    except FileNotFoundError:
        return []


def find_group(root: zarr.Group, path: str) -> zarr.Group | None:
    """Return a group below the root, or None where there is none yet."""
    try:
        node = root[path]
    except KeyError:
        return None
    except _UNREADABLE as error:
        raise SchemaError(
            f"{path} in {root.store_path} has unreadable metadata ({error});"
            " delete that folder and write it again"
        ) from error
    return node if isinstance(node, zarr.Group) else None


def chunk_shape(meta: RepresentationMeta) -> tuple[int, ...]:
    """Return the shape of a chunk: one minibatch, its first spatial axis split if too large."""
    rows = min(meta.batch_rows, meta.n_samples)
    if len(meta.shape) == 1:
        return (rows, *meta.shape)
    height, *rest = meta.shape
    line_bytes = rows * math.prod(rest) * np.dtype(meta.dtype).itemsize
    n_parts = math.ceil(height / max(1, MAX_CHUNK_BYTES // line_bytes))
    return (rows, math.ceil(height / n_parts), *rest)


def crc32c(values: npt.NDArray[Any]) -> str:
    """Return the CRC-32C of a C-ordered array's bytes, as it is written in commit records."""
    return as_digest(google_crc32c.value(values.reshape(-1).view(np.uint8)))


def as_digest(crc: int) -> str:
    """Return a CRC-32C as it is written in commit records."""
    return f"crc32c:{crc:08x}"


def is_leftover(name: str) -> bool:
    """Return whether a file is what Zarr's LocalStore leaves behind when killed."""
    return name.endswith(".partial")


def _check_mark(path: Path, mark: object, kind: Kind) -> None:
    if not isinstance(mark, Mapping):
        raise SchemaError(f"{path} is a Zarr group that this package did not write; use another")
    version = mark.get("schema_version")
    if not isinstance(version, int) or version < 1:
        raise SchemaError(f"{path} has schema version {version!r}; want 1 to {SCHEMA_VERSION}")
    if version > SCHEMA_VERSION:
        raise SchemaError(
            f"{path} has schema version {version}, and this package reads up to {SCHEMA_VERSION};"
            " install a newer one"
        )
    if mark.get("kind") != kind:
        raise SchemaError(f"{path} is a store of {mark.get('kind')}; give a store of {kind}")


def _check_vacant(path: Path) -> None:
    odd = [name for name in os.listdir(path) if not is_leftover(name)]
    # Looked for again: another writer may have made the store since.
    if odd and not (path / "zarr.json").exists():
        raise SchemaError(
            f"{path} is no store, and not empty (it holds {odd[0]!r}); use another folder"
        )
