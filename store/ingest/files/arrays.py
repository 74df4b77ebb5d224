"""Arrays in files: named, and read a few rows at a time; and the meaning of their names."""

import functools
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from store.errors import ArrayError, StoreError

LABELS: Final = ("labels", "label")
"""The class of each example."""

SAMPLES: Final = ("samples", "sample")
"""The index of each example in its data set."""

METADATA: Final = "metadata"
"""The JSON text by which ``store query`` says which layer it wrote."""

OTHERS: Final = (
    "class", "classes", "target", "targets", "y", "y_true", "y_train", "y_test", "category",
    "id", "ids", "index", "indices", "idx", "image_id", "file", "files", "filename", "filenames",
    "file_names", "path", "paths", "name", "names", "__index_level_0__", "unnamed: 0", "",
)  # fmt: skip
"""Other names of arrays that describe examples; they are stored only at the user's request."""

MOST_ARRAYS: Final = 10_000
"""Arrays in a file."""

_MOST_AXES: Final = 32
_MOST_ROWS: Final = 10**10
_MOST_ROW_BYTES: Final = 2**30
_LONGEST_REASON: Final = 200

Rows = slice | tuple[()]
"""Some rows, or the one value of an array without axes."""

Reader = Callable[[Rows], Any]
Order = Literal["C", "F"]


@dataclass(frozen=True, eq=False)
class ArrayFile:
    """An array in a file, whose rows are read by slicing it.

    Attributes:
        name: as in the file, or the file's own.
        shape: rows first.
        dtype: of the rows that are read.
        read: reads rows; None where no rows can be read.
        refusal: why no rows can be read, as in "holds Python objects".
        advice: what to do where rows cannot be read.
        remark: how the rows are read, where users should know it.
        file: the file, or the folder of files.
        source: what errors call it, and what selects it: ``a.npy``, ``a.npz:conv1``.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Reader | None
    refusal: str = ""
    advice: str = ""
    remark: str = ""
    file: Path = Path()
    source: str = ""

    def __getitem__(self, rows: Rows, /) -> npt.NDArray[Any]:
        if self.read is None:
            raise ArrayError(self.source, self.refusal, remedy=self.advice)
        with reading(self.source, self.advice):
            return np.asarray(self.read(rows))

    def read_all(self) -> npt.NDArray[Any]:
        """Return all rows, or the one value of an array without axes."""
        return self[0 : self.shape[0]] if self.shape else self[()]


def refused(name: str, shape: tuple[int, ...], refusal: str, advice: str) -> ArrayFile:
    """Return an array whose rows cannot be read."""
    return ArrayFile(name, shape, np.dtype("V"), None, refusal, advice)


def plain(array: ArrayFile) -> ArrayFile:
    """Return an array, refused where its values are Python objects or records."""
    if array.dtype.hasobject:
        reason = "holds Python objects, which are never loaded"
        return refused(array.name, array.shape, reason, "save numbers")
    if array.dtype.names:
        reason = "has several fields a value"
        return refused(array.name, array.shape, reason, "save each as an array")
    return array


def from_bfloat16(name: str, shape: tuple[int, ...], read: Reader, remark: str = "") -> ArrayFile:
    """Return an array of bfloat16, whose two bytes a value are read in any type, as float32."""

    def widened(rows: Rows) -> npt.NDArray[np.float32]:
        bits = np.asarray(read(rows)).view("<u2").astype(np.uint32)
        return (bits << 16).view(np.float32)

    return ArrayFile(name, shape, np.dtype(np.float32), widened, remark=remark)


def loading(load: Callable[[], npt.NDArray[Any]]) -> Reader:
    """Return a reader of an array that is loaded whole, once, when it is first read."""
    whole = functools.cache(load)
    return lambda rows: whole()[rows]


def mapping(
    path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], offset: int, order: Order = "C"
) -> Reader:
    """Return a reader of an array that has the same layout in its file as in memory."""

    def read(rows: Rows) -> Any:
        if 0 in shape:
            return np.empty(shape, dtype)[rows]
        return np.memmap(path, dtype, "r", offset, shape, order)[rows]

    return read


@contextmanager
def reading(name: str, advice: str) -> Iterator[None]:
    """Raise ArrayError for any error: parsers raise all kinds on damaged files."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        line = "".join(char if char.isprintable() else " " for char in text.strip().splitlines()[0])
        reason = line[:_LONGEST_REASON].strip().rstrip(".:")
        raise ArrayError(name, f"cannot be read ({reason})", remedy=advice) from error


def check_form(array: ArrayFile) -> None:
    """Raise ArrayError for sizes that no activations have, before any memory is allocated."""
    shape = array.shape
    whole = all(type(size) is int and size >= 0 for size in shape)
    row_bytes = math.prod(shape[1:]) * array.dtype.itemsize if whole else 0
    fits = len(shape) <= _MOST_AXES and row_bytes <= _MOST_ROW_BYTES
    if whole and fits and (not shape or shape[0] <= _MOST_ROWS):
        return
    sizes = str(shape) if len(str(shape)) < _LONGEST_REASON else f"one of {len(shape)} axes"
    raise ArrayError(
        array.source,
        f"has the shape {sizes}",
        wanted=f"want sizes of 0 or more, at most {_MOST_ROWS:,} rows, and at most"
        f" {_MOST_ROW_BYTES >> 30} GiB each",
    )


def last_part(name: str) -> str:
    """Return the last part of a name that is not blank, or else the name, in lower case."""
    parts = [part for part in re.split(r"[/.]", name) if part.strip()]
    return (parts[-1] if parts else name).strip().lower()


def describes_examples(name: str) -> bool:
    """Return whether an array of this name is taken for something other than a layer."""
    return last_part(name) in (*LABELS, *SAMPLES, *OTHERS)


def counting(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts ``layer10`` after ``layer9``."""
    parts = re.split(r"([0-9]+)", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
