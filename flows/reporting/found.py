"""What a workspace holds that a report tells of, and what of it cannot be read."""

from collections.abc import Iterator, Mapping
from typing import Any

from allcnn.advice import listing
from allcnn.errors import RunError
from allcnn.workspace import Workspace
from flows.today import Today
from store import (
    ProbeResult,
    SimilarityResult,
    StoreError,
    has_store,
    list_probes,
    list_results,
    read_probe,
    read_result,
)


def check_there(workspace: Workspace) -> None:
    """Raise RunError for a workspace with nothing in it, as one of a mistyped name."""
    stores = (workspace.activations, workspace.grams, workspace.similarity, workspace.probes)
    if not (workspace.runs() or any(map(has_store, stores))):
        raise RunError(
            f"{workspace.root} holds no runs and no stores; {listing(workspace)},"
            " or name another --workspace"
        )


def result_names(workspace: Workspace) -> list[str]:
    """Return the names of the results, sorted; of none where there is no store of them."""
    return list_results(workspace.similarity) if has_store(workspace.similarity) else []


def result_of(workspace: Workspace, name: str) -> SimilarityResult | str:
    """Return a result, or why it cannot be read."""
    try:
        result = read_result(workspace.similarity, name)
    except StoreError as error:
        return str(error)
    if not (result.rows and result.columns):
        return f"result {name} in {workspace.similarity} compares nothing; delete it"
    return result


def probes(workspace: Workspace) -> Iterator[ProbeResult | str]:
    """Yield the probes, and for each that cannot be read the reason."""
    if not has_store(workspace.probes):
        return
    for name in list_probes(workspace.probes):
        try:
            yield read_probe(workspace.probes, name)
        except StoreError as error:
            yield str(error)


def changed(result: SimilarityResult, today: Today) -> list[str]:
    """Return the networks of a result that have been trained again since."""
    return [name for name, digest in digests_of(result).items() if today.is_other(name, digest)]


def digests_of(result: SimilarityResult) -> dict[str, str]:
    """Return the digests of the checkpoints that a result is of, as far as it tells."""
    sides: Mapping[str, Any] = result.provenance.get("checkpoint_digests") or {}
    return {name: digest for side in sides.values() for name, digest in side.items()}
