"""Earlier results of comparisons: which there are, how newer ones moved, and which can go."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from allcnn.compare.results import JOB
from allcnn.errors import ConfigError
from allcnn.maintenance.rerun_commands import recorded
from allcnn.settings.comparison import Comparison
from allcnn.workspace.paths import Workspace
from store import RepresentationKey, SimilarityResult, StoreError, has_store, read_result
from store.maintenance.remove import remove_record
from store.storage.paths import child_names, is_file

Change = Literal["new", "extended", "recomputed", "unchanged"]

_BETWEEN_DEVICES: Final = 1e-6
"""To which the same number agrees, wherever it is computed."""

_SUFFIXES: Final = ("", "-errors", "-convergence", "-baseline")
"""Suffixes of the pictures of one result."""


class KeptResult(NamedTuple):
    """A result as it is stored, without its values."""

    created_at: str
    name: str
    job: Comparison


@dataclass(frozen=True)
class Moved:
    """A matrix, and how it moved since the last nightly run.

    Attributes:
        networks: what it compares, in words.
        n_added: representations along both sides that were not there before.
        largest: of the absolute differences between values that were there and are; None where
            nothing is common, or nothing changed.
        mean: of the same.
        where: the pair that moved furthest.
        n_redefined: values that are defined now and were not, or the other way round.
        before: name of the result that was there, if it was another one.
    """

    result: str
    networks: str
    change: Change
    n_added: int = 0
    largest: float | None = None
    mean: float | None = None
    where: str = ""
    before: str = ""
    n_redefined: int = 0


def kept_results(workspace: Workspace) -> tuple[dict[str, list[KeptResult]], int]:
    """Return the results of each comparison by its identity, the oldest first.

    Also how many there are that do not record their comparison.
    """
    found, n_silent = [], 0
    for name in child_names(workspace.similarity) if has_store(workspace.similarity) else ():
        record = recorded(workspace.similarity / name)
        if not record:
            continue  # unfinished, or damaged, which verification reports
        provenance = record.get("provenance")
        known = provenance if isinstance(provenance, dict) else {}
        try:
            job = Comparison.from_json(known[JOB])
            found.append(KeptResult(str(known.get("created_at", "")), name, job))
        except (KeyError, ConfigError):
            n_silent += 1
    kept: dict[str, list[KeptResult]] = defaultdict(list)
    for each in sorted(found, key=lambda each: each[:2]):
        kept[identity(each.job)].append(each)
    return kept, n_silent


def identity(job: Comparison) -> str:
    """Return a text that comparisons share only where they ask for the same numbers.

    How unusable networks are treated does not count.
    """
    return json.dumps(replace(job, unusable="refuse").to_json(), sort_keys=True)


def read(workspace: Workspace, name: str) -> SimilarityResult | None:
    """Return a result, or None where it is gone or cannot be read any more."""
    try:
        return read_result(workspace.similarity, name)
    except StoreError:
        return None


def moved(before: SimilarityResult | None, now: SimilarityResult, networks: str) -> Moved:
    """Compare a matrix with the one before, entry by entry of what both have."""
    if before is None:
        return Moved(now.name, networks, "new", len({*now.rows, *now.columns}))
    if before.name == now.name:
        return Moved(now.name, networks, "unchanged")
    n_added = len({*now.rows, *now.columns} - {*before.rows, *before.columns})
    change: Change = "extended" if _has_same_inputs(before, now) else "recomputed"
    rows, columns = _common(before.rows, now.rows), _common(before.columns, now.columns)
    old, new = _values(before, rows, columns), _values(now, rows, columns)
    n_redefined = int(np.sum(np.isnan(new) != np.isnan(old)))
    found = Moved(now.name, networks, change, n_added, before=before.name, n_redefined=n_redefined)
    distance = np.abs(new - old)
    distance[np.isnan(new) & np.isnan(old)] = 0
    if np.isnan(distance).all():
        return found
    row, column = map(int, np.unravel_index(np.nanargmax(distance), distance.shape))
    largest, pair = float(distance[row, column]), (rows[row], columns[column])
    where = " with ".join(f"{key.run}@{key.checkpoint}:{key.tap}" for key in pair)
    mean = float(np.nanmean(distance))
    return replace(found, largest=largest, mean=mean, where=where if largest > 0 else "")


def remove_superseded(workspace: Workspace, now: SimilarityResult, older: Sequence[str]) -> int:
    """Remove results of which every number is in a newer one; return how many.

    Those of checkpoints that have become others are kept, as nothing can compute them again. So are
    those that moved all the same, as of activations in another precision, or imported again.
    """
    n_removed = 0
    for name in older:
        before = read(workspace, name)
        if before is None or name == now.name or not _has_same_inputs(before, now):
            continue
        found = _values(now, before.rows, before.columns)
        if np.allclose(found, before.values, rtol=0, atol=_BETWEEN_DEVICES, equal_nan=True):
            remove_record(workspace.similarity, name)
            for suffix in _SUFFIXES:
                picture = workspace.figures / f"{name}{suffix}.png"
                if is_file(picture):
                    picture.unlink()
            n_removed += 1
    return n_removed


def _has_same_inputs(before: SimilarityResult, now: SimilarityResult) -> bool:
    """Return whether all that a result compares is in another, from the same checkpoints."""
    kept = {*before.rows} <= {*now.rows} and {*before.columns} <= {*now.columns}
    return kept and all(
        digest == _digests(now, side).get(network)
        for side in ("rows", "columns")
        for network, digest in _digests(before, side).items()
    )


def _digests(result: SimilarityResult, side: str) -> Mapping[str, Any]:
    found = result.provenance.get("checkpoint_digests", {})
    return found.get(side, {}) if isinstance(found, dict) else {}


Keys = Sequence[RepresentationKey]


def _common(before: Keys, now: Keys) -> Keys:
    there = set(now)
    return [key for key in before if key in there]


def _values(result: SimilarityResult, rows: Keys, columns: Keys) -> np.ndarray:
    """Return the values of a result at some of its rows and columns."""
    places = np.ix_(_places(result.rows, rows), _places(result.columns, columns))
    values: np.ndarray = result.values[places]
    return values


def _places(side: Keys, wanted: Keys) -> list[int]:
    place = {key: i for i, key in enumerate(side)}
    return [place[key] for key in wanted]
