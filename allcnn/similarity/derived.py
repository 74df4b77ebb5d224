"""Kernels derived elementwise from linear or cosine Grams, as exact as their digits need."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int32

from allcnn.similarity import gram_error
from allcnn.similarity.gram import GramTile, Reference
from allcnn.similarity.kernels import Kernel, Pairs
from allcnn.similarity.measures import Measure
from allcnn.similarity.pair_sums import ManyGrams, Scaled, scaled

Medians = Sequence[float | None]
"""Median distances, one a Gram; None for kernels without one, 0 or NaN where none is defined."""

_LEAST_EXPONENT = -(2**20)
"""The exponent of a kernel that is 0 in every float; sums of exponents do not overflow."""


def is_defined(kernel: Kernel, median: float | None) -> bool:
    """Return whether a representation of this median distance has this kernel."""
    return not kernel.uses_median or (median is not None and 0 < median < np.inf)


def kernel_of(Ks: ManyGrams, kernel: Kernel, medians: Medians, measure: Measure) -> ManyGrams:
    """Return a kernel of m base Grams, a constant less, which measures do not see.

    A representation that does not define it has a Gram of zeros, so that it counts as constant.
    The constant is the kernel of the nearest pair that the measure counts, so that kernels that are
    flat, or nearly 0, keep their digits.
    """
    if kernel.is_base:
        return Ks
    assert not isinstance(Ks, Scaled)
    if all(K.dtype == np.float32 for K in Ks):
        stacked = Ks if isinstance(Ks, np.ndarray | jax.Array) else np.stack(list(Ks))
        known = np.array([is_defined(kernel, median) for median in medians])
        if not known.all():
            stacked = np.where(known[:, None, None], stacked, np.float32(0))
        scales = jnp.array([_scale(kernel, median) for median in medians], jnp.float32)
        settings = kernel.to_json()
        # Programs are compiled for all settings but these.
        traced = {name: value for name, value in settings.items() if isinstance(value, float)}
        fixed = tuple(item for item in settings.items() if item[0] not in traced)
        derived = _derived(stacked, scales, traced, type(kernel), fixed, measure.skips_diagonal)
        return Scaled(*map(np.asarray, derived))
    parts = []
    for K, median in zip(Ks, medians, strict=True):
        way: Any = wide_kernel_of if K.dtype == np.float64 else kernel_of
        parts.append(scaled(way([K], kernel, [median], measure), measure))
    return Scaled(*map(np.concatenate, zip(*parts, strict=True)))


def wide_kernel_of(
    Ks: Sequence[Float[np.ndarray, "g g"]], kernel: Kernel, medians: Medians, measure: Measure
) -> list[Float[np.ndarray, "g g"]]:
    """Return the same in float64, from Grams of either precision."""
    if kernel.is_base:
        return list(Ks)
    found = []
    for K, median in zip(Ks, medians, strict=True):
        if not is_defined(kernel, median):
            found.append(np.zeros(K.shape))
            continue
        squared = gram_error.squared_distances(K).astype(np.float64)
        skipped = np.eye(len(K), dtype=bool) & measure.skips_diagonal
        origin = squared[~skipped].min() if measure.skips_diagonal else 0.0
        pairs = Pairs(K.astype(np.float64), squared, _scale(kernel, median))
        found.append(np.where(skipped, 0, _wide_less(kernel, pairs, origin)))
    return found


def tile_kernel(
    tile: GramTile, kernel: Kernel, median: float | None, common: Reference
) -> Float[np.ndarray, "a b"]:
    """Return a kernel of a tile of a base Gram, a constant less that all of its tiles share."""
    if not is_defined(kernel, median):
        return np.zeros(tile.values.shape)
    if kernel.is_base:
        return tile.values
    scale, squared = _scale(kernel, median), tile.squared_distances().astype(np.float64)
    pairs = Pairs(tile.values.astype(np.float64), squared, scale)
    origin = kernel.tile_origin(common.usual, scale)
    if origin is not None:
        return _wide_less(kernel, pairs, origin)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        # k(x, y) - k(x, o) - k(y, o) + k(o, o), o the reference, whose products are 0.
        own = kernel.transform(pairs)
        a, b, zero = (
            kernel.transform(Pairs(0 * norms, norms, scale))
            for norms in (np.float64(tile.rows), np.float64(tile.columns), np.zeros(1))
        )
        return own - (a[:, None] + b[None, :]) + zero


def _wide_less(kernel: Kernel, pairs: Pairs, origin: float) -> Float[np.ndarray, "a b"]:
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        values, logarithm = kernel.less(pairs, origin)
        return values * np.exp(logarithm)


def _scale(kernel: Kernel, median: float | None) -> float:
    return kernel.scale(median) if median is not None and is_defined(kernel, median) else 1.0


@partial(jax.jit, static_argnames=("kind", "fixed", "skips_diagonal"))
def _derived(
    Ks: Float32[Array, "m n n"],
    scales: Float32[Array, "m"],
    traced: dict[str, Float32[Array, ""]],
    kind: type[Kernel],
    fixed: tuple[tuple[str, Any], ...],
    skips_diagonal: bool,
) -> tuple[Float32[Array, "m n n"], Int32[Array, "m"]]:
    kernel = object.__new__(kind)
    for name, value in (*fixed, *traced.items()):
        object.__setattr__(kernel, name, value)
    norms = jnp.diagonal(Ks, axis1=1, axis2=2)
    squared = jnp.maximum(norms[:, :, None] + norms[:, None, :] - 2 * Ks, 0)
    diagonal = jnp.eye(Ks.shape[1], dtype=bool)[None]
    nearest = jnp.zeros(len(Ks), jnp.float32)
    if skips_diagonal:
        nearest = jnp.min(jnp.where(diagonal, jnp.inf, squared), axis=(1, 2))

    def one(
        K: Float32[Array, "n n"], D: Float32[Array, "n n"], s: Any, origin: Any
    ) -> tuple[Float32[Array, "n n"], Float32[Array, ""]]:
        values, logarithm = kernel.less(Pairs(K, D, s), origin)
        return values, jnp.asarray(logarithm, jnp.float32)

    values, logarithms = jax.vmap(one)(Ks, squared, scales, nearest)
    octaves = logarithms / jnp.log(jnp.float32(2))
    exponents = jnp.maximum(jnp.floor(jnp.nan_to_num(octaves)), _LEAST_EXPONENT)
    factors = jnp.exp2(jnp.where(exponents > _LEAST_EXPONENT, octaves - exponents, 0))
    values = values * factors[:, None, None]
    return jnp.where(diagonal & skips_diagonal, 0, values), exponents.astype(jnp.int32)
