"""Arrays in .safetensors files: a length, a JSON text, and the values one after the other.

The format is https://huggingface.co/docs/safetensors; it holds no code, and bfloat16 by its name.
"""

import math
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import numpy as np

from store.ingest.files.arrays import (
    MOST_ARRAYS,
    Listed,
    Refused,
    check_form,
    from_bfloat16,
    reading,
)
from store.model.strict_json import parse

_ADVICE: Final = "save it again with safetensors"
_LONGEST_HEADER: Final = 10_000_000
_METADATA: Final = "__metadata__"
_DTYPES: Final = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "BOOL": "|b1",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1",
}  # fmt: skip


def open_file(path: Path, opened: ExitStack) -> list[Listed]:
    """Map every array, in the order of their values."""
    with reading(str(path), _ADVICE):
        entries, offset = _read_header(path)
    found = [
        (entry["data_offsets"][0], _open_array(path, name, entry, offset))
        for name, entry in entries.items()
    ]
    return [listed for _, listed in sorted(found, key=lambda each: each[0])]


def _read_header(path: Path) -> tuple[dict[str, dict[str, Any]], int]:
    n_bytes = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= min(_LONGEST_HEADER, n_bytes - 8):
            raise ValueError(f"its header has {length} bytes, and the file {n_bytes}")
        header = parse(stream.read(length))
    if not isinstance(header, dict) or len(header) > MOST_ARRAYS:
        raise ValueError(f"its header is no list of at most {MOST_ARRAYS} arrays")
    entries = {name: entry for name, entry in header.items() if name != _METADATA}
    for name, entry in entries.items():
        if not _is_entry(entry, n_bytes - 8 - length):
            raise ValueError(f"its header says what cannot be of {name[:40]!r}")
    return entries, 8 + length


def _is_entry(entry: Any, n_bytes: int) -> bool:
    """Return whether an array has a type, a shape and a place in the file."""
    if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str):
        return False
    shape, place = _sizes(entry.get("shape")), _sizes(entry.get("data_offsets"))
    if shape is None or place is None or len(place) != 2:
        return False
    return place[0] <= place[1] <= n_bytes


def _sizes(values: Any) -> list[int] | None:
    whole = isinstance(values, list) and all(type(v) is int and 0 <= v < 2**62 for v in values)
    return values if whole else None


def _open_array(path: Path, name: str, entry: dict[str, Any], offset: int) -> Listed:
    source, kind, shape = f"{path}:{name}", entry["dtype"], tuple(entry["shape"])
    if kind not in _DTYPES:
        reason = f"is of type {kind[:20]!r}; save it as float32, as tensor.float() gives it"
        return Listed(name, Refused(shape, source, reason))
    dtype = np.dtype(_DTYPES[kind])
    check_form(source, shape, dtype)
    start, stop = entry["data_offsets"]
    with reading(source, _ADVICE):
        if math.prod(shape) * dtype.itemsize != stop - start:
            raise ValueError(f"it has the shape {shape} of {kind} in {stop - start} bytes")
        empty = start == stop
        array = (
            np.empty(shape, dtype) if empty else np.memmap(path, dtype, "r", offset + start, shape)
        )
    return Listed(name, from_bfloat16(array) if kind == "BF16" else array)
