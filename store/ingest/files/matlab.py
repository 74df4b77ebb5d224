"""Matrices in .mat files of MATLAB 4 to 7.2; those of 7.3 are HDF5."""

import math
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import scipy.io

from store.ingest.files.arrays import ArrayFile, loading, refused

ADVICE: Final = "save it again with scipy.io.savemat"
_MOST_COMPRESSED: Final = 1032
"""How far deflate compresses at most."""

_DTYPES: Final = {
    "double": "f8", "single": "f4", "logical": "?", "char": "U",
    "int8": "i1", "int16": "i2", "int32": "i4", "int64": "i8",
    "uint8": "u1", "uint16": "u2", "uint32": "u4", "uint64": "u8",
}  # fmt: skip


def open_file(path: Path, opened: ExitStack) -> list[ArrayFile]:
    """List every variable; one is loaded whole when its rows are read."""
    variables = scipy.io.whosmat(path, appendmat=False)
    if len({name for name, _, _ in variables}) < len(variables):
        raise ValueError(f"it holds {len(variables)} variables, some of one name")
    return [_open_variable(path, *variable) for variable in variables]


def _open_variable(path: Path, name: str, shape: tuple[int, ...], kind: str) -> ArrayFile:
    if kind not in _DTYPES:
        return refused(name, shape[:1], f"is a {kind}", "save it as a matrix")
    n_bytes, dtype = path.stat().st_size, np.dtype(_DTYPES[kind])
    if math.prod(shape) > _MOST_COMPRESSED * n_bytes:
        raise ValueError(f"{n_bytes} bytes cannot hold the shape {shape} of {name[:40]!r}")
    # Column-major in the file: rows are not contiguous.
    return ArrayFile(name, shape, dtype, loading(partial(_load, path, name, shape, dtype)))


def _load(path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    values = np.asarray(scipy.io.loadmat(path, appendmat=False, variable_names=[name])[name])
    if values.shape != shape:
        raise ValueError(f"it has the shape {values.shape}, and {shape} was promised")
    return values.astype(dtype, copy=False)
