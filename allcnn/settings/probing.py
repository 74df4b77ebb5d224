"""Which linear classifiers to train, and how."""

from dataclasses import dataclass
from typing import get_args

from allcnn.definitions import bounds
from allcnn.definitions.fields import check_settings, setting
from allcnn.settings.selection import Selection, selecting
from allcnn.similarity.method import POOL_HELP, Pool

PENALTIES = tuple(float(f"{10 ** (-k / 2):.2g}") for k in range(2, 13))
"""From 0.1, where features of norm 1 are hardly used, to 1e-6, where thousands of them are fit."""


@dataclass(frozen=True)
class Probing:
    """Which linear classifiers to train, and how; one result a network."""

    networks: Selection = selecting()
    train_set: str | None = setting(
        None,
        "stored sample set that is trained on [default: the largest of the split train]",
        names="train-set",
    )
    test_set: str | None = setting(
        None,
        "stored sample set that is classified [default: the largest of the split test]",
        names="test-set",
    )
    pool: Pool = setting("whole", POOL_HELP, choices=get_args(Pool))
    penalties: tuple[float, ...] = setting(
        PENALTIES,
        "factors of the l2 term, of which one is chosen for each tap by a fifth of the training"
        " examples [default: 0.1 to 1e-6, two a decade]",
        bounds.PENALTY,
    )

    def __post_init__(self) -> None:
        check_settings(self)
