"""Gram matrices of representations, as exact as their digits need.

Linear Grams are of rows shifted by one row, which HSIC, CKA and distances do not see. They are
computed in float32; where a bound of the error of the distances in them says that float32 loses
digits, as of examples far from all others, in float64.
"""

from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Float64

from allcnn.similarity import gram_error
from allcnn.similarity.gram_backends import (
    ALWAYS,
    BLAS,
    FAR,
    NEVER,
    Row,
    backend,
    in_precision_of,
    wide_tiles,
)
from allcnn.similarity.gram_error import Matrix, Norms
from allcnn.similarity.kernels import BaseKernel
from allcnn.similarity.method import Pool
from store.model.triangles import as_narrow_as_exact

Rows = Float[np.ndarray, "n ..."] | Float[Array, "n ..."]

_LARGEST_EXPONENT = 106
"""Rows beyond 1e-32 to 1e32 are divided by a power of two: float64 would not hold the products of
four of them that CKA is made of."""


class Gram(NamedTuple):
    """The Gram matrix of some rows, exactly symmetric."""

    values: Matrix  # float64 where float32 does not hold the digits of the distances
    bound: float  # of the error of a squared distance, see `gram_error.error_bound`
    unit: int | None
    """Rows were divided by 2**unit, as CKA does not see; 0 between 1e-32 and 1e32. For rows that
    are all alike the one that was given, None if none was."""


class Reference(NamedTuple):
    """Values that all tiles of one Gram matrix share."""

    row: Row  # subtracted from all rows, unless they are normalised
    unit: int  # rows are divided by 2**unit
    usual: float  # a squared distance, of which errors are shares


class GramTile(NamedTuple):
    """Kernel values of rows with others; of the cosine kernel they are normalised, then shifted."""

    values: Matrix
    rows: Norms  # squared, of the shifted rows
    columns: Norms  # those of the others

    def squared_distances(self) -> Matrix:
        """Return the squared Euclidean distances, of a linear tile."""
        return gram_error.squared_distances(self.values, self.rows, self.columns)


def gram(X: Rows, kernel: BaseKernel = "linear", unit: int | None = None) -> Gram:
    """Return the Gram matrix of the rows of ``X``, each flattened.

    Args:
        X: n examples of any shape, in float16, bfloat16, float32 or float64. On an accelerator a
            JAX array is used where it lies.
        kernel: "linear", of rows shifted by their mean or, near 0, not at all; "cosine", in which a
            row of zeros stays zero.
        unit: that of the representation's minibatches before; None where none is known.

    Raises ValueError where there are no rows and for another kernel. Values that are not finite
    make the Gram not finite, without a warning.
    """
    _check("kernel", kernel, BaseKernel)
    X = _flat(X)
    if not unit or kernel == "cosine":
        narrow, bound = _narrow_gram(X, kernel)
        if bound <= gram_error.LIMIT:
            return Gram(narrow, bound, 0 if narrow.any() else unit)
    if kernel == "cosine":
        X, unit = _normalised(X), 0
    own = _unit(X) if unit is None else unit
    K = _wide_products(X, X, _central_row(X), own)[0]
    bound = gram_error.error_bound(K, X.shape[1])
    return Gram(as_narrow_as_exact(K), bound, own if K.any() else unit)


def reference(X: Rows, kernel: BaseKernel = "linear", unit: int | None = None) -> Reference:
    """Return the reference for the tiles of one Gram matrix, from a few rows.

    It is the mean of the half that lies closest together, so that rows far from the others do not
    move it; of equal rows it is exactly that row.
    """
    flat = np.asarray(_flat(X))
    own = gram(flat, kernel, unit)
    distances = gram_error.squared_distances(own.values)
    medoid = distances[np.argmin(np.median(distances, axis=1))]
    close = flat[np.sort(np.argsort(medoid, kind="stable")[: (len(flat) + 1) // 2])]
    central = _central_row(_normalised(close) if kernel == "cosine" else close)
    # As narrow tiles have it, so that wide ones beside them are shifted by the same row.
    row = in_precision_of(flat, central)
    return Reference(row, own.unit or 0, gram_error.usual_distance(own.values))


def cross_gram(A: Rows, B: Rows, common: Reference, kernel: BaseKernel = "linear") -> GramTile:
    """Return the kernel of every row of ``A`` with every row of ``B``, as exact as a `Gram`.

    Exactly symmetric where B is A.
    """
    _check("kernel", kernel, BaseKernel)
    a = _flat(A)
    b = a if B is A else _flat(B)
    if not common.unit:
        narrow = _narrow_cosine_tile if kernel == "cosine" else _narrow_linear_tile
        tile, bound = narrow(a, b, common)
        if bound <= gram_error.LIMIT:
            return tile
    if kernel == "cosine":
        a, b = (u := _normalised(a)), (u if b is a else _normalised(b))
    return GramTile(*_wide_products(a, b, common.row.astype(np.float64), common.unit))


def pooled(X: Rows, pool: Pool) -> Rows:
    """Return ``X`` for "whole"; for "mean", its float64 mean over all axes but first and last.

    As accurate as float64 for float32 rows in NumPy, and for others as a float32 mean of their
    differences from the first row.
    """
    _check("pooling", pool, Pool)
    if pool == "whole" or X.ndim < 3:
        return X
    X = _placed(X)
    space = tuple(range(1, X.ndim - 1))
    if isinstance(X, np.ndarray) and X.dtype in (np.float32, np.float64):
        return X.mean(axis=space, dtype=np.float64)
    # Float16 by XLA, which widens it faster. The sums are float32: of differences, not of the mean.
    first = np.asarray(X[:1], np.float64).mean(axis=space)
    return first + np.asarray(_pooled_differences(X), np.float64)


def _narrow_gram(X: Rows, kernel: BaseKernel) -> tuple[Matrix, float]:
    """Return a Gram in float32, and the bound of its errors."""
    p = X.shape[1]
    K = backend().gram(X, NEVER if kernel == "cosine" else FAR)
    if kernel == "cosine":
        if not _norms_in_range(K.diagonal()):
            return K, np.inf
        K = _cosines(K, K.diagonal(), K.diagonal())
        np.fill_diagonal(K, 1)
        return K, gram_error.error_bound(K, p)
    bound = gram_error.error_bound(K, p)
    if bound > gram_error.LIMIT and gram_error.centred_bound(K, p) <= gram_error.LIMIT:
        K = backend().gram(X, ALWAYS)
        bound = gram_error.error_bound(K, p)
    return K, bound


def _norms_in_range(norms: Norms) -> bool:
    return bool(((norms > gram_error.TINY) & (norms < gram_error.HUGE)).all())


def _cosines(K: Matrix, a: Norms, b: Norms) -> Matrix:
    with np.errstate(invalid="ignore", over="ignore"):
        # Their product first, which is symmetric.
        return K / (np.sqrt(a)[:, None] * np.sqrt(b)[None, :])


def _unit(X: Rows) -> int:
    peak = max((float(np.abs(wide).max(initial=0)) for _, wide in wide_tiles(X)), default=0.0)
    exponent = int(np.frexp(peak)[1]) if np.isfinite(peak) else 0
    return exponent if abs(exponent) > _LARGEST_EXPONENT else 0


def _central_row(X: Rows) -> Row:
    """Return the mean row; of equal rows exactly that row."""
    mean = np.empty(X.shape[1])
    with np.errstate(over="ignore", invalid="ignore"):
        for tile, wide in wide_tiles(X):
            mean[tile] = wide[0] + (wide - wide[0]).mean(axis=0)
    return mean


def _wide_products(
    A: Rows, B: Rows, origin: Row, unit: int
) -> tuple[Float64[np.ndarray, "n m"], Float64[np.ndarray, "n"], Float64[np.ndarray, "m"]]:
    """Return the products of shifted rows, and the squared norms of both, all in float64."""
    K, norms = np.zeros((len(A), len(B))), [np.zeros(len(A)), np.zeros(len(B))]
    with np.errstate(over="ignore", invalid="ignore"):
        for tile, wide in wide_tiles(A):
            a = np.ldexp(wide - origin[tile], -unit)
            # NumPy calls syrk, half the work of gemm, for an array and its own transpose.
            b = a if B is A else np.ldexp(np.float64(np.asarray(B[:, tile])) - origin[tile], -unit)
            K += a @ b.T
            norms[0] += np.vecdot(a, a)
            norms[1] += np.vecdot(b, b)
    return (K, K.diagonal(), K.diagonal()) if B is A else (K, norms[0], norms[1])


def _normalised(A: Rows) -> Float64[np.ndarray, "n p"]:
    """Return rows of length 1; zeros stay."""
    wide = np.asarray(A).astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        # By powers of two first, so that no square leaves float64.
        peaks = np.abs(wide).max(axis=1, keepdims=True, initial=0)
        wide = np.ldexp(wide, -np.frexp(peaks)[1])
        lengths = np.sqrt(np.vecdot(wide, wide))[:, None]
        return wide / np.where(lengths == 0, 1, lengths)


def _narrow_linear_tile(a: Rows, b: Rows, common: Reference) -> tuple[GramTile, float]:
    way = backend()
    K = way.products(a, b, common.row)
    norms = [] if b is a else [way.norms(x, common.row) for x in (a, b)]
    return GramTile(K, *(norms or [K.diagonal()] * 2)), _tile_bound(K, norms, common)


def _tile_bound(K: Matrix, norms: list[Norms], common: Reference) -> float:
    # Errors cannot be shares of the distances of dead rows.
    return gram_error.error_bound(K, common.row.size, *norms, usual=common.usual or None)


def _narrow_cosine_tile(a: Rows, b: Rows, common: Reference) -> tuple[GramTile, float]:
    way, sides = backend(), ((a,) if b is a else (a, b))
    squares = [way.norms(x, None) for x in sides]
    if not all(map(_norms_in_range, squares)):
        return GramTile(np.empty((0, 0)), squares[0], squares[-1]), np.inf
    cosines = _cosines(way.products(a, b, None), squares[0], squares[-1])
    ones = [] if b is a else [np.ones_like(each) for each in squares]
    bound = _tile_bound(cosines, ones, common)
    if b is a:
        np.fill_diagonal(cosines, 1)
    # (u - m)(v - m) of unit vectors u, v and their mean m.
    m = common.row.astype(np.float32)[None]
    along = [
        way.products(x, m, None)[:, 0] / np.sqrt(s) for x, s in zip(sides, squares, strict=True)
    ]
    own = np.vecdot(m, m)
    values = cosines - (along[0][:, None] + along[-1][None, :]) + own
    return GramTile(values, 1 - 2 * along[0] + own, 1 - 2 * along[-1] + own), bound


@jax.jit
def _pooled_differences(X: Float[Array, "n ... c"]) -> Float32[Array, "n c"]:
    wide = X.astype(jnp.float32)
    return jnp.mean(wide - wide[:1], axis=tuple(range(1, X.ndim - 1)))


def _flat(X: Rows) -> Rows:
    if len(X) == 0:
        raise ValueError("the representation has no rows; give it one example or more")
    return _placed(X).reshape(len(X), -1)


def _placed(X: Rows) -> Rows:
    """Return an array for the backend: a JAX array where it is, or NumPy's."""
    return X if isinstance(X, jax.Array) and backend() is not BLAS else np.asarray(X)


def _check(what: str, value: str, of: Any) -> None:
    if value not in get_args(of):
        raise ValueError(f"the {what} is {value!r}; use {' or '.join(get_args(of))}")
