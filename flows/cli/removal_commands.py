"""The commands that tell what the stores take, and free it: ``allcnn store du``, ``rm``, ``gc``."""

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from allcnn.errors import ConfigError
from allcnn.settings.selection import Selection
from flows.cli import commands, options
from flows.settings import texts

if TYPE_CHECKING:
    from allcnn.maintenance.garbage import Findings
    from allcnn.maintenance.inventory import Removal

_KINDS: Final = {
    "activations": "activations",
    "grams": "grams",
    "results": "similarity",
    "probes": "probes",
}
"""What a user calls the kinds of stores."""

_MOST: Final = "activations,grams"
_REASONS: Final = ("superseded", "abandoned", "orphaned")
_EVERYTHING: Final = Selection("*", "*")
_DAY_S: Final = 86400

_pattern = click.argument("pattern", metavar="[PATTERN]", required=False)
_json = click.option("--json", "as_json", is_flag=True, help="print one JSON document")
_dry_run = click.option("--dry-run", is_flag=True, help="say what would go, and remove nothing")
_yes = click.option("--yes", is_flag=True, help="remove without asking")


@click.command("du")
@_pattern
@options.workspace
@click.option(
    "--by",
    type=click.Choice(["checkpoint", "run", "sample-set", "store"]),
    default="checkpoint",
    show_default=True,
    help="what has a line of its own",
)
@_json
def usage(pattern: str | None, workspace: str, by: str, as_json: bool) -> None:
    """Tell what the stores take on the disk, and what that is in memory.

    PATTERN is RUN, RUN@CHECKPOINT or RUN@CHECKPOINT:TAP with *, ? and [...]; without it, all there
    is.
    """
    side = _EVERYTHING if pattern is None else texts.networks(pattern)
    place = _workspace(workspace)
    from allcnn.maintenance import inventory as housekeeping
    from flows.views import removal
    from flows.views.not_found import nothing_fits

    entries = housekeeping.usage(housekeeping.take_inventory(place), side)
    if not entries:
        raise nothing_fits(place, [pattern])
    removal.show_usage(place, entries, by, as_json=as_json)


@click.command("rm")
@click.argument("pattern", metavar="PATTERN")
@options.workspace
@click.option(
    "--what",
    default=_MOST,
    show_default=True,
    metavar="LIST",
    help="activations, grams, and results and probes of what PATTERN names, separated by commas",
)
@click.option(
    "--sample-set", metavar="NAME", help="only what is stored on these sample sets; a pattern too"
)
@_dry_run
@_yes
@_json
def remove(pattern: str, workspace: str, what: str, sample_set: str | None, **how: bool) -> None:
    """Remove what is stored of the representations that fit a pattern, whole or not.

    PATTERN is RUN@CHECKPOINT or RUN@CHECKPOINT:TAP with *, ? and [...]; quote it, or the shell
    expands it. TAP may be a tap's name, whatever characters it has. Shows what would go, and asks.
    """
    kinds: Any = [_KINDS[word] for word in _words("what", what, tuple(_KINDS))]
    side = Selection.parse(pattern)
    place = _workspace(workspace)
    from allcnn.maintenance import inventory as housekeeping
    from flows.views import removal
    from flows.views.not_found import nothing_fits, of_option

    def find() -> "list[Removal]":
        inventory = housekeeping.take_inventory(place, kinds)
        found = [each for kind in kinds for each in inventory.select(kind, side, sample_set)]
        return [housekeeping.Removal(each) for each in found]

    housekeeping.check_links(place, kinds, side, sample_set)
    removals = find()
    if not removals:
        narrower = of_option("what", None if what == _MOST else what)
        raise nothing_fits(place, [side, of_option("sample-set", sample_set), narrower])
    removal.free(place, removals, find, (), **how)


@click.command("gc", cls=commands.Command)
@_pattern
@options.workspace
@click.option(
    "--what",
    default=",".join(_REASONS),
    show_default=True,
    metavar="LIST",
    help="superseded: activations whose Grams are kept; abandoned: partial writes that no living"
    " process goes on with; orphaned: results and probes of runs that are gone",
)
@click.option(
    "--older-than",
    type=click.FloatRange(min=0, max=36_500),
    default=7.0,
    show_default=True,
    metavar="DAYS",
    help="for how long a partial write must have lain untouched to be abandoned",
)
@click.option(
    "--keep-activations",
    multiple=True,
    metavar="PATTERN",
    help="activations that stay though their Grams are kept; can be given several times",
)
@_dry_run
@_yes
@_json
def collect(
    pattern: str | None,
    workspace: str,
    what: str,
    older_than: float,
    keep_activations: Sequence[str],
    **how: bool,
) -> None:
    """Remove what nobody needs any more: say what it would free, and ask.

    PATTERN, RUN@CHECKPOINT with *, ? and [...], narrows it to what that names. Superseded
    activations go only where their checkpoint is here, so that they can be extracted again.
    """
    if math.isnan(older_than):
        raise ConfigError("older-than is nan", remedy="use a number of days")
    reasons: Any = _words("what", what, _REASONS)
    side = _EVERYTHING if pattern is None else Selection.parse(pattern)
    spared = [Selection.parse(each) for each in keep_activations]
    place = _workspace(workspace)
    from allcnn.maintenance.garbage import find_garbage
    from allcnn.maintenance.inventory import take_inventory
    from flows.views import removal
    from flows.views.not_found import check_stores

    before = time.time() - older_than * _DAY_S

    def look() -> "Findings":
        return find_garbage(take_inventory(place), reasons, side, spared=spared, before=before)

    findings = look()
    check_stores(place)
    notes = removal.consequences(findings)
    removal.free(place, findings.removable, lambda: look().removable, notes, **how)


def _words(name: str, text: str, known: tuple[str, ...]) -> list[str]:
    words = list(dict.fromkeys(word.strip() for word in text.split(",")))
    if not set(words) <= set(known):
        raise ConfigError(
            f"{name} is {text!r}", remedy=f"use {', '.join(known)}, or several of them"
        )
    return words


def _workspace(root: str) -> Any:
    from allcnn.workspace.paths import Workspace

    return Workspace.at(root)
