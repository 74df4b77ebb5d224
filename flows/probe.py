"""The flow that trains linear classifiers on the stored taps of networks."""

from prefect import flow, task

from allcnn.probing import fit
from allcnn.settings.probing import Probing
from allcnn.workspace.paths import Workspace
from flows.runtime import artifacts
from flows.runtime.tasks import HOUR_S, SAFE_TO_REPEAT, WATCHED, logged, without_tracebacks
from flows.settings.parameters import ProbeParameters


# Safe to repeat: it goes on after the last tap that was finished.
@task(task_run_name="probe-{job.networks}", timeout_seconds=24 * HOUR_S, **SAFE_TO_REPEAT)
def probe_networks(job: Probing, workspace: Workspace) -> list[str]:
    """Probe networks, keep and show the accuracies; return the results' names."""
    results = fit.probe(workspace, job, logged("probing"))
    for result in results:
        artifacts.show_probe(workspace, result)
    return [result.name for result in results]


@flow(name="probe", flow_run_name="probe-{settings.networks}", **WATCHED)
def probe(settings: ProbeParameters) -> list[str]:
    """Train a linear classifier on each tap of networks, from stored activations, and test it.

    Returns the results' names, one a network.
    """
    without_tracebacks()
    return probe_networks(settings.job(), settings.place())
