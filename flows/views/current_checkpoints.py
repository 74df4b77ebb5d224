"""The checkpoints as they are now, to tell what is of networks that were trained again since."""

from allcnn.errors import AllcnnError
from allcnn.extract import load_source
from allcnn.settings.selection import Selection
from allcnn.workspace.checkpoint_digests import kept_digests
from allcnn.workspace.paths import Workspace
from store import ProbeResult, StoreError


class Today:
    """The digests of checkpoints as they are now, each looked up once."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._found: dict[str, str | None] = {}

    def is_other(self, network: str, digest: str) -> bool:
        """Return whether a checkpoint has another digest; without it, nothing tells."""
        if network not in self._found:
            try:
                self._found[network] = digest_now(self._workspace, Selection.parse(network))
            except (AllcnnError, StoreError, OSError):
                self._found[network] = None
        return self._found[network] not in (None, digest)

    def is_outdated(self, probe: ProbeResult) -> bool:
        """Return whether the network of a probe has been trained again since."""
        tap = probe.taps[0]
        digest = str(probe.provenance.get("checkpoint_digest", ""))
        return bool(digest) and self.is_other(f"{tap.run}@{tap.checkpoint}", digest)


def digest_now(workspace: Workspace, network: Selection) -> str:
    """Return the digest of a checkpoint's variables, as it is kept with it where it is."""
    folder = workspace.find_checkpoint(network.run, network.checkpoint)
    kept = kept_digests(folder).get("variables")
    return kept or load_source(workspace, network.run, network.checkpoint).digest
