"""Inner products of the features of many Grams, and their sums over minibatches.

A sum is what one minibatch or many contribute: it merges by addition and is divided once, by the
measure. Features of all representations are computed once and multiplied in one product.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial, reduce
from operator import add
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Float64, Int32, Int64, Integer

from allcnn.similarity.measures import Measure, PairSums

Stack = Float32[Array, "m n n"]


class Scaled(NamedTuple):
    """Grams, each of which is 2**exponent times its values."""

    values: Float32[np.ndarray, "m n n"] | Stack
    exponents: Int32[np.ndarray, "m"]


Grams = Sequence[Float[np.ndarray, "n n"]]
ManyGrams = Float[np.ndarray, "m n n"] | Stack | Grams | Scaled
"""Grams in float32, or in float64 where float32 does not hold their digits."""

LEAST_EXAMPLES = 4
"""Fewest examples of a minibatch, for which unbiased HSIC is defined."""

_ROUNDINGS = 4
_RESOLUTION = _ROUNDINGS * float(np.finfo(np.float32).eps)
"""Root mean square of the rounding errors of a Gram below 1 that centring should make 0."""


def zero_sums(r: int, c: int) -> PairSums:
    """Return the sums over no examples."""
    return PairSums(np.zeros((r, c)), np.zeros(r), np.zeros(c), 0)


def merged(first: PairSums, second: PairSums) -> PairSums:
    """Add sums over other examples of the same two lists of representations.

    Raises ValueError for those of other lists, as a single one would be added to all.
    """
    if first.cross.shape != second.cross.shape:
        raise ValueError(
            f"sums of shapes {first.cross.shape} and {second.cross.shape} do not merge; use sums of"
            " the same two lists of representations"
        )
    return PairSums(*map(add, first, second))


@dataclass(frozen=True, eq=False)
class MinibatchSums:
    """The `PairSums` of each of b minibatches, in the order of their rows; its length is b.

    ``sizes`` are the examples of each minibatch.
    """

    cross: Float64[np.ndarray, "b r c"]
    rows: Float64[np.ndarray, "b r"]
    columns: Float64[np.ndarray, "b c"]
    sizes: Int64[np.ndarray, "b"]

    @classmethod
    def stack(cls, sums: Sequence[PairSums]) -> Self:
        """Keep the sums of single minibatches apart, in the order given."""
        _check_some(sums)
        return cls(*map(np.stack, zip(*sums, strict=True)))

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Put runs of minibatches one after the other, in the order given."""
        _check_some(parts)
        of_each = ([getattr(part, f.name) for part in parts] for f in fields(cls))
        return cls(*map(np.concatenate, of_each))

    def total(self) -> PairSums:
        """Add the minibatches in their order, which fixes the last bit; of none, zeros."""
        parts = (self[i] for i in range(len(self)))
        return reduce(merged, parts, zero_sums(*self.cross.shape[1:]))

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> PairSums:
        return PairSums(
            self.cross[index], self.rows[index], self.columns[index], int(self.sizes[index])
        )


def minibatch_sums(Ks: ManyGrams, Ls: ManyGrams | None, measure: Measure) -> PairSums:
    """Return n times the measure's products of all pairs of Grams over a minibatch of n examples.

    ``Ls`` None compares ``Ks`` with themselves, which is half the work. Compiled once for each
    number of matrices and examples. A constant representation adds exactly 0, as does one that
    float32 cannot tell from it; Grams of any finite scale neither overflow nor vanish.
    Raises ValueError for fewer examples than the measure needs, and for differing shapes.
    """
    F, G, n = _both_scaled(Ks, Ls, measure)
    factor = n * measure.factor(n)
    cross, rows, columns, e, f = jax.device_get(_pair_products(F, G, measure))
    cross = factor * _rescaled(cross, e[:, None] + f[None, :])
    if G is None:
        return _self_sums((cross + cross.T) / 2, n)
    return PairSums(cross, factor * _rescaled(rows, 2 * e), factor * _rescaled(columns, 2 * f), n)


def group_sums(Ks: Grams, Ls: Grams | None, measure: Measure) -> PairSums:
    """Return the sums over g of a minibatch's examples, as of one class.

    In float64: what these differ by may be far less than their distance from the other examples.
    Nothing is compiled, since groups come in many sizes. A representation that is constant to the
    digits of its Gram adds exactly 0. Raises ValueError as `minibatch_sums`.
    """
    n = len(Ks[0])
    _check_rows(n, measure, "group")
    F = _wide_features(Ks, measure)
    G = F if Ls is None else _wide_features(Ls, measure)
    factor = n * measure.factor(n)
    # NumPy calls syrk, which is exactly symmetric, for an array and its own transpose.
    cross = factor * (F @ G.T)
    if Ls is None:
        return _self_sums(cross, n)
    return PairSums(cross, factor * np.vecdot(F, F), factor * np.vecdot(G, G), n)


def permuted_sums(
    Ks: ManyGrams, Ls: ManyGrams | None, permutations: Integer[np.ndarray, "p n"], measure: Measure
) -> Float64[np.ndarray, "p r c"]:
    """Return the products of all pairs where L's examples are matched with K's in another order.

    For a permutation π, L[i, j] becomes L[π(i), π(j)]; the products of a representation with itself
    stay the same. ``Ls`` None takes ``Ks`` for them.
    Raises ValueError for rows that are no permutations of the n examples, and as `minibatch_sums`.
    """
    F, G, n = _both_scaled(Ks, Ls, measure)
    if permutations.shape[1:] != (n,) or (np.sort(permutations, axis=1) != np.arange(n)).any():
        raise ValueError(
            f"the permutations of shape {permutations.shape} do not reorder {n} examples; give one"
            f" a row, each with every number from 0 to {n - 1} once"
        )
    found = _permuted_products(F, G, np.int32(permutations), measure)
    products, e, f = jax.device_get(found)
    return n * measure.factor(n) * _rescaled(products, (e[:, None] + f[None, :])[None])


def scaled(Ks: ManyGrams, measure: Measure) -> Scaled:
    """Return Grams in float32, those in float64 centred before they are narrowed."""
    if isinstance(Ks, Scaled):
        return Ks
    if isinstance(Ks, np.ndarray | jax.Array) and Ks.dtype == np.float32:
        return Scaled(Ks, np.zeros(len(Ks), np.int32))
    values, exponents = zip(*(_narrowed(K, measure) for K in Ks), strict=True)
    return Scaled(np.stack(values), np.array(exponents, np.int32))


def _narrowed(
    K: Float[np.ndarray, "n n"], measure: Measure
) -> tuple[Float32[np.ndarray, "n n"], int]:
    if K.dtype == np.float32:
        return K, 0
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        centred = measure.centred(np.asarray(K, np.float64))
        largest = np.abs(centred).max(initial=0)
        exponent = int(np.frexp(largest)[1]) if np.isfinite(largest) else 0
        return np.ldexp(centred, -exponent).astype(np.float32), exponent


def _wide_features(Ks: Grams, measure: Measure) -> Float64[np.ndarray, "m k"]:
    features = []
    for K in Ks:
        row = measure.features(K.astype(np.float64)).ravel()
        rounding = _ROUNDINGS * np.finfo(K.dtype).eps * np.abs(K).max()
        features.append(row if np.vecdot(row, row) > (len(K) * rounding) ** 2 else 0 * row)
    return np.stack(features)


def split_minibatches(n: int, batch_size: int) -> list[tuple[int, int]]:
    """Return the row ranges of minibatches that use each of ``n`` examples exactly once.

    A last minibatch of fewer than 4 rows, for which unbiased HSIC is not defined, joins the one
    before. Raises ValueError where either number is less than 4.
    """
    for name, value in (("examples", n), ("examples a minibatch", batch_size)):
        if value < LEAST_EXAMPLES:
            raise ValueError(
                f"there are {value} {name}; unbiased HSIC needs {LEAST_EXAMPLES} or more"
            )
    starts = list(range(0, n, batch_size))
    if n - starts[-1] < LEAST_EXAMPLES:
        starts.pop()
    return list(zip(starts, [*starts[1:], n], strict=True))


def _check_some(sums: Sequence[object]) -> None:
    if not sums:
        raise ValueError("there are no sums to merge; give those of one minibatch or more")


def _both_scaled(
    Ks: ManyGrams, Ls: ManyGrams | None, measure: Measure
) -> tuple[Scaled, Scaled | None, int]:
    """Return both lists of Grams in float32, and the number of their examples."""
    F, G = scaled(Ks, measure), None if Ls is None else scaled(Ls, measure)
    shape, other = F.values.shape[1:], (F if G is None else G).values.shape[1:]
    if len(shape) != 2 or shape[0] != shape[1] or shape != other:
        raise ValueError(
            f"Gram matrices of shapes {shape} and {other} cannot be compared; use square ones over"
            " the same examples"
        )
    _check_rows(shape[0], measure, "minibatch")
    return F, G, shape[0]


def _check_rows(n: int, measure: Measure, whose: str) -> None:
    if n < measure.least_examples:
        raise ValueError(
            f"the {whose} has {n} examples; {measure.how or measure.title} needs"
            f" {measure.least_examples} or more"
        )


def _self_sums(cross: Float64[np.ndarray, "m m"], n: int) -> PairSums:
    return PairSums(cross, cross.diagonal().copy(), cross.diagonal().copy(), n)


def _rescaled(products: Any, exponents: Any) -> Any:
    # In float64: a Gram of 1e30 is a float32, its square is not.
    return np.ldexp(products.astype(np.float64), exponents)


@partial(jax.jit, static_argnames="measure")
def _pair_products(Ks: Scaled, Ls: Scaled | None, measure: Measure) -> Any:
    """Return products of all pairs and of both lists with themselves, and both exponents."""
    n = Ks.values.shape[1]
    F, e = _features(Ks, measure)
    G, f = (F, e) if Ls is None else _features(Ls, measure)
    cross = _products(F, G)
    rows = jnp.diagonal(cross) if Ls is None else jnp.sum(F * F, axis=1)
    columns = rows if Ls is None else jnp.sum(G * G, axis=1)
    cross = _without_rounding(cross, rows, columns, n)
    return cross, _signal(rows, n), _signal(columns, n), e, f


@partial(jax.jit, static_argnames="measure")
def _permuted_products(
    Ks: Scaled, Ls: Scaled | None, permutations: Int32[Array, "p n"], measure: Measure
) -> tuple[Float32[Array, "p r c"], Int32[Array, "r"], Int32[Array, "c"]]:
    n = Ks.values.shape[1]
    F, e = _features(Ks, measure)
    G, f = (F, e) if Ls is None else _features(Ls, measure)
    own = jnp.sum(F * F, axis=1), jnp.sum(G * G, axis=1)
    square = G.reshape(-1, n, n)

    def products(order: Int32[Array, "n"]) -> Float32[Array, "r c"]:
        # Features come first: they commute with the order of the examples.
        reordered = square[:, order[:, None], order[None, :]].reshape(len(G), -1)
        return _without_rounding(_products(F, reordered), *own, n)

    # One after the other: a reordered copy of all features is held at a time.
    return jax.lax.map(products, permutations), e, f


def _without_rounding(
    cross: Float32[Array, "r c"], rows: Float32[Array, "r"], columns: Float32[Array, "c"], n: int
) -> Float32[Array, "r c"]:
    """Return the products with exact zeros for Grams that float32 cannot tell from a constant's."""
    nothing = (_signal(rows, n) == 0)[:, None] | (_signal(columns, n) == 0)[None, :]
    return jnp.where(nothing, 0, cross)


def _signal(own: Float32[Array, "m"], n: int) -> Float32[Array, "m"]:
    # Written so that NaN stays.
    return jnp.where(own <= jnp.square(jnp.float32(n) * _RESOLUTION), 0, own)


def _features(grams: Scaled, measure: Measure) -> tuple[Float32[Array, "m k"], Int32[Array, "m"]]:
    """Return flattened features of Grams scaled by 2**-exponent, so no product leaves float32."""
    Ks, n = grams.values, grams.values.shape[1]
    # Features ignore a constant added to a Gram, and float32 does not: a flat RBF Gram is near 1.
    Ks = Ks - Ks[:, :1, 1:2]
    # The diagonal, which may be far larger, does not count where it is left out.
    skipped = jnp.eye(n, dtype=bool)[None] & measure.skips_diagonal
    largest = jnp.max(jnp.where(skipped, 0, jnp.abs(Ks)), axis=(1, 2))
    _, exponents = jnp.frexp(largest)
    divided = jnp.ldexp(Ks, -exponents[:, None, None])
    return jax.vmap(measure.features)(divided).reshape(len(Ks), -1), exponents + grams.exponents


def _products(F: Float32[Array, "r k"], G: Float32[Array, "c k"]) -> Float32[Array, "r c"]:
    return jnp.matmul(F, G.T, precision=jax.lax.Precision.HIGHEST)
