"""Commands that show what the stores take, and free it: ``allcnn store du``, ``rm`` and ``gc``."""

import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import click

from allcnn.definitions.bounds import Bounds
from allcnn.errors import ConfigError
from allcnn.settings.selection import EVERYTHING, Selection
from flows.cli import commands, options
from flows.cli.options import option
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
"""Kinds of stores by the names that users give them."""

_MOST: Final = ("activations", "grams")
_REASONS: Final = ("superseded", "abandoned", "orphaned")
_AGE_DAYS: Final = Bounds(0, 36_500, whole=False)
_DAY_S: Final = 86400

_dry_run = option("dry_run", False, "say what would go, and remove nothing")


def _words(known: tuple[str, ...], text: str) -> tuple[str, ...]:
    words = texts.words(text)
    if not set(words) <= set(known):
        raise ConfigError("what", f"is {text!r}", f"use {', '.join(known)}, or several of them")
    return words


@click.command("du")
@options.some_networks
@options.workspace
@option(
    "by",
    "checkpoint",
    "what has a line of its own",
    choices=("checkpoint", "run", "sample-set", "store"),
)
@options.as_json
def usage(pattern: Selection | None, place: Any, by: str, as_json: bool) -> None:
    """Show what the stores take on the disk, and what that is in memory.

    PATTERN is RUN, RUN@CHECKPOINT or RUN@CHECKPOINT:TAP with *, ? and [...]; by default all.
    """
    from allcnn.maintenance import inventory as housekeeping
    from flows.views import removal
    from flows.views.stored import nothing_fits

    entries = housekeeping.usage(housekeeping.take_inventory(place), pattern or EVERYTHING)
    if not entries:
        raise nothing_fits(place, pattern)
    removal.show_usage(place, entries, by, as_json=as_json)


@click.command("rm")
@options.argument("pattern", "PATTERN")
@options.workspace
@option(
    "what",
    ",".join(_MOST),
    "activations, grams, and results and probes of what PATTERN names, separated by commas",
    read=partial(_words, tuple(_KINDS)),
    metavar="LIST",
)
@option(
    "sample_set", None, "only what is stored on these sample sets; a pattern too", metavar="NAME"
)
@_dry_run
@options.yes
@options.as_json
def remove(
    pattern: Selection, place: Any, what: tuple[str, ...], sample_set: str | None, **how: bool
) -> None:
    """Remove what is stored of the representations that fit a pattern, whole or not.

    PATTERN is RUN@CHECKPOINT or RUN@CHECKPOINT:TAP with *, ? and [...]; quote it, or the shell
    expands it. TAP may be a tap's name, whatever characters it has. Shows what would go, and asks.
    """
    kinds: Any = [_KINDS[word] for word in what]
    from allcnn.maintenance import inventory as housekeeping
    from flows.views import removal
    from flows.views.stored import nothing_fits

    def find() -> "list[Removal]":
        inventory = housekeeping.take_inventory(place, kinds)
        found = [each for kind in kinds for each in inventory.select(kind, pattern, sample_set)]
        return [housekeeping.Removal(each) for each in found]

    housekeeping.check_links(place, kinds, pattern, sample_set)
    removals = find()
    if not removals:
        narrower = None if what == _MOST else ",".join(what)
        raise nothing_fits(place, pattern, sample_set=sample_set, what=narrower)
    removal.free(place, removals, find, (), **how)


@click.command("gc", cls=commands.Command)
@options.argument("pattern", "[PATTERN]", required=False)
@options.workspace
@option(
    "what",
    ",".join(_REASONS),
    "superseded: activations whose Grams are kept; abandoned: partial writes that no living process"
    " continues; orphaned: results and probes of runs that are gone",
    read=partial(_words, _REASONS),
    metavar="LIST",
)
@option(
    "older_than",
    7.0,
    "for how long a partial write must have lain untouched to be abandoned",
    bounds=_AGE_DAYS,
    metavar="DAYS",
)
@option(
    "keep_activations",
    (),
    "activations that stay though their Grams are kept; can be given several times",
    read=Selection.parse,
    metavar="PATTERN",
)
@_dry_run
@options.yes
@options.as_json
def collect(
    pattern: Selection | None,
    place: Any,
    what: Any,
    older_than: float,
    keep_activations: Sequence[Selection],
    **how: bool,
) -> None:
    """Find data that can be deleted: show what that would free, ask, and remove it.

    PATTERN, RUN@CHECKPOINT with *, ? and [...], narrows it to what that names. Superseded
    activations go only where their checkpoint is here, so that they can be extracted again.
    """
    _AGE_DAYS.check("older-than", older_than)
    from allcnn.maintenance.garbage import find_garbage
    from allcnn.maintenance.inventory import take_inventory
    from flows.views import removal
    from flows.views.stored import check_stores

    before = time.time() - older_than * _DAY_S

    def look() -> "Findings":
        inventory = take_inventory(place)
        side = pattern or EVERYTHING
        return find_garbage(inventory, what, side, spared=keep_activations, before=before)

    findings = look()
    check_stores(place)
    notes = removal.consequences(findings)
    removal.free(place, findings.removable, lambda: look().removable, notes, **how)
