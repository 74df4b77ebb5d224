"""Checkpoints, as Orbax folders: variables and optimiser state.

Orbax writes under a temporary name and renames at the end, so a folder of the right name is
whole; at an address, where nothing can be renamed, it is whole with the file ``WHOLE``. Arrays are
TensorStore files, which do not notice a flipped bit: digests are kept beside them. Nothing in
them is executed on loading.
"""

import hashlib
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import Array, Key

from allcnn.errors import WorkspaceError
from allcnn.networks.network import Variables
from allcnn.workspace.paths import WHOLE, damaged_checkpoint
from allcnn.workspace.remote_folders import brought, taken
from store.errors import pass_on
from store.storage.paths import Place

_ITEMS = ("variables", "optimiser", "position")


class Position(NamedTuple):
    """The progress of training: the steps taken, and the key of all later randomness.

    The order of the examples follows from the seed and the epoch, which is the steps taken over
    those of an epoch.
    """

    step: Any
    key: Any

    @classmethod
    def first(cls, key: Key[Array, ""]) -> "Position":
        """Return the position before the first step."""
        return cls(jnp.int32(0), jax.random.key_data(key))


class TrainState(NamedTuple):
    """The state from which training resumes."""

    variables: Variables
    optimiser: Any
    position: Position

    def to_host(self) -> "TrainState":
        """Return a copy in this process's memory, which the next step cannot overwrite."""
        return jax.tree.map(lambda x: np.array(x, copy=True), self)  # type: ignore[no-any-return]


def save(folder: Place, state: TrainState) -> None:
    """Write a checkpoint, replacing a whole one of that name; raises WorkspaceError if not."""
    trees = _trees(state)
    items = {name: ocp.args.StandardSave(tree) for name, tree in trees.items()}
    kept: dict[str, Any] = {"digests": _digests(trees)}
    if owner := _owner(folder):
        kept["of"] = owner
    try:
        with taken(folder, last=WHOLE) as local, _checkpointer() as checkpointer:
            checkpointer.save(local, ocp.args.Composite(**items), force=True, custom_metadata=kept)
    # TensorStore's ValueError may be a full disk.
    except (OSError, ValueError) as error:
        found = f"cannot be written ({textwrap.shorten(str(error), 600)})"
        remedy = "earlier ones are safe, so fix that and run again"
        raise WorkspaceError(f"the checkpoint {folder}", found, remedy=remedy) from error


def _owner(folder: Place) -> str:
    """Return the run and the name of a checkpoint's folder; empty for one outside of a run."""
    if folder.parent.name != "checkpoints":
        return ""
    return f"{folder.parent.parent.name}@{folder.name}"


def load(folder: Place, like: TrainState) -> TrainState:
    """Read a checkpoint whole, with the structure, shapes and dtypes of ``like``."""
    restored, _ = _restore(folder, _trees(like))
    return TrainState(
        Variables(**restored["variables"]),
        restored["optimiser"],
        Position(**restored["position"]),
    )


def _trees(state: TrainState) -> dict[str, Any]:
    """Return the items of a checkpoint."""
    return {
        "variables": state.variables._asdict(),
        "optimiser": state.optimiser,
        "position": state.position._asdict(),
    }


def load_variables(folder: Place, like: Variables) -> tuple[Variables, str]:
    """Read the variables of a checkpoint, and their digest; ``like`` may hold shapes only."""
    restored, digests = _restore(folder, {"variables": like._asdict()})
    return Variables(**restored["variables"]), digests["variables"]


def digest(variables: Variables) -> str:
    """Return the SHA-256 over names, dtypes, shapes and bytes of all variables."""
    return _digest(variables._asdict())


def _digests(trees: dict[str, Any]) -> dict[str, str]:
    return {name: _digest(tree) for name, tree in trees.items()}


def _digest(tree: Any) -> str:
    hasher = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf, order="C")
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        hasher.update(f"{name} {array.dtype} {array.shape}\n".encode())
        hasher.update(array.data)
    return f"sha256:{hasher.hexdigest()}"


def _restore(folder: Place, like: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Read some items of a checkpoint onto this process's first device, and check their digests."""
    others = set(_ITEMS) - set(like)
    with brought(folder, lambda name: name.partition("/")[0] not in others) as local:
        try:
            restored, kept = _read(local, like)
            digests = _checked_digests(folder, restored, kept, like)
        # Orbax, TensorStore and JSON each raise their own, some of them bare exceptions.
        except Exception as error:
            pass_on(error)
            raise damaged_checkpoint(folder, str(error) or type(error).__name__) from error
    return restored, digests


def _checked_digests(
    folder: Place, restored: dict[str, Any], kept: Any, like: dict[str, Any]
) -> dict[str, str]:
    """Return the digests of items; raises ValueError where one is not what was written."""
    digests, known = _digests(restored), kept.get("digests", {})
    if "of" in kept:  # else an earlier version wrote it
        if _owner(folder) not in ("", kept["of"]):
            raise ValueError(f"it is {kept['of']}")
        if lost := set(like) - set(known):
            raise ValueError(f"it has lost the digest of its {min(lost)}")
    for item, tree in restored.items():
        # Checkpoints of the first version have no digests.
        if known.get(item) not in (None, digests[item]):
            raise ValueError(f"the {item} have the digest {digests[item]}, not {known[item]}")
        # Orbax returns an array as it was stored, whatever shape was asked for.
        pairs = zip(jax.tree.leaves_with_path(tree), jax.tree.leaves(like[item]), strict=True)
        for (path, leaf), wanted in pairs:
            if leaf.shape != wanted.shape:
                name = jax.tree_util.keystr(path, simple=True, separator="/")
                raise ValueError(f"{name} has the shape {leaf.shape}, not {wanted.shape}")
    return digests


def _read(folder: Path, like: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the items of a checkpoint, and its own metadata with their digests."""
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    # Else Orbax looks for the device that wrote: a GPU, perhaps, that is not here.
    items = {
        name: ocp.args.StandardRestore(
            jax.tree.map(ocp.utils.to_shape_dtype_struct, tree), fallback_sharding=here
        )
        for name, tree in like.items()
    }
    with _checkpointer() as checkpointer:
        restored = dict(checkpointer.restore(folder, ocp.args.Composite(**items)).items())
        return restored, checkpointer.metadata(folder).custom_metadata


def _checkpointer() -> ocp.Checkpointer:
    # Named only, a handler is unknown until it is used, and Orbax warns of an item without one.
    handlers = {name: ocp.StandardCheckpointHandler() for name in _ITEMS}
    return ocp.Checkpointer(ocp.CompositeCheckpointHandler(**handlers))
