"""Claim a representation for one writer, in a way that a writer that died cannot keep."""

from contextlib import suppress
from pathlib import Path

from store.errors import StoreError
from store.storage.claim_file import CLAIM, Claim, Lock, is_locked
from store.storage.object_lease import Lease, is_leased
from store.storage.paths import Place, is_file
from store.storage.remote_errors import reaching

__all__ = ["CLAIM", "Claim", "claim", "drop_dead", "is_claimed"]


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
    """Remove the claim that a writer left which died, where no other will come to do it.

    For places that are finished; that of a living writer stays, and what cannot be removed.
    """
    with suppress(StoreError, OSError):
        if is_file(folder / CLAIM):
            claim(folder).release()


def is_claimed(folder: Place) -> bool:
    """Return whether a living writer holds a folder, without standing in anybody's way."""
    if isinstance(folder, Path):
        return is_locked(folder)
    with reaching(folder):
        return is_leased(folder)
