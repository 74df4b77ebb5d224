"""Functions that run on workers: the bodies of tasks, and a look at the worker."""

import os
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any, Final, NamedTuple

import jax
from distributed import get_worker
from distributed.core import Status

PACKAGE: Final = "allcnn-cka"

_WANTED = ("executing", "long-running", "resumed")
_WORKING = (Status.running, Status.paused)


class Facts(NamedTuple):
    """A worker: our version there, its device, its cores, and whether it sees a folder."""

    version: str
    device: str
    n_cores: int
    sees: bool


def run(body: Callable[..., Any], call: Sequence[Any]) -> Any:
    """Run a task's body, which may ask now and then whether its result is still wanted."""
    worker = get_worker()
    key = worker.get_current_task()

    def wanted() -> bool:
        # Of a task that was cancelled a worker forgets nothing but its reason while it runs.
        task = worker.state.tasks.get(key)
        return worker.status in _WORKING and task is not None and task.state in _WANTED

    return body(*call, wanted=wanted)


def look(folder: str | None) -> Facts:
    """Return what this worker is."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    sees = folder is None or os.path.isdir(folder)
    return Facts(version(PACKAGE), jax.devices()[0].device_kind, cores or 1, sees)
