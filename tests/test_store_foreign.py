"""Arrays of other libraries: read as NumPy's, and digested by their content alone."""

import hashlib
import re

import jax.numpy as jnp
import numpy as np
import pytest

import store
from store import ArrayError
from store.foreign import as_numpy


def test_arrays_of_numpy_are_not_copied():
    values = np.arange(6.0)
    assert as_numpy(values) is values


def test_lists_and_arrays_of_jax_are_converted():
    np.testing.assert_array_equal(as_numpy([[1, 2]]), [[1, 2]])
    np.testing.assert_array_equal(as_numpy(jnp.asarray([1.5, 2.5])), [1.5, 2.5])


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


@pytest.mark.parametrize("values", [np.array([{}]), np.array(["a"]), np.array([1j])])
def test_a_digest_is_of_real_numbers(values):
    message = f"'w' is of type {values.dtype}; wanted are real numbers"
    with pytest.raises(ArrayError, match=f"^{re.escape(message)}"):
        store.digest({"w": values})


@pytest.mark.parametrize("arrays", [None, [np.ones(3)], object()])
def test_a_digest_is_of_a_mapping(arrays):
    with pytest.raises(ArrayError, match="a digest is of a mapping of names to arrays, and got a"):
        store.digest(arrays)


def test_a_digest_is_not_of_masked_arrays():
    with pytest.raises(ArrayError, match=r"^'w' is a masked array, and masks are not stored"):
        store.digest({"w": np.ma.masked_less([1.0, 2.0], 2)})


def test_texts_change_a_digest_in_their_order():
    arrays = {"a": np.float32([1, 2])}
    texts = [(), ("x",), ("y",), ("x", "y"), ("y", "x"), ("xy",), ("",)]
    assert len({store.digest(arrays, *each) for each in texts}) == len(texts)
    assert store.digest(arrays, "x") == store.digest(arrays, "x")


def test_a_second_mapping_is_not_taken_for_a_text():
    with pytest.raises(ArrayError, match=r"^a digest is of one mapping and texts, and got a dict;"):
        store.digest({"a": np.ones(1)}, {"b": np.ones(1)})
