"""Settings of a run, with their defaults and bounds; imports nothing heavy."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self

from allcnn.errors import ConfigError

Variant = Literal["v1", "v2"]

MIN_IMAGE_SIZE = 12
"""Two strides and one VALID 3x3 convolution leave one pixel of twelve."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def check_name(kind: str, name: str) -> str:
    """Return ``name`` if it is safe as one path component, else raise ConfigError."""
    if not _NAME.fullmatch(name) or ".." in name:
        raise ConfigError(
            f"{kind} {name!r} is not a name: use letters, digits, '_', '-' and single dots,"
            " beginning with a letter or digit"
        )
    return name


@dataclass(frozen=True)
class RunConfig:
    """Everything that determines a trained network, its seed included.

    Attributes:
        dataset: TFDS name, or one of the builders in ``allcnn.datasets``.
        image_size: side of the square images in pixels, at least 12.
        depth: n of the 7n + 3 taps, at least 1.
        variant: v1 with dropout, v2 without.
        width: factor on the published 96 and 192 channels.
        seed: of initialisation, order of examples, augmentation and dropout.
        epochs: passes over the training split; the schedule's milestones scale with it.
        checkpoint_every: epochs between checkpoints; by default 5, or 1 of fewer than 10 epochs.
        batch_size: examples a step.
        learning_rate: at the start; divided by 10 at 200/350, 250/350 and 300/350 of the epochs.
        weight_decay: factor of the L2 term's gradient.
        prefix: beginning of the run's name.
    """

    dataset: str = "digits"
    image_size: int = 32
    depth: int = 1
    variant: Variant = "v2"
    width: float = 1.0
    seed: int = 0
    epochs: int = 350
    checkpoint_every: int = 0
    batch_size: int = 128
    learning_rate: float = 0.1
    weight_decay: float = 1e-4
    prefix: str = "allcnn"

    def __post_init__(self) -> None:
        if self.checkpoint_every == 0:
            object.__setattr__(self, "checkpoint_every", 5 if self.epochs >= 10 else 1)
        check_name("data set", self.dataset)
        check_name("prefix", self.prefix)
        if self.variant not in ("v1", "v2"):
            raise ConfigError(f"variant is {self.variant!r}; use v1 or v2")
        _at_least("image-size", self.image_size, MIN_IMAGE_SIZE)
        _at_least("depth", self.depth, 1)
        _at_least("epochs", self.epochs, 1)
        _at_least("checkpoint-every", self.checkpoint_every, 1)
        _at_least("batch-size", self.batch_size, 4)
        _at_least("seed", self.seed, 0)
        for name in ("width", "learning_rate"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} is {getattr(self, name)}; use a number above 0")
        if not 0 <= self.weight_decay < float("inf"):
            raise ConfigError(f"weight_decay is {self.weight_decay}; use 0 or a positive number")

    @property
    def name(self) -> str:
        """The run's name, such as ``allcnn-d1-v2-s0``."""
        return f"{self.prefix}-d{self.depth}-{self.variant}-s{self.seed}"

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Rebuild settings; raises ConfigError for unknown or missing fields."""
        known = {field.name for field in fields(cls)}
        if set(values) != known:
            odd = ", ".join(sorted(set(values) ^ known))
            raise ConfigError(f"the run's settings do not fit this version: {odd} differ")
        return cls(**values)

    def digest(self) -> str:
        """Return the SHA-256 of the settings, in hexadecimal."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ConfigError(f"{name} is {value}; use {least} or more")
