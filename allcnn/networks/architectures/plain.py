"""Plain-(8n + 2) of Kornblith et al. (2019, appendix E)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from allcnn.definitions.fields import setting
from allcnn.networks.architectures.convolutional import (
    DEPTH,
    WIDTH,
    Convolutional,
    channels,
    kornblith,
)
from allcnn.networks.architectures.layers import Layers


@dataclass(frozen=True)
class Plain(Convolutional):
    """Plain-(8n + 2), 8n + 3 taps with the pooled one."""

    name: ClassVar[str] = "plain"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        f"plain-{8 * n + 2}": {"depth": n} for n in (1, 2, 4, 8)
    }

    depth: int = setting(1, f"n of Plain-(8n + 2), {DEPTH}", DEPTH)
    width: float = setting(
        0.25, f"factor on the published 96 and 192 channels, {WIDTH}", WIDTH, metavar="FACTOR"
    )

    @property
    def label(self) -> str:
        return f"plain-{8 * self.depth + 2}"

    @property
    def cost(self) -> float:
        return self.depth * self.width

    def layers(self, n_classes: int) -> Layers:
        return kornblith(self.depth, channels(96, self.width), channels(192, self.width))
