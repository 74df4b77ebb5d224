"""Reading: any range of committed rows, every damage found, listings from metadata alone."""

import errno
import os
import pickle
import shutil

import google_crc32c
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import store
from store import (
    DamagedChunkError,
    InvalidKeyError,
    RowRangeError,
    SchemaError,
    StoreLocationError,
    UnfinishedError,
    UnknownRepresentationError,
    Writer,
)
from store.zarrfiles import layout
from store.zarrfiles.layout import COMMITS
from tests.faults import chunk_files, edit_attributes, flip_bit, swap
from tests.strategies import batches, coordinates, make_meta, make_rows


def fill(path, meta, n_batches=None):
    rows = make_rows(meta)
    writer = Writer.open(path, meta, *coordinates(meta))
    for batch in batches(meta, rows)[:n_batches]:
        writer.append(batch)
    return rows


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.zarr"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "a.zarr"
    rows = fill(path, make_meta(n_samples=17))
    return store.open(path)[make_meta(n_samples=17).key], rows


@given(st.tuples(st.integers(0, 17), st.integers(0, 17)).map(sorted))
@settings(deadline=None, max_examples=40)
def test_any_range_is_read(finished, bounds):
    representation, rows = finished
    found = representation.read(*bounds)
    np.testing.assert_array_equal(found, rows[slice(*bounds)])
    assert found.flags.c_contiguous
    assert found.flags.owndata


@pytest.mark.parametrize("bounds", [(-1, 2), (3, 2), (0, 18)])
def test_ranges_outside_are_refused(finished, bounds):
    with pytest.raises(RowRangeError, match="want 0 <= start <= stop <= 17"):
        finished[0].read(*bounds)


def test_rows_not_committed_are_refused(path):
    meta = make_meta()
    fill(path, meta, n_batches=1)
    representation = store.open(path)[meta.key]
    assert (representation.n_committed, representation.complete) == (4, False)
    with pytest.raises(UnfinishedError, match="has 4 of 10 rows, and row 4 was asked for"):
        representation.read(2, 5)


def test_coordinates_are_read(finished):
    samples, labels = coordinates(finished[0].meta)
    np.testing.assert_array_equal(finished[0].samples, samples)
    np.testing.assert_array_equal(finished[0].labels, labels)
    assert finished[0].samples.dtype == np.int64
    assert finished[0].labels.dtype == np.int32


def test_pickling_reopens(finished):
    copy = pickle.loads(pickle.dumps(finished[0]))
    np.testing.assert_array_equal(copy.read(3, 9), finished[1][3:9])


def test_a_pickled_store_reopens(path):
    fill(path, make_meta())
    assert pickle.loads(pickle.dumps(store.open(path))).keys() == [make_meta().key]


def test_reading_changes_nothing(path):
    fill(path, make_meta())
    before = {p: p.stat().st_mtime_ns for p in path.rglob("*")}
    opened = store.open(path)
    opened[make_meta().key].read(0, 10)
    opened.summaries()
    assert {p: p.stat().st_mtime_ns for p in path.rglob("*")} == before


DAMAGE = {
    "flipped bit": lambda files: flip_bit(files[1]),
    "flipped checksum": lambda files: flip_bit(files[1], -1),
    "swapped chunks": lambda files: swap(files[0], files[1]),
    "deleted chunk": lambda files: files[1].unlink(),
    "empty chunk": lambda files: files[1].write_bytes(b""),
    "short chunk": lambda files: files[1].write_bytes(files[1].read_bytes()[:-8]),
    "long chunk": lambda files: files[1].write_bytes(files[1].read_bytes() * 2),
    "older chunk": lambda files: files[1].write_bytes(files[0].read_bytes()),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("limit", [10**6, 100], ids=["whole", "split"])
def test_damage_is_found(path, monkeypatch, damage, limit):
    monkeypatch.setattr(layout, "MAX_CHUNK_BYTES", limit)
    meta = make_meta(n_samples=8)
    fill(path, meta)
    DAMAGE[damage](chunk_files(path / meta.key.path / "activations"))
    representation = store.open(path)[meta.key]
    where = (
        r"rows \d to \d of tap conv1 of run allcnn-d1-v2-s0, checkpoint final are damaged .*;"
        r" restore .* from a copy; only if you can store it again"
    )
    with pytest.raises(DamagedChunkError, match=where):
        representation.read(0, 8)


@pytest.fixture
def selections(monkeypatch):
    """Return the selections that Zarr reads, of activations alone."""
    seen, read = [], zarr.Array.get_basic_selection

    def spy(array, selection, **kwargs):
        if array.ndim > 1:
            seen.append(selection)
        return read(array, selection, **kwargs)

    monkeypatch.setattr(zarr.Array, "get_basic_selection", spy)
    return seen


@pytest.mark.parametrize(
    ("n_samples", "limit"),
    [
        (8, 10**6),
        (3, 10**6),  # a single minibatch that is smaller than batch_rows is a whole chunk
        (8, 100),  # three chunks of one line
        (10, 10**6),  # the last chunk is padded
        (8, 128),  # chunks of two lines, the second one padded
        (10, 128),
    ],
)
def test_chunks_are_read_without_zarr(path, monkeypatch, selections, n_samples, limit):
    monkeypatch.setattr(layout, "MAX_CHUNK_BYTES", limit)
    monkeypatch.setattr("store.zarrfiles.chunk_files.PIECE_BYTES", 24)  # a row has 48 bytes
    meta = make_meta(n_samples=n_samples)
    rows = fill(path, meta)
    found = store.open(path)[meta.key].read(0, n_samples)
    assert found.tobytes() == rows.tobytes()
    assert selections == []


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("shape", [(3,), (2, 3), (3, 2, 2)])
@pytest.mark.parametrize("piece_bytes", [1, 7, 2**20])
def test_pieces_of_any_size_give_the_rows(path, monkeypatch, dtype, shape, piece_bytes):
    monkeypatch.setattr("store.zarrfiles.chunk_files.PIECE_BYTES", piece_bytes)
    meta = make_meta(dtype=dtype, shape=shape)
    rows = fill(path, meta)
    assert store.open(path)[meta.key].read(0, 10).tobytes() == rows.tobytes()


@pytest.mark.parametrize(
    "odd",
    [
        {"compressors": zarr.codecs.ZstdCodec()},
        {"compressors": None},
        {"chunk_key_encoding": {"name": "v2", "separator": "/"}},
        {"chunks": (2, 3, 2, 2)},
        {"chunks": (4, 3, 1, 2)},
        {"chunks": (4, 3, 2, 1)},
    ],
    ids=str,
)
def test_what_others_wrote_anew_is_read_by_zarr(path, selections, odd):
    meta = make_meta(n_samples=8)
    rows = fill(path, meta)
    form = {"chunks": (4, 3, 2, 2), "filters": None, "compressors": zarr.codecs.Crc32cCodec()}
    folder = zarr.open_group(path / meta.key.path, mode="r+")
    folder.create_array("activations", data=rows, overwrite=True, **form | odd)
    assert store.open(path)[meta.key].read(0, 8).tobytes() == rows.tobytes()
    assert selections == [slice(0, 4), slice(4, 8)]


@pytest.mark.parametrize("limit", [10**6, 100], ids=["whole", "split"])
def test_a_chunk_with_a_checksum_of_its_own_is_still_compared(path, monkeypatch, limit):
    monkeypatch.setattr(layout, "MAX_CHUNK_BYTES", limit)
    meta = make_meta(n_samples=8)
    fill(path, meta)
    file = chunk_files(path / meta.key.path / "activations")[0]
    values = bytes(file.stat().st_size - 4)
    file.write_bytes(values + google_crc32c.value(values).to_bytes(4, "little"))
    with pytest.raises(DamagedChunkError, match=r"rows 0 to 3 .* \(digest .*, committed crc32c:"):
        store.open(path)[meta.key].read(0, 8)


def test_a_file_that_shrinks_while_it_is_read_is_damage(path, monkeypatch):
    meta = make_meta(n_samples=8)
    fill(path, meta)
    file = chunk_files(path / meta.key.path / "activations")[0]
    status = os.stat(file)
    file.write_bytes(file.read_bytes()[:-8])
    monkeypatch.setattr("os.fstat", lambda _: status)
    with pytest.raises(DamagedChunkError, match="became shorter while it was read"):
        store.open(path)[meta.key].read(0, 8)


def test_undamaged_rows_are_still_read(path):
    meta = make_meta()
    rows = fill(path, meta)
    flip_bit(chunk_files(path / meta.key.path / "activations")[1])
    representation = store.open(path)[meta.key]
    np.testing.assert_array_equal(representation.read(1, 4), rows[1:4])
    np.testing.assert_array_equal(representation.read(8, 10), rows[8:])
    with pytest.raises(DamagedChunkError, match="rows 4 to 7"):
        representation.read(7, 8)


@pytest.mark.parametrize("name", ["sample", "label"])
@pytest.mark.parametrize("damage", ["flipped bit", "deleted chunk"])
def test_damaged_coordinates_are_found(path, name, damage):
    meta = make_meta()
    fill(path, meta)
    files = chunk_files(path / meta.key.path / name)
    DAMAGE[damage]([None, *files])
    with pytest.raises(DamagedChunkError, match=f"{name}s of tap conv1 of run"):
        getattr(store.open(path)[meta.key], f"{name}s")


def test_a_missing_array_is_damage(path):
    meta = make_meta()
    fill(path, meta)
    shutil.rmtree(path / meta.key.path / "activations")
    with pytest.raises(DamagedChunkError, match="array 'activations' is missing"):
        store.open(path)[meta.key].read(0, 1)
    with pytest.raises(DamagedChunkError, match="has lost its array"):
        Writer.open(path, meta, *coordinates(meta))


def test_unknown_representations_are_refused(path):
    fill(path, make_meta())
    with pytest.raises(
        UnknownRepresentationError, match=r"holds no allcnn-d1-v2-s0@final:conv9 on"
    ):
        store.open(path)[make_meta("conv9").key]


def test_a_representation_in_the_middle_of_creation_is_skipped(path):
    fill(path, make_meta())
    root = zarr.open_group(path, mode="r+")
    root.create_group(make_meta("conv2").key.path)
    (path / make_meta("conv3").key.path).mkdir()
    opened = store.open(path)
    assert opened.keys() == [make_meta().key]
    with pytest.raises(UnfinishedError, match="conv2 is being created"):
        opened[make_meta("conv2").key]
    with pytest.raises(UnknownRepresentationError, match="conv3"):
        opened[make_meta("conv3").key]


def test_a_renamed_folder_is_noticed(path):
    meta = make_meta()
    fill(path, meta)
    (path / meta.key.path).rename((path / meta.key.path).with_name("conv2"))
    with pytest.raises(SchemaError, match=r"final/conv2 holds .*final/conv1; rename the folder"):
        store.open(path).keys()


def test_unreadable_metadata_are_noticed(path):
    meta = make_meta()
    fill(path, meta)
    (path / meta.key.path / "zarr.json").write_text("{")
    with pytest.raises(SchemaError, match="unreadable metadata"):
        store.open(path)[meta.key]


def test_commit_records_with_a_gap_are_noticed(path):
    meta = make_meta()
    fill(path, meta)
    edit_attributes(path / meta.key.path, lambda attributes: attributes[COMMITS].pop(0))
    with pytest.raises(SchemaError, match="do not follow one another in blocks of 4 rows"):
        store.open(path)[meta.key]


@pytest.fixture
def filled(path):
    for run in ("net-s1", "net-s0"):
        for checkpoint in ("init", "final"):
            for index, tap in enumerate(["conv1", "conv10", "conv2"]):
                meta = make_meta(tap, run=run, checkpoint=checkpoint, tap_index=[0, 2, 1][index])
                fill(path, meta, n_batches=2 if (run, tap) == ("net-s1", "conv2") else None)
    (path / ".DS_Store").mkdir()
    (path / "zarr.0123.partial").write_text("{")
    return store.open(path)


def test_keys_follow_the_network(filled):
    assert [str(key) for key in filled.keys()] == [
        f"{run}@{checkpoint}:{tap}"
        for run in ("net-s0", "net-s1")
        for checkpoint in ("final", "init")
        for tap in ("conv1", "conv2", "conv10")
    ]


def test_find_narrows_by_exact_names(filled):
    assert [r.key.tap for r in filled.find("net-s0", "init")] == ["conv1", "conv2", "conv10"]
    assert len(filled.find(run="net-s1")) == 6
    assert len(filled.find(sample_set="digits-test-10-01234567")) == 12
    assert filled.find(run="net") == []
    assert filled.find(run="../..") == []


def test_sample_sets_are_listed_once(filled):
    assert filled.sample_sets() == [make_meta().sample_set]


def test_a_representation_is_an_array_to_numpy(filled):
    tap = filled.find()[0]
    np.testing.assert_array_equal(np.asarray(tap), tap.read(0, tap.meta.n_samples))
    np.testing.assert_array_equal(tap.read(), tap.read(0, tap.meta.n_samples))
    np.testing.assert_array_equal(tap.read(4), tap.read(4, tap.meta.n_samples))
    assert np.asarray(tap, np.float64).dtype == np.float64


@pytest.mark.parametrize("bounds", [(0, 2.5), ("a", 3), (None, 3)])
def test_rows_are_counted_by_integers(filled, bounds):
    with pytest.raises(RowRangeError, match="give integers"):
        filled.find()[0].read(*bounds)


@pytest.mark.parametrize("key", ["net-s0@final:conv1", ("a", "b"), None])
def test_what_is_no_key_is_refused(filled, key):
    with pytest.raises(InvalidKeyError, match="is no key; find"):
        filled[key]


def test_a_workspace_is_no_store_but_holds_one(filled):
    with pytest.raises(SchemaError, match=f"give the folder of a store, such as {filled.path}$"):
        store.open(filled.path.parent)


def test_an_archive_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(StoreLocationError, match=r"cannot be reached: .*No such file"):
        store.open(f"zip://::{tmp_path}/none.zip")


def test_a_store_that_is_gone_does_not_seem_empty(filled, tmp_path):
    shutil.copytree(filled.path, tmp_path / "copy.zarr")
    opened = store.open(tmp_path / "copy.zarr")
    shutil.rmtree(tmp_path / "copy.zarr")
    with pytest.raises(StoreLocationError, match="no store at"):
        opened.find()


def test_checkpoints_are_found_as_they_were_trained(tmp_path):
    epochs = {"final": 10, "epoch-0002": 2, "init": 0, "imported": None, "epoch-0010": 10}
    for name, epoch in epochs.items():
        for index, tap in enumerate(("b", "a")):
            attributes = {} if epoch is None else {"epoch": epoch}
            meta = make_meta(tap, checkpoint=name, tap_index=index, attributes=attributes)
            Writer.open(tmp_path / "a.zarr", meta, *coordinates(meta)).close()
    found = [(tap.key.checkpoint, tap.key.tap) for tap in store.open(tmp_path / "a.zarr").find()]
    order = ["init", "epoch-0002", "epoch-0010", "final", "imported"]
    assert found == [(name, tap) for name in order for tap in ("b", "a")]
    assert [one.checkpoint for one in store.open(tmp_path / "a.zarr").summaries()] == order


def test_a_summary_tells_that_a_tap_is_missing(tmp_path):
    for index, tap in enumerate(("one", "two")):
        meta = make_meta(tap, tap_index=index, n_taps=2)
        with Writer.open(tmp_path / "a.zarr", meta, *coordinates(meta)) as writer:
            for rows in batches(meta, make_rows(meta)):
                writer.append(rows)
    opened = store.open(tmp_path / "a.zarr")
    (whole,) = opened.summaries()
    assert (whole.n_taps, whole.n_missing_taps, whole.complete) == (2, 0, True)
    shutil.rmtree(tmp_path / "a.zarr" / meta.key.path)
    (part,) = opened.summaries()
    assert (part.n_taps, part.n_missing_taps, part.complete) == (1, 1, False)


def test_summaries(filled):
    first, *_, last = filled.summaries()
    assert first == store.Summary(
        sample_set="digits-test-10-01234567",
        run="net-s0",
        checkpoint="final",
        n_taps=3,
        n_missing_taps=0,
        n_committed=10,
        n_rows=10,
        n_bytes=3 * 10 * (3 * 2 * 2) * 4,
        dtype="float32",
        complete=True,
    )
    assert (last.run, last.checkpoint, last.n_committed, last.complete) == (
        "net-s1",
        "init",
        8,
        False,
    )
    assert last.n_bytes == (10 + 10 + 8) * (3 * 2 * 2) * 4


def test_summaries_read_no_chunk(filled, path):
    for chunks in path.rglob("c"):
        shutil.rmtree(chunks)
    assert len(filled.summaries()) == 4


def test_an_unsafe_key_never_becomes_a_path():
    with pytest.raises(InvalidKeyError, match=r"run '\.\./\.\./x' cannot be a folder's name"):
        store.RepresentationKey("s", "../../x", "c", "t")
    assert store.RepresentationKey("s", "r", "c", "../../x").path == "s/r/c/_--2e-2e-2f-2e-2e-2fx"


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.EIO, r"rows 0 to 3 of tap conv1 .* are damaged \(Input/output error\)"),
        (errno.EACCES, r"rows 0 to 3 of tap conv1 .* may not be read \(Permission denied\)"),
    ],
)
def test_what_a_disk_refuses_is_said_of_rows(path, monkeypatch, number, message):
    fill(path, make_meta())
    tap = store.open(path)[make_meta().key]

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("store.arrays.committed.read_chunk", refuse)
    with pytest.raises(OSError, match=message):
        tap.read(0, 4)


def test_a_store_stays_where_it_was_opened(path, tmp_path, monkeypatch):
    rows = fill(path, make_meta())
    monkeypatch.chdir(tmp_path)
    tap = store.open("a.zarr")[make_meta().key]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert tap.read(0, 10).tobytes() == rows.tobytes()


def test_all_that_is_offered_is_there():
    assert [name for name in store.__all__ if not hasattr(store, name)] == []
