"""Arrays in .zarr folders of versions 2 and 3, read with codecs that only compress."""

import math
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import zarr

from store.errors import ArrayError
from store.files.arrays import MOST_ARRAYS, Listed, Refused, Rows, check_form, reading
from store.files.names import counting

ADVICE: Final = "write it again with zarr"
MARKS: Final = ("zarr.json", ".zgroup", ".zarray")
"""One of these lies in each folder that is Zarr's."""

_OWN: Final = "allcnn_store"
_CODECS: Final = {
    "BytesCodec", "BloscCodec", "GzipCodec", "ZstdCodec", "Crc32cCodec", "ShardingCodec",
    "TransposeCodec", "Blosc", "Zstd", "Zlib", "GZip", "LZ4", "BZ2", "LZMA", "Shuffle", "CRC32",
    "CRC32C", "Delta",
}  # fmt: skip
"""All others are refused: numcodecs has one that loads pickles."""


def open_file(path: Path, opened: ExitStack) -> list[Listed]:
    """Open every array, by its path below the folder."""
    with reading(str(path), ADVICE):
        _check_links(path)
        node = zarr.open(str(path), mode="r")
        if _OWN in node.attrs:
            raise ArrayError(
                f"{path} is a store of this program already; name the folder above it as"
                " --workspace"
            )
        return list(_walk(path, node))


def _check_links(path: Path) -> None:
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            if os.path.islink(os.path.join(folder, name)):
                raise ValueError(f"{os.path.relpath(os.path.join(folder, name), path)} is a link")


def _walk(path: Path, node: Any) -> Iterator[Listed]:
    if isinstance(node, zarr.Array):
        yield _listed(path.name.removesuffix(".zarr"), str(path), node)
        return
    members = sorted(node.members(max_depth=None), key=lambda member: counting(member[0]))
    if len(members) > MOST_ARRAYS:
        raise ValueError(f"it holds more than {MOST_ARRAYS} arrays")
    for name, member in members:
        if isinstance(member, zarr.Array):
            yield _listed(name, f"{path}:{name}", member)


def _listed(name: str, source: str, array: Any) -> Listed:
    dtype = np.dtype(array.dtype)
    odd = [codec for codec in _codecs(array.metadata) if codec not in _CODECS]
    if odd or dtype.hasobject or dtype.names:
        reason = f"is of type {dtype} by {', '.join(odd) or 'objects'}, which is not read"
        return Listed(name, Refused(array.shape, source, f"{reason}; write plain numbers"))
    check_form(source, array.shape, dtype)
    return Listed(name, _Array(source, array), _missing(array))


def _codecs(metadata: Any) -> list[str]:
    if metadata.zarr_format == 2:
        used = (*(metadata.filters or ()), metadata.compressor)
        return [type(codec).__name__ for codec in used if codec is not None]
    return [name for codec in metadata.codecs for name in _of_codec(codec)]


def _of_codec(codec: Any) -> Iterator[str]:
    yield type(codec).__name__
    for inner in (*getattr(codec, "codecs", ()), *getattr(codec, "index_codecs", ())):
        yield from _of_codec(inner)


def _missing(array: Any) -> str | None:
    """Return a remark where chunks are not there; raises ValueError where none is."""
    if not math.prod(array.shape):
        return None
    wanted, found = array.nchunks, array.nchunks_initialized
    if not found:
        raise ValueError(f"none of {wanted} chunks of {array.path or 'the array'} is there")
    if found == wanted:
        return None
    return (
        f"lacks {wanted - found} of {wanted} chunks, which are read as {array.fill_value}, as zarr"
        " leaves out chunks of this value alone"
    )


@dataclass(frozen=True)
class _Array:
    """An array, a few rows at a time."""

    source: str
    array: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows first."""
        shape: tuple[int, ...] = self.array.shape
        return shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """As in the file."""
        dtype: np.dtype[Any] = np.dtype(self.array.dtype)
        return dtype

    def __getitem__(self, rows: Rows, /) -> npt.NDArray[Any]:
        with reading(self.source, ADVICE):
            return np.asarray(self.array[rows if self.shape else ()])
