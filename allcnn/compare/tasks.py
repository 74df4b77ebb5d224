"""The bodies of Dask tasks: each opens the stores itself, and returns sums or nothing.

Names and numbers go in; one minibatch of one tap, or the Grams of one minibatch, are in memory.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float, Float64, Int

import store
from allcnn.extract.sinks import (
    gram_meta,
    keep_median_distance,
    median_distance_of,
    missing_rows,
)
from allcnn.similarity import gram as kernels
from allcnn.similarity import pair_sums
from allcnn.similarity.derived import kernel_of, wide_kernel_of
from allcnn.similarity.measures import PairSums
from allcnn.similarity.method import Method
from allcnn.similarity.pair_sums import MinibatchSums
from store import (
    ClaimedError,
    GramKey,
    GramWriter,
    Representation,
    RepresentationKey,
)
from store.model.schema import Span
from store.storage.paths import Place

Key = TypeVar("Key", GramKey, RepresentationKey)

Packed = Float[np.ndarray, "t"]
Squares = Float[np.ndarray, "m n n"] | list[Float[np.ndarray, "n n"]]

Wanted = Callable[[], bool]
"""Says whether the result of a task is still waited for."""

_POLL_S = 0.25
_PATIENCE_S = 3600.0
"""How long a comparison waits for Grams that another one computes."""

# One compute thread a process: the other threads read meanwhile.
COMPUTING = threading.Lock()


class UnwantedError(Exception):
    """The result of this task is no longer waited for; what it kept so far is whole."""


def always() -> bool:
    """Return True: a task that cannot be cancelled is always waited for."""
    return True


def check(wanted: Wanted) -> None:
    """End a task that was cancelled; asked between minibatches, so that nothing is left half."""
    if not wanted():
        raise UnwantedError


class Operand(NamedTuple, Generic[Key]):
    """A representation by its activations or its Grams, and its median distance for some kernels.

    ``median`` is None for kernels without; 0 and NaN stand for a representation whose distances
    define none.
    """

    key: Key
    median: float | None


class Way(NamedTuple):
    """How pairs are computed from Grams: a result for each method and each class.

    Attributes:
        methods: which differ in their kernel's settings alone.
        labels: classes compared one by one; None for all examples together.
        permutations: how often the columns' examples are shuffled within the minibatch.
    """

    methods: tuple[Method, ...]
    labels: tuple[int, ...] | None
    permutations: int


class Part(NamedTuple):
    """The contribution of some minibatches to one result.

    Attributes:
        sums: of each minibatch.
        shuffled: the same with shuffled columns, summed over the minibatches.
        n_skipped: minibatches with fewer than 4 examples of the class.
    """

    sums: MinibatchSums
    shuffled: Float64[np.ndarray, "p r c"]
    n_skipped: int


def keep_grams(activations: str, grams: str, key: GramKey, *, wanted: Wanted = always) -> None:
    """Compute a representation's Grams from its activations and keep them, one task a writer.

    Resumes after the last minibatch that is kept.
    Raises DamagedChunkError for rows that are not those that were written.
    """
    tap = store.open(activations)[key.of]
    with _patient(lambda: gram_writer(grams, tap, key), wanted) as writer:
        fill_grams(writer, tap, missing_rows(writer), wanted)


def fill_grams(
    writer: GramWriter, tap: Representation, ranges: Sequence[Span], wanted: Wanted = always
) -> None:
    """Compute the Grams of some minibatches, in order, from activations."""
    for spans in _whole_chunks(ranges, tap.meta.batch_rows):
        for K in _minibatch_grams(tap, writer.meta.key, spans, writer.unit):
            check(wanted)
            writer.append(*K)
    keep_median_distance(writer)


def gram_writer(
    grams: str | Place, tap: Representation, key: GramKey, afresh: int | None = None
) -> GramWriter:
    """Open the place of a representation's Grams for writing."""
    how = gram_meta(tap.meta, key), tap.samples, tap.labels
    return GramWriter.open(grams, *how, source=tap.rows_digest, afresh=afresh)


def _patient(open_writer: Callable[[], GramWriter], wanted: Wanted) -> GramWriter:
    """Open a writer, waiting for another process that computes the same Grams."""
    waited_s = 0.0
    while True:
        try:
            return open_writer()
        except ClaimedError:
            if waited_s >= _PATIENCE_S:
                raise
        check(wanted)
        time.sleep(_POLL_S)
        waited_s += _POLL_S


def _whole_chunks(ranges: Sequence[Span], chunk_rows: int) -> Iterator[list[Span]]:
    """Group minibatches that are read together, so that small ones do not reread their chunk."""
    group: list[Span] = []
    for span in ranges:
        if group and group[-1][1] != span[0]:  # a gap, where others are whole
            yield group
            group = []
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
    with COMPUTING:
        X = kernels.pooled(rows, key.pool)
        for start, stop in spans:
            grams.append(kernels.gram(X[start - first : stop - first], key.kernel, unit))
            unit = grams[-1].unit
    return grams


def median_of_grams(path: str, key: GramKey, *, wanted: Wanted = always) -> float:
    """Return the median distance of all pairs of examples within minibatches."""
    check(wanted)
    return median_distance_of(store.open_grams(path)[key])


def pair_parts(
    path: str,
    rows: Sequence[Operand[GramKey]],
    columns: Sequence[Operand[GramKey]] | None,
    minibatches: Span,
    way: Way,
    *,
    wanted: Wanted = always,
) -> list[Part]:
    """Return what a range of minibatches adds to each result, by methods, then by classes.

    ``columns`` None compares the rows with themselves. All pairs come from one matrix product a
    minibatch.
    """
    opened = store.open_grams(path)
    sides = [rows] if columns is None else [rows, columns]
    lists = [[opened[each.key].read(*minibatches) for each in side] for side in sides]
    medians = [[each.median for each in side] for side in sides]
    some = opened[rows[0].key]
    labels = some.labels if way.labels is not None else None
    shape = (len(rows), len(rows if columns is None else columns))
    collected = [_Collected(way, shape) for _ in way.methods for _ in way.labels or (None,)]
    for k, index in enumerate(range(*minibatches)):
        check(wanted)
        start, stop = some.meta.ranges[index]
        with COMPUTING:
            Ks = [_unpacked([packed[k] for packed in side]) for side in lists]
            groups = None if labels is None else _groups(labels[start:stop], way)
            _add_minibatch(collected, Ks, medians, groups, index, way)
    return [each.part() for each in collected]


class _Collected:
    """The sums of one result, minibatch after minibatch."""

    def __init__(self, way: Way, shape: tuple[int, int]) -> None:
        self.sums: list[PairSums] = []
        self.shuffled = np.zeros((way.permutations, *shape))
        self.n_skipped = 0
        self._shape = shape

    def part(self) -> Part:
        sums = MinibatchSums.stack(self.sums) if self.sums else _no_parts(*self._shape)
        return Part(sums, self.shuffled, self.n_skipped)


def _no_parts(r: int, c: int) -> MinibatchSums:
    return MinibatchSums(
        np.zeros((0, r, c)), np.zeros((0, r)), np.zeros((0, c)), np.zeros(0, np.int64)
    )


def _unpacked(packed: list[Packed]) -> Squares:
    if all(each.dtype == np.float32 for each in packed):
        return store.unpack(np.stack(packed))
    return [store.unpack(each) for each in packed]


def _groups(labels: Int[np.ndarray, "n"], way: Way) -> list[Int[np.ndarray, "k"] | None]:
    """Return the rows of each class, None where they are too few."""
    found = [np.flatnonzero(labels == label) for label in way.labels or ()]
    return [rows if len(rows) >= pair_sums.LEAST_EXAMPLES else None for rows in found]


def _add_minibatch(
    collected: list[_Collected],
    Ks: list[Squares],
    medians: list[list[float | None]],
    groups: list[Int[np.ndarray, "k"] | None] | None,
    index: int,
    way: Way,
) -> None:
    """Add one minibatch to the results, which are in the order of methods, then of classes."""
    per_method = len(collected) // len(way.methods)
    for b, method in enumerate(way.methods):
        mine = collected[b * per_method : (b + 1) * per_method]
        if groups is not None:
            _add_groups(mine, Ks, medians, groups, method)
            continue
        sides = [
            kernel_of(K, method.kernel, m, method.measure) for K, m in zip(Ks, medians, strict=True)
        ]
        first, second = sides[0], sides[1] if len(sides) > 1 else None
        mine[0].sums.append(pair_sums.minibatch_sums(first, second, method.measure))
        if way.permutations:
            n = mine[0].sums[-1].n_examples
            shuffles = _permutations(index, n, way.permutations)
            mine[0].shuffled += pair_sums.permuted_sums(first, second, shuffles, method.measure)


def _add_groups(
    mine: list[_Collected],
    Ks: list[Squares],
    medians: list[list[float | None]],
    groups: list[Int[np.ndarray, "k"] | None],
    method: Method,
) -> None:
    for each, rows in zip(mine, groups, strict=True):
        if rows is None:
            each.n_skipped += 1
            continue
        # Before the kernel and the mean: other examples may lie so far away that these seem alike.
        sides = [
            wide_kernel_of([K[np.ix_(rows, rows)] for K in side], method.kernel, m, method.measure)
            for side, m in zip(Ks, medians, strict=True)
        ]
        second = sides[1] if len(sides) > 1 else None
        each.sums.append(pair_sums.group_sums(sides[0], second, method.measure))


def _permutations(index: int, n: int, count: int) -> Int[np.ndarray, "p n"]:
    """Draw the same shuffles of a minibatch for whichever block of representations."""
    rng = np.random.default_rng([0, index])
    return np.stack([rng.permutation(n) for _ in range(count)])
