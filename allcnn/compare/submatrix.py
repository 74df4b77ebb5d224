"""A part of a result as a result of its own, and a result with rows for columns."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from store import SimilarityResult
from store.records.results import dimensions_of


def block_of(
    result: SimilarityResult, rows: Sequence[int], columns: Sequence[int]
) -> SimilarityResult:
    """Return the representations of some rows and columns, with all that is known of them."""
    of_axis = {"row": list(rows), "column": list(columns)}
    if [*of_axis.values()] == [list(range(n)) for n in result.values.shape]:
        return result
    place = {(i, j): (k, m) for k, i in enumerate(rows) for m, j in enumerate(columns)}
    return result.with_arrays(
        {name: _chosen(name, each, of_axis) for name, each in result.arrays.items()},
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


def _chosen(name: str, values: np.ndarray, of_axis: dict[str, list[int]]) -> np.ndarray:
    axes = zip(dimensions_of(name), values.shape, strict=True)
    chosen: np.ndarray = values[np.ix_(*(of_axis.get(axis, range(n)) for axis, n in axes))]
    return chosen
