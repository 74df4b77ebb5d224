"""How an architecture is trained: its optimiser, schedule and augmentation."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, UInt8

from allcnn.settings.run import RunConfig

Images = UInt8[Array, "n h w c"]
Fill = UInt8[Array, " c"]

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
        """Crop, flip and cut out, each example with its own randomness.

        Images are square, and distances scale with them: of 32 pixels the crop pads 4, and Cutout
        blanks 16 x 16.
        """
        crop_key, flip_key, cut_key = jax.random.split(key, 3)
        return cutout(cut_key, flip(flip_key, crop(crop_key, images, fill)), fill)


def recipe_of(config: RunConfig) -> Recipe:
    """Return the recipe of a run's architecture."""
    return config.architecture.recipe() or Lange()


def _kernels(params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def crop(key: Key[Array, ""], images: Images, fill: Fill) -> Images:
    """Shift each image by up to an eighth of its side either way, padding with ``fill``."""
    n, h, w, c = images.shape
    pad = h // 8
    padded = jnp.broadcast_to(fill, (n, h + 2 * pad, w + 2 * pad, c))
    padded = padded.at[:, pad : pad + h, pad : pad + w].set(images)
    corners = jax.random.randint(key, (n, 2), 0, 2 * pad + 1)
    return jax.vmap(
        lambda image, corner: jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), (h, w, c))
    )(padded, corners)


def flip(key: Key[Array, ""], images: Images) -> Images:
    """Mirror each image left to right with probability one half."""
    mirrored = jax.random.bernoulli(key, 0.5, (len(images), 1, 1, 1))
    return jnp.where(mirrored, images[:, :, ::-1], images)


def cutout(key: Key[Array, ""], images: Images, fill: Fill) -> Images:
    """Blank a square of half the side around a random pixel (DeVries and Taylor 2017).

    The square's centre lies anywhere in the image, so part of the square may fall outside.
    """
    n, h, w, _ = images.shape
    half = h // 4
    centres = jax.random.randint(key, (n, 2), 0, h)
    inside = _within(jnp.arange(h), centres[:, :1], half)[:, :, None]
    inside &= _within(jnp.arange(w), centres[:, 1:], half)[:, None, :]
    return jnp.where(inside[..., None], fill[None, None, None], images)


def _within(positions: Array, centre: Array, half: int) -> Array:
    return (positions[None, :] >= centre - half) & (positions[None, :] < centre + half)
