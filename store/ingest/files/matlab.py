"""Matrices in .mat files of MATLAB 4 to 7.2; those of 7.3 are HDF5."""

import functools
import math
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import scipy.io

from store.ingest.files.arrays import MOST_ARRAYS, Lazy, Listed, Refused, check_form, reading

ADVICE: Final = "save it again with scipy.io.savemat"
_MOST_COMPRESSED: Final = 1032
"""How far deflate compresses at most."""

_DTYPES: Final = {
    "double": "f8", "single": "f4", "logical": "?", "char": "U",
    "int8": "i1", "int16": "i2", "int32": "i4", "int64": "i8",
    "uint8": "u1", "uint16": "u2", "uint32": "u4", "uint64": "u8",
}  # fmt: skip


def open_file(path: Path, opened: ExitStack) -> list[Listed]:
    """List every variable; one is read whole when its rows are asked for."""
    with reading(str(path), ADVICE):
        variables = scipy.io.whosmat(path, appendmat=False)
        if len({name for name, _, _ in variables}) < len(variables) or len(variables) > MOST_ARRAYS:
            raise ValueError(f"it holds {len(variables)} variables, some of one name or too many")
    return [_listed(path, *variable) for variable in variables]


def _listed(path: Path, name: str, shape: tuple[int, ...], kind: str) -> Listed:
    source = f"{path}:{name}"
    if kind not in _DTYPES:
        return Listed(name, Refused(shape[:1], source, f"is a {kind}; save it as a matrix"))
    dtype = np.dtype(_DTYPES[kind])
    check_form(source, shape, dtype)
    with reading(source, ADVICE):
        n_bytes = path.stat().st_size
        if math.prod(shape) > _MOST_COMPRESSED * n_bytes:
            raise ValueError(f"{n_bytes} bytes cannot hold the shape {shape}")

    @functools.cache
    def whole() -> npt.NDArray[Any]:
        # It lies in the file by columns.
        found = scipy.io.loadmat(path, appendmat=False, variable_names=[name])
        values = np.asarray(found[name])
        if values.shape != shape:
            raise ValueError(f"it has the shape {values.shape}, and {shape} was promised")
        return values.astype(dtype, copy=False)

    return Listed(name, Lazy(source, ADVICE, shape, dtype, lambda rows: whole()[rows]))
