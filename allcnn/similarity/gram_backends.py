"""Products of rows in float32, by the fastest way on the device."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Float64

Rows = Float[np.ndarray, "n p"] | Float[Array, "n p"]
Row = Float[np.ndarray, "p"]
Vector = Float32[np.ndarray, "n"]
Matrix = Float32[np.ndarray, "n m"]

TILE_COLUMNS = 16384
"""Columns multiplied at a time: 256 rows of them stay in the processor's cache."""

_PROBED_COLUMNS = 2048
"""Columns multiplied first, to learn whether they need a shift: little to repeat if they do."""

NEVER, FAR, ALWAYS = np.inf, 4.0, 0.0
"""Rows are shifted where their mean square is more than this factor times their variance."""


class Backend(NamedTuple):
    """One way to multiply flat rows in float32; all ways agree to float32 rounding."""

    gram: Callable[[Rows, float], Matrix]
    """Of rows with themselves, shifted by their mean ``NEVER``, if ``FAR`` from 0 or ``ALWAYS``."""

    products: Callable[[Rows, Rows, Row | None], Matrix]
    """Of rows A and B, both shifted by a row, None for 0."""

    norms: Callable[[Rows, Row | None], Vector]
    """Squared, of rows shifted in this way."""


def backend() -> Backend:
    """Return BLAS on the CPU, the symmetric product on GPUs, XLA's matrix product elsewhere.

    BLAS and the symmetric product do half the work of XLA's.
    """
    return {"cpu": BLAS, "gpu": SYMMETRIC}.get(jax.default_backend(), XLA)


def in_precision_of(A: Rows, row: Rows) -> Row:
    """Return a row, flat, in the precision in which the rows of ``A`` are shifted."""
    dtype = np.float64 if A.dtype == np.float64 else np.float32
    return np.ravel(np.asarray(row)).astype(dtype)


def wide_tiles(A: Rows) -> Iterator[tuple[slice, Float64[np.ndarray, "n t"]]]:
    """Yield the columns of rows, some at a time, in float64."""
    for tile in _tiles(A):
        yield tile, np.asarray(A[:, tile]).astype(np.float64)


def _tiles(A: Rows, first: int = TILE_COLUMNS) -> list[slice]:
    width = A.shape[1]
    starts = [0, *range(first, width, TILE_COLUMNS)]
    return [slice(start, stop) for start, stop in pairwise([*starts, width])]


def _blas_gram(A: Rows, far: float) -> Matrix:
    total = np.zeros((len(A), len(A)), np.float32)
    # Narrowing would lose the spread of float64 rows that are far from 0.
    shift = far == ALWAYS or (far != NEVER and A.dtype == np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        for tile in _tiles(A, _PROBED_COLUMNS):
            a = _wide(A[:, tile])
            K = _own_products(a - _mean(a) if shift else a)
            # Shifting takes a fifth of the time, and most activations are near 0.
            if not shift and far != NEVER:
                mean_square, of_mean = float(K.diagonal().mean()), float(K.mean())
                if shift := mean_square > far * (mean_square - of_mean):
                    K = _own_products(a - _mean(a))
            total += K
    return total


def _own_products(a: Float[np.ndarray, "n t"]) -> Matrix:
    narrow = np.asarray(a, np.float32)
    # NumPy calls syrk, half the work of gemm, where it is given an array and its own transpose.
    return narrow @ narrow.T


def _mean(a: Float[np.ndarray, "n t"]) -> Float[np.ndarray, "t"]:
    # By BLAS, in a third of the time of a sum over the first axis.
    return np.full(len(a), 1 / len(a), a.dtype) @ a


def _blas_products(A: Rows, B: Rows, origin: Row | None) -> Matrix:
    total = np.zeros((len(A), len(B)), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for tile in _tiles(A):
            a = _shifted(A, origin, tile)
            total += _own_products(a) if B is A else a @ _shifted(B, origin, tile).T
    return total


def _blas_norms(A: Rows, origin: Row | None) -> Vector:
    total = np.zeros(len(A), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for tile in _tiles(A):
            a = _shifted(A, origin, tile)
            total += np.vecdot(a, a)
    return total


def _shifted(A: Rows, origin: Row | None, tile: slice) -> Matrix:
    a = _wide(A[:, tile])
    return np.asarray(a if origin is None else a - in_precision_of(A, origin[tile]), np.float32)


def _wide(a: Rows) -> Float[np.ndarray, "n p"]:
    # Before the difference, which float16 rounds; by XLA, ten times as fast as NumPy here.
    return np.asarray(a) if a.dtype in (np.float32, np.float64) else np.asarray(_widened(a))


def _symmetric_gram(A: Rows, far: float) -> Matrix:
    return np.asarray(_symmetric_product(_device_centred(A, far)))


def _xla_gram(A: Rows, far: float) -> Matrix:
    a = _device_centred(A, far)
    K = np.asarray(_matrix_product(a, a))
    return (K + K.T) / 2  # XLA promises no symmetry


def _xla_products(A: Rows, B: Rows, origin: Row | None) -> Matrix:
    a = _device_shifted(A, origin)
    b = a if B is A else _device_shifted(B, origin)
    return np.asarray(_matrix_product(a, b))


def _xla_norms(A: Rows, origin: Row | None) -> Vector:
    return np.asarray(_squared_norms(_device_shifted(A, origin)))


def _device_centred(A: Rows, far: float) -> Float32[Array, "n p"]:
    if far == NEVER:
        return _device_shifted(A, None)
    if A.dtype == np.float64:
        return _device_shifted(A, _mean(np.asarray(A)))
    return _xla_centred(A)


def _device_shifted(A: Rows, origin: Row | None) -> Float32[Array, "n p"]:
    if A.dtype == np.float64:
        # JAX would narrow it before the shift.
        return jnp.asarray(_shifted(np.asarray(A), origin, slice(None)))
    o = np.zeros(A.shape[1], np.float32) if origin is None else in_precision_of(A, origin)
    return _xla_shifted(A, o)


_widened = jax.jit(lambda a: a.astype(jnp.float32))
_xla_shifted = jax.jit(lambda A, origin: A.astype(jnp.float32) - origin[None, :])
_squared_norms = jax.jit(lambda a: jnp.sum(jnp.square(a), axis=1))


@jax.jit
def _xla_centred(A: Float[Array, "n p"]) -> Float32[Array, "n p"]:
    a = A.astype(jnp.float32)
    return a - jnp.mean(a, axis=0, keepdims=True)


@jax.jit
def _matrix_product(a: Float32[Array, "n p"], b: Float32[Array, "m p"]) -> Float32[Array, "n m"]:
    products = jnp.matmul(
        _stacked_tiles(a), _stacked_tiles(b).transpose(0, 2, 1), precision=jax.lax.Precision.HIGHEST
    )
    return jnp.sum(products, axis=0)


@jax.jit
def _symmetric_product(a: Float32[Array, "n p"]) -> Float32[Array, "n n"]:
    tiles = _stacked_tiles(a)
    nothing = jnp.zeros((len(tiles), len(a), len(a)), jnp.float32)
    # It takes no precision: on CUDA it is cuBLAS's ssyrk, which does not use TF32.
    return jnp.sum(jax.lax.linalg.symmetric_product(tiles, nothing, symmetrize_output=True), axis=0)


def _stacked_tiles(a: Float32[Array, "n p"]) -> Float32[Array, "k n t"]:
    """Cut columns into tiles: one float32 sum over all of them would lose a digit."""
    n, p = a.shape
    width = min(p, TILE_COLUMNS)
    padded = jnp.pad(a, ((0, 0), (0, -p % width)))
    return padded.reshape(n, -1, width).transpose(1, 0, 2)


BLAS = Backend(_blas_gram, _blas_products, _blas_norms)
SYMMETRIC = Backend(_symmetric_gram, _xla_products, _xla_norms)
XLA = Backend(_xla_gram, _xla_products, _xla_norms)
