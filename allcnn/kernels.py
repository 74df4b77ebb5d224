"""Gram matrices and distances of representations, accurate in float32 whatever the features' mean.

Rows are shifted by a reference row first. HSIC, CKA and distances are invariant to the shift, and
without it float32 loses the spread of features whose mean is large against it.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

Rows = Float[np.ndarray, "n ..."]
Vector = Float32[np.ndarray, "n"]
Matrix = Float32[np.ndarray, "n m"]
ReadBlock = Callable[[int, int], Rows]

TILE_COLUMNS = 8192
"""Columns shifted and multiplied at a time: 256 rows of them stay in the processor's cache."""


def gram(X: Rows, bandwidth: float | None = None) -> Float32[np.ndarray, "n n"]:
    """Return the Gram matrix of the rows of ``X``, each flattened.

    Args:
        X: n examples of any shape, in float32 or float16.
        bandwidth: sigma of the RBF kernel exp(-d²/(2 sigma²)), a distance; None for the linear
            kernel of the rows shifted by the first.

    Raises ValueError where there are no rows, or for a bandwidth that is not above 0. Values that
    are not finite make the Gram not finite, without a warning.
    """
    if bandwidth is not None and not 0 < bandwidth < float("inf"):
        raise ValueError(f"the RBF bandwidth is {bandwidth}; use a finite distance above 0")
    X = _flat(X)
    K = backend().products(X, X, X[0])
    return K if bandwidth is None else np.asarray(_rbf(K, np.float32(bandwidth)))


def cross_squared_distances(A: Rows, B: Rows, reference: Rows | None = None) -> Matrix:
    """Return the squared Euclidean distance of every row of ``A`` from every row of ``B``.

    Both are shifted by ``reference``, by default the first row of ``A``. A distance is off by
    about 1e-6 of the two rows' squared distances from the reference; between rows that equal the
    reference it is exactly 0.
    """
    a = _flat(A)
    b = a if B is A else _flat(B)
    origin = a[0] if reference is None else np.ravel(reference)
    products, norms = backend()
    K = products(a, b, origin)
    return _squared_distances(K, norms(a, origin), norms(b, origin))


def median_distance(read_block: ReadBlock, n: int, block_rows: int) -> float:
    """Return the median Euclidean distance over all pairs of the first ``n`` examples.

    ``read_block(start, stop)`` is called so that at most two blocks of ``block_rows`` examples are
    held at a time. The median is 0.0 where more than half of the pairs are equal, as in a dead
    layer, and NaN where an example is not finite: neither can scale a bandwidth.

    Raises ValueError for n < 2 and for blocks of less than one row.
    """
    if n < 2 or block_rows < 1:
        raise ValueError(
            f"the median distance of {n} examples in blocks of {block_rows} is not defined;"
            " use 2 examples and 1 row or more"
        )
    starts = range(0, n, block_rows)
    spans = [(start, min(start + block_rows, n)) for start in starts]
    origin = _central_row(read_block(*spans[0]))
    distances: list[Vector] = []
    for i, span in enumerate(spans):
        A = read_block(*span)
        pairs = np.triu_indices(len(A), k=1)
        distances.append(np.sqrt(cross_squared_distances(A, A, origin)[pairs]))
        distances += [_distances_from(A, read_block, other, origin) for other in spans[i + 1 :]]
    return float(np.median(np.concatenate(distances)))


def _distances_from(A: Rows, read_block: ReadBlock, span: tuple[int, int], origin: Rows) -> Vector:
    # The block lives in this call alone, so the next is not read while it is still held.
    distances: Vector = np.sqrt(cross_squared_distances(A, read_block(*span), origin)).ravel()
    return distances


def _central_row(A: Rows) -> Rows:
    """Return a copy of the row whose median distance from the others is least.

    As a reference it leaves bulk distances accurate where the first row is an outlier, and those
    between the equal rows of a mostly dead layer exactly 0.
    """
    typical = np.median(cross_squared_distances(A, A), axis=1)
    row: Rows = np.array(A[np.argmin(typical)])
    return row


class Backend(NamedTuple):
    """One way to multiply shifted rows; both ways agree to float32 rounding.

    Attributes:
        products: (A - origin)(B - origin)ᵀ of flat rows.
        norms: squared Euclidean norms of the rows of A - origin.
    """

    products: Callable[[Rows, Rows, Rows], Matrix]
    norms: Callable[[Rows, Rows], Vector]


def backend() -> Backend:
    """Return BLAS on the CPU, where it does half of XLA's work, and XLA on accelerators."""
    return BLAS if jax.default_backend() == "cpu" else XLA


def _tiles(A: Rows) -> list[slice]:
    return [slice(i, i + TILE_COLUMNS) for i in range(0, A.shape[1], TILE_COLUMNS)]


def _blas_products(A: Rows, B: Rows, origin: Rows) -> Matrix:
    total = np.zeros((len(A), len(B)), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for tile in _tiles(A):
            a = _shifted(A, origin, tile)
            # NumPy calls syrk, half the work of gemm, where it is given an array and its own
            # transpose.
            b = a if B is A else _shifted(B, origin, tile)
            total += a @ b.T
    return total


def _blas_norms(A: Rows, origin: Rows) -> Vector:
    total = np.zeros(len(A), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for tile in _tiles(A):
            a = _shifted(A, origin, tile)
            total += np.vecdot(a, a)
    return total


def _shifted(A: Rows, origin: Rows, tile: slice) -> Matrix:
    if A.dtype == np.float32:
        a: Matrix = A[:, tile] - origin[None, tile]
        return a
    # Widened before the difference, which float16 rounds; by XLA, ten times as fast as NumPy here.
    return np.asarray(_widened_difference(A[:, tile], origin[tile]))


def _xla_products(A: Rows, B: Rows, origin: Rows) -> Matrix:
    a = jnp.asarray(A)
    b = a if B is A else jnp.asarray(B)  # sent to the device once
    return np.asarray(_shifted_products(a, b, origin))


def _xla_norms(A: Rows, origin: Rows) -> Vector:
    return np.asarray(_shifted_norms(A, origin))


@jax.jit
def _shifted_products(
    A: Float[Array, "n p"], B: Float[Array, "m p"], origin: Float[Array, "p"]
) -> Float32[Array, "n m"]:
    a, b = _difference(A, origin), _difference(B, origin)
    return jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)


@jax.jit
def _shifted_norms(A: Float[Array, "n p"], origin: Float[Array, "p"]) -> Float32[Array, "n"]:
    return jnp.sum(jnp.square(_difference(A, origin)), axis=1)


def _difference(A: Float[Array, "n p"], origin: Float[Array, "p"]) -> Float32[Array, "n p"]:
    return A.astype(jnp.float32) - origin.astype(jnp.float32)[None, :]


_widened_difference = jax.jit(_difference)


@jax.jit
def _rbf(K: Float32[Array, "n n"], sigma: Float32[Array, ""]) -> Float32[Array, "n n"]:
    norms = jnp.diagonal(K)
    squared = norms[:, None] + norms[None, :] - 2 * K
    # Divided twice: the square of sigma may overflow where the distances do not.
    L = jnp.exp(-jnp.maximum(squared, 0) / sigma / sigma / 2)
    return jnp.where(jnp.eye(len(K), dtype=bool), 1, L)


def _squared_distances(K: Matrix, a: Vector, b: Vector) -> Matrix:
    with np.errstate(invalid="ignore"):
        squared: Matrix = np.maximum(a[:, None] + b[None, :] - 2 * K, 0)
    return squared


def _flat(X: Rows) -> Rows:
    if len(X) == 0:
        raise ValueError("the representation has no rows; give it one example or more")
    return np.reshape(X, (len(X), -1))


BLAS = Backend(_blas_products, _blas_norms)
XLA = Backend(_xla_products, _xla_norms)
