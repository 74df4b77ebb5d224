"""Estimates of the Hilbert-Schmidt independence criterion, and their sums over minibatches.

A sum is what one minibatch or many contribute: it merges by addition and is divided once, in
``allcnn.cka``. Gram matrices of all representations are centred once and multiplied in one product.
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Float64, Int32

Estimator = Literal["unbiased", "biased"]
Scalar = Float32[Array, ""]
Gram = Float32[Array, "n n"]
Grams = Float32[np.ndarray, "m n n"]
Products = tuple[Float32[Array, "r c"], Float32[Array, "r"], Float32[Array, "c"]]

MIN_ROWS: dict[Estimator, int] = {"unbiased": 4, "biased": 2}
"""Fewest examples for which an estimator is defined."""


class HsicSums(NamedTuple):
    """HSIC of every row representation with every column one, n times summed over minibatches of n.

    Where a list is compared with itself, ``cross`` is exactly symmetric and its diagonal is
    ``rows`` and ``columns``.

    Attributes:
        cross: of row i with column j.
        rows: of row i with itself.
        columns: of column j with itself.
        n_examples: examples summed over.
    """

    cross: Float64[np.ndarray, "r c"]
    rows: Float64[np.ndarray, "r"]
    columns: Float64[np.ndarray, "c"]
    n_examples: int

    @classmethod
    def zero(cls, r: int, c: int) -> Self:
        """Return the sums over no examples."""
        return cls(np.zeros((r, c)), np.zeros(r), np.zeros(c), 0)

    def merge(self, other: Self) -> Self:
        """Return the sums over the examples of both; associative up to float64 rounding."""
        if self.cross.shape != other.cross.shape:
            raise ValueError(
                f"HSIC sums of shapes {self.cross.shape} and {other.cross.shape} do not merge;"
                " use sums of the same two lists of representations"
            )
        return type(self)(
            self.cross + other.cross,
            self.rows + other.rows,
            self.columns + other.columns,
            self.n_examples + other.n_examples,
        )

    @classmethod
    def reduce(cls, parts: Sequence[Self]) -> Self:
        """Merge the parts in the order given, which fixes the last bit of the result."""
        if not parts:
            raise ValueError("there are no HSIC sums to merge; give those of one minibatch or more")
        total = cls.zero(*parts[0].cross.shape)
        for part in parts:
            total = total.merge(part)
        return total


@jax.jit
def unbiased_hsic(K: Gram, L: Gram) -> Scalar:
    """Estimate HSIC from two Gram matrices over the same n examples (Song et al. 2012, eq. 5).

    Computed as the inner product of U-centred Grams (Székely and Rizzo 2014). Unbiased, so
    negative about half the time near independence: never clip it.
    Raises ValueError for n < 4, where n(n-3) vanishes.
    """
    return _hsic(K, L, "unbiased")


@jax.jit
def biased_hsic(K: Gram, L: Gram) -> Scalar:
    """Estimate HSIC as tr(KHLH)/(n-1)², H = I - 11ᵀ/n (Gretton et al. 2005, eq. 9).

    Never negative for kernels, and too large by O(1/n). Raises ValueError for n < 2.
    """
    return _hsic(K, L, "biased")


def minibatch_hsic(
    Ks: Grams | Sequence[Float32[np.ndarray, "n n"]],
    Ls: Grams | Sequence[Float32[np.ndarray, "n n"]] | None = None,
    estimator: Estimator = "unbiased",
) -> HsicSums:
    """Return n·HSIC of all pairs of Gram matrices over one minibatch of n examples.

    ``Ls`` None compares ``Ks`` with themselves, which is half the work. Compiled once for each
    number of matrices and examples. A constant representation adds exactly 0; Grams of any finite
    scale neither overflow nor vanish.
    Raises ValueError for fewer than 4 examples (unbiased) or 2 (biased), and for differing shapes.
    """
    Ks = _stacked(Ks)
    Ls = Ks if Ls is None else _stacked(Ls)
    _check_shapes(Ks.shape[1:], Ls.shape[1:], estimator)
    n = Ks.shape[1]
    factor = n * _factor(n, estimator)
    if Ls is Ks:
        products, e = jax.device_get(_self_products(Ks, estimator))
        cross = factor * _rescaled(products, e[:, None] + e[None, :])
        cross = (cross + cross.T) / 2
        return HsicSums(cross, cross.diagonal().copy(), cross.diagonal().copy(), n)
    (cross, rows, columns), e, f = jax.device_get(_cross_products(Ks, Ls, estimator))
    return HsicSums(
        factor * _rescaled(cross, e[:, None] + f[None, :]),
        factor * _rescaled(rows, 2 * e),
        factor * _rescaled(columns, 2 * f),
        n,
    )


def split_minibatches(n: int, batch_size: int) -> list[tuple[int, int]]:
    """Return the row ranges of minibatches that use each of ``n`` examples exactly once.

    A last minibatch of fewer than 4 rows, for which unbiased HSIC is not defined, joins the one
    before. Raises ValueError where either number is less than 4.
    """
    least = MIN_ROWS["unbiased"]
    for name, value in (("examples", n), ("examples a minibatch", batch_size)):
        if value < least:
            raise ValueError(f"there are {value} {name}; unbiased HSIC needs {least} or more")
    starts = list(range(0, n, batch_size))
    if n - starts[-1] < least:
        starts.pop()
    return list(zip(starts, [*starts[1:], n], strict=True))


def _stacked(Ks: Grams | Sequence[Float32[np.ndarray, "n n"]]) -> Grams:
    return Ks if isinstance(Ks, np.ndarray) else np.stack(Ks)


def _check_shapes(shape: tuple[int, ...], other: tuple[int, ...], estimator: Estimator) -> None:
    if estimator not in MIN_ROWS:
        raise ValueError(f"the HSIC estimator is {estimator!r}; use {' or '.join(MIN_ROWS)}")
    if len(shape) != 2 or shape[0] != shape[1] or shape != other:
        raise ValueError(
            f"Gram matrices of shapes {shape} and {other} cannot be compared; use square ones over"
            " the same examples"
        )
    if shape[0] < MIN_ROWS[estimator]:
        raise ValueError(
            f"the minibatch has {shape[0]} examples; {estimator} HSIC needs {MIN_ROWS[estimator]}"
            " or more"
        )


def _rescaled(
    products: Float32[np.ndarray, "..."], exponents: Int32[np.ndarray, "..."]
) -> Float64[np.ndarray, "..."]:
    # In float64: a Gram of 1e30 is a float32, its square is not.
    scaled: Float64[np.ndarray, "..."] = np.ldexp(products.astype(np.float64), exponents)
    return scaled


@partial(jax.jit, static_argnames="estimator")
def _self_products(
    Ks: Float32[Array, "m n n"], estimator: Estimator
) -> tuple[Float32[Array, "m m"], Int32[Array, "m"]]:
    F, exponents = _features(Ks, estimator)
    return _products(F, F), exponents


@partial(jax.jit, static_argnames="estimator")
def _cross_products(
    Ks: Float32[Array, "r n n"], Ls: Float32[Array, "c n n"], estimator: Estimator
) -> tuple[Products, Int32[Array, "r"], Int32[Array, "c"]]:
    F, e = _features(Ks, estimator)
    G, f = _features(Ls, estimator)
    return (_products(F, G), jnp.sum(F * F, axis=1), jnp.sum(G * G, axis=1)), e, f


def _hsic(K: Gram, L: Gram, estimator: Estimator) -> Scalar:
    _check_shapes(K.shape, L.shape, estimator)
    centre = _u_centred if estimator == "unbiased" else _centred
    return _factor(len(K), estimator) * jnp.sum(centre(K) * centre(L))


def _factor(n: int, estimator: Estimator) -> float:
    return 1 / (n * (n - 3)) if estimator == "unbiased" else 1 / (n - 1) ** 2


def _features(
    Ks: Float32[Array, "m n n"], estimator: Estimator
) -> tuple[Float32[Array, "m n*n"], Int32[Array, "m"]]:
    """Centre and flatten Grams, scaled by 2**-exponent so that no product leaves float32."""
    # HSIC ignores a constant added to a Gram, and float32 does not: a flat RBF Gram is near 1.
    Ks = Ks.astype(jnp.float32)
    Ks = Ks - Ks[:, :1, 1:2]
    _, exponents = jnp.frexp(jnp.max(jnp.abs(Ks), axis=(1, 2)))
    scaled = jnp.ldexp(Ks, -exponents[:, None, None])
    centred = jax.vmap(_u_centred if estimator == "unbiased" else _centred)(scaled)
    return centred.reshape(len(Ks), -1), exponents


def _products(F: Float32[Array, "r k"], G: Float32[Array, "c k"]) -> Float32[Array, "r c"]:
    return jnp.matmul(F, G.T, precision=jax.lax.Precision.HIGHEST)


def _u_centred(K: Gram) -> Gram:
    """Return the U-centred Gram: zero diagonal, rows that sum to 0 (Székely and Rizzo 2014)."""
    n = len(K)
    off_diagonal = ~jnp.eye(n, dtype=bool)
    K = jnp.where(off_diagonal, K, 0)
    rows, columns = jnp.sum(K, axis=1) / (n - 2), jnp.sum(K, axis=0) / (n - 2)
    centred = K - rows[:, None] - columns[None, :] + jnp.sum(rows) / (n - 1)
    return jnp.where(off_diagonal, centred, 0)


def _centred(K: Gram) -> Gram:
    """Return HKH, H = I - 11ᵀ/n: rows and columns that sum to 0."""
    rows, columns = jnp.mean(K, axis=1), jnp.mean(K, axis=0)
    return K - rows[:, None] - columns[None, :] + jnp.mean(rows)
