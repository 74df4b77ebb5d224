"""The error where nothing is stored that was asked for: one sentence for all commands."""

from allcnn.advice import listing
from allcnn.errors import RunError
from allcnn.workspace.paths import Workspace
from store import has_store


def nothing_fits(workspace: Workspace, *asked: object, **options: object) -> RunError:
    """Return the error that names all that was asked for; None stands for nothing."""
    texts = [str(each) for each in asked if each is not None]
    given = {name.replace("_", "-"): each for name, each in options.items() if each is not None}
    texts += [f"--{name} {value}" for name, value in given.items()]
    found = f"nothing is extracted yet in {workspace.root}"
    if texts and has_stores(workspace):
        found = f"nothing in {workspace.root} fits {' and '.join(texts)}"
    return RunError(found, remedy=listing(workspace))


def check_stores(workspace: Workspace) -> None:
    """Raise RunError where nothing was ever stored, as in a workspace of a mistyped name."""
    if not has_stores(workspace):
        raise nothing_fits(workspace)


def has_stores(workspace: Workspace) -> bool:
    """Return whether anything was ever stored in a workspace."""
    stores = workspace.activations, workspace.grams, workspace.similarity, workspace.probes
    return any(map(has_store, stores))
