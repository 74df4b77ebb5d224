"""Checkpoints on disk, as Orbax folders: variables, optimiser state and the epoch they belong to.

Orbax writes under a temporary name and renames at the end, so a folder of the right name is
whole. Its arrays are TensorStore files; nothing in them is executed on loading.
"""

import hashlib
import itertools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from allcnn.errors import RunError
from allcnn.network import Variables


class TrainState(NamedTuple):
    """All that training needs to go on."""

    variables: Variables
    optimiser: Any


def save(folder: Path, state: TrainState) -> None:
    """Write a checkpoint, replacing a whole one of that name."""
    items = ocp.args.Composite(
        variables=ocp.args.StandardSave(state.variables._asdict()),
        optimiser=ocp.args.StandardSave(state.optimiser),
    )
    with _checkpointer() as checkpointer:
        checkpointer.save(folder, items, force=True)


def load(folder: Path, like: TrainState) -> TrainState:
    """Read a checkpoint whole, with the structure, shapes and dtypes of ``like``."""
    variables, optimiser = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    items = ocp.args.Composite(
        variables=ocp.args.StandardRestore(variables._asdict()),
        optimiser=ocp.args.StandardRestore(optimiser),
    )
    restored = _restore(folder, items)
    return TrainState(Variables(**restored.variables), restored.optimiser)


def load_variables(folder: Path, like: Variables) -> Variables:
    """Read what evaluation needs of a checkpoint; ``like`` may hold shapes only."""
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like._asdict())
    items = ocp.args.Composite(variables=ocp.args.StandardRestore(abstract))
    return Variables(**_restore(folder, items).variables)


def digest(variables: Variables) -> str:
    """Return the SHA-256 over names, dtypes, shapes and bytes of all variables."""
    hasher = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables._asdict()):
        array = np.ascontiguousarray(leaf)
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        hasher.update(f"{name} {array.dtype} {array.shape}\n".encode())
        hasher.update(array.data)
    return f"sha256:{hasher.hexdigest()}"


def _restore(folder: Path, items: ocp.args.Composite) -> ocp.args.Composite:
    try:
        with _checkpointer() as checkpointer:
            return checkpointer.restore(folder, items)
    except (ValueError, OSError, KeyError) as error:
        reason = next(itertools.chain(str(error).splitlines(), [type(error).__name__]))
        raise RunError(
            f"the checkpoint {folder} cannot be read ({reason}); delete the run and train it again"
        ) from error


def _checkpointer() -> ocp.Checkpointer:
    return ocp.Checkpointer(ocp.CompositeCheckpointHandler("variables", "optimiser"))
