"""Checkpoints written beside training: a step waits only for the copy to the host."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from allcnn.workspace import checkpoints
from allcnn.workspace.checkpoints import TrainState
from store.storage.paths import Place


class Saver:
    """Writes checkpoints one after the other, in a thread of its own; a context manager.

    What writing raises is raised by ``wait``, or at the end.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "saving")
        self._pending: list[Future[None]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # What is being written is finished in any case: it may be all that is left of an hour.
        self._thread.shutdown()
        if kind is None:
            self.wait()

    def save(self, folder: Place, state: TrainState) -> None:
        """Have a checkpoint written, as the state is now."""
        self._pending.append(self._thread.submit(checkpoints.save, folder, state.to_host()))

    def wait(self) -> None:
        """Wait until all is written; raises what writing raised."""
        pending, self._pending = self._pending, []
        for each in pending:
            each.result()
