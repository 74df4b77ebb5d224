"""What a workspace holds that a report tells of, and what of it cannot be read."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from allcnn.advice import listing
from allcnn.compare.current import is_record_current
from allcnn.errors import AllcnnError, RunError
from allcnn.maintenance.inventory import place_of
from allcnn.settings.selection import Selection
from allcnn.workspace.paths import Workspace
from store import ProbeResult, SimilarityResult, StoreError, has_store, read_probe, read_result
from store.errors import UnfinishedError, UnknownProbeError, UnknownResultError
from store.maintenance.verify import verify
from store.storage.paths import child_names


def check_there(workspace: Workspace) -> None:
    """Raise RunError for a workspace with nothing in it, as one of a mistyped name."""
    stores = (workspace.activations, workspace.grams, workspace.similarity, workspace.probes)
    if not (workspace.runs() or any(map(has_store, stores))):
        raise RunError(
            f"{workspace.root} holds no runs and no stores",
            remedy=f"{listing(workspace)}, or name another --workspace",
        )


def result_names(workspace: Workspace) -> list[str]:
    """Return the names of the results, damaged ones among them; of none where there is no store."""
    return child_names(workspace.similarity) if has_store(workspace.similarity) else []


def result_of(workspace: Workspace, name: str) -> SimilarityResult | str:
    """Return a result, or why it cannot be read."""
    try:
        result = read_result(workspace.similarity, name)
    except StoreError as error:
        return _reason(workspace, "similarity", name, error)
    if not (result.rows and result.columns):
        return f"result {name} in {workspace.similarity} compares nothing; delete it"
    return result


def probes(workspace: Workspace) -> Iterator[ProbeResult | str]:
    """Yield the probes, and for each that cannot be read the reason."""
    if not has_store(workspace.probes):
        return
    for name in child_names(workspace.probes):
        try:
            yield read_probe(workspace.probes, name)
        except StoreError as error:
            yield _reason(workspace, "probes", name, error)


def _reason(
    workspace: Workspace, kind: Literal["similarity", "probes"], name: str, error: StoreError
) -> str:
    """Return why a record cannot be read: of one without metadata, reading says too little."""
    if not isinstance(error, UnknownResultError | UnknownProbeError | UnfinishedError):
        return str(error)
    checked = verify(place_of(workspace, kind), kind, result=name)
    damage = [str(each) for one in checked for each in one.damage]
    # Nothing says any more what it came from, so that no command computes it again.
    advice = f"restore {place_of(workspace, kind) / name} from a copy, or delete it"
    return f"{', and '.join(damage)}; {advice}" if damage else str(error)


def changed(workspace: Workspace, result: SimilarityResult) -> list[str]:
    """Return the networks of a result that have been trained again since."""
    on, at = result.rows[0].sample_set, str(result.provenance.get("created_at", ""))
    found = digests_of(result).items()
    return [name for name, digest in found if not _is_current(workspace, name, on, digest, at)]


def is_outdated(workspace: Workspace, probe: ProbeResult) -> bool:
    """Return whether the network of a probe has been trained again since."""
    tap, told = probe.taps[0], probe.provenance
    name, digest = f"{tap.run}@{tap.checkpoint}", str(told.get("checkpoint_digest", ""))
    at = str(told.get("created_at", ""))
    return bool(digest) and not _is_current(workspace, name, tap.sample_set, digest, at)


def _is_current(workspace: Workspace, network: str, on: str, digest: str, at: str) -> bool:
    try:
        return is_record_current(workspace, Selection.parse(network), on, digest, at)
    except (AllcnnError, StoreError, OSError):  # what cannot be read is reported elsewhere
        return True


def digests_of(result: SimilarityResult) -> dict[str, str]:
    """Return the digests of the checkpoints that a result is of, as far as it tells."""
    sides: Mapping[str, Any] = result.provenance.get("checkpoint_digests") or {}
    return {name: digest for side in sides.values() for name, digest in side.items()}
