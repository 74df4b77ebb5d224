"""What is said where nothing is stored that was asked for: one sentence for all commands."""

from collections.abc import Iterable

from allcnn.advice import listing
from allcnn.errors import RunError
from allcnn.workspace.paths import Workspace
from store import has_store


def nothing_fits(workspace: Workspace, asked: Iterable[object | None]) -> RunError:
    """Return the error that names all that was asked for; of these, None stands for nothing."""
    texts = [str(each) for each in asked if each is not None]
    if not texts or not _has_stores(workspace):
        return RunError(f"nothing is extracted yet in {workspace.root}", remedy=listing(workspace))
    return RunError(
        f"nothing in {workspace.root} fits {' and '.join(texts)}", remedy=listing(workspace)
    )


def check_stores(workspace: Workspace) -> None:
    """Raise RunError where nothing was ever stored, as in a workspace of a mistyped name."""
    if not _has_stores(workspace):
        raise nothing_fits(workspace, ())


def of_option(name: str, value: object | None) -> str | None:
    """Return an option as it was written, None where it was not given."""
    return None if value is None else f"--{name} {value}"


def _has_stores(workspace: Workspace) -> bool:
    numbers = workspace.similarity, workspace.probes
    return any(map(has_store, (workspace.activations, workspace.grams, *numbers)))
