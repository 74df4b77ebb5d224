"""What the page tells of runs, results and probes, as JSON values; no matrix is among them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from allcnn.compare import describe
from allcnn.errors import AllcnnError, ConfigError, RunError
from allcnn.maintenance.rerun_commands import command_of, probe_command
from allcnn.networks.architectures import Architecture
from allcnn.settings.comparison import Comparison
from allcnn.workspace import run_record
from allcnn.workspace.paths import Workspace
from allcnn.workspace.run_listing import Run, Unreadable, list_runs
from flows.reporting.found import changed, is_outdated
from flows.reporting.script import finite
from flows.reporting.sides import Sides
from store import ProbeResult, SimilarityResult, StoreError

_CURVES = ("epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy")


def runs(workspace: Workspace) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Return the runs with their settings and learning curves, and those that cannot be read."""
    found, unreadable = [], []
    for run in list_runs(workspace):
        try:
            if isinstance(run, Unreadable):
                unreadable.append({"run": run.run, "reason": run.reason})
            else:
                found.append(_run(workspace, run))
        except (AllcnnError, StoreError, OSError) as error:  # it was removed meanwhile
            unreadable.append({"run": run.run, "reason": str(error)})
    return found, unreadable


def _run(workspace: Workspace, run: Run) -> dict[str, Any]:
    entry = run_record.read_record(workspace, run.run)
    curves = run_record.columns(run_record.read_history(workspace, run.run))
    return {
        "run": run.run,
        "dataset": run.dataset,
        "epochs_done": run.epochs_done,
        "test_accuracy": run.test_accuracy,
        "checkpoints": run.checkpoints,
        "created_at": run.created_at,
        "settings": entry.config.to_json(),
        "network": entry.config.architecture.label,
        "architecture": _in_words(entry.config.architecture),
        "class_names": entry.class_names,
        "taps": entry.network.taps,
        "curves": {name: list(map(finite, curves[name])) for name in _CURVES},
    }


def _in_words(architecture: Architecture) -> str:
    own = [f"{name} {value}" for name, value in architecture.to_json().items()]
    return ", ".join([architecture.reference, *own])


def result(workspace: Workspace, found: SimilarityResult, sides: Sides) -> dict[str, Any]:
    """Return what the page tells of a result before its numbers are looked at."""
    rows, columns = (describe.side(keys).label for keys in (found.rows, found.columns))
    return {
        "name": found.name,
        "title": rows if found.rows == found.columns else f"{rows} with {columns}",
        "method": describe.method(found),
        "rows": sides.number(found.rows),
        "columns": sides.number(found.columns),
        "shape": found.values.shape,
        "set": found.rows[0].sample_set,
        "n_layers": len({*found.rows, *found.columns}),
        "n_examples": found.n_examples,
        "measure": found.title,
        "limits": found.limits,
        "sums": found.method["sums"].upper(),
        "kernel": found.kernel_title,
        "estimator": _estimator(found),
        "pool": found.pool,
        "label": "" if found.label is None else str(found.label),
        "n_skipped": found.n_skipped,
        "sources": found.sources,
        "created_at": str(found.provenance.get("created_at", "")),
        "versions": _versions(found.provenance),
        "command": _command(workspace, found.provenance),
        "exchanged_command": _command(workspace, found.provenance, exchanged=True),
        "outdated": changed(workspace, found),
    }


def _estimator(found: SimilarityResult) -> str:
    qualifier = str(found.method["qualifier"])
    if found.is_whole:
        return qualifier
    return ", ".join(filter(None, (qualifier, f"minibatches of {found.batch_size}")))


def _versions(provenance: Mapping[str, Any]) -> str:
    versions = provenance.get("versions")
    if not isinstance(versions, dict):
        return ""
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _command(
    workspace: Workspace, provenance: Mapping[str, Any], *, exchanged: bool = False
) -> str:
    """Return the command that computes a result; empty for one of an earlier version."""
    try:
        job = Comparison.from_json(provenance["job"])
    except (KeyError, ConfigError):
        return ""
    if exchanged:
        job = replace(job, rows=job.columns, columns=job.rows)
    return command_of(workspace, job).line


def probe(workspace: Workspace, found: ProbeResult) -> dict[str, Any]:
    """Return a probe of the taps of a network, with its numbers: they are few."""
    first = found.taps[0]
    arrays = ("accuracy", "train_accuracy", "standard_errors", "penalties", "n_features")
    return {
        "name": found.name,
        "network": f"{first.run}@{first.checkpoint}",
        "taps": [key.tap for key in found.taps],
        "set": first.sample_set,
        "train_set": found.train_set,
        "n_train": found.n_train,
        "n_test": found.n_test,
        "pool": found.pool,
        "created_at": str(found.provenance.get("created_at", "")),
        "versions": _versions(found.provenance),
        "command": _probe_command(workspace, found.name),
        "outdated": is_outdated(workspace, found),
    } | {name: list(_values(getattr(found, name))) for name in arrays}


def _probe_command(workspace: Workspace, name: str) -> str:
    try:
        return probe_command(workspace, name).line
    except RunError:
        return ""


def _values(array: Sequence[float] | np.ndarray) -> Iterator[float | None]:
    yield from map(finite, np.asarray(array).tolist())
