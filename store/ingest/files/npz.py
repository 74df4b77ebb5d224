"""Arrays in .npz files, compressed or not; rows are read without the others."""

import math
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt

from store.errors import ArrayError
from store.ingest.files.arrays import ArrayFile, Rows, loading, reading
from store.ingest.files.npy import ADVICE, Form, as_stored, read_form

_WANTED: Final = "want arrays, as np.savez writes them"
_METHODS: Final = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: 1032}
"""Methods of compression that np.savez uses, and how far they compress at most."""

_OVERHEAD_BYTES: Final = 1000


def open_file(path: Path, opened: ExitStack) -> Iterator[ArrayFile]:
    """Open every member, in the order of the file."""
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
        form = read_form(stream, info.file_size)
    # Rows of an array in the order of its columns do not lie together.
    if form.order == "F" or not form.shape:
        return as_stored(name, form, loading(partial(_read_whole, stream, form)))
    return as_stored(name, form, partial(_read_rows, stream, form))


def _read_whole(stream: IO[bytes], form: Form) -> npt.NDArray[Any]:
    return _read(stream, form, 0, math.prod(form.shape)).reshape(form.shape, order=form.order)


def _read_rows(stream: IO[bytes], form: Form, rows: Rows) -> npt.NDArray[Any]:
    start, stop, _ = (rows or slice(None)).indices(form.shape[0])
    n_rows, width = max(stop - start, 0), math.prod(form.shape[1:])
    return _read(stream, form, start * width, n_rows * width).reshape(n_rows, *form.shape[1:])


def _read(stream: IO[bytes], form: Form, first: int, n_values: int) -> npt.NDArray[Any]:
    size = form.dtype.itemsize
    # Seeking backwards begins at the front by itself.
    stream.seek(form.offset + first * size)
    content = stream.read(n_values * size)
    if len(content) != n_values * size:
        raise EOFError(f"it ends before value {first + n_values}")
    return np.frombuffer(content, form.dtype)
