"""The interface of an architecture: its settings, its part of a run's name, and its network."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from allcnn.definitions.registry import Varying
from allcnn.networks.network import Network


class Architecture(Varying, ABC):
    """An architecture; a subclass is a frozen dataclass of its settings.

    Its module imports nothing heavy where it belongs to this package: names and settings are asked
    for by commands that compute nothing.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Published networks by name, with settings of a run that differ from the shared recipe."""

    @classmethod
    def preset(cls, name: str) -> Mapping[str, Any] | None:
        """Return the settings of a published network; None where it is of another architecture."""
        return cls.presets.get(name)

    @property
    @abstractmethod
    def label(self) -> str:
        """Its part of a run's name, with the settings that tell runs apart."""

    @abstractmethod
    def network(self, n_classes: int, input_channels: int, image_size: int) -> Network:
        """Return the network for images of a data set."""

    def recipe(self) -> Any:
        """Return its ``allcnn.training.recipe.Recipe``; None for that of Lange (2021)."""
        return None

    @property
    def cost(self) -> float:
        """The time of a training step relative to that of All-CNN-C, about, for progress alone."""
        return 1.0
