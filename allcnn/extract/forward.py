"""A network as a function of images, and the examples that it is run on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float16, UInt8

from allcnn.settings.extraction import DType
from store import Attributes, Examples
from store.model.narrowing import surely_kept

Images = UInt8[np.ndarray, "n h w c"]

Forward = Callable[[Any], Mapping[str, Float[Array, "n ..."]]]
"""A network with its variables: uint8 images (n, h, w, c) to ordered taps."""


@dataclass(frozen=True, eq=False)
class Samples(Examples):
    """The examples of a sample set, in its order, with their images."""

    images: Images


@dataclass(frozen=True)
class LoadedNetwork:
    """A checkpoint as the store sees it: a name, a digest, and images to ordered taps."""

    run: str
    checkpoint: str
    digest: str
    forward: Forward
    attributes: Attributes = field(default_factory=dict)


def tap_shapes(forward: Forward, images: Images) -> dict[str, tuple[int, ...]]:
    """Return the shape of one example of each tap, in order, without computing anything."""
    names: list[str] = []

    def values(images: UInt8[Array, "n h w c"]) -> list[Float[Array, "n ..."]]:
        taps = forward(images)
        names.extend(taps)  # while tracing: JAX itself would sort them
        return list(taps.values())

    shapes = [tap.shape[1:] for tap in jax.eval_shape(values, images)]
    return dict(zip(names, shapes, strict=True))


def narrowed(tap: Float[Array, "b ..."], dtype: DType, n: int) -> Float[np.ndarray, "n ..."]:
    """Return the first ``n`` rows of a tap, in float16 where that surely loses nothing.

    Cast by XLA, in a quarter of NumPy's time; what may overflow or lose digits is left to the
    store.
    """
    rows = np.asarray(tap)[:n]
    if dtype == "float16" and surely_kept(rows, dtype):
        return np.asarray(_to_float16(tap))[:n]
    return rows


@jax.jit
def _to_float16(tap: Float[Array, "n ..."]) -> Float16[Array, "n ..."]:
    return tap.astype(jnp.float16)
