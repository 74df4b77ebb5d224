"""Shapes and sizes of a network's variables, and normalised images."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from allcnn.networks.network import Network, Variables


@functools.cache
def abstract(network: Network) -> Variables:
    """Return the shapes and dtypes of a network's variables, without making a single array."""
    # Tracing takes a third of a second, and a run has a hundred checkpoints.
    statistic = np.zeros(network.input_channels, np.float32)
    return jax.eval_shape(lambda: network.init(jax.random.key(0), statistic, statistic))


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


def parameter_bytes(network: Network) -> int:
    """Return the bytes of a network's parameters, about."""
    if network.parameter_bytes is not None:
        return network.parameter_bytes
    leaves = jax.tree.leaves(abstract(network).params)
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)


def n_outputs(network: Network) -> int:
    """Return the numbers that a network's layers give of one image."""
    if network.n_outputs is not None:
        return network.n_outputs
    shape = (1, network.image_size, network.image_size, network.input_channels)
    images: Any = jax.ShapeDtypeStruct(shape, jnp.uint8)  # type: ignore[no-untyped-call]
    taps = jax.eval_shape(network.apply, abstract(network), images)
    return sum(math.prod(tap.shape) for tap in taps.values())
