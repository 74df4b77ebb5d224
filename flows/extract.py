"""The flow that stores the activations of a run's checkpoints."""

from dataclasses import replace

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from allcnn import extract as extraction
from allcnn.config import Extraction
from allcnn.workspace import Workspace
from flows.logs import logged
from flows.parameters import ExtractParameters


# Safe to repeat: it goes on after the last committed minibatch.
@task(task_run_name="extract-{job.run}@{job.checkpoint}", retries=1, cache_policy=NO_CACHE)
def extract_checkpoint(job: Extraction, workspace: Workspace) -> str:
    """Fill the activation store from one checkpoint; return the name of the sample set."""
    return extraction.extract(workspace, job, logged("extracting"))


@flow(name="extract")
def extract(parameters: ExtractParameters) -> str:
    """Store every tap of one checkpoint, or of all; return the name of the sample set."""
    job, workspace = parameters.job(), parameters.place()
    workspace.find_run(job.run)
    names = workspace.checkpoints(job.run) if job.checkpoint == "all" else [job.checkpoint]
    return [extract_checkpoint(replace(job, checkpoint=name), workspace) for name in names][-1]
