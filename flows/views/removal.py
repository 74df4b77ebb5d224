"""Tables, JSON and the question before removal, for ``allcnn store du``, ``rm`` and ``gc``."""

import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

import click

from allcnn.errors import ConfigError
from allcnn.maintenance.inventory import Removal, discard
from allcnn.workspace.paths import Workspace
from flows.views.listing import size
from flows.views.tables import table
from flows.views.terminal import is_terminal, show
from store.model.names import readable, some_of
from store.zarrfiles.layout import NAMED

if TYPE_CHECKING:
    from allcnn.maintenance.garbage import Findings

_NAMES: Final = {
    "activations": "activations",
    "grams": "Grams",
    "similarity": "results",
    "probes": "probes",
}
"""Names of the stores for people."""

_COLUMNS: Final = {
    "checkpoint": ("run@checkpoint", "sample_set"),
    "run": ("run",),
    "sample-set": ("sample_set",),
}
_KEYS: Final = {
    "by_checkpoint": ("sample_set", "run", "checkpoint"),
    "by_run": ("run",),
    "by_sample_set": ("sample_set",),
}
"""Names by which entries are grouped, in the table and in JSON."""

Entries = Sequence[dict[str, Any]]


def show_usage(place: Workspace, entries: Entries, by: str, *, as_json: bool) -> None:
    """Print what the stores take: a table and its totals, or one JSON document."""
    stores = {kind: [each for each in entries if each["store"] == kind] for kind in _NAMES}
    if as_json:
        document: dict[str, Any] = {"workspace": str(place.root), "entries": entries}
        for name, keys in _KEYS.items():
            document[name] = [of | _totals(group) for of, group in _grouped(entries, keys)]
        document["by_store"] = {kind: _totals(some) for kind, some in stores.items()}
        show(document | {"all": _totals(entries)})
        return
    rows = []
    for names, group in _grouped(entries, (*_COLUMNS[by], "store")) if by in _COLUMNS else ():
        shown = {name.replace("_", " "): value for name, value in names.items()}
        rows.append(shown | _usage_row(_NAMES[names["store"]], group))
    if rows:
        show(table(rows) + "\n")
    totals = [_usage_row(_NAMES[kind], some) for kind, some in stores.items()]
    show(table([*totals, _usage_row("all", entries)]))


def _grouped(
    entries: Entries, keys: tuple[str, ...]
) -> list[tuple[dict[str, str], list[dict[str, Any]]]]:
    """Group what belongs to networks by some of their names, sorted by these."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for entry in entries:
        if "checkpoint" in entry:
            names = entry | {"run@checkpoint": f"{entry['run']}@{entry['checkpoint']}"}
            groups[tuple(names[key] for key in keys)].append(entry)
    return [(dict(zip(keys, of, strict=True)), group) for of, group in sorted(groups.items())]


def _usage_row(store: str, entries: Entries) -> dict[str, str]:
    groups, raw, stored = _totals(entries).values()
    raw = "unreadable" if raw is None else size(raw)
    return {"store": store, "groups": str(groups), "raw": raw, "stored": size(stored)}


def _totals(entries: Entries) -> dict[str, Any]:
    raw = [entry["raw_bytes"] for entry in entries]
    return {
        "groups": sum(entry["groups"] for entry in entries),
        "raw_bytes": None if None in raw else sum(raw),
        "stored_bytes": sum(entry["stored_bytes"] for entry in entries),
    }


def consequences(findings: "Findings") -> list[str]:
    """Return sentences on the loss of superseded activations, and on those that stay."""
    notes = []
    if any(each.reason == "superseded" for each in findings.removable):
        notes.append(
            "Without its activations a network cannot be read, queried, probed or compared with"
            " --estimator exact, nor with other kernels, pooling or minibatches than those of its"
            " Grams, until they are extracted again."
        )
    if findings.irreplaceable:
        names = list(dict.fromkeys("@".join(e.names[1:3]) for e in findings.irreplaceable))
        n_bytes = sum(each.n_bytes for each in findings.irreplaceable)
        notes.append(
            f"{size(n_bytes)} of activations stay though their Grams are kept, since the"
            " checkpoints or the examples that they are of are not here, or those Grams are damaged"
            f" ({some_of(names, 4)})."
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

    Data that changed before the answer stay. Raises ConfigError without a terminal to ask on.
    """
    if not as_json:
        show("\n".join([_removal_table(removals), *notes]))
    gone: Sequence[Removal] = ()
    if removals and not dry_run:
        if not yes:
            ask(as_json=as_json)
            again = look_again()
            removals = [each for each in removals if each in again]
        discard(place, [each.found for each in removals])
        gone = removals
    if as_json:
        show(_removal_json(place, removals, notes, removed=bool(gone)))
    elif gone:
        show(f"removed {_size(gone)}")


def ask(*, as_json: bool) -> None:
    """Ask whether all that was shown may go; raises ConfigError without a terminal to ask on."""
    if as_json:
        raise ConfigError("--json shows nothing to decide on", remedy="add --yes or --dry-run")
    if not is_terminal(sys.stdin):
        raise ConfigError(
            "nothing is removed without asking, and there is no terminal to ask on",
            remedy="add --yes",
        )
    click.confirm("Remove all of this?", abort=True, err=True)


def _removal_table(removals: Sequence[Removal]) -> str:
    if not removals:
        return "nothing to remove"
    rows = []
    for (kind, what, sample_set, reason, note), group in groupby(removals, _line):
        members = list(group)
        row = {
            "store": _NAMES[kind],
            "what": what,
            "sample set": sample_set,
            "groups": str(len(members)),
            "size": size(sum(each.found.n_bytes for each in members)),
        }
        gives_reasons = any(each.reason for each in removals)
        rows.append(row | {"why": reason, "": note} if gives_reasons else row)
    return f"{table(rows)}\n\n{_size(removals)} in all"


def _line(removal: Removal) -> tuple[str, ...]:
    """Return what removals of one line have in common: a network, a result, or a file."""
    found = removal.found
    what, sample_set = found.path, ""
    if not (found.is_file or found.kind in NAMED):
        what, sample_set = "@".join(found.names[1:3]), found.names[0]
    return found.kind, what, sample_set, removal.reason, removal.note


def _removal_json(
    place: Workspace, removals: Sequence[Removal], notes: Sequence[str], *, removed: bool
) -> dict[str, Any]:
    items = [
        {
            "store": each.found.kind,
            "path": each.found.path,
            "of": readable(each.found.path),
            "files": each.found.n_files,
            "bytes": each.found.n_bytes,
            "why": each.reason,
            "note": each.note,
        }
        for each in removals
    ]
    return {
        "workspace": str(place.root),
        "removed": removed,
        "items": items,
        "files": sum(each.found.n_files for each in removals),
        "bytes": sum(each.found.n_bytes for each in removals),
        "notes": list(notes),
    }


def _size(removals: Sequence[Removal]) -> str:
    n_files = sum(each.found.n_files for each in removals)
    return f"{n_files} files, {size(sum(each.found.n_bytes for each in removals))}"
