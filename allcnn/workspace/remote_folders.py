"""Local copies of folders at an address, for libraries that need local files."""

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
    """Yield a local folder: the place itself, or a temporary copy of the wanted files.

    ``wanted`` is asked for every file, by its path within the place.
    """
    if isinstance(place, Path):
        yield place
        return
    with TemporaryDirectory(prefix="allcnn-") as scratch:
        folder = Path(scratch, place.name)
        folder.mkdir()
        names = [name for name, _, _ in walk_files(place) if wanted(name)]
        for name in names:
            # Whoever can write to a bucket chooses the names in it.
            if ".." in PurePosixPath(name).parts:
                found = f"holds the name {name!r}, which leads outside"
                raise WorkspaceError(str(place), found, remedy="delete it")
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with reaching(place):
            place.fs.get([(place / n).path for n in names], [str(folder / n) for n in names])
        yield folder


@contextmanager
def taken(place: Place, last: str) -> Iterator[Path]:
    """Yield a local folder to write: the place itself, or one that is uploaded at the end.

    Objects cannot be renamed all at once: a place is whole once it has the file ``last``.
    """
    if isinstance(place, Path):
        yield place
        return
    with TemporaryDirectory(prefix="allcnn-") as scratch:
        folder = Path(scratch, place.name)
        yield folder
        send(folder, place, last)


def send(folder: Path, place: UPath, last: str) -> None:
    """Upload a folder in place of what is there: the file ``last`` is removed first, added last."""
    names = [name for name, _, _ in walk_files(folder) if name != last]
    with reaching(place):
        with suppress(FileNotFoundError):
            place.fs.rm_file((place / last).path)
        remove_tree(place)
        place.fs.put([str(folder / n) for n in names], [(place / n).path for n in names])
        place.fs.put_file(str(folder / last), (place / last).path)
