"""A selection as a lazy xarray.DataArray; loaded only where one is asked for."""

import hashlib
from collections.abc import Hashable
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray
from xarray.backends import BackendArray
from xarray.core import indexing

from store.arrays.query import facts
from store.arrays.reader import DIMENSIONS
from store.arrays.selection import TapSelection


class LazyArray(BackendArray):
    """Reads what xarray asks for by way of the selection, so that all of it is verified."""

    def __init__(self, selection: TapSelection) -> None:
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
        n = self.shape[-1]
        if not isinstance(channels, slice) or channels.indices(n) != (0, n, 1):
            known = np.arange(selection.tap.meta.shape[-1])
            among = known if selection.channels is None else selection.channels
            chosen = replace(chosen, channels=np.atleast_1d(among[channels]))
        values = chosen.read()
        # Rows and channels have been read; an integer still has to drop its axis.
        left = [slice(None) if isinstance(k, slice | np.ndarray) else 0 for k in (rows, channels)]
        within = [left[0], *space, left[1]]
        # From the last axis, as an axis that is dropped moves those behind it.
        for axis in reversed(range(len(within))):
            values = values[(slice(None),) * axis + (within[axis],)]
        return values


def data_array(selection: TapSelection) -> xarray.DataArray:
    """Return a selection as an array whose values are read when they are needed."""
    coordinates: dict[Hashable, Any] = {
        "sample": ("sample", selection.samples),
        "label": ("sample", selection.labels),
    }
    if selection.channels is not None:
        coordinates["channel"] = ("channel", selection.channels)
    return xarray.DataArray(
        _variable(selection),
        coords=coordinates,
        name=selection.tap.meta.key.tap,
        attrs=_attributes(selection),
    )


def _variable(selection: TapSelection) -> xarray.Variable:
    has_dask = find_spec("dask") is not None
    if has_dask and np.any(np.diff(selection.rows) < 0):
        # In this order chunks would be rows, and a minibatch be read for each of them.
        rows, places = np.unique(selection.rows, return_inverse=True)
        return _variable(replace(selection, rows=rows)).isel(sample=places)
    array = indexing.LazilyIndexedArray(LazyArray(selection))
    variable = xarray.Variable(DIMENSIONS[selection.ndim], array)
    if not has_dask:
        return variable
    sizes = tuple(len(part) for part in selection.parts()) or (0,)
    return variable.chunk({"sample": sizes}, name=_token(selection))


def _token(selection: TapSelection) -> str:
    """Return a name under which Dask may share what was read."""
    tap, channels = selection.tap, selection.channels
    chosen = selection.rows.tolist(), None if channels is None else channels.tolist()
    what = str(tap.store_path), tap.meta, tap.commits, chosen, selection.space
    return f"{tap.meta.key.tap}-{hashlib.sha256(repr(what).encode()).hexdigest()[:32]}"


def _attributes(selection: TapSelection) -> dict[str, Any]:
    meta = selection.tap.meta
    known = facts(meta, complete=True)
    del known["complete"], known["dtype"]
    made = {name: getattr(meta, name) for name in ("checkpoint_digest", "created_by", "created_at")}
    return known | made | ({"space": selection.space} if selection.space else {})
