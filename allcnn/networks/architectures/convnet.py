"""Convolutional networks: their blocks and variables, and one function from images to taps."""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Key, UInt8

from allcnn import backend
from allcnn.networks.architectures.convolutional import Conv, Layers
from allcnn.networks.batch_norm import batch_norm
from allcnn.networks.convolution import convolve
from allcnn.networks.network import Network, Precision, Variables
from allcnn.networks.variables import input_statistics, normalised


@dataclass(frozen=True)
class ConvNet(Network):
    """Convolutional layers for the classes and images of a data set."""

    layers: Layers
    n_classes: int
    input_channels: int
    image_size: int

    @property
    def blocks(self) -> tuple[str, ...]:
        """The names of the blocks, in order."""
        return tuple(f"conv{i}" for i in range(1, len(self.layers.blocks) + 1))

    @property
    def taps(self) -> tuple[str, ...]:
        """The blocks, the mean over space where a linear layer follows it, and ``logits``."""
        return (*self.blocks, *(("pooled",) if self.layers.is_linear else ()), "logits")

    @property
    def parameter_bytes(self) -> int:
        """Bytes of the convolutions."""
        return 4 * sum(n * layer.features * layer.kernel**2 for _, layer, n in self._named)

    @property
    def n_outputs(self) -> int:
        """Numbers that the blocks give of one image."""
        n, side = 0, self.image_size
        for layer in self.layers.blocks:
            if layer.padding == "VALID":
                side -= layer.kernel - 1
            side = math.ceil(side / layer.stride)
            n += side * side * layer.features
        return n

    def init(
        self, key: Key[Array, ""], mean: Float[np.ndarray, " c"], std: Float[np.ndarray, " c"]
    ) -> Variables:
        """Draw initial variables."""
        params, batch_stats = {}, {}
        rngs = nnx.Rngs(key)
        for name, layer, n_inputs in self._named:
            _, *states = nnx.split(Block(layer, n_inputs, rngs), nnx.Param, nnx.BatchStat)
            params[name], batch_stats[name] = map(nnx.to_pure_dict, states)
        if self.layers.is_linear:
            linear = nnx.Linear(self.layers.blocks[-1].features, self.n_classes, rngs=rngs)
            params["linear"] = nnx.to_pure_dict(nnx.state(linear))
        return Variables(params, batch_stats, input_statistics(mean, std))

    def apply(
        self, variables: Variables, images: UInt8[Array, "n h w c"]
    ) -> dict[str, Float[Array, "n ..."]]:
        """Return every tap of uint8 images, in order, as in evaluation.

        Each layer is a program of its own, so that a tap is there while the later ones are
        computed, and layers of the same shape share one.
        """
        params, batch_stats, inputs = variables
        x = _normalised(images, inputs["mean"], inputs["std"])
        taps = []
        for name, layer, _ in self._named:
            x = _evaluated(layer, params[name], batch_stats[name], x)
            taps.append(x)
        taps.append(_pooled(x))
        if self.layers.is_linear:
            taps.append(_classified(params["linear"], taps[-1]))
        return dict(zip(self.taps, taps, strict=True))

    def apply_train(
        self,
        variables: Variables,
        images: UInt8[Array, "n h w c"],
        key: Key[Array, ""],
        precision: Precision = "float32",
    ) -> tuple[Float[Array, "n classes"], dict[str, Any]]:
        """Return the logits with batch statistics and dropout, and the new running statistics.

        Convolutions are computed in ``precision``; parameters, batch statistics and logits are
        float32.
        """
        params, batch_stats, inputs = variables
        keys = iter(jax.random.split(key, len(self.blocks) + 1))
        x = _normalised(images, inputs["mean"], inputs["std"]).astype(precision)
        x, updated = _dropout(x, self.layers.input_dropout, keys), {}
        for name, layer, n_inputs in self._named:
            block = _block(layer, n_inputs, params[name], batch_stats[name])
            x = _dropout(block(x, train=True), layer.dropout, keys)
            updated[name] = nnx.to_pure_dict(nnx.state(block, nnx.BatchStat))
        x = _pooled(x.astype(jnp.float32))
        return _classified(params["linear"], x) if self.layers.is_linear else x, updated

    @property
    def _named(self) -> Iterator[tuple[str, Conv, int]]:
        """The blocks with their names and numbers of input channels."""
        n_inputs = (self.input_channels, *(layer.features for layer in self.layers.blocks[:-1]))
        return zip(self.blocks, self.layers.blocks, n_inputs, strict=True)


class Block(nnx.Module):
    """Convolution, batch norm (momentum 0.9, epsilon 1e-5) and ReLU."""

    def __init__(self, layer: Conv, n_inputs: int, rngs: nnx.Rngs) -> None:
        size = (layer.kernel, layer.kernel)
        self.layer = layer
        self.conv = nnx.Conv(n_inputs, layer.features, size, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(layer.features, momentum=0.9, epsilon=1e-5, rngs=rngs)

    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n h2 w2 c2"]:
        """Return the block's output after ReLU, in the precision of its input."""
        kernel = self.conv.kernel[...].astype(x.dtype)
        outputs = convolve(x, kernel, self.layer.stride, self.layer.padding)
        normed = batch_norm(self.norm, outputs.astype(jnp.float32), train)
        return nnx.relu(normed).astype(x.dtype)


_normalised = backend.jit(normalised)
_pooled = backend.jit(lambda x: x.mean((1, 2)))
_classified = backend.jit(lambda params, x: x @ params["kernel"] + params["bias"][None])


def _dropout(x: Array, rate: float, keys: Iterator[Array]) -> Array:
    if rate == 0:
        return x
    return nnx.Dropout(rate)(x, deterministic=False, rngs=next(keys))


def _block(
    layer: Conv, n_inputs: int, params: dict[str, Any], batch_stats: dict[str, Any]
) -> Block:
    block: Block = nnx.merge(_graph(layer, n_inputs), params, batch_stats)
    return block


@functools.cache
def _graph(layer: Conv, n_inputs: int) -> Any:
    """Return the structure of a block, without making a single array."""
    abstract = nnx.eval_shape(lambda: Block(layer, n_inputs, nnx.Rngs(0)))
    return nnx.split(abstract, nnx.Param, nnx.BatchStat)[0]


@functools.partial(backend.jit, static_argnames="layer")
def _evaluated(
    layer: Conv, params: dict[str, Any], batch_stats: dict[str, Any], x: Float[Array, "n h w c"]
) -> Float[Array, "n h2 w2 c2"]:
    return _block(layer, x.shape[-1], params, batch_stats)(x, train=False)
