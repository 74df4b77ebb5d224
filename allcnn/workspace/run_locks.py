"""Claims on runs while they are trained, and on a workspace during its nightly run."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

from allcnn.errors import AllcnnError, WorkspaceError
from allcnn.workspace.paths import Workspace
from store.errors import ClaimedError, StoreError
from store.storage.claims import Claim, claim
from store.storage.paths import Place
from store.storage.remote_errors import reaching

_RENEW_EVERY_S = 60.0
"""At an address every check of a claim is a request."""


class LostHoldError(AllcnnError, RuntimeError):
    """Another nightly run has taken the workspace, as this one seemed dead."""


def holding(
    workspace: Workspace, runs: Sequence[str]
) -> AbstractContextManager[Callable[[], None]]:
    """Hold runs against others until the end; yield what has to be called every minute or so.

    At an address a hold ends ten minutes after the last call. Raises ClaimedError where a living
    process holds one of them, WorkspaceError where a link leads out of the workspace.
    """
    for run in runs:
        workspace.own("runs", workspace.run_folder(run).name, "checkpoints")
    return holding_folder(*map(workspace.run_folder, runs))


@contextmanager
def holding_folder(*folders: Place) -> Iterator[Callable[[], None]]:
    """Hold folders in the same way; those that are missing are made."""
    with ExitStack() as stack:
        for folder in folders:
            stack.callback(_remove_empty, folder)
        claims = [stack.enter_context(_claim(folder)) for folder in folders]
        renewed = time.monotonic()

        def renew() -> None:
            nonlocal renewed
            if time.monotonic() - renewed >= _RENEW_EVERY_S:
                renewed = time.monotonic()
                for each in claims:
                    each.renew()

        yield renew


def _remove_empty(folder: Place) -> None:
    """Remove a folder that was made to be held, and in which nothing was written after all."""
    if isinstance(folder, Path):
        with suppress(OSError):
            folder.rmdir()


def _claim(folder: Place) -> Claim:
    try:
        with reaching(folder):
            return claim(folder)
    except OSError as error:
        found = f"cannot write to {folder}: {error.strerror or error}"
        raise WorkspaceError(found, remedy="use another --workspace") from error


@contextmanager
def kept_alive(renew: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """Renew a hold every minute in a thread; yield what raises LostHoldError once it is lost."""
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
            found = "has taken the workspace, as this one was silent for ten minutes"
            remedy = "what is done is kept, and that one does the rest"
            raise LostHoldError("another nightly run", found, remedy=remedy)

    thread = threading.Thread(target=keep_on, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield check
    finally:
        ended.set()
        thread.join()
