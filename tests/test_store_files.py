"""Arrays in files: read in slices, as their own libraries wrote them."""

import re
import tracemalloc

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import zarr

from store import ArrayError
from store.ingest.files import formats
from store.ingest.files.folders import open_array, open_arrays
from tests.arrayfiles import WRITERS, read_arrays, write_table

A = np.arange(60, dtype=np.float32).reshape(10, 3, 2)
B = np.asfortranarray(np.arange(40, dtype=">f8").reshape(10, 4))
SLICES = [slice(0, 10), slice(2, 5), slice(0, 3), slice(8, 99), slice(4, 4), slice(9, 2)]


def names(*paths, stack=None):
    with open_arrays(paths, stack) as found:
        return [each.name for each in found.arrays]


def only(path):
    with open_array(str(path)) as found:
        return np.array(found.read_all())


def check_slices(array, wanted):
    assert (array.shape, array.dtype) == (wanted.shape, wanted.dtype)
    for rows in SLICES:
        np.testing.assert_array_equal(array[rows], wanted[rows])


@pytest.mark.parametrize("end", WRITERS)
def test_arrays_are_read_in_any_order_of_slices(tmp_path, end):
    path = tmp_path / f"a{end}"
    arrays = {"b": B.astype("<f8"), "a": A, "c": np.arange(20, dtype=np.int16).reshape(10, 2)}
    WRITERS[end](path, arrays)
    with open_arrays([path]) as found:
        assert {each.name for each in found.arrays} == set(arrays)
        for each in found.arrays:
            assert each.source == f"{path}:{each.name}"
            check_slices(each, arrays[each.name])


@pytest.mark.parametrize("end", [".npz", ".pt", ".h5", ".mat"])
def test_the_order_of_the_file_is_kept(tmp_path, end):
    WRITERS[end](tmp_path / f"x{end}", {"b": A, "c": A, "a": A})
    assert names(tmp_path / f"x{end}") == ["b", "c", "a"]


@pytest.mark.parametrize("end", [".h5", "-2.zarr", "-3.zarr"])
def test_where_there_is_no_order_numbers_are_counted(tmp_path, end):
    how = {"order": False} if end == ".h5" else {}
    WRITERS[end](tmp_path / f"x{end}", {"layer10": A, "layer9": A}, **how)
    assert names(tmp_path / f"x{end}") == ["layer9", "layer10"]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_members_are_read_in_any_order_of_slices(tmp_path, save):
    save(tmp_path / "a.npz", b=B, a=A)
    with open_arrays([tmp_path / "a.npz"]) as found:
        for each, wanted in zip(found.arrays, (B, A), strict=True):
            check_slices(each, wanted)


def test_files_are_mapped(tmp_path):
    for name, values in {"a": A, "b": B}.items():
        np.save(tmp_path / f"{name}.npy", values)
    with open_arrays([tmp_path / "b.npy", tmp_path / "a.npy"]) as found:
        assert [each.name for each in found.arrays] == ["b", "a"]
        for each, wanted in zip(found.arrays, (B, A), strict=True):
            assert isinstance(each[0:3].base, np.memmap)
            np.testing.assert_array_equal(each.read_all(), wanted)


def test_a_folder_is_its_files_with_numbers_counted(tmp_path):
    for name in ("layer10", "layer9", "layer1.1", "layer1.0", "a", ".hidden"):
        np.save(tmp_path / f"{name}.npy", A)
    (tmp_path / "notes.txt").write_text("mine")
    with open_arrays([tmp_path]) as found:
        assert [each.name for each in found.arrays] == [
            "a", "layer1.0", "layer1.1", "layer9", "layer10",
        ]  # fmt: skip
        assert found.notes == [f"of {tmp_path}, notes.txt are passed over"]
    (tmp_path / "labels.csv").write_text("label\n1\n")
    with open_arrays([tmp_path]) as found:
        assert found.notes == [
            f"of {tmp_path}, labels.csv, notes.txt are passed over; name {tmp_path}/labels.csv with"
            " --labels or --samples if it is of these rows"
        ]


def test_names_may_have_dots(tmp_path):
    np.savez(tmp_path / "a.npz", **{"layer1.0.conv1": A})
    assert names(tmp_path / "a.npz") == ["layer1.0.conv1"]


@pytest.mark.parametrize("end", [".npz", ".h5", ".safetensors", "-3.zarr"])
def test_an_array_is_never_whole_in_memory(tmp_path, end):
    values = np.ones((4000, 1000), np.float32)
    WRITERS[end](tmp_path / f"a{end}", {"a": values})
    with open_arrays([tmp_path / f"a{end}"]) as found:
        array = found.arrays[0]
        array[0:100]
        tracemalloc.start()
        for start in range(0, 4000, 100):
            assert array[start : start + 100].all()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < values.nbytes / 4


@pytest.mark.parametrize("end", ["npy", *WRITERS])
@pytest.mark.parametrize("values", [np.zeros((0, 3)), np.array(3.0)], ids=["empty", "scalar"])
def test_empty_arrays_and_scalars_have_their_shapes(tmp_path, end, values):
    if end == ".mat":
        pytest.skip("MATLAB has no arrays of fewer than two axes")
    path = tmp_path / f"x.{end}"
    np.save(path, values) if end == "npy" else WRITERS[end](path, {"x": values})
    found = only(path)
    assert found.shape == values.shape
    np.testing.assert_array_equal(found, values)


def as_bfloat16(values):
    """Round to nearest even by the definition: the nearest of all 65,536 values."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    return values.astype(ml_dtypes.bfloat16)


def test_bfloat16_is_read_from_all_that_hold_it(tmp_path):
    values = as_bfloat16(np.random.default_rng(0).standard_normal((10, 3)))
    wanted = values.astype(np.float32)
    np.save(tmp_path / "x.npy", values)
    np.savez(tmp_path / "x.npz", x=values)
    torch = pytest.importorskip("torch", reason="PyTorch comes with the extra 'bench'")
    tensor = torch.from_numpy(wanted).to(torch.bfloat16)
    torch.save(tensor, tmp_path / "x.pt")
    pytest.importorskip("safetensors.torch").save_file({"x": tensor}, tmp_path / "x.safetensors")
    for end in ("npy", "npz", "pt", "safetensors"):
        found = only(tmp_path / f"x.{end}")
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, wanted)
    with open_arrays([tmp_path / "x.npy"]) as found:
        assert "two raw bytes a value, as np.save writes bfloat16" in found.arrays[0].remark


def test_other_narrow_types_are_named(tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    np.save(tmp_path / "x.npy", np.zeros((10, 3), ml_dtypes.float8_e4m3fn))
    message = (
        r"x.npy has 1 raw byte\(s\) a value, as np.save writes float8 and other .* save x.astype"
    )
    with pytest.raises(ArrayError, match=message):
        only(tmp_path / "x.npy")


def test_tensors_may_be_nested_and_alone(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch comes with the extra 'bench'")
    tensor = torch.arange(20.0).reshape(10, 2).requires_grad_()
    torch.save({"block": [tensor, {"a": tensor.T.contiguous().T}], "epoch": 3}, tmp_path / "x.pt")
    assert names(tmp_path / "x.pt") == ["block.0", "block.1.a", "epoch"]
    np.testing.assert_array_equal(only(f"{tmp_path}/x.pt:block.1.a"), tensor.detach().numpy())
    torch.save(tensor, tmp_path / "layer.pt", _use_new_zipfile_serialization=False)
    np.testing.assert_array_equal(only(tmp_path / "layer.pt"), tensor.detach().numpy())


def test_groups_of_hdf5_and_zarr_give_paths(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["block/conv"] = A
        file["names"] = ["cat", "dög"]
    root = zarr.open_group(tmp_path / "x.zarr", mode="w")
    root.create_group("block").create_array("conv", data=A)
    root.create_array("names", shape=(2,), dtype=str)[:] = np.array(["cat", "dög"])
    for end in ("h5", "zarr"):
        np.testing.assert_array_equal(only(f"{tmp_path}/x.{end}:block/conv"), A)
        assert list(only(f"{tmp_path}/x.{end}:names")) == ["cat", "dög"]


def test_a_zarr_array_is_one_file_and_missing_chunks_are_said(tmp_path):
    values = np.concatenate([np.zeros((4, 3)), np.ones((4, 3))])
    zarr.create_array(tmp_path / "x.zarr", data=values, chunks=(4, 3))
    with open_arrays([tmp_path / "x.zarr"]) as found:
        (each,) = found.arrays
        assert (each.name, each.source) == ("x", str(tmp_path / "x.zarr"))
        np.testing.assert_array_equal(each[0:8], values)
        assert re.match(r"lacks 1 of 2 chunks, which are read as 0\.0", each.remark)


def test_matlab_7_3_has_its_axes_in_reverse(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.mat", "w", userblock_size=512) as file:
        file["a"] = A.T
        file["a"].attrs["MATLAB_class"] = np.bytes_("single")
        file["#refs#/b"] = A
    with open_arrays([tmp_path / "x.mat"]) as found:
        check_slices(found.arrays[0], A)
        assert len(found.arrays) == 1


def test_what_matlab_holds_besides_matrices_cannot_be_read(tmp_path):
    io = pytest.importorskip("scipy.io")
    io.savemat(tmp_path / "x.mat", {"s": {"a": 1}, "c": np.array(["a", 2], object)})
    for name in "sc":
        with pytest.raises(ArrayError, match=rf"x\.mat:{name} is a \w+; save it as a matrix"):
            only(f"{tmp_path}/x.mat:{name}")


@pytest.mark.parametrize("end", [".csv", ".parquet"])
@pytest.mark.parametrize(
    ("features", "shape"),
    [
        ([f"c{i}" for i in range(6)], (6,)),
        ([f"p{i}_c{j}" for i in range(2) for j in (0, 4, 7)], (2, 3)),
        ([f"y{i}_x{j}_c{k}" for i in range(3) for j in range(2) for k in (5,)], (3, 2, 1)),
        ([f"p{i}_c{j}" for j in range(3) for i in range(2)], (6,)),
        ([f"p{i}_c{j}" for i, j in zip("001122", "012301", strict=True)], (6,)),
        (["c1", "c0", "c2", "c3", "c4", "c5"], (6,)),
        (["c0", "p0_c1", "c2", "c3", "c4", "c5"], (6,)),
        (list("uvwxyz".replace("y", "t")), (6,)),
    ],
)
def test_columns_become_one_array_of_the_shape_in_their_names(tmp_path, end, features, shape):
    path = tmp_path / f"conv1{end}"
    values = np.random.default_rng(0).standard_normal((10, 6)).astype(np.float32)
    full = np.column_stack([np.arange(10), values, np.arange(10) % 3])
    write_table(path, full, ["sample", *features, "label"])
    by_name = read_arrays(path)
    assert list(by_name) == ["conv1", "sample", "label"]
    np.testing.assert_array_equal(by_name["conv1"].reshape(10, -1), values)
    assert by_name["conv1"].shape[1:] == shape
    np.testing.assert_array_equal(by_name["label"], np.arange(10) % 3)


@pytest.mark.parametrize("delimiter", [" ", "\t", ",", ";"])
def test_tables_without_a_header_are_numbers(tmp_path, delimiter):
    values = np.random.default_rng(0).standard_normal((10, 3))
    np.savetxt(tmp_path / "features.txt", values, delimiter=delimiter)
    np.testing.assert_array_equal(only(tmp_path / "features.txt"), values)


@pytest.mark.parametrize("header", ["", "label\n", "Class\n"])
def test_a_list_of_texts_needs_no_header(tmp_path, header):
    (tmp_path / "x.txt").write_text(f"{header}cat\ndog\n")
    assert only(tmp_path / "x.txt").tolist() == ["cat", "dog"]


def test_a_list_of_numbers_may_have_a_header(tmp_path):
    for name, header in (("a", ""), ("b", "label\n"), ("c", "what\n")):
        (tmp_path / f"{name}.csv").write_text(f"{header}3\n1\n")
        assert only(tmp_path / f"{name}.csv").tolist() == [3, 1]


def test_decimal_commas_are_no_delimiters(tmp_path):
    (tmp_path / "x.csv").write_text("a;b\n1,5;2\n3,25;4\n")
    by_name = read_arrays(tmp_path / "x.csv")
    assert by_name["x"].tolist() == [[2], [4]]
    assert by_name["a"].tolist() == ["1,5", "3,25"]


def test_columns_that_are_no_features_are_arrays_of_their_own(tmp_path):
    """As pandas writes them, whose first column has no name."""
    lines = ["," + "id,u,v,kind", "0,7,.5,1,cat", "1,8,.25,2,dog"]
    (tmp_path / "x.csv").write_text("\n".join(lines))
    assert {name: each.tolist() for name, each in read_arrays(tmp_path / "x.csv").items()} == {
        "x": [[0.5, 1], [0.25, 2]],
        "column-0-without-a-name": [0, 1],
        "id": [7, 8],
        "kind": ["cat", "dog"],
    }


def test_columns_of_lists_are_rows(tmp_path):
    table = pyarrow.table({"embedding": [[1.0, 2.0], [3.0, 4.0]], "odd": [[1], [2, 3]]})
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet")
    found = only(f"{tmp_path}/x.parquet:embedding")
    np.testing.assert_array_equal(found, [[1, 2], [3, 4]])
    with pytest.raises(ArrayError, match="holds lists that differ; write as many numbers"):
        only(f"{tmp_path}/x.parquet:odd")


def save_each(folder, arrays, suffix=".npy"):
    folder.mkdir()
    for index, values in enumerate(arrays):
        path = folder / f"image{index}{suffix}"
        np.save(path, values) if suffix == ".npy" else np.savez(path, **values)


X = np.random.default_rng(0).standard_normal((12, 3, 2)).astype(np.float32)


@pytest.mark.parametrize(
    "shape", [(6,), (1, 6), (1, 3, 2), (1, 1, 6)], ids=["(c,)", "(1, c)", "(1, t, c)", "(1, 1, c)"]
)
def test_a_file_an_example_is_recognised(tmp_path, shape):
    save_each(tmp_path / "conv", X.reshape(12, *shape))
    np.save(tmp_path / "conv" / "labels.npy", np.arange(12))
    with open_arrays([tmp_path / "conv"]) as found:
        each, labels = found.arrays
        assert (each.name, each.source) == ("conv", str(tmp_path / "conv"))
        wanted = X.reshape(12, *(shape[1:] if shape[0] == 1 else shape))
        assert each.shape == wanted.shape
        for rows in (slice(0, 12), slice(9, 11), slice(3, 3)):  # image10 after image9
            np.testing.assert_array_equal(each[rows], wanted[rows])
        assert labels.name == "labels"
    assert found.notes == [
        f"the 12 files of {tmp_path}/conv are taken as one example each, in the order of image0.npy"
        " to image11.npy; --no-stack takes each as a layer"
    ]
    if len(shape) > 1:
        assert len(names(tmp_path / "conv", stack=False)) == 13


def test_files_of_several_layers_each_are_stacked_by_name(tmp_path):
    files = [{"fc": x.reshape(-1), "conv": x, "label": i % 2, "epoch": 3} for i, x in enumerate(X)]
    save_each(tmp_path / "all", files, ".npz")
    by_name = read_arrays(tmp_path / "all")
    np.testing.assert_array_equal(by_name["fc"], X.reshape(12, 6))
    np.testing.assert_array_equal(by_name["conv"], X)
    np.testing.assert_array_equal(by_name["label"], np.arange(12) % 2)
    assert set(by_name) == {"fc", "conv", "label", "epoch"}


def test_stacked_files_of_bfloat16_say_so(tmp_path):
    save_each(tmp_path / "fc", as_bfloat16(X.reshape(12, 6)))
    with open_arrays([tmp_path / "fc"]) as found:
        (each,) = found.arrays
        assert "two raw bytes a value" in each.remark
        np.testing.assert_array_equal(each[3:5], as_bfloat16(X.reshape(12, 6))[3:5])


def test_folders_of_examples_are_a_layer_each(tmp_path):
    for name in "ab":
        save_each(tmp_path / name, X.reshape(12, 6))
    assert names(tmp_path / "a", tmp_path / "b") == ["a", "b"]


def test_what_may_be_layers_or_examples_has_to_be_said(tmp_path):
    save_each(tmp_path / "some", X)
    message = (
        r"the 12 files of .*some hold arrays of the same shape, \(3, 2\); say with --stack that"
        r" each is an example, or with --no-stack that each is a layer"
    )
    with pytest.raises(ArrayError, match=message):
        names(tmp_path / "some")
    np.testing.assert_array_equal(read_arrays(tmp_path / "some", stack=True)["some"], X)
    assert len(names(tmp_path / "some", stack=False)) == 12


def test_layers_of_as_many_rows_as_examples_stay_layers(tmp_path):
    save_each(tmp_path / "blocks", [X.reshape(12, 6)] * 12)
    assert len(names(tmp_path / "blocks")) == 12


def test_stacked_files_have_one_shape(tmp_path):
    save_each(tmp_path / "odd", [*X, X[:, :1][0]])
    with pytest.raises(ArrayError, match=r"image12.npy is stacked with others, and its array"):
        read_arrays(tmp_path / "odd", stack=True)


def test_a_folder_has_files_of_one_format(tmp_path):
    np.save(tmp_path / "a.npy", A)
    np.savez(tmp_path / "b.npz", b=A)
    message = (
        rf"holds files of 2 formats, \.npy, \.npz; name files of one, such as {tmp_path}/\*\.npy"
    )
    with pytest.raises(ArrayError, match=message):
        names(tmp_path)


def test_one_of_several_arrays_is_named_after_a_colon(tmp_path):
    np.savez(tmp_path / "a.npz", x=A, y=B)
    np.testing.assert_array_equal(only(f"{tmp_path}/a.npz:y"), B)
    for text, count in ((f"{tmp_path}/a.npz", 2), (f"{tmp_path}/a.npz:z", 0)):
        message = (
            rf"names {count} arrays of .*a\.npz, which holds x, y; name one, as in .*a\.npz:x$"
        )
        with pytest.raises(ArrayError, match=message):
            only(text)


def test_a_missing_library_is_named_with_what_converts(tmp_path, monkeypatch):
    (tmp_path / "a.h5").write_bytes(b"")
    monkeypatch.setitem(formats.FORMATS, ".h5", formats.FORMATS[".h5"]._replace(module="absent"))
    message = (
        r"a\.h5 needs h5py, which is not installed: python -m pip install h5py; .* -c"
        r' "import numpy; .* import h5py'
    )
    with pytest.raises(ArrayError, match=message):
        names(tmp_path / "a.h5")


@pytest.mark.parametrize("end", [".h5", ".pt", ".mat"])
def test_the_lines_that_convert_work(tmp_path, monkeypatch, end):
    path = tmp_path / f"a{end}"
    WRITERS[end](path, {"a": A, "b": B.astype("<f8")})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(formats.FORMATS, end, formats.FORMATS[end]._replace(module="absent"))
    with pytest.raises(ArrayError) as missing:
        names(path)
    exec(missing.value.remedy.partition(' -c "')[2].removesuffix('"'), {})
    np.testing.assert_array_equal(only(f"{tmp_path}/x.npz:a"), A)


def test_what_is_no_file_of_arrays_is_refused(tmp_path):
    (tmp_path / "a.doc").write_text("mine")
    (tmp_path / "folder").mkdir()
    for name, message in {
        "a.doc": "does not end in one of .npy, .npz, .safetensors, .pt,",
        "no.npy": "does not exist; name what holds arrays",
        "folder": "holds no arrays; name files of one, such as",
    }.items():
        with pytest.raises(ArrayError, match=f"{re.escape(name)} {re.escape(message)}"):
            names(tmp_path / name)
