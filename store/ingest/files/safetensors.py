"""Arrays in .safetensors files: a length, a JSON text, and the values one after the other.

The format is https://huggingface.co/docs/safetensors; it holds no code, and bfloat16 by its name.
"""

import math
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, TypeGuard

import numpy as np

from store.ingest.files.arrays import ArrayFile, from_bfloat16, mapping, refused
from store.model.strict_json import parse

ADVICE: Final = "save it again with safetensors"
_LONGEST_HEADER: Final = 10_000_000
_DTYPES: Final = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "BOOL": "|b1",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1",
}  # fmt: skip


def open_file(path: Path, opened: ExitStack) -> list[ArrayFile]:
    """Map every array, in the order of their values."""
    n_bytes = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= min(_LONGEST_HEADER, n_bytes - 8):
            raise ValueError(f"its header has {length} bytes, and the file {n_bytes}")
        header = parse(stream.read(length))
    if not isinstance(header, dict):
        raise ValueError("its header is no list of arrays")
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    for name, entry in entries.items():
        if not _is_entry(entry, n_bytes - 8 - length):
            raise ValueError(f"its header describes {name[:40]!r} by what cannot be")
    in_order = sorted(entries.items(), key=lambda item: item[1]["data_offsets"][0])
    return [_open_array(path, name, entry, 8 + length) for name, entry in in_order]


def _is_entry(entry: Any, n_bytes: int) -> bool:
    """Return whether an array has a type, a shape and a place in the file."""
    if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str):
        return False
    shape, place = entry.get("shape"), entry.get("data_offsets")
    return _are_sizes(shape) and _are_sizes(place) and len(place) == 2 and place[1] <= n_bytes


def _are_sizes(values: Any) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(type(v) is int and 0 <= v < 2**62 for v in values)


def _open_array(path: Path, name: str, entry: dict[str, Any], offset: int) -> ArrayFile:
    kind, shape = entry["dtype"], tuple(entry["shape"])
    if kind not in _DTYPES:
        advice = "save it as float32, as tensor.float() gives it"
        return refused(name, shape, f"is of type {kind[:20]!r}", advice)
    dtype = np.dtype(_DTYPES[kind])
    start, stop = entry["data_offsets"]
    if math.prod(shape) * dtype.itemsize != stop - start:
        raise ValueError(f"{name[:40]!r} has the shape {shape} of {kind} in {stop - start} bytes")
    read = mapping(path, shape, dtype, offset + start)
    if kind == "BF16":
        return from_bfloat16(name, shape, read)
    return ArrayFile(name, shape, dtype, read)
