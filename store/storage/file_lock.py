"""Locks of the operating system on files and folders; they end with the process that holds them."""

import errno
import fcntl
import os
from pathlib import Path

BUSY = (errno.EAGAIN, errno.EACCES)
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF)
"""The last one is NFS's error for a folder, which cannot be opened for writing."""

IN_THE_WAY = (errno.ELOOP, errno.EISDIR, errno.EACCES, errno.ENXIO)
"""Errors of opening a link, a folder, a pipe or the file of another user for locking."""


def open_to_lock(path: Path) -> int:
    """Open a file for writing, made where there is none; symbolic links are not followed."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


def try_lock(descriptor: int, how: int = fcntl.LOCK_EX) -> bool | None:
    """Take a lock without waiting; return whether it was free, None where there are no locks."""
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in BUSY:
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
