"""Chunks as local files, read and written straight from arrays, checksummed as the bytes pass.

Zarr copies them more often: minibatches of 100 MB were read at a seventh of the speed.
"""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import google_crc32c
import numpy as np
import numpy.typing as npt

from store.storage.local_files import replacing
from store.storage.paths import check_inside
from store.zarrfiles.layout import as_digest, crc32c
from store.zarrfiles.metadata_files import MISSING

PIECE_BYTES = 2**20
"""Moved and checksummed in turn: it stays in the processor's cache, and lets other threads run."""

CODECS: Final = (
    {"name": "bytes", "configuration": {"endian": "little"}},
    {"name": "crc32c"},
)
CHUNK_KEYS: Final = {"name": "default", "configuration": {"separator": "/"}}
"""How chunks must be encoded and named, in the words of Zarr's metadata."""

_CHECKSUM_BYTES = 4
_SYNCED_BYTES = 2**23
"""Values of so many bytes are on the disk, and out of memory, before they count as written."""


Move = Callable[[Path, Path, npt.NDArray[Any], tuple[int, ...]], int | None]
"""``read_chunk`` or ``write_chunk``."""


def move_block(
    move: Move, root: Path, folder: Path, block: npt.NDArray[Any], chunks: tuple[int, ...]
) -> str:
    """Read or write the chunks of a block, cut over its second axis; return the block's digest.

    ``folder`` is that of the block's place on the first axis, ``chunks`` the shape of a chunk.
    """
    crcs = []
    for part, start in enumerate(range(0, block.shape[1], chunks[1])):
        file = folder.joinpath(str(part), *["0"] * (block.ndim - 2))
        crcs.append(move(root, file, block[:, start : start + chunks[1]], chunks))
    # The bytes of several parts have another order than those of the block.
    return as_digest(crcs[0]) if len(crcs) == 1 and crcs[0] is not None else crc32c(block)


def read_chunk(
    root: Path, file: Path, target: npt.NDArray[Any], shape: tuple[int, ...]
) -> int | None:
    """Fill ``target`` from a file and return the CRC-32C of its bytes, None if it is padded.

    ``target`` or each of its rows must be contiguous. ``shape`` is that of the chunk, of which
    ``target`` may be the beginning. Raises ValueError where the file is missing, or is not the
    bytes of such an array followed by their checksum.
    """
    check_inside(root, file)
    whole = target if target.shape == shape else np.empty(shape, target.dtype)
    wanted, crc = whole.nbytes + _CHECKSUM_BYTES, 0
    try:
        with file.open("rb") as opened:
            n_bytes = os.fstat(opened.fileno()).st_size
            if n_bytes != wanted:
                raise ValueError(f"the file {file.name} has {n_bytes} bytes instead of {wanted}")
            for piece in _pieces(whole):
                if opened.readinto(piece.data) != piece.size:
                    raise ValueError(f"the file {file.name} became shorter while it was read")
                crc = google_crc32c.extend(crc, piece)
            stored = int.from_bytes(opened.read(_CHECKSUM_BYTES), "little")
    except MISSING as error:
        raise ValueError(f"the file {file} is missing") from error
    if crc != stored:
        raise ValueError(f"checksum {crc:08x}, stored {stored:08x}")
    if whole is target:
        return crc
    target[...] = whole[tuple(map(slice, target.shape))]
    return None


def write_chunk(
    root: Path, file: Path, values: npt.NDArray[Any], shape: tuple[int, ...]
) -> int | None:
    """Write a chunk whole or not at all; return the CRC-32C of its bytes, None if it was padded.

    ``values`` or each of its rows must be contiguous; what a chunk of ``shape`` has more is NaN.
    """
    whole, crc = values, 0
    if values.shape != shape:
        whole = np.full(shape, np.nan, values.dtype)
        whole[tuple(map(slice, values.shape))] = values
    check_inside(root, file.parent)
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as stream:
        for piece in _pieces(whole):
            crc = google_crc32c.extend(crc, piece)
            stream.write(piece.data)
        stream.write(crc.to_bytes(_CHECKSUM_BYTES, "little"))
        if whole.nbytes >= _SYNCED_BYTES:
            stream.flush()
            _hand_over(stream.fileno())
    return crc if whole is values else None


def _hand_over(descriptor: int) -> None:
    """Wait until a file is on the disk, and give up the memory that holds a copy of it.

    The next file then goes through the same memory. Otherwise a store of any size fills all that
    the machine has, with bytes that are rarely read again; where free memory must first be fetched
    from a hypervisor, that took longer than writing: 1.5 to 3 s a gigabyte.
    """
    os.fsync(descriptor)
    if sys.platform == "linux":
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def _pieces(target: npt.NDArray[Any]) -> Iterator[npt.NDArray[np.uint8]]:
    for run in [target] if target.flags.c_contiguous else target:
        flat = run.reshape(-1).view(np.uint8)
        for start in range(0, flat.size, PIECE_BYTES):
            yield flat[start : start + PIECE_BYTES]
