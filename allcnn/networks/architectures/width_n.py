"""Width-n of Kornblith et al. (2019, Figure 6)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from allcnn.definitions.bounds import Bounds
from allcnn.definitions.fields import setting
from allcnn.errors import ConfigError
from allcnn.networks.architectures.convolutional import Convolutional, Layers, kornblith, width_of

_PRESET: Final = re.compile(r"width-([1-9]\d{0,3})")

CHANNELS: Final = Bounds(1, 9999)
"""Far more than fit anywhere."""


@dataclass(frozen=True)
class WidthN(Convolutional):
    """Plain-10 with n channels everywhere."""

    name: ClassVar[str] = "width"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"width-N": {}}

    channels: int = setting(None, "n of the architecture width: channels of each layer", CHANNELS)
    width: float = width_of("number of channels")

    def __post_init__(self) -> None:
        if self.channels is None:
            raise ConfigError("channels", "is missing", "use a whole number of 1 or more")
        super().__post_init__()

    @classmethod
    def preset(cls, name: str) -> Mapping[str, Any] | None:
        found = _PRESET.fullmatch(name)
        return {"channels": int(found[1])} if found else None

    @property
    def label(self) -> str:
        return f"width-{self.channels}"

    def layers(self, n_classes: int) -> Layers:
        n = self.scaled(self.channels)
        return kornblith(1, n, n)
