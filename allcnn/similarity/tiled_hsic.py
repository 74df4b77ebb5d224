"""Unbiased HSIC of a whole sample set, from tiles of Gram matrices that are never whole.

All tiles of a Gram matrix share one reference (``allcnn.similarity.gram.cross_gram``). A tile is
reduced to float64 sums: of products of entries, and of entries by row and by column.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float64

from allcnn.similarity.measures import PairSums
from allcnn.similarity.pair_sums import LEAST_EXAMPLES

Span = tuple[int, int]
Tiles = Float[np.ndarray, "m a b"]
Vector = Float64[np.ndarray, "m"]
Matrix = Float64[np.ndarray, "r c"]

_BLOCK_ENTRIES = 2**16
"""Entries of each tile that are copied to float64 at a time: half a megabyte."""

_RESOLUTION = 4 * float(np.finfo(np.float32).eps)
"""Spread of a Gram matrix, against its size, that is rounding and no signal."""


class SideSums(NamedTuple):
    """Sums over the entries of one tile of m Gram matrices, their diagonals left out."""

    squares: Vector  # of the squared entries, those of the tile's mirror image too
    margins: Float64[np.ndarray, "m n"]  # by row and, off the diagonal of the whole, then by column


class TileSums(NamedTuple):
    """The contribution of one tile to the sums over all pairs of examples."""

    cross: Matrix  # products of row matrices with column ones, over the tile and its mirror image
    rows: SideSums
    columns: SideSums | None  # None where a list is compared with itself


def tile_spans(n: int, tile_rows: int) -> list[tuple[Span, Span]]:
    """Return the tiles of the upper triangle of an n by n matrix, each as the ranges of its sides.

    A tile on the diagonal has the same range twice.
    Raises ValueError for fewer than 4 examples and for tiles of less than one row.
    """
    if n < LEAST_EXAMPLES:
        raise ValueError(f"there are {n} examples; exact HSIC needs {LEAST_EXAMPLES} or more")
    if tile_rows < 1:
        raise ValueError(f"a tile has {tile_rows} rows; use 1 or more")
    ranges = [(start, min(start + tile_rows, n)) for start in range(0, n, tile_rows)]
    return [(first, second) for i, first in enumerate(ranges) for second in ranges[i:]]


def tile_sums(Ks: Tiles, Ls: Tiles | None, on_diagonal: bool) -> TileSums:
    """Return the sums of one tile, of all pairs of r Gram matrices ``Ks`` and c others ``Ls``.

    ``Ls`` None compares ``Ks`` with themselves. On the diagonal both sides are the same examples.
    Raises ValueError for tiles of differing shapes, and for one on the diagonal that is not square.
    """
    shape, other = Ks.shape[1:], (Ks if Ls is None else Ls).shape[1:]
    if len(shape) != 2 or shape != other:
        raise ValueError(
            f"tiles of shapes {shape} and {other} cannot be compared; use the same tile of Gram"
            " matrices over the same examples"
        )
    if on_diagonal and shape[0] != shape[1]:
        raise ValueError(f"a tile on the diagonal has shape {shape}; give one with equal sides")
    # Values that are not finite make the sums so, which CKA then reports.
    with np.errstate(over="ignore", invalid="ignore"):
        cross = _products(Ks, Ks if Ls is None else Ls, on_diagonal)
        columns = None if Ls is None else _side_sums(Ls, on_diagonal)
        return TileSums(cross, _side_sums(Ks, on_diagonal), columns)


def exact_hsic(n: int, spans: Sequence[tuple[Span, Span]], tiles: Sequence[TileSums]) -> PairSums:
    """Return n·HSIC of n examples as one minibatch (Song et al. 2012, eq. 5).

    ``tiles`` are the sums of the tiles ``spans``, in the same order, which fixes the last bit. The
    HSIC of a Gram matrix with itself is 0 where float32 cannot tell it from a constant's.
    Raises ValueError where there are not as many sums as spans.
    """
    if not spans or len(spans) != len(tiles):
        raise ValueError(
            f"there are {len(spans)} tiles and the sums of {len(tiles)}; give those of each tile"
        )
    cross = np.sum([tile.cross for tile in tiles], axis=0)
    own, U = _merged(n, spans, [tile.rows for tile in tiles])
    parts = [tile.columns for tile in tiles if tile.columns is not None]
    columns, V = _merged(n, spans, parts) if parts else (own, U)
    totals = U.sum(axis=1)[:, None] * V.sum(axis=1)[None, :]
    hsic = _combined(n, cross, totals, U @ V.T)
    if not parts:
        np.fill_diagonal(hsic, own)
    return PairSums(hsic, own, columns, n)


def _side_sums(Ks: Tiles, on_diagonal: bool) -> SideSums:
    times = 1 if on_diagonal else 2
    squares, by_row, by_column = np.zeros(len(Ks)), [], np.zeros((len(Ks), Ks.shape[2]))
    for F in _blocks(Ks, on_diagonal):
        squares += times * np.vecdot(F, F).sum(axis=1)
        by_row.append(F.sum(axis=2))
        by_column += F.sum(axis=1)
    return SideSums(squares, np.hstack(by_row if on_diagonal else [*by_row, by_column]))


def _products(Ks: Tiles, Ls: Tiles, on_diagonal: bool) -> Matrix:
    total = np.zeros((len(Ks), len(Ls)))
    for F, G in zip(_blocks(Ks, on_diagonal), _blocks(Ls, on_diagonal), strict=True):
        a = F.reshape(len(F), -1)
        # NumPy calls syrk, which is exactly symmetric, for an array and its own transpose.
        b = a if Ls is Ks else G.reshape(len(G), -1)
        total += a @ b.T
    return total if on_diagonal else 2 * total


def _blocks(Ks: Tiles, on_diagonal: bool) -> Iterator[Float64[np.ndarray, "m k b"]]:
    """Yield a few rows of every tile at a time in float64, with a diagonal of zeros."""
    step = max(1, _BLOCK_ENTRIES // Ks.shape[2])
    for start in range(0, Ks.shape[1], step):
        block = Ks[:, start : start + step].astype(np.float64)
        if on_diagonal:
            rows = np.arange(block.shape[1])
            block[:, rows, start + rows] = 0
        yield block


def _merged(
    n: int, spans: Sequence[tuple[Span, Span]], parts: Sequence[SideSums]
) -> tuple[Vector, Float64[np.ndarray, "m n"]]:
    """Return n·HSIC of each Gram matrix with itself, and the sums of its rows."""
    squares = np.sum([part.squares for part in parts], axis=0)
    margins = np.zeros((len(squares), n))
    for (first, second), part in zip(spans, parts, strict=True):
        a = first[1] - first[0]
        margins[:, slice(*first)] += part.margins[:, :a]
        if second != first:
            margins[:, slice(*second)] += part.margins[:, a:]
    hsic = _combined(n, squares, margins.sum(axis=1) ** 2, np.vecdot(margins, margins))
    # The rounding of a constant would pass for a signal, and CKA for a number.
    rounding = _RESOLUTION**2 * squares / (n - 3)
    return np.where(np.abs(hsic) <= rounding, 0, hsic), margins


def _combined(n: int, products: Any, totals: Any, margins: Any) -> Any:
    """Return n·HSIC from tr(KL), 1ᵀK1·1ᵀL1 and 1ᵀKL1."""
    return (products + totals / ((n - 1) * (n - 2)) - 2 / (n - 2) * margins) / (n - 3)
