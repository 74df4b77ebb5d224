"""What happens at the ends of a flow run that nobody watches.

Prefect's engine calls a hook by position, its runner and worker by keyword: the parameters of all
hooks are therefore called ``flow``, ``flow_run`` and ``state``.
"""

from typing import Any, Final

from prefect import Flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.logging.loggers import flow_run_logger

_SAFE: Final = "what was finished is kept, and the same run goes on from there"


def tell_failure(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Log which run failed, and why; automations find it by this sentence, too."""
    cause = " ".join((state.message or state.name or "no reason is known").split())
    logger = flow_run_logger(flow_run, flow)
    logger.error("run %r of the flow %r failed: %s; %s", flow_run.name, flow.name, cause, _SAFE)


def tell_end(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Log that a run was cancelled or that its process died."""
    logger = flow_run_logger(flow_run, flow)
    how = "was cancelled" if state.is_cancelled() or state.is_cancelling() else "crashed"
    logger.warning("run %r of the flow %r %s; %s", flow_run.name, flow.name, how, _SAFE)


WATCHED: Final[dict[str, Any]] = {
    "on_failure": [tell_failure],
    "on_cancellation": [tell_end],
    "on_crashed": [tell_end],
}
"""Hooks of every flow."""
