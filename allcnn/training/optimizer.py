"""The optimiser of the published recipe, its schedule scaled to the epochs that are asked for."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from allcnn.settings.run import RunConfig

_MILESTONES = (200 / 350, 250 / 350, 300 / 350)
_MOMENTUM = 0.9
_MAX_GRADIENT_NORM = 2.0


def learning_rate(config: RunConfig, steps_per_epoch: int) -> optax.Schedule:
    """Return the schedule: a tenth after each of 200, 250 and 300 of every 350 epochs."""
    n_steps = config.epochs * steps_per_epoch
    milestones = [round(n_steps * share) for share in _MILESTONES]

    def rate(step: Int[Array, ""]) -> Float[Array, ""]:
        # Counted rather than looked up: milestones of a very short training may coincide.
        passed = (jnp.asarray(step) >= jnp.array(milestones)).sum()
        return config.learning_rate * 0.1 ** passed.astype(jnp.float32)

    return rate


def optimiser(config: RunConfig, steps_per_epoch: int) -> optax.GradientTransformationExtraArgs:
    """Return SGD with Nesterov momentum 0.9 on gradients clipped to a global norm of 2.

    The L2 term, weight_decay / 2 times the squared norm of every kernel, adds its gradient before
    the clipping; scales and biases of batch norm are not decayed.
    """
    return optax.chain(
        optax.add_decayed_weights(config.weight_decay, mask=_kernels),
        optax.clip_by_global_norm(_MAX_GRADIENT_NORM),
        optax.sgd(learning_rate(config, steps_per_epoch), momentum=_MOMENTUM, nesterov=True),
    )


def _kernels(params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)
