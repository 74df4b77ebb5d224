"""The flow that compares two networks from their stored activations."""

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from allcnn import compare as comparison
from allcnn import figures
from allcnn.config import Comparison
from allcnn.workspace import Workspace
from flows import artifacts
from flows.logs import logged
from flows.parameters import CompareParameters


# Safe to repeat: a result is written whole or not at all. Dask schedules inside this one task.
@task(task_run_name="compare-{job.rows}-{job.columns}", retries=1, cache_policy=NO_CACHE)
def compare_networks(job: Comparison, workspace: Workspace) -> str:
    """Compute, keep, draw and show a CKA matrix; return the result's name."""
    result = comparison.compare(workspace, job, logged("comparing"))
    artifacts.show_matrix(result)
    picture = figures.draw_comparison(workspace, result)
    artifacts.show_picture(picture, f"CKA of {job.rows} with {job.columns}")
    return result.name


@flow(name="compare")
def compare(parameters: CompareParameters) -> str:
    """Compare the taps of two networks by CKA; return the result's name."""
    return compare_networks(parameters.job(), parameters.place())
