"""Files and folders as they are given: an array a layer, or a file an example."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from store.errors import ArrayError
from store.ingest.files.arrays import Found, Rows, check_form, read_all
from store.ingest.files.formats import FORMATS, is_there, is_zarr, open_path
from store.ingest.files.names import counting, describes_examples

_FEWEST: Final = 4
"""Files that can be an example each: HSIC needs as many examples."""


class Opened(NamedTuple):
    """The arrays that were found, and what has to be said of the others."""

    arrays: list[Found]
    notes: list[str]


@contextmanager
def open_arrays(paths: Sequence[Path], stack: bool | None = None) -> Iterator[Opened]:
    """Open every array in some files and folders, in their order.

    A folder stands for its files of one format, sorted by name with numbers counted; files of one
    folder are an example each where ``stack`` is true, or where it is None and they can be nothing
    else. Raises ArrayError for what is no such file, is damaged or ambiguous.
    """
    with ExitStack() as opened:
        found: list[Found] = []
        notes: list[str] = []
        for folder, files in _groups(paths, notes):
            found += _open_group(folder, files, stack, opened, notes)
        yield Opened(found, notes)


@contextmanager
def open_array(text: str) -> Iterator[Found]:
    """Open one array: ``FILE``, or ``FILE:NAME`` where the file holds several."""
    path, name = Path(text), ""
    if not is_there(path) and ":" in text:
        before, _, name = text.rpartition(":")
        path = Path(before)
    with ExitStack() as opened:
        found = open_path(path, opened)
        fitting = [each for each in found if not name or each.name == name]
        if len(fitting) != 1:
            names = ", ".join(each.name for each in found[:10])
            raise ArrayError(
                f"{text} names {len(fitting)} arrays of {path}, which holds {names}; name one, as"
                f" in {path}:{found[0].name}"
            )
        yield fitting[0]


def _groups(paths: Sequence[Path], notes: list[str]) -> Iterator[tuple[Path, list[Path]]]:
    """Yield files that lie in one folder together, with that folder."""
    listed = [(path, _files(path, notes)) for path in paths]
    for folder, group in groupby(listed, lambda pair: pair[0] if pair[1] else pair[0].parent):
        yield folder, [file for path, files in group for file in files or [path]]


def _files(folder: Path, notes: list[str]) -> list[Path]:
    """Return the files of a folder, none of what is none."""
    if not is_there(folder) or not folder.is_dir() or is_zarr(folder):
        return []
    entries = sorted(folder.glob("[!.]*"), key=lambda file: counting(file.stem))
    known = [file for file in entries if file.suffix.lower() in FORMATS and file.is_file()]
    arrays = [file for file in known if not FORMATS[file.suffix.lower()].is_table]
    chosen = arrays or [file for file in known if file.suffix.lower() != ".txt"]
    kinds = sorted({file.suffix for file in chosen})
    if len(kinds) != 1:
        what = f"files of {len(kinds)} formats, {', '.join(kinds)}" if kinds else "no arrays"
        raise ArrayError(
            f"the folder {folder} holds {what}; name files of one, such as"
            f" {folder}/*{kinds[0] if kinds else '.npy'}"
        )
    taken = set(chosen)
    others = [file.name for file in entries if file not in taken]
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        told = f"of {folder}, {', '.join(others[:3])}{more} are passed over"
        facts = [file for file in entries if file not in taken and describes_examples(file.stem)]
        if facts:
            told += f"; name {facts[0]} with --labels or --samples if it is of these rows"
        notes.append(told)
    return chosen


def _open_group(
    folder: Path, files: list[Path], stack: bool | None, opened: ExitStack, notes: list[str]
) -> list[Found]:
    """Open files of one folder, beside them those that describe all examples, such as labels."""
    others = [file for file in files if describes_examples(file.stem)]
    examples = [file for file in files if file not in others]
    if stack or (stack is None and _are_examples(folder, examples)):
        found = _stacked(folder, examples)
        notes.append(
            f"the {len(examples)} files of {folder} are taken as one example each, in the order of"
            f" {examples[0].name} to {examples[-1].name}"
            + ("; --no-stack takes each as a layer" if stack is None else "")
        )
    else:
        found, others = [], files
    return found + [each for file in others for each in open_path(file, opened)]


def _forms(file: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a file's arrays by their names; that of a single one has none."""
    with ExitStack() as opened:
        found = open_path(file, opened)
        return {_name(each): each.array.shape for each in found}


def _name(found: Found) -> str:
    return "" if found.source == str(found.file) else found.name


def _are_examples(folder: Path, files: Sequence[Path]) -> bool:
    """Return whether files can only be an example each; raises ArrayError where they may be."""
    if len(files) < _FEWEST or is_zarr(files[0]):
        return False
    first = _forms(files[0])
    layers = [
        shape for name, shape in first.items() if shape and not describes_examples(name or "-")
    ]
    if not layers or any(_forms(file) != first for file in files[1:]):
        return False
    if all(len(shape) == 1 or shape[0] == 1 for shape in layers):
        return True
    if len({shape[0] for shape in layers}) > 1:
        return True
    if len(layers) > 1 or len(files) > layers[0][0]:
        raise ArrayError(
            f"the {len(files)} files of {folder} hold arrays of the same shape, {layers[0]}; say"
            " with --stack that each is an example, or with --no-stack that each is a layer; those"
            " of batches have to be joined before, as np.concatenate does"
        )
    return False


def _stacked(folder: Path, files: list[Path]) -> list[Found]:
    if len(files) < _FEWEST:
        raise ArrayError(
            f"{folder} has {len(files)} files to stack; want {_FEWEST} or more, one an example"
        )
    with ExitStack() as opened:
        return [_stack(folder, files, each) for each in open_path(files[0], opened)]


def _stack(folder: Path, files: list[Path], first: Found) -> Found:
    name = _name(first)
    array = _Stack(tuple(files), name, first.array.shape, first.array.dtype)
    source = f"{folder}:{name}" if name else str(folder)
    check_form(source, array.shape, array.dtype)
    return Found(name or folder.resolve().name, source, array, folder, first.remark)


@dataclass(frozen=True)
class _Stack:
    """An array of the same name in many files, an example each; few are open at a time."""

    files: tuple[Path, ...]
    name: str
    each: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows first; an axis of one example is not kept."""
        inner = self.each[1:] if len(self.each) > 1 and self.each[0] == 1 else self.each
        return (len(self.files), *inner)

    def __getitem__(self, rows: Rows, /) -> npt.NDArray[Any]:
        found = [self._read(file) for file in self.files[rows or slice(None)]]
        if not found:
            return np.empty((0, *self.shape[1:]), self.dtype)
        return np.stack(found).reshape(len(found), *self.shape[1:])

    def _read(self, file: Path) -> npt.NDArray[Any]:
        with ExitStack() as opened:
            arrays = {_name(each): each.array for each in open_path(file, opened)}
            array = arrays.get(self.name)
            if array is None or array.shape != self.each:
                state = "is missing" if array is None else f"has the shape {array.shape}"
                raise ArrayError(
                    f"{file} is stacked with others, and its array {self.name} {state}, not"
                    f" {self.each}; give files of one shape"
                )
            return np.array(read_all(array))
