"""Which linear classifiers to train, and how."""

from dataclasses import asdict, dataclass
from typing import Any, get_args

from allcnn.definitions import bounds
from allcnn.definitions.bounds import shown
from allcnn.definitions.fields import check_name, one_of
from allcnn.errors import ConfigError
from allcnn.settings.selection import Selection
from allcnn.similarity.method import Pool

PENALTIES = tuple(float(f"{10 ** (-k / 2):.2g}") for k in range(2, 13))
"""From 0.1, where features of norm 1 are hardly used, to 1e-6, where thousands of them are fit."""


@dataclass(frozen=True)
class Probing:
    """Which linear classifiers to train, and how.

    Attributes:
        networks: whose taps are probed, one result a network.
        train_set: name of the stored sample set that is trained on; None for the largest of the
            split ``train`` that is stored of a network.
        test_set: the same of the examples that are classified, of the split ``test``.
        pool: ``mean`` averages convolutional taps over space.
        penalties: factors of the l2 term, of which one is chosen for each tap.
    """

    networks: Selection
    train_set: str | None = None
    test_set: str | None = None
    pool: Pool = "whole"
    penalties: tuple[float, ...] = PENALTIES

    def __post_init__(self) -> None:
        one_of("pool", self.pool, get_args(Pool))
        for name, sample_set in (("train-set", self.train_set), ("test-set", self.test_set)):
            if sample_set is not None:
                check_name(name, sample_set)
        for penalty in self.penalties:
            bounds.PENALTY.check("penalty", penalty)
        if not self.penalties or len(set(self.penalties)) < len(self.penalties):
            found = f"are {shown([*self.penalties])}"
            raise ConfigError("penalties", found, remedy="name one penalty or more, each once")

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON values, the networks as people write them."""
        return asdict(self) | {
            "networks": str(self.networks),
            "penalties": list(self.penalties),
        }
