"""Arrays in .npz files, compressed or not; rows are read in turn, without the others."""

import math
import zipfile
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt

from store.errors import ArrayError
from store.ingest.files.arrays import MOST_ARRAYS, Listed, Refused, Rows, reading
from store.ingest.files.npy import ADVICE, Form, named, read_form

_METHODS: Final = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: 1032}
"""Methods of compression that np.savez uses, and how far they compress at most."""

_OVERHEAD_BYTES: Final = 1000


def open_file(path: Path, opened: ExitStack) -> list[Listed]:
    """Open every member, in the order of the file."""
    with reading(str(path), ADVICE):
        archive = opened.enter_context(zipfile.ZipFile(path))
    _check_members(path, archive.namelist())
    return [_open_member(path, archive, info, opened) for info in archive.infolist()]


def _check_members(path: Path, members: list[str]) -> None:
    odd = [member for member in members if not member.endswith(".npy")]
    if odd or not members:
        raise ArrayError(
            f"{path} holds {odd[0][:80]!r}; want arrays, as np.savez writes them"
            if odd
            else f"{path} holds nothing; want arrays, as np.savez writes them"
        )
    if len(members) > MOST_ARRAYS or len(set(members)) < len(members):
        raise ArrayError(
            f"{path} holds {len(members)} arrays of {len(set(members))} names; want at most"
            f" {MOST_ARRAYS}, each with a name of its own"
        )


def _open_member(
    path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, opened: ExitStack
) -> Listed:
    name = info.filename.removesuffix(".npy")
    source = f"{path}:{name}"
    with reading(source, ADVICE):
        _check_sizes(info)
        stream = opened.enter_context(archive.open(info))
        form = read_form(source, stream, info.file_size)
    if isinstance(form, Refused):
        return Listed(name, form)
    return named(name, _Member(source, stream, form))


def _check_sizes(info: zipfile.ZipInfo) -> None:
    """Raise ValueError where the sizes in the directory of the archive cannot be true."""
    factor = _METHODS.get(info.compress_type)
    if factor is None:
        raise ValueError("it is compressed by a method that np.savez does not use")
    if info.file_size > factor * info.compress_size + _OVERHEAD_BYTES:
        raise ValueError(f"{info.compress_size} bytes cannot hold the {info.file_size} claimed")


class _Member:
    """An array in an .npz file."""

    def __init__(self, source: str, stream: IO[bytes], form: Form) -> None:
        self._source = source
        # Seeking back begins at the front again by itself.
        self._stream = stream
        self._form = form
        self.shape = form.shape
        self.dtype = form.dtype

    def __getitem__(self, rows: Rows, /) -> npt.NDArray[Any]:
        if not self.shape or not isinstance(rows, slice):
            return self._whole
        start, stop, _ = rows.indices(self.shape[0])
        if self._form.order == "F":
            return self._whole[start:stop]
        return self._read(start, stop).reshape(max(stop - start, 0), *self.shape[1:])

    @cached_property
    def _whole(self) -> npt.NDArray[Any]:
        # Its rows do not lie together.
        n_rows = self.shape[0] if self.shape else 1
        return self._read(0, n_rows).reshape(self.shape, order=self._form.order)

    def _read(self, start: int, stop: int) -> npt.NDArray[Any]:
        row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        wanted = max(stop - start, 0) * row_bytes
        with reading(self._source, ADVICE):
            self._stream.seek(self._form.offset + start * row_bytes)
            found = self._stream.read(wanted)
            if len(found) != wanted:
                raise EOFError(f"it ends before row {stop}")
        return np.frombuffer(found, self.dtype)
