"""The flow that compares many representations with each other in one pass."""

from prefect import flow

from flows.compare import compare_on_workers
from flows.runtime.tasks import WATCHED
from flows.settings.parameters import MatrixParameters


@flow(name="matrix", flow_run_name="matrix-{settings.title}", **WATCHED)
def matrix(settings: MatrixParameters) -> list[str]:
    """Compare all representations that fit a pattern, every pair in one pass.

    Returns the results' names.
    """
    return compare_on_workers(settings)
