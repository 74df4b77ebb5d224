"""Tensors in .pt files, loaded with ``weights_only``: nothing in them is executed."""

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import torch

from store.errors import ArrayError
from store.ingest.files.arrays import ArrayFile, refused
from store.model.array_interop import as_numpy

ADVICE: Final = "save a tensor, or a dict of names to tensors, with torch.save"
_SAFE: Final = (2, 6)
"""Before it, a file could execute code in spite of ``weights_only`` (CVE-2025-32434)."""

_DEEPEST: Final = 20


def open_file(path: Path, opened: ExitStack) -> Iterator[ArrayFile]:
    """List every tensor; those in dicts and lists have names such as ``block.0``."""
    if tuple(map(int, re.findall(r"\d+", torch.__version__)[:2])) < _SAFE:
        found = f"is not opened by PyTorch {torch.__version__}, in which a file can execute code"
        raise ArrayError(str(path), found, remedy="upgrade it: python -m pip install -U torch")
    with path.open("rb") as stream:
        is_zip = stream.read(4) == b"PK\x03\x04"
    loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    for name, value in _walk(loaded, "", 0):
        yield _open_value(name or path.stem, value)


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


def _open_value(name: str, value: Any) -> ArrayFile:
    if not isinstance(value, torch.Tensor):
        return refused(name, (), f"is a {type(value).__name__}, no tensor", "save a tensor")
    shape = tuple(value.shape)
    if value.layout != torch.strided or value.is_quantized:
        return refused(name, shape, "is sparse or quantised", "save a dense tensor of float32")
    if value.device.type == "meta":
        return refused(name, shape, "has no values", "save it from another device")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return refused(name, shape, "repeats its values", "save tensor.contiguous()")
    dtype = as_numpy(value.reshape(-1)[:0], name).dtype
    return ArrayFile(name, shape, dtype, lambda rows: as_numpy(value[rows], name))
