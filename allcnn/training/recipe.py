"""How an architecture is trained: its optimiser, schedule and augmentation."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import optax
from jaxtyping import Array, Key, UInt8

from allcnn.settings.run import RunConfig
from allcnn.training import optimizer
from allcnn.training.augment import augment

Images = UInt8[Array, "n h w c"]


class Recipe(ABC):
    """A recipe; a subclass is a frozen dataclass, as compiled programs depend on it."""

    @abstractmethod
    def optimiser(
        self, config: RunConfig, steps_per_epoch: int
    ) -> optax.GradientTransformationExtraArgs:
        """Return the optimiser for so many epochs."""

    @abstractmethod
    def learning_rate(self, config: RunConfig, steps_per_epoch: int) -> optax.Schedule:
        """Return the learning rate by step."""

    @abstractmethod
    def augment(self, key: Key[Array, ""], images: Images, fill: UInt8[Array, " c"]) -> Images:
        """Return images as a step sees them; ``fill`` is a blank pixel."""


@dataclass(frozen=True)
class Lange(Recipe):
    """SGD as Lange (2021) used it, with random crops, flips and Cutout."""

    def optimiser(
        self, config: RunConfig, steps_per_epoch: int
    ) -> optax.GradientTransformationExtraArgs:
        """Return SGD with Nesterov momentum on clipped gradients."""
        return optimizer.optimiser(config, steps_per_epoch)

    def learning_rate(self, config: RunConfig, steps_per_epoch: int) -> optax.Schedule:
        """Return the rate that falls to a tenth three times."""
        return optimizer.learning_rate(config, steps_per_epoch)

    def augment(self, key: Key[Array, ""], images: Images, fill: UInt8[Array, " c"]) -> Images:
        """Crop, flip and cut out."""
        return augment(key, images, fill)


def recipe_of(config: RunConfig) -> Recipe:
    """Return the recipe of a run's architecture."""
    found: Recipe = config.architecture.recipe() or Lange()
    return found
