"""Gram matrices and distances of representations, accurate in float32 whatever the features' mean.

Rows are shifted by a reference row first. HSIC, CKA and distances are invariant to the shift, and
without it float32 loses the spread of features whose mean is large against it.
"""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Float64

from allcnn.products import BLAS, Matrix, Vector, Weights, backend, in_precision_of

BaseKernel = Literal["linear", "cosine"]
Pool = Literal["whole", "mean"]
Rows = Float[np.ndarray, "n ..."] | Float[Array, "n ..."]
ReadBlock = Callable[[int, int], Rows]

BANDWIDTH_EXAMPLES = 1024
"""The median distance, the unit of bandwidths, is taken between this many first examples."""

BANDWIDTH_BLOCK = 256
"""Of which so many are read at a time."""


def gram(X: Rows, kernel: BaseKernel = "linear") -> Float32[np.ndarray, "n n"]:
    """Return the Gram matrix of the rows of ``X``, each flattened; exactly symmetric.

    All rows are shifted by one row, which HSIC, CKA and distances do not see: the first row, or 0
    in columns where float32 needs no shift. The cosine kernel shifts what it has divided by its
    norm; a row of zeros stays zero. Norms outside 1e-18 to 1e18 are beyond float32.

    Args:
        X: n examples of any shape, in float16, float32 or float64. A float64 difference is
            narrowed after the shift. On an accelerator a JAX array is used where it lies.
        kernel: "linear" or "cosine".

    Raises ValueError where there are no rows and for another kernel. Values that are not finite
    make the Gram not finite, without a warning.
    """
    _check_kernel(kernel)
    X = _flat(X)
    origin = in_precision_of(X, X[0])
    return backend().gram(X, origin, _weights(X, origin, kernel))


def cross_gram(A: Rows, B: Rows, reference: Rows, kernel: BaseKernel = "linear") -> Matrix:
    """Return the kernel of every row of ``A`` with every row of ``B``, both shifted alike.

    Tiles of one Gram matrix share their reference: a row near the mean of all rows (see
    ``mean_row``). The cosine kernel normalises it too. Exactly symmetric where B is A.
    """
    _check_kernel(kernel)
    a = _flat(A)
    b = a if B is A else _flat(B)
    u = _weights(a, in_precision_of(a, reference), kernel)
    v = u if b is a else _weights(b, in_precision_of(b, reference), kernel)
    return backend().products(a, b, np.ravel(reference), u, v)


def rbf(
    Ks: Float32[np.ndarray, "*m n n"], bandwidths: float | Float[np.ndarray, "*m"]
) -> Float32[np.ndarray, "*m n n"]:
    """Return exp(-d²/(2 sigma²)) for linear Grams, d² = K_ii + K_jj - 2 K_ij; its diagonal is 1.

    Args:
        Ks: linear Grams, from ``gram`` so that d² is accurate.
        bandwidths: sigma, a distance, one for all or one a Gram; broadcast, so that Grams of
            shape (1, n, n) and three bandwidths give (3, n, n).

    Raises ValueError for a bandwidth that is not finite and above 0.
    """
    sigmas = _checked(bandwidths)
    batch = (1,) * (Ks.ndim - 2 - sigmas.ndim) + sigmas.shape
    return np.asarray(_rbf(Ks, sigmas.reshape(*batch, 1, 1)))


def cross_rbf(
    A: Rows, B: Rows, reference: Rows, bandwidths: Sequence[float]
) -> Float32[np.ndarray, "s a b"]:
    """Return the RBF kernel of every row of ``A`` with every row of ``B``, for each bandwidth.

    One product serves all s bandwidths; ``reference`` is that of ``cross_gram``.
    """
    sigmas = _checked(bandwidths)
    squared = cross_squared_distances(A, B, reference)
    return np.asarray(_exponential(squared[None], sigmas[:, None, None]))


def pooled(X: Rows, pool: Pool) -> Rows:
    """Return ``X`` for "whole"; for "mean", its float64 mean over all axes but first and last.

    As accurate as float64 for float32 rows in NumPy, and for others as a float32 mean of their
    differences from the first row.
    """
    if pool not in get_args(Pool):
        raise ValueError(f"the pooling is {pool!r}; use {' or '.join(get_args(Pool))}")
    if pool == "whole" or X.ndim < 3:
        return X
    X = _placed(X)
    space = tuple(range(1, X.ndim - 1))
    if isinstance(X, np.ndarray) and X.dtype in (np.float32, np.float64):
        wide: Rows = X.mean(axis=space, dtype=np.float64)
        return wide
    # Float16 by XLA, which widens it faster. The sums are float32: of differences, not of the mean.
    first = np.asarray(X[:1], np.float64).mean(axis=space)
    means: Rows = first + np.asarray(_pooled_differences(X), np.float64)
    return means


def mean_row(X: Rows) -> Rows:
    """Return the mean over a few rows, flat: a reference for the tiles of one Gram matrix.

    Of equal rows it is exactly that row, so that a constant representation has a Gram of zeros.
    """
    X = np.asarray(_flat(X))
    first = X[:1].astype(np.float64)
    return in_precision_of(X, first + np.mean(X - first, axis=0, keepdims=True))


def cross_squared_distances(A: Rows, B: Rows, reference: Rows | None = None) -> Matrix:
    """Return the squared Euclidean distance of every row of ``A`` from every row of ``B``.

    Both are shifted by ``reference``, by default the first row of ``A``. A distance is off by
    about 1e-6 of the two rows' squared distances from the reference; between rows that equal the
    reference it is exactly 0.
    """
    a = _flat(A)
    b = a if B is A else _flat(B)
    origin = a[0] if reference is None else np.ravel(reference)
    way = backend()
    K = way.products(a, b, origin, None, None)
    return _squared_distances(K, way.norms(a, origin), way.norms(b, origin))


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


def _weights(A: Rows, origin: Rows, kernel: BaseKernel) -> Weights | None:
    """Return the factors of the cosine kernel; None for the linear one."""
    if kernel == "linear":
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        squared, excess = backend().moments(A, origin)
        x, o = np.sqrt(squared)[:, None], np.linalg.norm(np.float64(origin))
        # 1/x - 1/o, from |x|² - |o|² as one sum; it multiplies the shorter of the two, zero rows
        # among them, so that nothing large cancels.
        change = -_quotients(excess[:, None], x * o * (x + o))
        return Weights(
            _quotients(np.ones_like(x), np.maximum(x, o)),
            np.where(x < o, change, 0),
            np.where(x < o, 0, change),
        )


def _quotients(
    a: Float64[np.ndarray, "n 1"], b: Float64[np.ndarray, "n 1"]
) -> Float64[np.ndarray, "n 1"]:
    quotients: Float64[np.ndarray, "n 1"] = np.divide(a, b, out=np.zeros_like(b), where=b != 0)
    return quotients


@jax.jit
def _pooled_differences(X: Float[Array, "n ... c"]) -> Float32[Array, "n c"]:
    wide = X.astype(jnp.float32)
    return jnp.mean(wide - wide[:1], axis=tuple(range(1, X.ndim - 1)))


@jax.jit
def _rbf(
    Ks: Float32[Array, "*m n n"], sigmas: Float32[Array, "*m 1 1"]
) -> Float32[Array, "*m n n"]:
    norms = jnp.diagonal(Ks, axis1=-2, axis2=-1)
    squared = norms[..., :, None] + norms[..., None, :] - 2 * Ks
    Ls: Float32[Array, "*m n n"] = _exponential(jnp.maximum(squared, 0), sigmas)
    return Ls


@jax.jit
def _exponential(
    squared: Float32[Array, "*m a b"], sigmas: Float32[Array, "*m 1 1"]
) -> Float32[Array, "*m a b"]:
    # Divided twice: the square of sigma may overflow where the distances do not.
    return jnp.exp(-squared / sigmas / sigmas / 2)


def _squared_distances(K: Matrix, a: Vector, b: Vector) -> Matrix:
    with np.errstate(invalid="ignore"):
        squared: Matrix = np.maximum(a[:, None] + b[None, :] - 2 * K, 0)
    return squared


def _flat(X: Rows) -> Rows:
    if len(X) == 0:
        raise ValueError("the representation has no rows; give it one example or more")
    return _placed(X).reshape(len(X), -1)


def _placed(X: Rows) -> Rows:
    """Return what the backend computes on: a JAX array where it is, or NumPy's."""
    return X if isinstance(X, jax.Array) and backend() is not BLAS else np.asarray(X)


def _check_kernel(kernel: str) -> None:
    if kernel not in get_args(BaseKernel):
        raise ValueError(f"the kernel is {kernel!r}; use {' or '.join(get_args(BaseKernel))}")


def _checked(bandwidths: float | Sequence[float] | Float[np.ndarray, "..."]) -> Vector:
    sigmas = np.asarray(bandwidths, np.float32)
    wrong = sigmas[~((sigmas > 0) & (sigmas < np.inf))]
    if wrong.size:
        raise ValueError(f"the RBF bandwidth is {wrong[0]}; use a finite distance above 0")
    return sigmas
