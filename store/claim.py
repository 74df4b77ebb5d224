"""Claim a representation for one writer, in a way that a writer that died cannot keep."""

import errno
import fcntl
import json
import os
import secrets
import socket
import time
import warnings
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

from upath import UPath

from store.errors import ClaimedError
from store.place import Place

CLAIM: Final = ".claim"
"""A file beside the chunks of an array, where neither Zarr nor xarray looks."""

LEASE_S = 600
"""How long a claim at an address holds without being renewed: no kernel tells of a death there."""

_BUSY = (errno.EAGAIN, errno.EACCES)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class Claim(ABC):
    """The right to write what is below one folder; use ``claim``."""

    @abstractmethod
    def renew(self) -> None:
        """Keep it; raises ClaimedError where another writer has taken it over."""

    @abstractmethod
    def release(self) -> None:
        """Give it up; a second time does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def claim(folder: Place) -> Claim:
    """Claim a folder, which is made where there is none.

    In a local folder the operating system holds the claim, and drops it when the process ends in
    whatever way. At an address it is a lease, renewed at every commit: a writer that died keeps it
    for ``LEASE_S``, or until a process of the same machine sees that it is gone.

    Raises ClaimedError where a living writer holds it.
    """
    return _Lock(folder) if isinstance(folder, Path) else _Lease(folder)


def is_claimed(folder: Place) -> bool:
    """Return whether a living writer holds a folder."""
    try:
        if not isinstance(folder, Path):
            return _Lease.holds(_read_lease(folder / CLAIM))
        descriptor = os.open(folder / CLAIM, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:  # none, or none that this user could hold
        return False
    try:
        return not _try_lock(descriptor)
    finally:
        os.close(descriptor)


class _Lock(Claim):
    """A lock of the operating system on a local file."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._file = folder, folder / CLAIM
        self._descriptor: int | None = None
        folder.mkdir(parents=True, exist_ok=True)
        while self._descriptor is None:
            descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
            if not _try_lock(descriptor):
                raise self._busy(descriptor)
            if _is_same(descriptor, self._file):
                self._descriptor = descriptor
                with suppress(OSError):  # only told to others, and the disk may be full
                    os.ftruncate(descriptor, 0)
                    os.write(descriptor, str(os.getpid()).encode("ascii"))
            else:  # its holder has removed it, perhaps with all that was around it
                os.close(descriptor)
                folder.mkdir(parents=True, exist_ok=True)

    def renew(self) -> None:
        pass

    def release(self) -> None:
        try:
            if self._descriptor is not None and _is_same(self._descriptor, self._file):
                self._file.unlink()
        finally:
            self._close()

    def _busy(self, descriptor: int) -> ClaimedError:
        try:
            pid = os.read(descriptor, 20).decode("ascii", "replace")
        finally:
            os.close(descriptor)
        if pid == str(os.getpid()):
            who, what = "another writer of this process", "close it first"
        else:
            who, what = f"process {pid}" if pid else "another process", "wait for it"
        return ClaimedError(f"{self._folder} is being written by {who}; {what}")

    def __del__(self) -> None:
        # Only what a kill would do too: the lock goes, the file stays.
        self._close()

    def _close(self) -> None:
        descriptor, self._descriptor = getattr(self, "_descriptor", None), None
        if descriptor is not None:
            os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _BUSY:
            return False
        if error.errno not in _NO_LOCKS:
            raise
        warnings.warn(
            "this file system has no locks; see to it that only one process writes", stacklevel=2
        )
    return True


def _is_same(descriptor: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(file))
    except OSError:
        return False


class _Lease(Claim):
    """An object that names its holder, and until when."""

    def __init__(self, folder: UPath) -> None:
        self._folder, self._file = folder, folder / CLAIM
        self._owner = secrets.token_hex(8)
        found = _read_lease(self._file)
        if found is not None and not self.holds(found):
            self._file.fs.rm(self._file.path)
        try:
            self._file.fs.pipe_file(self._file.path, self._content(), mode="create")
        except FileExistsError:
            raise self._taken(_read_lease(self._file)) from None
        self._held = True

    @staticmethod
    def holds(lease: dict[str, Any] | None) -> bool:
        """Return whether a lease has not ended, as far as can be told from here."""
        if lease is None or lease.get("until", 0) < time.time():
            return False
        return lease.get("machine") != _machine() or _is_alive(lease.get("pid"))

    def renew(self) -> None:
        found = _read_lease(self._file)
        if found is None or found.get("owner") != self._owner:
            self._held = False
            raise self._taken(found)
        if found["until"] - time.time() < LEASE_S / 2:
            self._file.fs.pipe_file(self._file.path, self._content())

    def release(self) -> None:
        if self._held:
            self._held = False
            found = _read_lease(self._file)
            if found is not None and found.get("owner") == self._owner:
                self._file.fs.rm(self._file.path)

    def _content(self) -> bytes:
        values = {
            "owner": self._owner,
            "machine": _machine(),
            "pid": os.getpid(),
            "until": time.time() + LEASE_S,
        }
        return json.dumps(values).encode("ascii")

    def _taken(self, found: dict[str, Any] | None) -> ClaimedError:
        who = f"process {found['pid']} of {found['machine']}" if found else "another process"
        return ClaimedError(
            f"{self._folder} is being written by {who}; wait for it, or if it has died, for"
            f" {LEASE_S // 60} minutes"
        )


def _read_lease(file: Place) -> dict[str, Any] | None:
    try:
        found = json.loads(file.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    wanted = {"owner", "machine", "pid", "until"}
    return found if isinstance(found, dict) and set(found) == wanted else None


def _machine() -> str:
    # Process numbers mean something only within their namespace, such as a container's.
    try:
        namespace = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        namespace = 0
    return f"{socket.gethostname()} ({namespace})"


def _is_alive(pid: object) -> bool:
    try:
        os.kill(int(str(pid)), 0)
    except (ProcessLookupError, ValueError):
        return False
    except OSError:
        return True
    return True
