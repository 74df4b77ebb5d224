"""The numbers that settings may be, for options, forms of flows and records."""

import math
import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from allcnn.errors import ConfigError


class _Short(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        """Write a number, or the count of its digits where Python refuses to write so many."""
        if abs(x) < 10**self.maxlong:
            return repr(x)
        return f"a number of {int(math.log10(abs(x))) + 1} digits"


_SHORT: Final = _Short()
_SHORT.maxstring = _SHORT.maxother = 150

shown: Final[Callable[[object], str]] = _SHORT.repr
"""Return a value as an error shows it: the beginning and end of one that is long or deep."""


@dataclass(frozen=True)
class Bounds:
    """The numbers that a setting may be, both ends included; ``whole`` for whole numbers alone.

    The largest is never infinite, since a mistyped number must not work for ever.
    """

    least: float
    most: float
    whole: bool = True

    def check(self, name: str, value: Any) -> None:
        """Raise ConfigError unless a value is a number within the bounds; truth values are none."""
        kinds = int if self.whole else int | float
        is_number = isinstance(value, kinds) and not isinstance(value, bool)
        # A comparison, unlike a conversion, takes whole numbers of any size; NaN fails it.
        if is_number and self.least <= value <= self.most:
            return
        if not self.whole:
            wanted = f"a number from {self}"
        elif not is_number:
            wanted = f"a whole number of {self.least} or more"
        else:
            wanted = f"{self.least} or more" if value < self.least else f"{self.most} or less"
        raise ConfigError(name, f"is {shown(value)}", f"use {wanted}")

    def __str__(self) -> str:
        most = str(self.most) if isinstance(self.most, int) else f"{self.most:g}"
        return f"{self.least:g} to {most}"


IMAGE_SIZE: Final = Bounds(12, 4096)
"""Two strides and one VALID 3x3 convolution leave a pixel of twelve; few photographs are larger."""

SEED: Final = Bounds(0, 2**32 - 1)
"""JAX keeps 32 bits of a seed: larger ones would draw the same networks again."""

EPOCHS: Final = Bounds(1, 100_000)
"""The steps of so many epochs of CIFAR-10 are still counted in 32 bits."""

TRAINING_BATCH: Final = Bounds(4, 2**20)
"""Batch statistics of fewer examples are noise; more than a million fit no device."""

MINIBATCH: Final = Bounds(4, 2**20)
"""Unbiased HSIC is not defined for fewer examples; a Gram of more takes 4 TB."""

SAMPLES: Final = Bounds(4, 2**31 - 1)
"""HSIC needs four; rows are counted in 32 bits."""

LABEL: Final = Bounds(0, 2**31 - 1)
"""Labels are stored in 32 bits."""

PERMUTATIONS: Final = Bounds(0, 1000)
"""Each costs one more matrix product a minibatch."""

LEARNING_RATE: Final = Bounds(1e-9, 1e38, whole=False)
"""Smaller ones change nothing in float32, in which training computes, and larger ones overflow."""

WEIGHT_DECAY: Final = Bounds(0, 1e38, whole=False)
"""As for learning rates."""

PENALTY: Final = Bounds(1e-12, 1e12, whole=False)
"""For features of norm 1 in float32, smaller ones do nothing, larger ones leave nothing."""

SHARE: Final = Bounds(1e-9, 1, whole=False)
"""A smaller share would not be one of a billion units."""
