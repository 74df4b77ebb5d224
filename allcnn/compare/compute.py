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
from allcnn.compare.tasks import Operand, Part, Way
from allcnn.compare.tile_tasks import Tile
from allcnn.definitions.bounds import MINIBATCH
from allcnn.errors import ComparisonError
from allcnn.machine_memory import check_room
from allcnn.progress import Report, silent
from allcnn.settings.comparison import Comparison
from allcnn.similarity import tiled_hsic
from allcnn.similarity.pair_sums import MinibatchSums
from allcnn.workspace.paths import Snapshot, Workspace
from store import GramKey, RepresentationKey, SimilarityResult
from store.model.examples import NO_LABEL
from store.model.schema import Span
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
    counts = _count_examples(workspace, job, rows[0])
    wanted = slots(job, counts, rows, columns)
    known = known_results(workspace.similarity, wanted, (rows, columns))
    if known is not None:
        report(1, 1, f"{job.rows} with {job.columns}: already computed")
        return known
    _check_fits(job, rows, columns, len(wanted))
    check_writable(workspace.similarity, "similarity")
    with Cluster() if cluster is None else nullcontext(cluster) as workers:
        workers.check_sees(workspace.root)
        results = _Work(workers, workspace, job, (rows, columns), counts, report).results(wanted)
    for result in results:
        store.write_result(workspace.similarity, result)
    return results


def _check_fits(job: Comparison, rows: list[Source], columns: list[Source], n: int) -> None:
    """Raise ComparisonError where the sums of all minibatches would not fit this machine."""
    if job.method.is_whole:
        return
    n_minibatches = max(1, rows[0].meta.n_samples // job.method.batch_size)
    layers = _COPIES * n_minibatches + job.permutations
    needed = 8 * n * layers * len(rows) * len(columns)
    pairs = f"{len(rows)} x {len(columns)} representations, {job.rows} with {job.columns},"
    what = f"summing {pairs} over {n_minibatches} minibatches"
    advice = "narrow the patterns, or use larger minibatches"
    check_room(what, needed, advice, error=ComparisonError)


def _count_examples(workspace: Workspace, job: Comparison, source: Source) -> dict[int | None, int]:
    """Return the examples of each class that is compared, or of all of them together (None).

    Raises ComparisonError for a class that is absent, or too small for the method.
    """
    if job.label is None:
        return {None: source.meta.n_samples}
    name = source.key.sample_set
    if source.row_bytes:
        stored = store.open(workspace.activations)[source.key].labels
    else:
        stored = store.open_grams(workspace.grams)[source.gram_key(job)].labels
    numbers = zip(*np.unique(stored, return_counts=True), strict=True)
    there: dict[int | None, int] = {int(label): int(n) for label, n in numbers}
    if [*there] == [NO_LABEL]:
        raise ComparisonError(
            f"the examples of {name} have no labels",
            remedy="store them with labels, or compare all of them together",
        )
    if job.label != "each" and job.label not in there:
        raise ComparisonError(
            f"no example of {name} has label {job.label}",
            remedy=f"its labels are {', '.join(map(str, there))}",
        )
    counts = {label: n for label, n in there.items() if job.label in ("each", label)}
    for label, n in counts.items():
        if job.method.is_whole and n < MINIBATCH.least:
            raise ComparisonError(
                f"{name} has {n} examples of label {label}",
                remedy="HSIC needs 4 or more: extract more samples, or name another label",
            )
    return counts


@dataclass
class _Work:
    """One comparison under way."""

    cluster: Cluster
    workspace: Snapshot
    job: Comparison
    sides: Sides
    counts: dict[int | None, int]
    report: Report

    def results(self, wanted: list[Slot]) -> list[SimilarityResult]:
        """Sum over blocks of pairs and minibatches of Grams, or over tiles of whole Grams."""
        if not self.job.method.is_whole:
            self._keep_missing()
        rows, columns = (self._operands(side) for side in self.sides)
        sums_of = self._tiles if self.job.method.is_whole else self._pairs
        parts = sums_of(rows, None if rows == columns else columns)
        medians = [[operand.median for operand in side] for side in (rows, columns)]
        return [
            result_of(slot, self.job, self.sides, medians, part)
            for slot, part in zip(wanted, parts, strict=True)
        ]

    def _keep_missing(self) -> None:
        missing = dict.fromkeys(s for side in self.sides for s in side if not s.kept)
        # The largest first, so that no worker is left with them at the end.
        ordered = sorted(missing, key=lambda s: -s.row_bytes)
        paths = str(self.workspace.activations), str(self.workspace.grams)
        calls = [(*paths, source.gram_key(self.job)) for source in ordered]
        self._gather(tasks.keep_grams, calls, "Grams")
        self.workspace.forget({source.network for source in missing})

    def _operands(self, side: list[Source]) -> list[Operand[Any]]:
        """Return what tasks read, with the median distances that the kernels need."""
        job, what = self.job, "bandwidths"
        keys: list[Any] = [s.key if job.method.is_whole else s.gram_key(job) for s in side]
        medians: dict[Any, float | None] = dict.fromkeys(keys)
        if job.method.kernel.uses_median and job.method.is_whole:
            path = str(self.workspace.activations)
            whole = [(path, key, job.method.pool) for key in keys]
            medians |= zip(
                keys, self._gather(tile_tasks.median_of_sample, whole, what), strict=True
            )
        elif job.method.kernel.uses_median:
            kept = store.open_grams(self.workspace.grams)
            medians = {key: kept[key].median_distance for key in keys}
            # Not kept beside Grams of earlier versions, nor where a kill came before it.
            missing = [key for key, median in medians.items() if median is None]
            calls = [(str(self.workspace.grams), key) for key in missing]
            medians |= zip(missing, self._gather(tasks.median_of_grams, calls, what), strict=True)
        return [Operand(*each) for each in medians.items()]

    def _pairs(
        self, rows: list[Operand[GramKey]], columns: list[Operand[GramKey]] | None
    ) -> list[Part]:
        """Return the sums of each result over all pairs, from blocks of them."""
        some = store.open_grams(self.workspace.grams)[rows[0].key]
        labels = tuple(label for label in self.counts if label is not None) or None
        way = Way(self.job.methods, labels, self.job.permutations)
        block = _block_size(max(stop - start for start, stop in some.meta.ranges))
        chunks = list(_spans(len(some.meta.ranges), some.meta.block_length))
        blocks = list(_block_pairs(len(rows), None if columns is None else len(columns), block))
        path = str(self.workspace.grams)

        def sides(i: Span, j: Span) -> tuple[Any, Any]:
            others = None if columns is None and i == j else (columns or rows)[slice(*j)]
            return rows[slice(*i)], others

        calls = [(path, *sides(i, j), chunk, way) for i, j in blocks for chunk in chunks]
        found = iter(self._gather(tasks.pair_parts, calls, "pairs"))
        pieces = {block: [next(found) for _ in chunks] for block in blocks}
        shape = len(rows), len(columns or rows)
        return [
            _all_pairs(
                shape,
                {block: [results[k] for results in some] for block, some in pieces.items()},
                symmetric=columns is None,
            )
            for k in range(len(way.methods) * len(self.counts))
        ]

    def _tiles(
        self,
        rows: list[Operand[RepresentationKey]],
        columns: list[Operand[RepresentationKey]] | None,
    ) -> list[Part]:
        """Return the sums of each result over tiles of the Grams of all examples, or of a class."""
        job = self.job
        size = _tile_rows([*self.sides[0], *self.sides[1]], len(job.methods))
        spans = {label: tiled_hsic.tile_spans(n, size) for label, n in self.counts.items()}
        tiles = [Tile(label, *span) for label, of_label in spans.items() for span in of_label]
        path = str(self.workspace.activations)
        together = _tile_groups(tiles, 2 * size)
        calls = [(path, rows, columns, group, job.methods) for group in together]
        groups = self._gather(tile_tasks.tile_sums, calls, "tiles")
        found = dict(zip(tiles, itertools.chain.from_iterable(groups), strict=True))
        parts = []
        for b, (label, n) in itertools.product(range(len(job.methods)), self.counts.items()):
            sums = [found[Tile(label, *span)][b] for span in spans[label]]
            whole = tiled_hsic.exact_hsic(n, spans[label], sums)
            parts.append(Part(MinibatchSums.stack([whole]), np.zeros((0, 0, 0)), 0))
        return parts

    def _gather(
        self, body: Callable[..., Any], calls: list[tuple[Any, ...]], what: str
    ) -> list[Any]:
        """Run tasks and return what they return, in the order of the calls."""
        what = f"{self.job.rows} with {self.job.columns}: {what}"

        def done(n_done: int, n_tasks: int) -> None:
            self.report(n_done, n_tasks, what)

        return self.cluster.gather(body, calls, what, done)


def _all_pairs(
    shape: tuple[int, int], pieces: dict[tuple[Span, Span], list[Part]], *, symmetric: bool
) -> Part:
    """Put sums together from blocks of pairs, each of which has its minibatches in their order."""
    some = next(iter(pieces.values()))
    sizes = np.concatenate([part.sums.sizes for part in some])
    (r, c), b = shape, len(sizes)
    whole = MinibatchSums(np.zeros((b, r, c)), np.zeros((b, r)), np.zeros((b, c)), sizes)
    shuffled = np.zeros((len(some[0].shuffled), r, c))
    for (i, j), parts in pieces.items():
        sums = MinibatchSums.concatenate([part.sums for part in parts])
        rows, columns = slice(*i), slice(*j)
        whole.cross[:, rows, columns] = sums.cross
        shuffled[:, rows, columns] = np.sum([part.shuffled for part in parts], axis=0)
        # Of a list with itself once: sums of a block of other pairs may differ in their last bit.
        if i == j or not symmetric:
            whole.rows[:, rows] = sums.rows
            whole.columns[:, columns] = sums.columns
        else:
            whole.cross[:, columns, rows] = np.swapaxes(sums.cross, 1, 2)
    n_skipped = sum(part.n_skipped for part in some)
    return Part(whole, _mirrored(shuffled) if symmetric else shuffled, n_skipped)


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
