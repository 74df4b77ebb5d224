"""Arrays in .npy files, mapped into memory; NumPy reads their headers, and no pickles."""

import io
import math
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

import numpy as np
from numpy.lib import format as npy_format

from store.ingest.files.arrays import (
    ArrayFile,
    Order,
    Reader,
    from_bfloat16,
    mapping,
    plain,
    refused,
)

ADVICE: Final = "save it again with np.save or np.savez"
_BFLOAT16: Final = (
    "has two raw bytes a value, as np.save writes bfloat16, and is read as such; save"
    " x.astype(np.float32) if they are something else"
)
_RAW: Final = (
    "has {} raw byte(s) a value, as np.save writes float8 and other types that it cannot name"
)
_VERSIONS: Final = ((1, 0), (2, 0), (3, 0))
_LONGEST_HEADER: Final = 10_000
"""Bytes; NumPy reads no longer ones."""


class Form(NamedTuple):
    """How an array lies in its file."""

    shape: tuple[int, ...]
    order: Order
    dtype: np.dtype[Any]
    offset: int


def open_file(path: Path, opened: ExitStack) -> list[ArrayFile]:
    """Map the one array of a file."""
    with path.open("rb") as stream:
        form = read_form(stream, path.stat().st_size)
    read = mapping(path, form.shape, form.dtype, form.offset, form.order)
    return [as_stored(path.stem, form, read)]


def as_stored(name: str, form: Form, read: Reader) -> ArrayFile:
    """Return an array that np.save wrote, of whose types NumPy names not all."""
    shape, _, dtype, _ = form
    if dtype.kind != "V" or dtype.names:
        return plain(ArrayFile(name, shape, dtype, read))
    if dtype.itemsize == 2:
        return from_bfloat16(name, shape, read, _BFLOAT16)
    return refused(name, shape, _RAW.format(dtype.itemsize), "save x.astype(np.float32)")


def read_form(stream: IO[bytes], file_bytes: int) -> Form:
    """Read a header; raises ValueError for any that is not followed by the values it describes."""
    # A header that claims gigabytes takes no more memory.
    head = io.BytesIO(stream.read(_LONGEST_HEADER + 100))
    version = npy_format.read_magic(head)
    if version not in _VERSIONS:
        raise ValueError(f"version {version[0]}.{version[1]} of the format is not known")
    is_first = version == (1, 0)
    read = npy_format.read_array_header_1_0 if is_first else npy_format.read_array_header_2_0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about headers that Python 2 wrote
        shape, by_columns, dtype = read(head)
    form = Form(shape, "F" if by_columns else "C", dtype, head.tell())
    n_bytes, found = math.prod(shape) * dtype.itemsize, file_bytes - form.offset
    if not dtype.hasobject and (dtype.subdtype or not dtype.itemsize or n_bytes != found):
        raise ValueError(f"its header says {shape} of {dtype}, {n_bytes} bytes, and {found} follow")
    return form
