"""Progress of a task in the logs of its flow run and, where it is long, as an artifact."""

import logging
import re
import time
from typing import Any
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.logging import get_run_logger

from allcnn.cluster.cluster import Tell
from allcnn.errors import AllcnnError
from allcnn.progress import Report
from store import StoreError

_EVERY_S = 10.0


def key(name: str) -> str:
    """Return a name as Prefect wants the keys of artifacts: small letters, digits and dashes."""
    return re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")


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


def _drop_known_traceback(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, (AllcnnError, StoreError)):
        record.exc_info = None
    return True


def without_tracebacks(*_: Any) -> None:
    """Log errors that users can repair as a sentence, and others with their traceback."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_drop_known_traceback)  # once, however often asked
