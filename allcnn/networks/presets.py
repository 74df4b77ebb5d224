"""Published networks by name, with the recipe that each was trained by."""

import re
from typing import Any

from allcnn.errors import ConfigError

_RECIPE: dict[str, Any] = {
    "dataset": "cifar10",
    "image_size": 32,
    "width": 1.0,
    "epochs": 350,
    "batch_size": 128,
    "learning_rate": 0.1,
    "weight_decay": 1e-3,
}
"""How all of them are trained, unless their own settings differ."""

_WIDTH = re.compile(r"width-([1-9]\d{0,3})")

_PRESETS: dict[str, dict[str, Any]] = {
    f"d{n}-{variant}": {"depth": n, "variant": variant} | ({} if n == 1 else {"batch_size": 256})
    for n in (1, 2, 4, 8)
    for variant in ("v1", "v2")
} | {f"plain-{8 * n + 2}": {"architecture": "plain", "depth": n} for n in (1, 2, 4, 8)}
_PRESETS["tiny-10"] = {"architecture": "tiny"}

NAMES = (*_PRESETS, "width-N")
"""The presets: All-CNN-C of Lange (2021), then the networks of Kornblith et al. (2019)."""


def preset(name: str) -> dict[str, Any]:
    """Return the settings of a published network and of its training: 350 epochs of CIFAR-10.

    Raises ConfigError for a name that is no preset.
    """
    if width := _WIDTH.fullmatch(name):
        settings = {"architecture": "width", "channels": int(width[1])}
    elif name in _PRESETS:
        settings = _PRESETS[name]
    else:
        raise ConfigError(
            f"preset is {name!r}; use {', '.join(NAMES)} (N from 1 to 9999 channels a layer)"
        )
    return _RECIPE | settings
