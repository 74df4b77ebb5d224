"""Where stores lie: a folder, or whatever fsspec reaches, such as ``s3://``, ``gs://``, ``memory://``."""

import importlib.util
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from fsspec.config import conf
from upath import UPath
from zarr.storage import FsspecStore

from store.errors import StoreLocationError
from store.model.names import is_component
from store.storage.atomic_write import replacing
from store.storage.remote_errors import reaching

Place = Path | UPath
"""A local folder is a plain path; an address has the same methods, from universal_pathlib."""

Address = str | os.PathLike[str] | UPath

_LOCAL = ("file", "local")
_OPTIONS: dict[str, Any] = {"use_listings_cache": False}
"""A listing that is kept would hide what others write meanwhile."""

_DEFAULTS: dict[str, dict[str, Any]] = {"s3": {"max_concurrency": 1}}
"""Else s3fs asks for the size of every object before reading it; the user's settings go before."""

_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}


def as_place(path: Address) -> Place:
    """Return the place that a path or an address names.

    Raises StoreLocationError for an address that no installed package of fsspec reaches.
    """
    if isinstance(path, UPath):
        # Its other options are the user's, and no part of its address.
        return path if _OPTIONS.items() <= path.storage_options.items() else _kept(path)
    text = os.fspath(path)
    protocol, separator, rest = text.partition("://")
    # Absolute, so that a store stays where it was opened when the process changes its folder.
    if not separator:
        return Path(path).absolute()
    if protocol in _LOCAL:
        return Path(rest).absolute()
    if protocol in _PACKAGES and rest[:1] in ("", "/"):
        raise StoreLocationError(f"{text} names no bucket; write {protocol}://BUCKET/FOLDER")
    try:
        place: UPath = UPath(text, **_options(protocol))
        place.fs  # noqa: B018  # its package is imported on first use
    except (ImportError, ValueError, TypeError, OSError) as error:
        raise StoreLocationError(f"{text} cannot be reached: {_advice(protocol, error)}") from error
    return place


def _options(protocol: str) -> dict[str, Any]:
    defaults = _DEFAULTS.get(protocol, {})
    return {k: v for k, v in defaults.items() if k not in conf.get(protocol, {})} | _OPTIONS


def _kept(path: UPath) -> Place:
    """Return a place that shows what others write meanwhile; a local one as a plain path."""
    if path.protocol in ("", *_LOCAL):
        return Path(path.path).absolute()
    place: UPath = UPath(
        str(path), **{**_options(path.protocol), **path.storage_options} | _OPTIONS
    )
    return place


def is_remote(place: Place) -> bool:
    """Return whether a place is no local folder."""
    return not isinstance(place, Path)


def zarr_store(place: Place, *, read_only: bool) -> str | Path | FsspecStore:
    """Return what Zarr opens at a place."""
    if isinstance(place, Path):
        return place
    options = dict(place.storage_options)
    return FsspecStore.from_url(str(place), storage_options=options, read_only=read_only)


def child_names(place: Place, fits: Callable[[str], bool] = is_component) -> list[str]:
    """Return the names of the folders in a place that can be components of a key, sorted.

    Folders of taps have a rule of their own, ``store.model.names.is_tap_folder``.
    Zarr's own listing warns about the ``*.partial`` files that a kill leaves behind.
    """
    return sorted(name for name, is_folder in _entries(place) if is_folder and fits(name))


def entry_names(place: Place) -> list[str]:
    """Return the names of all files and folders in a place, sorted; of none in one that is not."""
    return sorted(name for name, _ in _entries(place))


def _entries(place: Place) -> Iterator[tuple[str, bool]]:
    try:
        if isinstance(place, Path):
            with os.scandir(place) as entries:
                yield from [(entry.name, entry.is_dir()) for entry in entries]
        else:
            yield from _remote_entries(place)
    except (FileNotFoundError, NotADirectoryError):
        return


def _remote_entries(place: UPath) -> list[tuple[str, bool]]:
    with reaching(place), suppress(FileNotFoundError, NotADirectoryError):
        return [
            (entry["name"].rstrip("/").rpartition("/")[2], entry["type"] == "directory")
            for entry in place.fs.ls(place.path, detail=True)
            # Some list a folder in itself.
            if entry["name"].strip("/") != place.path.strip("/")
        ]
    return []


def walk_files(place: Place) -> Iterator[tuple[str, int, float]]:
    """Return every file below a place: path relative to it, bytes, time of its last change.

    Symbolic links are not followed; of a file that vanishes meanwhile nothing is said.
    """
    if isinstance(place, Path):
        for folder, _, names in os.walk(place, onerror=_raise_unless_gone):
            for name in names:
                file = Path(folder, name)
                try:
                    found = file.lstat()
                except FileNotFoundError:
                    continue
                yield file.relative_to(place).as_posix(), found.st_size, found.st_mtime
    else:
        start = len(place.path.strip("/")) + 1
        files: dict[str, dict[str, Any]] = {}
        with reaching(place), suppress(FileNotFoundError):
            files = place.fs.find(place.path, detail=True)
        for name, facts in sorted(files.items()):
            yield name.strip("/")[start:], facts["size"], _modified(facts)


def _raise_unless_gone(error: OSError) -> None:
    # What may not be listed must not seem to be nothing.
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def remove_tree(place: Place) -> None:
    """Remove a folder and all that is in it; a symbolic link is removed, not followed."""
    if not isinstance(place, Path):
        with reaching(place), suppress(FileNotFoundError):
            place.fs.rm(place.path, recursive=True)
    elif place.is_symlink() or place.is_file():
        place.unlink()
    elif place.exists():
        shutil.rmtree(place)


def is_file(place: Place) -> bool:
    """Return whether a file is at a place."""
    with reaching(place):
        return place.is_file()


def make_folder(place: Place) -> None:
    """Make a folder and those that it is in; at an address they come with what is put into them."""
    if isinstance(place, Path):  # else a bucket might be made by mistake
        place.mkdir(parents=True, exist_ok=True)


def read_bytes(file: Place) -> bytes:
    """Return the content of a file: at an address in one request, without asking for its size."""
    if isinstance(file, Path):
        return file.read_bytes()
    content: bytes = file.fs.cat_file(file.path)
    return content


def write_bytes(file: Place, content: bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new one."""
    if not isinstance(file, Path):
        with reaching(file):
            file.fs.pipe_file(file.path, content)
        return
    with replacing(file) as stream:
        stream.write(content)


def write_files(folder: Place, contents: Mapping[str, bytes]) -> None:
    """Write files below a folder: at an address several at once, in no order."""
    if not isinstance(folder, Path):
        with reaching(folder):
            folder.fs.pipe({(folder / name).path: each for name, each in contents.items()})
        return
    for name, each in contents.items():
        make_folder((folder / name).parent)
        write_bytes(folder / name, each)


def write_json(file: Place, values: object) -> None:
    """Write JSON, whole or not at all."""
    write_bytes(file, json.dumps(values, indent=2).encode("ascii"))


def check_inside(root: Place, place: Place) -> None:
    """Raise StoreLocationError where a symbolic link leads from a store to somewhere outside."""
    if not isinstance(place, Path):
        return
    real, inside = os.path.realpath(place), os.path.realpath(str(root))
    if real != inside and not real.startswith(os.path.join(inside, "")):
        raise StoreLocationError(
            str(place),
            f"leads by a symbolic link to {real}, outside of the store {root}",
            remedy="copy what it leads to into the store, or delete the link",
        )


def check_unlinked(place: Place, names: Sequence[str]) -> None:
    """Raise StoreLocationError where a symbolic link is on the way to something in a place."""
    if not isinstance(place, Path):
        return
    for n in range(1, len(names) + 1):
        step = place.joinpath(*names[:n])
        if step.is_symlink():
            raise StoreLocationError(
                f"{step} is a symbolic link, which no store makes; delete the link itself, and"
                " what it leads to if that is wanted"
            )


def is_leftover(name: str) -> bool:
    """Return whether a file is what writing leaves behind when killed."""
    return name.endswith(".partial")


def _advice(protocol: str, error: Exception) -> str:
    package = _PACKAGES.get(protocol)
    if package and importlib.util.find_spec(package) is None:
        return f"install its package with pip install {package}"
    return f"{str(error).rstrip('.')}; give a folder, or an address that fsspec knows"


def _modified(found: dict[str, Any]) -> float:
    for name in ("LastModified", "last_modified", "mtime", "updated", "created"):
        value = found.get(name)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
        if isinstance(value, str):
            return datetime.fromisoformat(value).timestamp()
    return 0.0
