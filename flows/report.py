"""The flow that writes the report on a workspace."""

from prefect import flow, task

from allcnn.workspace import Workspace
from flows import artifacts, reporting
from flows.hooks import WATCHED
from flows.logs import logged, without_tracebacks
from flows.parameters import ReportParameters
from flows.retries import HOUR_S, SAFE_TO_REPEAT


# Safe to repeat: every file is written whole.
@task(task_run_name="report-{workspace.root.name}", timeout_seconds=HOUR_S, **SAFE_TO_REPEAT)
def make_report(workspace: Workspace) -> str:
    """Draw what has no picture, and write the page; return its address."""
    reporting.check_there(workspace)
    reporting.draw_missing(workspace, reporting.results_of(workspace), logged("drawing"))
    reporting.draw_curves(workspace)
    return artifacts.show_report(reporting.write_report(workspace), workspace.root.name)


@flow(name="report", flow_run_name="report-{settings.title}", **WATCHED)
def report(settings: ReportParameters) -> str:
    """Write a page on all runs and results of a workspace, with the pictures it shows.

    Returns the page's address.
    """
    without_tracebacks()
    return make_report(settings.place())
