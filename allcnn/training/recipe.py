"""How an architecture is trained: its optimiser, schedule and augmentation."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from allcnn.settings.run import RunConfig
from allcnn.training.augment import Fill, Images, augment

_MILESTONES = (200 / 350, 250 / 350, 300 / 350)


class Recipe(ABC):
    """A recipe; a subclass is a frozen dataclass, as compiled programs depend on it."""

    @abstractmethod
    def optimiser(
        self, config: RunConfig, steps_per_epoch: int
    ) -> optax.GradientTransformationExtraArgs:
        """Return the optimiser for a run's epochs."""

    @abstractmethod
    def learning_rate(self, config: RunConfig, steps_per_epoch: int) -> optax.Schedule:
        """Return the learning rate by step."""

    @abstractmethod
    def augment(self, key: Key[Array, ""], images: Images, fill: Fill) -> Images:
        """Return images as a step sees them; ``fill`` is a blank pixel."""


@dataclass(frozen=True)
class Lange(Recipe):
    """SGD as Lange (2021) used it, with random crops, flips and Cutout."""

    def optimiser(
        self, config: RunConfig, steps_per_epoch: int
    ) -> optax.GradientTransformationExtraArgs:
        """Return SGD with Nesterov momentum 0.9 on gradients clipped to a global norm of 2.

        The L2 term, weight_decay / 2 times the squared norm of every kernel, adds its gradient
        before the clipping; scales and biases of batch norm are not decayed.
        """
        rate = self.learning_rate(config, steps_per_epoch)
        return optax.chain(
            optax.add_decayed_weights(config.weight_decay, mask=_kernels),
            optax.clip_by_global_norm(2.0),
            optax.sgd(rate, momentum=0.9, nesterov=True),
        )

    def learning_rate(self, config: RunConfig, steps_per_epoch: int) -> optax.Schedule:
        """Return the schedule: a tenth after each of 200, 250 and 300 of every 350 epochs."""
        n_steps = config.epochs * steps_per_epoch
        milestones = [round(n_steps * share) for share in _MILESTONES]

        def rate(step: Int[Array, ""]) -> Float[Array, ""]:
            # Counted rather than looked up: milestones of a very short training may coincide.
            passed = (jnp.asarray(step) >= jnp.array(milestones)).sum()
            return config.learning_rate * 0.1 ** passed.astype(jnp.float32)

        return rate

    def augment(self, key: Key[Array, ""], images: Images, fill: Fill) -> Images:
        """Crop, flip and cut out."""
        return augment(key, images, fill)


def recipe_of(config: RunConfig) -> Recipe:
    """Return the recipe of a run's architecture."""
    return config.architecture.recipe() or Lange()


def _kernels(params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)
