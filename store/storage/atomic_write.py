"""Write a file in place of another; a file left by a killed writer is written over."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from store.storage.file_lock import IN_THE_WAY, is_same, open_to_lock, try_lock


@contextmanager
def replacing(file: Path) -> Iterator[BinaryIO]:
    """Yield a new file that takes the place of another at the end: whole, or not at all.

    It is locked meanwhile and has the same name every time: a file left by a killed writer is not
    locked, and is written over. Only beside a living writer of the same file its name is unique.
    """
    temporary, descriptor = _open_temporary(file)
    try:
        try:
            with temporary.open("wb") as stream:
                yield stream
            os.replace(temporary, file)
        except BaseException:
            with suppress(OSError):  # a full disk needs the room
                temporary.unlink()
            raise
    finally:
        os.close(descriptor)


def _open_temporary(file: Path) -> tuple[Path, int]:
    # Named as Zarr names such files, so that all readers pass over it.
    usual = file.with_name(f"{file.name}.partial")
    while (found := _locked(usual)) is not None:
        if is_same(found, usual):
            return usual, found
        os.close(found)  # another writer has just renamed it
    own = file.with_name(f"{file.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    descriptor = os.open(own, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    try_lock(descriptor)
    return own, descriptor


def _locked(path: Path) -> int | None:
    """Open and lock a file; return None where another holds it, or something is in the way."""
    try:
        descriptor = open_to_lock(path)
    except OSError as error:
        if error.errno in IN_THE_WAY and os.path.lexists(path):
            return None
        raise
    is_locked: bool | None = None
    try:
        is_locked = try_lock(descriptor)
    finally:
        if not is_locked:
            os.close(descriptor)
    return descriptor if is_locked else None
