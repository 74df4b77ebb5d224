"""Plain-(8n + 2) of Kornblith et al. (2019, appendix E)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from allcnn.definitions.fields import setting
from allcnn.networks.architectures.convolutional import (
    DEPTH,
    Convolutional,
    Layers,
    kornblith,
    width_of,
)


@dataclass(frozen=True)
class Plain(Convolutional):
    """Plain-(8n + 2), 8n + 3 taps with the pooled one."""

    name: ClassVar[str] = "plain"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        f"plain-{8 * n + 2}": {"depth": n} for n in (1, 2, 4, 8)
    }

    depth: int = setting(1, f"n of Plain-(8n + 2), {DEPTH}", DEPTH)
    width: float = width_of("published 96 and 192 channels")

    @property
    def label(self) -> str:
        return f"plain-{8 * self.depth + 2}"

    @property
    def cost(self) -> float:
        return self.depth * self.width

    def layers(self, n_classes: int) -> Layers:
        return kornblith(self.depth, self.scaled(96), self.scaled(192))
