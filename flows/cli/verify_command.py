"""``allcnn store verify``: look for damage, and repair it."""

import json
from collections.abc import Iterator
from typing import Any

import click

from flows.cli import options
from flows.settings import texts

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
    """Read all stores and runs with their checkpoints, and name what is not as it was written.

    A pattern is RUN, RUN@CHECKPOINT or RUN@CHECKPOINT:TAP with *, ? and [...]. The exit status is
    1 where damage is left.
    """
    side = None if pattern is None else texts.networks(pattern)
    from allcnn.workspace.paths import Workspace
    from allcnn.workspace.snapshot import Snapshot
    from flows.views.damage import Told, as_json, look_through, report_lines

    place = Workspace.at(workspace)
    seen = Snapshot.of(place)
    found = look_through(seen, side, *_of_runs(place))
    damage: list[Any] = [*found.run_damage, *found.damage]
    told = [Told(each) for each in damage]
    if want_repair and told:
        told = [Told(of, repaired, said) for of, repaired, said in _repaired(place, found)]
    if want_json:
        click.echo(json.dumps(as_json(found, told), indent=1))
    else:
        advice = _to_finish(seen, found) if found.unfinished else []
        click.echo("\n".join(report_lines(place, found, told, advice)))
    if not all(each.repaired for each in told):
        context.exit(1)


def _of_runs(place: Any) -> tuple[Any, ...]:
    """Return what knows of runs, where there are any: it takes seconds to import."""
    from store.storage.paths import child_names

    if not child_names(place.root / "runs"):
        return ()
    from allcnn.maintenance.verify_runs import examine_runs, taps_of

    return examine_runs, taps_of


def _to_finish(place: Any, found: Any) -> Any:
    from flows.views.finish_advice import to_finish

    return to_finish(place, found.unfinished)


def _repaired(place: Any, found: Any) -> Iterator[tuple[Any, bool, str]]:
    """Yield each damage, whether it was repaired, and how; the runs first, for stores need them."""
    from allcnn.maintenance.repair import repair
    from allcnn.maintenance.repair_runs import repair_run
    from flows.views.progress import Progress

    for damage in found.run_damage:
        yield damage, *repair_run(place, damage)
    if not found.damage:
        return
    with Progress([1]) as progress, progress.step("repairing") as report:
        for each in repair(place, found.damage, report):
            yield each.damage, each.repaired, each.said
