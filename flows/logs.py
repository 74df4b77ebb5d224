"""Progress of a task in the logs of its flow run."""

import time

from prefect.logging import get_run_logger

from allcnn.progress import Report

_EVERY_S = 10.0


def logged(title: str) -> Report:
    """Return a report that logs at most every ten seconds, and the end."""
    logger = get_run_logger()
    last = time.monotonic()

    def report(done: int, total: int, detail: str) -> None:
        nonlocal last
        now = time.monotonic()
        if done == total or now - last >= _EVERY_S:
            last = now
            logger.info("%s: %d of %d, %s", title, done, total, detail)

    return report
