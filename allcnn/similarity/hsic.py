"""Estimates of the Hilbert-Schmidt independence criterion, and their sums over minibatches.

A sum is what one minibatch or many contribute: it merges by addition and is divided once, in
``alignment``. Gram matrices of all representations are centred once and multiplied in one product.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Float64, Int32, Int64, Integer

Estimator = Literal["unbiased", "biased"]
Scalar = Float32[Array, ""]
Gram = Float32[Array, "n n"]
Stack = Float32[Array, "m n n"]


class Scaled(NamedTuple):
    """Grams of which each is 2**exponent times its values."""

    values: Float32[np.ndarray, "m n n"] | Stack
    exponents: Int32[np.ndarray, "m"]


ManyGrams = Float[np.ndarray, "m n n"] | Stack | Sequence[Float[np.ndarray, "n n"]] | Scaled
"""Grams in float32, or in float64 where float32 does not hold their digits."""

Products = tuple[Float32[Array, "r c"], Float32[Array, "r"], Float32[Array, "c"]]
SelfProducts = tuple[Float32[Array, "m m"], Int32[Array, "m"]]
CrossProducts = tuple[Products, Int32[Array, "r"], Int32[Array, "c"]]

MIN_ROWS: dict[Estimator, int] = {"unbiased": 4, "biased": 2}
"""Fewest examples for which an estimator is defined."""

_ROUNDINGS = 4
_RESOLUTION = _ROUNDINGS * float(np.finfo(np.float32).eps)
"""Root mean square of what rounding leaves of a Gram below 1 that centring should make 0."""


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
        _check_some(parts)
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


@dataclass(frozen=True, eq=False)
class HsicParts:
    """HSIC sums of each of b minibatches, in the order of their rows; its length is b.

    Attributes:
        cross: of row i with column j.
        rows: of row i with itself.
        columns: of column j with itself.
        sizes: examples of each minibatch.
    """

    cross: Float64[np.ndarray, "b r c"]
    rows: Float64[np.ndarray, "b r"]
    columns: Float64[np.ndarray, "b c"]
    sizes: Int64[np.ndarray, "b"]

    @classmethod
    def stack(cls, sums: Sequence[HsicSums]) -> Self:
        """Keep the sums of single minibatches apart, in the order given."""
        _check_some(sums)
        return cls(
            np.stack([part.cross for part in sums]),
            np.stack([part.rows for part in sums]),
            np.stack([part.columns for part in sums]),
            np.array([part.n_examples for part in sums], np.int64),
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Put runs of minibatches one after the other, in the order given."""
        _check_some(parts)
        return cls(
            np.concatenate([part.cross for part in parts]),
            np.concatenate([part.rows for part in parts]),
            np.concatenate([part.columns for part in parts]),
            np.concatenate([part.sizes for part in parts]),
        )

    def total(self) -> HsicSums:
        """Add the minibatches in their order, which fixes the last bit; of none, zeros."""
        nothing = HsicSums.zero(*self.cross.shape[1:])
        return HsicSums.reduce([nothing, *(self[i] for i in range(len(self)))])

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> HsicSums:
        return HsicSums(
            self.cross[index], self.rows[index], self.columns[index], int(self.sizes[index])
        )


def minibatch_hsic(
    Ks: ManyGrams, Ls: ManyGrams | None = None, estimator: Estimator = "unbiased"
) -> HsicSums:
    """Return n·HSIC of all pairs of Gram matrices over one minibatch of n examples.

    ``Ls`` None compares ``Ks`` with themselves, which is half the work. Compiled once for each
    number of matrices and examples. A constant representation adds exactly 0, as does what float32
    cannot tell from one; Grams of any finite scale neither overflow nor vanish.
    Raises ValueError for fewer than 4 examples (unbiased) or 2 (biased), and for differing shapes.
    """
    F, G = scaled(Ks, estimator), None if Ls is None else scaled(Ls, estimator)
    n = _check_grams(F, G)
    _check_rows(n, estimator, "minibatch")
    if G is None:
        return _self_sums(_self_products(F.values, estimator), F, n, estimator)
    return _cross_sums(_cross_products(F.values, G.values, estimator), F, G, n, estimator)


def group_hsic(
    Ks: Sequence[Float[np.ndarray, "g g"]],
    Ls: Sequence[Float[np.ndarray, "g g"]] | None,
    estimator: Estimator = "unbiased",
) -> HsicSums:
    """Return g·HSIC of all pairs of Grams over g of a minibatch's examples, as of one class.

    In float64: what these differ by may be far less than their distance from the other examples.
    Nothing is compiled, since groups come in many sizes. A representation that is constant to the
    digits of its Gram adds exactly 0.
    Raises ValueError for fewer than 4 examples (unbiased) or 2 (biased).
    """
    n = len(Ks[0])
    _check_rows(n, estimator, "group")
    F = _wide_features(Ks, estimator)
    G = F if Ls is None else _wide_features(Ls, estimator)
    factor = n * _factor(n, estimator)
    # NumPy calls syrk, which is exactly symmetric, for an array and its own transpose.
    cross = factor * (F @ G.T)
    if Ls is None:
        return HsicSums(cross, cross.diagonal().copy(), cross.diagonal().copy(), n)
    return HsicSums(cross, factor * np.vecdot(F, F), factor * np.vecdot(G, G), n)


def permuted_hsic(
    Ks: ManyGrams,
    Ls: ManyGrams | None,
    permutations: Integer[np.ndarray, "p n"],
    estimator: Estimator = "unbiased",
) -> Float64[np.ndarray, "p r c"]:
    """Return n·HSIC of all pairs where L's examples are matched with K's in another order.

    For a permutation π, L[i, j] becomes L[π(i), π(j)]; HSIC of a Gram with itself stays the same.
    ``Ls`` None takes ``Ks`` for them. Grams are centred once for all permutations.
    Raises ValueError for rows that are no permutations of the n examples, and as `minibatch_hsic`.
    """
    F, G = scaled(Ks, estimator), None if Ls is None else scaled(Ls, estimator)
    n = _check_grams(F, G)
    _check_rows(n, estimator, "minibatch")
    permutations = np.asarray(permutations)
    if permutations.shape[1:] != (n,) or (np.sort(permutations, axis=1) != np.arange(n)).any():
        raise ValueError(
            f"the permutations of shape {permutations.shape} do not reorder {n} examples; give one"
            f" a row, each with every number from 0 to {n - 1} once"
        )
    values = F.values, None if G is None else G.values
    products, e, f = jax.device_get(_permuted_products(*values, np.int32(permutations), estimator))
    e, f = e + F.exponents, f + (F if G is None else G).exponents
    factor = n * _factor(n, estimator)
    return factor * _rescaled(products, (e[:, None] + f[None, :])[None])


def scaled(Ks: ManyGrams, estimator: Estimator) -> Scaled:
    """Return Grams in float32, those in float64 centred before they are narrowed.

    HSIC is the same: centring again changes nothing, also of some of the rows.
    """
    if isinstance(Ks, Scaled):
        return Ks
    if isinstance(Ks, np.ndarray | jax.Array) and Ks.dtype == np.float32:
        return Scaled(Ks, np.zeros(len(Ks), np.int32))
    if all(K.dtype == np.float32 for K in Ks):
        return Scaled(np.stack(list(Ks)), np.zeros(len(Ks), np.int32))
    pairs = [
        (K, 0) if K.dtype == np.float32 else _narrowed(np.asarray(K, np.float64), estimator)
        for K in Ks
    ]
    values, exponents = zip(*pairs, strict=True)
    return Scaled(np.stack(values), np.array(exponents, np.int32))


def _narrowed(
    K: Float64[np.ndarray, "n n"], estimator: Estimator
) -> tuple[Float32[np.ndarray, "n n"], int]:
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        centred = _wide_centred(K, estimator)
        largest = np.abs(centred).max(initial=0)
        exponent = int(np.frexp(largest)[1]) if np.isfinite(largest) else 0
        return np.ldexp(centred, -exponent).astype(np.float32), exponent


def _wide_centred(
    K: Float64[np.ndarray, "n n"], estimator: Estimator
) -> Float64[np.ndarray, "n n"]:
    n = len(K)
    pairs = ~np.eye(n, dtype=bool) if estimator == "unbiased" else np.ones((n, n), bool)
    centred: Float64[np.ndarray, "n n"] = _centred(K, pairs, float(n), estimator)
    return centred


def _wide_features(
    Ks: Sequence[Float[np.ndarray, "g g"]], estimator: Estimator
) -> Float64[np.ndarray, "m k"]:
    features = np.empty((len(Ks), Ks[0].size))
    for row, K in zip(features, Ks, strict=True):
        row[:] = _wide_centred(K.astype(np.float64), estimator).ravel()
        rounding = _ROUNDINGS * np.finfo(K.dtype).eps * np.abs(K).max()
        if np.vecdot(row, row) <= (len(K) * rounding) ** 2:
            row[:] = 0
    return features


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


def _check_some(sums: Sequence[object]) -> None:
    if not sums:
        raise ValueError("there are no HSIC sums to merge; give those of one minibatch or more")


def _check_grams(F: Scaled, G: Scaled | None) -> int:
    """Return the number of examples of both lists of Grams."""
    shape, other = F.values.shape[1:], (F if G is None else G).values.shape[1:]
    if len(shape) != 2 or shape[0] != shape[1] or shape != other:
        raise ValueError(
            f"Gram matrices of shapes {shape} and {other} cannot be compared; use square ones over"
            " the same examples"
        )
    n: int = shape[0]
    return n


def _check_rows(n: int, estimator: Estimator, whose: str) -> None:
    if estimator not in MIN_ROWS:
        raise ValueError(f"the HSIC estimator is {estimator!r}; use {' or '.join(MIN_ROWS)}")
    if n < MIN_ROWS[estimator]:
        raise ValueError(
            f"the {whose} has {n} examples; {estimator} HSIC needs {MIN_ROWS[estimator]} or more"
        )


def _self_sums(computed: SelfProducts, F: Scaled, n: int, estimator: Estimator) -> HsicSums:
    products, e = jax.device_get(computed)
    e = e + F.exponents
    cross = n * _factor(n, estimator) * _rescaled(products, e[:, None] + e[None, :])
    cross = (cross + cross.T) / 2
    return HsicSums(cross, cross.diagonal().copy(), cross.diagonal().copy(), n)


def _cross_sums(
    computed: CrossProducts, F: Scaled, G: Scaled, n: int, estimator: Estimator
) -> HsicSums:
    (cross, rows, columns), e, f = jax.device_get(computed)
    e, f = e + F.exponents, f + G.exponents
    factor = n * _factor(n, estimator)
    return HsicSums(
        factor * _rescaled(cross, e[:, None] + f[None, :]),
        factor * _rescaled(rows, 2 * e),
        factor * _rescaled(columns, 2 * f),
        n,
    )


def _rescaled(
    products: Float32[np.ndarray, "..."], exponents: Int32[np.ndarray, "..."]
) -> Float64[np.ndarray, "..."]:
    # In float64: a Gram of 1e30 is a float32, its square is not.
    rescaled: Float64[np.ndarray, "..."] = np.ldexp(products.astype(np.float64), exponents)
    return rescaled


@partial(jax.jit, static_argnames="estimator")
def _self_products(Ks: Stack, estimator: Estimator) -> SelfProducts:
    return _all_self_products(Ks, Ks.shape[1], estimator)


@partial(jax.jit, static_argnames="estimator")
def _cross_products(Ks: Stack, Ls: Stack, estimator: Estimator) -> CrossProducts:
    return _all_cross_products(Ks, Ls, Ks.shape[1], estimator)


@partial(jax.jit, static_argnames="estimator")
def _permuted_products(
    Ks: Stack, Ls: Stack | None, permutations: Int32[Array, "p n"], estimator: Estimator
) -> tuple[Float32[Array, "p r c"], Int32[Array, "r"], Int32[Array, "c"]]:
    n = Ks.shape[1]
    F, e = _features(Ks, n, estimator)
    G, f = (F, e) if Ls is None else _features(Ls, n, estimator)
    own = jnp.sum(F * F, axis=1), jnp.sum(G * G, axis=1)
    centred = G.reshape(-1, n, n)

    def products(order: Int32[Array, "n"]) -> Float32[Array, "r c"]:
        # Centring comes first: it commutes with the order of the examples.
        reordered = _sub_grams(centred, order).reshape(len(G), -1)
        return _without_rounding(_products(F, reordered), *own, n)

    # One after the other: a reordered copy of all Grams is held at a time.
    return jax.lax.map(products, permutations), e, f


def _sub_grams(Ks: Stack, rows: Int32[Array, "g"]) -> Float32[Array, "m g g"]:
    return Ks[:, rows[:, None], rows[None, :]]


def _all_self_products(Ks: Stack, n: int | Int32[Array, ""], estimator: Estimator) -> SelfProducts:
    F, exponents = _features(Ks, n, estimator)
    products = _products(F, F)
    own = jnp.diagonal(products)
    return _without_rounding(products, own, own, n), exponents


def _all_cross_products(
    Ks: Stack, Ls: Stack, n: int | Int32[Array, ""], estimator: Estimator
) -> CrossProducts:
    F, e = _features(Ks, n, estimator)
    G, f = _features(Ls, n, estimator)
    rows, columns = jnp.sum(F * F, axis=1), jnp.sum(G * G, axis=1)
    cross = _without_rounding(_products(F, G), rows, columns, n)
    return (cross, _signal(rows, n), _signal(columns, n)), e, f


def _without_rounding(
    cross: Float32[Array, "r c"],
    rows: Float32[Array, "r"],
    columns: Float32[Array, "c"],
    n: int | Int32[Array, ""],
) -> Float32[Array, "r c"]:
    """Return the products with exact zeros for Grams that float32 cannot tell from a constant's."""
    nothing = (_signal(rows, n) == 0)[:, None] | (_signal(columns, n) == 0)[None, :]
    return jnp.where(nothing, 0, cross)


def _signal(own: Float32[Array, "m"], n: int | Int32[Array, ""]) -> Float32[Array, "m"]:
    # Written so that NaN stays.
    return jnp.where(own <= jnp.square(jnp.float32(n) * _RESOLUTION), 0, own)


def _hsic(K: Gram, L: Gram, estimator: Estimator) -> Scalar:
    n = len(K)
    if K.shape != (n, n) or K.shape != L.shape:
        raise ValueError(
            f"Gram matrices of shapes {K.shape} and {L.shape} cannot be compared; use square ones"
            " over the same examples"
        )
    _check_rows(n, estimator, "minibatch")
    pairs = _pairs(n, n, estimator)
    centred = (_centred(M, pairs, jnp.float32(n), estimator) for M in (K, L))
    return _factor(n, estimator) * jnp.sum(next(centred) * next(centred))


def _factor(n: int, estimator: Estimator) -> float:
    return 1 / (n * (n - 3)) if estimator == "unbiased" else 1 / (n - 1) ** 2


def _features(
    Ks: Stack, n: int | Int32[Array, ""], estimator: Estimator
) -> tuple[Float32[Array, "m k*k"], Int32[Array, "m"]]:
    """Centre and flatten Grams, scaled by 2**-exponent so that no product leaves float32.

    The first n rows and columns are examples, any others padding.
    """
    pairs = _pairs(Ks.shape[1], n, estimator)
    # HSIC ignores a constant added to a Gram, and float32 does not: a flat RBF Gram is near 1.
    Ks = Ks - Ks[:, :1, 1:2]
    # The diagonal, which may be far larger, does not count where it is left out.
    largest = jnp.max(jnp.where(pairs[None], jnp.abs(Ks), 0), axis=(1, 2))
    _, exponents = jnp.frexp(largest)
    divided = jnp.ldexp(Ks, -exponents[:, None, None])
    centred = jax.vmap(lambda K: _centred(K, pairs, jnp.float32(n), estimator))(divided)
    return centred.reshape(len(Ks), -1), exponents


def _products(F: Float32[Array, "r k"], G: Float32[Array, "c k"]) -> Float32[Array, "r c"]:
    return jnp.matmul(F, G.T, precision=jax.lax.Precision.HIGHEST)


def _pairs(k: int, n: int | Int32[Array, ""], estimator: Estimator) -> Bool[Array, "k k"]:
    """Return which entries of a Gram of k rows count: of n examples, unbiased off the diagonal."""
    examples = jnp.arange(k) < n
    pairs = examples[:, None] & examples[None, :]
    return pairs & ~jnp.eye(k, dtype=bool) if estimator == "unbiased" else pairs


def _centred(K: Any, pairs: Any, n: Any, estimator: Estimator) -> Any:
    """Return the U-centred Gram (Székely and Rizzo 2014), or HKH, H = I - 11ᵀ/n, for biased.

    Its rows and columns sum to 0; where ``pairs`` is false it is 0. Of NumPy's arrays or JAX's.
    """
    xp = K.__array_namespace__()
    a, b = (n - 2, n - 1) if estimator == "unbiased" else (n, n)
    K = xp.where(pairs, K, 0)
    rows, columns = K.sum(axis=1) / a, K.sum(axis=0) / a
    centred = K - rows[:, None] - columns[None, :] + rows.sum() / b
    return xp.where(pairs, centred, 0)
