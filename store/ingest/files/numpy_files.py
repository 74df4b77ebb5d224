"""Arrays in .npy and .npz files; NumPy reads their headers, and no pickles.

A .npy file is mapped into memory. Rows of a member of an .npz file, compressed or not, are read
without the other members.
"""

import io
import math
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy_format

from store.errors import ArrayError
from store.ingest.files.arrays import (
    ArrayFile,
    Order,
    Reader,
    Rows,
    from_bfloat16,
    loading,
    mapping,
    plain,
    reading,
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

_WANTED: Final = "want arrays, as np.savez writes them"
_METHODS: Final = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: 1032}
"""Methods of compression that np.savez uses, and how far they compress at most."""

_OVERHEAD_BYTES: Final = 1000


class _Form(NamedTuple):
    """The layout of an array in its file."""

    shape: tuple[int, ...]
    order: Order
    dtype: np.dtype[Any]
    offset: int


def open_file(path: Path, opened: ExitStack) -> Iterator[ArrayFile]:
    """Map the one array of an .npy file, or open every member of an .npz file, in its order."""
    if path.suffix.lower() == ".npy":
        with path.open("rb") as stream:
            form = _read_form(stream, path.stat().st_size)
        read = mapping(path, form.shape, form.dtype, form.offset, form.order)
        yield _as_stored(path.stem, form, read)
        return
    archive = opened.enter_context(zipfile.ZipFile(path))
    members = archive.namelist()
    odd = [member for member in members if not member.endswith(".npy")]
    if odd or not members:
        raise ArrayError(str(path), f"holds {repr(odd[0][:80]) if odd else 'nothing'}", _WANTED)
    if len(set(members)) < len(members):
        found = f"holds {len(members)} arrays of {len(set(members))} names"
        raise ArrayError(str(path), found, "give each a name of its own")
    for info in archive.infolist():
        yield _open_member(path, archive, info, opened)


def _open_member(
    path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, opened: ExitStack
) -> ArrayFile:
    name = info.filename.removesuffix(".npy")
    with reading(f"{path}:{name}", ADVICE):
        factor = _METHODS.get(info.compress_type)
        if factor is None:
            raise ValueError("it is compressed by a method that np.savez does not use")
        if info.file_size > factor * info.compress_size + _OVERHEAD_BYTES:
            raise ValueError(f"{info.compress_size} bytes cannot hold the {info.file_size} claimed")
        stream = opened.enter_context(archive.open(info))
        form = _read_form(stream, info.file_size)
    # Rows of an array in column-major order are not contiguous.
    if form.order == "F" or not form.shape:
        return _as_stored(name, form, loading(partial(_read_whole, stream, form)))
    return _as_stored(name, form, partial(_read_rows, stream, form))


def _read_whole(stream: IO[bytes], form: _Form) -> npt.NDArray[Any]:
    flat = form._replace(shape=(math.prod(form.shape),))
    return _read_rows(stream, flat, ()).reshape(form.shape, order=form.order)


def _read_rows(stream: IO[bytes], form: _Form, rows: Rows) -> npt.NDArray[Any]:
    start, stop, _ = (rows or slice(None)).indices(form.shape[0])
    n_rows, row_bytes = max(stop - start, 0), math.prod(form.shape[1:]) * form.dtype.itemsize
    # Seeking backwards starts again at the front by itself.
    stream.seek(form.offset + start * row_bytes)
    content = stream.read(n_rows * row_bytes)
    if len(content) != n_rows * row_bytes:
        raise EOFError(f"it ends after {len(content)} of {n_rows * row_bytes} bytes")
    return np.frombuffer(content, form.dtype).reshape(n_rows, *form.shape[1:])


def _as_stored(name: str, form: _Form, read: Reader) -> ArrayFile:
    """Return an array that np.save wrote; NumPy cannot name all of its types."""
    shape, _, dtype, _ = form
    if dtype.kind != "V" or dtype.names:
        return plain(ArrayFile(name, shape, dtype, read))
    if dtype.itemsize == 2:
        return from_bfloat16(name, shape, read, _BFLOAT16)
    return refused(name, shape, _RAW.format(dtype.itemsize), "save x.astype(np.float32)")


def _read_form(stream: IO[bytes], file_bytes: int) -> _Form:
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
    form = _Form(shape, "F" if by_columns else "C", dtype, head.tell())
    n_bytes, found = math.prod(shape) * dtype.itemsize, file_bytes - form.offset
    if not dtype.hasobject and (dtype.subdtype or not dtype.itemsize or n_bytes != found):
        raise ValueError(f"its header says {shape} of {dtype}, {n_bytes} bytes, and {found} follow")
    return form
