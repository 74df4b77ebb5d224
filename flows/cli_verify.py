"""``allcnn store verify``: look for damage, and repair it."""

import json
from typing import Any

import click

from flows import options

_HELP = {
    "repair": "compute again what is damaged, where its checkpoint still exists",
    "json": "print one JSON document for programs",
}


@click.command("verify")
@click.argument("pattern", metavar="[PATTERN]", required=False)
@options.workspace
@click.option("--repair", "want_repair", is_flag=True, help=_HELP["repair"])
@click.option("--json", "want_json", is_flag=True, help=_HELP["json"])
@click.pass_context
def verify(
    context: click.Context, pattern: str | None, workspace: str, want_repair: bool, want_json: bool
) -> None:
    """Read all activations, Grams, results and probes, and name what is not as it was written.

    A pattern is RUN, RUN@CHECKPOINT or RUN@CHECKPOINT:TAP with *, ? and [...]. The exit status is
    1 where damage is left.
    """
    side = None if pattern is None else options.networks(pattern)
    from allcnn.workspace import Workspace
    from flows.verifying import Told, as_json, look_through, report_lines

    place = Workspace.at(workspace)
    found = look_through(place, side)
    told = [Told(each) for each in found.damage]
    if want_repair and told:
        told = [Told(each.damage, each.repaired, each.said) for each in _repair(place, found)]
    if want_json:
        click.echo(json.dumps(as_json(found, told), indent=1))
    else:
        advice = _to_finish(place, found) if found.unfinished else []
        click.echo("\n".join(report_lines(place, found, told, advice)))
    if not all(each.repaired for each in told):
        context.exit(1)


def _to_finish(place: Any, found: Any) -> Any:
    from flows.finishing import to_finish

    return to_finish(place, found.unfinished)


def _repair(place: Any, found: Any) -> Any:
    from allcnn.repair import repair
    from flows.progress import Progress

    with Progress([1]) as progress, progress.step("repairing") as report:
        return repair(place, found.damage, report)
