"""Claim a folder for one writer, in a way that a writer that died cannot keep."""

import fcntl
import json
import os
import secrets
import socket
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Final, Self
from weakref import WeakSet

from upath import UPath

from store.errors import ClaimedError, StoreError
from store.model.strict_json import parse
from store.storage.local_files import is_free, is_same, open_to_lock, try_lock
from store.storage.paths import Place, is_file, read_bytes
from store.storage.remote_errors import reaching

CLAIM: Final = ".claim"
"""A file beside the chunks of an array, where neither Zarr nor xarray looks."""

LEASE_S = 600
"""How long a lease holds without being renewed."""

_LEASE_TYPES: Final = {"owner": str, "machine": str, "pid": int, "until": float}


class Claim(ABC):
    """The right to write what is below one folder; use ``claim``."""

    living: ClassVar[WeakSet["Claim"]] = WeakSet()
    """Those that this process holds."""

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
        """Leave it to others without touching its file, as a kill would."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _ended(self) -> ClaimedError:
        found = "is no longer claimed by this writer, which was closed, or forked, or whose folder"
        return ClaimedError(str(self._folder), f"{found} was removed", remedy="open another")

    def _busy(self, holder: str, remedy: str) -> ClaimedError:
        found = f"is being written by {holder or 'another writer of this process'}"
        return ClaimedError(str(self._folder), found, remedy=remedy if holder else "close it first")


@cache
def _watch_forks() -> None:
    """Let a forked process own no claim: it would outlive its parent's."""
    os.register_at_fork(after_in_child=lambda: [each.forget() for each in list(Claim.living)])


def claim(folder: Place) -> Claim:
    """Claim a folder, which is made where there is none.

    In a local folder the operating system holds the claim, and drops it when the process ends in
    whatever way. At an address it is a lease, renewed at every commit: a writer that died keeps it
    for ten minutes, or until a process of the same machine sees that it is gone. A forked process
    inherits no claim.

    Raises ClaimedError where a living writer holds it.
    """
    return Lock(folder) if isinstance(folder, Path) else Lease(folder)


def drop_dead(folder: Place) -> None:
    """Remove the claim of a writer that died from a finished folder, which no one claims again.

    The claim of a living writer stays, as does one that cannot be removed.
    """
    with suppress(StoreError, OSError):
        if is_file(folder / CLAIM):
            claim(folder).release()


def is_claimed(folder: Place) -> bool:
    """Return whether a living writer holds a folder, without keeping others from claiming it."""
    if isinstance(folder, Path):
        return is_free(folder / CLAIM, fcntl.LOCK_SH) is False
    with reaching(folder):
        found = _read_lease(folder / CLAIM)
        return found is not None and _holds(found)


class Lock(Claim):
    """The claim of a local folder: a lock of the operating system on a file."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._file = folder / CLAIM
        self._descriptor: int | None = None
        while self._descriptor is None:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = open_to_lock(self._file)
            try:
                self._lock(descriptor)
                # Else its holder has removed it, perhaps with all that was around it.
                if is_same(descriptor, self._file):
                    self._descriptor = descriptor
            finally:
                if self._descriptor is None:
                    os.close(descriptor)
        with suppress(OSError):  # only for messages, and the disk may be full
            os.ftruncate(self._descriptor, 0)
            os.write(self._descriptor, str(os.getpid()).encode("ascii"))

    def renew(self) -> None:
        """Check that the locked file is still the one in the folder."""
        if self._descriptor is None or not is_same(self._descriptor, self._file):
            raise self._ended()

    def release(self) -> None:
        """Remove the file, and then the lock."""
        try:
            if self._descriptor is not None and is_same(self._descriptor, self._file):
                with suppress(OSError):  # without its lock it is like the file of a killed writer
                    self._file.unlink()
        finally:
            self.forget()

    def forget(self) -> None:
        """Drop the lock; the file stays."""
        descriptor, self._descriptor = getattr(self, "_descriptor", None), None
        if descriptor is not None:
            os.close(descriptor)

    __del__ = forget

    def _lock(self, descriptor: int) -> None:
        while (taken := try_lock(descriptor)) is False:
            # A process that only looks shares the lock, for a moment; a writer never shares it.
            if try_lock(descriptor, fcntl.LOCK_SH) is False:
                pid = os.read(descriptor, 20).decode("ascii", "replace")
                holder = f"process {pid}" if pid else "another process"
                raise self._busy("" if pid == str(os.getpid()) else holder, "wait for it")
        if taken is None:
            advice = "make sure that only one process writes"
            warnings.warn(f"this file system has no locks; {advice}", stacklevel=2)


class Lease(Claim):
    """The claim of an address, where no kernel notices a death: a file with holder and end."""

    def __init__(self, folder: UPath) -> None:
        self._owner, self._held = secrets.token_hex(8), False
        super().__init__(folder)
        self._file = folder / CLAIM
        found = _read_lease(self._file)
        # Looked at first: some servers overwrite it all the same.
        if found is not None and _holds(found):
            raise self._taken(found)
        if found is not None:
            self._file.fs.rm(self._file.path)
        try:
            self._write("create")
        except FileExistsError:
            raise self._taken(_read_lease(self._file)) from None
        self._held = True

    def renew(self) -> None:
        """Keep it, for longer where half its time is over."""
        if not self._held:
            raise self._ended()
        found = _read_lease(self._file)
        if found is None or found["owner"] != self._owner:
            self._held = False
            raise self._taken(found)
        if found["until"] - time.time() < LEASE_S / 2:
            self._write("overwrite")

    def release(self) -> None:
        """Remove it."""
        if self._held:
            found = _read_lease(self._file)
            if found is not None and found["owner"] == self._owner:
                self._file.fs.rm(self._file.path)
            # Last: where removing it failed, it can be released again.
            self.forget()

    def forget(self) -> None:
        """Let it run out; this machine knows at once that it did."""
        self._held = False
        self.living.discard(self)

    def _write(self, mode: str) -> None:
        values = {"owner": self._owner, "machine": _machine(), "pid": os.getpid()}
        content = json.dumps(values | {"until": time.time() + LEASE_S}).encode("ascii")
        self._file.fs.pipe_file(self._file.path, content, mode=mode)

    def _taken(self, found: Mapping[str, Any] | None) -> ClaimedError:
        holder = f"process {found['pid']} of {found['machine']}" if found else "another process"
        if found and (found["machine"], found["pid"]) == (_machine(), os.getpid()):
            holder = ""
        return self._busy(holder, f"wait for it, or if it has died, for {LEASE_S // 60} minutes")


def _holds(lease: Mapping[str, Any]) -> bool:
    """Return whether a lease has not ended, as far as this process can know."""
    if lease["until"] < time.time():
        return False
    if lease["machine"] != _machine():
        return True
    if lease["pid"] == os.getpid():
        living = [each for each in list(Claim.living) if isinstance(each, Lease)]
        return lease["owner"] in [each._owner for each in living]
    try:
        os.kill(lease["pid"], 0)
    except OSError as error:  # PermissionError for the process of another user
        return not isinstance(error, ProcessLookupError)
    except OverflowError:
        return False
    return True


def _read_lease(file: Place) -> dict[str, Any] | None:
    """Return a lease, None where there is none; other content counts as one that has ended."""
    with suppress(ValueError):
        try:
            found = parse(read_bytes(file))
        except FileNotFoundError:
            return None
        if isinstance(found, dict):
            if all(isinstance(found.get(name), kind) for name, kind in _LEASE_TYPES.items()):
                return found
    return {"owner": "", "machine": "", "pid": 0, "until": 0.0}


def _machine() -> str:
    # Process numbers mean something only within their namespace, such as a container's.
    try:
        namespace = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        namespace = 0
    return f"{socket.gethostname()} ({namespace})"
