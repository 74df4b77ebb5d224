"""Which failures of a task are worth another try."""

from typing import Any

from prefect import Task
from prefect.client.schemas.objects import State, TaskRun

from allcnn.errors import AllcnnError
from store import StoreError


def may_pass(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Return whether a failure may be gone next time, as a full disk's; not so a wrong setting."""
    return not isinstance(state.data, (AllcnnError, StoreError))
