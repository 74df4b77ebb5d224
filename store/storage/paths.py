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
from store.storage.local_files import replacing
from store.storage.remote_errors import reaching

Place = Path | UPath
"""A local folder is a plain path; an address has the same methods, from universal_pathlib."""

Address = str | os.PathLike[str] | UPath

_LOCAL = ("file", "local")
_OPTIONS: dict[str, Any] = {"use_listings_cache": False}
"""A cached listing would hide what others write meanwhile."""

_DEFAULTS: dict[str, dict[str, Any]] = {"s3": {"max_concurrency": 1}}
"""Else s3fs asks for the size of every object before reading it; the user's settings win."""

_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}


def as_place(path: Address) -> Place:
    """Return the place that a path or an address names.

    Raises StoreLocationError for an address that no installed package of fsspec reaches.
    """
    # Options beside these are the user's, and no part of its address.
    given = dict(path.storage_options) if isinstance(path, UPath) else {}
    if isinstance(path, UPath) and _OPTIONS.items() <= given.items():
        return path
    text = str(path) if isinstance(path, UPath) else os.fspath(path)
    protocol, separator, rest = text.partition("://")
    # Absolute, so that a store stays where it was opened when the process changes its folder.
    if not separator or protocol in _LOCAL:
        return Path(rest if separator else text).absolute()
    if protocol in _PACKAGES and rest[:1] in ("", "/"):
        raise StoreLocationError(text, "names no bucket", f"write {protocol}://BUCKET/FOLDER")
    configured = conf.get(protocol, {})
    defaults = {k: v for k, v in _DEFAULTS.get(protocol, {}).items() if k not in configured}
    try:
        place: UPath = UPath(text, **{**defaults, **given} | _OPTIONS)
        place.fs  # noqa: B018  # its package is imported on first use
    except (ImportError, ValueError, TypeError, OSError) as error:
        package = _PACKAGES.get(protocol)
        reason, advice = str(error).rstrip("."), "give a folder, or an address that fsspec knows"
        if package and importlib.util.find_spec(package) is None:
            reason, advice = f"install its package with pip install {package}", ""
        raise StoreLocationError(text, f"cannot be reached: {reason}", remedy=advice) from error
    return place


def zarr_store(place: Place, *, read_only: bool) -> str | Path | FsspecStore:
    """Return what Zarr opens at a place."""
    if isinstance(place, Path):
        return place
    options = dict(place.storage_options)
    return FsspecStore.from_url(str(place), storage_options=options, read_only=read_only)


def child_names(place: Place, fits: Callable[[str], bool] = is_component) -> list[str]:
    """Return the names of the folders in a place that can be components of a key, sorted.

    Folders of taps have a rule of their own, ``store.model.names.is_tap_folder``.
    Zarr's own listing warns about the ``*.partial`` files of interrupted writes.
    """
    return sorted(name for name, is_folder in _entries(place) if is_folder and fits(name))


def entry_names(place: Place) -> list[str]:
    """Return the names of all files and folders in a place, sorted; none where it is no folder."""
    return sorted(name for name, _ in _entries(place))


def _entries(place: Place) -> list[tuple[str, bool]]:
    with reaching(place), suppress(FileNotFoundError, NotADirectoryError):
        if isinstance(place, Path):
            with os.scandir(place) as entries:
                return [(entry.name, entry.is_dir()) for entry in entries]
        return [
            (entry["name"].rstrip("/").rpartition("/")[2], entry["type"] == "directory")
            for entry in place.fs.ls(place.path, detail=True)
            # Some list a folder in itself.
            if entry["name"].strip("/") != place.path.strip("/")
        ]
    return []


def walk_files(place: Place) -> Iterator[tuple[str, int, float]]:
    """Return every file below a place: path relative to it, bytes, time of its last change.

    Symbolic links are not followed, and files that vanish meanwhile are left out.
    """
    if isinstance(place, Path):
        for folder, _, names in os.walk(place, onerror=_raise_unless_gone):
            for name in names:
                file = Path(folder, name)
                with suppress(FileNotFoundError):
                    found = file.lstat()
                    yield file.relative_to(place).as_posix(), found.st_size, found.st_mtime
        return
    start = len(place.path.strip("/")) + 1
    files: dict[str, dict[str, Any]] = {}
    with reaching(place), suppress(FileNotFoundError):
        files = place.fs.find(place.path, detail=True)
    for name, facts in sorted(files.items()):
        yield name.strip("/")[start:], facts["size"], _modified(facts)


def _raise_unless_gone(error: OSError) -> None:
    # A folder that may not be listed must not seem empty.
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def _modified(facts: Mapping[str, Any]) -> float:
    """Return the time of the last change, which every client names and writes in its own way."""
    names = ("LastModified", "last_modified", "mtime", "updated", "created")
    found: Any = next((facts[name] for name in names if facts.get(name) is not None), 0.0)
    if isinstance(found, str):
        found = datetime.fromisoformat(found)
    return float(found.timestamp() if isinstance(found, datetime) else found)


def remove_tree(place: Place) -> None:
    """Remove a folder with its contents; a symbolic link is removed, not followed."""
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
    """Make a folder and its parents; at an address folders appear with the files in them."""
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


def write_json(file: Place, values: object) -> None:
    """Write JSON, whole or not at all."""
    write_bytes(file, json.dumps(values, indent=2).encode("ascii"))


def is_inside(place: Path, folder: Place) -> bool:
    """Return whether a local place is in a folder, wherever symbolic links lead."""
    return Path(os.path.realpath(place)).is_relative_to(os.path.realpath(str(folder)))


def check_inside(root: Place, place: Place) -> None:
    """Raise StoreLocationError where a symbolic link leads out of a store."""
    if isinstance(place, Path) and not is_inside(place, root):
        found = f"leads by a symbolic link to {os.path.realpath(place)}, outside of the store"
        remedy = "copy what it leads to into the store, or delete the link"
        raise StoreLocationError(str(place), f"{found} {root}", remedy=remedy)


def check_unlinked(place: Place, names: Sequence[str]) -> None:
    """Raise StoreLocationError where a symbolic link is on the way to something in a place."""
    if not isinstance(place, Path):
        return
    for n in range(1, len(names) + 1):
        step = place.joinpath(*names[:n])
        if step.is_symlink():
            found = "is a symbolic link, which no store makes"
            remedy = "delete the link itself, and its target if that is wanted"
            raise StoreLocationError(str(step), found, remedy=remedy)


def is_leftover(name: str) -> bool:
    """Return whether a file was left by an interrupted write."""
    return name.endswith(".partial")
