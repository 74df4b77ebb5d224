"""Centred kernel alignment of arrays, a minibatch of their rows at a time.

With K, L the Gram matrices of a minibatch of n examples and K~, L~ the same with zeros on the
diagonal, the unbiased estimate of HSIC is

    HSIC(K, L) = [ tr(K~L~) + 1ᵀK~1 · 1ᵀL~1 / ((n-1)(n-2)) - 2/(n-2) · 1ᵀK~L~1 ] / (n(n-3))

(Song et al. 2012, eq. 5; computed as an inner product of U-centred matrices, Székely and Rizzo
2014), and, with sums over minibatches,

    CKA(X, Y) = Σ n·HSIC(K, L) / √(Σ n·HSIC(K, K) · Σ n·HSIC(L, L))

(Kornblith et al. 2019, eq. 2; Nguyen, Raghu and Kornblith 2021, eq. 3).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Float64, Int64
from numpy.typing import ArrayLike

from allcnn.definitions.fields import check_known
from allcnn.similarity import gram, median_distance, pair_sums, tiled_hsic
from allcnn.similarity.derived import kernel_of, tile_kernel
from allcnn.similarity.gram import Rows
from allcnn.similarity.jackknife import jackknife
from allcnn.similarity.measures import PairSums
from allcnn.similarity.method import Method, Pool
from allcnn.similarity.pair_sums import ManyGrams, MinibatchSums, Scaled
from store.model import triangles
from store.model.array_interop import Sliced, as_floats, as_sliced, check_numeric

Span = tuple[int, int]
Named = Sequence[tuple[str, ArrayLike]]

_ON_DEVICE: Final = (np.float16, np.float32, np.float64)
"""Types of JAX arrays whose rows stay where they are."""


class Similarity(NamedTuple):
    """Similarity of every one of r arrays with every one of c; NaN where not defined."""

    values: Float64[np.ndarray, "r c"]  # may lie beyond the measure's limits if close to these
    standard_errors: Float64[np.ndarray, "r c"]  # likely too small from fewer than 8 minibatches


class CkaValue(NamedTuple):
    """CKA of two arrays; see `Similarity`."""

    value: float
    standard_error: float


def cka(X: ArrayLike, Y: ArrayLike, **how: Any) -> CkaValue:
    """Return CKA of two arrays over the same n examples, and its standard error.

    Arguments, sources and errors are those of `cka_matrix`. ``cka(X, X)`` is 1.
    """
    values, standard_errors = _compare([("X", X)], [("Y", Y)], _method(how))
    return CkaValue(values.item(), standard_errors.item())


def cka_matrix(
    Xs: Sequence[ArrayLike],
    Ys: Sequence[ArrayLike] | None = None,
    *,
    kernel: str = "linear",
    estimator: str = "unbiased",
    batch_size: int = 256,
    pool: Pool = "whole",
    **settings: Any,
) -> Similarity:
    """Return CKA of every array of ``Xs`` with every one of ``Ys``, and their standard errors.

    Minibatches are consecutive rows, so shuffle examples that are sorted. A last minibatch of
    fewer than 4 rows joins the one before. CKA is NaN for a constant array, for one with values
    that are not finite, and where the HSIC of an array with itself is estimated at 0 or less.

    Args:
        Xs: r arrays of n examples each, (n, p) or (n, h, w, c), an example flattened: NumPy, JAX,
            PyTorch or Dask arrays, anything that gives its rows by slicing, or what
            ``np.asarray`` takes. One minibatch of one array is converted at a time. Whole numbers
            count as floats.
        Ys: c arrays over the same examples in the same order; None for ``Xs`` with themselves. The
            Grams of an array that occurs more than once, in either list, are computed once.
        kernel: "linear", xᵀy; "rbf", exp(-|x-y|²/(2s²)); "cosine", xᵀy / (|x| |y|); or that of
            another package, "MODULE:OBJECT".
        settings: those of the kernel: ``sigma`` of "rbf", s as a fraction of the median distance
            between examples of the array: of all pairs at a distance above 0 within minibatches, or
            for "exact" of 1,024 examples drawn from all. Others count the zero distances of
            examples from themselves, which makes the median smaller, or take it of a whole batch.
        estimator: "unbiased" as above; "biased", with tr(KHLH)/(n-1)² for HSIC (Gretton et al.
            2005, eq. 9); "exact", unbiased with all examples as one minibatch, in tiles.
        batch_size: rows of a minibatch, or of a tile. Larger tiles read the arrays fewer times.
        pool: "mean" averages an example over all its axes but the last.

    Standard errors delete one minibatch at a time (jackknife for unequal sizes, Busing, Meijer and
    van der Leeden 1999). From fewer than 8 minibatches, n below 8 times ``batch_size``, they are
    likely too small; they are NaN for "exact" and for a single minibatch.

    Raises ValueError for differing numbers of examples, for fewer than 4, for arrays without
    features, masked, sparse, or of other than real numbers, and for unknown settings.
    """
    how = {"kernel": kernel, "estimator": estimator, "batch_size": batch_size, "pool": pool}
    return similarity_matrix(Xs, Ys, _method(how | settings))


def similarity_matrix(
    Xs: Sequence[ArrayLike], Ys: Sequence[ArrayLike] | None = None, method: Method = Method()
) -> Similarity:
    """Return the similarity of every array of ``Xs`` with every one of ``Ys`` by any method.

    Arguments and errors are those of `cka_matrix`.
    """
    Ls = None if Ys is None else [(f"Ys[{i}]", Y) for i, Y in enumerate(Ys)]
    return _compare([(f"Xs[{i}]", X) for i, X in enumerate(Xs)], Ls, method)


def _method(how: dict[str, Any]) -> Method:
    """Return CKA with some settings, all of which have an effect."""
    known = {*Method.settings(str(how.get("kernel", "")))} - {"measure"}
    check_known("CKA of arrays", how, known)
    return Method.from_json(how, given=how)


@dataclass(frozen=True)
class _Operand:
    """An array by the name that its user knows, read a few rows at a time."""

    name: str
    array: Sliced
    pool: Pool

    def read(self, start: int, stop: int) -> Rows:
        rows = self.array[start:stop]
        if not isinstance(rows, jax.Array) or rows.dtype not in _ON_DEVICE:
            # By NumPy: JAX would narrow to float32 what needs float64.
            rows = as_floats(rows, self.name)
            # In one memory order: sums in another differ in their last bit.
            rows = np.asarray(rows, f"f{min(rows.dtype.itemsize, 8)}", order="C")
        return gram.pooled(rows, self.pool)

    def read_rows(self, chosen: Int64[np.ndarray, "k"]) -> Float[np.ndarray, "k ..."]:
        """Return single rows; arrays of any library give them by slicing."""
        return np.concatenate([np.asarray(self.read(int(i), int(i) + 1)) for i in chosen])


def _compare(Xs: Named, Ys: Named | None, how: Method) -> Similarity:
    arrays, rows, columns = _distinct(Xs, Xs if Ys is None else Ys, how.pool)
    n = int(arrays[0].array.shape[0])
    for X in arrays:
        if X.array.shape[0] != n:
            raise ValueError(
                f"{arrays[0].name} has {n} examples and {X.name} has {X.array.shape[0]}; compare"
                " arrays over the same examples"
            )
    spans = pair_sums.split_minibatches(n, how.batch_size)
    others = None if columns == rows else columns
    # Arrays that are not finite give NaN, without a warning.
    with np.errstate(over="ignore", invalid="ignore"):
        if how.is_whole:
            values = how.measure.finish(_whole_sums(arrays, (rows, others), n, how))
            return Similarity(values, np.full_like(values, np.nan))
        parts = MinibatchSums.stack(
            [
                pair_sums.minibatch_sums(_chosen(Ks, rows), _chosen(Ks, others), how.measure)
                for Ks in _derived_grams(arrays, spans, how)
            ]
        )
        errors = jackknife(parts, how.measure)
        return Similarity(how.measure.finish(parts.total()), errors.values)


def _base_grams(
    arrays: list[_Operand], spans: list[Span], how: Method
) -> Iterator[list[Float[np.ndarray, "n n"]]]:
    """Yield the linear or cosine Grams of all arrays, a minibatch at a time."""
    units: list[int | None] = [None] * len(arrays)
    for span in spans:
        found = [
            gram.gram(X.read(*span), how.kernel.base, unit)
            for X, unit in zip(arrays, units, strict=True)
        ]
        units = [each.unit for each in found]
        yield [each.values for each in found]


def _derived_grams(arrays: list[_Operand], spans: list[Span], how: Method) -> Iterator[ManyGrams]:
    """Yield kernels; medians need all base Grams first, which are then held as triangles."""
    if not how.kernel.uses_median:
        for Ks in _base_grams(arrays, spans, how):
            yield kernel_of(Ks, how.kernel, [None] * len(arrays), how.measure)
        return
    packed = [[triangles.pack(K) for K in Ks] for Ks in _base_grams(arrays, spans, how)]
    medians = [median_distance.median_of_grams(own) for own in zip(*packed, strict=True)]
    for minibatch in packed:
        Ks = [triangles.unpack(K) for K in minibatch]
        yield kernel_of(Ks, how.kernel, medians, how.measure)


def _whole_sums(
    arrays: list[_Operand], sides: tuple[list[int], list[int] | None], n: int, how: Method
) -> PairSums:
    sample = median_distance.sample_rows(n)
    wholes = [_WholeSet(X, sample, how) for X in arrays]
    spans = tiled_hsic.tile_spans(n, how.batch_size)
    tiles = []
    for i, j in spans:
        Ks = np.stack([X.tile(i, j) for X in wholes])
        first, second = (_chosen(Ks, side) for side in sides)
        tiles.append(tiled_hsic.tile_sums(first, second, on_diagonal=i == j))
    return tiled_hsic.exact_hsic(n, spans, tiles)


class _WholeSet:
    """The Gram of a whole array, of which a tile is there at a time."""

    def __init__(self, X: _Operand, sample: Int64[np.ndarray, "k"], how: Method) -> None:
        self._X, self._how = X, how
        block = X.read_rows(sample[:: -(-len(sample) // median_distance.BLOCK_ROWS)])
        self._reference = gram.reference(block, how.kernel.base)
        self._median: float | None = None
        if how.kernel.uses_median:
            self._median = median_distance.median_of_rows(
                lambda start, stop: X.read_rows(sample[start:stop]), len(sample), self._reference
            )

    def tile(self, i: Span, j: Span) -> Float[np.ndarray, "a b"]:
        """Return the kernel of some rows with others."""
        A = self._X.read(*i)
        B = A if i == j else self._X.read(*j)
        tile = gram.cross_gram(A, B, self._reference, self._how.kernel.base)
        found = tile_kernel(tile, self._how.kernel, self._median, self._reference)
        return found.astype(np.float64)


def _chosen(Ks: Any, indices: list[int] | None) -> Any:
    """Return some of many Grams; None stands for none."""
    if indices is None:
        return None
    if isinstance(Ks, Scaled):
        return Scaled(*(_chosen(each, indices) for each in Ks))
    # Choosing all would copy them all.
    if indices == list(range(len(Ks))):
        return Ks
    return Ks[indices] if isinstance(Ks, np.ndarray) else [Ks[i] for i in indices]


def _distinct(Xs: Named, Ys: Named, pool: Pool) -> tuple[list[_Operand], list[int], list[int]]:
    """Return the distinct arrays, and which of them are on either side."""
    if not Xs or not Ys:
        raise ValueError("there are no arrays to compare; give one or more on either side")
    # By identity: comparing values would read them all. The lists keep their arrays alive.
    operands: dict[int, _Operand] = {}
    for name, X in [*Xs, *Ys]:
        if id(X) not in operands:
            operands[id(X)] = _Operand(name, _sliced(name, X), pool)
    index = {key: i for i, key in enumerate(operands)}
    rows, columns = ([index[id(X)] for _, X in side] for side in (Xs, Ys))
    return list(operands.values()), rows, columns


def _sliced(name: str, X: Any) -> Sliced:
    """Return an array as it is, and anything else as a NumPy array."""
    array = as_sliced(X, name)
    shape = tuple(array.shape)
    # Written so that NaN, Dask's unknown size, fails too.
    if len(shape) < 2 or not (shape[0] >= 0 and all(size > 0 for size in shape[1:])):
        raise ValueError(
            f"{name} has shape {shape}; give a known number of examples first, then one or more"
            " features: (n, p) or (n, h, w, c)"
        )
    dtype = getattr(array, "dtype", None)
    if isinstance(dtype, np.dtype):  # others are looked at once they are NumPy's
        check_numeric(name, dtype)
    return array
