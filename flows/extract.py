"""The flow that stores the activations of a run's checkpoints."""

from prefect import flow, task

from allcnn import extract as extraction
from allcnn.settings.extraction import Extraction
from allcnn.workspace.paths import Workspace
from flows.runtime.tasks import HOUR_S, SAFE_TO_REPEAT, WATCHED, logged, without_tracebacks
from flows.settings.parameters import ExtractParameters


# Safe to repeat: it goes on after the last committed minibatch.
@task(
    task_run_name="extract-{job.run}@{job.checkpoint}",
    timeout_seconds=24 * HOUR_S,
    **SAFE_TO_REPEAT,
)
def extract_checkpoint(job: Extraction, workspace: Workspace) -> str:
    """Fill the activation store from one checkpoint; return the name of the sample set."""
    return extraction.extract(workspace, job, logged("extracting"))


@flow(name="extract", flow_run_name="extract-{settings.run}@{settings.checkpoint}", **WATCHED)
def extract(settings: ExtractParameters) -> str:
    """Keep the activations or the Gram matrices of one checkpoint of a run, or of all; every tap.

    Returns the name of the sample set.
    """
    without_tracebacks()
    job, workspace = settings.job(), settings.place()
    jobs = extraction.each_checkpoint(workspace, job)
    return [extract_checkpoint(each, workspace) for each in jobs][-1]
