"""The flow that writes the report on a workspace."""

from prefect import flow, task

from allcnn.workspace.paths import Workspace
from flows import reporting
from flows.runtime import artifacts
from flows.runtime.tasks import HOUR_S, SAFE_TO_REPEAT, WATCHED, logged, without_tracebacks
from flows.settings.parameters import ReportParameters


# Safe to repeat: every file is written whole.
@task(task_run_name="report-{workspace.root.name}", timeout_seconds=HOUR_S, **SAFE_TO_REPEAT)
def make_report(workspace: Workspace) -> str:
    """Write the report's folder; return its page's address."""
    page = reporting.write_report(workspace, logged("reading"))
    return artifacts.show_report(page, workspace.root.name)


@flow(name="report", flow_run_name="report-{settings.title}", **WATCHED)
def report(settings: ReportParameters) -> str:
    """Write a page to explore all runs and results of a workspace; return its address."""
    without_tracebacks()
    return make_report(settings.place())
