"""Arrays in .npy and .npz files, read a few rows at a time; nothing in them is ever executed."""

import math
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from store.errors import ArrayError

_UNREADABLE = (
    ValueError, EOFError, OSError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error
)  # fmt: skip
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class ArrayFile(Protocol):
    """An array in a file, which gives rows as slices."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows first."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """As in the file."""

    def __getitem__(self, rows: slice, /) -> npt.NDArray[Any]:
        """Return some rows."""


Named = tuple[str, ArrayFile]


@contextmanager
def open_arrays(paths: Sequence[Path]) -> Iterator[list[Named]]:
    """Open every array below some paths, with its name, in their order.

    A folder stands for its .npy files, sorted by name with numbers counted; an .npz for its
    members, in the order of the file. Raises ArrayError for what is no such file, is damaged or
    holds Python objects, which are never loaded.
    """
    with ExitStack() as opened:
        yield [found for path in paths for found in _arrays(path, opened)]


def open_npy(path: Path) -> ArrayFile:
    """Map a .npy file into memory; raises ArrayError as ``open_arrays`` does."""
    if not path.is_file():
        raise ArrayError(f"{path} is no file; name a .npy file")
    with _reading(str(path)):
        with path.open("rb") as stream:
            form = _read_form(str(path), stream)
        return np.memmap(path, form.dtype, "r", form.offset, form.shape, form.order)


def _arrays(path: Path, opened: ExitStack) -> list[Named]:
    if path.is_dir():
        files = sorted(path.glob("[!.]*.npy"), key=lambda file: _counting(file.stem))
        if not files:
            raise ArrayError(f"the folder {path} holds no .npy files; name one that does")
        return [(file.stem, open_npy(file)) for file in files]
    if path.suffix not in (".npy", ".npz") or not path.is_file():
        state = "is no .npy or .npz file, and no folder" if path.exists() else "does not exist"
        raise ArrayError(f"{path} {state}; name what holds the activations")
    return _members(path, opened) if path.suffix == ".npz" else [(path.stem, open_npy(path))]


def _members(path: Path, opened: ExitStack) -> list[Named]:
    with _reading(str(path)):
        archive = opened.enter_context(zipfile.ZipFile(path))
    members = archive.namelist()
    odd = [member for member in members if not member.endswith(".npy")]
    if odd or not members:
        raise ArrayError(
            f"{path} holds {odd[0] if odd else 'nothing'}; want arrays, as np.savez writes them"
        )
    return [(name.removesuffix(".npy"), _Member(path, archive, name, opened)) for name in members]


class _Form(NamedTuple):
    """How an array lies in its file."""

    shape: tuple[int, ...]
    order: Literal["C", "F"]
    dtype: np.dtype[Any]
    offset: int


class _Member:
    """An array in an .npz file, compressed or not; rows are read in turn, without the others."""

    def __init__(
        self, path: Path, archive: zipfile.ZipFile, member: str, opened: ExitStack
    ) -> None:
        self._name = f"{path}:{member}"
        with _reading(self._name):
            # Seeking back begins at the front again by itself.
            self._stream: IO[bytes] = opened.enter_context(archive.open(member))
            self._form = _read_form(self._name, self._stream)
        self.shape = self._form.shape
        self.dtype = self._form.dtype

    def __getitem__(self, rows: slice, /) -> npt.NDArray[Any]:
        start, stop, _ = rows.indices(self.shape[0])
        if self._form.order == "F":
            return self._whole[start:stop]
        return self._read(start, stop).reshape(max(stop - start, 0), *self.shape[1:])

    @cached_property
    def _whole(self) -> npt.NDArray[Any]:
        # Its rows do not lie together.
        return self._read(0, self.shape[0]).reshape(self.shape, order="F")

    def _read(self, start: int, stop: int) -> npt.NDArray[Any]:
        row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        wanted = max(stop - start, 0) * row_bytes
        with _reading(self._name):
            self._stream.seek(self._form.offset + start * row_bytes)
            found = self._stream.read(wanted)
            if len(found) != wanted:
                raise EOFError(f"it ends before row {stop}")
        return np.frombuffer(found, self.dtype)


def _read_form(name: str, stream: IO[bytes]) -> _Form:
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"version {version} of the format is not known")
    shape, fortran_order, dtype = _HEADERS[version](stream)
    if dtype.hasobject:
        raise ArrayError(f"{name} holds Python objects, which are never loaded; save numbers")
    return _Form(shape, "F" if fortran_order else "C", dtype, stream.tell())


def _counting(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts ``layer10`` after ``layer9``."""
    parts = re.split(r"([0-9]+)", name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


@contextmanager
def _reading(name: str) -> Iterator[None]:
    try:
        yield
    except ArrayError:
        raise
    except _UNREADABLE as error:
        text = str(error).rstrip(".") or type(error).__name__
        raise ArrayError(
            f"{name} cannot be read ({text}); save it again with np.save or np.savez"
        ) from error
