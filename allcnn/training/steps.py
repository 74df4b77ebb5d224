"""The compiled programs of training: many steps at a time, or a whole evaluation, on the device."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, UInt8

from allcnn import backend
from allcnn.datasets import splits
from allcnn.networks.network import Network, Variables
from allcnn.settings.run import RunConfig
from allcnn.training.recipe import Recipe, recipe_of
from allcnn.workspace.checkpoints import TrainState

_EVALUATION_BATCH = 256

_program = functools.partial(
    backend.jit, static_argnames="plan", donate_argnames=("state", "metrics")
)


class Plan(NamedTuple):
    """All that compiled steps depend on: one program serves every seed of a configuration."""

    network: Network
    config: RunConfig
    steps_per_epoch: int
    augmented: bool

    @property
    def optimiser(self) -> optax.GradientTransformationExtraArgs:
        """The recipe's optimiser."""
        return self.recipe.optimiser(self.config, self.steps_per_epoch)

    @property
    def recipe(self) -> Recipe:
        """How the architecture is trained."""
        return recipe_of(self.config)


class TrainingExamples(NamedTuple):
    """Training images and labels, on the device, with the pixel that augmentation pads with."""

    images: UInt8[Array, "n h w c"]
    labels: Int[Array, " n"]
    fill: UInt8[Array, " c"]


class Metrics(NamedTuple):
    """Sums over the examples of each step or batch; steps that were not taken have zeros."""

    loss: Float[Array, " steps"]
    n_correct: Int[Array, " steps"]

    @classmethod
    def none(cls, plan: Plan) -> "Metrics":
        """Return the metrics before the first step of an epoch."""
        steps = plan.steps_per_epoch
        return cls(jnp.zeros(steps, jnp.float32), jnp.zeros(steps, jnp.int32))

    def means(self, n_examples: int) -> tuple[float, float]:
        """Return loss and accuracy over all examples."""
        loss = float(np.asarray(self.loss, np.float64).sum())
        return loss / n_examples, float(np.asarray(self.n_correct).sum()) / n_examples


@_program
def advance(
    plan: Plan,
    state: TrainState,
    metrics: Metrics,
    examples: TrainingExamples,
    order: Int[Array, " n"],
    n_steps: Int[Array, ""],
) -> tuple[TrainState, Metrics]:
    """Take ``n_steps`` steps of one epoch in one program; ``order`` is that of its examples.

    Where the epoch is cut into calls does not change a bit of the result.
    """
    size = plan.config.batch_size

    def one(_: Any, carried: tuple[TrainState, Metrics]) -> tuple[TrainState, Metrics]:
        state, metrics = carried
        i = state.position.step % plan.steps_per_epoch
        rows = jax.lax.dynamic_slice(order, (i * size,), (size,))
        state, loss, correct = _step(plan, state, examples, rows)
        return state, Metrics(metrics.loss.at[i].set(loss), metrics.n_correct.at[i].set(correct))

    return jax.lax.fori_loop(0, n_steps, one, (state, metrics))


@_program
def advance_together(
    plan: Plan, state: TrainState, metrics: Metrics, *examples_order_n_steps: Any
) -> tuple[TrainState, Metrics]:
    """As ``advance``, for several seeds, whose states, metrics and orders lie along axis 0."""
    together = jax.vmap(functools.partial(advance, plan), in_axes=(0, 0, None, 0, None))
    return together(state, metrics, *examples_order_n_steps)


def _step(
    plan: Plan, state: TrainState, examples: TrainingExamples, rows: Int[Array, " b"]
) -> tuple[TrainState, Float[Array, ""], Int[Array, ""]]:
    """Take one optimiser step; return also the summed loss and the correct answers."""
    position, variables = state.position, state.variables
    key = jax.random.fold_in(jax.random.wrap_key_data(position.key), position.step)
    augment_key, dropout_key = jax.random.split(key)
    images, labels = examples.images[rows], examples.labels[rows]
    if plan.augmented:
        images = plan.recipe.augment(augment_key, images, examples.fill)

    def loss_of(params: dict[str, object]) -> tuple[Array, tuple[Array, dict[str, object]]]:
        logits, batch_stats = plan.network.apply_train(
            variables._replace(params=params), images, dropout_key, plan.config.precision
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean(), (logits, batch_stats)

    (loss, (logits, batch_stats)), gradient = jax.value_and_grad(loss_of, has_aux=True)(
        variables.params
    )
    updates, optimiser = plan.optimiser.update(gradient, state.optimiser, variables.params)
    params = optax.apply_updates(variables.params, updates)
    variables = variables._replace(params=params, batch_stats=batch_stats)
    position = position._replace(step=position.step + 1)
    correct = (logits.argmax(-1) == labels).sum(dtype=jnp.int32)
    return TrainState(variables, optimiser, position), loss * len(rows), correct


class Evaluation(NamedTuple):
    """A split on the device, in batches of one shape; the last is padded with label -1."""

    images: UInt8[Array, "batches b h w c"]
    labels: Int[Array, "batches b"]
    n_examples: int

    @classmethod
    def of(cls, split: splits.Split) -> "Evaluation":
        """Put a split on the device."""
        n = len(split)
        size = min(_EVALUATION_BATCH, n)
        missing = -n % size
        images = np.pad(split.images, ((0, missing), (0, 0), (0, 0), (0, 0)))
        labels = np.pad(split.labels, (0, missing), constant_values=-1)
        shape = (-1, size, *images.shape[1:])
        return cls(jnp.asarray(images.reshape(shape)), jnp.asarray(labels.reshape(-1, size)), n)


def evaluate(network: Network, variables: Variables, split: Evaluation) -> tuple[float, float]:
    """Return loss and accuracy over a whole split, its last rows included."""
    return _evaluate(network, variables, split.images, split.labels).means(split.n_examples)


@functools.partial(backend.jit, static_argnames="network")
def _evaluate(
    network: Network,
    variables: Variables,
    images: UInt8[Array, "batches b h w c"],
    labels: Int[Array, "batches b"],
) -> Metrics:
    def one(batch: tuple[Array, Array]) -> tuple[Array, Array]:
        images, labels = batch
        logits = network.apply(variables, images)["logits"]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(labels, 0))
        return jnp.where(labels >= 0, losses, 0).sum(), (logits.argmax(-1) == labels).sum()

    return Metrics(*jax.lax.map(one, (images, labels)))
