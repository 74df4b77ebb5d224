"""Which failures of a task are worth another try, and how long a task may take."""

from typing import Any, Final

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun

from allcnn.errors import AllcnnError, ClusterError
from store import ClaimedError, StoreError

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
"""Of tasks that go on where they were, or write what they make whole or not at all."""
