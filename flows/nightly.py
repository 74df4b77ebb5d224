"""The flow that brings a workspace up to date, on a nightly schedule."""

from collections.abc import Callable
from typing import TypeVar

from prefect import State, flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.states import Completed, Failed

from allcnn.cluster.cluster import Cluster
from allcnn.compare import describe
from allcnn.progress import Report
from allcnn.workspace.paths import Workspace
from flows.maintenance.nightly_run import NightlyRun, holding, work_through
from flows.maintenance.nightly_summary import counted, headline, markdown
from flows.runtime import artifacts
from flows.runtime.tasks import HOUR_S, SAFE_TO_REPEAT, WATCHED, logged, without_tracebacks
from flows.settings.parameters import NightlyParameters
from store import ClaimedError, SimilarityResult

T = TypeVar("T")


# Safe to repeat: finished work is not done again.
@task(task_run_name="{name}", timeout_seconds=48 * HOUR_S, **SAFE_TO_REPEAT)
def piece_of_work(name: str, work: Callable[[Report], T]) -> T:
    """Do one piece of a nightly run's work."""
    return work(logged(name))


@flow(name="nightly", flow_run_name="nightly-{settings.title}", **WATCHED)
def nightly(settings: NightlyParameters) -> State[str]:
    """Bring a workspace up to date: store new checkpoints, extend and renew matrices, verify.

    Leaves alone what is up to date. Fails with one sentence where a piece of the work did; all
    other pieces are done all the same.
    """
    without_tracebacks()
    plan, workspace = settings.job(), settings.place()
    try:
        spec, tell = settings.spec(), get_run_logger().info
        # Checkpoints are stored without workers, too.
        with holding(workspace, plan, tell) as work, Cluster(spec, tell, must_answer=False) as pool:
            results = work_through(work, pool, piece_of_work)
            page = work.end()
    except ClaimedError as error:
        return Completed(name="SteppedAside", message=f"another nightly run is at work: {error}")
    _show(workspace, work, results)
    artifacts.show_report(page, workspace.root.name)
    if failed := work.summary.failed:
        reasons = "; ".join(f"{each.what}: {each.reason}" for each in failed[:3])
        n_failed = counted(len(failed), "piece")
        return Failed(message=f"{n_failed} of the nightly run failed: {reasons}")
    return Completed(message=headline(work.summary))


def _show(workspace: Workspace, work: NightlyRun, results: list[SimilarityResult]) -> None:
    """Attach the summary, and the matrices that changed, to the flow run."""
    name = artifacts.key(f"nightly-{workspace.root.name}")
    create_markdown_artifact(markdown(work.summary), name, "What this nightly run did")
    changed = {each.result for each in work.summary.changed}
    for result in results:
        if result.name in changed:
            artifacts.show_result(workspace, result)
            picture = workspace.figures / f"{result.name}.png"
            artifacts.show_picture(picture, f"{result.title}: {describe.method(result)}")
