"""Writing: minibatches in order, nothing lost by a kill, nothing claimed that is not there."""

import math
import os
import re
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import zarr

import store
from store import (
    ActivationOverflowError,
    ArrayError,
    ConflictError,
    MisalignedWriteError,
    PrecisionError,
    SchemaError,
    StoreLocationError,
    UnfinishedError,
    Writer,
)
from store.zarrfiles.layout import META
from tests.faults import Killed, edit_attributes, kill_series, killed_before, write_again
from tests.strategies import batches, coordinates, make_meta, make_rows


def open_writer(path, meta):
    return Writer.open(path, meta, *coordinates(meta))


def write_all(path, meta, rows):
    """Append what is missing; return how many minibatches that took."""
    writer = open_writer(path, meta)
    rest = [b for b in batches(meta, rows[writer.n_committed :]) if len(b)]
    for batch in rest:
        writer.append(batch)
    assert writer.complete
    return len(rest)


def contents(path):
    files = (p for p in path.rglob("*") if p.is_file() and p.suffix != ".partial")
    return {p.relative_to(path): p.read_bytes() for p in files}


def assert_bit_equal(found, wanted):
    assert found.dtype == wanted.dtype
    assert found.tobytes() == wanted.tobytes()


@pytest.mark.parametrize(
    ("labels", "samples"),
    [([2**32, *range(9)], None), (None, np.arange(10, dtype=np.uint64) + 2**63)],
)
def test_coordinates_that_would_wrap_around_are_refused(tmp_path, labels, samples):
    meta = make_meta()
    known = coordinates(meta)
    samples = known[0] if samples is None else samples
    labels = known[1] if labels is None else labels
    with pytest.raises(MisalignedWriteError, match="want integers that fit int"):
        Writer.open(tmp_path / "a.zarr", meta, samples, labels)


def test_rows_count_as_they_are_appended(tmp_path):
    meta = make_meta()
    rows = make_rows(meta)
    writer = open_writer(tmp_path / "a.zarr", meta)
    counted = [(writer.n_committed, writer.complete)]
    for batch in batches(meta, rows):
        writer.append(batch)
        counted.append((writer.n_committed, writer.complete))
    assert counted == [(0, False), (4, False), (8, False), (10, True)]


def test_resuming_repeats_nothing(tmp_path):
    meta = make_meta()
    rows = make_rows(meta)
    open_writer(tmp_path / "a.zarr", meta).append(rows[:4])
    assert write_all(tmp_path / "a.zarr", meta, rows) == 2
    assert write_all(tmp_path / "a.zarr", meta, rows) == 0


def test_resuming_keeps_who_made_it(tmp_path):
    open_writer(tmp_path / "a.zarr", make_meta(created_by="first"))
    writer = open_writer(tmp_path / "a.zarr", make_meta(created_by="second"))
    assert writer.meta.created_by == "first"


@pytest.mark.parametrize(
    "shape", [(3, 3, 2, 2), (5, 3, 2, 2), (4, 3, 2), (4, 2, 3, 2), (0, 3, 2, 2)]
)
def test_other_than_the_next_minibatch_is_refused(tmp_path, shape):
    writer = open_writer(tmp_path / "a.zarr", make_meta())
    wanted = f"got rows of shape {shape}; rows 0 to 3 need (4, 3, 2, 2)"
    with pytest.raises(MisalignedWriteError, match=re.escape(wanted)):
        writer.append(np.zeros(shape, np.float32))
    assert writer.n_committed == 0


def test_the_last_minibatch_is_the_rest(tmp_path):
    meta = make_meta()
    writer = open_writer(tmp_path / "a.zarr", meta)
    writer.append(make_rows(meta)[:4])
    writer.append(make_rows(meta)[4:8])
    with pytest.raises(MisalignedWriteError, match=r"rows 8 to 9 need \(2, 3, 2, 2\)"):
        writer.append(make_rows(meta)[:4])


def test_a_complete_representation_takes_no_more(tmp_path):
    meta = make_meta()
    write_all(tmp_path / "a.zarr", meta, make_rows(meta))
    with pytest.raises(MisalignedWriteError, match="conv1 has all its 10 rows"):
        open_writer(tmp_path / "a.zarr", meta).append(make_rows(meta)[:4])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"checkpoint_digest": "deadbeef"}, "checkpoint_digest 'feedc0de', not 'deadbeef'"),
        ({"dtype": "float16"}, "dtype 'float32', not 'float16'"),
        ({"batch_rows": 5}, "batch_rows 4, not 5"),
        ({"shape": (3, 2, 1)}, "shape [3, 2, 2], not [3, 2, 1]"),
        ({"tap_index": 1}, "tap_index 0, not 1"),
    ],
)
def test_other_metadata_under_the_same_key_are_refused(tmp_path, change, message):
    open_writer(tmp_path / "a.zarr", make_meta())
    with pytest.raises(ConflictError, match=re.escape(f"is stored with {message};")):
        open_writer(tmp_path / "a.zarr", make_meta(**change))


def test_another_sample_set_of_the_same_name_is_refused(tmp_path):
    meta = make_meta()
    open_writer(tmp_path / "a.zarr", meta)
    longer = store.SampleSet("digits", "test", 10, (8, 8, 1), "01234567ffff")
    with pytest.raises(ConflictError, match=r"sample_set\.digest '0123456789abcdef'"):
        open_writer(tmp_path / "a.zarr", make_meta(sample_set=longer))


def test_other_coordinates_are_refused(tmp_path):
    meta = make_meta()
    samples, labels = coordinates(meta)
    open_writer(tmp_path / "a.zarr", meta)
    with pytest.raises(ConflictError, match="is stored with digest of labels"):
        Writer.open(tmp_path / "a.zarr", meta, samples, labels + 1)
    with pytest.raises(ConflictError, match="is stored with digest of samples"):
        Writer.open(tmp_path / "a.zarr", meta, samples[::-1], labels)


@pytest.mark.parametrize("labels", [np.zeros(9, np.int32), np.zeros(10), np.zeros((10, 1), int)])
def test_coordinates_of_another_form_are_refused_before_any_work(tmp_path, labels):
    meta = make_meta()
    with pytest.raises(
        MisalignedWriteError, match=r"labels of .* want one (a|axis of integers, one a) row"
    ):
        Writer.open(tmp_path / "a.zarr", meta, coordinates(meta)[0], labels)
    assert not (tmp_path / "a.zarr").exists()


def test_a_folder_that_is_not_ours_is_not_cleared(tmp_path):
    meta = make_meta()
    open_writer(tmp_path / "a.zarr", make_meta("conv2"))
    folder = tmp_path / "a.zarr" / meta.key.path
    folder.mkdir()
    (folder / "thesis.tex").write_text("x")
    with pytest.raises(SchemaError, match=r"holds 'thesis\.tex', which no store wrote"):
        open_writer(tmp_path / "a.zarr", meta)
    assert (folder / "thesis.tex").read_text() == "x"


# 65,504 is float16's largest number; up to 65,520, half a step above, values round down to it.
@pytest.mark.parametrize("n_channels", [1, 3, 8, 33])
@pytest.mark.parametrize("sign", [1, -1])
def test_float16_overflow_is_refused_before_anything_is_written(tmp_path, n_channels, sign):
    meta = make_meta("conv7", shape=(n_channels,), dtype="float16")
    writer = open_writer(tmp_path / "a.zarr", meta)
    for place in range(4 * n_channels):
        rows = np.full((4, n_channels), np.inf, np.float32)
        rows.flat[place] = sign * 65520
        with pytest.raises(
            ActivationOverflowError,
            match=r"conv7 reaches 65520, and float16 ends at 65504; store it as float32 \(--d",
        ):
            writer.append(rows)
    assert writer.n_committed == 0
    assert not (tmp_path / "a.zarr" / meta.key.path / "activations/c").exists()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_what_fits_is_stored_as_it_is(tmp_path, dtype):
    meta = make_meta(shape=(4,), dtype=dtype, n_samples=2, batch_rows=2)
    rows = np.array([[65519, -65519, 1e-30, 0], [np.nan, np.inf, -np.inf, -0.0]], np.float32)
    open_writer(tmp_path / "a.zarr", meta).append(rows)
    with np.errstate(all="ignore"):
        assert_bit_equal(store.open(tmp_path / "a.zarr")[meta.key].read(0, 2), rows.astype(dtype))


def test_rows_that_vary_too_little_are_refused_before_anything_is_written(tmp_path):
    meta, path = make_meta(), tmp_path / "a.zarr"
    writer, rows = open_writer(path, meta), make_rows(meta).astype(np.float64)
    message = f"^{re.escape(str(meta.key))} varies too little for the precision of float32"
    with pytest.raises(PrecisionError, match=message):
        writer.append(rows[:4] + 1e9)
    assert writer.n_committed == 0
    writer.append(rows[:4])
    with pytest.raises(PrecisionError, match=message):
        write_again(writer, 0, rows[:4] + 1e9)
    writer.append(rows[:4])
    assert_bit_equal(store.open(path)[meta.key].read(0, 4), rows[:4].astype(np.float32))


def test_float64_is_stored_to_the_bit(tmp_path):
    meta = make_meta(dtype="float64")
    rows = make_rows(meta) + 1e9
    write_all(tmp_path / "a.zarr", meta, rows)
    tap = store.open(tmp_path / "a.zarr")[meta.key]
    assert_bit_equal(tap.read(0, 10), rows)
    assert_bit_equal(zarr.open_array(tmp_path / "a.zarr" / meta.key.path / "activations")[:], rows)
    assert tap.select().to_xarray().dtype == tap.select(space="mean").dtype == np.float64


def test_rows_in_any_memory_order_and_precision_are_stored(tmp_path):
    meta = make_meta()
    rows = np.asfortranarray(make_rows(meta).astype(np.float64))
    write_all(tmp_path / "a.zarr", meta, rows)
    found = store.open(tmp_path / "a.zarr")[meta.key].read(0, 10)
    assert_bit_equal(found, make_rows(meta))


def test_minibatches_of_a_dead_layer_are_kept(tmp_path):
    meta = make_meta()
    rows = np.zeros((10, 3, 2, 2), np.float32)
    write_all(tmp_path / "a.zarr", meta, rows)
    assert_bit_equal(store.open(tmp_path / "a.zarr")[meta.key].read(0, 10), rows)


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    meta = make_meta()
    rows = make_rows(meta)
    writer = open_writer(tmp_path / "a.zarr", meta)
    writer.append(rows[:4])
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", _no_space)
        with pytest.raises(
            StoreLocationError, match=r"cannot write rows 4 to 7 of .*: No space left"
        ):
            writer.append(rows[4:8])
    writer.append(rows[4:8])
    writer.append(rows[8:])
    assert_bit_equal(store.open(tmp_path / "a.zarr")[meta.key].read(0, 10), rows)


def _no_space(*_):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(("smallest", "n_synced"), [(192, 3), (193, 0)])
def test_large_chunks_are_on_the_disk_before_they_count(tmp_path, monkeypatch, smallest, n_synced):
    synced, placed = [], []
    replace = os.replace

    def place(source, target):
        if "/activations/c/" in str(source):
            placed.append(Path(source).stat().st_ino in synced)
        replace(source, target)

    monkeypatch.setattr("store.zarrfiles.chunk_files._SYNCED_BYTES", smallest)
    monkeypatch.setattr("os.fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    monkeypatch.setattr("os.replace", place)
    meta = make_meta()
    write_all(tmp_path / "a.zarr", meta, make_rows(meta))  # three chunks of 192 bytes
    assert len(synced) == n_synced
    assert placed == [n_synced > 0] * 3


def test_what_a_disk_refuses_only_when_it_is_synced_does_not_count(tmp_path, monkeypatch):
    meta = make_meta()
    rows = make_rows(meta)
    writer = open_writer(tmp_path / "a.zarr", meta)
    monkeypatch.setattr("store.zarrfiles.chunk_files._SYNCED_BYTES", 0)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", _no_space)
        with pytest.raises(StoreLocationError, match=r"cannot write rows 0 to 3 of .*: No space"):
            writer.append(rows[:4])
    assert not [*tmp_path.rglob("*.partial")]
    for batch in batches(meta, rows):
        writer.append(batch)
    assert_bit_equal(store.open(tmp_path / "a.zarr")[meta.key].read(0, 10), rows)


def test_a_kill_between_any_two_changes_of_the_disk_is_survived(tmp_path, monkeypatch):
    monkeypatch.setattr("store.zarrfiles.layout.MAX_CHUNK_BYTES", 100)  # several chunks a minibatch
    meta = make_meta()
    rows = make_rows(meta)
    kept = set()
    absent = tmp_path / "absent"
    for path in kill_series(lambda path: write_all(path, meta, rows), tmp_path, absent):
        n_kept = _assert_claims_are_true(path, meta, rows)
        n_appended = write_all(path, meta, rows)
        assert n_appended == math.ceil((len(rows) - n_kept) / meta.batch_rows)
        assert_bit_equal(store.open(path)[meta.key].read(0, 10), rows)
        kept.add(n_kept)
    # After the commit of the last minibatch the claim is given up.
    assert kept == {0, 4, 8, 10}


@pytest.mark.parametrize("taken", [{0}, {4}, {8}, {0, 8}, {0, 4, 8}])
def test_a_kill_while_rows_are_written_again_loses_no_others(tmp_path, taken):
    meta = make_meta()
    rows = make_rows(meta)
    write_all(tmp_path / "whole", meta, rows)
    before = contents(tmp_path / "whole")

    def work(path):
        with open_writer(path, meta) as writer:
            writer.take_back(taken)
            for start, stop in writer.taken_back:
                writer.append(rows[start:stop])

    n_taken_back = set()
    for path in kill_series(work, tmp_path, tmp_path / "whole"):
        found = store.open(path)[meta.key]
        kept = {each.start for each in (*found.commits, *found.kept)}
        assert kept >= {0, 4, 8} - taken
        assert all(found.check(each) is None for each in (*found.commits, *found.kept))
        assert not any(start < found.n_committed for start, _ in found.taken_back)
        n_taken_back.add(len(found.taken_back))
        work(path)
        assert contents(path) == before
    assert n_taken_back == set(range(len(taken) + 1))


def test_rows_behind_a_gap_count_once_it_is_filled(tmp_path):
    meta = make_meta()
    rows = make_rows(meta)
    write_all(tmp_path / "a.zarr", meta, rows)
    with open_writer(tmp_path / "a.zarr", meta) as writer:
        writer.take_back([4])
    found = store.open(tmp_path / "a.zarr")[meta.key]
    assert (found.n_committed, found.complete, found.missing) == (4, False, ((4, 8),))
    with pytest.raises(UnfinishedError, match="has 4 of 10 rows, and row 9 was asked for"):
        found.read(8, 10)
    with open_writer(tmp_path / "a.zarr", meta) as writer:
        writer.append(rows[4:8])
        assert writer.complete
    assert_bit_equal(store.open(tmp_path / "a.zarr")[meta.key].read(0, 10), rows)


@pytest.mark.parametrize("starts", [[1], [4, 9], [12], [-4]])
def test_only_committed_minibatches_are_taken_back(tmp_path, starts):
    meta = make_meta()
    writer = open_writer(tmp_path / "a.zarr", meta)
    for batch in batches(meta, make_rows(meta))[:2]:
        writer.append(batch)
    message = r"row -?\d+ of .* begins none of its 2 blocks of 4"
    with pytest.raises(MisalignedWriteError, match=message):
        writer.take_back(starts)
    assert store.open(tmp_path / "a.zarr")[meta.key].n_committed == 8


@pytest.mark.parametrize(
    "later",
    ["all", [None, None], [{"start": 0, "stop": 4, "digest": "crc32c:00000000"}], [0], [[]]],
)
def test_malformed_records_behind_a_gap_are_refused(tmp_path, later):
    meta = make_meta()
    write_all(tmp_path / "a.zarr", meta, make_rows(meta))
    edit_attributes(
        tmp_path / "a.zarr" / meta.key.path, lambda found: found.update(allcnn_later=later)
    )
    with pytest.raises(SchemaError):
        store.open(tmp_path / "a.zarr")[meta.key]


def _assert_claims_are_true(path, meta, rows):
    if not (path / "zarr.json").exists():
        return 0
    found = store.open(path).find()
    for tap in found:
        assert_bit_equal(tap.read(0, tap.n_committed), rows[: tap.n_committed])
        np.testing.assert_array_equal(tap.labels, coordinates(meta)[1])
    return found[0].n_committed if found else 0


def test_a_writer_that_is_killed_again_and_again_gets_there(tmp_path):
    meta = make_meta()
    rows = make_rows(meta)
    path = tmp_path / "a.zarr"
    n_kept, n_lives = 0, 0
    while n_kept < meta.n_samples:
        # A life of n changes: creation needs the most, so the first lives achieve nothing.
        with suppress(Killed), killed_before(n_lives):
            write_all(path, meta, rows)
        n_before, n_kept = n_kept, _assert_claims_are_true(path, meta, rows)
        assert n_kept >= n_before
        n_lives += 1
    assert n_lives > 5
    assert_bit_equal(store.open(path)[meta.key].read(0, 10), rows)


def test_leftovers_of_a_kill_are_cleared_on_resuming(tmp_path):
    meta = make_meta()
    open_writer(tmp_path / "a.zarr", meta).append(make_rows(meta)[:4])
    folder = tmp_path / "a.zarr" / meta.key.path
    (folder / "zarr.0123.partial").write_text("{")
    assert len(store.open(tmp_path / "a.zarr").keys()) == 1
    assert open_writer(tmp_path / "a.zarr", meta).n_committed == 4
    members = dict(zarr.open_group(folder, mode="r").members())
    assert sorted(members) == ["activations", "label", "sample"]


def test_lost_commit_records_are_noticed(tmp_path):
    meta = make_meta()
    path = tmp_path / "a.zarr"
    open_writer(path, meta)
    zarr.open_group(path / meta.key.path, mode="r+").attrs.put({META: meta.to_json()})
    with pytest.raises(SchemaError, match="has no list of commit records"):
        open_writer(path, meta)


REFUSED = [
    (np.ones((4, 3), complex), "is of type complex128; wanted are real numbers, floating"),
    (np.ones((4, 3), "datetime64[s]"), "is of type datetime64[s]; wanted are real numbers"),
    (np.full((4, 3), "1.5"), "is of type <U3; wanted are real numbers"),
    (np.full((4, 3), None), "is of type object; wanted are real numbers"),
    ([["x"] * 3] * 4, "is of type <U1; wanted are real numbers"),
    ([[1, 2, 3], [4, 5]], "cannot be made an array of NumPy's: setting an array element with"),
    (np.ma.masked_less(np.arange(12.0).reshape(4, 3), 5), "has masked values, which are no num"),
    ([np.ma.masked_less(np.arange(3.0), 1)] * 4, "has masked values, which are no numbers"),
]


@pytest.mark.parametrize(("rows", "message"), REFUSED)
def test_other_than_real_numbers_is_refused(tmp_path, rows, message):
    writer = open_writer(tmp_path / "a.zarr", meta := make_meta(shape=(3,)))
    with pytest.raises(ArrayError, match=f"^{re.escape(f'{meta.key} {message}')}"):
        writer.append(rows)
    assert writer.n_committed == 0
    writer.append(np.ones((4, 3)))
    with pytest.raises(ArrayError, match=f"^{re.escape(f'{meta.key} {message}')}"):
        write_again(writer, 0, rows)
    writer.append(np.ones((4, 3)))
    np.testing.assert_array_equal(store.open(tmp_path / "a.zarr")[meta.key].read(0, 4), 1)


def test_tensors_of_torch_are_stored(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch comes with the extra 'bench'")
    meta = make_meta(shape=(3,), n_samples=8)
    writer = open_writer(tmp_path / "a.zarr", meta)
    values = torch.arange(24.0).reshape(8, 3)
    writer.append(torch.zeros(4, 3))
    write_again(writer, 0, values[:4].requires_grad_())
    writer.append(values[4:].to(torch.bfloat16))
    found = store.open(tmp_path / "a.zarr")[meta.key].read(0, 8)
    assert_bit_equal(found, values.detach().numpy())
