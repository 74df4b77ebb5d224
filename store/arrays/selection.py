"""Choose rows, channels and the mean over space of one tap; read only what holds them."""

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from store.errors import QueryError, UnfinishedError
from store.model.array_interop import as_numpy
from store.model.indices import Chosen, Indices, as_indices
from store.model.schema import Commit, RepresentationMeta
from store.storage.paths import Place

Space = Literal["mean"]


class Tap(Protocol):
    """What a selection needs of the representation that it selects from."""

    @property
    def meta(self) -> RepresentationMeta:
        """What the array is."""

    @property
    def store_path(self) -> Place:
        """Where its store is."""

    @property
    def commits(self) -> tuple[Commit, ...]:
        """The promises that stand behind its rows."""

    @property
    def samples(self) -> npt.NDArray[np.int64]:
        """Index of every row's example in its data set."""

    @property
    def labels(self) -> npt.NDArray[np.int32]:
        """Class of every row's example."""

    @property
    def n_committed(self) -> int:
        """How many rows can be read."""

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return a range of rows, verified."""


@dataclass(frozen=True, eq=False)
class Selection:
    """Some rows and channels of one tap, not read yet; an array to NumPy.

    Attributes:
        tap: the representation.
        rows: which of its rows, in the order of the result.
        channels: which channels, None for all of them.
        space: ``mean`` for the mean over all axes but the first and the last.
    """

    tap: Tap
    rows: Indices
    channels: Indices | None = None
    space: Space | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"<Selection of {self.tap.meta.key.text}: {self.dtype} {self.shape}>"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array that is read."""
        *space, n_channels = self.tap.meta.shape
        if self.space:
            space = []
        if self.channels is not None:
            n_channels = len(self.channels)
        return (len(self.rows), *space, n_channels)

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
        if self._bounds is not None:
            return self.tap.read(*self._bounds)
        out = np.empty(self.shape, self.dtype)
        for start, stop, places in self._minibatches():
            self._take(out, places, start, stop)
        return out

    def parts(self) -> Iterator["Selection"]:
        """Cut the selection where its rows go over from one minibatch to another."""
        borders = np.flatnonzero(np.diff(self._blocks)) + 1
        for rows in np.split(self.rows, borders) if len(self.rows) else []:
            yield Selection(self.tap, rows, self.channels, self.space)

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


def select(
    tap: Tap,
    rows: Chosen = None,
    label: int | Sequence[int] | None = None,
    channels: Chosen = None,
    space: Space | None = None,
) -> Selection:
    """Select from a representation; ``Representation.select`` says how."""
    if space not in (None, "mean"):
        raise QueryError(f"space is {space!r}", remedy="use 'mean', or None to keep all positions")
    n, n_channels, key = tap.meta.n_samples, tap.meta.shape[-1], tap.meta.key
    chosen = as_indices(f"rows of {key}", slice(None) if rows is None else rows, n)
    _check_committed(tap, int(chosen.max(initial=-1)) + 1)
    if label is not None:
        chosen = chosen[np.isin(tap.labels[chosen], _known_labels(tap, label))]
    if channels is not None:
        channels = as_indices(f"channels of {key}", channels, n_channels)
    return Selection(tap, chosen, channels, space)


def _check_committed(tap: Tap, stop: int) -> None:
    if stop > tap.n_committed:
        raise UnfinishedError(
            f"{tap.meta.key} has {tap.n_committed} of {tap.meta.n_samples} rows, and row"
            f" {stop - 1} was selected",
            remedy=f"finish its extraction, or select rows before {tap.n_committed}",
        )


def _known_labels(tap: Tap, label: object) -> npt.NDArray[Any]:
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
