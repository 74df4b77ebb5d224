"""Read runs, results and probes for the page: their facts as JSON values, without matrices."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count, groupby
from typing import Any, Literal

from allcnn.advice import listing
from allcnn.compare import describe, network_of
from allcnn.compare.current import is_record_current
from allcnn.errors import AllcnnError, ConfigError, RunError
from allcnn.maintenance.rerun_commands import command_of, probe_command
from allcnn.progress import Report, silent
from allcnn.settings.comparison import Comparison
from allcnn.settings.selection import Selection
from allcnn.workspace import run_record
from allcnn.workspace.paths import Workspace
from allcnn.workspace.run_listing import Run, Unreadable, list_runs
from flows.views.stored import has_stores
from store import (
    ProbeResult,
    RepresentationKey,
    SimilarityResult,
    StoreError,
    has_store,
    read_probe,
    read_result,
)
from store.errors import UnfinishedError, UnknownProbeError, UnknownResultError
from store.maintenance.verify import verify
from store.storage.paths import Place, child_names

_CURVES = ("epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy")


class Sides:
    """Number the sides of matrices; a hundred matrices of a thousand checkpoints mostly share them.

    A side is a list of pairs, of the numbers of a network and of its taps.
    """

    def __init__(self) -> None:
        self._networks, self._taps, self._sides = (_numbers() for _ in range(3))

    def number(self, keys: Sequence[RepresentationKey]) -> int:
        """Return the number of a side: of the networks along it, with their taps."""
        groups = []
        for network, members in groupby(keys, key=network_of):
            named, taps = (network.run, network.checkpoint), tuple(key.tap for key in members)
            groups.append((self._networks[named], self._taps[taps]))
        return self._sides[tuple(groups)]

    def to_json(self) -> dict[str, Any]:
        """Return what the numbers stand for."""
        known = {"networks": self._networks, "taps": self._taps, "sides": self._sides}
        return {name: list(things) for name, things in known.items()}


def _numbers() -> defaultdict[Any, int]:
    """Return a dict that numbers its keys, in the order in which they are first asked for."""
    return defaultdict(count().__next__)


def check_there(workspace: Workspace) -> None:
    """Raise RunError for a workspace with nothing in it, as one of a mistyped name."""
    if not (workspace.runs() or has_stores(workspace)):
        raise RunError(
            f"{workspace.root} holds no runs and no stores",
            remedy=f"{listing(workspace)}, or name another --workspace",
        )


def records(
    workspace: Workspace, kind: Literal["similarity", "probes"], report: Report = silent
) -> Iterator[Any]:
    """Yield the results or the probes, and for each that cannot be read the reason."""
    place, read = workspace.store(kind), {"similarity": read_result, "probes": read_probe}[kind]
    names = child_names(place) if has_store(place) else []
    for done, name in enumerate(names, start=1):
        try:
            found = read(place, name)
        except StoreError as error:
            found = _reason(place, kind, name, error)
        yield found
        report(done, len(names), f"reading {name}")


def _reason(
    place: Place, kind: Literal["similarity", "probes"], name: str, error: StoreError
) -> str:
    """Return why a record cannot be read; without metadata, reading it says too little."""
    if not isinstance(error, UnknownResultError | UnknownProbeError | UnfinishedError):
        return str(error)
    damage = [str(each) for one in verify(place, kind, result=name) for each in one.damage]
    # Nothing says any more what it came from, so that no command computes it again.
    advice = f"restore {place / name} from a copy, or delete it"
    return f"{', and '.join(damage)}; {advice}" if damage else str(error)


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
    architecture = entry.config.architecture
    sizes = [f"{name} {value}" for name, value in architecture.to_json().items()]
    curves = run_record.columns(run_record.read_history(workspace, run.run))
    own_names = ("run", "dataset", "epochs_done", "test_accuracy", "checkpoints", "created_at")
    return {name: getattr(run, name) for name in own_names} | {
        "settings": entry.config.to_json(),
        "network": architecture.label,
        "architecture": ", ".join([architecture.reference, *sizes]),
        "class_names": entry.class_names,
        "taps": entry.network.taps,
        "curves": {name: describe.nested(curves[name]) for name in _CURVES},
    }


def result(workspace: Workspace, found: SimilarityResult, sides: Sides) -> dict[str, Any]:
    """Return the facts of a result; its numbers are in a file of their own."""
    rows, columns = (describe.side(keys).label for keys in (found.rows, found.columns))
    sizes = "" if found.is_whole else f"minibatches of {found.batch_size}"
    on, at = found.rows[0].sample_set, str(found.provenance.get("created_at", ""))
    digests = digests_of(found).items()
    own_names = ("name", "n_examples", "limits", "pool", "n_skipped", "sources")
    return {name: getattr(found, name) for name in own_names} | {
        "title": rows if found.rows == found.columns else f"{rows} with {columns}",
        "method": describe.method(found),
        "rows": sides.number(found.rows),
        "columns": sides.number(found.columns),
        "shape": found.values.shape,
        "set": on,
        "n_layers": len({*found.rows, *found.columns}),
        "measure": found.title,
        "sums": found.method["sums"].upper(),
        "kernel": found.kernel_title,
        "estimator": ", ".join(filter(None, (str(found.method["qualifier"]), sizes))),
        "label": "" if found.label is None else str(found.label),
        "created_at": at,
        "versions": _versions(found.provenance),
        "command": _command(workspace, found.provenance),
        "exchanged_command": _command(workspace, found.provenance, exchanged=True),
        # Trained again since.
        "outdated": [n for n, digest in digests if not _is_current(workspace, n, on, digest, at)],
    }


def is_outdated(workspace: Workspace, probe: ProbeResult) -> bool:
    """Return whether the network of a probe has been trained again since."""
    tap, facts = probe.taps[0], probe.provenance
    name, digest = f"{tap.run}@{tap.checkpoint}", str(facts.get("checkpoint_digest", ""))
    at = str(facts.get("created_at", ""))
    return bool(digest) and not _is_current(workspace, name, tap.sample_set, digest, at)


def _is_current(workspace: Workspace, network: str, on: str, digest: str, at: str) -> bool:
    try:
        return is_record_current(workspace, Selection.parse(network), on, digest, at)
    except (AllcnnError, StoreError, OSError):  # what cannot be read is reported elsewhere
        return True


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
    try:
        line = probe_command(workspace, found.name).line
    except RunError:
        line = ""
    own_names = ("name", "train_set", "n_train", "n_test", "pool")
    arrays = ("accuracy", "train_accuracy", "standard_errors", "penalties", "n_features")
    return {
        **{name: getattr(found, name) for name in own_names},
        **{name: describe.nested(getattr(found, name)) for name in arrays},
        "network": f"{first.run}@{first.checkpoint}",
        "taps": [key.tap for key in found.taps],
        "set": first.sample_set,
        "created_at": str(found.provenance.get("created_at", "")),
        "versions": _versions(found.provenance),
        "command": line,
        "outdated": is_outdated(workspace, found),
    }


def digests_of(result: SimilarityResult) -> dict[str, str]:
    """Return the digests of the checkpoints that a result is of, as far as it names them."""
    sides: Mapping[str, Any] = result.provenance.get("checkpoint_digests") or {}
    return {name: digest for side in sides.values() for name, digest in side.items()}
