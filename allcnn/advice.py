"""Advise on what is not stored, by what is here; no advice loses what cannot be made again."""

from collections.abc import Mapping
from difflib import get_close_matches

from allcnn.commands import CommandLine, command
from allcnn.definitions.fields import but
from allcnn.settings.extraction import Extraction
from allcnn.settings.selection import Selection
from allcnn.workspace.paths import Workspace


def listing(workspace: Workspace) -> str:
    """Return, as the end of a sentence, which command lists what is stored or can be stored.

    For an empty workspace, say how a network comes into it.
    """
    if workspace.stored_networks():
        return f"{command(workspace.root, 'store', 'ls')} lists what is stored"
    if workspace.runs():
        return f"{command(workspace.root, 'run', 'ls')} lists the runs to extract from"
    return (
        f"train a network first with {command(workspace.root, 'train')}, or import activations"
        f" ({importing()} says how)"
    )


def importing() -> CommandLine:
    """Return the command that says how activations are imported: only their owner knows the files.

    No advice deletes imported activations: importing them again repairs and completes them.
    """
    return command(None, "store", "import", help=True)


def is_here(workspace: Workspace, network: Selection) -> bool:
    """Return whether a network can be extracted: its run is here, and has the checkpoint."""
    has_run = network.run in workspace.runs()
    return has_run and network.checkpoint in workspace.checkpoints(network.run)


def is_extracted(attributes: Mapping[str, object]) -> bool:
    """Return whether what has these attributes was extracted from a run; others cannot be again."""
    return {"seed", "epoch"} <= set(attributes)


def extracting(workspace: Workspace, network: Selection, **options: object) -> CommandLine:
    """Return the command that extracts a network of a run."""
    how = {"checkpoint": network.checkpoint, **options}
    return command(workspace.root, "extract", network.run, **how)


def options_of(job: Extraction) -> dict[str, object]:
    """Return the options of ``allcnn extract`` that differ from the defaults."""
    given = [(each, getattr(job, each.name)) for each in but(Extraction, "run", "checkpoint")]
    return {
        each.option or each.name: ",".join(value) if each.is_list else value
        for each, value in given
        if value != each.default
    }


def store_missing(workspace: Workspace, side: Selection, **options: object) -> str:
    """Say how to store what a selection names, and nothing is stored of."""
    if not side.is_network:
        return _store_fitting(workspace, side, options)
    network = Selection(side.run, side.checkpoint)
    is_stored = network in workspace.stored_networks()
    if is_stored and side.tap != "*":
        return f"{command(workspace.root, 'store', 'show', network)} lists its taps"
    if is_stored or is_here(workspace, network):
        return store_again(workspace, network, **options)
    return _nearest(workspace, network, options)


def store_again(workspace: Workspace, network: Selection, **options: object) -> str:
    """Say how to complete what is stored of a network, or to store it in another way."""
    if is_here(workspace, network):
        return f"run {extracting(workspace, network, **options)}"
    if network.run in workspace.runs():
        return (
            f"restore checkpoint {network.checkpoint!r} of run {network.run!r}, which has"
            f" {', '.join(workspace.checkpoints(network.run)) or 'none'}"
        )
    return (
        "store it again by the program that made it, or import its files again"
        f" ({importing()} says how)"
    )


def replace_stored(
    workspace: Workspace,
    network: Selection,
    sample_set: str | None,
    options: Mapping[str, object],
    what: str | None = None,
) -> str:
    """Say how to store a network in the place of what is stored of it and can be made again."""
    if not is_here(workspace, network):
        return store_again(workspace, network)
    how = {"sample_set": sample_set, "what": what}
    remove = command(workspace.root, "store", "rm", network, **how)
    return f"remove it with {remove}, and run {extracting(workspace, network, **options)}"


def _trained(workspace: Workspace) -> list[Selection]:
    return [Selection(run, name) for run in workspace.runs() for name in workspace.checkpoints(run)]


def _store_fitting(workspace: Workspace, side: Selection, options: dict[str, object]) -> str:
    fitting = [each for each in _trained(workspace) if side.matches(each.run, each.checkpoint, "")]
    stored = set(workspace.stored_networks())
    lacking = [each for each in fitting if each not in stored] if side.tap == "*" else []
    if not lacking:
        return listing(workspace)
    others = f", and likewise for {len(lacking) - 1} others that fit" if lacking[1:] else ""
    return f"run {extracting(workspace, lacking[0], **options)}{others}"


def _nearest(workspace: Workspace, side: Selection, options: dict[str, object]) -> str:
    stored = {str(each): each for each in workspace.stored_networks()}
    known = {str(each): each for each in _trained(workspace)} | stored
    close = get_close_matches(str(side), known, n=1)
    if close and close[0] in stored:
        return f"the nearest name that is stored is {close[0]}; {listing(workspace)}"
    if close:
        run = extracting(workspace, known[close[0]], **options)
        return f"the nearest name here is {close[0]}, which {run} stores"
    if side.run in workspace.runs():
        return f"{command(workspace.root, 'run', 'show', side.run)} lists its checkpoints"
    return listing(workspace)
