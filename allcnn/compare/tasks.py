"""The bodies of Dask tasks: each opens the stores itself, and returns sums or nothing.

Names and numbers go in; one minibatch of one tap, or the Grams of one minibatch, are in memory.
"""

import functools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int

import store
from allcnn.compare import gram_medians
from allcnn.compare.gram_medians import keep_median_distance
from allcnn.config import Kernel, Pool
from allcnn.provenance import stamp
from allcnn.similarity import gram as kernels
from allcnn.similarity import hsic, median_distance, tiled_hsic
from allcnn.similarity.hsic import Estimator, HsicParts, HsicSums, Scaled
from allcnn.similarity.tiled_hsic import TileSums
from store import (
    ClaimedError,
    GramKey,
    GramMeta,
    Grams,
    GramWriter,
    Representation,
    RepresentationKey,
)

Span = tuple[int, int]

Packed = Float[np.ndarray, "t"]
Squares = Float[np.ndarray, "m n n"] | list[Float[np.ndarray, "n n"]]

Sigmas = Float64[np.ndarray, "m"] | None
"""RBF bandwidths, one a representation; None for other kernels."""

Wanted = Callable[[], bool]
"""Says whether anybody still waits for what a task returns or keeps."""

_POLL_S = 0.25
_PATIENCE_S = 3600.0
"""How long a comparison waits for Grams that another one computes."""

# One compute thread a process: the other threads read meanwhile.
_COMPUTING = threading.Lock()


class UnwantedError(Exception):
    """Nobody waits for this task any more; what it kept so far is whole."""


def always() -> bool:
    """Return that somebody waits, as for a task that nobody can cancel."""
    return True


def _check(wanted: Wanted) -> None:
    """End a task that was cancelled; asked between minibatches, so that nothing is left half."""
    if not wanted():
        raise UnwantedError


class Operand(NamedTuple):
    """A representation by its Grams, and its RBF bandwidth's unit.

    ``median`` is the median distance, None for kernels without a bandwidth; 0 and NaN stand for a
    representation whose distances define none.
    """

    gram: GramKey
    median: float | None

    @property
    def defined(self) -> bool:
        """Whether the kernel has what it needs."""
        return self.median is None or 0 < self.median < np.inf


TileOperand = tuple[RepresentationKey, float | None]
"""A representation by its activations, and its median distance, as in `Operand`."""


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


class Way(NamedTuple):
    """How pairs are computed from Grams: a result for each bandwidth and each class.

    Attributes:
        estimator: unbiased or biased.
        bandwidths: fractions of the median distance; None for a kernel without one.
        labels: classes compared one by one; None for all examples together.
        permutations: how often the columns' examples are shuffled within the minibatch.
    """

    estimator: Estimator
    bandwidths: tuple[float | None, ...]
    labels: tuple[int, ...] | None
    permutations: int


class Part(NamedTuple):
    """What some minibatches add to one result.

    Attributes:
        sums: HSIC sums of each minibatch.
        shuffled: n·HSIC with shuffled columns, summed over the minibatches.
        n_skipped: minibatches with fewer than 4 examples of the class.
    """

    sums: HsicParts
    shuffled: Float64[np.ndarray, "p r c"]
    n_skipped: int


def keep_grams(activations: str, grams: str, key: GramKey, *, wanted: Wanted = always) -> None:
    """Compute a representation's Grams from its activations and keep them, one task a writer.

    Resumes after the last minibatch that is kept.
    Raises DamagedChunkError for rows that are not those that were written.
    """
    tap = store.open(activations)[key.of]
    with _patient(lambda: _gram_writer(grams, tap, key), wanted) as writer:
        ranges = writer.meta.ranges[writer.n_committed :]
        for spans in _whole_chunks(ranges, tap.meta.batch_rows):
            for K in _minibatch_grams(tap, key, spans, writer.unit):
                _check(wanted)
                writer.append(*K)
        keep_median_distance(writer)


def _gram_writer(grams: str, tap: Representation, key: GramKey) -> GramWriter:
    """Open the place of a representation's Grams for writing."""
    meta = GramMeta(
        key=key,
        sample_set=tap.meta.sample_set,
        tap_index=tap.meta.tap_index,
        ranges=tuple(hsic.split_minibatches(tap.meta.n_samples, key.batch_size)),
        attributes=tap.meta.attributes,
        n_taps=tap.meta.n_taps,
        **stamp(),
    )
    return GramWriter.open(grams, meta, tap.samples, tap.labels, source=tap.rows_digest)


def _patient(open_writer: Callable[[], GramWriter], wanted: Wanted) -> GramWriter:
    """Open a writer, waiting for another process that computes the same Grams."""
    waited_s = 0.0
    while True:
        try:
            return open_writer()
        except ClaimedError:
            if waited_s >= _PATIENCE_S:
                raise
        _check(wanted)
        time.sleep(_POLL_S)
        waited_s += _POLL_S


def _whole_chunks(ranges: Sequence[Span], chunk_rows: int) -> Iterator[list[Span]]:
    """Group minibatches that are read together, so that small ones do not reread their chunk."""
    group: list[Span] = []
    for span in ranges:
        group.append(span)
        if group[-1][1] - group[0][0] >= chunk_rows:
            yield group
            group = []
    if group:
        yield group


def _minibatch_grams(
    tap: Representation, key: GramKey, spans: list[Span], unit: int | None
) -> list[kernels.Gram]:
    # A function of its own, so that these rows are gone before the next ones are read.
    first = spans[0][0]
    rows = tap.read(first, spans[-1][1])
    grams: list[kernels.Gram] = []
    with _COMPUTING:
        X = kernels.pooled(rows, key.pool)
        for start, stop in spans:
            grams.append(kernels.gram(X[start - first : stop - first], key.kernel, unit))
            unit = grams[-1].unit
    return grams


def median_of_grams(path: str, key: GramKey, *, wanted: Wanted = always) -> float:
    """Return the median distance of all pairs of examples within minibatches."""
    _check(wanted)
    return gram_medians.median_distance(store.open_grams(path)[key])


def median_of_sample(
    path: str, key: RepresentationKey, pool: Pool, *, wanted: Wanted = always
) -> float:
    """Return the median distance of all pairs of examples that are drawn from the whole set."""
    tap = store.open(path)[key]
    rows = median_distance.sample_rows(tap.meta.n_samples)

    def read(start: int, stop: int) -> kernels.Rows:
        _check(wanted)
        block: Block = None, (start, stop)
        return kernels.pooled(_scattered(tap, {block: rows[start:stop]})[block], pool)

    with _COMPUTING:
        common = _reference(path, key, tap.meta.checkpoint_digest, "linear", pool)
        return median_distance.median_of_rows(read, len(rows), common)


def pair_parts(
    path: str,
    rows: Sequence[Operand],
    columns: Sequence[Operand] | None,
    minibatches: Span,
    way: Way,
    *,
    wanted: Wanted = always,
) -> list[Part]:
    """Return what a range of minibatches adds to each result, by bandwidths, then by classes.

    ``columns`` None compares the rows with themselves. All pairs come from one matrix product a
    minibatch.
    """
    opened = store.open_grams(path)
    lists = [_read(opened, rows, minibatches)]
    if columns is not None:
        lists.append(_read(opened, columns, minibatches))
    some = opened[rows[0].gram]
    labels = some.labels if way.labels is not None else None
    shape = (len(rows), len(rows if columns is None else columns))
    collected = [_Collected(way, shape) for _ in way.bandwidths for _ in way.labels or (None,)]
    for k, index in enumerate(range(*minibatches)):
        _check(wanted)
        start, stop = some.meta.ranges[index]
        with _COMPUTING:
            Ks = [_unpacked([packed[k] for packed in side]) for side in lists]
            groups = None if labels is None else _groups(labels[start:stop], way)
            _add_minibatch(collected, Ks, [rows, columns or rows], groups, index, way)
    return [each.part() for each in collected]


class _Collected:
    """The sums of one result, minibatch after minibatch."""

    def __init__(self, way: Way, shape: tuple[int, int]) -> None:
        self.sums: list[HsicSums] = []
        self.shuffled = np.zeros((way.permutations, *shape))
        self.n_skipped = 0
        self._shape = shape

    def part(self) -> Part:
        sums = HsicParts.stack(self.sums) if self.sums else _no_parts(*self._shape)
        return Part(sums, self.shuffled, self.n_skipped)


def _no_parts(r: int, c: int) -> HsicParts:
    return HsicParts(np.zeros((0, r, c)), np.zeros((0, r)), np.zeros((0, c)), np.zeros(0, np.int64))


def _read(
    opened: store.GramStore, operands: Sequence[Operand], minibatches: Span
) -> list[list[Packed]]:
    return [_packed(opened[operand.gram], operand, minibatches) for operand in operands]


def _packed(grams: Grams, operand: Operand, minibatches: Span) -> list[Packed]:
    packed = grams.read(*minibatches)
    # All rows alike, or not finite: the Gram stays constant, and CKA says why it is NaN.
    return packed if operand.defined else [np.zeros_like(one) for one in packed]


def _unpacked(packed: list[Packed]) -> Squares:
    if all(each.dtype == np.float32 for each in packed):
        return store.unpack(np.stack(packed))
    return [store.unpack(each) for each in packed]


def _groups(labels: Int[np.ndarray, "n"], way: Way) -> list[Int[np.ndarray, "k"] | None]:
    """Return the rows of each class, None where they are too few."""
    least = hsic.MIN_ROWS["unbiased"]
    found = [np.flatnonzero(labels == label) for label in way.labels or ()]
    return [rows if len(rows) >= least else None for rows in found]


def _add_minibatch(
    collected: list[_Collected],
    Ks: list[Squares],
    operands: list[Sequence[Operand]],
    groups: list[Int[np.ndarray, "k"] | None] | None,
    index: int,
    way: Way,
) -> None:
    """Add one minibatch to the results, which are in the order of bandwidths, then of classes."""
    per_bandwidth = len(collected) // len(way.bandwidths)
    for b, fraction in enumerate(way.bandwidths):
        mine = collected[b * per_bandwidth : (b + 1) * per_bandwidth]
        sigmas = [_sigmas(side, fraction) for side in operands]
        if groups is not None:
            _add_groups(mine, Ks, sigmas, groups, way)
            continue
        sides = [_kernel_of(K, s, way) for K, s in zip(Ks, sigmas, strict=False)]
        first, second = sides[0], sides[1] if len(sides) > 1 else None
        mine[0].sums.append(hsic.minibatch_hsic(first, second, way.estimator))
        if way.permutations:
            shuffles = _permutations(index, first.values.shape[1], way.permutations)
            mine[0].shuffled += hsic.permuted_hsic(first, second, shuffles, way.estimator)


def _add_groups(
    mine: list[_Collected],
    Ks: list[Squares],
    sigmas: list[Sigmas],
    groups: list[Int[np.ndarray, "k"] | None],
    way: Way,
) -> None:
    for each, rows in zip(mine, groups, strict=True):
        if rows is None:
            each.n_skipped += 1
            continue
        # Before the kernel and the mean: other examples may lie so far away that these seem alike.
        sides = [[K[np.ix_(rows, rows)] for K in side] for side in Ks]
        sides = [_wide_kernel_of(side, s, way) for side, s in zip(sides, sigmas, strict=False)]
        second = sides[1] if len(sides) > 1 else None
        each.sums.append(hsic.group_hsic(sides[0], second, way.estimator))


def _sigmas(operands: Sequence[Operand], fraction: float | None) -> Sigmas:
    if fraction is None:
        return None
    # A bandwidth that is not defined belongs to a Gram of zeros, which stays constant.
    return np.array([fraction * (o.median or 1.0) if o.defined else 1.0 for o in operands])


def _kernel_of(Ks: Squares, sigmas: Sigmas, way: Way) -> Scaled:
    if sigmas is None:
        return hsic.scaled(Ks, way.estimator)
    return kernels.rbf(Ks, sigmas, way.estimator)


def _wide_kernel_of(
    Ks: list[Float[np.ndarray, "g g"]], sigmas: Sigmas, way: Way
) -> list[Float[np.ndarray, "g g"]]:
    if sigmas is None:
        return Ks
    return [kernels.wide_rbf(K, s, way.estimator) for K, s in zip(Ks, sigmas, strict=True)]


def _permutations(index: int, n: int, count: int) -> Int[np.ndarray, "p n"]:
    """Draw the same shuffles of a minibatch for whichever block of representations."""
    rng = np.random.default_rng([0, index])
    return np.stack([rng.permutation(n) for _ in range(count)])


def tile_sums(
    path: str,
    rows: Sequence[TileOperand],
    columns: Sequence[TileOperand] | None,
    tiles: Sequence[Tile],
    kernel: Kernel,
    pool: Pool,
    bandwidths: tuple[float | None, ...],
    *,
    wanted: Wanted = always,
) -> list[list[TileSums]]:
    """Return what some tiles of whole Grams add, for each tile and each bandwidth.

    The rows of one tap that these tiles need are held, read once, and the tiles of all taps. All
    tiles of one Gram are shifted by the same row, near the mean of its first examples.
    """
    opened, how = store.open(path), (tiles, kernel, pool, bandwidths)
    Ks = [_tap_tiles(opened, operand, *how, wanted) for operand in rows]
    Ls = None
    if columns is not None:
        Ls = [_tap_tiles(opened, operand, *how, wanted) for operand in columns]
    with _COMPUTING:
        return [
            [
                tiled_hsic.tile_sums(
                    np.stack([K[t][b] for K in Ks]),
                    None if Ls is None else np.stack([L[t][b] for L in Ls]),
                    on_diagonal=tile.first == tile.second,
                )
                for b in range(len(bandwidths))
            ]
            for t, tile in enumerate(tiles)
        ]


def _tap_tiles(
    opened: store.Store,
    operand: TileOperand,
    tiles: Sequence[Tile],
    kernel: Kernel,
    pool: Pool,
    bandwidths: tuple[float | None, ...],
    wanted: Wanted,
) -> list[Float[np.ndarray, "s a b"]]:
    """Return the tiles of one tap, each for all bandwidths."""
    _check(wanted)
    key, median = operand
    if median is not None and not 0 < median < np.inf:
        return [np.zeros((len(bandwidths), *tile.shape)) for tile in tiles]
    tap = opened[key]
    base: kernels.BaseKernel = "cosine" if kernel == "cosine" else "linear"
    whole = _reference(str(opened.path), key, tap.meta.checkpoint_digest, base, pool)
    blocks = _blocks(tap, tiles)
    with _COMPUTING:
        pooled = {name: kernels.pooled(X, pool) for name, X in blocks.items()}
        found = []
        for tile in tiles:
            common = whole
            if tile.label is not None:
                common = _class_reference(tap, tile.label, pooled, base, pool, whole.unit)
            A, B = (pooled[block] for block in tile.blocks)
            values = kernels.cross_gram(A, B, common, base)
            if median is None:
                found.append(values.values[None])
            else:
                sigmas = [(fraction or 1.0) * median for fraction in bandwidths]
                found.append(kernels.tile_rbf(values, sigmas, common))
        return found


@functools.lru_cache(maxsize=32)
def _reference(
    path: str, key: RepresentationKey, digest: str, base: kernels.BaseKernel, pool: Pool
) -> kernels.Reference:
    """Return what all tiles have in common; it would otherwise be computed for each of them."""
    tap = store.open(path)[key]
    n = tap.meta.n_samples
    first = kernels.pooled(tap.read(0, min(median_distance.BLOCK_ROWS, n)), pool)
    found = kernels.reference(first, base)
    if found.usual == 0 and n > len(first):
        # All alike, as dead rows are, which says nothing of the size of others.
        sample = median_distance.sample_rows(n)
        block: Block = None, (0, n)
        rows = {block: sample[:: -(-len(sample) // median_distance.BLOCK_ROWS)]}
        found = kernels.reference(kernels.pooled(_scattered(tap, rows)[block], pool), base)
    return found


def _class_reference(
    tap: Representation,
    label: int,
    held: dict[Block, kernels.Rows],
    base: kernels.BaseKernel,
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
    block: Block = label, (0, len(rows))
    first = kernels.pooled(_scattered(tap, {block: rows})[block], pool)
    return kernels.reference(first, base, unit)


def _blocks(tap: Representation, tiles: Sequence[Tile]) -> dict[Block, np.ndarray]:
    """Read the rows of the tiles' sides; those of classes, which lie scattered, in one pass."""
    wanted = dict.fromkeys(block for tile in tiles for block in tile.blocks)
    whole = {block: tap.read(*block[1]) for block in wanted if block[0] is None}
    rows = {
        block: np.flatnonzero(tap.labels == block[0])[slice(*block[1])]
        for block in wanted
        if block[0] is not None
    }
    return whole | (_scattered(tap, rows) if rows else {})


def _scattered(
    tap: Representation, rows: dict[Block, Int[np.ndarray, "k"]]
) -> dict[Block, np.ndarray]:
    """Return chosen rows, reading each chunk that has any of them once."""
    found = {
        block: np.empty((len(chosen), *tap.meta.shape), tap.meta.dtype)
        for block, chosen in rows.items()
    }
    for start in range(0, tap.meta.n_samples, tap.meta.batch_rows):
        stop = min(start + tap.meta.batch_rows, tap.meta.n_samples)
        inside = {block: (start <= chosen) & (chosen < stop) for block, chosen in rows.items()}
        if any(mask.any() for mask in inside.values()):
            chunk = tap.read(start, stop)
            for block, mask in inside.items():
                found[block][mask] = chunk[rows[block][mask] - start]
    return found
