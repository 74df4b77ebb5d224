"""Arrays of other libraries: read as NumPy's, and digested by their content alone."""

import hashlib
import re

import dask.array
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import xarray

import store
from store import ArrayError, QueryError
from store.model.array_interop import as_floats, as_numpy, as_real, as_sliced
from tests.strategies import batches, coordinates, make_meta, make_rows


def test_arrays_of_numpy_are_not_copied():
    values = np.arange(6.0)
    assert as_numpy(values) is values


def test_lists_and_arrays_of_jax_are_converted():
    np.testing.assert_array_equal(as_numpy([[1, 2]]), [[1, 2]])
    np.testing.assert_array_equal(as_numpy(jnp.asarray([1.5, 2.5])), [1.5, 2.5])


class Tensor:
    """Stands in for one of PyTorch, which may not be installed."""

    layout = "torch.strided"

    def __init__(self, values, dtype="torch.float32", place="cuda", grad=True):
        self.values, self.dtype, self.place, self.grad = np.asarray(values), dtype, place, grad
        self.shape = self.values.shape

    def detach(self):
        return Tensor(self.values, self.dtype, self.place, grad=False)

    def cpu(self):
        return Tensor(self.values, self.dtype, "cpu", self.grad)

    def float(self):
        return Tensor(self.values, "torch.float32", self.place, self.grad)

    def numpy(self):
        if self.grad or self.place != "cpu" or self.dtype not in ("torch.float32", "torch.int64"):
            raise TypeError("Got unsupported ScalarType")
        return self.values

    def __array__(self, dtype=None, copy=None):
        return self.numpy()

    def __getitem__(self, rows):
        return Tensor(self.values[rows], self.dtype, self.place, self.grad)


class SparseTensor(Tensor):
    layout = "torch.sparse_coo"


class MaskedTensor(Tensor):
    def get_mask(self):
        return np.arange(self.values.size).reshape(self.shape) != 1


class Lazy:
    """Gives rows of what it holds as slices."""

    def __init__(self, of):
        self.of, self.shape, self.dtype = of, of.shape, of.dtype

    def __getitem__(self, rows):
        return self.of[rows]


VALUES = np.float32([[1.5, -2], [0, 4]])
MASKED = np.ma.masked_less(VALUES, 0)
TAKEN = {
    "tensor": Tensor(VALUES),
    "tensor in bfloat16": Tensor(VALUES, "torch.bfloat16"),
    "tensor in float8": Tensor(VALUES, "torch.float8_e4m3fn"),
    "tensors in a list": [Tensor(row, "torch.bfloat16") for row in VALUES],
    "tensors of numbers": [[Tensor(x) for x in row] for row in VALUES],
    "arrays in a tuple": tuple(VALUES),
    "JAX's in a list": [jnp.asarray(row, jnp.bfloat16) for row in VALUES],
    "bfloat16": VALUES.astype(ml_dtypes.bfloat16),
    "float8": VALUES.astype(ml_dtypes.float8_e5m2),
    "mask that hides nothing": np.ma.masked_array(VALUES),
    "matrix": np.array(VALUES).view(type("Own", (np.ndarray,), {})),
    "Dask": dask.array.from_array(VALUES, chunks=1),
    "xarray": xarray.DataArray(VALUES),
    "xarray of Dask": xarray.DataArray(dask.array.from_array(VALUES, chunks=1)),
    "table": pd.DataFrame(VALUES),
    "table that may lack values": pd.DataFrame(VALUES).astype("Float32"),
    "table of two types": pd.DataFrame(VALUES).astype({0: "Float64", 1: "Int64"}),
    "sparse table": pd.DataFrame(VALUES).astype(pd.SparseDtype("float32", 0)),
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_is_taken(name):
    found = as_floats(TAKEN[name], "X")
    assert type(found) is np.ndarray
    assert found.dtype in (np.float32, np.float64)
    np.testing.assert_array_equal(found, VALUES)


def test_truths_beside_numbers_are_numbers():
    found = as_floats(pd.DataFrame({"a": [True, False], "b": [2.5, 1.0]}))
    np.testing.assert_array_equal(found, [[1, 2.5], [0, 1]])


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (bool, np.float32), (np.int8, np.float32), (np.uint16, np.float32), (np.int32, np.float64),
        (np.uint64, np.float64), (ml_dtypes.int4, np.float32), (ml_dtypes.bfloat16, np.float32),
        (np.float16, np.float16), (">f4", ">f4"), (np.float64, np.float64),
    ],
)  # fmt: skip
def test_floats_are_those_that_hold_the_values(given, wanted):
    values = np.array([[0, 1], [1, 3]]).astype(given)
    found = as_floats(values)
    assert found.dtype == wanted
    np.testing.assert_array_equal(found, np.array(values, np.float64))


NOT_MASKED = r"^X has masked values, which are no numbers; fill them, as values\.filled\(\.\.\.\)"
NO_REAL = "^X is of type .*; wanted are real numbers, floating point, integer or boolean$"
REFUSED = {
    "masked": (MASKED, NOT_MASKED),
    "masked rows": (list(MASKED), NOT_MASKED),
    "a masked number": ([[1.0, np.ma.masked], [0.0, 1.0]], NOT_MASKED),
    "masked in Dask": (dask.array.from_array(MASKED, chunks=1), NOT_MASKED),
    "masked tensor": (MaskedTensor(VALUES), NOT_MASKED),
    "sparse": (scipy.sparse.csr_array(VALUES), r"^X is sparse; .*, as values\.toarray\(\) does$"),
    "a sparse matrix": (scipy.sparse.coo_matrix(VALUES), r"^X is sparse; give it as a dense"),
    "sparse rows": ([scipy.sparse.csr_array(VALUES)], r"^X is sparse; give it as a dense"),
    "sparse tensor": (SparseTensor(VALUES), r"^X is sparse; .*, as values\.to_dense\(\) does$"),
    "missing": (pd.DataFrame({"a": [1.0, 2], "b": pd.array([1, None], dtype="Int64")}),
                "^X has missing values; fill them, or leave their examples out$"),
    "all missing": (pd.array([None, None], dtype="Float64"), "^X has missing values"),
    "missing in a list": ([pd.array([1, None], dtype="Int64")], "^X has missing values"),
    "records": (np.zeros(2, [("a", "f4"), ("b", "f4")]), NO_REAL),
    "masked records": (np.ma.zeros(2, [("a", "f4")]), NO_REAL),
    "objects": (VALUES.astype(object), NO_REAL),
    "raw bytes": (np.zeros((2, 2), "V2"), NO_REAL),
    "complex": (VALUES.astype(complex), NO_REAL),
    "dates": (VALUES.astype("M8[s]"), NO_REAL),
    "durations": (VALUES.astype("m8[s]"), NO_REAL),
    "text": ([["a", "b"]], NO_REAL),
    "text and numbers": ([[1.0, 2.0], ["a", "b"]], NO_REAL),
    "strings": (np.array(["a"], np.dtypes.StringDType()), NO_REAL),
    "a table of texts": (pd.DataFrame({"a": ["x"], "b": [1.0]}), NO_REAL),
    "an empty table": (pd.DataFrame(), "^X cannot be made an array of NumPy's: need at least"),
    "nothing": (None, NO_REAL),
    "a mapping": ({"a": 1}, NO_REAL),
    "huge integers": ([[2**70]], NO_REAL),
    "ragged": ([[1.0], [1.0, 2.0]], "^X cannot be made an array of NumPy's: setting an array"),
    "a data set": (xarray.Dataset({"a": ("x", [1.0])}), "^X cannot be made an array of NumPy's: c"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name):
    values, message = REFUSED[name]
    with pytest.raises(ArrayError, match=message):
        as_real(values, "X")


def test_a_slice_is_looked_at_when_it_is_read():
    sliced = as_sliced(Lazy(MASKED), "X")
    np.testing.assert_array_equal(as_real(sliced[1:], "X"), VALUES[1:])
    with pytest.raises(ArrayError, match=NOT_MASKED):
        as_real(sliced[:1], "X")


@pytest.mark.parametrize("name", ["masked", "a sparse matrix", "missing", "masked tensor"])
def test_what_shows_at_once_is_refused_before_any_rows_are_read(name):
    with pytest.raises(ArrayError, match=REFUSED[name][1]):
        as_sliced(REFUSED[name][0], "X")


def test_tables_are_not_sliced():
    """Their slices go by labels where the index holds floats."""
    frame = pd.DataFrame(VALUES, index=[10.0, 0.5])
    np.testing.assert_array_equal(as_sliced(frame, "X")[0:1], VALUES[:1])


def test_masked_coordinates_are_refused(tmp_path):
    masked = np.ma.masked_equal(np.arange(10), 3)
    meta = make_meta()
    for place in range(2):
        given = list(coordinates(meta))
        given[place] = masked
        with pytest.raises(ArrayError, match=r"(samples|labels) of allcnn-.* has masked values"):
            store.Writer.open(tmp_path / "a.zarr", meta, *given)
    assert list(tmp_path.iterdir()) == []


def test_masked_choices_are_refused(tmp_path):
    meta = make_meta()
    with store.Writer.open(tmp_path / "a.zarr", meta, *coordinates(meta)) as writer:
        for rows in batches(meta, make_rows(meta)):
            writer.append(rows)
    tap = store.open(tmp_path / "a.zarr")[meta.key]
    chosen = np.ma.masked_equal([0, 1, 2], 1)
    with pytest.raises(QueryError, match="rows of allcnn"):
        tap.select(rows=chosen)
    with pytest.raises(ArrayError, match=r"^label has masked values"):
        tap.select(label=chosen)


def test_tensors_with_gradients_are_converted():
    torch = pytest.importorskip("torch", reason="PyTorch comes with the extra 'bench'")
    tensor = torch.tensor([1.5, -2.0], requires_grad=True) * 2
    np.testing.assert_array_equal(as_numpy(tensor), [3.0, -4.0])


def test_bfloat16_of_torch_becomes_float32_without_loss():
    torch = pytest.importorskip("torch", reason="PyTorch comes with the extra 'bench'")
    values = [1.0078125, 3e38, float("inf")]
    found = as_numpy(torch.tensor(values, dtype=torch.bfloat16))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, as_numpy(jnp.asarray(values, jnp.bfloat16)))


def test_the_digest_is_of_sorted_names_types_shapes_and_bytes():
    a, b = np.float32([[1, 2]]), np.int64([3])
    wanted = hashlib.sha256(
        b"a float32 (1, 2)\n" + a.tobytes() + b"b int64 (1,)\n" + b.tobytes()
    ).hexdigest()
    assert store.digest({"b": b, "a": a}) == f"sha256:{wanted}"


def test_the_digest_is_of_values_in_the_order_of_rows():
    values = np.arange(6.0).reshape(2, 3)
    assert store.digest({"a": np.asfortranarray(values)}) == store.digest({"a": values})
    assert store.digest({"a": values[:, ::-1][:, ::-1]}) == store.digest({"a": values})


@pytest.mark.parametrize(
    "other",
    [
        {"b": np.float32([1, 2])},
        {"a": np.float64([1, 2])},
        {"a": np.float32([[1, 2]])},
        {"a": np.float32([1, 3])},
        {"a": np.float32([1, 2]), "b": np.float32([])},
    ],
)
def test_other_arrays_have_another_digest(other):
    assert store.digest(other) != store.digest({"a": np.float32([1, 2])})


def test_a_state_dict_of_torch_has_the_digest_of_its_arrays():
    torch = pytest.importorskip("torch", reason="PyTorch comes with the extra 'bench'")
    network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    arrays = {name: value.numpy() for name, value in network.state_dict().items()}
    assert store.digest(network.state_dict()) == store.digest(arrays)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([{}]), "'w' is of type object; wanted are real numbers"),
        (np.array(["a"]), "'w' is of type <U1; wanted are real numbers"),
        (np.array([1j]), "'w' is of type complex128; wanted are real numbers"),
        (np.ma.masked_less([1.0, 2.0], 2), "'w' has masked values, which are no numbers; fill"),
    ],
)
def test_a_digest_is_of_real_numbers(values, message):
    with pytest.raises(ArrayError, match=f"^{re.escape(message)}"):
        store.digest({"w": values})


@pytest.mark.parametrize("arrays", [None, [np.ones(3)], object()])
def test_a_digest_is_of_a_mapping(arrays):
    with pytest.raises(ArrayError, match="a digest is of a mapping of names to arrays, and got a"):
        store.digest(arrays)


def test_texts_change_a_digest_in_their_order():
    arrays = {"a": np.float32([1, 2])}
    texts = [(), ("x",), ("y",), ("x", "y"), ("y", "x"), ("xy",), ("",)]
    assert len({store.digest(arrays, *each) for each in texts}) == len(texts)
    assert store.digest(arrays, "x") == store.digest(arrays, "x")


def test_a_second_mapping_is_not_taken_for_a_text():
    with pytest.raises(ArrayError, match=r"^a digest is of one mapping and texts, and got a dict;"):
        store.digest({"a": np.ones(1)}, {"b": np.ones(1)})
