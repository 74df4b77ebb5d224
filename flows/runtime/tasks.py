"""What flows and tasks have in common: how they report progress and ends, and when they retry.

Prefect's engine calls a hook by position, its runner and worker by keyword: the parameters of all
hooks are therefore called ``flow``, ``flow_run`` and ``state``.
"""

import logging
import time
from typing import Any, Final
from uuid import UUID

from prefect import Flow, Task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import FlowRun, State, TaskRun
from prefect.logging import get_run_logger
from prefect.logging.loggers import flow_run_logger

from allcnn.errors import AllcnnError, ClusterError
from allcnn.progress import Report
from flows.runtime.artifacts import key
from store import ClaimedError, StoreError

_SAFE: Final = "what was finished is kept, and the same run goes on from there"


def tell_end(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Log that a run failed, was cancelled or died; automations find it by this sentence."""
    logger, run = (
        flow_run_logger(flow_run, flow),
        f"run {flow_run.name!r} of the flow {flow.name!r}",
    )
    if state.is_failed():
        cause = " ".join((state.message or state.name or "no reason is known").split())
        logger.error("%s failed: %s; %s", run, cause, _SAFE)
    else:
        how = "was cancelled" if state.is_cancelled() or state.is_cancelling() else "crashed"
        logger.warning("%s %s; %s", run, how, _SAFE)


WATCHED: Final[dict[str, Any]] = {
    name: [tell_end] for name in ("on_failure", "on_cancellation", "on_crashed")
}
"""Hooks of every flow."""

_DELAY_S: Final = 30.0
"""A full disk is not emptied, and a worker not started again, within a second."""

HOUR_S: Final = 3600.0


def may_pass(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Return whether a failure may be gone next time, as a full disk's; not so a wrong setting."""
    if state.name == "TimedOut":
        return False  # it would take as long again
    passing = isinstance(state.data, (ClusterError, ClaimedError))
    return passing or not isinstance(state.data, (AllcnnError, StoreError))


SAFE_TO_REPEAT: Final[dict[str, Any]] = {
    "retries": 1,
    "retry_delay_seconds": _DELAY_S,
    "retry_condition_fn": may_pass,
    # Every task looks itself for what is there already; a path that Prefect remembers may be gone.
    "cache_policy": NO_CACHE,
}
"""Settings of tasks that go on where they were, or write their results whole or not at all."""

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


def _drop_known_traceback(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, (AllcnnError, StoreError)):
        record.exc_info = None
    return True


def without_tracebacks() -> None:
    """Log errors that users can repair as a sentence, and others with their traceback."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_drop_known_traceback)  # once, however often asked
