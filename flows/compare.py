"""The flow that compares two stored networks."""

from prefect import flow, get_run_logger, task

from allcnn import compare as comparison
from allcnn.cluster.cluster import Cluster
from allcnn.compare import describe
from allcnn.drawing import figure_files
from allcnn.settings.comparison import Comparison
from allcnn.workspace.paths import Workspace
from flows.runtime import artifacts
from flows.runtime.tasks import HOUR_S, SAFE_TO_REPEAT, WATCHED, logged, without_tracebacks
from flows.settings.parameters import CompareParameters, MatrixParameters


# Safe to repeat: a result is written whole or not at all. Dask schedules inside this one task.
@task(
    task_run_name="compare-{job.rows}-{job.columns}",
    timeout_seconds=48 * HOUR_S,
    **SAFE_TO_REPEAT,
)
def compare_representations(
    job: Comparison, workspace: Workspace, cluster: Cluster, *, errors: bool = False
) -> list[str]:
    """Compute, keep, draw and show matrices; return the results' names."""
    results = comparison.compare(workspace, job, logged("comparing"), cluster)
    for result in results:
        artifacts.show_result(workspace, result)
        picture = figure_files.draw_comparison(workspace, result, errors=errors)
        how = describe.method(result, errors=errors)
        title = f"{result.title} of {job.rows} with {job.columns}: {how}"
        artifacts.show_picture(picture, title)
    return [result.name for result in results]


def compare_on_workers(settings: CompareParameters | MatrixParameters) -> list[str]:
    """Start the workers that settings ask for, and compare; return the results' names."""
    without_tracebacks()
    with Cluster(settings.spec(), get_run_logger().info) as cluster:
        job, workspace = settings.job(), settings.place()
        return compare_representations(job, workspace, cluster, errors=settings.errors)


@flow(name="compare", flow_run_name="compare-{settings.title}", **WATCHED)
def compare(settings: CompareParameters) -> list[str]:
    """Compare the taps of two networks, from what is stored of them.

    Returns the results' names.
    """
    return compare_on_workers(settings)
