"""Locks of the operating system on files and folders: they end with the process that holds them."""

import errno
import fcntl
import os
from pathlib import Path

BUSY = (errno.EAGAIN, errno.EACCES)
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF)
"""The last one is what NFS says of a folder, which cannot be opened for writing."""


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
    """Return whether what is open is still what has the path: another may have replaced it."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except OSError:
        return False


def is_dead(path: Path) -> bool:
    """Return whether a file or a folder that its writer locks has no living one.

    Where there are no locks, no one can tell, and it counts as living.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return try_lock(descriptor) is True
    finally:
        os.close(descriptor)
