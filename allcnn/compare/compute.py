"""Compute comparisons: choose, keep what is missing, sum over blocks and minibatches, write."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

import store
from allcnn.cluster.cluster import Cluster
from allcnn.compare import tasks, tile_tasks
from allcnn.compare.candidates import Sides, Source
from allcnn.compare.results import Slot, known_results, result_of, slots
from allcnn.compare.select import choose
from allcnn.compare.tasks import Operand, Part, Span, Way
from allcnn.compare.tile_tasks import Tile, TileOperand
from allcnn.errors import ComparisonError
from allcnn.machine_memory import host_bytes
from allcnn.progress import Report, silent
from allcnn.settings.comparison import Comparison
from allcnn.similarity import tiled_hsic
from allcnn.similarity.measures import PairSums
from allcnn.similarity.pair_sums import MinibatchSums
from allcnn.workspace.paths import Snapshot, Workspace
from store import SimilarityResult
from store.model.examples import NO_LABEL
from store.records.records import check_writable

_BLOCK_BYTES = 2**29
"""Gram matrices of one minibatch that a task holds, with the copies that centring makes."""

_COPIES = 2
"""Copies of the sums of each minibatch: as they arrive, and put together."""

_TILE_ROWS = 1024
_TILE_BYTES = 2**27
"""Bounds of a tile's rows, and of the activations of one tap that they stand for."""


def compare(
    workspace: Workspace,
    job: Comparison,
    report: Report = silent,
    cluster: Cluster | None = None,
) -> list[SimilarityResult]:
    """Compute CKA matrices from what is stored and keep them; known ones are read instead.

    Returns one result for each method and each class, in that order. Known is what was computed
    from the same activations (by the checkpoint's digest) in the same way. Tasks run on
    ``cluster``, or else in threads of this process. Raises ComparisonError where the two sides
    share no complete sample set, naming both, and where what is stored cannot give what is asked;
    ClusterError where workers are gone for good.
    """
    workspace = Snapshot.of(workspace)
    rows, columns = choose(workspace, job)
    labels = _labels(workspace, job, rows[0])
    wanted = slots(job, labels, rows, columns)
    known = known_results(workspace.similarity, wanted, (rows, columns))
    if known is not None:
        report(1, 1, f"{job.rows} with {job.columns}: already computed")
        return known
    _check_fits(job, rows, columns, len(wanted))
    check_writable(workspace.similarity, "similarity")
    with Cluster() if cluster is None else nullcontext(cluster) as workers:
        workers.check_sees(workspace.root)
        work = _Work(workers, workspace, job, (rows, columns), labels, report)
        results = work.whole(wanted) if job.method.is_whole else work.from_grams(wanted)
    for result in results:
        store.write_result(workspace.similarity, result)
    return results


def _check_fits(job: Comparison, rows: list[Source], columns: list[Source], n: int) -> None:
    """Raise ComparisonError where the sums of all minibatches would not fit this machine."""
    if job.method.is_whole:
        return
    n_minibatches = max(1, rows[0].sample_set.n_samples // job.method.batch_size)
    layers = _COPIES * n_minibatches + job.permutations
    needed = 8 * n * layers * len(rows) * len(columns)
    if needed > (there := host_bytes()):
        raise ComparisonError(
            f"{job.rows} with {job.columns} are {len(rows)} x {len(columns)} representations, whose"
            f" sums over {n_minibatches} minibatches would take {needed / 1e9:.0f} GB here, and"
            f" there are {there / 1e9:.0f}",
            remedy="narrow the patterns, or use larger minibatches",
        )


def _labels(workspace: Workspace, job: Comparison, source: Source) -> tuple[int, ...] | None:
    """Return the classes that are compared one by one; raises ComparisonError for an absent one."""
    if job.label is None:
        return None
    if source.row_bytes:
        stored = store.open(workspace.activations)[source.key].labels
    else:
        stored = store.open_grams(workspace.grams)[source.gram_key(job)].labels
    there = tuple(int(label) for label in np.unique(stored))
    if there == (NO_LABEL,):
        raise ComparisonError(
            f"the examples of {source.key.sample_set} have no labels",
            remedy="store them with labels, or compare all of them together",
        )
    if job.label == "each":
        return there
    if job.label not in there:
        raise ComparisonError(
            f"no example of {source.key.sample_set} has label {job.label}",
            remedy=f"its labels are {', '.join(map(str, there))}",
        )
    return (job.label,)


@dataclass
class _Work:
    """One comparison under way."""

    cluster: Cluster
    workspace: Snapshot
    job: Comparison
    sides: Sides
    labels: tuple[int, ...] | None
    report: Report

    def from_grams(self, wanted: list[Slot]) -> list[SimilarityResult]:
        """Keep the Grams that are missing, then sum over blocks of pairs and over minibatches."""
        self._keep_missing()
        rows, columns = (self._operands(side) for side in self.sides)
        parts = self._pairs(rows, None if rows == columns else columns, len(wanted))
        medians = [[operand.median for operand in side] for side in (rows, columns)]
        return [
            result_of(slot, self.job, self.sides, medians, part)
            for slot, part in zip(wanted, parts, strict=True)
        ]

    def whole(self, wanted: list[Slot]) -> list[SimilarityResult]:
        """Sum over tiles of the Gram of the whole set, or of each class."""
        counts = {label: self._n_examples(label) for label in self.labels or (None,)}
        rows, columns = (self._with_medians(side) for side in self.sides)
        medians = [[median for _, median in side] for side in (rows, columns)]
        sums = self._tiles(rows, None if rows == columns else columns, counts)
        parts = {
            slot: Part(MinibatchSums.stack([sums[slot.label][slot.index]]), np.zeros((0, 0, 0)), 0)
            for slot in wanted
        }
        return [result_of(slot, self.job, self.sides, medians, parts[slot]) for slot in wanted]

    def _keep_missing(self) -> None:
        missing = dict.fromkeys(s for side in self.sides for s in side if not s.kept)
        # The largest first, so that no worker is left with them at the end.
        ordered = sorted(missing, key=lambda s: -s.row_bytes)
        calls = [
            (
                str(self.workspace.activations),
                str(self.workspace.grams),
                source.gram_key(self.job),
            )
            for source in ordered
        ]
        self._gather(tasks.keep_grams, calls, "Grams")
        self.workspace.forget({source.network for source in missing})

    def _operands(self, side: list[Source]) -> list[Operand]:
        kept = store.open_grams(self.workspace.grams)
        keys = [source.gram_key(self.job) for source in side]
        if not self.job.method.kernel.uses_median:
            return [Operand(key, None) for key in keys]
        medians = [kept[key].median_distance for key in keys]
        # Not kept beside Grams of earlier versions, nor where a kill came before it.
        calls = [(str(self.workspace.grams), keys[i]) for i, m in enumerate(medians) if m is None]
        found = iter(self._gather(tasks.median_of_grams, calls, "bandwidths") if calls else ())
        return [
            Operand(key, next(found) if median is None else median)
            for key, median in zip(keys, medians, strict=True)
        ]

    def _pairs(
        self, rows: list[Operand], columns: list[Operand] | None, n_results: int
    ) -> list[Part]:
        some = store.open_grams(self.workspace.grams)[rows[0].gram]
        way = Way(self.job.methods, self.labels, self.job.permutations)
        block = _block_size(max(stop - start for start, stop in some.meta.ranges))
        chunks = list(_spans(len(some.meta.ranges), some.meta.block_length))
        blocks = list(_block_pairs(len(rows), None if columns is None else len(columns), block))
        calls = [
            (
                str(self.workspace.grams),
                rows[slice(*i)],
                None if columns is None and i == j else (columns or rows)[slice(*j)],
                chunk,
                way,
            )
            for i, j in blocks
            for chunk in chunks
        ]
        found = iter(self._gather(tasks.pair_parts, calls, "pairs"))
        shape = len(rows), len(columns or rows)
        wholes = [_AllPairs(shape, symmetric=columns is None) for _ in range(n_results)]
        for i, j in blocks:
            pieces = [next(found) for _ in chunks]
            for whole, parts in zip(wholes, zip(*pieces, strict=True), strict=True):
                whole.put(i, j, parts)
        return [whole.part() for whole in wholes]

    def _with_medians(self, side: list[Source]) -> list[TileOperand]:
        if not self.job.method.kernel.uses_median:
            return [(source.key, None) for source in side]
        calls = [
            (str(self.workspace.activations), source.key, self.job.method.pool) for source in side
        ]
        medians = self._gather(tile_tasks.median_of_sample, calls, "bandwidths")
        return [(source.key, median) for source, median in zip(side, medians, strict=True)]

    def _tiles(
        self,
        rows: Sequence[TileOperand],
        columns: Sequence[TileOperand] | None,
        counts: dict[int | None, int],
    ) -> dict[int | None, list[PairSums]]:
        """Return the sums of each class (None: of all examples) for each method."""
        job = self.job
        size = _tile_rows([*self.sides[0], *self.sides[1]], len(job.methods))
        spans = {label: tiled_hsic.tile_spans(n, size) for label, n in counts.items()}
        tiles = [Tile(label, *span) for label, of_label in spans.items() for span in of_label]
        path = str(self.workspace.activations)
        calls = [
            (path, rows, columns, group, job.methods) for group in _tile_groups(tiles, 2 * size)
        ]
        groups = self._gather(tile_tasks.tile_sums, calls, "tiles")
        found = dict(zip(tiles, itertools.chain.from_iterable(groups), strict=True))
        return {
            label: [
                tiled_hsic.exact_hsic(
                    counts[label], of_label, [found[Tile(label, *span)][b] for span in of_label]
                )
                for b in range(len(job.methods))
            ]
            for label, of_label in spans.items()
        }

    def _n_examples(self, label: int | None) -> int:
        source = self.sides[0][0]
        if label is None:
            return source.sample_set.n_samples
        labels = store.open(self.workspace.activations)[source.key].labels
        n = int(np.sum(labels == label))
        if n < 4:
            raise ComparisonError(
                f"{source.key.sample_set} has {n} examples of label {label}",
                remedy="HSIC needs 4 or more: extract more samples, or name another label",
            )
        return n

    def _gather(
        self, body: Callable[..., Any], calls: list[tuple[Any, ...]], what: str, **options: Any
    ) -> list[Any]:
        """Run tasks and return what they return, in the order of the calls."""
        what = f"{self.job.rows} with {self.job.columns}: {what}"

        def done(n_done: int, n_tasks: int) -> None:
            self.report(n_done, n_tasks, what)

        return self.cluster.gather(body, calls, what, done, **options)


class _AllPairs:
    """The sums of all pairs, put together from blocks of pairs and ranges of minibatches."""

    def __init__(self, shape: tuple[int, int], *, symmetric: bool) -> None:
        self._shape = shape
        self._symmetric = symmetric
        self._sums: MinibatchSums | None = None
        self._shuffled: np.ndarray | None = None
        self._n_skipped = 0

    def put(self, i: Span, j: Span, parts: Sequence[Part]) -> None:
        """Take the minibatches of one block of pairs, in their order."""
        sums = MinibatchSums.concatenate([part.sums for part in parts])
        shuffled = np.sum([part.shuffled for part in parts], axis=0)
        if self._sums is None or self._shuffled is None:
            r, c = self._shape
            b = len(sums.sizes)
            self._sums = MinibatchSums(
                np.zeros((b, r, c)), np.zeros((b, r)), np.zeros((b, c)), sums.sizes
            )
            self._shuffled = np.zeros((len(shuffled), r, c))
            self._n_skipped = sum(part.n_skipped for part in parts)
        of_rows, of_columns = slice(*i), slice(*j)
        self._sums.cross[:, of_rows, of_columns] = sums.cross
        # Of a list with itself once: sums of a block of other pairs may differ in their last bit.
        if i == j or not self._symmetric:
            self._sums.rows[:, of_rows] = sums.rows
            self._sums.columns[:, of_columns] = sums.columns
        self._shuffled[:, of_rows, of_columns] = shuffled
        if self._symmetric and i != j:
            self._sums.cross[:, of_columns, of_rows] = np.swapaxes(sums.cross, 1, 2)

    def part(self) -> Part:
        """Return the sums once every block is there."""
        assert self._sums is not None
        assert self._shuffled is not None
        shuffled = _mirrored(self._shuffled) if self._symmetric else self._shuffled
        return Part(self._sums, shuffled, self._n_skipped)


def _mirrored(shuffled: np.ndarray) -> np.ndarray:
    """Return the pairs above the diagonal below it too, whichever blocks they came from.

    Shuffling a pair's rows instead of its columns is as random a matching.
    """
    mirrored: np.ndarray = np.triu(shuffled) + np.swapaxes(np.triu(shuffled, 1), 1, 2)
    return mirrored


def _spans(n: int, size: int) -> Iterator[Span]:
    return ((start, min(start + size, n)) for start in range(0, n, size))


def _block_size(n: int) -> int:
    """Return how many representations a side a task takes, for minibatches of ``n``."""
    # Both sides, each as Grams, kernels and features.
    return max(1, _BLOCK_BYTES // (2 * 3 * 4 * n * n))


def _block_pairs(r: int, c: int | None, size: int) -> Iterator[tuple[Span, Span]]:
    """Yield blocks of pairs; of a list with itself (``c`` None) those on and above the diagonal."""
    rows = list(_spans(r, size))
    if c is None:
        return itertools.combinations_with_replacement(rows, 2)
    return itertools.product(rows, _spans(c, size))


def _tile_groups(tiles: Sequence[Tile], most_rows: int) -> list[list[Tile]]:
    """Put tiles of small classes together, which then share one pass over the chunks.

    The two sides of a tile of the whole set are ``most_rows`` at most, and so are those of a group.
    """
    groups: list[list[Tile]] = []
    room = 0
    for tile in tiles:
        n_rows = sum(tile.shape) if tile.first != tile.second else tile.shape[0]
        if not groups or tile.label is None or n_rows > room:
            groups.append([])
            room = most_rows
        groups[-1].append(tile)
        room -= n_rows
    return groups


def _tile_rows(sources: Sequence[Source], n_methods: int) -> int:
    """Return a tile's side: bounded memory for its activations and for the tiles of all taps."""
    widest = max(source.row_bytes for source in sources)
    # All tiles are held together, twice in float64.
    together = math.isqrt(_BLOCK_BYTES // (16 * n_methods * len(sources)))
    return max(4, min(_TILE_ROWS, _TILE_BYTES // widest, together))
