"""Where things lie in a store: roots, groups, chunks and digests."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Any, Final, Literal

import google_crc32c
import numpy as np
import numpy.typing as npt
import zarr
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

from store.errors import SchemaError, StoreError, StoreLocationError
from store.model.schema import SCHEMA_VERSION, RepresentationMeta
from store.storage.paths import (
    Address,
    Place,
    as_place,
    child_names,
    entry_names,
    is_file,
    is_leftover,
    make_folder,
)
from store.storage.remote_errors import reaching
from store.zarrfiles.metadata_files import NODE, read_attributes, write_folder

Kind = Literal["activations", "grams", "similarity", "probes"]

NAMED: Final[tuple[Kind, ...]] = ("similarity", "probes")
"""Stores of records, each of which has a name of its own and belongs to no one representation."""

MAX_CHUNK_BYTES = 64 * 2**20
"""Above this a minibatch is split over its first spatial axis."""

STORE_MARK: Final = "allcnn_store"
META: Final = "allcnn_representation"
GRAM_META: Final = "allcnn_grams"
COORDINATES: Final = "allcnn_coordinates"
COMMITS: Final = "allcnn_commits"
LATER: Final = "allcnn_later"
"""Records of the blocks after those that count: null for one that was taken back."""

SOURCE: Final = "allcnn_source"


def has_store(path: Address) -> bool:
    """Return whether something is at ``path`` but files left by an interrupted making of a store.

    Whether that is a store of ours shows when it is opened.
    """
    place = as_place(path)
    with reaching(place):
        if isinstance(place, Path) and not place.is_dir():
            return place.exists()
        return any(not is_leftover(name) for name in entry_names(place))


def open_root(place: Place, kind: Kind) -> dict[str, Any]:
    """Check that a store of some kind is at a place; return the attributes of its root.

    Raises StoreLocationError where nothing is, SchemaError for a foreign or newer one.
    """
    with reaching(place):
        _check_no_file(place)
        try:
            attributes = read_attributes(place)
        except SchemaError as error:
            raise _no_group(place) from error
        # Asked for only now: at an address every question is a request.
        if attributes is None and not place.exists():
            raise StoreLocationError(f"no store at {place}: write one first, or correct the path")
    if attributes is None:
        some = next((name for name in child_names(place) if name.endswith(".zarr")), None)
        raise _no_group(place, "" if some is None else f", such as {place / some}")
    _check_mark(place, attributes.get(STORE_MARK), kind)
    return attributes


def _check_no_file(place: Place) -> None:
    if isinstance(place, Path) and place.exists() and not place.is_dir():
        raise StoreLocationError(f"{place} is a file", remedy="a store is a folder")


def _no_group(place: Place, such: str = "") -> SchemaError:
    return SchemaError(str(place), "is no Zarr v3 group", f"give the folder of a store{such}")


def create_root(place: Place, kind: Kind) -> None:
    """Make the root of a store where there is none yet, and check that it is one of this kind.

    A store of an older version becomes one of this version: what is written now may be of it.
    """
    mark = {"kind": kind, "schema_version": SCHEMA_VERSION}
    with writing(place, f"cannot make a store at {place}"):
        _check_no_file(place)
        if not (place / NODE).exists():
            odd = [name for name in entry_names(place) if not is_leftover(name)]
            # Looked for again: another writer may have made the store since.
            if odd and not (place / NODE).exists():
                raise SchemaError(
                    f"{place} is no store, and not empty (it holds {odd[0]!r})",
                    remedy="use another folder",
                )
            # Another writer that comes at the same time writes the same.
            make_folder(place)
            write_folder(place, {STORE_MARK: mark})
        attributes = open_root(place, kind)
        if attributes[STORE_MARK] != mark:
            write_folder(place, attributes | {STORE_MARK: mark})


@contextmanager
def writing(place: Place, what: str, advice: str = "") -> Iterator[None]:
    """Report in one sentence what an operating system, or remote storage, refuses."""
    with reaching(place):
        try:
            yield
        except StoreError:
            raise
        except OSError as error:
            raise StoreLocationError(f"{what}: {error.strerror or error}{advice}") from error


@contextmanager
def drafted(root: Place, path: str) -> Iterator[zarr.Group]:
    """Yield a new group of a store, to be filled.

    At an address it is made in memory, as Zarr asks about every folder on the way, and uploaded at
    the end, but for its own metadata: these are for the caller to write, last.
    """
    parts = path.split("/")
    folders = [root.joinpath(*parts[:n]) for n in range(1, len(parts))]
    if isinstance(root, Path):
        _write_parents(folders)
        yield zarr.create_group(root / path, zarr_format=3)
        return
    files: dict[str, Buffer] = {}
    yield zarr.create_group(MemoryStore(files)).create_group(path)
    _write_parents(folders)
    inside = [name for name in files if name.startswith(f"{path}/") and name != f"{path}/{NODE}"]
    with reaching(root):  # several at once, in no order
        root.fs.pipe({(root / name).path: files[name].to_bytes() for name in inside})


def _write_parents(folders: Sequence[Place]) -> None:
    missing = takewhile(lambda each: not is_file(each / NODE), reversed(folders))
    # The outermost first: where one is there, so are those that it is in.
    for folder in reversed(list(missing)):
        make_folder(folder)
        write_folder(folder)


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


def _check_mark(place: Place, mark: object, kind: Kind) -> None:
    if not isinstance(mark, Mapping):
        found = "is a Zarr group that this package did not write"
        raise SchemaError(str(place), found, remedy="use another")
    version = mark.get("schema_version")
    if not isinstance(version, int) or version < 1:
        found = f"has schema version {version!r}"
        raise SchemaError(str(place), found, f"want 1 to {SCHEMA_VERSION}")
    if version > SCHEMA_VERSION:
        raise SchemaError(
            f"{place} has schema version {version}, and this package reads up to {SCHEMA_VERSION}",
            remedy="install a newer one",
        )
    if mark.get("kind") != kind:
        found = f"is a store of {mark.get('kind')}"
        raise SchemaError(str(place), found, f"give a store of {kind}")
