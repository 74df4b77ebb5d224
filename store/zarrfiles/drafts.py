"""Make groups: at an address in memory first, for Zarr asks about every folder on the way."""

from collections.abc import Iterator
from contextlib import contextmanager

import zarr
from upath import UPath
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

from store.storage.paths import Place, is_file, make_folder, write_files, zarr_store
from store.zarrfiles.metadata_files import NODE, write_folder


@contextmanager
def drafted(root: Place, path: str) -> Iterator[zarr.Group]:
    """Yield a new group of a store, to be filled.

    At an address it is uploaded at the end, but for its own metadata: whoever writes its
    attributes writes them, last.
    """
    if not isinstance(root, UPath):
        _write_parents(root, _folders(path))
        yield zarr.create_group(zarr_store(root / path, read_only=False), zarr_format=3)
        return
    files: dict[str, Buffer] = {}
    yield zarr.create_group(MemoryStore(files)).create_group(path)
    contents = {name: buffer.to_bytes() for name, buffer in files.items()}
    _write_parents(root, _folders(path))
    inside = {name: each for name, each in contents.items() if name.startswith(f"{path}/")}
    inside.pop(f"{path}/{NODE}")
    write_files(root, inside)


def _folders(path: str) -> list[str]:
    """Return the folders that a path leads through, the outermost first."""
    parts = path.split("/")
    return ["/".join(parts[:n]) for n in range(1, len(parts))]


def _write_parents(root: Place, folders: list[str]) -> None:
    missing = []
    for name in reversed(folders):  # what one of them is in was there before it
        if is_file(root / name / NODE):
            break
        missing.append(root / name)
    for folder in reversed(missing):
        make_folder(folder)
        write_folder(folder)
