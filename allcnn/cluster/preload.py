"""Keeps a worker process to its cores; a preload module, which Dask runs before the worker starts.

XLA's threads ignore every other way of saying how many there should be, and this has to be said
before JAX is imported. It leaves Ctrl-C to the process that started it, too.
"""

import os
import signal
import threading
from typing import Final

CORES: Final = "ALLCNN_CORES"
"""The environment variable that names the cores, such as ``0`` or ``2,3``."""


def dask_setup(worker: object) -> None:
    """Pin this process, where the system can do that, and let Ctrl-C pass it by."""
    # A terminal sends it to every process; ours would die of it with a page of tracebacks.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    cores = os.environ.get(CORES)
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
