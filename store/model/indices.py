"""Convert slices, lists and masks to the whole numbers that they choose from an axis."""

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from store.errors import ArrayError, QueryError, RowRangeError
from store.model.array_interop import as_numpy

Indices = npt.NDArray[np.int64]
Chosen = slice | Sequence[int] | npt.NDArray[Any] | None
"""Rows or channels: a slice, whole numbers in any order, a mask, or None for all."""


def as_indices(what: str, wanted: object, n: int) -> Indices:
    """Return what is chosen of an axis of n, from 0; negative numbers count from its end.

    Raises RowRangeError, which says ``what`` is chosen, for numbers that lie outside, bounds of a
    slice among them, and QueryError for what is neither slice nor whole numbers nor mask.
    """
    if isinstance(wanted, slice):
        return _slice_indices(what, wanted, n)
    try:
        chosen = as_numpy(wanted)
    except ArrayError:
        chosen = np.asarray(None)
    if chosen.dtype == np.bool_ and chosen.shape == (n,):
        return np.flatnonzero(chosen).astype(np.int64)
    if chosen.shape == (0,):
        return np.empty(0, np.int64)
    if chosen.ndim != 1 or chosen.dtype.kind not in "iu":
        remedy = f"give a slice, a list of whole numbers, or a mask of {n}"
        raise QueryError(what, f"are {wanted!r}", remedy=remedy)
    _check_bounds(what, (chosen.min(), chosen.max()), n, n - 1)
    return np.where(chosen < 0, chosen + n, chosen).astype(np.int64)


def _slice_indices(what: str, wanted: slice, n: int) -> Indices:
    try:
        bounds = [operator.index(i) for i in (wanted.start, wanted.stop) if i is not None]
        chosen = np.arange(n, dtype=np.int64)[wanted]
    except (TypeError, ValueError) as error:
        remedy = "give whole numbers, and no step of 0"
        raise QueryError(what, f"are {wanted!r}", remedy=remedy) from error
    _check_bounds(what, bounds, n, n)
    return chosen


def _check_bounds(what: str, bounds: Sequence[int], n: int, most: int) -> None:
    outside = [bound for bound in bounds if not -n <= bound <= most]
    if outside:
        raise RowRangeError(what, f"are 0 to {n - 1}, and {outside[0]} was asked for")
