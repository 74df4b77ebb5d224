"""Progress of a task in the logs of its flow run and, where it is long, as an artifact."""

import logging
import time
from typing import Any
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.logging import get_run_logger

from allcnn.cluster.cluster import Tell
from allcnn.errors import AllcnnError
from allcnn.progress import Report
from flows.runtime.artifact_keys import key
from store import StoreError

_EVERY_S = 10.0


def logged(title: str) -> Report:
    """Return a report that logs at most every ten seconds, and the end.

    What takes longer than that shows its progress as an artifact too.
    """
    logger = get_run_logger()
    last = time.monotonic()
    artifact: UUID | None = None

    def report(done: int, total: int, detail: str) -> None:
        nonlocal last, artifact
        now = time.monotonic()
        if done < total and now - last < _EVERY_S:
            return
        is_long, last = now - last >= _EVERY_S, now
        logger.info("%s: %d of %d, %s", title, done, total, detail)
        percent = 100.0 * done / max(total, 1)
        if artifact is not None:
            update_progress_artifact(artifact, percent, f"{title}: {detail}")
        elif is_long and done < total:
            name = f"progress-{key(title)}"
            made = create_progress_artifact(percent, name, f"{title}: {detail}")
            assert isinstance(made, UUID)  # a coroutine only where one is awaited
            artifact = made

    return report


def telling() -> Tell:
    """Return what takes sentences into the logs of the run."""
    return get_run_logger().info


class _KnownErrors(logging.Filter):
    """Takes the traceback from errors that say in a sentence what to do."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, (AllcnnError, StoreError)):
            record.exc_info = None
        return True


_KNOWN_ERRORS = _KnownErrors()


def without_tracebacks(*_: Any) -> None:
    """Let what users can mend be logged as a sentence; of other errors the traceback is wanted."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logger = logging.getLogger(name)
        if _KNOWN_ERRORS not in logger.filters:
            logger.addFilter(_KNOWN_ERRORS)
