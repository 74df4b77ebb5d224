"""Which checkpoint something stored belongs to: one rule, whatever asks."""

from contextlib import suppress

from allcnn.compare.candidates import Found, digests_of, find
from allcnn.errors import AllcnnError
from allcnn.extract import load_source
from allcnn.settings.selection import Selection
from allcnn.workspace import run_record
from allcnn.workspace.checkpoint_names import is_checkpoint
from allcnn.workspace.paths import Workspace, kept_digests


def checkpoint_digest(workspace: Workspace, network: Selection) -> str:
    """Return the digest of a checkpoint's variables that is kept with it.

    Only of checkpoints of the first version, which keep none, the variables are read. Raises
    RunError where the checkpoint is missing or cannot be read.
    """

    def look() -> str:
        folder = workspace.find_checkpoint(network.run, network.checkpoint)
        kept = kept_digests(folder).get("variables")
        return kept or load_source(workspace, network.run, network.checkpoint).digest

    return workspace.once(("digest", network), look)


def digest_or_none(workspace: Workspace, network: Selection) -> str | None:
    """Return the digest of a checkpoint, or None where it is missing or cannot be read."""
    if is_checkpoint(network.checkpoint):
        with suppress(AllcnnError):  # imported, perhaps, under a name that no run can have
            return checkpoint_digest(workspace, network)
    return None


def is_current(
    workspace: Workspace,
    network: Selection,
    digests: set[str],
    created_at: str,
    *,
    extracted: bool,
) -> bool:
    """Return whether what is stored under the name of a network belongs to that network now.

    What was extracted belongs to the checkpoint that has its digest. The time decides where digests
    cannot: what was imported, and what is of a checkpoint that is missing, belongs to the run of
    that name unless it was stored before that run began.

    Args:
        workspace: holds both.
        network: run and checkpoint.
        digests: of the checkpoints that what is stored may come from.
        created_at: when it was stored, ISO 8601 in UTC.
        extracted: whether it was extracted from a run, rather than imported.
    """
    now = digest_or_none(workspace, network)
    if digests == {now} or (extracted and now is not None):
        return digests == {now}
    return created_at >= run_record.begun_at(workspace, network.run)


def is_found_current(workspace: Workspace, network: Selection, found: Found) -> bool:
    """Return whether one stored representation of a network belongs to that network now."""
    digests, at = found.digests(), found.meta.created_at
    return is_current(workspace, network, digests, at, extracted=found.extracted)


def is_record_current(
    workspace: Workspace,
    network: Selection,
    sample_set: str,
    digest: str | None,
    created_at: str,
) -> bool:
    """Return whether a result or a probe was computed from a network as it is now.

    Compared are the digest that it names and that of the checkpoint, or of what was imported in its
    place; without either, nothing contradicts it but the time.
    """
    now = digest_or_none(workspace, network)
    if now is not None and digest in (None, now):
        return True
    if now is None and created_at < run_record.begun_at(workspace, network.run):
        return False
    stored = find(workspace, network, sample_set, skip=True)
    known = digests_of([each for each in stored if is_found_current(workspace, network, each)])
    return digest in (None, *known) if known else now is None
