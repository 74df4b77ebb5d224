"""Tables and JSON of runs for ``allcnn run``, and removing runs after a question."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from allcnn.commands import command
from allcnn.errors import RunError
from allcnn.workspace import run_record
from allcnn.workspace.paths import Workspace
from allcnn.workspace.run_listing import (
    Description,
    Removable,
    Run,
    Unreadable,
    find_removable,
    remove_run,
)
from allcnn.workspace.run_record import History
from flows.views.listing import age, size
from flows.views.removal import ask
from flows.views.stored import digest_of, key_of, open_stores
from flows.views.tables import aligned, table
from flows.views.terminal import show
from store import ClaimedError
from store.model.names import some_of
from store.storage.claims import is_claimed

if TYPE_CHECKING:
    from allcnn.workspace.run_export import Imported

_MOST_ROWS = 10
"""Epochs that are shown of learning curves."""


def no_runs(workspace: Workspace, pattern: str | None) -> RunError:
    """Return the error for a list that is empty."""
    if pattern is None or not workspace.runs():
        return RunError(
            f"there are no runs yet in {workspace.root}",
            remedy=f"train one with {command(workspace.root, 'train')},"
            " or import the file of an exported one",
        )
    return RunError(
        f"no run in {workspace.root} fits {pattern}",
        remedy=f"{command(workspace.root, 'run', 'ls')} lists all",
    )


def runs_table(found: Sequence[Run | Unreadable]) -> str:
    """Return a line a run, then a line each that cannot be read."""
    rows = [_row(one) for one in found if isinstance(one, Run)]
    unreadable = [one.reason for one in found if isinstance(one, Unreadable)]
    tables = [table(rows)] if rows else []
    return "\n\n".join([*tables, "\n".join(unreadable)] if unreadable else tables)


def runs_json(workspace: Workspace, found: Sequence[Run | Unreadable]) -> dict[str, Any]:
    """Return the same as JSON values."""
    return {
        "workspace": str(workspace.root),
        "runs": [asdict(one) for one in found if isinstance(one, Run)],
        "unreadable": [asdict(one) for one in found if isinstance(one, Unreadable)],
    }


def run_table(found: Description) -> str:
    """Return the settings of a run, its curves in brief, and its checkpoints."""
    summary, began = found.summary, found.summary.created_at
    facts = [
        ("run", summary.run),
        ("state", f"{_state(summary)}, {_epochs(summary)} epochs"),
        ("begun", f"{began}, {age(began)} ago" if began else "not known"),
        ("size", size(summary.n_bytes)),
        ("classes", f"{len(found.class_names)}: {some_of(found.class_names, 10)}"),
        ("channels", str(found.input_channels)),
        *((name.replace("_", " "), str(value)) for name, value in found.settings.items()),
    ]
    checkpoints = [
        {
            "checkpoint": each.checkpoint,
            "files": str(each.n_files),
            "size": size(each.n_bytes),
            "digest of its variables": each.digests.get("variables", "-"),
        }
        for each in found.checkpoints
    ]
    tables = [aligned(facts), *_curves(found), *([table(checkpoints)] if checkpoints else [])]
    return "\n\n".join(tables)


def run_json(found: Description) -> dict[str, Any]:
    """Return the same as JSON values, the whole curves among them."""
    values = asdict(found)
    summary = values.pop("summary")
    del summary["checkpoints"]
    document: dict[str, Any] = summary | values
    return document | {"history": [row._asdict() for row in found.history]}


def check_stored(workspace: Workspace, run: str, digests: Mapping[str, str]) -> None:
    """Raise RunError where what is stored under a checkpoint's name is of another network.

    It would be compared as if it were of the run that is imported.
    """
    for name, found in sorted(_stored_digests(workspace, run).items()):
        if name in digests and found != {digests[name]}:
            raise RunError(
                f"{workspace.root} holds activations or Grams of another {run}@{name}",
                remedy="import into another --workspace",
            )


def in_doubt(workspace: Workspace, imported: "Imported") -> list[str]:
    """Return a line for each stored network of a run that no checkpoint in its file vouches for."""
    run = imported.manifest.run
    known = {*imported.digests, *workspace.checkpoints(run)}
    return [
        f"{run}@{name} is stored, and without that checkpoint it is not known whether of this run"
        for name in sorted(_stored_digests(workspace, run))
        if name not in known
    ]


def histories_of(workspace: Workspace, patterns: Sequence[str]) -> dict[str, History]:
    """Return the learning curves of the runs that fit; raises RunError where one has none."""
    names: dict[str, None] = {}
    for pattern in patterns:
        fitting = dict.fromkeys(run for run in workspace.runs() if fnmatchcase(run, pattern))
        if not fitting:
            raise no_runs(workspace, pattern)
        names |= fitting
    histories = {run: run_record.read_history(workspace, run) for run in names}
    for run, history in histories.items():
        if not history:
            raise RunError(f"run {run!r} has no learning curves before the end of its first epoch")
    return histories


def name_of_all(runs: Sequence[str]) -> str:
    """Return a name of several runs that others do not have."""
    first, *others = runs
    if not others:
        return first
    digest = hashlib.sha256(" ".join(runs).encode()).hexdigest()
    return f"{first}-and-{len(others)}-more-{digest[:8]}"


def remove(workspace: Workspace, runs: Sequence[str], *, yes: bool, as_json: bool) -> None:
    """Show what would go with runs, ask, and remove it; nothing where one of them is in use."""
    found = [find_removable(workspace, run) for run in dict.fromkeys(runs)]
    _check_unused(workspace, found)
    if not as_json:
        stays = "What is stored of them stays: activations, Grams and results."
        show(f"{_removal_table(found)}\n\n{stays}")
    if not yes:
        ask(as_json=as_json)
        _check_unused(workspace, found)  # the answer may have taken a long time
    for each in found:
        remove_run(workspace, each.run)
    n_bytes = sum(each.n_bytes for each in found)
    if as_json:
        removed = list(map(asdict, found))
        show({"workspace": str(workspace.root), "removed": removed, "bytes": n_bytes})
    else:
        show(f"removed {size(n_bytes)}")


def _check_unused(workspace: Workspace, found: Sequence[Removable]) -> None:
    for each in found:
        if is_claimed(workspace.run_folder(each.run)):
            raise ClaimedError(
                f"run {each.run!r} is being trained", remedy="end that process first"
            )


def _row(run: Run) -> dict[str, str]:
    accuracy = run.test_accuracy
    return {
        "run": run.run,
        "data set": run.dataset,
        "epochs": _epochs(run),
        "state": _state(run),
        "test accuracy": "-" if accuracy is None else f"{accuracy:.1%}",
        "checkpoints": str(len(run.checkpoints)),
        "size": size(run.n_bytes),
        "age": age(run.created_at),
    }


def _epochs(run: Run) -> str:
    return f"{run.epochs_done} of {run.epochs}"


def _state(run: Run) -> str:
    return "finished" if run.finished else "unfinished"


def _curves(found: Description) -> list[str]:
    """Return some epochs of the learning curves, the first and the last among them."""
    n = len(found.history)
    if not n:
        return []
    steps = max(1, min(n, _MOST_ROWS) - 1)
    chosen = sorted({round(i * (n - 1) / steps) for i in range(steps + 1)})
    head = ("epoch", "train loss", "accuracy", "test loss", "accuracy", "time")
    rows = [
        (
            str(row.epoch),
            f"{row.train_loss:.4f}",
            f"{row.train_accuracy:.1%}",
            f"{row.test_loss:.4f}",
            f"{row.test_accuracy:.1%}",
            f"{row.wall_s:.1f} s",
        )
        for row in (found.history[i] for i in chosen)
    ]
    return [aligned([head, *rows])]


def _removal_table(found: Sequence[Removable]) -> str:
    rows = [
        {
            "run": each.run,
            "checkpoints": ", ".join(each.checkpoints) or "-",
            "files": str(each.n_files),
            "size": size(each.n_bytes),
            "": "" if each.is_run else "no run: left over",
        }
        for each in found
    ]
    total = f"{sum(e.n_files for e in found)} files, {size(sum(e.n_bytes for e in found))} in all"
    return f"{table(rows)}\n\n{total}"


def _stored_digests(workspace: Workspace, run: str) -> dict[str, set[str]]:
    """Return the digests of the checkpoints that activations and Grams of a run are of."""
    digests: dict[str, set[str]] = defaultdict(set)
    for kept in open_stores(workspace):
        for one in kept.scan(run=run).found:
            digests[key_of(one).checkpoint].add(digest_of(one))
    return digests
