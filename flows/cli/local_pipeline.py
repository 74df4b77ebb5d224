"""Whole pipelines in this process, without Prefect: the work behind the command line."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations_with_replacement

from allcnn.cluster.cluster import Cluster
from allcnn.cluster.spec import THREADS, ClusterSpec
from allcnn.compare import compare
from allcnn.drawing import figure_files
from allcnn.extract import each_checkpoint, extract, load_samples
from allcnn.settings.comparison import Comparison
from allcnn.settings.extraction import DEFAULT_SAMPLES, Extraction
from allcnn.settings.run import RunConfig
from allcnn.training.loop import train, train_together
from allcnn.workspace import run_record
from allcnn.workspace.paths import Workspace
from flows.figures.results import compare_each
from flows.settings.pipeline_plan import Pipeline, stages, work_through
from flows.views.progress import Progress
from store.storage.claims import claim, is_claimed
from store.storage.paths import Place

_TRAINING_IMAGES = {"digits": 1198, "fashion_mnist": 60_000}
_COMPILING = 5_000


def train_runs(workspace: Workspace, configs: Sequence[RunConfig], *, together: bool) -> list[str]:
    """Train runs one after the other, or all as one program; return their names."""
    runs: list[str] = []
    with Progress([1.0] * (1 if together else len(configs))) as progress:
        if together:
            with progress.step(f"training {len(configs)} seeds") as report:
                return train_together(configs, workspace, report)
        for config in configs:
            with progress.step(f"training {config.name}") as report:
                runs.append(train(config, workspace, report))
    return runs


def extract_checkpoints(workspace: Workspace, job: Extraction) -> str:
    """Extract one checkpoint of a run, or all of them; return the name of the sample set."""
    jobs = each_checkpoint(workspace, job)
    with Progress([1.0] * len(jobs)) as progress:
        for each in jobs:
            with progress.step("extracting") as report:
                sample_set = extract(workspace, each, report)
    return sample_set


@dataclass
class _Local:
    """The steps in this process; ``pictures`` are what was drawn."""

    workspace: Workspace
    cluster: Cluster
    progress: Progress
    pictures: list[Place] = field(default_factory=list)

    def train(self, config: RunConfig) -> None:
        with self.progress.step(f"training {config.name}") as report:
            train(config, self.workspace, report)

    def extract(self, job: Extraction) -> str:
        with self.progress.step("extracting") as report:
            return extract(self.workspace, job, report)

    def compare(self, job: Comparison) -> None:
        with self.progress.step("comparing") as report:
            results = compare(self.workspace, job, report, self.cluster)
        self.pictures += [figure_files.draw_comparison(self.workspace, each) for each in results]

    def compare_stages(self, run: str, jobs: list[Comparison]) -> None:
        with self.progress.step(f"comparing the checkpoints of {run}") as report:
            results = compare_each(self.workspace, jobs, report, self.cluster)
        # A series for each method.
        for series in zip(*results, strict=True):
            self.pictures.append(figure_files.draw_stages(self.workspace, series))

    def draw_curves(self, runs: list[str], name: str) -> None:
        self.pictures.insert(0, figure_files.draw_learning_curves(self.workspace, runs, name))


def check_pipeline(workspace: Workspace, plan: Pipeline) -> None:
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


def run_pipeline(
    workspace: Workspace, plan: Pipeline, spec: ClusterSpec = THREADS
) -> tuple[list[Place], dict[str, float]]:
    """Train, extract, compare and draw; finished steps are not repeated.

    Returns the pictures and stores, and the test accuracy of every run.
    """
    check_pipeline(workspace, plan)
    with Progress(weights(plan)) as progress, Cluster(spec, progress.tell) as cluster:
        steps = _Local(workspace, cluster, progress)
        work_through(plan, steps)
    accuracies = {each.name: run_record.final_accuracy(workspace, each.name) for each in plan.runs}
    return [*steps.pictures, workspace.activations, workspace.similarity], accuracies


def weights(plan: Pipeline) -> list[float]:
    """Guess how long each step of a pipeline takes, in forward passes of depth 1 at width 1."""
    n_samples = plan.n_samples or DEFAULT_SAMPLES
    training, extracting, staging, cost = [], [], [], []
    for config in plan.runs:
        each = config.architecture.cost * (config.image_size / 32) ** 2
        images = config.epochs * _TRAINING_IMAGES.get(config.dataset, 50_000)
        training.append(each * (3 * images + _COMPILING))
        n_stages = len(stages(config))
        extracting += [each * n_samples] * n_stages
        staging.append(2 * each * n_samples * n_stages)
        cost.append(each)
    comparing = [2 * max(pair) * n_samples for pair in combinations_with_replacement(cost, 2)]
    return training + extracting + comparing + staging
