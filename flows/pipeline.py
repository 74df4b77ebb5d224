"""The flow that does all of it: trains, stores, compares and draws."""

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from allcnn.cluster.cluster import Cluster
from allcnn.compare import describe
from allcnn.drawing import figure_files
from allcnn.settings.comparison import Comparison
from allcnn.workspace.paths import Workspace
from flows.cli import local_pipeline
from flows.compare import compare_representations
from flows.extract import extract_checkpoint
from flows.runtime import artifacts
from flows.runtime.hooks import WATCHED
from flows.runtime.logs import logged, telling, without_tracebacks
from flows.runtime.retries import HOUR_S, SAFE_TO_REPEAT
from flows.settings.parameters import PipelineParameters
from flows.settings.pipeline_checks import check
from flows.train import train_run


@task(task_run_name="stages-{run}", timeout_seconds=48 * HOUR_S, **SAFE_TO_REPEAT)
def compare_stages(
    run: str, jobs: list[Comparison], workspace: Workspace, cluster: Cluster
) -> None:
    """Compare a network with its earlier checkpoints, and show them in one picture."""
    report = logged(f"stages of {run}")
    for results in local_pipeline.compare_stages(workspace, jobs, report, cluster):
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


@flow(name="pipeline", flow_run_name="pipeline-{settings.title}", **WATCHED)
def pipeline(settings: PipelineParameters) -> list[str]:
    """Train networks of several depths and seeds, store, compare and draw them all.

    Tasks run one after another: each uses the whole device. Returns the results' names.
    """
    without_tracebacks()
    plan, workspace = settings.job(), settings.place()
    check(workspace, plan)
    # Entered first, lest a cluster that cannot be is found after hours of training.
    with Cluster(settings.spec(), telling()) as cluster:
        runs = [train_run(config, workspace) for config in plan.runs]
        sample_set = [extract_checkpoint(job, workspace) for job in plan.extractions()][-1]
        pairs = plan.between_runs(sample_set)
        names = [name for job in pairs for name in compare_representations(job, workspace, cluster)]
        for config in plan.runs:
            jobs = list(plan.between_stages(config, sample_set))
            compare_stages(config.name, jobs, workspace, cluster)
    draw_curves(runs, f"{plan.runs[0].prefix}-curves", workspace)
    return names
