"""A network as a value: hashable, so that it can be a static argument of a jitted function."""

import functools
import math
from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, UInt8

from allcnn.networks.architectures.base import Precision


class Variables(NamedTuple):
    """What a checkpoint keeps of a network, as nested dictionaries of arrays.

    ``inputs`` holds the mean and standard deviation of the training pixels, so that a checkpoint
    takes uint8 images and nothing else has to normalise them the same way again.
    """

    params: dict[str, Any]
    batch_stats: dict[str, Any]
    inputs: dict[str, Any]


class Network(ABC):
    """What computes activations; a subclass is a frozen dataclass.

    Attributes:
        input_channels: 1 for grey images, 3 for colour.
        image_size: side of the images in pixels.
    """

    input_channels: int
    image_size: int

    @property
    @abstractmethod
    def taps(self) -> tuple[str, ...]:
        """The names of the recorded outputs, in order, ending with ``logits``."""

    @abstractmethod
    def init(
        self,
        key: Key[Array, ""],
        mean: Float[np.ndarray, " c"],
        std: Float[np.ndarray, " c"],
    ) -> Variables:
        """Draw initial variables for images whose pixels (0 to 255) have this mean and spread."""

    @abstractmethod
    def apply(
        self, variables: Variables, images: UInt8[Array, "n h w c"]
    ) -> dict[str, Float[Array, "n ..."]]:
        """Return every tap of uint8 images, in order, as in evaluation."""

    @abstractmethod
    def apply_train(
        self,
        variables: Variables,
        images: UInt8[Array, "n h w c"],
        key: Key[Array, ""],
        precision: Precision = "float32",
    ) -> tuple[Float[Array, "n classes"], dict[str, Any]]:
        """Return the logits as in training, and the updated running statistics."""

    @property
    def parameter_bytes(self) -> int:
        """Bytes of the parameters, about."""
        leaves = jax.tree.leaves(abstract(self).params)
        return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)

    @property
    def n_outputs(self) -> int:
        """Numbers that the layers give of one image."""
        shape = (1, self.image_size, self.image_size, self.input_channels)
        images = jax.ShapeDtypeStruct(shape, jnp.uint8)  # type: ignore[no-untyped-call]
        taps = jax.eval_shape(self.apply, abstract(self), images)
        return sum(math.prod(tap.shape) for tap in taps.values())


@functools.cache
def abstract(network: Network) -> Variables:
    """Return the shapes and dtypes of a network's variables, without making a single array."""
    # Tracing takes a third of a second, and a run has a hundred checkpoints.
    statistic = np.zeros(network.input_channels, np.float32)
    shapes: Variables = jax.eval_shape(
        lambda: network.init(jax.random.key(0), statistic, statistic)
    )
    return shapes


def input_statistics(
    mean: Float[np.ndarray, " c"], std: Float[np.ndarray, " c"]
) -> dict[str, Float[Array, " c"]]:
    """Return the statistics of training pixels as variables keep them."""
    # A channel that never changes would divide by zero; it carries nothing either way.
    return {
        "mean": jnp.asarray(mean, jnp.float32),
        "std": jnp.asarray(np.maximum(std, 1e-3), jnp.float32),
    }


def normalised(
    images: UInt8[Array, "n h w c"], mean: Float[Array, " c"], std: Float[Array, " c"]
) -> Float[Array, "n h w c"]:
    """Return images less the mean of the training pixels, over their spread."""
    # Means of 0 to 255 rather than of 0 to 1: uint8 pixels need no division of their own.
    pixels = (None, None, None, slice(None))
    return (images.astype(jnp.float32) - mean[pixels]) / std[pixels]
