"""What a workspace holds that a report tells of, and what of it cannot be read."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import store
from allcnn.config import Selection
from allcnn.errors import AllcnnError, RunError
from allcnn.workspace import Workspace
from flows.upkeep.survey import digest_now
from store import SimilarityResult, StoreError, has_store, list_results, read_result

_NEWER: Final = ("list_probes", "read_probe")


def check_there(workspace: Workspace) -> None:
    """Raise RunError for a workspace with nothing in it, as one of a mistyped name."""
    stores = (workspace.activations, workspace.grams, workspace.similarity)
    if not (workspace.runs() or any(map(has_store, stores))):
        raise RunError(
            f"{workspace.root} holds no runs and no stores; train a network first with 'allcnn"
            " train', or name another --workspace"
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


def probes(workspace: Workspace) -> Iterator[Any]:
    """Yield the probes, and for each that cannot be read the reason."""
    place = getattr(workspace, "probes", None)
    list_probes, read_probe = (getattr(store, name, None) for name in _NEWER)
    if place is None or list_probes is None or read_probe is None or not has_store(place):
        return
    for name in list_probes(place):
        try:
            yield read_probe(place, name)
        except StoreError as error:
            yield str(error)


class Today:
    """The digests of checkpoints as they are now, each looked up once."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._found: dict[str, str | None] = {}

    def changed(self, result: SimilarityResult) -> list[str]:
        """Return the networks of a result that have been trained again since."""
        return [name for name, digest in digests_of(result).items() if self._is_other(name, digest)]

    def _is_other(self, network: str, digest: str) -> bool:
        """Return whether a checkpoint has another digest; without it, nothing tells."""
        if network not in self._found:
            try:
                self._found[network] = digest_now(self._workspace, Selection.parse(network))
            except (AllcnnError, StoreError, OSError):
                self._found[network] = None
        return self._found[network] not in (None, digest)


def digests_of(result: SimilarityResult) -> dict[str, str]:
    """Return the digests of the checkpoints that a result is of, as far as it tells."""
    sides: Mapping[str, Any] = result.provenance.get("checkpoint_digests") or {}
    return {name: digest for side in sides.values() for name, digest in side.items()}
