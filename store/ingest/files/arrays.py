"""What a file of arrays gives: named arrays that are read a few rows at a time, or a reason."""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from store.errors import ArrayError, InvalidKeyError, StoreError
from store.model.names import check_tap

MOST_ARRAYS: Final = 10_000
"""Arrays in a file."""

_MOST_AXES: Final = 32
_MOST_ROWS: Final = 10**10
_MOST_ROW_BYTES: Final = 2**30
_LONGEST_REASON: Final = 200


Rows = slice | tuple[()]
"""Some rows, or all that an array without axes has."""


class ArrayFile(Protocol):
    """An array in a file, which gives rows as slices."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows first."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """As it is read."""

    def __getitem__(self, rows: Rows, /) -> npt.NDArray[Any]:
        """Return some rows."""


def read_all(array: ArrayFile) -> npt.NDArray[Any]:
    """Return all rows, or the one value of an array without axes."""
    return np.asarray(array[0 : array.shape[0]] if array.shape else array[()])


@dataclass(frozen=True)
class Refused:
    """An array that cannot be read, and why: ``holds Python objects, which ...; save numbers``."""

    shape: tuple[int, ...]
    source: str
    reason: str
    dtype: ClassVar[np.dtype[Any]] = np.dtype("V")

    def __getitem__(self, rows: Rows, /) -> npt.NDArray[Any]:
        """Raise ArrayError."""
        raise ArrayError(f"{self.source} {self.reason}")


@dataclass(frozen=True)
class Lazy:
    """An array that a library reads some rows of; what it raises then ends in ``advice``."""

    source: str
    advice: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[Rows], Any]

    def __getitem__(self, rows: Rows, /) -> npt.NDArray[Any]:
        """Return some rows."""
        with reading(self.source, self.advice):
            return np.asarray(self.read(rows))


@dataclass(frozen=True)
class Converted:
    """An array whose rows become others of the same shape when they are read."""

    array: ArrayFile
    dtype: np.dtype[Any]
    convert: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows first."""
        return self.array.shape

    def __getitem__(self, rows: Rows, /) -> npt.NDArray[Any]:
        """Return some rows."""
        return self.convert(self.array[rows])


def from_bfloat16(array: ArrayFile) -> Converted:
    """Return an array of two bytes a value, little endian, as the float32 that they begin."""
    return Converted(array, np.dtype(np.float32), _widened)


def _widened(rows: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    bits = np.ascontiguousarray(rows).view("<u2").astype(np.uint32)
    return (bits << 16).view(np.float32)


@dataclass(frozen=True, eq=False)
class Found:
    """An array in a file.

    Attributes:
        name: as in the file, or the file's own.
        source: what messages call it, and what chooses it for certain: ``a.npy``, ``a.npz:conv1``.
        array: what gives its rows.
        file: where it lies.
        remark: what has to be said of how it is read.
    """

    name: str
    source: str
    array: ArrayFile
    file: Path
    remark: str | None = None


class Listed(NamedTuple):
    """The name of an array within its file, and the array."""

    name: str
    array: ArrayFile
    remark: str | None = None


Opener = Callable[[Path, ExitStack], list[Listed]]
"""How a format is read: a path, and what closes it later, to the arrays in their order."""


@contextmanager
def reading(name: str, advice: str) -> Iterator[None]:
    """Turn whatever a parser raises into one ArrayError: they raise anything on damaged files."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        raise ArrayError(f"{name} cannot be read ({_reason(error)}); {advice}") from error


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    line = "".join(char if char.isprintable() else " " for char in text.strip().splitlines()[0])
    return line[:_LONGEST_REASON].strip().rstrip(".:")


def check_form(source: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Raise ArrayError for sizes that no array of activations has, before any memory is taken."""
    whole = all(type(size) is int and size >= 0 for size in shape)
    row_bytes = math.prod(shape[1:]) * dtype.itemsize if whole else 0
    fits = len(shape) <= _MOST_AXES and row_bytes <= _MOST_ROW_BYTES
    if whole and fits and (not shape or shape[0] <= _MOST_ROWS):
        return
    sizes = str(shape) if len(str(shape)) < _LONGEST_REASON else f"one of {len(shape)} axes"
    raise ArrayError(
        f"{source} has the shape {sizes}; want sizes of 0 or more, at most {_MOST_ROWS:,} rows, and"
        f" at most {_MOST_ROW_BYTES >> 30} GiB each"
    )


def check_name(path: Path, name: str) -> None:
    """Raise ArrayError for a name that no tap can have."""
    try:
        check_tap(name)
    except InvalidKeyError as error:
        raise ArrayError(
            f"{path} holds an array with a name of {len(name)} characters: {error}"
        ) from None
