"""Published networks by name, with the recipe that each was trained by."""

from typing import Any, Final

from allcnn.errors import ConfigError
from allcnn.networks.architectures import ARCHITECTURES

_RECIPE: Final[dict[str, Any]] = {
    "dataset": "cifar10",
    "image_size": 32,
    "width": 1.0,
    "epochs": 350,
    "batch_size": 128,
    "learning_rate": 0.1,
    "weight_decay": 1e-3,
}
"""How all of them are trained, unless their own settings differ."""


def preset(name: str) -> dict[str, Any]:
    """Return the settings of a published network and of its training: 350 epochs of CIFAR-10.

    Raises ConfigError for a name that is no preset.
    """
    for architecture in map(ARCHITECTURES.find, ARCHITECTURES.names):
        settings = architecture.preset(name)
        if settings is not None:
            return {**_RECIPE, "architecture": architecture.name, **settings}
    raise ConfigError(
        f"preset is {name!r}",
        remedy=f"use {', '.join(names())} (N from 1 to 9999 channels a layer)",
    )


def names() -> tuple[str, ...]:
    """Return the presets, architecture after architecture."""
    return tuple(n for each in ARCHITECTURES.names for n in ARCHITECTURES.find(each).presets)
