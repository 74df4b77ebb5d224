"""The numbers that settings may be: one definition for options, forms of flows, and records."""

import math
import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from allcnn.errors import ConfigError


class _Short(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        """Write a number; of thousands of digits, which Python refuses to write, their count."""
        if abs(x) < 10**self.maxlong:
            return repr(x)
        return f"a number of {int(math.log10(abs(x))) + 1} digits"


_SHORT: Final = _Short()
_SHORT.maxstring = _SHORT.maxother = 150

shown: Final[Callable[[object], str]] = _SHORT.repr
"""Return a value as an error shows it: of what is long or deep, its beginning and end."""


@dataclass(frozen=True)
class Bounds:
    """The numbers that a setting may be, both ends included.

    Attributes:
        least: the smallest.
        most: the largest; never infinite, since a mistyped number must not work for ever.
        whole: whether only whole numbers count.
    """

    least: float
    most: float
    whole: bool = True

    def check(self, name: str, value: object) -> None:
        """Raise ConfigError unless a value is a number within the bounds; truth values are none."""
        kinds = int if self.whole else int | float
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise ConfigError(f"{name} is {shown(value)}", remedy=f"{self._wanted}")
        # A comparison, unlike a conversion, takes whole numbers of any size; NaN fails it.
        if not self.least <= value <= self.most:
            raise ConfigError(f"{name} is {shown(value)}", remedy=self._nearest(value))

    @property
    def limits(self) -> dict[str, Any]:
        """The same as keywords of pydantic's ``Field``."""
        return {"ge": self.least, "le": self.most}

    def __str__(self) -> str:
        return f"{self.least:g} to {_plain(self.most)}"

    @property
    def _wanted(self) -> str:
        if self.whole:
            return f"use a whole number of {self.least} or more"
        return f"use a number from {self}"

    def _nearest(self, value: float) -> str:
        if not self.whole:
            return self._wanted
        if value < self.least:
            return f"use {self.least} or more"
        return f"use {_plain(self.most)} or less"


def _plain(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"


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
"""Of features of norm 1 in float32: smaller ones do nothing, larger ones leave nothing."""

SHARE: Final = Bounds(1e-9, 1, whole=False)
"""Of what is stored: no smaller share is one unit of a billion."""
