"""The formats of files of arrays, by their endings; a new one is a module and an entry here."""

import importlib
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from store.errors import ArrayError, InvalidKeyError
from store.ingest.files.arrays import MOST_ARRAYS, ArrayFile, check_form, reading
from store.model.names import check_tap


class Format(NamedTuple):
    """How files of one format are read.

    Attributes:
        module: of ``store.ingest.files``, imported on first use. Its ``open_file`` yields the
            arrays of a path, ``file`` and ``source`` not yet set, and may raise any error.
        needs: the library that the module imports.
        load: Python code that loads the arrays of ``path`` into a dict, where the library is.
        is_table: whether it is text or columns, which may lie beside a folder's files of arrays.
    """

    module: str
    needs: str = ""
    load: str = ""
    is_table: bool = False


_HDF5: Final = Format(
    "hdf5", "h5py", "import h5py; f = h5py.File(path); x = {k: f[k][:] for k in f}"
)
_PYTORCH: Final = Format(
    "pytorch",
    "torch",
    "import torch; t = torch.load(path, weights_only=True);"
    " x = {k: v.float().numpy() for k, v in t.items()}",
)
_MATLAB: Final = Format(
    "matlab",
    "scipy",
    "import scipy.io; m = scipy.io.loadmat(path); x = {k: v for k, v in m.items() if k[0] != '_'}",
)
_TABLE: Final = Format(
    "tables", "pyarrow", "x = {'x': numpy.loadtxt(path, delimiter=',', skiprows=1)}", is_table=True
)

FORMATS: Final = {
    ".npy": Format("numpy_files"), ".npz": Format("numpy_files"),
    ".safetensors": Format("safetensors"),
    ".pt": _PYTORCH, ".pth": _PYTORCH, ".h5": _HDF5, ".hdf5": _HDF5, ".mat": _MATLAB,
    ".csv": _TABLE, ".tsv": _TABLE, ".txt": _TABLE, ".parquet": _TABLE,
}  # fmt: skip
"""By endings in lower case."""

ZARR_MARKS: Final = ("zarr.json", ".zgroup", ".zarray")
_HDF5_MAGIC: Final = b"\x89HDF\r\n\x1a\n"
_HDF5_AT: Final = 512
_ADVICE: Final = "name what holds arrays"


def is_there(path: Path) -> bool:
    """Return whether a path exists; raises ArrayError where the system cannot say."""
    with reading(str(path)[:200], "check its name and who may read it"):
        try:
            path.stat()
        except FileNotFoundError:
            return False
        return True


def is_zarr(path: Path) -> bool:
    """Return whether a folder is Zarr's."""
    return path.suffix == ".zarr" or any((path / mark).is_file() for mark in ZARR_MARKS)


def open_path(path: Path, opened: ExitStack) -> list[ArrayFile]:
    """Open the arrays of a file or Zarr folder, in their order; ``opened`` closes them.

    Raises ArrayError where the file is damaged, holds unusable names or no arrays, or needs a
    library that is missing.
    """
    how = _format_of(path)
    try:
        module = importlib.import_module(f"store.ingest.files.{how.module}")
    except ImportError as error:
        install = f"python -m pip install {how.needs}"
        load = f"import numpy; path = '{path}'; {how.load}; numpy.savez('x.npz', **x)"
        raise ArrayError(
            f"{path} needs {how.needs}, which is not installed: {install}",
            remedy=f'or convert it where it is: python -c "{load}"',
        ) from error
    with reading(str(path), module.ADVICE):
        listed = list(islice(module.open_file(path, opened), MOST_ARRAYS + 1))
    if not 0 < len(listed) <= MOST_ARRAYS:
        found = f"more than {MOST_ARRAYS}" if listed else "no"
        raise ArrayError(str(path), f"holds {found} arrays", f"name a file of 1 to {MOST_ARRAYS}")
    alone = len(listed) == 1 and listed[0].name == path.stem
    return [_opened(path, array, module.ADVICE, alone) for array in listed]


def _opened(path: Path, array: ArrayFile, advice: str, alone: bool) -> ArrayFile:
    try:
        check_tap(array.name)
    except InvalidKeyError as error:
        found = f"holds an array with a name of {len(array.name)} characters: {error.finding}"
        raise ArrayError(str(path), found, remedy=error.remedy) from None
    source = str(path) if alone else f"{path}:{array.name}"
    opened = replace(array, file=path, source=source, advice=array.advice or advice)
    if opened.read is not None:
        check_form(opened)
    return opened


def _format_of(path: Path) -> Format:
    if not is_there(path):
        raise ArrayError(str(path), "does not exist", remedy=_ADVICE)
    if path.is_dir() and is_zarr(path):
        return Format("zarr_folder")
    if not path.is_file():
        raise ArrayError(str(path), "is no file", remedy=_ADVICE)
    found = FORMATS.get(path.suffix.lower())
    if found is None:
        endings = f"does not end in one of {', '.join(FORMATS)}"
        raise ArrayError(str(path), endings, remedy=f"{_ADVICE}, or save them as .npz")
    if found is _MATLAB:
        with reading(str(path), "check that it may be read"), path.open("rb") as stream:
            stream.seek(_HDF5_AT)  # of MATLAB 7.3
            return _HDF5 if stream.read(len(_HDF5_MAGIC)) == _HDF5_MAGIC else found
    return found
