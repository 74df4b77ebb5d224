"""What a claim is, and that of a local folder: a lock, which ends with its process."""

import errno
import fcntl
import os
import warnings
from abc import ABC, abstractmethod
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import ClassVar, Final, Self
from weakref import WeakSet

from store.errors import ClaimedError, StoreLocationError
from store.storage.file_lock import is_same, try_lock
from store.storage.paths import Place

CLAIM: Final = ".claim"
"""A file beside the chunks of an array, where neither Zarr nor xarray looks."""

_IN_THE_WAY = (errno.ELOOP, errno.EACCES, errno.EISDIR, errno.ENXIO)


class Claim(ABC):
    """The right to write what is below one folder; use ``claim``."""

    living: ClassVar[WeakSet["Claim"]] = WeakSet()
    """Those of this process that nobody has dropped."""

    def __init__(self, folder: Place) -> None:
        self._folder = folder
        _watch_forks()
        self.living.add(self)

    @abstractmethod
    def renew(self) -> None:
        """Keep it; raises ClaimedError where it was given up, or another writer has taken it."""

    @abstractmethod
    def release(self) -> None:
        """Give it up; a second time does nothing."""

    @abstractmethod
    def forget(self) -> None:
        """Leave it to others without touching what stands for it, as a kill would."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _ended(self) -> ClaimedError:
        return ClaimedError(
            f"{self._folder} is no longer claimed by this writer, which was closed, or forked, or"
            " whose folder was removed; open another"
        )


@cache
def _watch_forks() -> None:
    """Let a forked process own no claim: it would outlive its parent's."""
    os.register_at_fork(after_in_child=lambda: [each.forget() for each in list(Claim.living)])


class Lock(Claim):
    """A lock of the operating system on a local file."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._file = folder / CLAIM
        self._descriptor: int | None = None
        while self._descriptor is None:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = self._open()
            try:
                if not _lock(descriptor):
                    raise self._busy(descriptor)
                # Else its holder has removed it, perhaps with all that was around it.
                if is_same(descriptor, self._file):
                    self._descriptor = descriptor
            finally:
                if self._descriptor is None:
                    os.close(descriptor)
        with suppress(OSError):  # only told to others, and the disk may be full
            os.ftruncate(self._descriptor, 0)
            os.write(self._descriptor, str(os.getpid()).encode("ascii"))

    def renew(self) -> None:
        """Look whether the file that is locked is still the one in the folder."""
        if self._descriptor is None or not is_same(self._descriptor, self._file):
            raise self._ended()

    def release(self) -> None:
        """Remove the file, and then the lock."""
        try:
            if self._descriptor is not None and is_same(self._descriptor, self._file):
                with suppress(OSError):  # without its lock it says no more than what a kill leaves
                    self._file.unlink()
        finally:
            self.forget()

    def forget(self) -> None:
        """Drop the lock; the file stays."""
        descriptor, self._descriptor = getattr(self, "_descriptor", None), None
        if descriptor is not None:
            os.close(descriptor)

    __del__ = forget

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            return os.open(self._file, flags, 0o666)
        except OSError as error:
            if error.errno not in _IN_THE_WAY or not os.path.lexists(self._file):
                raise
            raise StoreLocationError(
                f"{self._file} is in the way of writing ({error.strerror}); delete it if nobody"
                " else writes there"
            ) from error

    def _busy(self, descriptor: int) -> ClaimedError:
        pid = os.read(descriptor, 20).decode("ascii", "replace")
        if pid == str(os.getpid()):
            who, what = "another writer of this process", "close it first"
        else:
            who, what = f"process {pid}" if pid else "another process", "wait for it"
        return ClaimedError(f"{self._folder} is being written by {who}; {what}")


def is_locked(folder: Path) -> bool:
    """Return whether a living writer holds a local folder."""
    try:
        descriptor = os.open(folder / CLAIM, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:  # none, or none that this user could hold
        return False
    try:
        return not _try_lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Take the lock of a writer; return False where another writer has it."""
    while not _try_lock(descriptor, fcntl.LOCK_EX):
        # Whoever only looks shares the lock, for a moment; a writer shares it with nobody.
        if not _try_lock(descriptor, fcntl.LOCK_SH):
            return False
    return True


def _try_lock(descriptor: int, how: int) -> bool:
    taken = try_lock(descriptor, how)
    if taken is None:
        warnings.warn(
            "this file system has no locks; see to it that only one process writes", stacklevel=2
        )
    return taken is not False
