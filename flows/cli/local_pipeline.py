"""Whole pipelines in this process, without Prefect: the work behind the command line."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations_with_replacement

from allcnn.cluster.cluster import Cluster
from allcnn.cluster.spec import THREADS, ClusterSpec
from allcnn.compare import SimilarityResult, compare
from allcnn.drawing import figure_files
from allcnn.extract import each_checkpoint, extract
from allcnn.progress import Report
from allcnn.settings.comparison import Comparison
from allcnn.settings.extraction import DEFAULT_SAMPLES, Extraction
from allcnn.settings.run import RunConfig
from allcnn.training.loop import train, train_together
from allcnn.workspace import run_record
from allcnn.workspace.paths import Workspace
from flows.settings.pipeline_checks import check
from flows.settings.pipeline_plan import Pipeline, stages, work_through
from flows.views.progress import Progress
from store.storage.paths import Place

_TRAINING_IMAGES = {"digits": 1198, "fashion_mnist": 60_000}
_COMPILING = 5_000


@dataclass(frozen=True)
class Outcome:
    """What a pipeline made: pictures and stores, and the test accuracy of every run."""

    files: tuple[Place, ...]
    accuracies: dict[str, float]


def train_runs(workspace: Workspace, configs: Sequence[RunConfig], *, together: bool) -> list[str]:
    """Train runs one after the other, or all as one program; return their names."""
    if together:
        with Progress([1.0]) as progress, progress.step(f"training {len(configs)} seeds") as report:
            return train_together(configs, workspace, report)
    with Progress([1.0] * len(configs)) as progress:
        runs = []
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
class _Steps:
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
            series = series_of(self.workspace, jobs, report, self.cluster)
        self.pictures += [figure_files.draw_stages(self.workspace, each) for each in series]

    def draw_curves(self, runs: list[str], name: str) -> None:
        drawn = figure_files.draw_learning_curves(self.workspace, runs, name)
        self.pictures.insert(0, drawn)


def run_pipeline(workspace: Workspace, plan: Pipeline, spec: ClusterSpec = THREADS) -> Outcome:
    """Train, extract, compare and draw; what is finished already is not done again."""
    check(workspace, plan)
    with Progress(weights(plan)) as progress, Cluster(spec, progress.tell) as cluster:
        steps = _Steps(workspace, cluster, progress)
        work_through(plan, steps)
    accuracies = {each.name: run_record.final_accuracy(workspace, each.name) for each in plan.runs}
    return Outcome((*steps.pictures, workspace.activations, workspace.similarity), accuracies)


def series_of(
    workspace: Workspace, jobs: list[Comparison], report: Report, cluster: Cluster
) -> list[tuple[SimilarityResult, ...]]:
    """Compare one network with each of its checkpoints; return a series for each method."""
    results = []
    for job in jobs:
        results.append(compare(workspace, job, cluster=cluster))
        report(len(results), len(jobs), job.columns.checkpoint)
    return list(zip(*results, strict=True))


def weights(plan: Pipeline) -> list[float]:
    """Guess how long each step of a pipeline takes, in forward passes of depth 1 at width 1."""
    cost = [_cost(config) for config in plan.runs]
    n_samples = plan.n_samples or DEFAULT_SAMPLES
    training = [
        c * (3 * config.epochs * _TRAINING_IMAGES.get(config.dataset, 50_000) + _COMPILING)
        for c, config in zip(cost, plan.runs, strict=True)
    ]
    extracting = [
        c * n_samples for c, config in zip(cost, plan.runs, strict=True) for _ in stages(config)
    ]
    comparing = [2 * max(pair) * n_samples for pair in combinations_with_replacement(cost, 2)]
    staging = [
        2 * c * n_samples * len(stages(config)) for c, config in zip(cost, plan.runs, strict=True)
    ]
    return training + extracting + comparing + staging


def _cost(config: RunConfig) -> float:
    return config.architecture.cost * (config.image_size / 32) ** 2
