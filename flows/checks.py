"""What would end a pipeline after hours, found before it begins."""

from allcnn import record
from allcnn.extract import load_samples
from allcnn.workspace import Workspace
from flows.plan import Pipeline


def check(workspace: Workspace, plan: Pipeline) -> None:
    """Raise what a later step would: RunError for a name that is taken, ConfigError for samples."""
    for config in plan.configs():
        if config.name in workspace.runs():
            record.check_same(record.read_record(workspace, config.name).config, config)
    if plan.n_samples is not None:
        job = next(plan.extractions())
        load_samples(plan.training.dataset, plan.training.image_size, job.split, job.n_samples)
