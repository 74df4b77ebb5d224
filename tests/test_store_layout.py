"""What a store looks like to others: chunks, codecs, xarray; and what it must not import."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

import store
from store import SchemaError, StoreLocationError, Writer
from store.zarrfiles import layout
from store.zarrfiles.layout import chunk_shape, crc32c
from tests.strategies import batches, coordinates, make_meta, make_rows


def write(path: Path, meta, rows=None) -> np.ndarray:
    rows = make_rows(meta) if rows is None else rows
    writer = Writer.open(path, meta, *coordinates(meta))
    for batch in batches(meta, rows):
        writer.append(batch)
    return rows


def test_digest_is_crc32c():
    # The check value of CRC-32C over the ASCII digits 1 to 9 (RFC 3720, and every CRC catalogue).
    assert crc32c(np.frombuffer(b"123456789", np.uint8)) == "crc32c:e3069283"


def test_a_chunk_is_a_minibatch_uncompressed_with_a_checksum(tmp_path):
    meta = make_meta(dtype="float16")
    write(tmp_path / "a.zarr", meta)
    described = json.loads(
        (tmp_path / "a.zarr" / meta.key.path / "activations/zarr.json").read_text()
    )
    assert described["chunk_grid"]["configuration"]["chunk_shape"] == [4, 3, 2, 2]
    assert [codec["name"] for codec in described["codecs"]] == ["bytes", "crc32c"]
    assert described["fill_value"] == "NaN"
    assert described["dimension_names"] == ["sample", "y", "x", "channel"]


def test_plain_zarr_reads_it(tmp_path):
    meta = make_meta()
    rows = write(tmp_path / "a.zarr", meta)
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")[meta.key.path]
    np.testing.assert_array_equal(group["activations"][:], rows)
    assert group["sample"].dtype == np.int64
    assert group["label"].dtype == np.int32


def test_xarray_reads_it(tmp_path):
    xarray = pytest.importorskip("xarray")
    path = tmp_path / "a.zarr"
    metas = [make_meta(), make_meta("logits", shape=(5,), tap_index=1)]
    rows = [write(path, meta) for meta in metas]
    with xarray.open_datatree(path, engine="zarr", consolidated=False) as tree:
        conv1, logits = (tree[meta.key.path]["activations"] for meta in metas)
        assert conv1.dims == ("sample", "y", "x", "channel")
        assert logits.dims == ("sample", "channel")
        np.testing.assert_array_equal(conv1.sel(sample=9).values, rows[0][0])
        np.testing.assert_array_equal(logits.values, rows[1])
        np.testing.assert_array_equal(conv1.coords["label"], coordinates(metas[0])[1])


@pytest.mark.parametrize(
    ("shape", "limit", "expected"),
    [
        ((9, 2, 2), 10**6, (4, 9, 2, 2)),
        ((9, 2, 2), 4 * 9 * 16, (4, 9, 2, 2)),  # a minibatch is 4 rows of 9 lines of 16 bytes
        ((9, 2, 2), 4 * 9 * 16 - 1, (4, 5, 2, 2)),
        ((9, 2, 2), 4 * 16, (4, 1, 2, 2)),
        ((9, 2, 2), 1, (4, 1, 2, 2)),
        ((9,), 1, (4, 9)),
    ],
)
def test_large_minibatches_are_split_over_the_first_spatial_axis(
    monkeypatch, shape, limit, expected
):
    monkeypatch.setattr(layout, "MAX_CHUNK_BYTES", limit)
    assert chunk_shape(make_meta(shape=shape)) == expected


def test_first_layer_of_all_cnn_c_fits():
    meta = make_meta(n_samples=10_000, batch_rows=256, shape=(32, 32, 96))
    assert math.prod(chunk_shape(meta)) * 4 <= 64 * 2**20


def test_split_minibatches_read_back(tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "MAX_CHUNK_BYTES", 100)
    meta = make_meta(shape=(5, 2, 2))
    rows = write(tmp_path / "a.zarr", meta)
    assert len(list((tmp_path / "a.zarr" / meta.key.path / "activations/c").rglob("0/0"))) > 3
    np.testing.assert_array_equal(store.open(tmp_path / "a.zarr")[meta.key].read(1, 10), rows[1:])


def test_no_forbidden_library_is_imported():
    forbidden = "jax dask distributed prefect xarray flax optax tensorflow allcnn flows"
    code = f"import sys, store; print(*(set(sys.modules) & set({forbidden.split()!r})))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(store.__file__).parents[1],
    )
    assert done.stdout.split() == []


def test_a_missing_store_is_refused(tmp_path):
    with pytest.raises(StoreLocationError, match=r"no store at .*a\.zarr: write one first"):
        store.open(tmp_path / "a.zarr")
    assert not (tmp_path / "a.zarr").exists()


def test_a_file_is_no_store(tmp_path):
    (tmp_path / "a.zarr").write_text("x")
    with pytest.raises(StoreLocationError, match="is a file; a store is a folder"):
        store.open(tmp_path / "a.zarr")
    with pytest.raises(StoreLocationError, match="is a file; a store is a folder"):
        Writer.open(tmp_path / "a.zarr", make_meta(), *coordinates(make_meta()))


def test_a_store_below_a_file_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreLocationError, match=r"cannot make a store at .*: Not a directory"):
        Writer.open(tmp_path / "file" / "a.zarr", make_meta(), *coordinates(make_meta()))


def test_an_address_that_nothing_reaches_is_refused():
    with pytest.raises(StoreLocationError, match="odd://bucket/a cannot be reached"):
        store.open("odd://bucket/a")


def test_a_foreign_zarr_group_is_refused(tmp_path):
    zarr.create_group(tmp_path / "a.zarr", attributes={"mine": 1})
    with pytest.raises(SchemaError, match="that this package did not write"):
        store.open(tmp_path / "a.zarr")
    with pytest.raises(SchemaError, match="that this package did not write"):
        Writer.open(tmp_path / "a.zarr", make_meta(), *coordinates(make_meta()))


@pytest.mark.parametrize("make", ["array", "v2", "text", "empty"])
def test_what_is_no_zarr_group_is_refused(tmp_path, make):
    path = tmp_path / "a.zarr"
    if make == "array":
        zarr.create_array(path, shape=(3,), dtype="f4")
    elif make == "v2":
        zarr.create_group(path, zarr_format=2)
    else:
        path.mkdir()
        if make == "text":
            (path / "zarr.json").write_text("{")
    with pytest.raises(SchemaError, match="is no Zarr v3 group"):
        store.open(path)


def test_a_folder_of_other_things_is_not_written_into(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(SchemaError, match=r"not empty \(it holds 'thesis.tex'\)"):
        Writer.open(tmp_path, make_meta(), *coordinates(make_meta()))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (store.SCHEMA_VERSION + 1, f"reads up to {store.SCHEMA_VERSION}; install a newer one"),
        ("1", "has schema version '1'; want 1 to 4"),
        (0, "has schema version 0"),
        (None, "has schema version None"),
    ],
)
def test_other_schema_versions_are_refused(tmp_path, version, message):
    mark = {"kind": "activations", "schema_version": version}
    zarr.create_group(tmp_path / "a.zarr", attributes={"allcnn_store": mark})
    with pytest.raises(SchemaError, match=message):
        store.open(tmp_path / "a.zarr")


def test_the_other_kind_of_store_is_refused(tmp_path):
    write(tmp_path / "a.zarr", make_meta())
    with pytest.raises(SchemaError, match="is a store of activations; give a store of similarity"):
        store.list_results(tmp_path / "a.zarr")


def test_a_store_that_another_writer_makes_meanwhile_is_opened(tmp_path, monkeypatch):
    """It may be found after the first look for it, and before the folder is."""
    path, names = tmp_path / "store.zarr", layout.entry_names
    path.mkdir()

    def late(folder):
        monkeypatch.setattr(layout, "entry_names", names)
        layout.create_root(path, "activations")
        (path / "digits").mkdir()
        return names(folder)

    monkeypatch.setattr(layout, "entry_names", late)
    layout.create_root(path, "activations")
    layout.open_root(path, "activations")
    assert names(path) == ["digits", "zarr.json"]


@pytest.mark.parametrize(
    ("make", "there"),
    [
        (lambda path: None, False),
        (lambda path: path.mkdir(), False),
        (lambda path: (path.mkdir(), (path / "zarr.json.0a1b.partial").touch()), False),
        (lambda path: (path.mkdir(), (path / "mine.txt").touch()), True),
        (lambda path: path.touch(), True),
        (lambda path: zarr.create_group(path), True),
    ],
    ids=["nothing", "empty", "killed", "a folder of other things", "a file", "a group"],
)
def test_what_a_kill_leaves_of_a_store_is_none_yet(tmp_path, make, there):
    make(tmp_path / "a.zarr")
    assert store.has_store(tmp_path / "a.zarr") == there
