"""The flow that trains one network."""

from prefect import flow, task

from allcnn.settings.run import RunConfig
from allcnn.training import loop as training
from allcnn.workspace.paths import Workspace
from flows.runtime.tasks import HOUR_S, SAFE_TO_REPEAT, WATCHED, logged, without_tracebacks
from flows.settings.parameters import TrainParameters


# Safe to repeat: it goes on from the last whole checkpoint.
@task(task_run_name="train-{config.name}", timeout_seconds=14 * 24 * HOUR_S, **SAFE_TO_REPEAT)
def train_run(config: RunConfig, workspace: Workspace) -> str:
    """Train a run to its end; return its name."""
    return training.train(config, workspace, logged(f"training {config.name}"))


@flow(name="train", flow_run_name="train-{settings.title}", **WATCHED)
def train(settings: TrainParameters) -> str:
    """Train one All-CNN-C network, from its last checkpoint where there is one.

    Returns the run's name.
    """
    without_tracebacks()
    return train_run(settings.job(), settings.place())
