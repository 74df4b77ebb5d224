"""The hold of a nightly run on its workspace, renewed however long a step takes."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from allcnn.errors import AllcnnError
from store import ClaimedError, StoreError

_RENEW_EVERY_S: Final = 60.0


class LostHoldError(AllcnnError, RuntimeError):
    """Another nightly run has taken the workspace, as this one seemed dead."""


@contextmanager
def kept_alive(renew: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """Renew a hold every minute in a thread, whatever takes so long; yield what raises if it went.

    At an address a hold runs out after ten minutes.
    """
    ended, lost = threading.Event(), threading.Event()

    def keep_on() -> None:
        while not ended.wait(_RENEW_EVERY_S):
            try:
                renew()
            except ClaimedError:
                lost.set()
                return
            except (StoreError, OSError):
                continue  # an address that cannot be reached for a moment

    def check() -> None:
        if lost.is_set():
            raise LostHoldError(
                "another nightly run has taken the workspace, as this one was silent for ten"
                " minutes",
                remedy="what is done is kept, and that one does the rest",
            )

    thread = threading.Thread(target=keep_on, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield check
    finally:
        ended.set()
        thread.join()
