"""What ``allcnn store du``, ``rm`` and ``gc`` show, and the question before anything goes."""

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

import click

from allcnn.errors import ConfigError
from allcnn.maintenance.inventory import Entry, Removal, discard
from allcnn.workspace.paths import Workspace
from flows.views.listing import size
from flows.views.tables import aligned
from flows.views.terminal import is_terminal
from store.maintenance.usage import Usage
from store.model.names import readable
from store.zarrfiles.layout import NAMED

if TYPE_CHECKING:
    from allcnn.maintenance.garbage import Findings

_NAMES: Final = {
    "activations": "activations",
    "grams": "Grams",
    "similarity": "results",
    "probes": "probes",
}
"""What people call the kinds of stores."""

_HEADS: Final = {
    "checkpoint": ("run@checkpoint", "sample set"),
    "run": ("run",),
    "sample-set": ("sample set",),
}

Row = tuple[str, ...]


def show_usage(place: Workspace, entries: Sequence[Entry], by: str, *, as_json: bool) -> None:
    """Print what the stores take: a table and its totals, or one JSON document."""
    if as_json:
        click.echo(json.dumps(_usage_json(place, entries), indent=1))
        return
    columns = ("store", "groups", "raw", "stored")
    groups = _grouped(entries, by)
    if groups:
        rows = [(*of, _NAMES[kind], *_numbers(group)) for (of, kind), group in groups.items()]
        click.echo(aligned([(*_HEADS[by], *columns), *rows]) + "\n")
    totals = [(_NAMES[kind], *_numbers([e for e in entries if e.kind == kind])) for kind in _NAMES]
    click.echo(aligned([columns, *totals, ("all", *_numbers(entries))]))


def _grouped(entries: Sequence[Entry], by: str) -> dict[tuple[Row, str], list[Entry]]:
    groups: dict[tuple[Row, str], list[Entry]] = defaultdict(list)
    for entry in entries:
        if by in _HEADS and entry.kind not in NAMED and entry.names:
            groups[_label(entry, by), entry.kind].append(entry)
    return dict(sorted(groups.items()))


def _label(entry: Entry, by: str) -> Row:
    sample_set, run, checkpoint = entry.names
    if by == "checkpoint":
        return f"{run}@{checkpoint}", sample_set
    return (run if by == "run" else sample_set,)


def _numbers(entries: Sequence[Entry]) -> Row:
    totals = _totals(entries)
    raw = totals["raw_bytes"]
    return (
        str(totals["groups"]),
        "unreadable" if raw is None else size(raw),
        size(totals["stored_bytes"]),
    )


def _totals(entries: Sequence[Entry]) -> dict[str, Any]:
    raw = [entry.raw_bytes for entry in entries]
    return {
        "groups": sum(entry.n_groups for entry in entries),
        "raw_bytes": None if None in raw else sum(filter(None, raw)),
        "stored_bytes": sum(entry.stored_bytes for entry in entries),
    }


def _usage_json(place: Workspace, entries: Sequence[Entry]) -> dict[str, Any]:
    document: dict[str, Any] = {"workspace": str(place.root), "entries": []}
    for entry in entries:
        one = "probe" if entry.kind == "probes" else "result"
        names = ("sample_set", "run", "checkpoint") if len(entry.names) == 3 else (one,)
        of = dict(zip(names, entry.names, strict=False))
        document["entries"].append({"store": entry.kind} | of | _totals([entry]))
    for by in _HEADS:
        document[f"by_{by.replace('-', '_')}"] = _sums(entries, by)
    document["by_store"] = {
        kind: _totals([entry for entry in entries if entry.kind == kind]) for kind in _NAMES
    }
    return document | {"all": _totals(entries)}


def _sums(entries: Sequence[Entry], by: str) -> list[dict[str, Any]]:
    names = {"checkpoint": ("sample_set", "run", "checkpoint"), "run": ("run",)}
    keys = names.get(by, ("sample_set",))
    sums: dict[Row, list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry.kind not in NAMED and entry.names:
            of = dict(zip(names["checkpoint"], entry.names, strict=True))
            sums[tuple(of[key] for key in keys)].append(entry)
    return [dict(zip(keys, of, strict=True)) | _totals(group) for of, group in sorted(sums.items())]


def consequences(findings: "Findings") -> list[str]:
    """Return what is lost with superseded activations, and which of them stay, as sentences."""
    notes = []
    if any(each.reason == "superseded" for each in findings.removable):
        notes.append(
            "Without its activations a network cannot be read, queried, probed or compared with"
            " --estimator exact, nor with other kernels, pooling or minibatches than those of its"
            " Grams, until they are extracted again."
        )
    if findings.irreplaceable:
        names = list(dict.fromkeys("@".join(e.names[1:3]) for e in findings.irreplaceable))
        networks = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
        n_bytes = sum(each.n_bytes for each in findings.irreplaceable)
        notes.append(
            f"{size(n_bytes)} of activations stay though their Grams are kept, since the"
            " checkpoints or the examples that they are of are not here, or those Grams are damaged"
            f" ({networks})."
        )
    return notes


def free(
    place: Workspace,
    removals: Sequence[Removal],
    look_again: Callable[[], Sequence[Removal]],
    notes: Sequence[str],
    *,
    yes: bool,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Show what would go, ask, and remove it.

    What changed while it was asked stays. Raises ConfigError where there is no terminal to ask on.
    """
    if not as_json:
        click.echo("\n".join([_removal_table(removals), *notes]))
    gone: Sequence[Removal] = ()
    if removals and not dry_run:
        if not yes:
            ask(as_json=as_json)
            again = look_again()
            removals = [each for each in removals if each in again]
        discard(place, [each.found for each in removals])
        gone = removals
    if as_json:
        click.echo(json.dumps(_removal_json(place, removals, notes, removed=bool(gone)), indent=1))
    elif gone:
        click.echo(f"removed {_size(gone)}")


def ask(*, as_json: bool) -> None:
    """Ask whether all that was shown may go; raises ConfigError without a terminal to ask on."""
    if as_json:
        raise ConfigError("--json shows nothing to decide on", remedy="add --yes or --dry-run")
    if not is_terminal(sys.stdin):
        raise ConfigError(
            "nothing is removed unasked, and no terminal is there to ask on", remedy="add --yes"
        )
    click.confirm("Remove all of this?", abort=True, err=True)


def _removal_table(removals: Sequence[Removal]) -> str:
    if not removals:
        return "nothing to remove"
    rows = []
    for (kind, of, reason, note), group in groupby(removals, _line):
        members = list(group)
        taken = size(sum(each.found.n_bytes for each in members))
        rows.append((_NAMES[kind], *of, str(len(members)), taken, reason, note))
    head: Row = ("store", "what", "sample set", "groups", "size", "why", "")
    if not any(each.reason for each in removals):
        head, rows = head[:5], [row[:5] for row in rows]
    return aligned([head, *rows]) + f"\n\n{_size(removals)} in all"


def _line(removal: Removal) -> tuple[str, Row, str, str]:
    """Return what removals of one line have in common: a network, a result, or a file."""
    found = removal.found
    if found.is_file or found.kind in NAMED:
        return found.kind, (found.path, ""), removal.reason, removal.note
    sample_set, run, checkpoint = found.names[:3]
    return found.kind, (f"{run}@{checkpoint}", sample_set), removal.reason, removal.note


def _removal_json(
    place: Workspace, removals: Sequence[Removal], notes: Sequence[str], *, removed: bool
) -> dict[str, Any]:
    return {
        "workspace": str(place.root),
        "removed": removed,
        "items": [_item(each.found) | {"why": each.reason, "note": each.note} for each in removals],
        "files": sum(each.found.n_files for each in removals),
        "bytes": sum(each.found.n_bytes for each in removals),
        "notes": list(notes),
    }


def _item(found: Usage) -> dict[str, Any]:
    return {
        "store": found.kind,
        "path": found.path,
        "of": readable(found.path),
        "files": found.n_files,
        "bytes": found.n_bytes,
    }


def _size(removals: Sequence[Removal]) -> str:
    n_files = sum(each.found.n_files for each in removals)
    return f"{n_files} files, {size(sum(each.found.n_bytes for each in removals))}"
