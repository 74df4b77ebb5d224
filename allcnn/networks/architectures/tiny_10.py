"""Tiny-10 of Kornblith et al. (2019, appendix E)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from allcnn.networks.architectures.convolutional import Conv, Convolutional, Layers, width_of


@dataclass(frozen=True)
class Tiny10(Convolutional):
    """Tiny-10, 10 taps."""

    name: ClassVar[str] = "tiny"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"tiny-10": {}}

    width: float = width_of("published 16, 32 and 64 channels")

    @property
    def label(self) -> str:
        return "tiny-10"

    @property
    def cost(self) -> float:
        return 0.2 * self.width

    def layers(self, n_classes: int) -> Layers:
        first, second, third = map(self.scaled, (16, 32, 64))
        blocks = (
            *[Conv(first)] * 2,
            Conv(second, stride=2),
            *[Conv(second)] * 2,
            Conv(third, stride=2),
            Conv(third, padding="VALID"),
            Conv(third, kernel=1),
        )
        return Layers(blocks, is_linear=True)
