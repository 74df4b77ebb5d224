"""Classes and indices in any usual form, as one axis of integers."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from store.errors import ArrayError

_SHOWN: Final = 10
_WANTED: Final = (
    "want one integer, truth value or text a row, as (n,), (n, 1) or (1, n),"
    " or one-hot rows (n, classes)"
)


def as_classes(source: str, values: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], str]:
    """Return the class of every row, and in words how the values were converted, if at all.

    Raises ArrayError, which calls them ``source``, for values that are no classes.
    """
    rows = _one_axis(values)
    if rows is None:
        return _from_one_hot(source, values), "one-hot"
    if rows.dtype.kind in "SU":
        return _from_texts(source, rows)
    if rows.dtype.kind == "b":
        return rows.astype(np.int32), "false = 0, true = 1"
    return _as_integers(source, rows), ""


def as_indices(source: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the index of every row; raises ArrayError for values that are none."""
    rows = _one_axis(values)
    if rows is None or rows.dtype.kind not in "iuf":
        wanted = "want one integer a row, the index of its example in the data set"
        raise ArrayError(source, f"is {values.dtype} of shape {values.shape}", wanted)
    return _as_integers(source, rows)


def _one_axis(values: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
    """Return (n,), (n, 1) or (1, n) as (n,); None for other shapes."""
    if values.ndim == 1:
        return values
    return values.reshape(-1) if values.ndim == 2 and 1 in values.shape else None


def _from_one_hot(source: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if values.ndim != 2 or not values.size or values.dtype.kind not in "biuf":
        raise ArrayError(source, f"is {values.dtype} of shape {values.shape}", _WANTED)
    hot = values == 1
    odd = np.flatnonzero((hot.sum(axis=1) != 1) | ((values != 0) & ~hot).any(axis=1))
    if len(odd):
        found = f"of shape {values.shape} is not one-hot in row {odd[0]}"
        raise ArrayError(source, found, _WANTED)
    return np.asarray(hot.argmax(axis=1))


def _from_texts(source: str, rows: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], str]:
    try:
        texts = np.char.decode(rows, "utf-8") if rows.dtype.kind == "S" else rows
    except UnicodeDecodeError as error:
        raise ArrayError(source, "holds texts that are not UTF-8", _WANTED) from error
    known, classes = np.unique(np.char.strip(texts), return_inverse=True)
    pairs = [f"{str(text)[:40]!r} = {index}" for index, text in enumerate(known[:_SHOWN])]
    return classes.reshape(-1), ", ".join(pairs) + (", ..." if len(known) > _SHOWN else "")


def _as_integers(source: str, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if rows.dtype.kind in "iu":
        return rows
    if rows.dtype.kind != "f":
        raise ArrayError(source, f"is of type {rows.dtype}", _WANTED)
    rows = rows.astype(np.float64)
    odd = np.flatnonzero(~(np.isfinite(rows) & (rows == np.round(rows)) & (np.abs(rows) < 2**53)))
    if len(odd):
        raise ArrayError(source, f"has {rows[odd[0]]:g} in row {odd[0]}", _WANTED)
    return rows.astype(np.int64)
