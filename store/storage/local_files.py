"""Local files: locks, which end with the process that holds them, and atomic replacement."""

import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from store.errors import StoreLocationError

_BUSY = (errno.EAGAIN, errno.EACCES)
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF)
"""The last one is NFS's error for a folder, which cannot be opened for writing."""

_IN_THE_WAY = (errno.ELOOP, errno.EISDIR, errno.EACCES, errno.ENXIO)
"""Errors of opening a link, a folder, a pipe or the file of another user for locking."""


def open_to_lock(path: Path) -> int:
    """Open a file for writing, made where there is none; symbolic links are not followed.

    Raises StoreLocationError where something else, or the file of another user, is in the way.
    """
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno not in _IN_THE_WAY or not os.path.lexists(path):
            raise
        found = f"is in the way of writing ({error.strerror})"
        remedy = "delete it if no other process writes there"
        raise StoreLocationError(str(path), found, remedy=remedy) from error


def try_lock(descriptor: int, how: int = fcntl.LOCK_EX) -> bool | None:
    """Take a lock without waiting; return whether it was free, None where there are no locks."""
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _BUSY:
            return False
        if error.errno in NO_LOCKS:
            return None
        raise
    return True


def is_same(descriptor: int, path: Path) -> bool:
    """Return whether an open file is still the one at a path: another may have replaced it."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except OSError:
        return False


def is_free(path: Path, how: int = fcntl.LOCK_EX) -> bool | None:
    """Return whether no process locks a file or folder, None where that cannot be known."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        return try_lock(descriptor, how)
    finally:
        os.close(descriptor)


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
    except StoreLocationError:
        return None
    is_locked: bool | None = None
    try:
        is_locked = try_lock(descriptor)
    finally:
        if not is_locked:
            os.close(descriptor)
    return descriptor if is_locked else None
