"""Names of checkpoints: ``init``, ``epoch-0005``, ``final``."""

import re

_CHECKPOINT = re.compile(r"init|final|epoch-(\d{4,})")


def is_checkpoint(name: str) -> bool:
    """Return whether training names a checkpoint so."""
    return _CHECKPOINT.fullmatch(name) is not None


def checkpoint_name(epoch: int) -> str:
    """Return the name of the checkpoint after some epochs, such as ``epoch-0005``."""
    return f"epoch-{epoch:04d}" if epoch else "init"


def checkpoint_epoch(name: str) -> float:
    """Return the epochs that a checkpoint has seen; ``final`` comes after all (infinity)."""
    if name in ("init", "final"):
        return 0 if name == "init" else float("inf")
    return int(name.removeprefix("epoch-"))


def checkpoint_order(name: str) -> float:
    """Return a number that sorts checkpoints by epoch; names of other kinds go with the last."""
    return checkpoint_epoch(name) if is_checkpoint(name) else float("inf")
