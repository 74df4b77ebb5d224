"""Whether what a folder holds is a run that this version can use, before anything rests on it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from allcnn.errors import RunError
from allcnn.networks.network import abstract
from allcnn.workspace import checkpoints as checkpoint
from allcnn.workspace.checkpoint_names import checkpoint_epoch
from allcnn.workspace.run_record import History, RunRecord
from store.storage.paths import walk_files

_LAYER_BYTES: Final = 100
"""A checkpoint takes more than that for the names and shapes of a layer alone."""

_MOST_PACKED: Final = 1000
"""No network's numbers are compressed so much, but for one of zeros alone."""

_HARMLESS_BYTES: Final = 2**28


def check_run(
    entry: RunRecord, history: History, checkpoints: Path, names: Sequence[str]
) -> dict[str, str]:
    """Return the digests of checkpoints' variables, having read each and its kept digest.

    Raises RunError where one is damaged, is of another network, or where the curves end before it.
    """
    digests = {}
    for name in names:
        check_epochs(entry, history, name)
        n_bytes = sum(n for _, n, _ in walk_files(checkpoints / name))
        _check_proportion(entry, name, n_bytes)
        like = abstract(entry.network)
        digests[name] = checkpoint.digest(checkpoint.load_variables(checkpoints / name, like))
    return digests


def check_epochs(entry: RunRecord, history: History, name: str) -> None:
    """Raise RunError where learning curves end before a checkpoint, or after the last epoch."""
    epochs = entry.config.epochs
    seen = min(checkpoint_epoch(name), epochs + 1)
    wanted = epochs if name == "final" else seen
    if wanted > epochs or len(history) > epochs or len(history) < wanted:
        raise RunError(
            f"run {entry.config.name!r} has the checkpoint {name!r}, and curves of"
            f" {len(history)} of its {epochs} epochs; restore its history.json"
        )


def _check_proportion(entry: RunRecord, name: str, n_bytes: int) -> None:
    """Raise RunError for settings of a network far larger than what is there of it.

    Settings from elsewhere could ask for any amount of memory and time.
    """
    plausible = len(entry.network.taps) * _LAYER_BYTES < n_bytes
    if plausible:
        taken = entry.network.parameter_bytes
        plausible = taken < max(_HARMLESS_BYTES, _MOST_PACKED * n_bytes)
    if not plausible:
        raise RunError(
            f"the checkpoint {name!r} of run {entry.config.name!r} has {n_bytes} bytes, too few for"
            " the network that its config.json describes; restore both"
        )
