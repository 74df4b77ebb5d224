"""The arrays in given files and folders: a layer each, or a file an example."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from store.errors import ArrayError
from store.ingest.files.arrays import ArrayFile, Rows, check_form, counting, describes_examples
from store.ingest.files.formats import FORMATS, is_there, is_zarr, open_path
from store.model.names import some_of

_FEWEST: Final = 4
"""Files that can be an example each: HSIC needs as many examples."""


class Opened(NamedTuple):
    """The arrays that were found, and notes for the user."""

    arrays: list[ArrayFile]
    notes: list[str]


@contextmanager
def open_arrays(paths: Sequence[Path], stack: bool | None = None) -> Iterator[Opened]:
    """Open every array in some files and folders, in their order.

    A folder stands for its files of one format, sorted by name with numbers counted; files of one
    folder are an example each where ``stack`` is true, or where it is None and they can be nothing
    else. Raises ArrayError for other files, and for damaged or ambiguous ones.
    """
    with ExitStack() as opened:
        found: list[ArrayFile] = []
        notes: list[str] = []
        listed = [(path, _files(path, notes)) for path in paths]
        # Files that lie in one folder belong together.
        for folder, group in groupby(listed, lambda pair: pair[0] if pair[1] else pair[0].parent):
            files = [file for path, inside in group for file in inside or [path]]
            others = [file for file in files if describes_examples(file.stem)]
            examples = [file for file in files if file not in others]
            if stack or (stack is None and _are_examples(folder, examples)):
                found += _stacked(folder, examples)
                notes.append(
                    f"the {len(examples)} files of {folder} are taken as one example each, in the"
                    f" order of {examples[0].name} to {examples[-1].name}"
                    + ("; --no-stack takes each as a layer" if stack is None else "")
                )
            else:
                others = files
            found += [array for file in others for array in open_path(file, opened)]
        yield Opened(found, notes)


@contextmanager
def open_array(text: str) -> Iterator[ArrayFile]:
    """Open one array: ``FILE``, or ``FILE:NAME`` where the file holds several."""
    path, name = Path(text), ""
    if not is_there(path) and ":" in text:
        before, _, name = text.rpartition(":")
        path = Path(before)
    with ExitStack() as opened:
        found = open_path(path, opened)
        fitting = [array for array in found if not name or array.name == name]
        if len(fitting) != 1:
            names = some_of([array.name for array in found], 10)
            reason = f"names {len(fitting)} arrays of {path}, which holds {names}"
            raise ArrayError(text, reason, remedy=f"name one, as in {path}:{found[0].name}")
        yield fitting[0]


def _files(folder: Path, notes: list[str]) -> list[Path]:
    """Return the files of a folder that are read; none for a file or a Zarr folder."""
    if not is_there(folder) or not folder.is_dir() or is_zarr(folder):
        return []
    entries = sorted(folder.glob("[!.]*"), key=lambda file: counting(file.stem))
    known = [file for file in entries if file.suffix.lower() in FORMATS and file.is_file()]
    arrays = [file for file in known if not FORMATS[file.suffix.lower()].is_table]
    chosen = arrays or [file for file in known if file.suffix.lower() != ".txt"]
    kinds = sorted({file.suffix for file in chosen})
    if len(kinds) != 1:
        what = f"files of {len(kinds)} formats, {', '.join(kinds)}" if kinds else "no arrays"
        advice = f"name files of one, such as {folder}/*{kinds[0] if kinds else '.npy'}"
        raise ArrayError(f"the folder {folder}", f"holds {what}", remedy=advice)
    taken = set(chosen)
    others = [file for file in entries if file not in taken]
    if others:
        names = some_of([file.name for file in others], 3)
        note = f"of {folder}, {names} are passed over"
        if fact := next((file for file in others if describes_examples(file.stem)), None):
            note += f"; name {fact} with --labels or --samples if it is of these rows"
        notes.append(note)
    return chosen


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a file's arrays by their names; a single array has none."""
    with ExitStack() as opened:
        return {_name(array): array.shape for array in open_path(file, opened)}


def _name(array: ArrayFile) -> str:
    return "" if array.source == str(array.file) else array.name


def _are_examples(folder: Path, files: Sequence[Path]) -> bool:
    """Return whether files can only be an example each; raises ArrayError where they may be."""
    if len(files) < _FEWEST or is_zarr(files[0]):
        return False
    first = _shapes(files[0])
    layers = [
        shape for name, shape in first.items() if shape and not describes_examples(name or "-")
    ]
    if not layers or any(_shapes(file) != first for file in files[1:]):
        return False
    if all(len(shape) == 1 or shape[0] == 1 for shape in layers):
        return True
    if len({shape[0] for shape in layers}) > 1:
        return True
    if len(layers) > 1 or len(files) > layers[0][0]:
        raise ArrayError(
            f"the {len(files)} files of {folder}",
            f"hold arrays of the same shape, {layers[0]}",
            remedy="say with --stack that each is an example, or with --no-stack that each is a"
            " layer; join those of batches before, as np.concatenate does",
        )
    return False


def _stacked(folder: Path, files: list[Path]) -> list[ArrayFile]:
    if len(files) < _FEWEST:
        wanted = f"want {_FEWEST} or more, one an example"
        raise ArrayError(str(folder), f"has {len(files)} files to stack", wanted)
    with ExitStack() as opened:
        return [_stack(folder, files, first) for first in open_path(files[0], opened)]


def _stack(folder: Path, files: list[Path], first: ArrayFile) -> ArrayFile:
    """Return an array of the same name in many files, an example each; few are open at a time."""
    name, each = _name(first), first.shape
    # An axis of one example is not kept.
    inner = each[1:] if len(each) > 1 and each[0] == 1 else each

    def read(rows: Rows) -> npt.NDArray[Any]:
        found = [_read_one(file, name, each) for file in files[rows or slice(None)]]
        values = np.stack(found) if found else np.empty(0, first.dtype)
        return values.reshape(len(found), *inner)

    array = replace(
        first,
        name=name or folder.resolve().name,
        shape=(len(files), *inner),
        read=first.read and read,
        file=folder,
        source=f"{folder}:{name}" if name else str(folder),
    )
    check_form(array)
    return array


def _read_one(file: Path, name: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    with ExitStack() as opened:
        array = next((each for each in open_path(file, opened) if _name(each) == name), None)
        if array is None or array.shape != shape:
            state = "is missing" if array is None else f"has the shape {array.shape}"
            reason = f"is stacked with others, and its array {name} {state}, not {shape}"
            raise ArrayError(str(file), reason, remedy="give files of one shape")
        return np.array(array.read_all())
