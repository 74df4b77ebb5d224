"""Arrays in files: read in slices, in the order of the file, and nothing in them executed."""

import re
import tracemalloc
import zipfile

import numpy as np
import pytest

from store import ArrayError
from store.arrayfiles import open_arrays, open_npy

A = np.arange(60, dtype=np.float32).reshape(10, 3, 2)
B = np.asfortranarray(np.arange(40, dtype=">f8").reshape(10, 4))
SLICES = [slice(0, 10), slice(2, 5), slice(0, 3), slice(8, 99), slice(4, 4), slice(9, 2)]


def names(*paths):
    with open_arrays(paths) as found:
        return [name for name, _ in found]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_members_are_read_in_any_order_of_slices(tmp_path, save):
    save(tmp_path / "a.npz", b=B, a=A)
    with open_arrays([tmp_path / "a.npz"]) as found:
        assert [name for name, _ in found] == ["b", "a"]
        for (_, array), wanted in zip(found, (B, A), strict=True):
            assert (array.shape, array.dtype) == (wanted.shape, wanted.dtype)
            for rows in SLICES:
                np.testing.assert_array_equal(array[rows], wanted[rows])


def test_files_are_mapped(tmp_path):
    for name, values in {"a": A, "b": B}.items():
        np.save(tmp_path / f"{name}.npy", values)
    with open_arrays([tmp_path / "b.npy", tmp_path / "a.npy"]) as found:
        assert [name for name, _ in found] == ["b", "a"]
        for (_, array), wanted in zip(found, (B, A), strict=True):
            assert isinstance(array, np.memmap)
            np.testing.assert_array_equal(array, wanted)


def test_a_folder_is_its_files_with_numbers_counted(tmp_path):
    for name in ("layer10", "layer9", "layer1.1", "layer1.0", "a", ".hidden"):
        np.save(tmp_path / f"{name}.npy", A)
    (tmp_path / "notes.txt").write_text("mine")
    assert names(tmp_path) == ["a", "layer1.0", "layer1.1", "layer9", "layer10"]


def test_names_may_have_dots(tmp_path):
    np.savez(tmp_path / "a.npz", **{"layer1.0.conv1": A})
    assert names(tmp_path / "a.npz") == ["layer1.0.conv1"]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_member_is_never_whole_in_memory(tmp_path, save):
    values = np.zeros((4000, 1000), np.float32)
    save(tmp_path / "a.npz", a=values)
    with open_arrays([tmp_path / "a.npz"]) as ((_, array),):
        tracemalloc.start()
        for start in range(0, 4000, 100):
            assert not array[start : start + 100].any()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < values.nbytes / 4


def test_empty_arrays_and_scalars_have_their_shapes(tmp_path):
    for name, values in {"empty": np.zeros((0, 3)), "scalar": np.float32(3)}.items():
        np.save(tmp_path / f"{name}.npy", values)
        np.savez(tmp_path / f"{name}.npz", values)
        for suffix in ("npy", "npz"):
            with open_arrays([tmp_path / f"{name}.{suffix}"]) as ((_, array),):
                assert array.shape == values.shape


class Trap:
    """Executes what a pickle says."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_python_objects_are_never_loaded(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    (np.save if suffix == "npy" else np.savez)(path, np.array([[Trap()]]), allow_pickle=True)
    message = r"a\.np.* holds Python objects, which are never loaded; save numbers$"
    with pytest.raises(ArrayError, match=message):
        names(path)


def test_a_pickle_is_no_array(tmp_path):
    path = tmp_path / "a.npy"
    np.array([Trap()]).dump(path)
    with pytest.raises(ArrayError, match=r"cannot be read .*magic string"):
        names(path)


def truncated(path):
    path.write_bytes(path.read_bytes()[:-1])


def emptied(path):
    path.write_bytes(b"")


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [("npy", truncated), ("npy", emptied), ("npz", truncated), ("npz", emptied), ("npz", flipped)],
)
def test_damaged_files_are_one_sentence(tmp_path, suffix, damage):
    path = tmp_path / f"a.{suffix}"
    (np.save if suffix == "npy" else np.savez)(path, A)
    damage(path)
    told = f"^{re.escape(str(path))}.* cannot be read (.*); save it again with np.save or np.savez$"
    with pytest.raises(ArrayError, match=told), open_arrays([path]) as ((_, array),):
        array[0:10]


def test_a_member_that_is_shorter_than_its_header_says_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", A)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", (tmp_path / "a.npy").read_bytes()[:-4])
    with open_arrays([tmp_path / "a.npz"]) as ((_, array),):
        np.testing.assert_array_equal(array[0:9], A[:9])
        with pytest.raises(ArrayError, match=r"cannot be read \(it ends before row 10\)"):
            array[8:10]


def test_what_holds_no_arrays_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("notes.txt", "mine")
    with zipfile.ZipFile(tmp_path / "empty.npz", "w"):
        pass
    (tmp_path / "a.txt").write_text("mine")
    (tmp_path / "folder").mkdir()
    for name, told in {
        "a.npz": "holds notes.txt; want arrays, as np.savez writes them",
        "empty.npz": "holds nothing; want arrays, as np.savez writes them",
        "a.txt": "is no .npy or .npz file, and no folder; name what holds the activations",
        "no.npy": "does not exist; name what holds the activations",
        "folder": "holds no .npy files; name one that does",
    }.items():
        with pytest.raises(ArrayError, match=f"{re.escape(name)} {re.escape(told)}$"):
            names(tmp_path / name)


def test_a_single_file_has_to_be_there(tmp_path):
    with pytest.raises(ArrayError, match=r"no\.npy is no file; name a \.npy file$"):
        open_npy(tmp_path / "no.npy")
