"""Names of checkpoints, ``init``, ``epoch-0005``, ``final``, and a choice of few among many."""

import re
from collections.abc import Sequence
from math import inf
from typing import Final

MOST_STAGES: Final = 6
"""Checkpoints of a run that its last one is compared with, unless others are asked for."""

_CHECKPOINT = re.compile(r"init|final|epoch-(\d{4,})")


def is_checkpoint(name: str) -> bool:
    """Return whether this is a name that training gives to a checkpoint."""
    return _CHECKPOINT.fullmatch(name) is not None


def checkpoint_name(epoch: int) -> str:
    """Return the name of the checkpoint after some epochs, such as ``epoch-0005``."""
    return f"epoch-{epoch:04d}" if epoch else "init"


def checkpoint_epoch(name: str) -> float:
    """Return the epochs that a checkpoint has seen; infinity for ``final`` and other names."""
    if name == "init":
        return 0
    found = _CHECKPOINT.fullmatch(name)
    return int(found[1]) if found and found[1] else inf


def spread_out(names: Sequence[str], most: int = MOST_STAGES) -> list[str]:
    """Return at most this many names, the first and the last among them, denser in the beginning.

    Representations change most there: of 71 checkpoints, five epochs apart, epochs 0, 5, 20, 75,
    180 and 350 are chosen.
    """
    n = min(most, len(names))
    places: list[int] = []
    for i in range(n):
        share = (i / max(n - 1, 1)) ** 3
        # With few names, the next one that is left.
        least = places[-1] + 1 if places else 0
        places.append(min(max(least, round(share * (len(names) - 1))), len(names) - n + i))
    return [names[k] for k in places]
