"""Checkpoints on disk, as Orbax folders: variables and optimiser state.

Orbax writes under a temporary name and renames at the end, so a folder of the right name is
whole. Its arrays are TensorStore files, which do not notice a flipped bit: digests are kept beside
them. Nothing in them is executed on loading.
"""

import hashlib
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from allcnn.errors import RunError, WorkspaceError
from allcnn.network import Variables


class TrainState(NamedTuple):
    """All that training needs to go on."""

    variables: Variables
    optimiser: Any


def save(folder: Path, state: TrainState) -> None:
    """Write a checkpoint, replacing a whole one of that name; raises WorkspaceError if not."""
    items = ocp.args.Composite(
        variables=ocp.args.StandardSave(state.variables._asdict()),
        optimiser=ocp.args.StandardSave(state.optimiser),
    )
    digests = {"variables": digest(state.variables), "optimiser": _digest(state.optimiser)}
    try:
        with _checkpointer() as checkpointer:
            checkpointer.save(folder, items, force=True, custom_metadata={"digests": digests})
    # TensorStore's ValueError may be a full disk.
    except (OSError, ValueError) as error:
        raise WorkspaceError(
            f"the checkpoint {folder} cannot be written ({textwrap.shorten(str(error), 600)});"
            " earlier ones are safe, so mend it and run again"
        ) from error


def load(folder: Path, like: TrainState) -> TrainState:
    """Read a checkpoint whole, with the structure, shapes and dtypes of ``like``."""
    items = {"variables": like.variables._asdict(), "optimiser": like.optimiser}
    restored = _restore(folder, items)
    return TrainState(Variables(**restored["variables"]), restored["optimiser"])


def load_variables(folder: Path, like: Variables) -> Variables:
    """Read what evaluation needs of a checkpoint; ``like`` may hold shapes only."""
    return Variables(**_restore(folder, {"variables": like._asdict()})["variables"])


def digest(variables: Variables) -> str:
    """Return the SHA-256 over names, dtypes, shapes and bytes of all variables."""
    return _digest(variables._asdict())


def _digest(tree: Any) -> str:
    hasher = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf, order="C")
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        hasher.update(f"{name} {array.dtype} {array.shape}\n".encode())
        hasher.update(array.data)
    return f"sha256:{hasher.hexdigest()}"


def _restore(folder: Path, like: dict[str, Any]) -> dict[str, Any]:
    """Read some items of a checkpoint onto this process's first device, and check their digests."""
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    # Else Orbax looks for the device that wrote: a GPU, perhaps, that is not here.
    items = {
        name: ocp.args.StandardRestore(
            jax.tree.map(ocp.utils.to_shape_dtype_struct, tree), fallback_sharding=here
        )
        for name, tree in like.items()
    }
    try:
        with _checkpointer() as checkpointer:
            restored = dict(checkpointer.restore(folder, ocp.args.Composite(**items)).items())
            kept = checkpointer.metadata(folder).custom_metadata.get("digests", {})
    # Orbax, TensorStore and JSON each raise their own, some of them bare exceptions.
    except Exception as error:
        raise _damaged(folder, str(error) or type(error).__name__) from error
    for name, tree in restored.items():
        # Checkpoints of the first version have no digests.
        if kept.get(name, found := _digest(tree)) != found:
            raise _damaged(folder, f"the {name} have the digest {found}, not {kept[name]}")
    return restored


def _damaged(folder: Path, reason: str) -> RunError:
    return RunError(
        f"the checkpoint {folder} cannot be read ({textwrap.shorten(reason, 240)});"
        " delete the run and train it again"
    )


def _checkpointer() -> ocp.Checkpointer:
    # Named only, a handler is unknown until it is used, and Orbax warns of an item without one.
    handlers = {name: ocp.StandardCheckpointHandler() for name in ("variables", "optimiser")}
    return ocp.Checkpointer(ocp.CompositeCheckpointHandler(**handlers))
