"""Run a flow of Prefect in this process, by its name."""

from contextlib import suppress
from importlib import import_module
from typing import Any

from prefect import Flow
from prefect.client.schemas.objects import State
from prefect.exceptions import MissingResult, ParameterTypeError
from pydantic import ValidationError

from allcnn.definitions.bounds import shown
from allcnn.errors import AllcnnError, ConfigError
from flows.runtime.server import serving
from flows.settings import parameters
from flows.settings.shared import FLOWS

PARAMETERS: dict[str, type[parameters.Parameters]] = {
    name: getattr(parameters, f"{name.capitalize()}Parameters") for name in FLOWS
}


class FlowFailedError(AllcnnError, RuntimeError):
    """A flow ended in a failed state of its own."""


def run(name: str, settings: dict[str, Any]) -> list[str]:
    """Run a flow and return what it returns, as lines.

    Raises ConfigError for settings outside their bounds before any run exists, and what the flow
    raised; ServerError where the server that PREFECT_API_URL names does not answer.
    """
    try:
        checked = PARAMETERS[name](**settings)
    except ValidationError as error:
        raise ConfigError(_sentence(PARAMETERS[name], error)) from error
    try:
        # First, as the libraries of a flow take seconds to import.
        with serving():
            flow: Flow[..., Any] = getattr(import_module(f"flows.{name}"), name)
            state: Any = flow(settings=checked, return_state=True)
    except ParameterTypeError as error:
        raise ConfigError(str(error)) from error
    assert isinstance(state, State)
    if not state.is_completed():
        raise _failure(name, state)
    found = state.result() if state.data is not None else None
    if not isinstance(found, (str, list)):
        return [state.message or str(state.name)]
    return [found] if isinstance(found, str) else [str(each) for each in found]


def _failure(name: str, state: State[Any]) -> BaseException:
    """Return what a flow raised, or else what its state says."""
    with suppress(MissingResult):
        found = state.result(raise_on_failure=False)
        if isinstance(found, BaseException):
            return found
    return FlowFailedError(state.message or f"the flow {name} ended as {state.name}")


def _sentence(model: type[parameters.Parameters], error: ValidationError) -> str:
    """Return the first thing that is wrong with settings, in one sentence."""
    first, *others = error.errors()
    more = f" (and {len(others)} more)" if others else ""
    if not first["loc"]:
        return first["msg"].removeprefix("Value error, ") + more
    name, reason = ".".join(map(str, first["loc"])), first["msg"]
    field = model.model_fields.get(str(first["loc"][0]))
    if first["type"] == "string_pattern_mismatch" and field is not None:
        reason = f"it is no such thing as wanted, which is {field.description}"
    if first["type"] == "missing":
        return f"{name}: {reason}{more}"
    return f"{name}: {reason}; found {shown(first['input'])}{more}"
