"""``allcnn nightly``, ``allcnn report`` and ``allcnn flow``: what else Prefect's schedules do."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import click

from allcnn.cluster.spec import ClusterSpec
from allcnn.errors import ConfigError
from flows.cli import commands, options
from flows.cli.options import option
from flows.settings.nightly_plan import SETTINGS, Nightly
from flows.settings.shared import FLOWS
from flows.views.terminal import show

T = TypeVar("T")


@click.command(cls=commands.Command)
@options.workspace
@options.giving(each for each in SETTINGS if each.name != "busy")
@options.minibatch
@options.kernels
@option("wait", False, "wait while another nightly run is at work")
@options.cluster
@options.as_json
@click.pass_context
def nightly(
    context: click.Context,
    /,
    place: Any,
    wait: bool,
    cluster: ClusterSpec,
    as_json: bool,
    **how: Any,
) -> None:
    """Bring a workspace up to date, as the nightly flow does.

    Stores new checkpoints (their Gram matrices), extends and renews all matrices, verifies a share
    of all that is stored, draws, and writes the report. All that is up to date is left alone.
    """
    methods = options.take_methods(how)
    plan = Nightly.of(methods, busy="wait" if wait else "step-aside", **how)
    from flows.maintenance.nightly_summary import text

    summary, page = _whole_night(place, plan, cluster)
    show(summary.to_json() if as_json else f"{text(summary)}\n\nreport   {page}")
    if summary.failed:
        context.exit(1)


def _whole_night(place: Any, plan: Any, spec: ClusterSpec) -> tuple[Any, Any]:
    from allcnn.cluster.cluster import Cluster
    from allcnn.progress import Report
    from flows.maintenance.nightly_run import holding, work_through
    from flows.views.progress import Progress

    def step(name: str, body: Callable[[Report], T]) -> T:
        with Progress([1.0]) as progress, progress.step(name) as report:
            return body(report)

    tell = partial(click.echo, err=True)
    # Checkpoints are stored without workers, too.
    with holding(place, plan, tell) as work, Cluster(spec, tell, must_answer=False) as workers:
        work_through(work, workers, step)
        page = work.end()
        return work.summary, page


@click.command()
@options.workspace
def report(place: Any) -> None:
    """Write a page to explore all runs and results, that opens from the disk; print where it is."""
    from flows import reporting
    from flows.views.progress import Progress

    reporting.check_there(place)
    with Progress([1.0]) as progress, progress.step("reading") as report:
        page = reporting.write_report(place, report)
    click.echo(page)


@click.command("flow")
@click.argument("name", type=click.Choice(FLOWS))
@option("settings", "{}", "settings of the flow, as its form", metavar="JSON")
def run_flow(name: str, settings: str) -> None:
    """Run a flow of Prefect in this process, with its logs; print what it returns.

    Without PREFECT_API_URL a server is started for it, and stopped at its end; no one else on this
    machine can use it.
    """
    from store.model.strict_json import parse

    example = """'{"epochs": 2}'"""
    try:
        given = parse(settings)
    except ValueError as error:
        raise ConfigError(
            "settings", f"is no JSON ({error})", f"write it as in {example}"
        ) from error
    if not isinstance(given, dict):
        raise ConfigError("settings", f"is {settings}", f"write an object, as in {example}")
    _check_prefect()
    from flows.runtime.embedded import run

    for line in run(name, given):
        click.echo(line)


def _check_prefect() -> None:
    """Import Prefect, which reads its settings then; raises ConfigError where it refuses one."""
    try:
        import prefect.context  # noqa: F401
    except ValueError as error:  # pydantic's, and that of a malformed TOML file
        from pydantic import ValidationError

        found = error.errors()[0] if isinstance(error, ValidationError) else {"msg": str(error)}
        where = ".".join(map(str, found.get("loc", ())))
        said = (f"{where}: " if where else "") + found["msg"].removeprefix("Value error, ")
        raise ConfigError(
            f"Prefect refuses its settings ({said})",
            remedy="look at the variables that begin with PREFECT_ and at profiles.toml in"
            " PREFECT_HOME, or in ~/.prefect",
        ) from error
