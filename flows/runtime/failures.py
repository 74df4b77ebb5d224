"""Log failures of flow runs, and decide which tasks are worth another try.

Prefect's engine calls a hook by position, its runner and worker by keyword: the parameters of all
hooks are therefore called ``flow``, ``flow_run`` and ``state``.
"""

from typing import Any, Final

from prefect import Flow, Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import FlowRun, State, TaskRun
from prefect.logging.loggers import flow_run_logger

from allcnn.errors import AllcnnError, ClusterError
from store import ClaimedError, StoreError

_SAFE: Final = "what was finished is kept, and the same run goes on from there"


def tell_failure(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Log which run failed, and why; automations find it by this sentence."""
    cause = " ".join((state.message or state.name or "no reason is known").split())
    logger = flow_run_logger(flow_run, flow)
    logger.error("run %r of the flow %r failed: %s; %s", flow_run.name, flow.name, cause, _SAFE)


def tell_end(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Log that a run was cancelled or that its process died."""
    logger = flow_run_logger(flow_run, flow)
    how = "was cancelled" if state.is_cancelled() or state.is_cancelling() else "crashed"
    logger.warning("run %r of the flow %r %s; %s", flow_run.name, flow.name, how, _SAFE)


WATCHED: Final[dict[str, Any]] = {
    "on_failure": [tell_failure],
    "on_cancellation": [tell_end],
    "on_crashed": [tell_end],
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
