"""Centred kernel alignment of arrays, a minibatch of their rows at a time.

With K, L the Gram matrices of a minibatch of n examples and K~, L~ the same with zeros on the
diagonal, the unbiased estimate of HSIC is

    HSIC(K, L) = [ tr(K~L~) + 1ᵀK~1 · 1ᵀL~1 / ((n-1)(n-2)) - 2/(n-2) · 1ᵀK~L~1 ] / (n(n-3))

(Song et al. 2012, eq. 5; computed as an inner product of U-centred matrices, Székely and Rizzo
2014), and, with sums over minibatches,

    CKA(X, Y) = Σ n·HSIC(K, L) / √(Σ n·HSIC(K, K) · Σ n·HSIC(L, L))

(Kornblith et al. 2019, eq. 2; Nguyen, Raghu and Kornblith 2021, eq. 3).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float32, Float64
from numpy.typing import ArrayLike

from allcnn import exact, hsic, kernels
from allcnn.alignment import align, jackknife
from allcnn.hsic import HsicParts, HsicSums
from allcnn.kernels import Pool, Rows

Kernel = Literal["linear", "rbf", "cosine"]
Estimator = Literal["unbiased", "biased", "exact"]
Grams = Float32[np.ndarray, "m a b"]
Span = tuple[int, int]
Named = Sequence[tuple[str, ArrayLike]]


class Cka(NamedTuple):
    """CKA of two arrays.

    Attributes:
        value: above 1 or below 0 where estimates near the bounds are; NaN where not defined.
        standard_error: likely too small from fewer than 8 minibatches; NaN where not defined.
    """

    value: float
    standard_error: float


class CkaMatrix(NamedTuple):
    """CKA of every one of r arrays with every one of c.

    Attributes:
        values: above 1 or below 0 where estimates near the bounds are; NaN where not defined.
        standard_errors: likely too small from fewer than 8 minibatches; NaN where not defined.
    """

    values: Float64[np.ndarray, "r c"]
    standard_errors: Float64[np.ndarray, "r c"]


def cka(
    X: ArrayLike,
    Y: ArrayLike,
    *,
    kernel: Kernel = "linear",
    sigma: float = 0.4,
    estimator: Estimator = "unbiased",
    batch_size: int = 256,
    pool: Pool = "whole",
) -> Cka:
    """Return CKA of two arrays over the same n examples, and its standard error.

    `cka_matrix` with one array on either side: see there for arguments, sources and errors.
    ``cka(X, X)`` is 1.
    """
    how = _Method(kernel, sigma, estimator, batch_size, pool)
    values, standard_errors = _compare([("X", X)], [("Y", Y)], how)
    return Cka(values.item(), standard_errors.item())


def cka_matrix(
    Xs: Sequence[ArrayLike],
    Ys: Sequence[ArrayLike] | None = None,
    *,
    kernel: Kernel = "linear",
    sigma: float = 0.4,
    estimator: Estimator = "unbiased",
    batch_size: int = 256,
    pool: Pool = "whole",
) -> CkaMatrix:
    """Return CKA of every array of ``Xs`` with every one of ``Ys``, and their standard errors.

    Minibatches are consecutive rows, so shuffle examples that are sorted. A last minibatch of
    fewer than 4 rows joins the one before. CKA is NaN for a constant array, for one with values
    that are not finite, and where the HSIC of an array with itself is estimated at 0 or less.

    Args:
        Xs: r arrays of n examples each, (n, p) or (n, h, w, c), an example flattened: NumPy, JAX or
            Dask arrays, anything that gives its rows by slicing, or what ``np.asarray`` takes.
            One minibatch of one array is converted at a time. Whole numbers count as floats.
        Ys: c arrays over the same examples in the same order; None for ``Xs`` with themselves. Of
            an array that occurs more than once, in either list, Gram matrices are computed once.
        kernel: "linear", xᵀy; "rbf", exp(-|x-y|²/(2s²)); "cosine", xᵀy / (|x| |y|).
        sigma: s as a fraction of the median distance between the first 1,024 examples of the array.
        estimator: "unbiased" as above; "biased", with tr(KHLH)/(n-1)² for HSIC (Gretton et al.
            2005, eq. 9); "exact", unbiased with all examples as one minibatch, in tiles.
        batch_size: rows of a minibatch, or of a tile. Larger tiles read the arrays fewer times.
        pool: "mean" averages an example over all its axes but the last.

    Standard errors delete one minibatch at a time (jackknife for unequal sizes, Busing, Meijer and
    van der Leeden 1999). From fewer than 8 minibatches, n below 8 times ``batch_size``, they are
    likely too small; they are NaN for "exact" and for a single minibatch.

    Raises ValueError for differing numbers of examples, for fewer than 4, for arrays without
    features or of other than real numbers, and for unknown settings.
    """
    how = _Method(kernel, sigma, estimator, batch_size, pool)
    return _compare(_named("Xs", Xs), None if Ys is None else _named("Ys", Ys), how)


class _Sliced(Protocol):
    """An array of any library, also one on disk, that gives its rows by slicing."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> Any: ...
    def __getitem__(self, rows: slice, /) -> Any: ...


class _Method(NamedTuple):
    kernel: Kernel
    sigma: float
    estimator: Estimator
    batch_size: int
    pool: Pool


@dataclass(frozen=True)
class _Operand:
    """An array by the name that its user knows, read a few rows at a time."""

    name: str
    array: _Sliced
    pool: Pool

    def read(self, start: int, stop: int) -> Rows:
        rows = self.array[start:stop]
        if not isinstance(rows, jax.Array):
            # Of one memory order: sums in another differ in their last bit.
            rows = np.asarray(rows, order="C")
        wanted = _float_dtype(self.name, rows.dtype)
        if rows.dtype != wanted:
            # By NumPy: JAX would narrow to float32 what needs float64.
            rows = np.asarray(rows).astype(wanted)
        return kernels.pooled(rows, self.pool)


class _Operands(NamedTuple):
    """The distinct arrays of a comparison, and which of them are its rows and columns.

    ``columns`` None stands for the rows. ``bandwidths`` are sigmas of the RBF kernel as distances,
    not finite or 0 where an array defines none; None for other kernels.
    """

    arrays: list[_Operand]
    rows: list[int]
    columns: list[int] | None
    bandwidths: Float32[np.ndarray, "m"] | None


def _compare(Xs: Named, Ys: Named | None, how: _Method) -> CkaMatrix:
    _check(how)
    arrays, rows, columns = _distinct(Xs, Xs if Ys is None else Ys, how.pool)
    n = _n_examples(arrays)
    spans = hsic.split_minibatches(n, how.batch_size)
    bandwidths = _bandwidths(arrays, n, how.sigma) if how.kernel == "rbf" else None
    operands = _Operands(arrays, rows, None if columns == rows else columns, bandwidths)
    base: kernels.BaseKernel = "cosine" if how.kernel == "cosine" else "linear"
    if how.estimator == "exact":
        # Arrays that are not finite give NaN, without a warning.
        with np.errstate(over="ignore", invalid="ignore"):
            values = align(_exact_sums(operands, n, how.batch_size, base)).matrix
        return CkaMatrix(values, np.full_like(values, np.nan))
    estimator: hsic.Estimator = how.estimator
    parts = HsicParts.stack(
        [
            hsic.minibatch_hsic(*_sides(_grams(operands, span, base), operands), estimator)
            for span in spans
        ]
    )
    return CkaMatrix(align(parts.total()).matrix, jackknife(parts).values)


def _grams(operands: _Operands, span: Span, base: kernels.BaseKernel) -> Grams:
    Ks = np.stack([kernels.gram(X.read(*span), base) for X in operands.arrays])
    if operands.bandwidths is None:
        return Ks
    # Where no distance scales the kernel all examples count as alike, and CKA is NaN.
    defined = _usable(operands.bandwidths)
    Ks[~defined] = 0
    return kernels.rbf(Ks, np.where(defined, operands.bandwidths, np.float32(1)))


def _exact_sums(operands: _Operands, n: int, tile_rows: int, base: kernels.BaseKernel) -> HsicSums:
    # One shift for all tiles of an array's Gram.
    references = [kernels.mean_row(X.read(0, min(tile_rows, n))) for X in operands.arrays]
    spans = exact.tile_spans(n, tile_rows)
    tiles = []
    for i, j in spans:
        Ks = _tiles(operands, references, i, j, base)
        tiles.append(exact.tile_sums(*_sides(Ks, operands), on_diagonal=i == j))
    return exact.exact_hsic(n, spans, tiles)


def _tiles(
    operands: _Operands, references: list[Rows], i: Span, j: Span, base: kernels.BaseKernel
) -> Grams:
    tiles = []
    for k, (X, reference) in enumerate(zip(operands.arrays, references, strict=True)):
        A = X.read(*i)
        B = A if i == j else X.read(*j)
        if operands.bandwidths is None:
            tiles.append(kernels.cross_gram(A, B, reference, base))
        elif _usable(operands.bandwidths[k]):
            tiles.append(kernels.cross_rbf(A, B, reference, [float(operands.bandwidths[k])])[0])
        else:
            tiles.append(np.zeros((len(A), len(B)), np.float32))
    return np.stack(tiles)


def _sides(Ks: Grams, operands: _Operands) -> tuple[Grams, Grams | None]:
    return (
        _chosen(Ks, operands.rows),
        None if operands.columns is None else _chosen(Ks, operands.columns),
    )


def _chosen(Ks: Grams, indices: list[int]) -> Grams:
    # Choosing all would copy them all.
    return Ks if indices == list(range(len(Ks))) else Ks[indices]


def _bandwidths(arrays: list[_Operand], n: int, sigma: float) -> Float32[np.ndarray, "m"]:
    first = min(n, kernels.BANDWIDTH_EXAMPLES)
    medians = [kernels.median_distance(X.read, first, kernels.BANDWIDTH_BLOCK) for X in arrays]
    return np.float32(sigma) * np.array(medians, np.float32)


def _usable(bandwidths: Float32[np.ndarray, "..."]) -> Bool[np.ndarray, "..."]:
    usable: Bool[np.ndarray, "..."] = np.isfinite(bandwidths) & (bandwidths > 0)
    return usable


def _named(name: str, arrays: Sequence[ArrayLike]) -> Named:
    return [(f"{name}[{i}]", X) for i, X in enumerate(arrays)]


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


def _sliced(name: str, X: Any) -> _Sliced:
    """Return an array as it is, and what is none as a NumPy array."""
    array: _Sliced = X if hasattr(X, "shape") and hasattr(X, "dtype") else np.asarray(X)
    shape = tuple(array.shape)
    # Written so that NaN, Dask's unknown size, fails too.
    if len(shape) < 2 or not (shape[0] >= 0 and all(size > 0 for size in shape[1:])):
        raise ValueError(
            f"{name} has shape {shape}; give a known number of examples first, then one or more"
            " features: (n, p) or (n, h, w, c)"
        )
    if isinstance(array.dtype, np.dtype):  # others are looked at once they are NumPy's
        _float_dtype(name, array.dtype)
    return array


def _n_examples(arrays: list[_Operand]) -> int:
    """Return the number of examples, which all arrays share."""
    lengths = [X.array.shape[0] for X in arrays]
    for X, length in zip(arrays, lengths, strict=True):
        if length != lengths[0]:
            raise ValueError(
                f"{arrays[0].name} has {lengths[0]} examples and {X.name} has {length}; compare"
                " arrays over the same examples"
            )
    return int(lengths[0])


def _float_dtype(name: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype in which values are shifted: one that NumPy has, and that holds them all."""
    if jnp.issubdtype(dtype, np.floating):
        # bfloat16 and narrower are no dtypes of NumPy's; those wider than float64 are narrowed.
        own = dtype.kind == "f" and dtype.itemsize >= 2
        return np.dtype(f"f{min(dtype.itemsize, 8)}" if own else np.float32)
    if dtype.kind in "biu":
        return np.promote_types(dtype, np.float32)
    raise ValueError(f"{name} holds {dtype} values; CKA needs real numbers")


def _check(how: _Method) -> None:
    choices = {"kernel": Kernel, "estimator": Estimator, "pool": Pool}
    for name, literal in choices.items():
        found, known = getattr(how, name), get_args(literal)
        if found not in known:
            raise ValueError(
                f"{name} is {found!r}; use {', '.join(map(repr, known[:-1]))} or {known[-1]!r}"
            )
    if not 0 < how.sigma < np.inf:
        raise ValueError(f"sigma is {how.sigma}; use a fraction of the median distance above 0")
