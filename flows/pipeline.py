"""The flow that trains, stores, compares and draws networks."""

from dataclasses import dataclass, field

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from allcnn.cluster.cluster import Cluster
from allcnn.compare import describe
from allcnn.drawing import figure_files
from allcnn.settings.comparison import Comparison
from allcnn.settings.extraction import Extraction
from allcnn.settings.run import RunConfig
from allcnn.workspace.paths import Workspace
from flows.cli.local_pipeline import check_pipeline
from flows.compare import compare_representations
from flows.extract import extract_checkpoint
from flows.figures.results import compare_each
from flows.runtime import artifacts
from flows.runtime.tasks import HOUR_S, SAFE_TO_REPEAT, WATCHED, logged, without_tracebacks
from flows.settings.parameters import PipelineParameters
from flows.settings.pipeline_plan import work_through
from flows.train import train_run


@task(task_run_name="stages-{run}", timeout_seconds=48 * HOUR_S, **SAFE_TO_REPEAT)
def compare_stages(
    run: str, jobs: list[Comparison], workspace: Workspace, cluster: Cluster
) -> None:
    """Compare a network with its earlier checkpoints, and show them in one picture."""
    report = logged(f"stages of {run}")
    # A series for each method.
    for results in zip(*compare_each(workspace, jobs, report, cluster), strict=True):
        picture = figure_files.draw_stages(workspace, results)
        artifacts.show_picture(
            picture, f"{run} against its checkpoints: {describe.way(results[0])}"
        )


@task(task_run_name="draw-{name}", cache_policy=NO_CACHE)
def draw_curves(runs: list[str], name: str, workspace: Workspace) -> None:
    """Draw and show the learning curves of all runs."""
    artifacts.show_picture(
        figure_files.draw_learning_curves(workspace, runs, name), "Learning curves"
    )


@dataclass
class _Tasks:
    """The steps as tasks of Prefect; ``names`` are those of the results between runs."""

    workspace: Workspace
    cluster: Cluster
    names: list[str] = field(default_factory=list)

    def train(self, config: RunConfig) -> None:
        train_run(config, self.workspace)

    def extract(self, job: Extraction) -> str:
        return extract_checkpoint(job, self.workspace)

    def compare(self, job: Comparison) -> None:
        self.names += compare_representations(job, self.workspace, self.cluster)

    def compare_stages(self, run: str, jobs: list[Comparison]) -> None:
        compare_stages(run, jobs, self.workspace, self.cluster)

    def draw_curves(self, runs: list[str], name: str) -> None:
        draw_curves(runs, name, self.workspace)


@flow(name="pipeline", flow_run_name="pipeline-{settings.title}", **WATCHED)
def pipeline(settings: PipelineParameters) -> list[str]:
    """Train networks of several depths and seeds, store, compare and draw them all.

    Returns the results' names.
    """
    without_tracebacks()
    plan, workspace = settings.job(), settings.place()
    check_pipeline(workspace, plan)
    # Entered first, so that a cluster that cannot start is found before hours of training.
    with Cluster(settings.spec(), get_run_logger().info) as cluster:
        tasks = _Tasks(workspace, cluster)
        work_through(plan, tasks)
    return tasks.names
