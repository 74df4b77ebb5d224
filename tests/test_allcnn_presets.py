"""The published networks: parameters, taps and shapes by hand, and settings by name."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from allcnn.errors import ConfigError
from allcnn.networks.architectures.presets import names, preset
from allcnn.networks.variables import abstract
from allcnn.settings.run import RunConfig


def network_of(name):
    return RunConfig.of(**preset(name)).architecture.network(10, 3, 32)


@pytest.mark.parametrize(
    ("name", "n_parameters"),
    [
        ("d1-v2", 1_370_996),
        ("d2-v1", 2_949_044),
        ("d4-v2", 6_105_140),
        ("d8-v1", 12_417_332),
        ("plain-10", 1_370_986),
        ("plain-18", 2_986_282),
        ("plain-34", 6_216_874),
        ("plain-66", 12_678_058),
        ("tiny-10", 86_458),
        ("width-64", 228_682),
    ],
)
def test_parameters_are_as_many_as_by_hand(name, n_parameters):
    """A k x k convolution has k² c o weights and no bias; batch norm has a scale and a bias each.

    All-CNN-C at depth n has, with three input channels and ten classes: 9·3·96 = 2,592;
    (3n - 1) · 9·96² = (3n - 1) · 82,944; 9·96·192 = 165,888; (3n - 1) · 9·192² = (3n - 1) ·
    331,776; n · 331,776; 192² = 36,864; 192·10 = 1,920; and 2 · (96·3n + 192·(4n + 1) + 10) of
    batch norm. Depth 1: 2,592 + 165,888 + 165,888 + 663,552 + 331,776 + 36,864 + 1,920 + 2,516.

    Plain-(8n + 2) has n · 36,864 instead of 36,864 + 1,920, batch norm 2 · (96·3n + 192·5n), and a
    linear layer of 192·10 + 10. Tiny-10: 432 + 2,304 + 4,608 + 2 · 9,216 + 18,432 + 36,864 + 4,096,
    batch norm 2 · (16·2 + 32·3 + 64·3) = 640, linear 650. Width-64: 1,728 + 6 · 36,864 + 4,096,
    batch norm 2 · 8 · 64 = 1,024, linear 650.
    """
    params = abstract(network_of(name)).params
    assert sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(params)) == n_parameters


@pytest.mark.parametrize("n", [1, 2, 4, 8])
@pytest.mark.parametrize("kind", ["d", "plain"])
def test_taps_have_the_names_and_shapes_of_the_papers(kind, n):
    """Each stride halves 32 pixels, and VALID takes one from each side: 32, 16, 8, 6.

    3n - 1 blocks keep 32 pixels and the strided one leaves 16, 3n - 1 keep these and the strided
    one leaves 8, n - 1 keep them and the VALID one leaves 6; 1 x 1 kernels keep that. Channels are
    96 in the first 3n blocks and 192 in those after them.
    """
    network = network_of(f"d{n}-v2" if kind == "d" else f"plain-{8 * n + 2}")
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.uint8)
    variables = abstract(network)
    taps = jax.eval_shape(network.apply, variables, images)
    n_pointwise = 2 if kind == "d" else n
    sides = [32] * (3 * n - 1) + [16] * 3 * n + [8] * n + [6] * (1 + n_pointwise)
    channels = [96] * 3 * n + [192] * (len(sides) - 3 * n)
    if kind == "d":
        channels[-1] = 10
    wanted = {
        f"conv{i}": (1, side, side, c)
        for i, (side, c) in enumerate(zip(sides, channels, strict=True), 1)
    }
    wanted |= {"logits": (1, 10)} if kind == "d" else {"pooled": (1, 192), "logits": (1, 10)}
    assert network.taps == tuple(wanted)
    assert {name: taps[name].shape for name in wanted} == wanted
    assert len(wanted) == (7 * n + 3 if kind == "d" else 8 * n + 2)


def test_tiny_and_width_have_the_channels_of_the_paper():
    assert [layer.features for layer in network_of("tiny-10").layers.blocks] == [16] * 2 + [
        32
    ] * 3 + [64] * 3
    assert [layer.features for layer in network_of("width-7").layers.blocks] == [7] * 8
    for name in ("tiny-10", "width-7"):
        assert [layer.stride for layer in network_of(name).layers.blocks] == [
            1,
            1,
            2,
            1,
            1,
            2,
            1,
            1,
        ]
        assert [layer.kernel for layer in network_of(name).layers.blocks] == [3] * 7 + [1]
        assert len(network_of(name).taps) == 10


@pytest.mark.parametrize("name", [name for name in names() if name != "width-N"] + ["width-64"])
def test_presets_have_the_full_recipe(name):
    config = RunConfig.of(**preset(name))
    assert (config.dataset, config.epochs, config.learning_rate) == ("cifar10", 350, 0.1)
    assert (config.image_size, config.weight_decay) == (32, 1e-3)
    assert config.architecture.width == 1.0
    # Lange trained depth 2 with batches of 256; nothing is known of deeper ones.
    deep = name[0] == "d" and config.architecture.depth > 1
    assert config.batch_size == (256 if deep else 128)
    assert RunConfig.from_json(config.to_json()) == config


def test_runs_are_named_after_their_networks():
    names = [
        RunConfig.of(**preset(name)).name for name in ("d2-v1", "plain-66", "tiny-10", "width-8")
    ]
    assert names == [
        "allcnn-d2-v1-s0",
        "allcnn-plain-66-s0",
        "allcnn-tiny-10-s0",
        "allcnn-width-8-s0",
    ]


@pytest.mark.parametrize(
    "name", ["d3-v2", "d1-v3", "width-", "width-0", "width-10000", "", "D1-v2"]
)
def test_other_names_are_refused(name):
    with pytest.raises(ConfigError, match=f"^preset is '{re.escape(name)}'; use d1-v1, .*width-N"):
        preset(name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"architecture": "plain", "variant": "v1"},
            "variant has no effect: architecture is plain, which has no variant; leave it out, or"
            " use the architecture all-cnn-c",
        ),
        (
            {"architecture": "tiny", "depth": 2},
            "depth has no effect: architecture is tiny, which has no depth; leave it out, or use"
            " the architecture all-cnn-c or plain",
        ),
        (
            {"channels": 4},
            "channels has no effect: architecture is all-cnn-c, which has no channels; leave it"
            " out, or use the architecture width",
        ),
        ({"architecture": "width"}, "channels is missing; use a whole number of 1 or more"),
        ({"architecture": "width", "channels": 0}, "channels is 0; use 1 or more"),
        ({"architecture": "width", "channels": 10_000}, "channels is 10000; use 9999 or less"),
        ({"architecture": "resnet"}, "architecture is 'resnet'; use all-cnn-c, plain, tiny, width"),
        ({"precision": "float16"}, "precision is 'float16'; use float32 or bfloat16"),
        ({"hidden": 4}, "a run has no setting hidden; use architecture, batch_size, channels, "),
    ],
)
def test_settings_that_an_architecture_lacks_are_refused(settings, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        RunConfig.of(settings, **settings)


def test_settings_of_other_architectures_that_are_not_asked_for_have_no_effect():
    config = RunConfig.of(architecture="tiny", depth=2, channels=7, variant="v1")
    assert config == RunConfig.of(architecture="tiny")
    assert set(config.to_json()) == {*RunConfig.settings()} - {"depth", "channels", "variant"}
