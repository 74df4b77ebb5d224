"""Train runs: an epoch at a time, from their last whole checkpoints, deterministically by seed."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from allcnn.datasets import splits
from allcnn.errors import ConfigError, RunError
from allcnn.progress import Report, silent
from allcnn.provenance import now
from allcnn.settings.run import RunConfig
from allcnn.training.footprint import check_training
from allcnn.training.steps import (
    Evaluation,
    Metrics,
    Plan,
    TrainingExamples,
    advance,
    advance_together,
    evaluate,
)
from allcnn.workspace import checkpoints, run_record
from allcnn.workspace.checkpoint_names import checkpoint_epoch, checkpoint_name
from allcnn.workspace.checkpoints import Position, TrainState
from allcnn.workspace.paths import Workspace
from allcnn.workspace.run_locks import holding
from allcnn.workspace.run_record import Epoch, History, RunRecord
from store.storage.claims import drop_dead

REPORT_EVERY_S = 1.0
"""Steps are taken in one program for about so long; then the host looks at them, and reports."""


@dataclass
class _Run:
    """A run in the making; ``n_written`` are the epochs that its curves on the disk have."""

    config: RunConfig
    state: TrainState
    history: History
    n_written: int


class Clock:
    """Times the programs of a training, and reports after each.

    ``n_steps_in_all`` are those of the whole training, ``images_per_step`` of all its seeds.
    """

    def __init__(self, n_steps_in_all: int, images_per_step: int, report: Report) -> None:
        self.n_steps = 1
        self._in_all, self._images, self._report = n_steps_in_all, images_per_step, report
        self._began: float | None = None
        self._steps, self._stepping_s = 0, 0.0

    @contextmanager
    def stepping(self, n_steps: int) -> Iterator[None]:
        """Time a program of ``n_steps`` steps, and choose how many the next one takes."""
        began = time.monotonic()
        yield
        seconds = time.monotonic() - began
        self.n_steps = max(1, int(n_steps * REPORT_EVERY_S / max(seconds, 1e-9)))
        if self._began is None:  # the first program was compiled meanwhile
            self._began = time.monotonic()
            return
        self._steps += n_steps
        self._stepping_s += seconds

    def report(self, done: int, detail: str) -> None:
        """Report the steps done of the whole training, with the speed so far."""
        if self._steps and self._began is not None:
            speed = self._steps * self._images / self._stepping_s
            outside = 1 - self._stepping_s / (time.monotonic() - self._began)
            detail += f", {speed:,.0f} images/s, {max(outside, 0):.0%} outside the steps"
        elif self._began is None:
            detail += ", compiling"
        self._report(done, self._in_all, detail)


def train(config: RunConfig, workspace: Workspace, report: Report = silent) -> str:
    """Train a run to its end, or return at once if it is finished; return its name.

    Goes on from the last whole checkpoint. Raises RunError if the name is taken by another
    configuration, or when the loss is no longer finite, and ClaimedError where another process
    trains it.
    """
    return train_together([config], workspace, report)[0]


def train_together(
    configs: Sequence[RunConfig], workspace: Workspace, report: Report = silent
) -> list[str]:
    """Train runs that differ in their seeds alone as one program; return their names.

    As ``train``, but unfinished runs go on from the last epoch of which all have a checkpoint.
    Where a kill came between their last checkpoints, the remaining ones end with the same
    parameters but for rounding, since fewer are another program. Raises ConfigError where they
    differ in more, and RunError where some were begun and others were not.
    """
    if len({replace(config, seed=0) for config in configs}) != 1:
        raise ConfigError("runs that are trained together must differ in their seeds alone")
    if len({config.seed for config in configs}) != len(configs):
        raise ConfigError("seeds that are trained together must differ", remedy="name each once")
    unfinished = [config for config in configs if not _is_finished(config, workspace)]
    runs = [config.name for config in configs]
    if unfinished:
        _train(unfinished, workspace, report)
    else:
        report(1, 1, f"{', '.join(runs)}: already trained")
    return runs


def _is_finished(config: RunConfig, workspace: Workspace) -> bool:
    run = config.name
    if run in workspace.runs():
        run_record.check_same(run_record.read_record(workspace, run).config, config)
        finished = "final" in workspace.checkpoints(run)
        if finished:
            drop_dead(workspace.run_folder(run))
        return finished
    if workspace.checkpoints(run):
        raise RunError(
            f"{workspace.run_folder(run)} holds checkpoints but no config.json to say of what",
            remedy="restore it, or train with another --prefix",
        )
    return False


def _train(configs: Sequence[RunConfig], workspace: Workspace, report: Report) -> None:
    config = configs[0]
    outline = splits.outline(config.dataset)
    if outline.n_train < config.batch_size:
        raise ConfigError(
            f"batch-size is {config.batch_size}, but {config.dataset} has {outline.n_train}"
            " training images",
            remedy="use at most that many",
        )
    check_training(outline, config, len(configs))
    # Held first: runs of another process are refused before data are loaded, a minute for some.
    # The thread finishes what it writes in any case: it may be all that remains of an hour.
    with (
        holding(workspace, [each.name for each in configs]) as renew,
        ThreadPoolExecutor(1, "saving") as thread,
    ):
        training = splits.load(config.dataset, "train", config.image_size)
        test = splits.load(config.dataset, "test", config.image_size)
        renew()
        mean, std = splits.image_statistics(training)
        entries = [_begin(workspace, each, training) for each in configs]
        plan = _plan(entries[0], len(training))
        runs = _resume(workspace, plan, configs, 255 * mean, 255 * std)
        fill = jnp.asarray(np.round(255 * mean), jnp.uint8)
        examples = TrainingExamples(
            jnp.asarray(training.images), jnp.asarray(training.labels), fill
        )
        n_images = config.batch_size * len(configs)
        clock = Clock(config.epochs * plan.steps_per_epoch, n_images, report)
        epochs = _Epochs(plan, runs, examples, Evaluation.of(test), clock, renew)
        began = len(runs[0].history)
        clock.report(began * plan.steps_per_epoch, f"epoch {began + 1} of {config.epochs}")
        saving: list[Future[None]] = []
        for epoch in range(began, config.epochs):
            epochs.take(epoch)
            for run in runs:
                # Of several seeds some may have been ahead; their curves stay, as checkpoints do.
                if len(run.history) > run.n_written:
                    run_record.write_history(workspace, run.config.name, run.history)
                    run.n_written = len(run.history)
            done = epoch + 1
            if done % config.checkpoint_every == 0 or done == config.epochs:
                name = "final" if done == config.epochs else checkpoint_name(done)
                for each in saving:  # one epoch's checkpoints in memory are enough
                    each.result()
                saving = [_save(thread, workspace, run, name) for run in runs]
        for each in saving:
            each.result()


def _save(thread: ThreadPoolExecutor, workspace: Workspace, run: _Run, name: str) -> Future[None]:
    folder = workspace.checkpoints_folder(run.config.name) / name
    return thread.submit(checkpoints.save, folder, run.state.to_host())


def _begin(workspace: Workspace, config: RunConfig, training: splits.Split) -> RunRecord:
    """Write the record of a run; a resumed run keeps its start time, even an unknown one."""
    run = config.name
    begun = run_record.begun_at(workspace, run) if run in workspace.runs() else now()
    entry = RunRecord(config, training.class_names, training.images.shape[-1], begun)
    run_record.write_record(workspace, entry)
    return entry


def _plan(entry: RunRecord, n_train: int) -> Plan:
    config = entry.config
    augmented = splits.supports_augmentation(config.dataset)
    return Plan(entry.network, replace(config, seed=0), n_train // config.batch_size, augmented)


def _initial_state(
    plan: Plan, key: Key[Array, ""], mean: Float[np.ndarray, " c"], std: Float[np.ndarray, " c"]
) -> TrainState:
    init_key, train_key = jax.random.split(key)
    variables = plan.network.init(init_key, mean, std)
    return TrainState(variables, plan.optimiser.init(variables.params), Position.first(train_key))


def _resume(
    workspace: Workspace,
    plan: Plan,
    configs: Sequence[RunConfig],
    mean: Float[np.ndarray, " c"],
    std: Float[np.ndarray, " c"],
) -> list[_Run]:
    """Return the runs as they were at the last epoch of which all have a checkpoint."""
    known = [workspace.checkpoints(config.name) for config in configs]
    _check_begun_together(configs, known)
    name = min((names[-1] if names else "init" for names in known), key=checkpoint_epoch)
    runs = []
    for config, names in zip(configs, known, strict=True):
        folder = workspace.checkpoints_folder(config.name)
        state = _initial_state(plan, jax.random.key(config.seed), mean, std)
        if not names:
            checkpoints.save(folder / "init", state)
        elif name in names:
            state = checkpoints.load(folder / name, state)
        else:
            raise RunError(
                f"run {config.name!r} lacks the checkpoint {name!r}, from which those trained with"
                " it go on",
                remedy="train it alone first",
            )
        written = run_record.read_history(workspace, config.name)
        n_epochs = int(checkpoint_epoch(name)) if names else 0
        if len(written) < n_epochs:
            raise RunError(
                f"run {config.name!r} has the checkpoint {name!r}, but its history.json has"
                f" {len(written)} epochs",
                remedy="restore that file, or train the run again with another --prefix",
            )
        runs.append(_Run(config, state, written[:n_epochs], len(written)))
    return runs


def _check_begun_together(configs: Sequence[RunConfig], known: Sequence[Sequence[str]]) -> None:
    """Raise RunError where going on together would begin runs again that are far ahead.

    A kill between the first checkpoints may leave one of them after ``init``.
    """
    counts = {config.name: len(names) for config, names in zip(configs, known, strict=True)}
    ahead = [run for run, n_checkpoints in counts.items() if n_checkpoints > 2]
    new = [run for run, n_checkpoints in counts.items() if n_checkpoints < 2]
    if ahead and new:
        raise RunError(
            f"{', '.join(ahead)} would begin again with {', '.join(new)}, which has no checkpoint"
            " to go on from",
            remedy="train these two groups one after the other",
        )


@dataclass
class _Epochs:
    """Runs that are trained together, and all that their epochs need."""

    plan: Plan
    runs: list[_Run]
    examples: TrainingExamples
    tested: Evaluation
    clock: Clock
    renew: Callable[[], None]

    def take(self, epoch: int) -> None:
        """Pass once over the training split, and evaluate."""
        began, plan = time.monotonic(), self.plan
        both = self._steps(epoch)
        rows = []
        for i, run in enumerate(self.runs):
            run.state, kept = both if len(self.runs) == 1 else jax.tree.map(itemgetter(i), both)
            n_examples = plan.steps_per_epoch * plan.config.batch_size
            train_loss, train_accuracy = kept.means(n_examples)
            loss, accuracy = evaluate(plan.network, run.state.variables, self.tested)
            # Else the last step's overflow would be kept in a checkpoint that cannot be resumed.
            if not math.isfinite(loss):
                step = plan.steps_per_epoch - 1
                raise _not_finite(plan, run, "test loss", loss, epoch, step)
            rows.append((train_loss, train_accuracy, loss, accuracy))
            self.renew()
        wall_s = round((time.monotonic() - began) / len(self.runs), 3)
        for run, row in zip(self.runs, rows, strict=True):
            run.history += (Epoch(epoch + 1, *row, wall_s),)

    def _steps(self, epoch: int) -> tuple[TrainState, Metrics]:
        """Take the steps of one epoch; the last partial batch waits for another."""
        plan, runs, clock = self.plan, self.runs, self.clock
        n, steps = len(self.examples.labels), plan.steps_per_epoch
        orders = [splits.epoch_order(n, run.config.seed, epoch).astype(np.int32) for run in runs]
        order = _stacked(orders)
        state, metrics = _stacked([(run.state, Metrics.none(plan)) for run in runs])
        program = advance if len(runs) == 1 else advance_together
        done = 0
        while done < steps:
            k = min(clock.n_steps, steps - done)
            with clock.stepping(k):
                state, metrics = program(plan, state, metrics, self.examples, order, np.int32(k))
                losses = np.atleast_2d(metrics.loss)[:, : done + k]
            done += k
            for run, row in zip(runs, losses, strict=True):
                if not np.isfinite(row).all():
                    step = int(np.argmin(np.isfinite(row)))
                    raise _not_finite(plan, run, "loss", float(row[step]), epoch, step)
            mean = losses.mean() / plan.config.batch_size
            detail = f"epoch {epoch + 1} of {plan.config.epochs}, loss {mean:.3f}"
            clock.report(epoch * steps + done, detail)
            self.renew()
        return state, metrics


def _stacked(members: list[Any]) -> Any:
    """Lay several trees along a new axis 0; one is left as it is."""
    if len(members) == 1:
        return members[0]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)


def _not_finite(plan: Plan, run: _Run, what: str, loss: float, epoch: int, step: int) -> RunError:
    schedule = plan.recipe.learning_rate(plan.config, plan.steps_per_epoch)
    rate = float(schedule(jnp.int32(epoch * plan.steps_per_epoch + step)))
    return RunError(
        f"the {what} of {run.config.name} became {loss} in epoch {epoch + 1}, step {step + 1}, at"
        f" learning rate {rate:g}",
        remedy="the last checkpoint is kept: train under another --prefix with a smaller"
        " --learning-rate",
    )
