"""The formats of files of arrays, by their endings; one more is a module and an entry here."""

import importlib
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

from store.errors import ArrayError
from store.ingest.files.arrays import Found, check_name, reading


class Format(NamedTuple):
    """What reads a file.

    Attributes:
        module: of ``store.ingest.files``, loaded when it is asked for.
        needs: library to install where it is missing.
        convert: lines of Python that make an .npz file where the library is.
        is_table: whether it is text or columns, which a folder of arrays may hold beside them.
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


def format_of(path: Path) -> Format:
    """Return how a file or Zarr folder is read; raises ArrayError for what is neither."""
    if not is_there(path):
        raise ArrayError(f"{path} does not exist; name what holds arrays")
    if path.is_dir() and is_zarr(path):
        return ZARR
    found = FORMATS.get(path.suffix.lower())
    if found is not None and path.is_file():
        return _HDF5 if found is _MATLAB and _is_hdf5(path) else found
    if not path.is_file():
        raise ArrayError(f"{path} is no file; name one that holds arrays")
    raise ArrayError(
        f"{path} does not end in one of {', '.join(FORMATS)}; name what holds arrays, or save them"
        " as .npz"
    )


def open_path(path: Path, opened: ExitStack) -> list[Found]:
    """Open the arrays of a file or Zarr folder, in their order; ``opened`` closes them.

    Raises ArrayError for what is damaged, has names of no use, or needs a library that is missing.
    """
    listed = _module(format_of(path), path).open_file(path, opened)
    for name, *_ in listed:
        check_name(path, name)
    if not listed:
        raise ArrayError(f"{path} holds no arrays; name a file that does")
    alone = len(listed) == 1 and listed[0].name == path.stem
    return [
        Found(name, str(path) if alone else f"{path}:{name}", array, path, remark)
        for name, array, remark in listed
    ]


def _module(how: Format, path: Path) -> Any:
    try:
        return importlib.import_module(f"store.ingest.files.{how.module}")
    except ImportError as error:
        raise ArrayError(
            f"{path} needs {how.needs}, which is not installed: python -m pip install {how.needs};"
            f' or convert it where it is: python -c "{how.convert.format(path=path)}"'
        ) from error


def _is_hdf5(path: Path) -> bool:
    """Return whether a .mat file is one of MATLAB 7.3."""
    with reading(str(path), "check that it may be read"), path.open("rb") as stream:
        stream.seek(_HDF5_AT)
        return stream.read(len(_HDF5_MAGIC)) == _HDF5_MAGIC
