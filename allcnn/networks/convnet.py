"""Convolutional networks as data: a spec, its variables, and one function from images to taps."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Key, UInt8

from allcnn import backend
from allcnn.networks.batch_norm import batch_norm
from allcnn.networks.convolution import convolve
from allcnn.settings.run import Architecture, Precision, RunConfig

Head = Literal["pooled", "linear"]

_INPUT_DROPOUT = 0.2
_STRIDE_DROPOUT = 0.5


@dataclass(frozen=True)
class Conv:
    """One block: convolution without bias, batch norm, ReLU, and perhaps dropout after it."""

    features: int
    kernel: int = 3
    stride: int = 1
    padding: Literal["SAME", "VALID"] = "SAME"
    dropout: float = 0.0


@dataclass(frozen=True)
class NetworkSpec:
    """A network as a value: hashable, so that it can be a static argument of a jitted function.

    Attributes:
        layers: the blocks, in order; their outputs are the taps ``conv1``, ``conv2``, ….
        head: ``pooled`` averages the last block over space, which are the logits; ``linear``
            averages it (tap ``pooled``) and adds a linear layer for the logits.
        n_classes: the number of logits.
        input_channels: 1 for grey images, 3 for colour.
        input_dropout: the share of input values that training sets to zero.
    """

    layers: tuple[Conv, ...]
    head: Head
    n_classes: int
    input_channels: int
    input_dropout: float = 0.0

    @property
    def blocks(self) -> tuple[str, ...]:
        """The names of the blocks, in order."""
        return tuple(f"conv{i}" for i in range(1, len(self.layers) + 1))

    @property
    def taps(self) -> tuple[str, ...]:
        """The names of the recorded outputs, in order, ending with ``logits``."""
        return self.blocks + (("pooled",) if self.head == "linear" else ()) + ("logits",)


def all_cnn_c(config: RunConfig, n_classes: int, input_channels: int) -> NetworkSpec:
    """Return All-CNN-C (Springenberg et al. 2015) as trained by Lange (2021), 7n + 3 taps.

    Depth n repeats the 3 x 3 convolutions; width multiplies the published 96 and 192 channels;
    variant v1 drops 20 % of the input and 50 % after each strided convolution, v2 nothing.
    """
    n, narrow, wide = config.depth, _channels(96, config.width), _channels(192, config.width)
    dropout = _STRIDE_DROPOUT if config.variant == "v1" else 0.0
    layers = (
        *[Conv(narrow)] * (3 * n - 1),
        Conv(narrow, stride=2, dropout=dropout),
        *[Conv(wide)] * (3 * n - 1),
        Conv(wide, stride=2, dropout=dropout),
        *[Conv(wide)] * (n - 1),
        Conv(wide, padding="VALID"),
        Conv(wide, kernel=1),
        Conv(n_classes, kernel=1),
    )
    input_dropout = _INPUT_DROPOUT if config.variant == "v1" else 0.0
    return NetworkSpec(layers, "pooled", n_classes, input_channels, input_dropout)


def plain(config: RunConfig, n_classes: int, input_channels: int) -> NetworkSpec:
    """Return Plain-(8n + 2) of Kornblith et al. (2019, appendix E), 8n + 2 taps."""
    n, width = config.depth, config.width
    return _kornblith(n, _channels(96, width), _channels(192, width), n_classes, input_channels)


def width_n(config: RunConfig, n_classes: int, input_channels: int) -> NetworkSpec:
    """Return Width-n of Kornblith et al. (2019, Figure 6): Plain-10 with n channels everywhere."""
    n = _channels(config.channels, config.width)
    return _kornblith(1, n, n, n_classes, input_channels)


def _kornblith(n: int, narrow: int, wide: int, n_classes: int, input_channels: int) -> NetworkSpec:
    layers = (
        *[Conv(narrow)] * (3 * n - 1),
        Conv(narrow, stride=2),
        *[Conv(wide)] * (3 * n - 1),
        Conv(wide, stride=2),
        *[Conv(wide)] * (n - 1),
        Conv(wide, padding="VALID"),
        *[Conv(wide, kernel=1)] * n,
    )
    return NetworkSpec(layers, "linear", n_classes, input_channels)


def tiny_10(config: RunConfig, n_classes: int, input_channels: int) -> NetworkSpec:
    """Return Tiny-10 of Kornblith et al. (2019, appendix E), 10 taps."""
    first, second, third = (_channels(published, config.width) for published in (16, 32, 64))
    layers = (
        *[Conv(first)] * 2,
        Conv(second, stride=2),
        *[Conv(second)] * 2,
        Conv(third, stride=2),
        Conv(third, padding="VALID"),
        Conv(third, kernel=1),
    )
    return NetworkSpec(layers, "linear", n_classes, input_channels)


_ARCHITECTURES: dict[Architecture, Callable[[RunConfig, int, int], NetworkSpec]] = {
    "all-cnn-c": all_cnn_c,
    "plain": plain,
    "tiny": tiny_10,
    "width": width_n,
}


def spec_of(config: RunConfig, n_classes: int, input_channels: int) -> NetworkSpec:
    """Return the network of a run's settings."""
    return _ARCHITECTURES[config.architecture](config, n_classes, input_channels)


def _channels(published: int, width: float) -> int:
    return max(1, round(published * width))


class Variables(NamedTuple):
    """What a checkpoint keeps of a network, as nested dictionaries of arrays.

    ``inputs`` holds the mean and standard deviation of the training pixels, so that a checkpoint
    takes uint8 images and nobody has to normalise them the same way again.
    """

    params: dict[str, Any]
    batch_stats: dict[str, Any]
    inputs: dict[str, Any]


class InputStatistic(nnx.Variable[Any]):
    """A constant of the training set: neither trained nor updated."""


class Block(nnx.Module):
    """Convolution, batch norm (momentum 0.9, epsilon 1e-5) and ReLU."""

    def __init__(self, layer: Conv, inputs: int, rngs: nnx.Rngs) -> None:
        size = (layer.kernel, layer.kernel)
        self.layer = layer
        self.conv = nnx.Conv(inputs, layer.features, size, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(layer.features, momentum=0.9, epsilon=1e-5, rngs=rngs)

    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n h2 w2 c2"]:
        """Return the block's output after ReLU, in the precision of what comes in."""
        kernel = self.conv.kernel[...].astype(x.dtype)
        outputs = convolve(x, kernel, self.layer.stride, self.layer.padding)
        normed = batch_norm(self.norm, outputs.astype(jnp.float32), train)
        return nnx.relu(normed).astype(x.dtype)


class Network(nnx.Module):
    """The module of a spec in training; ``apply`` runs its parts in evaluation."""

    def __init__(self, spec: NetworkSpec, rngs: nnx.Rngs) -> None:
        self.spec = spec
        self.mean = InputStatistic(jnp.zeros(spec.input_channels))
        self.std = InputStatistic(jnp.ones(spec.input_channels))
        inputs = spec.input_channels
        for name, layer in zip(spec.blocks, spec.layers, strict=True):
            setattr(self, name, Block(layer, inputs, rngs))
            inputs = layer.features
        if spec.head == "linear":
            self.linear = nnx.Linear(inputs, spec.n_classes, rngs=rngs)

    def __call__(
        self,
        images: UInt8[Array, "n h w c"],
        key: Key[Array, ""],
        precision: Precision = "float32",
    ) -> Float[Array, "n classes"]:
        """Return the logits, with dropout and batch statistics."""
        keys = iter(jax.random.split(key, len(self.spec.layers) + 1))
        x = _normalised(images, self.mean[...], self.std[...])
        x = _dropout(x.astype(precision), self.spec.input_dropout, keys)
        for name, layer in zip(self.spec.blocks, self.spec.layers, strict=True):
            x = _dropout(getattr(self, name)(x, train=True), layer.dropout, keys)
        x = x.astype(jnp.float32).mean((1, 2))
        return self.linear(x) if self.spec.head == "linear" else x


@backend.jit
def _normalised(
    images: UInt8[Array, "n h w c"], mean: Float[Array, " c"], std: Float[Array, " c"]
) -> Float[Array, "n h w c"]:
    # Means of 0 to 255 rather than of 0 to 1: uint8 pixels need no division of their own.
    pixels = (None, None, None, slice(None))
    return (images.astype(jnp.float32) - mean[pixels]) / std[pixels]


def _dropout(x: Array, rate: float, keys: Iterator[Array]) -> Array:
    if rate == 0:
        return x
    return nnx.Dropout(rate)(x, deterministic=False, rngs=next(keys))


@functools.cache
def _graph(spec: NetworkSpec) -> Any:
    """Return the structure of a spec's module, without making a single array."""
    abstract = nnx.eval_shape(lambda: Network(spec, nnx.Rngs(0)))
    return nnx.split(abstract, nnx.Param, nnx.BatchStat, InputStatistic)[0]


def init(
    spec: NetworkSpec,
    key: Key[Array, ""],
    mean: Float[np.ndarray, " c"],
    std: Float[np.ndarray, " c"],
) -> Variables:
    """Draw initial variables for images whose pixels (0 to 255) have this mean and spread."""
    module = Network(spec, nnx.Rngs(key))
    _, *states = nnx.split(module, nnx.Param, nnx.BatchStat, InputStatistic)
    params, batch_stats, _ = (nnx.to_pure_dict(state) for state in states)
    # A channel that never changes would divide by zero; it carries nothing either way.
    inputs = {
        "mean": jnp.asarray(mean, jnp.float32),
        "std": jnp.asarray(np.maximum(std, 1e-3), jnp.float32),
    }
    return Variables(params, batch_stats, inputs)


@functools.cache
def abstract(spec: NetworkSpec) -> Variables:
    """Return the shapes and dtypes of a spec's variables, without making a single array."""
    # Tracing takes a third of a second, and a run has a hundred checkpoints.
    statistic = np.zeros(spec.input_channels, np.float32)
    shapes: Variables = jax.eval_shape(lambda: init(spec, jax.random.key(0), statistic, statistic))
    return shapes


def apply(
    spec: NetworkSpec, variables: Variables, images: UInt8[Array, "n h w c"]
) -> dict[str, Float[Array, "n ..."]]:
    """Return every tap of uint8 images, in the spec's order, as in evaluation.

    Each layer is a program of its own, so that a tap is there while the later ones are computed,
    and layers of the same shape share one.
    """
    params, batch_stats, inputs = variables
    x = _normalised(images, inputs["mean"], inputs["std"])
    taps = []
    for name, layer in zip(spec.blocks, spec.layers, strict=True):
        x = _evaluated(layer, params[name], batch_stats[name], x)
        taps.append(x)
    taps.append(_pooled(x))
    if spec.head == "linear":
        taps.append(_classified(params["linear"], taps[-1]))
    return dict(zip(spec.taps, taps, strict=True))


@functools.partial(backend.jit, static_argnames="layer")
def _evaluated(
    layer: Conv, params: dict[str, Any], batch_stats: dict[str, Any], x: Float[Array, "n h w c"]
) -> Float[Array, "n h2 w2 c2"]:
    block: Block = nnx.merge(_block_graph(layer, x.shape[-1]), params, batch_stats)
    output: Array = block(x, train=False)
    return output


@functools.cache
def _block_graph(layer: Conv, inputs: int) -> Any:
    abstract = nnx.eval_shape(lambda: Block(layer, inputs, nnx.Rngs(0)))
    return nnx.split(abstract, nnx.Param, nnx.BatchStat)[0]


@backend.jit
def _pooled(x: Float[Array, "n h w c"]) -> Float[Array, "n c"]:
    return x.mean((1, 2))


@backend.jit
def _classified(params: dict[str, Any], x: Float[Array, "n c"]) -> Float[Array, "n classes"]:
    logits: Array = x @ params["kernel"] + params["bias"][None]
    return logits


def apply_train(
    spec: NetworkSpec,
    variables: Variables,
    images: UInt8[Array, "n h w c"],
    key: Key[Array, ""],
    precision: Precision = "float32",
) -> tuple[Float[Array, "n classes"], dict[str, Any]]:
    """Return the logits with batch statistics and dropout, and the updated running statistics.

    Convolutions are computed in ``precision``; parameters, batch statistics and logits are float32.
    """
    module: Network = nnx.merge(_graph(spec), *variables)
    logits = module(images, key, precision)
    return logits, nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))
