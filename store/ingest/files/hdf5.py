"""Data sets in .h5 files, and in .mat files of MATLAB 7.3, which are of the same format."""

import math
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
import numpy.typing as npt

from store.ingest.files.arrays import (
    MOST_ARRAYS,
    ArrayFile,
    Lazy,
    Listed,
    Refused,
    check_form,
    reading,
)
from store.ingest.files.names import counting

_ADVICE: Final = "write it again with h5py"
_MATLAB_CLASS: Final = "MATLAB_class"
_MATLAB_NUMBERS: Final = {b"double", b"single", b"logical"} | {
    f"{sign}int{bits}".encode() for sign in ("", "u") for bits in (8, 16, 32, 64)
}


def open_file(path: Path, opened: ExitStack) -> list[Listed]:
    """Open every data set, by its path; what lies in other files is never opened."""
    with reading(str(path), _ADVICE):
        file = opened.enter_context(h5py.File(path, "r"))
        found = list(_walk(str(path), file))
    return found


def _walk(path: str, file: Any) -> Iterator[Listed]:
    """Yield data sets group after group; a group that is linked twice once."""
    waiting, seen, count = [("", file)], set(), 0
    while waiting:
        prefix, group = waiting.pop(0)
        address = h5py.h5o.get_info(group.id).addr
        if address in seen:
            continue
        seen.add(address)
        for key in _keys(group):
            count += 1
            if count > MOST_ARRAYS:
                raise ValueError(f"it holds more than {MOST_ARRAYS} objects")
            name = f"{prefix}{key}"
            link = group.get(key, getlink=True)
            if not isinstance(link, h5py.HardLink):
                reason = "is a link to elsewhere, which is not followed; copy what it stands for"
                yield Listed(name, Refused((), f"{path}:{name}", reason))
            elif isinstance(found := group.get(key), h5py.Group):
                # MATLAB keeps what its cells refer to in groups such as #refs#.
                waiting += [] if key.startswith("#") else [(f"{name}/", found)]
            elif isinstance(found, h5py.Dataset):
                yield Listed(name, _open_dataset(f"{path}:{name}", found))


def _keys(group: Any) -> list[str]:
    """Return names in the order of their creation where the file knows it, else numbers counted."""
    keys = list(group)
    for key in keys:
        if not isinstance(key, str):
            raise ValueError(f"the name {key!r} in it is no UTF-8")
    return sorted(keys, key=counting) if keys == sorted(keys) else keys


def _open_dataset(source: str, dataset: Any) -> ArrayFile:
    shape = dataset.shape
    if shape is None:
        return Refused((), source, "is empty; leave it out")
    if dataset.is_virtual or dataset.external:
        return Refused(shape, source, "has its values in other files; copy them into this one")
    kind = dataset.attrs.get(_MATLAB_CLASS)
    if kind is not None and kind not in _MATLAB_NUMBERS:
        return Refused(shape[:1], source, "holds no numbers; save it as a matrix")
    try:
        dtype = dataset.dtype
    except TypeError as error:
        return Refused(shape, source, f"has a type that NumPy lacks ({error}); save it as float32")
    if h5py.check_string_dtype(dtype) is not None:
        texts = dataset.asstr()
        return Lazy(source, _ADVICE, shape, np.dtype("U"), lambda rows: _as_texts(texts[rows]))
    if dtype.hasobject or dtype.names:
        return Refused(shape, source, f"is of type {str(dtype)[:40]}; save numbers")
    if kind is None:
        lazy = Lazy(source, _ADVICE, shape, dtype, dataset.__getitem__)
    else:
        # MATLAB's have their axes in reverse.
        lazy = Lazy(source, _ADVICE, shape[::-1], dtype, lambda rows: dataset[..., rows].T)
    check_form(source, lazy.shape, dtype)
    _check_written(source, dataset)
    return lazy


def _as_texts(values: Any) -> npt.NDArray[Any]:
    return np.asarray(values, dtype=str)


def _check_written(source: str, dataset: Any) -> None:
    """Raise ValueError where values were never written: HDF5 reads them as zeros."""
    if not dataset.size:
        return
    if dataset.chunks is None:
        missing, wanted = int(not dataset.id.get_storage_size()), 1
    else:
        pairs = zip(dataset.shape, dataset.chunks, strict=True)
        wanted = math.prod(-(-size // chunk) for size, chunk in pairs)
        missing = wanted - dataset.id.get_num_chunks()
    if missing > 0:
        raise ValueError(
            f"of {source.rpartition(':')[2]}, {missing} of {wanted} chunks were never written"
        )
