"""The flow that stores the activations of a run's checkpoints."""

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from allcnn import extract as extraction
from allcnn.config import Extraction
from allcnn.workspace import Workspace
from flows.logs import logged
from flows.parameters import ExtractParameters
from flows.retries import may_pass


# Safe to repeat: it goes on after the last committed minibatch.
@task(
    task_run_name="extract-{job.run}@{job.checkpoint}",
    retries=1,
    retry_condition_fn=may_pass,
    cache_policy=NO_CACHE,
)
def extract_checkpoint(job: Extraction, workspace: Workspace) -> str:
    """Fill the activation store from one checkpoint; return the name of the sample set."""
    return extraction.extract(workspace, job, logged("extracting"))


@flow(name="extract")
def extract(settings: ExtractParameters) -> str:
    """Store every tap of one checkpoint, or of all; return the name of the sample set."""
    job, workspace = settings.job(), settings.place()
    jobs = extraction.each_checkpoint(workspace, job)
    return [extract_checkpoint(each, workspace) for each in jobs][-1]
