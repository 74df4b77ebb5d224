"""A selection as a lazy xarray.DataArray; loaded only where one is asked for."""

import hashlib
from collections.abc import Hashable
from dataclasses import replace
from importlib.util import find_spec
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray
from xarray.backends import BackendArray
from xarray.core import indexing

from store.arrays.query import facts
from store.arrays.selection import Selection

_DIMENSIONS: Final = {
    2: ("sample", "channel"),
    3: ("sample", "position", "channel"),
    4: ("sample", "y", "x", "channel"),
}


class LazyArray(BackendArray):
    """Reads what xarray asks for by way of the selection, so that all of it is verified."""

    def __init__(self, selection: Selection) -> None:
        self.selection = selection
        self.shape = selection.shape
        self.dtype = selection.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        support = indexing.IndexingSupport.OUTER
        return indexing.explicit_indexing_adapter(key, self.shape, support, self._read)

    def _read(self, key: tuple[Any, ...]) -> npt.NDArray[Any]:
        """Read for one integer, slice or array of integers an axis."""
        selection, (rows, *space, channels) = self.selection, key
        chosen = replace(selection, rows=np.atleast_1d(selection.rows[rows]))
        if not _is_all(channels, self.shape[-1]):
            known = np.arange(selection.tap.meta.shape[-1])
            among = known if selection.channels is None else selection.channels
            chosen = replace(chosen, channels=np.atleast_1d(among[channels]))
        values = chosen.read()
        # From the last axis, since an integer drops its own.
        within = [_dropped(rows), *space, _dropped(channels)]
        for axis in reversed(range(len(within))):
            values = values[(slice(None),) * axis + (within[axis],)]
        return values


def data_array(selection: Selection) -> xarray.DataArray:
    """Return a selection as an array whose values are read when they are needed."""
    dimensions = _DIMENSIONS[selection.ndim]
    coordinates: dict[Hashable, Any] = {
        "sample": ("sample", selection.samples),
        "label": ("sample", selection.labels),
    }
    if selection.channels is not None:
        coordinates["channel"] = ("channel", selection.channels)
    return xarray.DataArray(
        _variable(selection, dimensions),
        coords=coordinates,
        name=selection.tap.meta.key.tap,
        attrs=_attributes(selection),
    )


def _variable(selection: Selection, dimensions: tuple[str, ...]) -> xarray.Variable:
    if find_spec("dask") is None:
        return _lazy(selection, dimensions)
    if np.all(np.diff(selection.rows) >= 0):
        return _chunked(selection, dimensions)
    # In any other order chunks would be rows, and a minibatch be read for each of them.
    rows, places = np.unique(selection.rows, return_inverse=True)
    return _chunked(replace(selection, rows=rows), dimensions).isel(sample=places)


def _lazy(selection: Selection, dimensions: tuple[str, ...]) -> xarray.Variable:
    return xarray.Variable(dimensions, indexing.LazilyIndexedArray(LazyArray(selection)))


def _chunked(selection: Selection, dimensions: tuple[str, ...]) -> xarray.Variable:
    sizes = tuple(len(part) for part in selection.parts()) or (0,)
    chunks: list[tuple[int, ...]] = [sizes, *((size,) for size in selection.shape[1:])]
    variable = _lazy(selection, dimensions)
    return variable.chunk(dict(zip(dimensions, chunks, strict=True)), name=_token(selection))


def _token(selection: Selection) -> str:
    """Return a name under which Dask may share what was read."""
    tap, channels = selection.tap, selection.channels
    chosen = selection.rows.tolist(), None if channels is None else channels.tolist()
    what = str(tap.store_path), tap.meta, tap.commits, chosen, selection.space
    return f"{tap.meta.key.tap}-{hashlib.sha256(repr(what).encode()).hexdigest()[:32]}"


def _attributes(selection: Selection) -> dict[str, Any]:
    meta = selection.tap.meta
    known = facts(meta, complete=True)
    del known["complete"], known["dtype"]
    digests = {"checkpoint_digest": meta.checkpoint_digest}
    made = {"created_by": meta.created_by, "created_at": meta.created_at}
    space = {"space": selection.space} if selection.space else {}
    return known | digests | made | space


def _is_all(key: Any, n: int) -> bool:
    return isinstance(key, slice) and key.indices(n) == (0, n, 1)


def _dropped(key: Any) -> Any:
    """Return how an axis that has been read by a key is indexed still: an integer drops it."""
    return slice(None) if isinstance(key, slice | np.ndarray) else 0
