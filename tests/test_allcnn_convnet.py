"""Networks: their taps and shapes, and their numbers by explicit windows in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from allcnn.networks.architectures import AllCnnC, Plain, Tiny10, WidthN, convnet
from allcnn.networks.architectures.convnet import ConvNet
from allcnn.networks.architectures.convolutional import Conv, Layers
from allcnn.networks.network import Variables
from allcnn.networks.variables import abstract
from tests.oracles import conv64
from tests.sweeps import slow

BLOCKS = (Conv(3), Conv(4, stride=2), Conv(5, padding="VALID"), Conv(4, kernel=1))


def make(blocks, n_classes, input_channels=3, **how):
    """Return a network of these blocks for images of 12 pixels a side."""
    return ConvNet(Layers(blocks, **{"is_linear": False} | how), n_classes, input_channels, 12)


POOLED = make(BLOCKS, 4)
LINEAR = make(BLOCKS, 7, is_linear=True)
DEEP = make((Conv(2),) * 12, 2, 1)
NETWORKS = pytest.mark.parametrize(
    "network", [POOLED, LINEAR, DEEP], ids=["pooled", "linear", "deep"]
)


def draw_variables(network, seed=0):
    """Initialise, then move away from there everything that begins at 0 or 1."""
    rng = np.random.default_rng(seed)
    mean, std = (
        rng.uniform(100, 150, network.input_channels),
        rng.uniform(40, 80, network.input_channels),
    )
    params, batch_stats, inputs = network.init(jax.random.key(seed), mean, std)

    def move(x):
        return jnp.asarray(x + rng.uniform(0.1, 0.5, x.shape), jnp.float32)

    return Variables(*jax.tree.map(move, (params, batch_stats)), inputs)


def draw_images(network, n=3, side=12):
    shape = (n, side, side, network.input_channels)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def running_statistics(variables):
    def statistics(block, x):
        kept = variables.batch_stats[block]["norm"]
        return kept["mean"], kept["var"]

    return statistics


def batch_statistics(block, x):
    return x.mean((0, 1, 2)), x.var((0, 1, 2))


def forward64(network, variables, images, statistics):
    """Return every tap; ``statistics`` gives mean and variance of what a block normalises."""
    params, _, inputs = jax.tree.map(np.float64, variables)
    x, taps = (np.float64(images) - inputs["mean"]) / inputs["std"], {}
    for i, layer in enumerate(network.layers.blocks, 1):
        block = params[f"conv{i}"]
        x = conv64(x, block["conv"]["kernel"], layer.stride, layer.padding)
        mean, variance = map(np.float64, statistics(f"conv{i}", x))
        x = (x - mean) / np.sqrt(variance + 1e-5) * block["norm"]["scale"] + block["norm"]["bias"]
        taps[f"conv{i}"] = x = np.maximum(x, 0)
    x = x.mean((1, 2))
    if network.layers.is_linear:
        taps["pooled"] = x
        x = x @ params["linear"]["kernel"] + params["linear"]["bias"]
    return taps | {"logits": x}


def assert_close(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())


def tap_shapes(network):
    side = network.image_size
    images = jax.ShapeDtypeStruct((1, side, side, network.input_channels), jnp.uint8)
    taps = jax.eval_shape(network.apply, abstract(network), images)
    return [taps[name].shape[1:] for name in network.taps]


@pytest.mark.parametrize(("n", "n_taps"), [(1, 10), (2, 17), (4, 31)])
def test_all_cnn_c_has_7n_plus_3_taps_in_order(n, n_taps):
    network = AllCnnC(depth=n).network(10, 3, 32)
    assert network.taps == (*(f"conv{i}" for i in range(1, n_taps)), "logits")


def test_all_cnn_c_has_the_published_shapes():
    wide, narrow = 192, 96
    wanted = [(32, 32, narrow)] * 2 + [(16, 16, narrow)]
    wanted += [(16, 16, wide)] * 2 + [(8, 8, wide)]
    # VALID takes a pixel from each side.
    wanted += [(6, 6, wide)] * 2 + [(6, 6, 10), (10,)]
    assert tap_shapes(AllCnnC(width=1.0).network(10, 3, 32)) == wanted


def test_depth_repeats_the_convolutions_of_each_resolution():
    sides = [shape[0] for shape in tap_shapes(AllCnnC(depth=2, width=0.02).network(10, 1, 32))]
    assert sides == [32] * 5 + [16] * 6 + [8] * 2 + [6] * 3 + [10]


def test_the_smallest_image_leaves_one_pixel():
    assert tap_shapes(AllCnnC(width=0.02).network(3, 1, 12))[-2:] == [(1, 1, 3), (3,)]


@pytest.mark.parametrize(
    ("width", "channels"), [(1.0, {96, 192}), (0.25, {24, 48}), (2.0, {192, 384}), (0.001, {1})]
)
def test_width_multiplies_the_channels(width, channels):
    network = AllCnnC(width=width).network(10, 3, 32)
    assert {layer.features for layer in network.layers.blocks[:-1]} == channels
    assert network.layers.blocks[-1].features == 10


@pytest.mark.parametrize(
    ("architecture", "channels"),
    [(Plain(n, 1.0), [96] * 3 * n + [192] * 5 * n) for n in (1, 2)]
    + [slow((Plain(n, 1.0), [96] * 3 * n + [192] * 5 * n)) for n in (4, 8)]
    + [(WidthN(40, 1.0), [40] * 8), (Tiny10(1.0), [16] * 2 + [32] * 3 + [64] * 3)],
)
def test_the_networks_of_kornblith_have_the_published_channels(architecture, channels):
    network = architecture.network(10, 3, 32)
    shapes = tap_shapes(network)
    assert len(network.layers.blocks) % 8 == 0
    assert network.taps[-3:] == (f"conv{len(network.layers.blocks)}", "pooled", "logits")
    assert [shape[-1] for shape in shapes] == [*channels, channels[-1], 10]
    assert shapes[len(network.layers.blocks) - 1][:2] == (6, 6)


@NETWORKS
def test_every_tap_matches_float64(network):
    variables, images = draw_variables(network), draw_images(network)
    found = network.apply(variables, images)
    wanted = forward64(network, variables, images, running_statistics(variables))
    # In this order too, although JAX sorts dictionaries, and conv10 before conv2.
    assert list(found) == list(network.taps) == list(wanted)
    for name in network.taps:
        assert_close(found[name], wanted[name])


@NETWORKS
def test_training_normalises_by_the_batch_and_moves_running_statistics_a_tenth(network):
    variables, images = draw_variables(network), draw_images(network)
    seen = {}

    def statistics(block, x):
        seen[block] = batch_statistics(block, x)
        return seen[block]

    wanted = forward64(network, variables, images, statistics)["logits"]
    logits, batch_stats = network.apply_train(variables, images, jax.random.key(0))
    assert_close(logits, wanted)
    for block, (mean, variance) in seen.items():
        before, after = variables.batch_stats[block]["norm"], batch_stats[block]["norm"]
        assert_close(after["mean"], 0.9 * np.float64(before["mean"]) + 0.1 * mean)
        assert_close(after["var"], 0.9 * np.float64(before["var"]) + 0.1 * variance)


@pytest.mark.parametrize(("variant", "dropped"), [("v1", [0.2, 0.5, 0.5]), ("v2", [])])
def test_dropout_is_of_the_input_and_after_each_strided_convolution(monkeypatch, variant, dropped):
    network = AllCnnC(variant=variant, width=0.02).network(2, 3, 32)
    pairs, rates, dropout = [], [], convnet._dropout

    def spy(x, rate, keys):
        y = dropout(x, rate, keys)
        if y is not x:
            pairs.append((x, y))
            rates.append(rate)
        return y

    @jax.jit
    def run(variables, images):
        network.apply_train(variables, images, jax.random.key(0))
        return tuple(pairs)

    monkeypatch.setattr(convnet, "_dropout", spy)
    found = run(draw_variables(network), draw_images(network, n=8, side=32))
    assert rates == dropped
    assert [x.shape[1] for x, _ in found] == [32, 16, 8][: len(dropped)]
    for (x, y), rate in zip(found, rates, strict=True):
        x, y = np.asarray(x), np.asarray(y)
        alive = x != 0
        lost = (y == 0) & alive
        n = alive.sum()
        assert abs(lost.sum() - rate * n) < 5 * np.sqrt(n * rate * (1 - rate))
        np.testing.assert_allclose(y[~lost], x[~lost] / (1 - rate), rtol=1e-6)


def test_dropout_follows_its_key_and_evaluation_knows_none():
    network = make(BLOCKS, 4, input_dropout=0.2)
    variables, images = draw_variables(network), draw_images(network)

    def logits(seed):
        return np.asarray(network.apply_train(variables, images, jax.random.key(seed))[0])

    np.testing.assert_array_equal(logits(0), logits(0))
    assert (logits(0) != logits(1)).any()
    for name, tap in POOLED.apply(variables, images).items():
        np.testing.assert_array_equal(network.apply(variables, images)[name], tap)


def test_the_seed_decides_the_variables():
    def leaves(seed):
        return jax.tree.leaves(LINEAR.init(jax.random.key(seed), np.zeros(3), np.ones(3)).params)

    for one, again, other in zip(leaves(0), leaves(0), leaves(1), strict=True):
        np.testing.assert_array_equal(one, again)
        assert one.ndim == 1 or (one != other).any()


def test_kernels_begin_with_a_variance_of_one_over_their_inputs():
    network = make((Conv(64), Conv(64)), 64)
    kernel = network.init(jax.random.key(0), np.zeros(3), np.ones(3)).params["conv2"]["conv"]
    drawn = np.asarray(kernel["kernel"])
    # At most that of a Gaussian, sqrt(2 / n): the normal is truncated.
    assert abs(drawn.var() * 9 * 64 - 1) < 5 * np.sqrt(2 / drawn.size)


def test_a_channel_that_never_changes_divides_by_no_zero():
    variables = POOLED.init(jax.random.key(0), np.full(3, 9.0), np.zeros(3))
    taps = POOLED.apply(variables, np.full((2, 12, 12, 3), 9, np.uint8))
    assert all(np.isfinite(tap).all() for tap in taps.values())


@NETWORKS
def test_abstract_variables_are_those_of_init(network):
    zeros = np.zeros(network.input_channels)
    variables = network.init(jax.random.key(0), zeros, zeros)
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), variables)
    assert shapes == jax.tree.map(lambda x: (x.shape, x.dtype), abstract(network))


def test_one_program_serves_every_seed_and_layers_alike(monkeypatch):
    network = make((Conv(7), Conv(7), Conv(7)), 7)
    traced, call = [], convnet.Block.__call__

    def spy(self, x, train):
        traced.append(self.layer)
        return call(self, x, train)

    monkeypatch.setattr(convnet.Block, "__call__", spy)
    for seed in range(3):
        network.apply(draw_variables(network, seed), draw_images(network))
    assert traced == [Conv(7), Conv(7)]  # of images, and of 7 channels


def test_a_tap_is_there_before_the_next_layer_is_computed(monkeypatch):
    network = make((Conv(2), Conv(3), Conv(4)), 4)
    evaluated, ready = convnet._evaluated, []

    def looking(layer, params, batch_stats, x):
        ready.append(np.asarray(x).shape[-1])
        return evaluated(layer, params, batch_stats, x)

    monkeypatch.setattr(convnet, "_evaluated", looking)
    network.apply(draw_variables(network, 0), draw_images(network))
    assert ready == [3, 2, 3]
