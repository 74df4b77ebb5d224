"""Whether what a folder holds is a run that this version can use, before anything rests on it."""

from collections.abc import Sequence
from typing import Final

from allcnn.errors import RunError
from allcnn.networks.variables import abstract, parameter_bytes
from allcnn.workspace import checkpoints as checkpoint
from allcnn.workspace.checkpoint_names import checkpoint_epoch
from allcnn.workspace.paths import WHOLE
from allcnn.workspace.run_record import History, RunRecord
from store.storage.paths import Place, walk_files

_LAYER_BYTES: Final = 100
"""A checkpoint takes more than that for the names and shapes of a layer alone."""

_MOST_PACKED: Final = 1000
"""No network's numbers are compressed so much, but for one of zeros alone."""

_HARMLESS_BYTES: Final = 2**28


def check_run(
    entry: RunRecord, history: History, checkpoints: Place, names: Sequence[str]
) -> dict[str, str]:
    """Return the digests of checkpoints' variables, having read each and its kept digest.

    Raises RunError where one is damaged, is of another network, or where the curves end before it.
    """
    digests = {}
    for name in names:
        folder = checkpoints / name
        sizes = {file: n_bytes for file, n_bytes, _ in walk_files(folder)}
        # Without that file it would pass for one of the first version, which has no digests.
        if WHOLE not in sizes:
            raise RunError(f"checkpoint {name!r}", "is not whole")
        check_epochs(entry, history, name)
        _check_proportion(entry, name, sum(sizes.values()))
        _, digests[name] = checkpoint.load_variables(folder, abstract(entry.network))
    return digests


def check_epochs(entry: RunRecord, history: History, name: str) -> None:
    """Raise RunError where learning curves end before a checkpoint, or after the last epoch."""
    epochs = entry.config.epochs
    wanted = epochs if name == "final" else checkpoint_epoch(name)
    if not wanted <= len(history) <= epochs:
        raise RunError(
            f"run {entry.config.name!r}",
            f"has the checkpoint {name!r}, and curves of {len(history)} of its {epochs} epochs",
            remedy="restore its history.json",
        )


def _check_proportion(entry: RunRecord, name: str, n_bytes: int) -> None:
    """Raise RunError for settings of a network far larger than what is there of it.

    Settings from elsewhere could ask for any amount of memory and time.
    """
    network, most = entry.network, max(_HARMLESS_BYTES, _MOST_PACKED * n_bytes)
    # The taps first: to count the parameters of a network without end takes as long.
    if len(network.taps) * _LAYER_BYTES >= n_bytes or parameter_bytes(network) >= most:
        raise RunError(
            f"the checkpoint {name!r} of run {entry.config.name!r}",
            f"has {n_bytes} bytes, too few for the network that its config.json describes",
            remedy="restore both",
        )
