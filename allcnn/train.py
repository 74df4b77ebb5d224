"""Train one run: an epoch at a time, from its last whole checkpoint, deterministically by seed."""

import functools
import math
import time
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key, UInt8

from allcnn import backend, checkpoint, data, network, optim, record
from allcnn.augment import augment
from allcnn.checkpoint import TrainState
from allcnn.config import RunConfig
from allcnn.errors import ConfigError, RunError
from allcnn.network import NetworkSpec, Variables
from allcnn.progress import Report, silent
from allcnn.provenance import now
from allcnn.record import Epoch, History, RunRecord
from allcnn.stages import checkpoint_epoch, checkpoint_name
from allcnn.workspace import Workspace

_EVALUATION_BATCH = 256


class Totals(NamedTuple):
    """Sums over examples, divided once at the end."""

    loss: float
    n_correct: float
    n_examples: int

    def merge(self, other: "Totals") -> "Totals":
        """Add the sums of other examples."""
        return Totals(
            self.loss + other.loss,
            self.n_correct + other.n_correct,
            self.n_examples + other.n_examples,
        )


class Plan(NamedTuple):
    """What the compiled step depends on: one program serves every seed of a configuration."""

    spec: NetworkSpec
    config: RunConfig
    steps_per_epoch: int
    augmented: bool

    @property
    def optimiser(self) -> optax.GradientTransformationExtraArgs:
        """The recipe's optimiser."""
        return optim.optimiser(self.config, self.steps_per_epoch)


class Examples(NamedTuple):
    """Training images and labels, on the device, with the pixel that augmentation pads with."""

    images: UInt8[Array, "n h w c"]
    labels: Int[Array, " n"]
    fill: UInt8[Array, " c"]


def train(config: RunConfig, workspace: Workspace, report: Report = silent) -> str:
    """Train a run to its end, or return at once if it is finished; return its name.

    Goes on from the last whole checkpoint. Raises RunError if the name is taken by another
    configuration, or when the loss is no longer finite.
    """
    run = config.name
    if run in workspace.runs():
        record.check_same(record.read_record(workspace, run).config, config)
        if "final" in workspace.checkpoints(run):
            return run
    elif workspace.checkpoints(run):
        raise RunError(
            f"{workspace.run_folder(run)} holds checkpoints but no config.json to say of what;"
            " restore it, or delete the folder"
        )
    training = data.load(config.dataset, "train", config.image_size)
    test = data.load(config.dataset, "test", config.image_size)
    if len(training) < config.batch_size:
        raise ConfigError(
            f"batch-size is {config.batch_size}, but {config.dataset} has {len(training)}"
            " training images; use at most that many"
        )
    # A run that goes on was not begun now, even where nothing tells when.
    begun = record.begun_at(workspace, run) if run in workspace.runs() else now()
    entry = RunRecord(config, training.class_names, training.images.shape[-1], begun)
    record.write_record(workspace, entry)
    plan = _plan(entry, len(training))
    mean, std = data.image_statistics(training)
    init_key, train_key = jax.random.split(jax.random.key(config.seed))
    state = _initial_state(plan, init_key, 255 * mean, 255 * std)
    state, history = _resume(workspace, run, state)
    fill = jnp.asarray(np.round(255 * mean), jnp.uint8)
    examples = Examples(jnp.asarray(training.images), jnp.asarray(training.labels), fill)
    for epoch in range(len(history), config.epochs):
        began = time.monotonic()
        state, totals = _epoch(plan, state, examples, config.seed, epoch, train_key, report)
        tested = evaluate(plan.spec, state.variables, test)
        # Else the last step's overflow would be kept as a checkpoint that nobody can go on from.
        _check_finite(plan, "test loss", tested.loss, (epoch + 1) * plan.steps_per_epoch - 1)
        history += (_row(epoch + 1, totals, tested, time.monotonic() - began),)
        record.write_history(workspace, run, history)
        if (epoch + 1) % config.checkpoint_every == 0 and epoch + 1 < config.epochs:
            checkpoint.save(workspace.checkpoints_folder(run) / checkpoint_name(epoch + 1), state)
    checkpoint.save(workspace.checkpoints_folder(run) / "final", state)
    return run


def evaluate(spec: NetworkSpec, variables: Variables, split: data.Split) -> Totals:
    """Return the sums of loss and correct answers over a whole split, its last rows included."""
    parts = []
    for start, stop in data.batch_ranges(len(split), _EVALUATION_BATCH):
        # Padded to one shape, so that one program serves the last batch too.
        padding = _EVALUATION_BATCH - (stop - start)
        images = np.pad(split.images[start:stop], ((0, padding), (0, 0), (0, 0), (0, 0)))
        labels = np.pad(split.labels[start:stop], (0, padding), constant_values=-1)
        loss, correct = _evaluate_batch(spec, variables, images, labels)
        parts.append(Totals(float(loss), float(correct), stop - start))
    return functools.reduce(Totals.merge, parts)


@functools.partial(backend.jit, static_argnames="spec")
def _evaluate_batch(
    spec: NetworkSpec,
    variables: Variables,
    images: UInt8[Array, "n h w c"],
    labels: Int[Array, " n"],
) -> tuple[Float[Array, ""], Int[Array, ""]]:
    logits = network.apply(spec, variables, images)["logits"]
    real = labels >= 0
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(labels, 0))
    return jnp.where(real, losses, 0).sum(), (logits.argmax(-1) == labels).sum()


def _plan(entry: RunRecord, n_train: int) -> Plan:
    config = entry.config
    augmented = data.supports_augmentation(config.dataset)
    return Plan(entry.spec, replace(config, seed=0), n_train // config.batch_size, augmented)


def _initial_state(
    plan: Plan, key: Key[Array, ""], mean: Float[np.ndarray, " c"], std: Float[np.ndarray, " c"]
) -> TrainState:
    variables = network.init(plan.spec, key, mean, std)
    return TrainState(variables, plan.optimiser.init(variables.params))


def _resume(workspace: Workspace, run: str, state: TrainState) -> tuple[TrainState, History]:
    """Return the last whole checkpoint with its history, or keep the first one."""
    known = workspace.checkpoints(run)
    if not known:
        checkpoint.save(workspace.checkpoints_folder(run) / "init", state)
        return state, ()
    n_epochs = int(checkpoint_epoch(known[-1]))
    history = record.read_history(workspace, run)[:n_epochs]
    if len(history) < n_epochs:
        raise RunError(
            f"run {run!r} has the checkpoint {known[-1]!r}, but its history.json has"
            f" {len(history)} epochs; restore that file, or delete the run and train it again"
        )
    return checkpoint.load(workspace.checkpoints_folder(run) / known[-1], state), history


def _epoch(
    plan: Plan,
    state: TrainState,
    examples: Examples,
    seed: int,
    epoch: int,
    key: Key[Array, ""],
    report: Report,
) -> tuple[TrainState, Totals]:
    """Pass once over the training split; the last partial batch waits for another epoch."""
    size, steps = plan.config.batch_size, plan.steps_per_epoch
    order = data.epoch_order(len(examples.labels), seed, epoch).astype(np.int32)
    totals = Totals(0.0, 0.0, 0)
    pending: list[tuple[Array, Array]] = []
    for start, stop in data.batch_ranges(len(order), size, drop_last=True):
        step = epoch * steps + start // size
        state, metrics = _step(plan, state, examples, order[start:stop], np.int32(step), key)
        # Read one step late: the device is never idle while the host looks at a number.
        pending.append(metrics)
        if len(pending) > 1:
            totals = totals.merge(_read(plan, pending.pop(0), step - 1))
        detail = f"epoch {epoch + 1} of {plan.config.epochs}"
        if totals.n_examples:
            detail += f", loss {totals.loss / totals.n_examples:.3f}"
        report(step + 1, plan.config.epochs * steps, detail)
    return state, totals.merge(_read(plan, pending.pop(), step))


@functools.partial(backend.jit, static_argnames="plan", donate_argnames="state")
def _step(
    plan: Plan,
    state: TrainState,
    examples: Examples,
    indices: Int[Array, " b"],
    step: Int[Array, ""],
    key: Key[Array, ""],
) -> tuple[TrainState, tuple[Float[Array, ""], Int[Array, ""]]]:
    """Take one optimiser step; return also the summed loss and the correct answers."""
    augment_key, dropout_key = jax.random.split(jax.random.fold_in(key, step))
    images, labels = examples.images[indices], examples.labels[indices]
    if plan.augmented:
        images = augment(augment_key, images, examples.fill)
    variables = state.variables

    def loss_of(params: dict[str, object]) -> tuple[Array, tuple[Array, dict[str, object]]]:
        logits, batch_stats = network.apply_train(
            plan.spec, variables._replace(params=params), images, dropout_key
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean(), (logits, batch_stats)

    (loss, (logits, batch_stats)), gradient = jax.value_and_grad(loss_of, has_aux=True)(
        variables.params
    )
    updates, optimiser = plan.optimiser.update(gradient, state.optimiser, variables.params)
    params = optax.apply_updates(variables.params, updates)
    variables = variables._replace(params=params, batch_stats=batch_stats)
    correct = (logits.argmax(-1) == labels).sum()
    return TrainState(variables, optimiser), (loss * len(indices), correct)


def _read(plan: Plan, metrics: tuple[Array, Array], step: int) -> Totals:
    loss, correct = float(metrics[0]), float(metrics[1])
    _check_finite(plan, "loss", loss, step)
    return Totals(loss, correct, plan.config.batch_size)


def _check_finite(plan: Plan, name: str, loss: float, step: int) -> None:
    if math.isfinite(loss):
        return
    epoch, index = divmod(step, plan.steps_per_epoch)
    rate = float(optim.learning_rate(plan.config, plan.steps_per_epoch)(jnp.int32(step)))
    raise RunError(
        f"the {name} became {loss} in epoch {epoch + 1}, step {index + 1}, at learning rate"
        f" {rate:g}; the last checkpoint is kept: train under another --prefix with a smaller"
        " --learning-rate"
    )


def _row(epoch: int, trained: Totals, tested: Totals, wall_s: float) -> Epoch:
    return Epoch(
        epoch,
        trained.loss / trained.n_examples,
        trained.n_correct / trained.n_examples,
        tested.loss / tested.n_examples,
        tested.n_correct / tested.n_examples,
        round(wall_s, 3),
    )
