"""The bodies of Dask tasks on whole sets: tiles of the Gram of all examples."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

import store
from allcnn.compare.tasks import COMPUTING, Operand, Wanted, always, check
from allcnn.similarity import gram as kernels
from allcnn.similarity import median_distance, tiled_hsic
from allcnn.similarity.derived import is_defined, tile_kernel
from allcnn.similarity.kernels import BaseKernel
from allcnn.similarity.method import Method, Pool
from allcnn.similarity.tiled_hsic import TileSums
from store import Representation, RepresentationKey
from store.model.schema import Span

Block = tuple[int | None, Span]
"""Consecutive rows among all examples (None), or among those of a class."""


class Tile(NamedTuple):
    """A tile of the Gram of all examples, or of those of a class; rows are counted among these."""

    label: int | None
    first: Span
    second: Span

    @property
    def blocks(self) -> tuple[Block, Block]:
        """The rows of its two sides."""
        return (self.label, self.first), (self.label, self.second)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows of its two sides."""
        return self.first[1] - self.first[0], self.second[1] - self.second[0]


def median_of_sample(
    path: str, key: RepresentationKey, pool: Pool, *, wanted: Wanted = always
) -> float:
    """Return the median distance of all pairs of examples that are drawn from the whole set."""
    tap = store.open(path)[key]
    rows = median_distance.sample_rows(tap.meta.n_samples)

    def read(start: int, stop: int) -> kernels.Rows:
        check(wanted)
        (some,) = _scattered(tap, [rows[start:stop]])
        return kernels.pooled(some, pool)

    with COMPUTING:
        common = _reference(path, key, tap.meta.checkpoint_digest, "linear", pool)
        return median_distance.median_of_rows(read, len(rows), common)


def tile_sums(
    path: str,
    rows: Sequence[Operand[RepresentationKey]],
    columns: Sequence[Operand[RepresentationKey]] | None,
    tiles: Sequence[Tile],
    methods: tuple[Method, ...],
    *,
    wanted: Wanted = always,
) -> list[list[TileSums]]:
    """Return what some tiles of whole Grams add, for each tile and each method.

    The rows of one tap that these tiles need are held, read once, and the tiles of all taps. All
    tiles of one Gram are shifted by the same row, near the mean of its first examples.
    """
    opened = store.open(path)
    Ks = [_tap_tiles(opened, operand, tiles, methods, wanted) for operand in rows]
    Ls = None
    if columns is not None:
        Ls = [_tap_tiles(opened, operand, tiles, methods, wanted) for operand in columns]
    with COMPUTING:
        return [
            [
                tiled_hsic.tile_sums(
                    np.stack([K[t][b] for K in Ks]),
                    None if Ls is None else np.stack([L[t][b] for L in Ls]),
                    on_diagonal=tile.first == tile.second,
                )
                for b in range(len(methods))
            ]
            for t, tile in enumerate(tiles)
        ]


def _tap_tiles(
    opened: store.Store,
    operand: Operand[RepresentationKey],
    tiles: Sequence[Tile],
    methods: tuple[Method, ...],
    wanted: Wanted,
) -> list[list[Float[np.ndarray, "a b"]]]:
    """Return the tiles of one tap, each for all methods."""
    check(wanted)
    (key, median), some = operand, methods[0]
    if not is_defined(some.kernel, median):
        return [[np.zeros(tile.shape)] * len(methods) for tile in tiles]
    tap, base = opened[key], some.kernel.base
    whole = _reference(str(opened.path), key, tap.meta.checkpoint_digest, base, some.pool)
    blocks = _blocks(tap, tiles)
    with COMPUTING:
        pooled = {name: kernels.pooled(X, some.pool) for name, X in blocks.items()}
        found = []
        for tile in tiles:
            common = whole
            if tile.label is not None:
                common = _class_reference(tap, tile.label, pooled, base, some.pool, whole.unit)
            A, B = (pooled[block] for block in tile.blocks)
            values = kernels.cross_gram(A, B, common, base)
            found.append([tile_kernel(values, each.kernel, median, common) for each in methods])
        return found


@functools.lru_cache(maxsize=32)
def _reference(
    path: str, key: RepresentationKey, digest: str, base: BaseKernel, pool: Pool
) -> kernels.Reference:
    """Return what all tiles have in common; it would otherwise be computed for each of them."""
    tap = store.open(path)[key]
    n = tap.meta.n_samples
    first = kernels.pooled(tap.read(0, min(median_distance.BLOCK_ROWS, n)), pool)
    found = kernels.reference(first, base)
    if found.usual == 0 and n > len(first):
        # All alike, as dead rows are, which says nothing of the size of others.
        sample = median_distance.sample_rows(n)
        (some,) = _scattered(tap, [sample[:: -(-len(sample) // median_distance.BLOCK_ROWS)]])
        found = kernels.reference(kernels.pooled(some, pool), base)
    return found


def _class_reference(
    tap: Representation,
    label: int,
    held: dict[Block, kernels.Rows],
    base: BaseKernel,
    pool: Pool,
    unit: int,
) -> kernels.Reference:
    """Return what the tiles of a class have in common, from rows that are held if they are.

    Its own: a class may lie so far from the others that, seen from there, its examples seem alike.
    """
    rows = np.flatnonzero(tap.labels == label)[: median_distance.BLOCK_ROWS]
    for (of, (start, _)), some in held.items():
        if (of, start) == (label, 0) and len(some) >= len(rows):
            return kernels.reference(some[: len(rows)], base, unit)
    (first,) = _scattered(tap, [rows])
    return kernels.reference(kernels.pooled(first, pool), base, unit)


def _blocks(tap: Representation, tiles: Sequence[Tile]) -> dict[Block, np.ndarray]:
    """Read the rows of the tiles' sides; those of classes, which lie scattered, in one pass."""
    wanted = dict.fromkeys(block for tile in tiles for block in tile.blocks)
    whole = {block: tap.read(*block[1]) for block in wanted if block[0] is None}
    rows = {
        block: np.flatnonzero(tap.labels == block[0])[slice(*block[1])]
        for block in wanted
        if block[0] is not None
    }
    return whole | dict(zip(rows, _scattered(tap, [*rows.values()]), strict=True))


def _scattered(tap: Representation, rows: Sequence[Int[np.ndarray, "k"]]) -> list[np.ndarray]:
    """Return chosen rows, reading each chunk that has any of them once."""
    found = [np.empty((len(chosen), *tap.meta.shape), tap.meta.dtype) for chosen in rows]
    for start in range(0, tap.meta.n_samples, tap.meta.batch_rows):
        stop = min(start + tap.meta.batch_rows, tap.meta.n_samples)
        inside = [(start <= chosen) & (chosen < stop) for chosen in rows]
        if any(mask.any() for mask in inside):
            chunk = tap.read(start, stop)
            for values, chosen, mask in zip(found, rows, inside, strict=True):
                values[mask] = chunk[chosen[mask] - start]
    return found
