"""Products of shifted rows, by what multiplies fastest on the device.

A row x is shifted to x - o, o a reference row near it; for the cosine kernel to x/|x| - o/|o|.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Float64
from numpy.typing import DTypeLike

Rows = Float[np.ndarray, "n p"] | Float[Array, "n p"]
Row = Float[np.ndarray, "p"]
Vector = Float32[np.ndarray, "n"]
Matrix = Float32[np.ndarray, "n m"]
Moments = tuple[Float64[np.ndarray, "n"], Float64[np.ndarray, "n"]]

TILE_COLUMNS = 16384
"""Columns multiplied at a time: 256 shifted rows of them stay in the processor's cache."""

_PROBED_COLUMNS = 2048
"""Columns multiplied first, to learn whether they need a shift: little to repeat if they do."""


class Weights(NamedTuple):
    """Factors by row that turn x into x/|x| - o/|o|: difference (x - o) + own x + reference o.

    Rows near the reference o lose no digits, as they would in the difference of two unit vectors.
    """

    difference: Float[np.ndarray, "n 1"]
    own: Float[np.ndarray, "n 1"]
    reference: Float[np.ndarray, "n 1"]


class Backend(NamedTuple):
    """One way to multiply shifted rows; all ways agree to float32 rounding.

    Attributes:
        gram: of flat rows with themselves, shifted by the origin or not at all.
        products: of flat rows A and B, both shifted by the origin.
        norms: squared Euclidean norms of the rows x of A - origin.
        moments: x·x and (x - o)·(x + o) of the rows x of A, o the origin.
    """

    gram: Callable[[Rows, Rows, Weights | None], Matrix]
    products: Callable[[Rows, Rows, Rows, Weights | None, Weights | None], Matrix]
    norms: Callable[[Rows, Rows], Vector]
    moments: Callable[[Rows, Rows], Moments]


def backend() -> Backend:
    """Return BLAS on the CPU, the symmetric product on GPUs, XLA's matrix product elsewhere.

    BLAS and the symmetric product do half the work of XLA's.
    """
    return {"cpu": BLAS, "gpu": SYMMETRIC}.get(jax.default_backend(), XLA)


def in_precision_of(A: Rows, reference: Rows) -> Row:
    """Return a reference row, flat, in the precision in which the rows of ``A`` are shifted."""
    dtype = np.float64 if A.dtype == np.float64 else np.float32
    row: Row = np.ravel(np.asarray(reference)).astype(dtype)
    return row


def _tiles(A: Rows, first: int = TILE_COLUMNS) -> list[slice]:
    width = A.shape[1]
    starts = [0, *range(first, width, TILE_COLUMNS)]
    return [slice(start, stop) for start, stop in pairwise([*starts, width])]


def _blas_gram(A: Rows, origin: Rows, weights: Weights | None) -> Matrix:
    total = np.zeros((len(A), len(A)), np.float32)
    shift = weights is not None or A.dtype != np.float32
    with np.errstate(over="ignore", invalid="ignore"):
        for tile in _tiles(A, _PROBED_COLUMNS):
            # Shifting takes a fifth of the time. A tile may do without: the reference row is then 0
            # in its columns.
            a = _shifted(A, origin, weights, tile) if shift else np.asarray(A[:, tile])
            K: Matrix = a @ a.T
            if not shift and not _spread_out(K):
                shift = True
                a = _shifted(A, origin, weights, tile)
                K = a @ a.T
            total += K
    return total


def _spread_out(K: Matrix) -> bool:
    """Return whether no row is more than 4 times as far from 0 as from the first row.

    Then no row's rounding error is more than about 20 times what it is after the shift.
    """
    norms = K.diagonal()
    squared = norms + norms[0] - 2 * K[0]
    return bool((norms <= 16 * squared)[1:].all())


def _blas_products(A: Rows, B: Rows, origin: Rows, u: Weights | None, v: Weights | None) -> Matrix:
    total = np.zeros((len(A), len(B)), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for tile in _tiles(A):
            a = _shifted(A, origin, u, tile)
            # NumPy calls syrk, half the work of gemm, where it is given an array and its own
            # transpose.
            b = a if B is A else _shifted(B, origin, v, tile)
            total += a @ b.T
    return total


def _blas_norms(A: Rows, origin: Rows) -> Vector:
    total = np.zeros(len(A), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for tile in _tiles(A):
            a = _shifted(A, origin, None, tile)
            total += np.vecdot(a, a)
    return total


def _blas_moments(A: Rows, origin: Rows) -> Moments:
    squared, excess = np.zeros(len(A)), np.zeros(len(A))
    for tile in _tiles(A):
        a = _wide(A[:, tile])
        o = in_precision_of(A, origin[tile])[None, :]
        squared += np.vecdot(a, a)
        excess += np.vecdot(a - o, a + o)
    return squared, excess


def _shifted(A: Rows, origin: Rows, weights: Weights | None, tile: slice) -> Matrix:
    a = _wide(A[:, tile])
    o = in_precision_of(A, origin[tile])[None, :]
    if weights is None:
        return np.asarray(a - o, np.float32)
    w = _as_type(weights, a.dtype)
    return np.asarray(w.difference * (a - o) + w.own * a + w.reference * o, np.float32)


def _as_type(weights: Weights, dtype: DTypeLike) -> Weights:
    return Weights(*(factors.astype(dtype) for factors in weights))


def _wide(a: Rows) -> Float[np.ndarray, "n p"]:
    # Before the difference, which float16 rounds; by XLA, ten times as fast as NumPy here.
    wide: Float[np.ndarray, "n p"] = (
        np.asarray(a) if a.dtype in (np.float32, np.float64) else np.asarray(_widened(a))
    )
    return wide


def _symmetric_gram(A: Rows, origin: Rows, weights: Weights | None) -> Matrix:
    return np.asarray(_symmetric_product(_device_shifted(A, origin, weights)))


def _xla_gram(A: Rows, origin: Rows, weights: Weights | None) -> Matrix:
    K = _xla_products(A, A, origin, weights, weights)
    symmetric: Matrix = (K + K.T) / 2  # XLA promises no symmetry
    return symmetric


def _xla_products(A: Rows, B: Rows, origin: Rows, u: Weights | None, v: Weights | None) -> Matrix:
    a = _device_shifted(A, origin, u)
    b = a if B is A else _device_shifted(B, origin, v)
    return np.asarray(_matrix_product(a, b))


def _device_shifted(A: Rows, origin: Rows, weights: Weights | None) -> Float32[Array, "n p"]:
    if A.dtype == np.float64:
        # JAX would narrow it before the shift.
        return jnp.asarray(_shifted(np.asarray(A), origin, weights, slice(None)))
    narrow = None if weights is None else _as_type(weights, np.float32)
    shifted: Float32[Array, "n p"] = _xla_shifted(A, in_precision_of(A, origin), narrow)
    return shifted


def _xla_norms(A: Rows, origin: Rows) -> Vector:
    return np.asarray(_squared_norms(_device_shifted(A, origin, None)))


def _xla_moments(A: Rows, origin: Rows) -> Moments:
    if A.dtype == np.float64:
        return _blas_moments(np.asarray(A), origin)
    squared, excess = _device_moments(A, in_precision_of(A, origin))
    return np.asarray(squared, np.float64), np.asarray(excess, np.float64)


@jax.jit
def _widened(a: Float[Array, "n p"]) -> Float32[Array, "n p"]:
    return a.astype(jnp.float32)


@jax.jit
def _xla_shifted(
    A: Float[Array, "n p"], origin: Float32[Array, "p"], weights: Weights | None
) -> Float32[Array, "n p"]:
    a, o = A.astype(jnp.float32), origin[None, :]
    if weights is None:
        return a - o
    shifted: Float32[Array, "n p"] = (
        weights.difference * (a - o) + weights.own * a + weights.reference * o
    )
    return shifted


@jax.jit
def _device_moments(
    A: Float[Array, "n p"], origin: Float32[Array, "p"]
) -> tuple[Float32[Array, "n"], Float32[Array, "n"]]:
    a, o = A.astype(jnp.float32), origin[None, :]
    return _squared_norms(a), jnp.sum((a - o) * (a + o), axis=1)


@jax.jit
def _squared_norms(a: Float32[Array, "n p"]) -> Float32[Array, "n"]:
    return jnp.sum(jnp.square(a), axis=1)


@jax.jit
def _matrix_product(a: Float32[Array, "n p"], b: Float32[Array, "m p"]) -> Float32[Array, "n m"]:
    products = jnp.matmul(
        _stacked_tiles(a),
        _stacked_tiles(b).transpose(0, 2, 1),
        precision=jax.lax.Precision.HIGHEST,
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


BLAS = Backend(_blas_gram, _blas_products, _blas_norms, _blas_moments)
SYMMETRIC = Backend(_symmetric_gram, _xla_products, _xla_norms, _xla_moments)
XLA = Backend(_xla_gram, _xla_products, _xla_norms, _xla_moments)
