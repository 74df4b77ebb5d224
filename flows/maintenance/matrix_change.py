"""How a matrix differs from the one that was there before: where, and by how much."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np

from store import RepresentationKey, SimilarityResult

Change = Literal["new", "extended", "recomputed", "unchanged"]

_BETWEEN_DEVICES: Final = 1e-6
"""To which the same number agrees, wherever it is computed."""


@dataclass(frozen=True)
class Moved:
    """A matrix, and how it moved since the last nightly run.

    Attributes:
        result: its name.
        networks: what it compares, in words.
        change: what became of it.
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

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


def moved(before: SimilarityResult | None, now: SimilarityResult, networks: str) -> Moved:
    """Compare a matrix with the one before, entry by entry of what both have."""
    if before is None:
        return Moved(now.name, networks, "new", len({*now.rows, *now.columns}))
    if before.name == now.name:
        return Moved(now.name, networks, "unchanged")
    n_added = len({*now.rows, *now.columns} - {*before.rows, *before.columns})
    change: Change = "extended" if has_same_inputs(before, now) else "recomputed"
    rows, columns = _common(before.rows, now.rows), _common(before.columns, now.columns)
    if not rows or not columns:
        return Moved(now.name, networks, change, n_added, before=before.name)
    old = before.values[np.ix_([i for i, _ in rows], [i for i, _ in columns])]
    new = now.values[np.ix_([j for _, j in rows], [j for _, j in columns])]
    n_redefined = int(np.sum(np.isnan(new) != np.isnan(old)))
    distance = np.abs(new - old)
    distance[np.isnan(new) & np.isnan(old)] = 0
    if np.isnan(distance).all():
        return Moved(
            now.name, networks, change, n_added, before=before.name, n_redefined=n_redefined
        )
    row, column = np.unravel_index(np.nanargmax(distance), distance.shape)
    furthest = now.rows[rows[int(row)][1]], now.columns[columns[int(column)][1]]
    where = " with ".join(f"{key.run}@{key.checkpoint}:{key.tap}" for key in furthest)
    return Moved(
        now.name,
        networks,
        change,
        n_added,
        float(distance[row, column]),
        float(np.nanmean(distance)),
        where if distance[row, column] > 0 else "",
        before.name,
        n_redefined,
    )


def has_same_inputs(before: SimilarityResult, now: SimilarityResult) -> bool:
    """Return whether all that a result compares is in another, from the same checkpoints."""
    kept = {*before.rows} <= {*now.rows} and {*before.columns} <= {*now.columns}
    return kept and all(
        digest == _digests(now, side).get(network)
        for side in ("rows", "columns")
        for network, digest in _digests(before, side).items()
    )


def has_same_numbers(before: SimilarityResult, now: SimilarityResult) -> bool:
    """Return whether every number of a result is in another, which has all its representations."""
    rows = [now.rows.index(key) for key in before.rows]
    columns = [now.columns.index(key) for key in before.columns]
    found = now.values[np.ix_(rows, columns)]
    return np.allclose(found, before.values, rtol=0, atol=_BETWEEN_DEVICES, equal_nan=True)


def _digests(result: SimilarityResult, side: str) -> Mapping[str, str]:
    found = result.provenance.get("checkpoint_digests", {})
    return found.get(side, {}) if isinstance(found, dict) else {}


def _common(
    before: tuple[RepresentationKey, ...], now: tuple[RepresentationKey, ...]
) -> list[tuple[int, int]]:
    """Return the places of what both have, before and now."""
    places = {key: j for j, key in enumerate(now)}
    return [(i, places[key]) for i, key in enumerate(before) if key in places]
