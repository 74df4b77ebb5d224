"""Folders that a library wants to have locally: brought from an address, or taken there."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from upath import UPath

from allcnn.errors import WorkspaceError
from store.storage.paths import Place, remove_tree, walk_files
from store.storage.remote_errors import reaching


@contextmanager
def brought(place: Place, wanted: Callable[[str], bool]) -> Iterator[Path]:
    """Yield a local folder: the place itself, or a copy of what is wanted of it, gone at the end.

    ``wanted`` is asked for every file, by its path within the place.
    """
    if isinstance(place, Path):
        yield place
        return
    with TemporaryDirectory(prefix="allcnn-") as scratch:
        folder = Path(scratch, place.name)
        folder.mkdir()
        _download(place, folder, [name for name, _, _ in walk_files(place) if wanted(name)])
        yield folder


@contextmanager
def taken(place: Place, last: str) -> Iterator[Path]:
    """Yield a local folder to write: the place itself, or one that is uploaded at the end.

    Objects cannot be renamed all at once: a place is whole once it has the file ``last``, which is
    removed first and uploaded last.
    """
    if isinstance(place, Path):
        yield place
        return
    with TemporaryDirectory(prefix="allcnn-") as scratch:
        folder = Path(scratch, place.name)
        yield folder
        send(folder, place, last)


def send(folder: Path, place: UPath, last: str) -> None:
    """Upload a folder in place of what is there, whole once it has the file ``last``."""
    with reaching(place):
        _upload(folder, place, last)


def _download(place: UPath, folder: Path, names: list[str]) -> None:
    for name in names:
        # Whoever can write to a bucket chooses the names in it.
        if ".." in PurePosixPath(name).parts:
            raise WorkspaceError(f"{place} holds the name {name!r}, which leads outside; delete it")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    with reaching(place):
        place.fs.get(
            [(place / name).path for name in names], [str(folder / name) for name in names]
        )


def _upload(folder: Path, place: UPath, last: str) -> None:
    with suppress(FileNotFoundError):
        place.fs.rm_file((place / last).path)
    remove_tree(place)
    files = [name for name, _, _ in walk_files(folder) if name != last]
    place.fs.put([str(folder / name) for name in files], [(place / name).path for name in files])
    place.fs.put_file(str(folder / last), (place / last).path)
