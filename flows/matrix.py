"""The flow that compares many representations with each other in one pass."""

from prefect import flow

from allcnn.cluster.cluster import Cluster
from flows.compare import compare_representations
from flows.runtime.failures import WATCHED
from flows.runtime.logs import telling, without_tracebacks
from flows.settings.parameters import MatrixParameters


@flow(name="matrix", flow_run_name="matrix-{settings.title}", **WATCHED)
def matrix(settings: MatrixParameters) -> list[str]:
    """Compare all representations that fit a pattern, every pair in one pass.

    Returns the results' names.
    """
    without_tracebacks()
    with Cluster(settings.spec(), telling()) as cluster:
        job, workspace = settings.job(), settings.place()
        return compare_representations(job, workspace, cluster, errors=settings.errors)
