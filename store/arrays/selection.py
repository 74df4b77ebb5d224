"""Choose rows, channels and the mean over space of one tap; read only what holds them."""

import importlib
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from store.errors import ArrayError, QueryError, RowRangeError
from store.model.array_interop import as_numpy

if TYPE_CHECKING:
    from store.arrays.reader import Representation

Space = Literal["mean"]
Indices = npt.NDArray[np.int64]
Chosen = slice | Sequence[int] | npt.NDArray[Any] | None
"""Rows or channels: a slice, whole numbers in any order, a mask, or None for all."""


@dataclass(frozen=True, eq=False)
class TapSelection:
    """Some rows and channels of one tap, not read yet; an array to NumPy.

    Attributes:
        tap: the representation.
        rows: which of its rows, in the order of the result.
        channels: which channels, None for all of them.
        space: ``mean`` for the mean over all axes but the first and the last.
    """

    tap: "Representation"
    rows: Indices
    channels: Indices | None = None
    space: Space | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"<Selection of {self.tap.meta.key.text}: {self.dtype} {self.shape}>"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array that is read."""
        *space, n_channels = self.tap.meta.shape
        chosen = n_channels if self.channels is None else len(self.channels)
        return (len(self.rows), *(() if self.space else space), chosen)

    @property
    def ndim(self) -> int:
        """Axes of the array that is read."""
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """As stored, or at least float32 for means over space."""
        stored = np.dtype(self.tap.meta.dtype)
        return np.promote_types(stored, np.float32) if self.space else stored.newbyteorder("<")

    @property
    def samples(self) -> npt.NDArray[np.int64]:
        """Index of every selected row's example in its data set."""
        return self.tap.samples[self.rows]

    @property
    def labels(self) -> npt.NDArray[np.int32]:
        """Class of every selected row's example."""
        return self.tap.labels[self.rows]

    def read(self) -> npt.NDArray[Any]:
        """Return the selected values, every minibatch read whole, once, and its digest verified.

        Memory stays at the result and one minibatch. Raises DamagedChunkError as ``read`` of the
        representation does.
        """
        if (bounds := self._bounds) is not None:
            return self.tap.read(*bounds)
        out = np.empty(self.shape, self.dtype)
        for start, stop, places in self._minibatches():
            self._take(out, places, start, stop)
        return out

    def parts(self) -> Iterator["TapSelection"]:
        """Cut the selection where its rows go over from one minibatch to another."""
        borders = np.flatnonzero(np.diff(self._blocks)) + 1
        for rows in np.split(self.rows, borders) if len(self.rows) else []:
            yield replace(self, rows=rows)

    def to_xarray(self) -> Any:
        """Return a lazy xarray.DataArray, named after the tap, whose values are read when needed.

        With coordinates ``sample`` and ``label``, and the metadata as attributes. Where Dask is
        installed it is backed by Dask, one chunk a minibatch. Raises ImportError without xarray.
        """
        try:
            view = importlib.import_module("store.arrays.xarray_view")
        except ModuleNotFoundError as error:
            raise ImportError(
                "a view needs xarray, which is not installed; run 'pip install xarray'"
            ) from error
        return view.data_array(self)

    def __array__(
        self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
    ) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError(f"{self!r} cannot be an array without a copy: it has to be read")
        return self.read().astype(dtype or self.dtype, copy=False)

    @cached_property
    def _blocks(self) -> Indices:
        """Number of each selected row's minibatch."""
        return self.rows // self.tap.meta.batch_rows

    @property
    def _bounds(self) -> tuple[int, int] | None:
        """Return the range of rows that this is, None where it is anything else."""
        if self.channels is not None or self.space or np.any(np.diff(self.rows) != 1):
            return None
        return (int(self.rows[0]), int(self.rows[-1]) + 1) if len(self.rows) else (0, 0)

    def _minibatches(self) -> Iterator[tuple[int, int, Indices]]:
        """Yield the range of each minibatch that is needed, and the places of its rows here."""
        order = np.argsort(self._blocks, kind="stable")
        needed, firsts = np.unique(self._blocks[order], return_index=True)
        size = self.tap.meta.batch_rows
        for block, places in zip(needed.tolist(), np.split(order, firsts)[1:], strict=True):
            yield block * size, min((block + 1) * size, self.tap.meta.n_samples), places

    def _take(self, out: npt.NDArray[Any], places: Indices, start: int, stop: int) -> None:
        # In a function, so that one minibatch is let go before the next is read.
        minibatch = self.tap.read(start, stop)
        # Row by row: to index them all at once would copy up to a whole minibatch.
        for place, row in zip(places.tolist(), (self.rows[places] - start).tolist(), strict=True):
            out[place] = self._reduced(minibatch[row])

    def _reduced(self, row: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if self.channels is not None:
            row = row[..., self.channels]
        if not self.space:
            return row
        # A unit that has diverged may hold infinities of both signs.
        with np.errstate(invalid="ignore"):
            means: npt.NDArray[Any] = row.mean(axis=tuple(range(row.ndim - 1)), dtype=np.float64)
        return means


def known_labels(tap: "Representation", label: object) -> npt.NDArray[Any]:
    """Return a label, or several, as an array; raises QueryError for what no example has."""
    wanted = np.atleast_1d(as_numpy(label, "label"))
    if not wanted.size:
        return wanted
    if wanted.dtype.kind not in "iu" or wanted.ndim != 1:
        raise QueryError(f"label is {label!r}", remedy="give a whole number, or a list of them")
    known = np.unique(tap.labels)
    absent = wanted[~np.isin(wanted, known)]
    if len(absent):
        raise QueryError(
            f"no example of {tap.meta.key.sample_set} has label {absent[0]}",
            remedy=f"its labels are {', '.join(map(str, known))}",
        )
    return wanted


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
