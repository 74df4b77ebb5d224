"""Training: one step by finite differences, resumed equals uninterrupted, nothing done twice."""

import functools
import itertools
import math
import os
import shutil
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import logsumexp

import allcnn.workspace.run_locks
from allcnn import backend
from allcnn.datasets import splits
from allcnn.errors import ConfigError, DatasetError, RunError, WorkspaceError
from allcnn.networks import batch_norm, convolution
from allcnn.networks.architectures.convnet import ConvNet
from allcnn.networks.architectures.convolutional import Conv, Layers
from allcnn.networks.variables import abstract
from allcnn.settings.run import RunConfig
from allcnn.training import loop, steps
from allcnn.workspace import checkpoints, run_record
from allcnn.workspace.paths import Workspace
from allcnn.workspace.run_record import RunRecord
from store.errors import ClaimedError
from store.storage.claims import Lock, claim, is_claimed
from tests.oracles import conv64

NOISE = RunConfig.of(
    dataset="noise",
    image_size=12,
    variant="v1",
    width=0.03,
    epochs=3,
    checkpoint_every=2,
    batch_size=16,
)
"""Three epochs of three steps, with dropout and augmentation; 8 of 56 examples wait each time."""

TOGETHER = [NOISE.but(seed=seed, checkpoint_every=1) for seed in (0, 1)]
"""Seeds of one program, which takes seconds to compile."""

SLOW = pytest.mark.slow
RUN = NOISE.name
N_STEPS = 9
CLASSES = ("a", "b", "c")


def noise(dataset, split, image_size):
    """Return a split whose labels can be learned from nothing."""
    n = 56 if split == "train" else 10
    rng = np.random.default_rng(n)
    images = rng.integers(0, 256, (n, image_size, image_size, 3), np.uint8)
    return splits.Split(dataset, split, images, rng.integers(0, 3, n, np.int32), CLASSES)


def noise_outline(dataset):
    """Return how much noise there is."""
    return splits.Outline(56, 10, 3, len(CLASSES))


def never(*args):
    raise AssertionError("work was done that was done before")


class Killed(BaseException):
    """Like a KeyboardInterrupt: nobody catches it."""


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workspace = Workspace.at(tmp_path_factory.mktemp("uninterrupted"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(splits, "load", noise)
        monkeypatch.setattr(splits, "outline", noise_outline)
        loop.train(NOISE, workspace)
    return workspace


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """Return an empty workspace; every data set is noise, and every step is reported."""
    monkeypatch.setattr(splits, "load", noise)
    monkeypatch.setattr(splits, "outline", noise_outline)
    monkeypatch.setattr(loop, "REPORT_EVERY_S", 0)
    return Workspace.at(tmp_path / "fresh")


@functools.cache
def begun(config):
    """Return the state of a network before its first step, as no seed of a test draws it."""
    plan = loop._plan(RunRecord(config, CLASSES, 3), 56)
    return loop._initial_state(plan, jax.random.key(9), np.zeros(3), np.ones(3))


def other_state():
    """Return a state of the structure that is read, but of other values."""
    return begun(NOISE)


def read_state(workspace, name, run=RUN):
    return checkpoints.load(workspace.find_checkpoint(run, name), other_state())


def without_times(workspace, run=RUN):
    return [row._replace(wall_s=0) for row in run_record.read_history(workspace, run)]


def assert_same_run(found, wanted):
    assert found.checkpoints(RUN) == wanted.checkpoints(RUN)
    assert without_times(found) == without_times(wanted)
    for name in wanted.checkpoints(RUN):
        pairs = zip(
            jax.tree.leaves(read_state(found, name)),
            jax.tree.leaves(read_state(wanted, name)),
            strict=True,
        )
        for one, other in pairs:
            np.testing.assert_array_equal(one, other)


def interrupt(workspace, after):
    """Train until a step has been reported, then be killed."""

    def report(done, total, detail):
        if done == after:
            raise Killed

    with pytest.raises(Killed):
        loop.train(NOISE, workspace, report)


def steps_of(workspace, config=NOISE):
    """Train to the end; return the steps after which this was reported."""
    told = []
    loop.train(config, workspace, lambda done, total, detail: told.append((done, detail)))
    (begun, first), *taken = told
    assert first.endswith(f"of {config.epochs}, compiling")
    assert begun < taken[0][0]
    return [done for done, _ in taken]


def forward64(network, params, images, mean, std):
    """Return the logits by batch statistics, and these statistics."""
    x, seen = (np.float64(images) - mean) / std, {}
    for i, layer in enumerate(network.layers.blocks, 1):
        block = params[f"conv{i}"]
        x = conv64(x, block["conv"]["kernel"], layer.stride, layer.padding)
        seen[f"conv{i}"] = x.mean((0, 1, 2)), x.var((0, 1, 2))
        x = (x - seen[f"conv{i}"][0]) / np.sqrt(seen[f"conv{i}"][1] + 1e-5)
        x = np.maximum(x * block["norm"]["scale"] + block["norm"]["bias"], 0)
    return x.mean((1, 2)), seen


def cross_entropy64(logits, labels):
    return np.mean(logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels])


def gradient64(loss_of, params, step=1e-5):
    """Central differences, one parameter at a time."""
    leaves, tree = jax.tree.flatten(params)
    gradient = [np.zeros_like(leaf) for leaf in leaves]
    for leaf, slopes in zip(leaves, gradient, strict=True):
        for index in np.ndindex(leaf.shape):
            kept, losses = leaf[index], []
            for shift in (step, -step):
                leaf[index] = kept + shift
                losses.append(loss_of(jax.tree.unflatten(tree, leaves)))
            leaf[index] = kept
            slopes[index] = (losses[0] - losses[1]) / (2 * step)
    return jax.tree.unflatten(tree, gradient)


def test_one_step_is_that_of_finite_differences(fresh, monkeypatch):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, 12, 12, 1), np.uint8)
    labels = rng.integers(0, 2, 8, np.int32)
    # Digits are not augmented, and one step of all examples needs no order.
    split = splits.Split("digits", "train", images, labels, ("a", "b"))
    monkeypatch.setattr(splits, "load", lambda *args: split)
    config = RunConfig.of(image_size=12, width=0.01, epochs=1, batch_size=8, weight_decay=0.5)
    run = loop.train(config, fresh)

    network = run_record.read_record(fresh, run).network
    first, last = (
        checkpoints.load_variables(fresh.find_checkpoint(run, name), abstract(network))[0]
        for name in ("init", "final")
    )
    params = jax.tree.map(lambda x: np.array(x, np.float64), first.params)
    mean, std = images.mean(), images.std()

    def loss_of(params):
        return cross_entropy64(forward64(network, params, images, mean, std)[0], labels)

    logits, seen = forward64(network, params, images, mean, std)
    gradient = gradient64(loss_of, params)
    for block, slopes in gradient.items():
        slopes["conv"]["kernel"] += 0.5 * params[block]["conv"]["kernel"]
    norm = math.sqrt(sum((slopes**2).sum() for slopes in jax.tree.leaves(gradient)))
    # Nesterov's first step from rest: (1 + 0.9) times the gradient, clipped to 2.
    updates = jax.tree.map(lambda slopes: -0.1 * 1.9 * slopes * min(1, 2 / norm), gradient)
    largest = max(np.abs(update).max() for update in jax.tree.leaves(updates))
    moved = jax.tree.map(lambda new, old: np.float64(new) - old, last.params, params)
    for found, wanted in zip(jax.tree.leaves(moved), jax.tree.leaves(updates), strict=True):
        # float32 through nine layers of batch norm over as few as eight values.
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-3 * largest)
    for block, (batch_mean, batch_variance) in seen.items():
        kept = last.batch_stats[block]["norm"]
        np.testing.assert_allclose(kept["mean"], 0.1 * batch_mean, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(kept["var"], 0.9 + 0.1 * batch_variance, rtol=1e-3)
    (row,) = run_record.read_history(fresh, run)
    assert row.train_loss == pytest.approx(cross_entropy64(logits, labels), rel=1e-4)
    assert row.train_accuracy == np.mean(logits.argmax(1) == labels)


@pytest.mark.parametrize("run", ["small-d1-v2-s0", "small-d2-v2-s0"])
def test_the_loss_falls_on_digits(trained, run):
    history = run_record.read_history(trained, run)
    assert [row.epoch for row in history] == [1, 2]
    assert history[1].train_loss < history[0].train_loss < math.log(10) + 0.2
    assert history[1].train_accuracy > history[0].train_accuracy > 0.1
    assert all(0 <= row.test_accuracy <= 1 and row.wall_s > 0 for row in history)
    assert trained.checkpoints(run) == ["init", "epoch-0001", "final"]


def test_a_run_leaves_its_settings_checkpoints_and_curves(uninterrupted):
    assert run_record.read_record(uninterrupted, RUN) == RunRecord(NOISE, CLASSES, 3)
    assert uninterrupted.checkpoints(RUN) == ["init", "epoch-0002", "final"]
    assert [row.epoch for row in run_record.read_history(uninterrupted, RUN)] == [1, 2, 3]
    final = read_state(uninterrupted, "final")
    images = noise("", "train", 12).images
    np.testing.assert_allclose(final.variables.inputs["mean"], images.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(final.variables.inputs["std"], images.std((0, 1, 2)), rtol=1e-5)


def test_progress_counts_the_steps_of_all_epochs(fresh):
    calls = []
    loop.train(NOISE, fresh, lambda *call: calls.append(call))
    # First of all it says that it compiles.
    assert [done for done, _, _ in calls] == list(range(N_STEPS + 1))
    assert {total for _, total, _ in calls} == {N_STEPS}
    assert calls[5][2].startswith("epoch 2 of 3, loss ")


def test_each_epoch_sees_other_examples_in_another_order_and_none_twice(fresh, monkeypatch):
    seen, advance = [], loop.advance

    def spy(plan, state, metrics, examples, order, n_steps):
        start = int(state.position.step) % 3 * 16
        seen.append(order[start : start + 16 * int(n_steps)])
        return advance(plan, state, metrics, examples, order, n_steps)

    monkeypatch.setattr(loop, "advance", spy)
    loop.train(NOISE, fresh)
    epochs = [np.concatenate(seen[start : start + 3]) for start in (0, 3, 6)]
    assert all(len(np.unique(epoch)) == 48 for epoch in epochs)
    for one, other in itertools.combinations(epochs, 2):
        assert (one != other).any()
        assert set(one) != set(other)


def noise_examples():
    split = noise("noise", "train", 12)
    return steps.TrainingExamples(
        jnp.asarray(split.images), jnp.asarray(split.labels), jnp.zeros(3, jnp.uint8)
    )


def test_steps_take_the_examples_of_their_order():
    plan, examples = loop._plan(RunRecord(NOISE, CLASSES, 3), 56), noise_examples()
    order = np.random.default_rng(0).permutation(56).astype(np.int32)

    def losses(order):
        state, none = jax.tree.map(jnp.copy, other_state()), steps.Metrics.none(plan)
        return np.asarray(steps.advance(plan, state, none, examples, order, np.int32(3))[1].loss)

    wanted = losses(order)
    for step in range(3):
        other = order.copy()
        # An example of this step changes places with one that waits.
        other[[step * 16, 50]] = order[[50, step * 16]]
        same = losses(other) == wanted
        assert same[:step].all()
        assert not same[step]
    assert (losses(np.concatenate([order[:48], order[:47:-1]])) == wanted).all()


def test_each_step_draws_its_own_augmentation_and_dropout():
    plan, examples = loop._plan(RunRecord(NOISE, CLASSES, 3), 56), noise_examples()
    order = np.tile(np.arange(16, dtype=np.int32), 3)

    def loss(step, seed=0):
        # The step is given its state away.
        state = jax.tree.map(jnp.copy, other_state())
        position = checkpoints.Position.first(jax.random.key(seed))._replace(step=jnp.int32(step))
        state = state._replace(position=position)
        none = steps.Metrics.none(plan)
        metrics = steps.advance(plan, state, none, examples, order, np.int32(1))[1]
        return float(metrics.loss[step % 3])

    assert loss(2) == loss(2)
    # The last step of each epoch, and that of another run.
    assert len({loss(2), loss(5), loss(8), loss(2, seed=1)}) == 4


def test_where_an_epoch_is_cut_changes_no_bit(fresh, uninterrupted, monkeypatch):
    # Those of the other run were all steps of their own, or nearly.
    monkeypatch.setattr(loop, "REPORT_EVERY_S", 1e9)
    taken = steps_of(fresh)
    assert taken == [1, 3, 6, 9]  # the first one alone, for what compiling takes
    assert_same_run(fresh, uninterrupted)


@pytest.mark.parametrize(
    ("after", "again"),
    [(7, 7), *(pytest.param(*case, marks=SLOW) for case in ((1, 1), (5, 1), (9, 7)))],
)
def test_a_killed_run_goes_on_from_its_last_checkpoint(fresh, uninterrupted, after, again):
    interrupt(fresh, after)
    assert "final" not in fresh.checkpoints(RUN)
    # The first epochs have a checkpoint only after the second: six steps.
    assert steps_of(fresh) == list(range(again, N_STEPS + 1))
    assert_same_run(fresh, uninterrupted)


@pytest.mark.slow
def test_a_run_killed_many_times_ends_the_same(fresh, uninterrupted):
    for after in (2, 6, 8, 9):
        interrupt(fresh, after)
    assert steps_of(fresh) == [7, 8, 9]
    assert_same_run(fresh, uninterrupted)


# The record, init, the curves of two epochs, epoch-0002, the last curves, final.
@pytest.mark.parametrize(
    "write",
    [write if write == 4 else pytest.param(write, marks=SLOW) for write in range(7)],
)
def test_a_run_killed_before_any_write_ends_the_same(fresh, uninterrupted, monkeypatch, write):
    writes = []

    def fragile(function):
        def work(*args):
            if len(writes) == write:
                raise Killed
            writes.append(function)
            return function(*args)

        return work

    with monkeypatch.context() as patch:
        for module, name in ((run_record, "write_record"), (run_record, "write_history")):
            patch.setattr(module, name, fragile(getattr(module, name)))
        patch.setattr(checkpoints, "save", fragile(checkpoints.save))
        with pytest.raises(Killed):
            loop.train(NOISE, fresh)
    loop.train(NOISE, fresh)
    assert_same_run(fresh, uninterrupted)


def test_a_finished_run_asked_for_again_does_no_work(uninterrupted, monkeypatch):
    monkeypatch.setattr(splits, "load", never)
    monkeypatch.setattr(checkpoints, "save", never)
    told = []
    assert loop.train(NOISE, uninterrupted, lambda *report: told.append(report)) == RUN
    assert told == [(1, 1, f"{RUN}: already trained")]


def test_the_same_name_with_other_settings_is_refused(uninterrupted, monkeypatch):
    monkeypatch.setattr(splits, "load", never)
    message = rf"run '{RUN}' exists with batch-size 16 \(asked for: 8\), learning-rate 0.1"
    with pytest.raises(RunError, match=message + r" \(asked for: 0.5\)"):
        loop.train(NOISE.but(batch_size=8, learning_rate=0.5), uninterrupted)
    assert run_record.read_record(uninterrupted, RUN).config == NOISE


def test_a_batch_larger_than_the_training_set_is_refused_before_anything_is_written(fresh):
    with pytest.raises(ConfigError, match="batch-size is 57, but noise has 56 training images"):
        loop.train(NOISE.but(batch_size=57), fresh)
    assert not fresh.root.exists()


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(
    fresh, uninterrupted, monkeypatch
):
    advance = loop.advance

    def overflow(plan, state, *rest):
        step = int(state.position.step)
        state, metrics = advance(plan, state, *rest)
        losses = metrics.loss.at[step % 3].mul(np.float32("nan") if step == 7 else np.float32(1))
        return state, metrics._replace(loss=losses)

    # Of nine steps, two milestones are passed before the eighth and one comes after it.
    message = rf"^the loss of {RUN} became nan in epoch 3, step 2, at learning rate 0.001; the last"
    with monkeypatch.context() as patch:
        patch.setattr(loop, "advance", overflow)
        with pytest.raises(RunError, match=message):
            loop.train(NOISE, fresh)
    assert fresh.checkpoints(RUN) == ["init", "epoch-0002"]
    assert steps_of(fresh) == [7, 8, 9]
    assert_same_run(fresh, uninterrupted)


def test_of_seeds_trained_together_the_one_that_diverged_is_named(fresh, monkeypatch):
    advance = loop.advance_together

    def overflow(*args):
        state, metrics = advance(*args)
        return state, metrics._replace(loss=metrics.loss.at[1, 1].set(jnp.inf))

    monkeypatch.setattr(loop, "advance_together", overflow)
    monkeypatch.setattr(loop, "REPORT_EVERY_S", 1e9)
    message = rf"^the loss of {TOGETHER[1].name} became inf in epoch 1, step 2, at"
    with pytest.raises(RunError, match=message):
        loop.train_together(TOGETHER, fresh)


def test_parameters_that_overflow_in_the_last_step_are_not_kept(fresh, monkeypatch):
    monkeypatch.setattr(loop, "evaluate", lambda *args: (math.nan, 0.0))
    message = rf"^the test loss of {RUN} became nan in epoch 1, step 3, at learn"
    with pytest.raises(RunError, match=message):
        loop.train(NOISE, fresh)
    assert fresh.checkpoints(RUN) == ["init"]
    assert run_record.read_history(fresh, RUN) == ()


@pytest.mark.slow
def test_a_training_that_diverges_says_so(fresh):
    config = NOISE.but(learning_rate=1e38)
    with pytest.raises(RunError, match=r"loss of .* became (nan|inf) in epoch 1, .* rate 1e\+38"):
        loop.train(config, fresh)
    assert fresh.checkpoints(RUN) == ["init"]


def test_a_checkpoint_without_its_curves_is_refused(fresh):
    interrupt(fresh, 8)
    (fresh.run_folder(RUN) / "history.json").unlink()
    with pytest.raises(RunError, match=r"checkpoint 'epoch-0002', but its history.json has 0 ep"):
        loop.train(NOISE, fresh)


def test_checkpoints_of_nobody_knows_what_are_refused(fresh):
    interrupt(fresh, 1)
    (fresh.run_folder(RUN) / "config.json").unlink()
    with pytest.raises(RunError, match=r"holds checkpoints but no config.json to say of what"):
        loop.train(NOISE, fresh)


def test_another_seed_is_another_network_of_the_same_program(fresh, uninterrupted, monkeypatch):
    # Tracing would call it.
    monkeypatch.setattr(ConvNet, "apply_train", never)
    run = loop.train(NOISE.but(seed=1), fresh)
    one, other = read_state(fresh, "final", run), read_state(uninterrupted, "final")
    kernels = [state.variables.params["conv1"]["conv"]["kernel"] for state in (one, other)]
    assert (np.asarray(kernels[0]) != np.asarray(kernels[1])).any()
    assert without_times(fresh, run) != without_times(uninterrupted)


def test_a_run_is_held_against_others_while_it_is_trained(fresh, monkeypatch):
    folder, seen = fresh.run_folder(RUN), []
    evaluate = loop.evaluate

    def looking(*args):
        seen.append(is_claimed(folder))
        return evaluate(*args)

    monkeypatch.setattr(loop, "evaluate", looking)
    with claim(folder), pytest.raises(ClaimedError, match=rf"{RUN} is being written by another w"):
        loop.train(NOISE, fresh)
    assert not (folder / "config.json").exists()
    loop.train(NOISE, fresh)
    assert seen == [True] * NOISE.epochs
    assert not is_claimed(folder)
    assert sorted(os.listdir(folder)) == ["checkpoints", "config.json", "history.json"]


def test_a_hold_is_renewed_within_an_epoch_but_not_at_every_program(fresh, monkeypatch):
    renewed = []
    monkeypatch.setattr(Lock, "renew", lambda self: renewed.append(self._folder))
    loop.train(NOISE, fresh)
    assert renewed == []  # all of it took less than a minute
    shutil.rmtree(fresh.root)
    monkeypatch.setattr(allcnn.workspace.run_locks, "_RENEW_EVERY_S", 0)
    loop.train(NOISE, fresh)
    # Once data are loaded, after each program, of one step here, and after each evaluation.
    assert renewed == [fresh.run_folder(RUN)] * (1 + N_STEPS + NOISE.epochs)


@pytest.mark.parametrize("n", [3, 4, 10])
def test_evaluation_counts_every_example_once(monkeypatch, n):
    monkeypatch.setattr(steps, "_EVALUATION_BATCH", 4)
    network = ConvNet(Layers((Conv(5), Conv(3)), is_linear=False), 3, 3, 12)
    variables = network.init(jax.random.key(0), np.full(3, 128.0), np.full(3, 70.0))
    rng = np.random.default_rng(n)
    images = rng.integers(0, 256, (n, 12, 12, 3), np.uint8)
    split = splits.Split("noise", "test", images, rng.integers(0, 3, n, np.int32), CLASSES)
    loss, n_correct = 0.0, 0
    for image, label in zip(split.images, split.labels, strict=True):
        logits = network.apply(variables, image[None])["logits"]
        loss += cross_entropy64(np.float64(logits), [label])
        n_correct += int(np.argmax(logits)) == label
    found, accuracy = steps.evaluate(network, variables, steps.Evaluation.of(split))
    assert accuracy == n_correct / n
    assert found == pytest.approx(loss / n, rel=1e-5)


def test_augmentation_is_for_pictures_only():
    entry = RunRecord(NOISE, CLASSES, 3)
    digits = RunRecord(NOISE.but(dataset="digits"), CLASSES, 3)
    assert loop._plan(entry, 56).augmented
    assert not loop._plan(digits, 56).augmented


def test_seeds_trained_together_are_those_trained_alone(fresh, monkeypatch):
    # 10 and 19 channels: the first layer has its own way of computing gradients, below 8 channels.
    # A small rate: at 0.1 six steps grow what rounding differs by to 1e-3, on some processors.
    how = {"epochs": 2, "width": 0.1, "learning_rate": 0.01}
    configs = [NOISE.but(seed=seed, **how) for seed in (0, 1, 2)]
    alone = Workspace.at(fresh.root / "alone")
    for config in configs:
        loop.train(config, alone)
    assert loop.train_together(configs, fresh) == [config.name for config in configs]
    for config in configs:
        for name in ("init", "final"):
            one, other = (
                checkpoints.load(place.find_checkpoint(config.name, name), begun(config))
                for place in (fresh, alone)
            )
            for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
                # Six steps; products are summed in another order.
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
        found, wanted = (run_record.read_history(place, config.name) for place in (fresh, alone))
        for a, b in zip(found, wanted, strict=True):
            assert a.train_loss == pytest.approx(b.train_loss, rel=1e-4)


@pytest.mark.slow
def test_seeds_trained_together_go_on_from_the_last_epoch_that_all_have(fresh, monkeypatch):
    configs = TOGETHER
    loop.train_together(configs, fresh)
    kept = [read_state(fresh, "final", config.name) for config in configs]
    for name in ("epoch-0002", "final"):
        for config in configs[1:]:
            shutil.rmtree(fresh.checkpoints_folder(config.name) / name)
    shutil.rmtree(fresh.checkpoints_folder(configs[0].name) / "final")
    taken = []
    loop.train_together(configs, fresh, lambda done, total, detail: taken.append(done))
    assert taken == [3, 4, 5, 6, 7, 8, 9]  # first that it compiles
    for config, wanted in zip(configs, kept, strict=True):
        found = read_state(fresh, "final", config.name)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_array_equal(a, b)


def trained_apart(workspace, *names):
    """Train two seeds together, and take the second one's checkpoints of these names away."""
    configs = TOGETHER
    loop.train_together(configs, workspace)
    for name in names:
        shutil.rmtree(workspace.checkpoints_folder(configs[1].name) / name)
    shutil.rmtree(workspace.checkpoints_folder(configs[0].name) / "final")
    return configs


@pytest.mark.slow
def test_curves_are_never_shorter_than_the_checkpoints_beside_them(fresh):
    configs = trained_apart(fresh, "epoch-0002", "final")
    wanted = without_times(fresh, configs[0].name)

    def report(done, total, detail):
        if done == 6:
            raise Killed

    with pytest.raises(Killed):
        loop.train_together(configs, fresh, report)
    assert without_times(fresh, configs[0].name) == wanted
    # The seed that was ahead can still go on alone.
    loop.train(configs[0], fresh)
    assert without_times(fresh, configs[0].name) == wanted


def test_seeds_far_ahead_do_not_begin_again_with_new_ones(fresh):
    configs = trained_apart(fresh, "init", "epoch-0001", "epoch-0002", "final")
    message = rf"^{configs[0].name} would begin again with {configs[1].name}, which has no check"
    with pytest.raises(RunError, match=message):
        loop.train_together(configs, fresh)
    assert fresh.checkpoints(configs[0].name) == ["init", "epoch-0001", "epoch-0002"]


def test_a_kill_between_the_first_checkpoints_of_seeds_is_gone_on_from(fresh, monkeypatch):
    save, configs = checkpoints.save, TOGETHER

    def fragile(folder, state):
        if folder.name == "epoch-0001" and configs[1].name in str(folder):
            raise Killed
        save(folder, state)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", fragile)
        with pytest.raises(Killed):
            loop.train_together(configs, fresh)
    assert [len(fresh.checkpoints(config.name)) for config in configs] == [2, 1]
    loop.train_together(configs, fresh)
    assert [fresh.checkpoints(config.name)[-1] for config in configs] == ["final", "final"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"seed": 1, "width": 0.04}, "differ in their seeds alone"), ({}, "seeds .* must differ")],
)
def test_other_than_seeds_cannot_be_trained_together(fresh, changes, message):
    with pytest.raises(ConfigError, match=message):
        loop.train_together([NOISE, NOISE.but(**changes)], fresh)
    assert not fresh.root.exists()


def test_steps_go_on_while_a_checkpoint_is_written(fresh, uninterrupted, monkeypatch):
    events, save, reported = [], checkpoints.save, threading.Event()

    def slow(folder, state):
        if folder.name == "epoch-0002":
            assert reported.wait(60)
        save(folder, state)
        events.append(folder.name)

    def report(done, total, detail):
        events.append(done)
        if done == 8:
            reported.set()

    monkeypatch.setattr(checkpoints, "save", slow)
    loop.train(NOISE, fresh, report)
    assert events.index("epoch-0002") > events.index(8)
    assert events[-1] == "final"
    assert_same_run(fresh, uninterrupted)


def test_steps_wait_for_no_seed_of_several(fresh, monkeypatch):
    save, reported = checkpoints.save, threading.Event()

    def slow(folder, state):
        if folder.name == "epoch-0002":
            assert reported.wait(60)
        save(folder, state)

    def report(done, total, detail):
        if done == 8:
            reported.set()

    monkeypatch.setattr(checkpoints, "save", slow)
    loop.train_together(TOGETHER, fresh, report)
    assert [fresh.checkpoints(config.name)[-1] for config in TOGETHER] == ["final"] * 2


def test_a_checkpoint_that_could_not_be_written_ends_the_training(fresh, monkeypatch):
    def refuse(folder, state):
        raise WorkspaceError("no room")

    monkeypatch.setattr(checkpoints, "save", refuse)
    with pytest.raises(WorkspaceError, match="no room"):
        loop.train(NOISE, fresh)
    save = checkpoints.save
    monkeypatch.undo()
    assert save is refuse
    assert "final" not in fresh.checkpoints(RUN)


def gradient_of_a_batch(config):
    """Return the gradient of a batch's loss, as training computes it."""
    network = RunRecord(config, CLASSES, 3).network
    images, labels = noise_examples().images[:16], noise_examples().labels[:16]
    variables = begun(config).variables

    @backend.jit
    def gradient(variables, images):
        def loss_of(params):
            moved = variables._replace(params=params)
            key, precision = jax.random.key(0), config.precision
            logits, _ = network.apply_train(moved, images, key, precision)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        return jax.grad(loss_of)(variables.params)

    return gradient(variables, images)


def relative_differences(found, wanted):
    """Return, of each leaf, the norm of the difference over that of what was wanted."""
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True)
    return [float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in pairs]


WIDE = NOISE.but(width=0.1, variant="v2")
"""10 and 19 channels, so that gradients are computed in every way that there is."""


@functools.cache
def gradient_by(way, precision):
    with pytest.MonkeyPatch.context() as patch:
        for module in (convolution, batch_norm):
            patch.setattr(module, "on_cpu", lambda: way == "ours")
        return gradient_of_a_batch(WIDE.but(precision=precision))


def test_a_gradient_is_the_same_whichever_way_a_backend_computes_it():
    ours, xla = (gradient_by(way, "float32") for way in ("ours", "xla"))
    # float32 through nine layers of batch norm, of 16 examples with as little as one pixel each.
    assert max(relative_differences(ours, xla)) < 1e-4


def test_bfloat16_gradients_lose_no_more_than_those_of_xla():
    wanted = gradient_by("xla", "float32")
    ours, xla = (
        np.array(relative_differences(gradient_by(way, "bfloat16"), wanted))
        for way in ("ours", "xla")
    )
    # Each leaf has its own luck with what is rounded, and with ReLUs that turn over.
    assert np.median(ours / xla) < 1.3
    assert (1e-4 < ours).all()
    assert (ours < 3 * xla).all()


@pytest.mark.slow
def test_bfloat16_keeps_parameters_and_statistics_in_float32(fresh):
    config = NOISE.but(precision="bfloat16", epochs=1)
    run = loop.train(config, fresh)
    state = checkpoints.load(fresh.find_checkpoint(run, "final"), other_state())
    assert {leaf.dtype for leaf in jax.tree.leaves(state.variables)} == {np.dtype(np.float32)}
    entry = RunRecord(config, CLASSES, 3)
    images = noise_examples().images[:16]
    logits = [
        entry.network.apply_train(state.variables, images, jax.random.key(0), precision)[0]
        for precision in ("float32", "bfloat16")
    ]
    assert logits[1].dtype == np.float32
    # bfloat16 has 8 bits: nine layers of rounding by 2**-9 each, and not one less.
    difference = np.abs(logits[0] - logits[1]).max() / np.abs(logits[0]).max()
    assert 1e-4 < difference < 0.1


def test_a_run_that_is_held_is_refused_before_any_data_are_loaded(fresh, monkeypatch):
    monkeypatch.setattr(splits, "load", never)
    with claim(fresh.run_folder(RUN)), pytest.raises(ClaimedError, match="is being written by"):
        loop.train(NOISE, fresh)


def test_what_fails_before_the_first_record_leaves_no_folder(fresh, monkeypatch):
    def damaged(*args):
        raise DatasetError("noise is damaged")

    monkeypatch.setattr(splits, "load", damaged)
    with pytest.raises(DatasetError, match="noise is damaged"):
        loop.train(NOISE, fresh)
    assert not fresh.run_folder(RUN).exists()
