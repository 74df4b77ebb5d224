"""Files of arrays, as their own libraries write them."""

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest
import zarr

from store.ingest.files.folders import open_arrays


def _h5(path, arrays, order=True):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w", track_order=order) as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values, compression="gzip" if values.ndim else None)


def _safetensors(path, arrays):
    library = pytest.importorskip("safetensors.numpy")
    library.save_file({name: np.array(X, order="C") for name, X in arrays.items()}, path)


def _pt(path, arrays):
    torch = pytest.importorskip("torch", reason="PyTorch comes with the extra 'bench'")
    torch.save({name: torch.from_numpy(values) for name, values in arrays.items()}, path)


def _mat(path, arrays):
    pytest.importorskip("scipy.io").savemat(path, arrays, do_compression=True)


def _zarr(version):
    def write(path, arrays):
        root = zarr.open_group(path, mode="w", zarr_format=version)
        for name, values in arrays.items():
            root.create_array(name, data=values)

    return write


WRITERS = {
    ".npz": lambda path, arrays: np.savez(path, **arrays),
    ".safetensors": _safetensors,
    ".pt": _pt,
    ".h5": _h5,
    ".mat": _mat,
    "-2.zarr": _zarr(2),
    "-3.zarr": _zarr(3),
}
"""What writes several arrays, by the end of the file's name."""


def _table(values, names):
    return pyarrow.table(list(values.T), names=names)


TABLES = {
    ".csv": lambda path, table: pyarrow.csv.write_csv(table, path),
    ".parquet": lambda path, table: pyarrow.parquet.write_table(table, path),
}
"""What writes one table."""


def read_arrays(*paths, stack=None):
    """Read all arrays of some files, by their names."""
    with open_arrays(paths, stack) as found:
        return {each.name: each.read_all() for each in found.arrays}


def write_table(path, values, names):
    """Write columns of numbers."""
    TABLES[path.suffix](path, _table(values, names))
