"""A part of a result as a result of its own, and a result with rows for columns."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from store import SimilarityResult
from store.records.results import ARRAYS


def block_of(
    result: SimilarityResult, rows: Sequence[int], columns: Sequence[int]
) -> SimilarityResult:
    """Return the representations of some rows and columns, with all that is known of them."""
    of_axis = {"row": list(rows), "column": list(columns)}
    if [*of_axis.values()] == [list(range(n)) for n in result.cka.shape]:
        return result
    place = {(i, j): (k, m) for k, i in enumerate(rows) for m, j in enumerate(columns)}
    return replace(
        result,
        rows=tuple(result.rows[i] for i in rows),
        columns=tuple(result.columns[j] for j in columns),
        reasons=tuple((*place[i, j], why) for i, j, why in result.reasons if (i, j) in place),
        **{name: _chosen(getattr(result, name), axes, of_axis) for name, axes in ARRAYS.items()},
    )


def exchanged(result: SimilarityResult) -> SimilarityResult:
    """Return a result with rows for columns: HSIC is the same either way.

    Its baseline is left out: there, the examples of the columns are shuffled.
    """
    arrays: dict[str, Any] = {}
    for name, axes in ARRAYS.items():
        values = getattr(result, name)
        both = {"row", "column"} <= set(axes)
        other = name if both else _other(name)
        arrays[other] = np.swapaxes(values, -1, -2) if both and values is not None else values
    return replace(
        result,
        rows=result.columns,
        columns=result.rows,
        reasons=tuple((j, i, why) for i, j, why in result.reasons),
        **arrays | {"baseline": None},
    )


def _other(name: str) -> str:
    """Return the array of the columns for that of the rows, and the other way round."""
    if "rows" in name:
        return name.replace("rows", "columns")
    return name.replace("columns", "rows")


def _chosen(values: Any, axes: tuple[str, ...], of_axis: dict[str, list[int]]) -> Any:
    if values is None:
        return None
    indices = [of_axis.get(axis, range(n)) for axis, n in zip(axes, values.shape, strict=True)]
    return values[np.ix_(*indices)]
