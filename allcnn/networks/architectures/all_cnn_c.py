"""All-CNN-C (Springenberg et al. 2015) as trained by Lange (2021)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from allcnn.definitions.fields import setting
from allcnn.networks.architectures.convolutional import (
    DEPTH,
    Conv,
    Convolutional,
    Layers,
    three_by_three,
    width_of,
)


@dataclass(frozen=True)
class AllCnnC(Convolutional):
    """All-CNN-C, 7n + 3 taps at depth n.

    Depth n repeats the 3 x 3 convolutions; width multiplies the published 96 and 192 channels;
    variant v1 drops 20 % of the input and 50 % after each strided convolution, v2 nothing.
    """

    name: ClassVar[str] = "all-cnn-c"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        f"d{n}-{v}": {"depth": n, "variant": v} | ({} if n == 1 else {"batch_size": 256})
        for n in (1, 2, 4, 8)
        for v in ("v1", "v2")
    }

    depth: int = setting(1, f"n, which gives the network 7n + 3 taps, {DEPTH}", DEPTH)
    variant: str = setting("v2", "v1 with dropout, v2 without", choices=("v1", "v2"))
    width: float = width_of("published 96 and 192 channels")

    @property
    def label(self) -> str:
        return f"d{self.depth}-{self.variant}"

    @property
    def cost(self) -> float:
        return self.depth * self.width

    def layers(self, n_classes: int) -> Layers:
        n, narrow, wide = self.depth, self.scaled(96), self.scaled(192)
        input_dropout, dropout = (0.2, 0.5) if self.variant == "v1" else (0.0, 0.0)
        one_by_one = Conv(wide, kernel=1), Conv(n_classes, kernel=1)
        blocks = (*three_by_three(n, narrow, wide, dropout), *one_by_one)
        return Layers(blocks, is_linear=False, input_dropout=input_dropout)
