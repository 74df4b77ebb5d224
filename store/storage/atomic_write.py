"""Write a file in place of another, so that what a kill leaves goes with the next writing of it."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from store.storage.file_lock import is_same, try_lock

_IN_THE_WAY: Final = (errno.ELOOP, errno.EISDIR, errno.EACCES)


@contextmanager
def replacing(file: Path) -> Iterator[BinaryIO]:
    """Yield a new file that takes the place of another at the end: whole, or not at all.

    It is locked meanwhile and has the same name every time: what a kill left is not locked, and
    written over. Only beside a living writer of the same file it has a name of its own.
    """
    temporary, descriptor = _claimed(file)
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


def _claimed(file: Path) -> tuple[Path, int]:
    """Return the file to write, and what holds its lock."""
    # Named as Zarr names what a kill leaves behind, so that everybody passes over it.
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
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno in _IN_THE_WAY and os.path.lexists(path):
            return None
        raise
    try:
        if try_lock(descriptor):
            return descriptor
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None
