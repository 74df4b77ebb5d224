"""Where Dask runs tasks: for now, threads of this process, so that one process owns the device."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from distributed import Client, LocalCluster

_THREADS = 2
"""One computes while the other reads; more would only hold more minibatches in memory."""

_LOOPBACK = "127.0.0.1:0"


@contextmanager
def connect() -> Iterator[Client]:
    """Start a scheduler and worker threads in this process, and stop them at the end.

    Their status pages listen on loopback only, on a free port.
    """
    with (
        # Each start and stop would otherwise log a page, where any handler listens to INFO.
        _level("distributed", logging.WARNING),
        # A task's error reaches whoever asked for its result; here it would be a traceback.
        _level("distributed.worker", logging.CRITICAL),
        LocalCluster(
            n_workers=1,
            threads_per_worker=_THREADS,
            processes=False,
            dashboard_address=_LOOPBACK,
            worker_dashboard_address=_LOOPBACK,
            memory_limit=0,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@contextmanager
def _level(name: str, level: int) -> Iterator[None]:
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)
