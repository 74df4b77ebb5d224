"""Find errors that would end a pipeline after hours before it begins."""

from allcnn.extract import load_samples
from allcnn.workspace import run_record
from allcnn.workspace.paths import Workspace
from flows.settings.pipeline_plan import Pipeline
from store.storage.claims import claim, is_claimed


def check(workspace: Workspace, plan: Pipeline) -> None:
    """Raise what a later step would, before data are loaded.

    RunError for a name that is taken, ClaimedError for a run that another process trains, and
    ConfigError for samples.
    """
    for config in plan.runs:
        if config.name in workspace.runs():
            run_record.check_same(run_record.read_record(workspace, config.name).config, config)
        folder = workspace.run_folder(config.name)
        if is_claimed(folder) and "final" not in workspace.checkpoints(config.name):
            claim(folder).release()  # raises, with the holder's name
    if plan.n_samples is not None:
        job = next(plan.extractions())
        some = plan.runs[0]
        load_samples(some.dataset, some.image_size, job.split, job.n_samples)
