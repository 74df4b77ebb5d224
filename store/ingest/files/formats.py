"""The formats of files of arrays, by their endings; a new one is a module and an entry here."""

import importlib
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from store.errors import ArrayError, InvalidKeyError
from store.ingest.files.arrays import ArrayFile, check_form, reading
from store.model.names import check_tap


class Format(NamedTuple):
    """How files of one format are read.

    Attributes:
        module: of ``store.ingest.files``, imported on first use.
        needs: the library that the module imports.
        convert: Python code that writes an .npz file where this library is installed.
        is_table: whether it is text or columns, which may lie beside a folder's files of arrays.
    """

    module: str
    needs: str = ""
    convert: str = ""
    is_table: bool = False


_HDF5: Final = Format(
    "hdf5",
    "h5py",
    "import h5py, numpy; f = h5py.File('{path}');"
    " numpy.savez('x.npz', **{{k: f[k][:] for k in f}})",
)
_PYTORCH: Final = Format(
    "pytorch",
    "torch",
    "import numpy, torch; t = torch.load('{path}', weights_only=True);"
    " numpy.savez('x.npz', **{{k: v.float().numpy() for k, v in t.items()}})",
)
_MATLAB: Final = Format(
    "matlab",
    "scipy",
    "import numpy, scipy.io; m = scipy.io.loadmat('{path}');"
    " numpy.savez('x.npz', **{{k: v for k, v in m.items() if k[0] != '_'}})",
)
_TABLE: Final = Format(
    "tables",
    "pyarrow",
    "import numpy; x = numpy.loadtxt('{path}', delimiter=',', skiprows=1);"
    " numpy.savez('x.npz', x=x)",
    is_table=True,
)

FORMATS: Final = {
    ".npy": Format("npy"),
    ".npz": Format("npz"),
    ".safetensors": Format("safetensors"),
    ".pt": _PYTORCH,
    ".pth": _PYTORCH,
    ".h5": _HDF5,
    ".hdf5": _HDF5,
    ".mat": _MATLAB,
    ".csv": _TABLE,
    ".tsv": _TABLE,
    ".txt": _TABLE,
    ".parquet": _TABLE,
}
"""By endings in lower case."""

ZARR: Final = Format("zarr_folder")
"""Of folders."""

ZARR_MARKS: Final = ("zarr.json", ".zgroup", ".zarray")
_HDF5_MAGIC: Final = b"\x89HDF\r\n\x1a\n"
_HDF5_AT: Final = 512
_ADVICE: Final = "name what holds arrays"


def is_there(path: Path) -> bool:
    """Return whether a path exists; raises ArrayError where the system cannot tell."""
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
    module = _import_reader(path)
    with reading(str(path), module.ADVICE):
        listed = module.open_file(path, opened)
    if not listed:
        raise ArrayError(str(path), "holds no arrays", remedy="name a file that does")
    alone = len(listed) == 1 and listed[0].name == path.stem
    return [_opened(path, array, module.ADVICE, alone) for array in listed]


def _opened(path: Path, array: ArrayFile, advice: str, alone: bool) -> ArrayFile:
    try:
        check_tap(array.name)
    except InvalidKeyError as error:
        found = f"holds an array with a name of {len(array.name)} characters"
        raise ArrayError(str(path), found, remedy=error.remedy) from None
    source = str(path) if alone else f"{path}:{array.name}"
    opened = replace(array, file=path, source=source, advice=array.advice or advice)
    if opened.read is not None:
        check_form(opened)
    return opened


def _import_reader(path: Path) -> Any:
    how = _format_of(path)
    try:
        return importlib.import_module(f"store.ingest.files.{how.module}")
    except ImportError as error:
        raise ArrayError(
            f"{path} needs {how.needs}, which is not installed: python -m pip install {how.needs}",
            remedy=f'or convert it where it is: python -c "{how.convert.format(path=path)}"',
        ) from error


def _format_of(path: Path) -> Format:
    if not is_there(path):
        raise ArrayError(str(path), "does not exist", remedy=_ADVICE)
    if path.is_dir() and is_zarr(path):
        return ZARR
    if not path.is_file():
        raise ArrayError(str(path), "is no file", remedy=_ADVICE)
    found = FORMATS.get(path.suffix.lower())
    if found is None:
        endings = f"does not end in one of {', '.join(FORMATS)}"
        raise ArrayError(str(path), endings, remedy=f"{_ADVICE}, or save them as .npz")
    return _HDF5 if found is _MATLAB and _is_hdf5(path) else found


def _is_hdf5(path: Path) -> bool:
    """Return whether a .mat file is one of MATLAB 7.3."""
    with reading(str(path), "check that it may be read"), path.open("rb") as stream:
        stream.seek(_HDF5_AT)
        return stream.read(len(_HDF5_MAGIC)) == _HDF5_MAGIC
