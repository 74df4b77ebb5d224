"""The digests that are kept with a checkpoint, read without Orbax and without its arrays."""

import textwrap

from allcnn.errors import RunError, WorkspaceError
from allcnn.workspace.paths import WHOLE, read_json
from store.storage.paths import Place


def kept_digests(folder: Place) -> dict[str, str]:
    """Return the digests that are kept with a checkpoint, by item, without reading its arrays.

    Checkpoints of the first version have none. Raises RunError where they cannot be read.
    """
    try:
        kept = read_json(folder / WHOLE)["custom_metadata"].get("digests", {})
        return {str(name): str(value) for name, value in kept.items()}
    except (AttributeError, KeyError, TypeError, FileNotFoundError, WorkspaceError) as error:
        raise damaged(folder, str(error)) from error


def damaged(folder: Place, reason: str) -> RunError:
    """Return the error for a checkpoint that cannot be read."""
    return RunError(
        f"the checkpoint {folder} cannot be read ({textwrap.shorten(reason, 240)})",
        remedy="restore it from a copy, or train the run again with another --prefix",
    )
