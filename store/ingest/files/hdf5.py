"""Data sets in .h5 files, and in .mat files of MATLAB 7.3, which are of the same format."""

import math
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np

from store.ingest.files.arrays import ArrayFile, counting, plain, refused

ADVICE: Final = "write it again with h5py"
_MATLAB_CLASS: Final = "MATLAB_class"
_MATLAB_NUMBERS: Final = {b"double", b"single", b"logical"} | {
    f"{sign}int{bits}".encode() for sign in ("", "u") for bits in (8, 16, 32, 64)
}


def open_file(path: Path, opened: ExitStack) -> Iterator[ArrayFile]:
    """Open every data set, by its path, group after group; other files are never opened."""
    waiting, seen = [("", opened.enter_context(h5py.File(path, "r")))], set()
    while waiting:
        prefix, group = waiting.pop(0)
        address = h5py.h5o.get_info(group.id).addr
        if address in seen:  # linked twice
            continue
        seen.add(address)
        for key in _keys(group):
            name = f"{prefix}{key}"
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                refusal = "is a link to elsewhere, which is not followed"
                yield refused(name, (), refusal, "copy what it stands for")
            elif isinstance(found := group.get(key), h5py.Group):
                # MATLAB keeps what its cells refer to in groups such as #refs#.
                waiting += [] if key.startswith("#") else [(f"{name}/", found)]
            elif isinstance(found, h5py.Dataset):
                yield _open_dataset(name, found)


def _keys(group: Any) -> list[str]:
    """Return names in the order of their creation where the file knows it, else numbers counted."""
    keys = list(group)
    for key in keys:
        if not isinstance(key, str):
            raise ValueError(f"the name {key!r} in it is no UTF-8")
    return sorted(keys, key=counting) if keys == sorted(keys) else keys


def _open_dataset(name: str, dataset: Any) -> ArrayFile:
    shape, kind = dataset.shape, dataset.attrs.get(_MATLAB_CLASS)
    if shape is None:
        return refused(name, (), "is empty", "leave it out")
    if dataset.is_virtual or dataset.external:
        return refused(name, shape, "has its values in other files", "copy them into this one")
    if kind is not None and kind not in _MATLAB_NUMBERS:
        return refused(name, shape[:1], "holds no numbers", "save it as a matrix")
    try:
        dtype = dataset.dtype
    except TypeError as error:
        return refused(name, shape, f"has a type that NumPy lacks ({error})", "save it as float32")
    if h5py.check_string_dtype(dtype) is not None:
        texts = dataset.asstr()
        return ArrayFile(name, shape, np.dtype("U"), lambda rows: np.asarray(texts[rows], str))
    _check_written(name, dataset)
    if kind is None:
        return plain(ArrayFile(name, shape, dtype, dataset.__getitem__))
    # MATLAB's axes are in reverse.
    return plain(ArrayFile(name, shape[::-1], dtype, lambda rows: dataset[..., rows].T))


def _check_written(name: str, dataset: Any) -> None:
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
        raise ValueError(f"of {name}, {missing} of {wanted} chunks were never written")
