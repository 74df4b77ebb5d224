"""The flow that compares two networks from what is stored of them."""

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from allcnn import compare as comparison
from allcnn import figures
from allcnn.config import Comparison
from allcnn.workspace import Workspace
from flows import artifacts
from flows.logs import logged
from flows.parameters import CompareParameters
from flows.retries import may_pass


# Safe to repeat: a result is written whole or not at all. Dask schedules inside this one task.
@task(
    task_run_name="compare-{job.rows}-{job.columns}",
    retries=1,
    retry_condition_fn=may_pass,
    cache_policy=NO_CACHE,
)
def compare_representations(
    job: Comparison, workspace: Workspace, *, errors: bool = False
) -> list[str]:
    """Compute, keep, draw and show CKA matrices; return the results' names."""
    results = comparison.compare(workspace, job, logged("comparing"))
    for result in results:
        artifacts.show_matrix(result)
        picture = figures.draw_comparison(workspace, result, errors=errors)
        title = f"CKA of {job.rows} with {job.columns}: {figures.method(result)}"
        artifacts.show_picture(picture, title)
    return [result.name for result in results]


@flow(name="compare")
def compare(settings: CompareParameters) -> list[str]:
    """Compare the taps of two networks by CKA; return the results' names."""
    return compare_representations(settings.job(), settings.place(), errors=settings.errors)
