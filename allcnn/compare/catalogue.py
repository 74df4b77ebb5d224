"""Stored results that answer a comparison: a result itself, or a block of a larger one.

No activations and no Grams are needed, so that figures can be drawn after those were removed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import numpy as np

import store
from allcnn.compare.candidates import find, network_of, preference
from allcnn.compare.current import is_record_current
from allcnn.compare.results import JOB, has_rows
from allcnn.errors import AllcnnError
from allcnn.settings.comparison import Comparison
from allcnn.settings.selection import Selection
from allcnn.similarity.method import Method
from allcnn.workspace.paths import Snapshot, Workspace
from store import RepresentationKey, SampleSet, SimilarityResult, StoreError
from store.records.results import RESULTS, dimensions_of, method_of
from store.storage.paths import Place, child_names
from store.storage.remote_errors import each

_SIDES: Final = ("rows", "columns")


@dataclass(frozen=True)
class StoredResult:
    """A stored result without its numbers."""

    name: str
    record: Mapping[str, Any]

    @cached_property
    def sides(self) -> tuple[list[RepresentationKey], list[RepresentationKey]]:
        """The representations that are its rows and columns."""
        rows, columns = (
            [RepresentationKey.from_text(text) for text in self.record[side]] for side in _SIDES
        )
        return rows, columns

    @cached_property
    def selections(self) -> tuple[Selection, Selection]:
        """The selections that were its rows and columns."""
        rows, columns = (Selection.parse(self.record["provenance"][JOB][side]) for side in _SIDES)
        return rows, columns

    @property
    def permutations(self) -> int:
        """How often examples were matched at random."""
        return int(self.record["provenance"][JOB].get("permutations", 0))

    @property
    def sample_set(self) -> str:
        """The name of its examples."""
        return self.sides[0][0].sample_set

    @cached_property
    def examples(self) -> SampleSet:
        """Its sample set, of which one class may be compared."""
        return SampleSet.from_json(self.record["provenance"]["sample_set"])

    @property
    def created_at(self) -> str:
        """When it was computed."""
        return str(self.record["provenance"].get("created_at", ""))

    def digest(self, network: Selection) -> str | None:
        """Return the digest of the checkpoint that it was computed from."""
        recorded = self.record["provenance"].get("checkpoint_digests") or {}
        found = (recorded.get(side, {}).get(str(network)) for side in _SIDES)
        return next(filter(None, found), None)


@dataclass(frozen=True)
class _Block:
    """The part of a stored result that a comparison asks for, perhaps with its sides exchanged."""

    of: StoredResult
    rows: list[int]
    columns: list[int]
    is_exchanged: bool

    @cached_property
    def sides(self) -> tuple[set[Selection], set[Selection]]:
        """The networks that are rows and columns of what is asked for."""
        places = zip(self.of.sides, (self.rows, self.columns), strict=True)
        first, second = ({network_of(keys[k]) for k in chosen} for keys, chosen in places)
        return (second, first) if self.is_exchanged else (first, second)

    @property
    def networks(self) -> set[Selection]:
        """The networks that it compares."""
        return set.union(*self.sides)


class Catalogue:
    """The stored results of a workspace, looked up once.

    Of results on several sample sets those of the largest answer, of test examples rather than of
    training ones, unless one is named; of those of several checkpoints under one name those of the
    one that is there now, or else the newest. A pattern stands for all networks that are stored
    now, as for a comparison; where none are, for those of the result that has most. Results of one
    class answer for that class alone.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = Snapshot.of(workspace)
        self._kept = list(_scan(workspace.similarity))
        self._last: SimilarityResult | None = None

    def results(self, job: Comparison) -> list[SimilarityResult] | None:
        """Return the stored results that a comparison asks for, one a method, or None."""
        found = [self.result(job, method) for method in job.methods]
        results = [result for result in found if result is not None]
        sets = {result.rows[0].sample_set for result in results}
        return results if len(results) == len(found) and len(sets) == 1 else None

    def result(self, job: Comparison, method: Method) -> SimilarityResult | None:
        """Return the stored result, or the block of one, that a comparison asks for."""
        fitting = [kept for kept in self._kept if _is_alike(kept, job, method)]
        blocks = [block for kept in fitting for block in _blocks(kept, job)]
        for block in sorted(blocks, key=lambda block: self._rank(block, job), reverse=True):
            if self._is_whole(block, job) and self._is_current(block):
                try:
                    return self._taken(block)
                except StoreError:
                    continue  # damaged, or gone meanwhile
        return None

    def networks(self, job: Comparison, method: Method) -> list[Selection]:
        """Return the networks of results of this kind that fit the job's columns."""
        found = {
            network_of(key): None
            for kept in self._kept
            if _is_alike(kept, job, method)
            for keys in kept.sides
            for key in keys
            if job.columns.matches(key.run, key.checkpoint, key.tap)
        }
        return list(found)

    def labels(self, job: Comparison, method: Method) -> list[int]:
        """Return the classes that a comparison is stored of."""
        found = (kept.record.get("label") for kept in self._kept)
        labels = sorted({int(label) for label in found if label is not None})
        return [k for k in labels if self.result(replace(job, label=k), method) is not None]

    def _taken(self, block: _Block) -> SimilarityResult:
        """Return what is asked for of a result; several blocks of one read it once."""
        if self._last is None or self._last.name != block.of.name:
            self._last = store.read_result(self._workspace.similarity, block.of.name)
        part = block_of(self._last, block.rows, block.columns)
        return exchanged(part) if block.is_exchanged else part

    def _rank(self, block: _Block, job: Comparison) -> tuple[Any, ...]:
        n_networks = 0 if _are_networks(job) else sum(map(len, block.sides))
        kept = block.of
        return preference(kept.examples), n_networks, kept.created_at, not block.is_exchanged

    def _is_whole(self, block: _Block, job: Comparison) -> bool:
        """Return whether each side has all networks that its pattern stands for now."""
        if _are_networks(job):
            return True
        known = {*self._workspace.stored_on(block.of.sample_set), *block.networks}
        return all(
            side.is_network or there >= {network for network in known if _fits(side, network)}
            for side, there in zip((job.rows, job.columns), block.sides, strict=True)
        )

    def _is_current(self, block: _Block) -> bool:
        return all(self._is_of_now(block.of, network) for network in block.networks)

    def _is_of_now(self, kept: StoredResult, network: Selection) -> bool:
        of = network, kept.sample_set
        taps = [each.whole for each in find(self._workspace, *of, skip=True)]
        # Which digests of checkpoints alone may not show.
        now = {tap.key.text: tap.rows_digest for tap in taps if tap is not None}
        digest, at = kept.digest(network), kept.created_at
        is_current = is_record_current(self._workspace, *of, digest, at)
        return is_current and has_rows(kept.record["provenance"], now)


def _scan(place: Place) -> Iterator[StoredResult]:
    """Yield the results that record their comparison, which those of version 0.1 do not."""
    if not store.has_store(place):
        return

    def looked_up(name: str) -> StoredResult | None:
        try:
            kept = StoredResult(name, RESULTS.read_facts(place / name) or {})
            _ = kept.sample_set, kept.selections, kept.permutations, kept.examples
            _ = kept.record["name"], method_of(kept.record)
        except (StoreError, AllcnnError, LookupError, TypeError, ValueError, AttributeError):
            return None
        return kept

    yield from filter(None, each(place, looked_up, child_names(place)))


def _is_alike(kept: StoredResult, job: Comparison, method: Method) -> bool:
    """Return whether a result was computed in the way of a comparison, whatever it compares."""
    found, wanted = method_of(kept.record), method.to_json()
    if method.is_whole:
        wanted.pop("batch_size")
    return (
        all(found.get(name) == value for name, value in wanted.items())
        and kept.record.get("label") == job.label
        and job.permutations in (0, kept.permutations)
        and job.sample_set in (None, kept.sample_set)
    )


def _blocks(kept: StoredResult, job: Comparison) -> Iterator[_Block]:
    """Yield the part of a result that a comparison asks for, as it is and exchanged."""
    selections = kept.selections
    for is_exchanged in (False, True):
        sides = (job.columns, job.rows) if is_exchanged else (job.rows, job.columns)
        rows, columns = (
            _chosen(keys, by, side)
            for keys, by, side in zip(kept.sides, selections, sides, strict=True)
        )
        # Shuffled examples are of the columns.
        if rows and columns and not (is_exchanged and job.permutations):
            yield _Block(kept, rows, columns, is_exchanged)


def _chosen(keys: Sequence[RepresentationKey], by: Selection, side: Selection) -> list[int]:
    """Return which keys a side asks for; none where there may be others that it asks for, too."""
    if by.tap not in ("*", side.tap):
        return []
    return [k for k, key in enumerate(keys) if side.matches(key.run, key.checkpoint, key.tap)]


def _are_networks(job: Comparison) -> bool:
    return job.rows.is_network and job.columns.is_network


def _fits(side: Selection, network: Selection) -> bool:
    return replace(side, tap="*").matches(network.run, network.checkpoint, "")


def block_of(
    result: SimilarityResult, rows: Sequence[int], columns: Sequence[int]
) -> SimilarityResult:
    """Return the representations of some rows and columns, with all that is known of them."""
    of_axis = {"row": list(rows), "column": list(columns)}
    if [*of_axis.values()] == [list(range(n)) for n in result.values.shape]:
        return result
    place = {(i, j): (k, m) for k, i in enumerate(rows) for m, j in enumerate(columns)}
    return result.with_arrays(
        {name: _part_of(name, each, of_axis) for name, each in result.arrays.items()},
        rows=tuple(result.rows[i] for i in rows),
        columns=tuple(result.columns[j] for j in columns),
        reasons=tuple((*place[i, j], why) for i, j, why in result.reasons if (i, j) in place),
    )


def exchanged(result: SimilarityResult) -> SimilarityResult:
    """Return a result with rows for columns: measures are the same either way.

    Its baseline is left out: there, the examples of the columns are shuffled.
    """
    arrays: dict[str, Any] = {}
    for name, values in result.arrays.items():
        both = {"row", "column"} <= set(dimensions_of(name))
        arrays[name if both else _other(name)] = np.swapaxes(values, -1, -2) if both else values
    arrays.pop("baseline", None)
    return result.with_arrays(
        arrays,
        rows=result.columns,
        columns=result.rows,
        reasons=tuple((j, i, why) for i, j, why in result.reasons),
    )


def _other(name: str) -> str:
    """Return the array of the columns for that of the rows, and the other way round."""
    if "rows" in name:
        return name.replace("rows", "columns")
    return name.replace("columns", "rows")


def _part_of(name: str, values: np.ndarray, of_axis: dict[str, list[int]]) -> np.ndarray:
    axes = zip(dimensions_of(name), values.shape, strict=True)
    chosen: np.ndarray = values[np.ix_(*(of_axis.get(axis, range(n)) for axis, n in axes))]
    return chosen
