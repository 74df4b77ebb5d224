"""The flow that trains one network."""

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from allcnn import train as training
from allcnn.config import RunConfig
from allcnn.workspace import Workspace
from flows.logs import logged
from flows.parameters import TrainParameters


# Safe to repeat: it goes on from the last whole checkpoint.
@task(task_run_name="train-{config.name}", retries=1, cache_policy=NO_CACHE)
def train_run(config: RunConfig, workspace: Workspace) -> str:
    """Train a run to its end; return its name."""
    return training.train(config, workspace, logged(f"training {config.name}"))


@flow(name="train")
def train(parameters: TrainParameters) -> str:
    """Train one All-CNN-C network; return the run's name."""
    return train_run(parameters.config(), parameters.place())
