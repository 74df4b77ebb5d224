"""Files that lie, are damaged, or want something executed: one sentence, and nothing happens."""

import json
import re
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store import ArrayError
from store.ingest.files.folders import open_array, open_arrays
from tests.arrayfiles import WRITERS, read_arrays, write_table

A = np.arange(60, dtype=np.float32).reshape(10, 3, 2)


def refused(path, message=""):
    with pytest.raises(ArrayError, match=rf"^{re.escape(str(path))}.*{message}") as caught:
        read_arrays(path)
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


def header(descr="'<f4'", order="False", shape="(10, 3, 2)", more="", version=(1, 0), length=None):
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, {more}}}\n"
    return prefixed(text.encode("latin-1", "replace"), version, length)


def prefixed(text, version=(1, 0), length=None):
    form = "<H" if version[0] == 1 else "<I"
    return b"\x93NUMPY" + bytes(version) + struct.pack(form, length or len(text)) + text


HEADERS = {
    "negative": header(shape="(-10, 3, 2)"),
    "all negative": header(shape="(-10, -3, 2)"),
    "truths": header(shape="(True, 3, 2)"),
    "floats": header(shape="(1e1, 3, 2)"),
    "huge": header(shape="(100000000000000000000000,)"),
    "large": header(shape="(1000000000000, 3)"),
    "wraps to few bytes": header(shape="(4611686018427387904, 4)"),
    "many axes": header(shape=f"({'1, ' * 100})"),
    "one row of everything": header(shape="(10, 9223372036854775807)"),
    "a list": header(shape="[10, 3, 2]"),
    "a call": header(shape="__import__('os').system('false')"),
    "unclosed": prefixed(b"{'descr': '<f4', 'fortran_order': False, 'shape': (10, 3"),
    "unclosed text": prefixed(b"{'descr': '<f4"),
    "nested": prefixed(b"{'descr': " + b"(" * 5000),
    "minus": prefixed(b"{'descr': '<f4', 'shape': (" + b"-" * 5000 + b"1)}"),
    "no text": prefixed(b"\x00\xff" * 20),
    "empty": prefixed(b""),
    "long": prefixed(b" " * 20_000),
    "length beyond the file": header(length=9000),
    "length of gigabytes": header(version=(2, 0), length=2**32 - 1),
    "version 0": header(version=(0, 0)),
    "version 9": header(version=(9, 0)),
    "minor version": header(version=(1, 7)),
    "void of nothing": header(descr="'|V0'"),
    "void": header(descr="'|V7'", shape="(1,)") + b"1234567",
    "text of nothing": header(descr="'<U0'"),
    "long text": header(descr="'<U999999999'"),
    "unknown type": header(descr="'<q4'"),
    "fields in a text": header(descr="'f4,f4'"),
    "many in a text": header(descr="'(1000000,1000000)f4'"),
    "no type": header(descr="None"),
    "fields": header(descr="[('a', '<f4')]"),
    "objects": header(descr="'|O'"),
    "order": header(order="Maybe"),
    "more": header(more="'evil': 1"),
    "twice": header(more="'shape': (1,)"),
    "too short": header() + A.tobytes()[:-4],
    "too long": header() + A.tobytes() + b"1234",
    "nothing": b"",
    "magic alone": b"\x93NUMPY",
    "a pickle": b"\x80\x04K\x01.",
}  # fmt: skip


@pytest.mark.parametrize("content", HEADERS.values(), ids=HEADERS)
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_headers_that_lie_are_one_sentence(tmp_path, suffix, content):
    path = tmp_path / f"a.{suffix}"
    if suffix == "npy":
        path.write_bytes(content)
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.npy", content)
    tracemalloc.start()
    refused(path, r"(save|want|wanted)")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24


@pytest.mark.parametrize(
    "text",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (10, 3, 2), }",
        '{"shape":(10,3,2),"descr":"<f4","fortran_order":False}',
        "{'shape': (10L, 3L, 2L), 'fortran_order': False, 'descr': '<f4'}   \n",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (10, 3, 2)}",
    ],
)
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_headers_of_other_writers_are_read(tmp_path, text, version):
    (tmp_path / "a.npy").write_bytes(prefixed(text.encode(), version) + A.tobytes())
    np.testing.assert_array_equal(read_arrays(tmp_path / "a.npy")["a"], A)


def sizes():
    return st.lists(st.integers(-3, 12) | st.integers(2**30, 10**24), max_size=4).map(tuple)


def descrs():
    return st.sampled_from(["<f4", ">f8", "|b1", "<i8", "|V2", "|V0", "<U3", "|O", "<M8[ns]"]) | (
        st.text("<>|=fiuVOSUb0123456789,()[]'", max_size=9)
    )


@settings(deadline=None, max_examples=300, suppress_health_check=list(HealthCheck))
@given(
    descr=descrs().map(repr),
    order=st.sampled_from(["True", "False", "1", "None"]),
    shape=sizes().map(repr) | st.text("(),0123456789-LeE .", max_size=12),
    more=st.text(max_size=4),
    version=st.tuples(st.integers(0, 4), st.integers(0, 1)),
    length=st.none() | st.integers(0, 2**16 - 1),
    n_bytes=st.integers(0, 300),
)
def test_any_header_is_read_as_numpy_reads_it_or_refused(
    tmp_path_factory, descr, order, shape, more, version, length, n_bytes
):
    path = tmp_path_factory.getbasetemp() / "fuzzed.npy"
    path.write_bytes(header(descr, order, shape, more, version, length) + b"\x01" * n_bytes)
    try:
        found = read_arrays(path)["fuzzed"]
    except ArrayError:
        return
    wanted = np.load(path, allow_pickle=False)
    assert (found.shape, found.tobytes()[:0]) == (wanted.shape, b"")
    if wanted.dtype.kind != "V":
        assert found.tobytes() == wanted.tobytes()


FILES = ["npy", "csv", "parquet", *WRITERS]


def write(path, end):
    if end == "npy":
        np.save(path, A)
    elif end in ("csv", "parquet"):
        write_table(path, A.reshape(10, 6), list("abcdef"))
    else:
        WRITERS[end](path, {"fc": A.reshape(10, 6), "conv": A})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the bytes of a small valid file of each format; of Zarr, of its metadata."""
    files = {}
    for end in FILES:
        path = tmp_path_factory.mktemp("whole") / f"x{'' if end[0] in '.-' else '.'}{end}"
        try:
            write(path, end)
        except pytest.skip.Exception:
            continue
        inner = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        files[end] = (path, {each: each.read_bytes() for each in inner})
    return files


@pytest.mark.filterwarnings("ignore")  # what a library warns of in damaged files is its own matter
@pytest.mark.parametrize("end", FILES)
@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_flipped_bytes_and_cuts_are_read_or_refused(whole, end, data):
    if end not in whole:
        pytest.skip(f"nothing here writes {end}")
    path, contents = whole[end]
    inner = data.draw(st.sampled_from(sorted(contents)))
    content = bytearray(contents[inner])
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    kept = data.draw(st.just(len(content)) | st.integers(0, len(content)))
    inner.write_bytes(content[:kept])
    try:
        read_arrays(path)
    except ArrayError as error:
        message = str(error)
    else:
        message = ""
    finally:
        inner.write_bytes(contents[inner])
    assert message.isprintable()
    assert len(message) < 800


class Trap:
    """Executes what a pickle says."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


@pytest.mark.parametrize("suffix", ["npy", "npz"])
@pytest.mark.parametrize("shape", [(1, 1), (1,), ()])
def test_python_objects_are_never_loaded(tmp_path, suffix, shape):
    path = tmp_path / f"a.{suffix}"
    array = np.empty(shape, object)
    array[...] = Trap()
    (np.save if suffix == "npy" else np.savez)(path, array, allow_pickle=True)
    refused(path, "holds Python objects, which are never loaded; save numbers$")


def test_a_pickle_is_no_array(tmp_path):
    np.array([Trap()]).dump(tmp_path / "a.npy")
    refused(tmp_path / "a.npy", "cannot be read .the magic string is not correct")


@pytest.mark.parametrize("new", [True, False])
def test_tensors_are_loaded_without_what_a_pickle_calls(tmp_path, new):
    torch = pytest.importorskip("torch", reason="PyTorch comes with the extra 'bench'")
    content = {"a": torch.zeros(10, 3), "b": Trap()}
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=new)
    refused(tmp_path / "a.pt", r"cannot be read \(.*; save a tensor, or a dict of names to tensors")


def test_an_old_pytorch_is_not_trusted(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch", reason="PyTorch comes with the extra 'bench'")
    torch.save({"a": torch.zeros(10, 3)}, tmp_path / "a.pt")
    monkeypatch.setattr(torch, "__version__", "2.5.1+cpu")
    refused(
        tmp_path / "a.pt", "is not opened by PyTorch 2.5.1.*; upgrade it: python -m pip install"
    )


def test_tensors_that_repeat_their_values_are_refused(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch comes with the extra 'bench'")
    torch.save({"a": torch.zeros(1, 1).expand(10**9, 10**3)}, tmp_path / "a.pt")
    refused(tmp_path / "a.pt", "repeats its values; save tensor.contiguous()")


@pytest.mark.parametrize(
    "change",
    [
        {"filters": [{"id": "pickle"}]},
        {"compressor": {"id": "pickle"}},
        {"filters": [{"id": "pickle"}], "dtype": "|O", "fill_value": 0},
        {"filters": [{"id": "pickle"}], "compressor": {"id": "pickle"}},
    ],
)
def test_a_codec_that_loads_pickles_is_refused(tmp_path, change):
    """Of version 2 of Zarr, in which numcodecs has one, by the name of pickle."""
    array = zarr.create_array(tmp_path / "a.zarr", data=A, zarr_format=2, compressors=None)
    assert array.nchunks == 1
    np.array([Trap()]).dump(tmp_path / "a.zarr" / "0.0.0")
    metadata = tmp_path / "a.zarr" / ".zarray"
    metadata.write_text(json.dumps(json.loads(metadata.read_text()) | change))
    refused(tmp_path / "a.zarr", "cannot be read .*pickle.*; write it again with zarr")


def test_links_out_of_a_zarr_folder_are_refused(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", data=A, chunks=(10, 3, 2))
    chunk = tmp_path / "a.zarr" / "c" / "0" / "0" / "0"
    chunk.rename(tmp_path / "secret")
    chunk.symlink_to(tmp_path / "secret")
    refused(tmp_path / "a.zarr", r"cannot be read \(c/0/0/0 is a link\)")


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")
def test_a_damaged_array_in_a_zarr_folder_is_never_left_out(tmp_path, version):
    root = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=version)
    for name in ("one", "deep/two"):
        root.create_array(name, data=A)
    (tmp_path / "a.zarr" / "notes.txt").write_text("no part of it")
    assert set(read_arrays(tmp_path / "a.zarr")) == {"one", "deep/two"}
    metadata = tmp_path / "a.zarr" / "deep" / "two" / {2: ".zarray", 3: "zarr.json"}[version]
    values = json.loads(metadata.read_text())
    metadata.write_text(json.dumps({k: v for k, v in values.items() if k != "fill_value"}))
    refused(tmp_path / "a.zarr", "cannot be read .*; write it again with zarr")


def test_a_store_of_our_own_is_no_folder_of_arrays(tmp_path):
    zarr.open_group(tmp_path / "a.zarr", mode="w").attrs["allcnn_store"] = {}
    refused(tmp_path / "a.zarr", "is a store of this program already; name the folder above")


def test_hdf5_reads_no_other_file(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["x"] = A
    (tmp_path / "secret.bin").write_bytes(A.tobytes())
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["link"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "x")
        file["soft"] = h5py.SoftLink("/link")
        layout = h5py.VirtualLayout(A.shape, A.dtype)
        layout[...] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "x", A.shape)
        file.create_virtual_dataset("virtual", layout)
        raw = [(str(tmp_path / "secret.bin"), 0, A.nbytes)]
        file.create_dataset("raw", A.shape, A.dtype, external=raw)
        file["within"] = A
    with open_arrays([tmp_path / "a.h5"]) as found:
        by_name = {each.name: each for each in found.arrays}
        assert set(by_name) == {"link", "soft", "virtual", "raw", "within"}
        for name in ("link", "soft"):
            with pytest.raises(
                ArrayError, match=f":{name} is a link to elsewhere, which is not fo"
            ):
                by_name[name].read_all()
        for name in ("virtual", "raw"):
            with pytest.raises(ArrayError, match=f":{name} has its values in other files; copy"):
                by_name[name].read_all()
        np.testing.assert_array_equal(by_name["within"][0:10], A)


def test_hdf5_names_that_are_no_text_are_named(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name in (b"a", b"caf\xe9", b"z"):
            file[name] = A
    refused(tmp_path / "a.h5", r"cannot be read \(the name b'caf\\xe9' in it is no UTF-8\)")


def test_hdf5_groups_in_circles_end(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["b/x"] = A
        file["b/c"] = file["/"]
        file["b/d"] = file["b"]
    assert list(read_arrays(tmp_path / "a.h5")) == ["b/x"]


@pytest.mark.parametrize(
    "how", [{}, {"chunks": (2, 3, 2)}, {"chunks": (2, 3, 2), "compression": 1}]
)
def test_hdf5_that_was_never_written_is_refused(tmp_path, how):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        made = file.create_dataset("x", A.shape, A.dtype, **how)
        if how:
            made[:4] = A[:4]
    refused(tmp_path / "a.h5", "of x, . of . chunks were never written")


def test_hdf5_claims_are_checked_before_memory_is_taken(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", (10**9, 10**9), "f8", chunks=(1, 1024))
    refused(tmp_path / "a.h5", "of x, 976563000000000 of 976563000000000 chunks were")


def patched(path, **changes):
    """Change fields of the first entry in the directory of an archive."""
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\x01\x02")
    for name, (offset, form) in {"size": (24, "<I"), "method": (10, "<H")}.items():
        if name in changes:
            struct.pack_into(form, content, at + offset, changes[name])
    path.write_bytes(content)


def test_compressed_sizes_that_cannot_be_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", a=A)
    patched(tmp_path / "a.npz", size=2**31)
    refused(tmp_path / "a.npz", r"bytes cannot hold the 2147483648 claimed")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, 99])
def test_other_compressions_are_refused(tmp_path, method):
    np.savez(tmp_path / "a.npz", a=A)
    patched(tmp_path / "a.npz", method=method)
    refused(tmp_path / "a.npz", "compressed by a method that np.savez does not use")


def test_a_bomb_is_read_a_few_rows_at_a_time(tmp_path):
    """Two hundred megabytes of zeros in a fifth of one."""
    n_rows, width = 2**12, 2**14
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        info = zipfile.ZipInfo("a.npy")
        info.compress_type = zipfile.ZIP_DEFLATED
        with archive.open(info, "w") as member:
            member.write(header(shape=f"({n_rows}, {width})"))
            for _ in range(n_rows // 64):
                member.write(bytes(64 * width * 4))
    with open_array(str(tmp_path / "a.npz")) as found:
        tracemalloc.start()
        found[n_rows // 2 : n_rows // 2 + 4]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2**26  # zipfile passes over 16 MiB at a time


def test_members_of_one_name_and_others_than_arrays_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", header() + A.tobytes())
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.npy", header() + A.tobytes())
    refused(tmp_path / "a.npz", "holds 2 arrays of 1 names; give each a name of its own")
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("notes.txt", "mine")
    refused(tmp_path / "b.npz", "holds 'notes.txt'; want arrays, as np.savez writes them")
    with zipfile.ZipFile(tmp_path / "c.npz", "w"):
        pass
    refused(tmp_path / "c.npz", "holds nothing; want arrays, as np.savez writes them")


@pytest.mark.parametrize("name", ["", "a\x1b[31m", "a" * 201, "a\nb"])
def test_names_are_short_and_printable(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr(f"{name}.npy", header() + A.tobytes())
    refused(tmp_path / "a.npz", rf"holds an array with a name of {len(name)} characters")


ENTRY = {"dtype": "F32", "shape": [10, 6], "data_offsets": [0, 240]}
TENSORS = {
    "no entry": 3,
    "no type": {k: v for k, v in ENTRY.items() if k != "dtype"},
    "shape": ENTRY | {"shape": "10"},
    "negative": ENTRY | {"shape": [-10, -6]},
    "truth": ENTRY | {"shape": [True, 60]},
    "huge": ENTRY | {"shape": [10**23, 6]},
    "places": ENTRY | {"data_offsets": [0, 240, 3]},
    "reversed": ENTRY | {"data_offsets": [240, 0]},
    "outside": ENTRY | {"data_offsets": [0, 10**6]},
    "other size": ENTRY | {"shape": [10, 7]},
    "float8": ENTRY | {"dtype": "F8_E4M3"},
}  # fmt: skip


@pytest.mark.parametrize("entry", TENSORS.values(), ids=TENSORS)
def test_safetensors_that_lie_are_one_sentence(tmp_path, entry):
    text = json.dumps({"a": entry}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(240))
    refused(path, "save it")


def test_safetensors_of_one_name_are_refused(tmp_path):
    entry = json.dumps(ENTRY)
    header = f'{{"a": {entry}, "a": {entry}}}'.encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + A.tobytes())
    refused(path, "the name 'a' stands in it twice")


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\xff" * 8, struct.pack("<Q", 2**40) + b"{}", struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 10_000) + b"[" * 10_000,
    ],
)  # fmt: skip
def test_safetensors_without_a_header_are_one_sentence(tmp_path, content):
    (tmp_path / "a.safetensors").write_bytes(content)
    refused(tmp_path / "a.safetensors", "save it again with safetensors")


TABLES = {
    "ragged": "a,b\n1,2\n3\n",
    "longer": "a,b\n1,2\n3,4,5\n",
    "empty": "",
    "header alone": "a,b\n",
    "binary": "\x00\x01\x02",
    "quotes": 'a,b\n"1,2\n3,4\n',
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("end", ["csv", "tsv", "txt"])
def test_tables_that_are_none_are_refused(tmp_path, name, end):
    path = tmp_path / f"a.{end}"
    path.write_text(TABLES[name])
    try:
        found = read_arrays(path)
    except ArrayError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017
    else:
        assert all(len(array) <= 2 for array in found.values())


def test_ragged_lines_say_which(tmp_path):
    (tmp_path / "a.csv").write_text(TABLES["ragged"])
    refused(
        tmp_path / "a.csv", r"cannot be read \(.*Expected 2 columns, got 1.*; write one line of"
    )


def test_parquet_claims_are_checked(tmp_path):
    table = pyarrow.table({f"c{i}": pyarrow.array(np.zeros(2**20)) for i in range(2)})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", compression="zstd")
    assert read_arrays(tmp_path / "a.parquet")["a"].shape == (2**20, 2)


def test_matlab_claims_are_checked_before_memory_is_taken(tmp_path):
    io = pytest.importorskip("scipy.io")
    io.savemat(tmp_path / "a.mat", {"x": A.reshape(10, 6).astype("f8")})
    content = (tmp_path / "a.mat").read_bytes()
    (tmp_path / "a.mat").write_bytes(
        content.replace(struct.pack("<ii", 10, 6), struct.pack("<ii", 10**7, 6))
    )
    refused(tmp_path / "a.mat", r"bytes cannot hold the shape \(10000000, 6\)")


@pytest.mark.parametrize("end", ["npy", "npz", "h5", "pt", "mat", "csv", "safetensors"])
def test_links_to_nowhere_and_folders_of_that_name_are_refused(tmp_path, end):
    (tmp_path / f"loop.{end}").symlink_to(tmp_path / f"loop.{end}")
    (tmp_path / f"gone.{end}").symlink_to(tmp_path / "nothing")
    (tmp_path / f"folder.{end}").mkdir()
    refused(tmp_path / f"gone.{end}", "does not exist; name what holds arrays")
    refused(tmp_path / f"loop.{end}", "cannot be read .Too many levels of symbolic links.; check")
    with pytest.raises(ArrayError, match="holds no arrays; name files of one"):
        read_arrays(tmp_path / f"folder.{end}")


@pytest.mark.parametrize("name", ["a" * 5000, "a\0b"])
def test_names_of_no_file_are_refused(name):
    with pytest.raises(ArrayError, match=r"cannot be read \(.*\); check its name"):
        read_arrays(Path(f"{name}.npy"))
    with (
        pytest.raises(ArrayError, match=r"cannot be read \(.*\); check its name"),
        open_array(name),
    ):
        pass


def test_a_device_is_no_file(tmp_path):
    (tmp_path / "a.npy").symlink_to("/dev/zero")
    refused(tmp_path / "a.npy", "is no file; name what holds arrays")
