"""Tensors in .pt files, loaded with ``weights_only``: nothing in them is executed."""

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import torch

from store.errors import ArrayError
from store.ingest.files.arrays import (
    MOST_ARRAYS,
    ArrayFile,
    Lazy,
    Listed,
    Refused,
    check_form,
    reading,
)
from store.model.array_interop import as_numpy

_ADVICE: Final = "save a tensor, or a dict of names to tensors, with torch.save"
_SAFE: Final = (2, 6)
"""Before it, a file could execute code in spite of ``weights_only`` (CVE-2025-32434)."""

_DEEPEST: Final = 20


def open_file(path: Path, opened: ExitStack) -> list[Listed]:
    """List every tensor; those in dicts and lists have names such as ``block.0``."""
    if tuple(map(int, re.findall(r"\d+", torch.__version__)[:2])) < _SAFE:
        raise ArrayError(
            f"{path} is not opened by PyTorch {torch.__version__}, in which a file can execute"
            " code; upgrade it: python -m pip install -U torch"
        )
    with reading(str(path), _ADVICE):
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
        found = list(_walk(loaded, "", 0))
        if not 0 < len(found) <= MOST_ARRAYS:
            raise ValueError(f"it holds {len(found)} values, of at most {MOST_ARRAYS}")
    return [
        Listed(name or path.stem, _array(f"{path}:{name}" if name else str(path), value))
        for name, value in found
    ]


def _is_zip(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(4) == b"PK\x03\x04"


def _walk(value: Any, name: str, depth: int) -> Iterator[tuple[str, Any]]:
    if depth > _DEEPEST:
        raise ValueError(f"its dicts and lists are nested more than {_DEEPEST} deep")
    if isinstance(value, list | tuple):
        value = dict(enumerate(value))
    if not isinstance(value, Mapping):
        yield name, value
        return
    for key, part in value.items():
        yield from _walk(part, f"{name}.{key}" if name else str(key), depth + 1)


def _array(source: str, value: Any) -> ArrayFile:
    if not isinstance(value, torch.Tensor):
        return Refused((), source, f"is a {type(value).__name__}, no tensor")
    shape = tuple(value.shape)
    if value.layout != torch.strided or value.is_quantized:
        return Refused(shape, source, "is sparse or quantised; save a dense tensor of float32")
    if value.device.type == "meta":
        return Refused(shape, source, "has no values; save it from another device")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return Refused(shape, source, "repeats its values; save tensor.contiguous()")
    dtype = as_numpy(value.reshape(-1)[:0], source).dtype
    check_form(source, shape, dtype)
    return Lazy(source, _ADVICE, shape, dtype, lambda rows: as_numpy(value[rows], source))
