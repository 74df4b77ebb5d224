"""The claim of an address: a lease, since no kernel tells of a death there."""

import json
import os
import secrets
import socket
import time
from collections.abc import Mapping
from typing import Any, Final

from upath import UPath

from store.errors import ClaimedError
from store.model.strict_json import parse
from store.storage.claim_file import CLAIM, Claim
from store.storage.paths import Place, read_bytes

LEASE_S = 600
"""How long it holds without being renewed."""

_LEASE_TYPES: Final = {"owner": str, "machine": str, "pid": int, "until": float}


class Lease(Claim):
    """An object that names its holder, and until when."""

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
            self._file.fs.pipe_file(self._file.path, self._content(), mode="create")
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
            self._file.fs.pipe_file(self._file.path, self._content())

    def release(self) -> None:
        """Remove it."""
        if self._held:
            found = _read_lease(self._file)
            if found is not None and found["owner"] == self._owner:
                self._file.fs.rm(self._file.path)
            # Last: what could not be removed can be released again.
            self.forget()

    def forget(self) -> None:
        """Let it run out; this machine knows at once that it did."""
        self._held = False
        self.living.discard(self)

    def _content(self) -> bytes:
        values = {
            "owner": self._owner,
            "machine": _machine(),
            "pid": os.getpid(),
            "until": time.time() + LEASE_S,
        }
        return json.dumps(values).encode("ascii")

    def _taken(self, found: dict[str, Any] | None) -> ClaimedError:
        if found and (found["machine"], found["pid"]) == (_machine(), os.getpid()):
            who, what = "another writer of this process", "close it first"
        else:
            who = f"process {found['pid']} of {found['machine']}" if found else "another process"
            what = f"wait for it, or if it has died, for {LEASE_S // 60} minutes"
        return ClaimedError(f"{self._folder} is being written by {who}; {what}")


def is_leased(folder: UPath) -> bool:
    """Return whether a living writer holds an address."""
    found = _read_lease(folder / CLAIM)
    return found is not None and _holds(found)


def _holds(lease: Mapping[str, Any]) -> bool:
    """Return whether a lease has not ended, as far as can be told from here."""
    if lease["until"] < time.time():
        return False
    if lease["machine"] != _machine():
        return True
    if lease["pid"] == os.getpid():
        living = [each for each in list(Claim.living) if isinstance(each, Lease)]
        return lease["owner"] in [each._owner for each in living]
    return _is_alive(lease["pid"])


def _read_lease(file: Place) -> dict[str, Any] | None:
    """Return a lease, None where there is none; what is none has ended long ago."""
    try:
        found = parse(read_bytes(file))
    except FileNotFoundError:
        return None
    except ValueError:
        found = None
    if isinstance(found, dict) and all(
        isinstance(found.get(name), kind) for name, kind in _LEASE_TYPES.items()
    ):
        return found
    return {"owner": "", "machine": "", "pid": 0, "until": 0.0}


def _machine() -> str:
    # Process numbers mean something only within their namespace, such as a container's.
    try:
        namespace = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        namespace = 0
    return f"{socket.gethostname()} ({namespace})"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True
