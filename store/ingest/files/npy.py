"""Arrays in .npy files, mapped into memory; their headers are matched, never evaluated."""

import math
import re
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Literal

import numpy as np

from store.ingest.files.arrays import ArrayFile, Listed, Refused, check_form, from_bfloat16, reading

ADVICE: Final = "save it again with np.save or np.savez"
RAW_BFLOAT16: Final = (
    "has two raw bytes a value, as np.save writes bfloat16, and is read as such; save"
    " x.astype(np.float32) if they are something else"
)
_OBJECTS: Final = "holds Python objects, which are never loaded; save numbers"
_FIELDS: Final = "has several fields a value; save each as an array"
_RAW: Final = (
    "has {} raw byte(s) a value, as np.save writes float8 and other types that it cannot name;"
    " save x.astype(np.float32)"
)

_MAGIC: Final = b"\x93NUMPY"
_LENGTH_BYTES: Final = {1: 2, 2: 4, 3: 4}
_LONGEST_HEADER: Final = 10_000
_PARTS: Final = {
    "descr": re.compile(r"""['"]descr['"]\s*:\s*(?:['"]([^'"\\]{1,40})['"]|(\[.*\]))"""),
    "order": re.compile(r"""['"]fortran_order['"]\s*:\s*(True|False)"""),
    "shape": re.compile(r"""['"]shape['"]\s*:\s*\(([0-9L,\s]*)\)"""),
}
_SIZES: Final = re.compile(r"\s*(?:\d{1,19}L?\s*,\s*)*(?:\d{1,19}L?)?\s*")
_DTYPE: Final = re.compile(r"[<>|=]?(?:[biufcOV?]\d{0,2}|[SU]\d{1,6}|[mM]8(?:\[\w+\])?)")


@dataclass(frozen=True)
class Form:
    """How an array lies in its file."""

    shape: tuple[int, ...]
    order: Literal["C", "F"]
    dtype: np.dtype[Any]
    offset: int

    @property
    def n_bytes(self) -> int:
        """Of all values."""
        return math.prod(self.shape) * self.dtype.itemsize


def open_file(path: Path, opened: ExitStack) -> list[Listed]:
    """Map the one array of a file."""
    with reading(str(path), ADVICE):
        with path.open("rb") as stream:
            form = read_form(str(path), stream, path.stat().st_size)
        if isinstance(form, Refused):
            return [Listed(path.stem, form)]
        return [named(path.stem, _mapped(path, form))]


def _mapped(path: Path, form: Form) -> ArrayFile:
    if not form.n_bytes:
        return np.empty(form.shape, form.dtype)
    return np.memmap(path, form.dtype, "r", form.offset, form.shape, form.order)


def named(name: str, array: ArrayFile) -> Listed:
    """Return an array with its name, two raw bytes a value taken as bfloat16."""
    if array.dtype == np.dtype("V2"):
        return Listed(name, from_bfloat16(array), RAW_BFLOAT16)
    return Listed(name, array)


def read_form(source: str, stream: IO[bytes], file_bytes: int) -> Form | Refused:
    """Read a header, and check that as many bytes follow as it says.

    Raises ValueError for what no writer of .npy files writes.
    """
    text, offset = _read_header(stream)
    descr, order, shape = _parse(text)
    if descr.startswith("["):
        return Refused(shape, source, _FIELDS)
    if not _DTYPE.fullmatch(descr):
        raise ValueError(f"the type {descr!r} is not known")
    form = Form(shape, order, np.dtype(descr), offset)
    if form.dtype.hasobject:
        return Refused(shape, source, _OBJECTS)
    check_form(source, shape, form.dtype)
    if not form.dtype.itemsize or form.n_bytes != file_bytes - offset:
        raise ValueError(
            f"its header says {shape} of {descr}, {form.n_bytes} bytes, and"
            f" {file_bytes - offset} follow"
        )
    if form.dtype.kind == "V" and form.dtype.itemsize != 2:
        return Refused(shape, source, _RAW.format(form.dtype.itemsize))
    return form


def _read_header(stream: IO[bytes]) -> tuple[str, int]:
    magic = stream.read(8)
    if magic[:6] != _MAGIC or len(magic) < 8:
        raise ValueError("it does not begin as a .npy file does")
    if magic[6] not in _LENGTH_BYTES or magic[7]:
        raise ValueError(f"version {magic[6]}.{magic[7]} of the format is not known")
    n_bytes = _LENGTH_BYTES[magic[6]]
    length = int.from_bytes(stream.read(n_bytes), "little")
    if length > _LONGEST_HEADER:
        raise ValueError(f"its header has {length} bytes, more than {_LONGEST_HEADER}")
    header = stream.read(length)
    if len(header) < length:
        raise ValueError("it ends within its header")
    return header.decode("latin-1"), 8 + n_bytes + length


def _parse(text: str) -> tuple[str, Literal["C", "F"], tuple[int, ...]]:
    found = {name: part.search(text) for name, part in _PARTS.items()}
    rest = text
    for match in found.values():
        rest = rest.replace(match[0] if match else "", "", 1)
    descr, order, shape = found["descr"], found["order"], found["shape"]
    whole = re.fullmatch(r"\s*\{[\s,]*\}\s*", rest)
    if not (descr and order and shape and whole and _SIZES.fullmatch(shape[1])):
        raise ValueError(f"its header {text.strip()[:60]!r} is none that np.save writes")
    sizes = (int(size) for size in re.findall(r"\d+", shape[1]))
    return descr[1] or descr[2], "F" if order[1] == "True" else "C", tuple(sizes)
