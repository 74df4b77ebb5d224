"""Grams at rest: packed without loss, whole chunks or none, every damage found."""

import hashlib
import json
import math
import pickle
import re
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import store
from store import (
    ConflictError,
    DamagedChunkError,
    GramKey,
    GramMeta,
    GramWriter,
    InvalidKeyError,
    MisalignedWriteError,
    PackingError,
    RowRangeError,
    SchemaError,
    StoreLocationError,
    UnfinishedError,
    UnknownGramsError,
    open_grams,
    pack,
    unpack,
)
from store.maintenance.verify import verify
from store.model import schema
from store.zarrfiles.layout import COMMITS
from tests.faults import chunk_files, edit_attributes, flip_bit, kill_series, swap, write_again
from tests.strategies import coordinates, gram_metas, make_gram_meta, make_grams, make_meta

BYTES_OF_A_ROW = 4 * 21
"""The largest minibatch of ``make_gram_meta`` has 6 rows, and its triangle 21 entries."""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "grams.zarr"


@pytest.fixture
def two_a_chunk(monkeypatch):
    monkeypatch.setattr(schema, "GRAM_CHUNK_BYTES", 2 * BYTES_OF_A_ROW)


@pytest.fixture
def two_of_four_a_chunk(monkeypatch):
    monkeypatch.setattr(schema, "GRAM_CHUNK_BYTES", 2 * 4 * 10)


def open_writer(path, meta):
    return GramWriter.open(path, meta, *coordinates(meta))


def write_all(path, meta, grams):
    """Append what is missing; return how many minibatches that took."""
    writer = open_writer(path, meta)
    rest = grams[writer.n_committed :]
    for K in rest:
        writer.append(K)
    assert writer.complete
    return len(rest)


def fill(path, meta, n_minibatches=None):
    grams = make_grams(meta)
    writer = open_writer(path, meta)
    for K in grams[:n_minibatches]:
        writer.append(K)
    return grams


def triangle(K):
    """Return the upper triangle of a matrix by its definition."""
    return np.array([K[i, j] for i in range(len(K)) for j in range(i, len(K))], K.dtype)


def assert_bit_equal(found, wanted):
    assert len(found) == len(wanted)
    for left, right in zip(found, wanted, strict=True):
        assert left.dtype == right.dtype
        assert left.shape == right.shape
        assert left.tobytes() == right.tobytes()


# Packing


def test_packing_goes_row_by_row():
    K = np.array([[1, 2, 3], [2, 4, 5], [3, 5, 6]], np.float32)
    np.testing.assert_array_equal(pack(K), [1, 2, 3, 4, 5, 6])
    np.testing.assert_array_equal(unpack([1, 2, 3, 4, 5, 6]), K)


@given(st.integers(0, 40), st.integers(0, 3))
@settings(deadline=None)
def test_packing_follows_its_definition_and_loses_nothing(n, m):
    squares = np.random.default_rng(n).standard_normal((m, n, n)).astype(np.float32)
    stack = np.triu(squares) + np.swapaxes(np.triu(squares, 1), -1, -2)
    packed = [pack(K) for K in stack]
    assert_bit_equal(packed, [triangle(K) for K in stack])
    if m:
        assert_bit_equal(unpack(np.stack(packed)), stack)
        assert_bit_equal(unpack(np.stack(packed)[None])[0], stack)


def test_any_memory_order_and_dtype_is_packed():
    K = np.arange(9.0).reshape(3, 3).T
    np.testing.assert_array_equal(pack(K), [0, 3, 6, 4, 7, 8])
    assert pack(K.astype(np.float16)).dtype == np.float16
    assert unpack(pack(K)).dtype == np.float64


def test_what_was_packed_may_be_changed():
    K = np.eye(3, dtype=np.float32)
    pack(K)[:] = 5
    unpack(pack(K))[:] = 5
    np.testing.assert_array_equal(K, np.eye(3))
    np.testing.assert_array_equal(unpack(pack(K)), np.eye(3))


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 2, 2), ()])
def test_what_is_not_square_is_not_packed(shape):
    with pytest.raises(PackingError, match=re.escape(f"a matrix of shape {shape} has no triangle")):
        pack(np.zeros(shape))


@pytest.mark.parametrize("shape", [(), (2,), (6, 4)])
def test_what_is_no_triangle_is_not_unpacked(shape):
    with pytest.raises(PackingError, match=re.escape(f"values of shape {shape} are no packed")):
        unpack(np.zeros(shape))


# Keys and metadata


def test_a_key_prints_for_people_and_paths():
    key = make_gram_meta(sizes=(10,)).key
    assert key.path == (
        "digits-test-10-01234567/allcnn-d1-v2-s0/final/conv1/linear-whole-4-float32-0123456789ab"
    )
    assert str(key) == "Grams linear-whole-4-float32-0123456789ab of allcnn-d1-v2-s0@final:conv1"


@pytest.mark.parametrize(
    "digest", ["feedc0de", "sha256:xyz", "SHA256:0123456789abcdef", "../../../x", "sha256:/", "ü"]
)
def test_any_text_is_a_digest(digest):
    key = make_gram_meta(checkpoint_digest=digest).key
    wanted = hashlib.sha256(digest.encode()).hexdigest()[:12]
    assert key.variant == f"linear-whole-4-float32-{wanted}"


@given(st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1))
def test_a_folder_is_safe_whatever_the_digest(digest):
    variant = make_gram_meta(checkpoint_digest=digest).key.variant
    assert re.fullmatch(r"linear-whole-4-float32-[0-9a-f]{12}", variant)


@given(gram_metas)
def test_metadata_survive_json(meta):
    assert GramMeta.from_json(json.loads(json.dumps(meta.to_json()))) == meta


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kernel", "rbf"),
        ("kernel", ["linear"]),
        ("pool", "../x"),
        ("batch_size", 0),
        ("batch_size", "4/.."),
        ("dtype", "bfloat16"),
        ("checkpoint_digest", ""),
        ("checkpoint_digest", None),
        ("tap_index", -1),
        ("created_by", ""),
        ("created_at", "yesterday"),
    ],
)
def test_metadata_out_of_range_are_refused(field, value):
    with pytest.raises(SchemaError, match=field):
        make_gram_meta(**{field: value})


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ((), "ranges end at row 0"),
        (((0, 4), (4, 8)), "ranges end at row 8; want .* from 0 to 10"),
        (((0, 4), (4, 12)), "ranges end at row 12"),
        (((1, 10),), r"have \(1, 10\) where row 0 comes next"),
        (((0, 4), (5, 10)), r"have \(5, 10\) where row 4 comes next"),
        (((0, 6), (4, 10)), r"have \(4, 10\) where row 6 comes next"),
        (((0, 0), (0, 10)), "stop of a range is 0; want an integer of at least 1"),
        (((0, 4.0), (4, 10)), r"stop of a range is 4\.0"),
        (((False, 10),), "start of a range is False"),
        (((0, 4, 10),), r"have \(0, 4, 10\)"),
        ([(0, 10)], "want a tuple of pairs"),
        ((10,), "have 10 where row 0"),
    ],
)
def test_ranges_must_follow_one_another(ranges, message):
    with pytest.raises(SchemaError, match=message):
        make_gram_meta(sizes=(10,), ranges=ranges)


@pytest.mark.parametrize(
    "change",
    [
        {"key": "a/b"},
        {"key": None},
        {"sample_set": {}},
        {"ranges": None},
        {"ranges": [4]},
        {"ranges": [[0, "10"]]},
        {"surplus": 1},
    ],
)
def test_malformed_stored_metadata_are_refused(change):
    with pytest.raises(SchemaError):
        GramMeta.from_json(make_gram_meta(sizes=(10,)).to_json() | change)


def test_unsafe_stored_names_are_refused():
    values = make_gram_meta().key.to_json()
    with pytest.raises(SchemaError, match="is not the key of a representation"):
        GramKey.from_json(values | {"of": "a/../b/c"})
    with pytest.raises(InvalidKeyError, match="cannot be a folder's name"):
        replace(make_gram_meta().key.of, run="../x")


def test_a_key_must_name_its_sample_set():
    meta = make_gram_meta()
    other = replace(meta.key, of=replace(meta.key.of, sample_set="digits-test-18-76543210"))
    with pytest.raises(SchemaError, match="names another sample set than digits-test-18-01234567"):
        replace(meta, key=other)


# A triangle of 256 rows has 32,896 entries of 4 bytes: 7.97 of them are 1 MiB. One of 700 rows
# has 0.98 MB, and one of 2,000 rows 8 MB.
@pytest.mark.parametrize(("n", "expected"), [(256, 8), (128, 32), (700, 1), (2000, 1)])
def test_a_chunk_has_about_a_mebibyte(n, expected):
    assert make_gram_meta(sizes=(n, n)).block_length == expected


# Writing and reading


@given(gram_metas, st.integers(1, 4), st.data())
@settings(deadline=None, max_examples=25)
def test_any_range_is_read_whatever_the_minibatches(meta, n_chunk, data):
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(schema, "GRAM_CHUNK_BYTES", n_chunk * 4 * meta.width)
        grams = fill(Path(folder) / "grams.zarr", meta)
        found = open_grams(Path(folder) / "grams.zarr")[meta.key]
        assert found.meta == meta
        assert found.complete
        first, stop = sorted(data.draw(st.tuples(*[st.integers(0, meta.length)] * 2)))
        assert_bit_equal(found.read(first, stop), [triangle(K) for K in grams[first:stop]])


def test_ragged_and_joined_minibatches_read_back(path):
    for tap, sizes in (("ragged", (4, 4, 1)), ("joined", (4, 4, 7)), ("single", (3,))):
        meta = make_gram_meta(tap, sizes=sizes)
        grams = fill(path, meta)
        found = open_grams(path)[meta.key]
        assert_bit_equal(found.read(0, len(sizes)), [triangle(K) for K in grams])
        assert_bit_equal([unpack(p) for p in found.read(0, len(sizes))], grams)


def test_grams_count_by_whole_chunks(path, two_a_chunk):
    meta = make_gram_meta(sizes=(4, 4, 4, 4, 6))
    writer = open_writer(path, meta)
    counted = []
    for K in make_grams(meta):
        writer.append(K)
        counted.append((writer.n_committed, writer.complete))
        assert open_grams(path)[meta.key].n_committed == writer.n_committed
    assert counted == [(0, False), (2, False), (2, False), (4, False), (5, True)]
    assert len(chunk_files(path / meta.key.path / "grams")) == 3


def test_resuming_repeats_less_than_a_chunk(path, two_a_chunk):
    meta = make_gram_meta()
    grams = make_grams(meta)
    fill(path, meta, n_minibatches=3)
    assert open_writer(path, meta).n_committed == 2
    assert write_all(path, meta, grams) == 2
    assert write_all(path, meta, grams) == 0


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
@pytest.mark.parametrize("order", ["C", "F"])
def test_any_precision_and_memory_order_is_stored_as_float32(path, dtype, order):
    meta = make_gram_meta(sizes=(4,))
    K = np.asarray(make_grams(meta)[0].astype(dtype), order=order)
    open_writer(path, meta).append(K)
    assert_bit_equal(open_grams(path)[meta.key].read(0, 1), [triangle(K).astype(np.float32)])


@pytest.mark.parametrize("which", [{0}, {3}, {1, 4}, {0, 1, 2, 3, 4}])
def test_grams_whose_digits_float32_does_not_hold_keep_them(path, two_of_four_a_chunk, which):
    meta = make_gram_meta(sizes=(4,) * 5)
    grams = [np.float64(K) * (1 + (i in which) * 1e-9) for i, K in enumerate(make_grams(meta))]
    with open_writer(path, meta) as writer:
        for i, K in enumerate(grams):
            writer.append(K, bound=1e-6 * i)
    found = open_grams(path)[meta.key]
    assert found.meta.precision == "float64"
    for i, (packed, K) in enumerate(zip(found.read(0, 5), grams, strict=True)):
        assert packed.dtype == (np.float64 if i in which else np.float32)
        np.testing.assert_array_equal(packed, triangle(K))
    assert found.bounds == pytest.approx([0, 1e-6, 2e-6, 3e-6, 4e-6])
    assert list(verify(path, "grams"))[-1].damage == ()


def test_a_kill_while_grams_are_widened_leaves_nothing_that_looks_whole(
    path, two_of_four_a_chunk, monkeypatch
):
    meta = make_gram_meta(sizes=(4,) * 5)
    grams = [np.float64(K) for K in make_grams(meta)]
    grams[3] *= 1 + 1e-9
    fill(path, meta, 2)
    with monkeypatch.context() as patched:
        patched.setattr(GramWriter, "_write", lambda *_: (_ for _ in ()).throw(OSError("killed")))
        with open_writer(path, meta) as writer:
            writer.append(grams[2])
            with pytest.raises(OSError, match="killed"):
                writer.append(grams[3])
    with open_writer(path, meta) as writer:
        assert (writer.n_committed, writer.meta.precision) == (0, "float64")
        for K in grams:
            writer.append(K)
    found = open_grams(path)[meta.key].read(0, 5)
    for packed, K in zip(found, grams, strict=True):
        np.testing.assert_array_equal(packed, triangle(K))


def test_resuming_knows_precision_bounds_and_unit(path, two_of_four_a_chunk):
    meta = make_gram_meta(sizes=(4,) * 5)
    grams = [np.float64(K) / 3 for K in make_grams(meta)]
    with open_writer(path, meta) as writer:
        assert writer.unit is None
        for K in grams[:3]:
            writer.append(K, 1e-7, -300)
    with open_writer(path, meta) as writer:
        assert (writer.n_committed, writer.unit, writer.meta.precision) == (2, -300, "float64")
        for K in grams[2:]:
            writer.append(K, 2e-7, -300)
    found = open_grams(path)[meta.key]
    assert (found.unit, found.bounds) == (-300, [1e-7, 1e-7, 2e-7, 2e-7, 2e-7])
    for packed, K in zip(found.read(0, 5), grams, strict=True):
        np.testing.assert_array_equal(packed, triangle(K))


def test_a_unit_may_be_known_after_the_first_grams(path, two_of_four_a_chunk):
    meta = make_gram_meta(sizes=(4,) * 6)
    grams = make_grams(meta)
    with open_writer(path, meta) as writer:
        for K in grams[:3]:
            writer.append(np.zeros_like(K), 0.0, None)
    assert open_grams(path)[meta.key].unit == 0
    for first, unit in ((2, -300), (4, -300)):
        with open_writer(path, meta) as writer:
            assert writer.unit == (None if first == 2 else unit)
            for K in grams[first : first + 2]:
                writer.append(K, 2e-7, unit)
    assert open_grams(path)[meta.key].unit == -300


@pytest.mark.parametrize("bound", ["far", True, [1], {}])
def test_a_malformed_bound_is_noticed(path, bound):
    meta = make_gram_meta()
    open_writer(path, meta)
    edit_attributes(path / meta.key.path, lambda stored: stored.update(allcnn_bounds=[bound]))
    with pytest.raises(SchemaError, match=r"a bound of .* and no number; compute the Grams again"):
        _ = open_grams(path)[meta.key].bounds


@pytest.mark.parametrize("shape", [(4,), (4, 5), (5, 4), (3, 3), (10,), (1, 4, 4)])
def test_another_shape_than_the_next_is_refused(path, shape):
    writer = open_writer(path, make_gram_meta())
    wanted = f"got a Gram of shape {shape}; minibatch 0 needs (4, 4)"
    with pytest.raises(MisalignedWriteError, match=re.escape(wanted)):
        writer.append(np.zeros(shape, np.float32))


def test_every_minibatch_has_its_own_shape(path):
    meta = make_gram_meta(sizes=(4, 6))
    writer = open_writer(path, meta)
    writer.append(np.eye(4))
    with pytest.raises(MisalignedWriteError, match=r"minibatch 1 needs \(6, 6\)"):
        writer.append(np.eye(4))
    writer.append(np.eye(6))
    with pytest.raises(MisalignedWriteError, match="have all their 2 minibatches; stop appending"):
        writer.append(np.eye(6))


@pytest.mark.parametrize("bounds", [(-1, 2), (3, 2), (0, 5)])
def test_ranges_outside_are_refused(path, bounds):
    meta = make_gram_meta()
    fill(path, meta)
    with pytest.raises(RowRangeError, match=r"minibatches .* want 0 <= start <= stop <= 4"):
        open_grams(path)[meta.key].read(*bounds)


def test_minibatches_not_committed_are_refused(path, two_a_chunk):
    meta = make_gram_meta()
    fill(path, meta, n_minibatches=3)
    found = open_grams(path)[meta.key]
    assert (found.n_committed, found.complete) == (2, False)
    message = "has 2 of 4 minibatches, and minibatch 2 was asked for; compute the rest first"
    with pytest.raises(UnfinishedError, match=message):
        found.read(1, 3)
    assert len(found.read(0, 2)) == 2


def test_a_chunk_is_read_once(path, two_a_chunk, monkeypatch):
    meta = make_gram_meta()
    fill(path, meta)
    found = open_grams(path)[meta.key]
    filled, fill_block = [], store.Grams._fill
    monkeypatch.setattr(
        store.Grams,
        "_fill",
        lambda self, block, target: (
            filled.append((block.start, block.stop)),
            fill_block(self, block, target),
        ),
    )
    found.read(1, 4)
    assert filled == [(0, 2), (2, 4)]


def test_coordinates_and_pickling(path):
    meta = make_gram_meta()
    grams = fill(path, meta)
    found = pickle.loads(pickle.dumps(open_grams(path)[meta.key]))
    samples, labels = coordinates(meta)
    np.testing.assert_array_equal(found.samples, samples)
    np.testing.assert_array_equal(found.labels, labels)
    assert found.samples.dtype == np.int64
    assert found.labels.dtype == np.int32
    assert_bit_equal(found.read(1, 3), [triangle(K) for K in grams[1:3]])
    assert [g.key for g in pickle.loads(pickle.dumps(open_grams(path))).find()] == [meta.key]


# The median distance


@pytest.mark.parametrize("distance", [0.0, 1 / 3, np.float32(0.1), math.inf, 1e-320])
def test_a_median_distance_is_kept_at_once_and_over_resumes(path, two_a_chunk, distance):
    meta = make_gram_meta()
    writer = open_writer(path, meta)
    assert writer.median_distance is None
    assert open_grams(path)[meta.key].median_distance is None
    writer.set_median_distance(distance)
    assert writer.median_distance == distance
    assert open_grams(path)[meta.key].median_distance == distance
    for K in make_grams(meta)[:2]:
        writer.append(K)
    writer.close()
    resumed = open_writer(path, meta)
    assert (resumed.n_committed, resumed.median_distance) == (2, distance)
    resumed.close()
    write_all(path, meta, make_grams(meta))
    assert open_grams(path)[meta.key].median_distance == distance


def test_a_median_distance_may_be_nan(path):
    meta = make_gram_meta()
    open_writer(path, meta).set_median_distance(math.nan)
    assert math.isnan(open_grams(path)[meta.key].median_distance)
    assert math.isnan(open_writer(path, meta).median_distance)
    text = (path / meta.key.path / "zarr.json").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_a_median_distance_is_set_last_as_well(path):
    meta = make_gram_meta()
    grams = fill(path, meta)
    writer = open_writer(path, meta)
    writer.set_median_distance(2.0)
    writer.set_median_distance(3.0)
    found = open_grams(path)[meta.key]
    assert (found.median_distance, found.complete) == (3.0, True)
    assert_bit_equal(found.read(0, 4), [triangle(K) for K in grams])


def test_a_negative_distance_is_refused(path):
    writer = open_writer(path, make_gram_meta())
    with pytest.raises(SchemaError, match=r"is -1\.0; want >= 0"):
        writer.set_median_distance(-1.0)
    assert writer.median_distance is None


def test_a_malformed_distance_is_noticed(path):
    meta = make_gram_meta()
    open_writer(path, meta)
    far = {"allcnn_median": "far"}
    edit_attributes(path / meta.key.path, lambda attributes: attributes.update(far))
    with pytest.raises(SchemaError, match="conv1 is 'far', and no number; compute"):
        _ = open_grams(path)[meta.key].median_distance


# Kills and damage


def test_a_kill_between_any_two_changes_of_the_disk_is_survived(tmp_path, two_a_chunk):
    meta = make_gram_meta()
    grams = make_grams(meta)

    def work(path):
        with open_writer(path, meta) as writer:
            writer.set_median_distance(0.5)
            for K in grams[writer.n_committed :]:
                writer.append(K)

    work(tmp_path / "wanted")
    kept = set()
    for path in kill_series(work, tmp_path, tmp_path / "absent"):
        n_kept = assert_claims_are_true(path, grams)
        work(path)
        assert contents(path) == contents(tmp_path / "wanted")
        kept.add(n_kept)
    # After the commit of the last chunk the claim is given up.
    assert kept == {0, 2, 4}


def assert_claims_are_true(path, grams):
    if not (path / "zarr.json").exists():
        return 0
    found = open_grams(path).find()
    for one in found:
        n = one.n_committed
        assert_bit_equal(one.read(0, n), [triangle(K) for K in grams[:n]])
        assert one.median_distance in ((None, 0.5) if n == 0 else (0.5,))
        assert len(one.labels) == one.meta.n_samples
    return found[0].n_committed if found else 0


def contents(path):
    """Return every file's content: arrays, commit records and all other metadata."""
    files = [file for file in path.rglob("*") if file.is_file() and file.suffix != ".partial"]
    return {file.relative_to(path): file.read_bytes() for file in files}


def test_a_full_disk_loses_nothing(path, two_a_chunk, monkeypatch):
    meta = make_gram_meta()
    grams = make_grams(meta)
    writer = open_writer(path, meta)
    for K in grams[:3]:
        writer.append(K)
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", _no_space)
        with pytest.raises(
            StoreLocationError,
            match=r"cannot write minibatches 2 to 3 of .*: No space left.* minibatches are safe",
        ):
            writer.append(grams[3])
        with pytest.raises(StoreLocationError, match=r"cannot write to .*: No space left"):
            writer.set_median_distance(1.0)
        assert writer.median_distance is None
    writer.append(grams[3])
    assert_bit_equal(open_grams(path)[meta.key].read(0, 4), [triangle(K) for K in grams])


def _no_space(*_):
    raise OSError(28, "No space left on device")


DAMAGE = {
    "flipped bit": lambda files: flip_bit(files[1]),
    "flipped checksum": lambda files: flip_bit(files[1], -1),
    "flipped padding": lambda files: flip_bit(files[0], 4 * 10),
    "truncated chunk": lambda files: files[1].write_bytes(files[1].read_bytes()[:-8]),
    "long chunk": lambda files: files[1].write_bytes(files[1].read_bytes() * 2),
    "empty chunk": lambda files: files[1].write_bytes(b""),
    "missing chunk": lambda files: files[1].unlink(),
    "swapped chunks": lambda files: swap(files[0], files[1]),
    "older chunk": lambda files: files[1].write_bytes(files[0].read_bytes()),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found(path, two_a_chunk, damage):
    meta = make_gram_meta()
    fill(path, meta)
    DAMAGE[damage](chunk_files(path / meta.key.path / "grams"))
    where = (
        r"minibatches (0 to 1|2 to 3) of the Grams linear-whole-4-float32-0123456789ab of tap"
        r" conv1 of run allcnn-d1-v2-s0, checkpoint final are damaged .*; restore .*"
        rf"{re.escape(meta.key.variant)} from a copy; only if you can compute it again"
    )
    with pytest.raises(DamagedChunkError, match=where):
        open_grams(path)[meta.key].read(0, 4)


def test_undamaged_chunks_are_still_read(path, two_a_chunk):
    meta = make_gram_meta()
    grams = fill(path, meta)
    flip_bit(chunk_files(path / meta.key.path / "grams")[1])
    found = open_grams(path)[meta.key]
    assert_bit_equal(found.read(0, 2), [triangle(K) for K in grams[:2]])
    with pytest.raises(DamagedChunkError, match="minibatches 2 to 3"):
        found.read(3, 4)


@pytest.mark.parametrize("name", ["sample", "label"])
def test_damaged_coordinates_are_found(path, name):
    meta = make_gram_meta()
    fill(path, meta)
    flip_bit(chunk_files(path / meta.key.path / name)[0])
    with pytest.raises(DamagedChunkError, match=f"{name}s of the Grams .* can compute it again"):
        getattr(open_grams(path)[meta.key], f"{name}s")


def test_a_missing_array_is_damage(path):
    meta = make_gram_meta()
    fill(path, meta)
    shutil.rmtree(path / meta.key.path / "grams")
    with pytest.raises(DamagedChunkError, match="array 'grams' is missing"):
        open_grams(path)[meta.key].read(0, 1)
    with pytest.raises(
        DamagedChunkError,
        match="has lost its array; restore it from a copy; only if you can",
    ):
        open_writer(path, meta)


def test_commit_records_that_are_no_chunks_are_noticed(path, two_a_chunk):
    meta = make_gram_meta()
    fill(path, meta)
    edit_attributes(path / meta.key.path, lambda attributes: attributes[COMMITS].pop(0))
    with pytest.raises(SchemaError, match="do not follow one another in blocks of 2 minibatches"):
        open_grams(path)[meta.key]


# Conflicts


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"checkpoint_digest": "sha256:0123456789ab" + "f" * 52},
            "stored with key.checkpoint_digest 'sha256:0123456789abcdef",
        ),
        ({"tap_index": 3}, "stored with tap_index 0, not 3;"),
        (
            {"ranges": ((0, 4), (4, 8), (8, 18))},
            "stored with ranges [[0, 4], [4, 8], [8, 12], [12, 18]], not [[0, 4], [4, 8], [8, 18]]",
        ),
    ],
)
def test_other_metadata_under_the_same_path_are_refused(path, change, message):
    open_writer(path, make_gram_meta())
    other = make_gram_meta(**change)
    assert other.key.path == make_gram_meta().key.path
    with pytest.raises(ConflictError, match=re.escape(message)):
        open_writer(path, other)


def test_many_ranges_make_no_endless_sentence(path):
    meta = make_gram_meta(sizes=(4,) * 200)
    open_writer(path, meta)
    with pytest.raises(ConflictError) as caught:
        open_writer(path, replace(meta, ranges=((0, 800),)))
    assert len(str(caught.value)) < 700


def test_other_coordinates_are_refused(path):
    meta = make_gram_meta()
    samples, labels = coordinates(meta)
    open_writer(path, meta)
    with pytest.raises(ConflictError, match="is stored with digest of labels"):
        GramWriter.open(path, meta, samples, labels + 1)
    with pytest.raises(MisalignedWriteError, match=r"labels of .* for 18 rows"):
        GramWriter.open(path, meta, samples, labels[1:])


def test_resuming_keeps_who_made_it(path):
    open_writer(path, make_gram_meta(created_by="first"))
    assert open_writer(path, make_gram_meta(created_by="second")).meta.created_by == "first"


def test_a_store_of_another_kind_is_refused(path, tmp_path):
    zarr.create_group(tmp_path / "foreign.zarr", attributes={"mine": 1})
    for refuse in (
        lambda: open_grams(tmp_path / "foreign.zarr"),
        lambda: open_writer(tmp_path / "foreign.zarr", make_gram_meta()),
    ):
        with pytest.raises(SchemaError, match="that this package did not write"):
            refuse()
    store.Writer.open(tmp_path / "a.zarr", make_meta(), *coordinates(make_meta()))
    with pytest.raises(SchemaError, match="is a store of activations; give a store of grams"):
        open_grams(tmp_path / "a.zarr")
    with pytest.raises(StoreLocationError, match="no store at"):
        open_grams(path)
    with pytest.raises(StoreLocationError, match="odd://bucket/a cannot be reached"):
        open_grams("odd://bucket/a")


def test_a_folder_that_is_not_ours_is_not_cleared(path):
    meta = make_gram_meta()
    open_writer(path, make_gram_meta("conv2"))
    folder = path / meta.key.path
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("x")
    with pytest.raises(SchemaError, match=r"holds 'thesis\.tex', which no store wrote"):
        open_writer(path, meta)
    assert (folder / "thesis.tex").read_text() == "x"


# Finding


@pytest.fixture
def filled(path, monkeypatch):
    monkeypatch.setattr(schema, "GRAM_CHUNK_BYTES", BYTES_OF_A_ROW)
    for run in ("net-s1", "net-s0"):
        for checkpoint in ("init", "final"):
            for tap, tap_index in (("conv1", 0), ("conv10", 2), ("conv2", 1)):
                for kernel in ("linear", "cosine"):
                    names = {"run": run, "checkpoint": checkpoint, "tap_index": tap_index}
                    meta = make_gram_meta(tap, kernel=kernel, **names)
                    fill(path, meta, n_minibatches=1 if run == "net-s1" else None)
    (path / ".DS_Store").mkdir()
    (path / "zarr.0123.partial").write_text("{")
    return open_grams(path)


def test_find_follows_the_network(filled):
    assert [
        (g.key.of.run, g.key.of.checkpoint, g.key.of.tap, g.key.kernel) for g in filled.find()
    ] == [
        (run, checkpoint, tap, kernel)
        for run in ("net-s0", "net-s1")
        for checkpoint in ("final", "init")
        for tap in ("conv1", "conv2", "conv10")
        for kernel in ("cosine", "linear")
    ]


def test_find_narrows_by_exact_names_and_returns_the_incomplete(filled):
    assert [g.key.of.tap for g in filled.find("net-s0", "init")][::2] == [
        "conv1",
        "conv2",
        "conv10",
    ]
    assert {g.n_committed for g in filled.find(run="net-s1")} == {1}
    assert all(g.complete for g in filled.find(run="net-s0"))
    assert len(filled.find(sample_set="digits-test-18-01234567")) == 24
    assert filled.find(checkpoint="fin") == []
    assert filled.find(run="../..") == []


def test_a_newer_variant_stands_beside_the_older(path):
    metas = [
        make_gram_meta(),
        make_gram_meta(pool="mean"),
        make_gram_meta(dtype="float16"),
        make_gram_meta(batch_size=5),
        make_gram_meta(checkpoint_digest="feedc0de"),
    ]
    for meta in metas:
        fill(path, meta)
    found = open_grams(path).find()
    assert {g.key for g in found} == {meta.key for meta in metas}
    assert [g.key.variant for g in found] == sorted(meta.key.variant for meta in metas)


def test_unknown_grams_are_refused(filled):
    key = filled.find()[0].key
    for other in (
        replace(key, of=replace(key.of, tap="conv9")),
        replace(key, batch_size=5),
        replace(key, checkpoint_digest="sha256:0123456789ab" + "f" * 52),  # of the same path
    ):
        with pytest.raises(UnknownGramsError, match=r"holds no Grams cosine-.* compute it first"):
            filled[other]
    assert filled[key].key == key


def test_grams_in_the_middle_of_creation_are_skipped(filled, path):
    key = make_gram_meta("conv3").key
    zarr.open_group(path, mode="r+").create_group(key.path)
    opened = open_grams(path)
    assert len(opened.find()) == 24
    with pytest.raises(UnfinishedError, match=r"conv3 is being created in .*; compute the rest"):
        opened[key]


def test_a_renamed_folder_is_noticed(path):
    meta = make_gram_meta()
    fill(path, meta)
    (path / meta.key.path).rename((path / meta.key.path).with_name("linear-whole-5"))
    with pytest.raises(SchemaError, match=r"conv1/linear-whole-5 holds .*; rename the folder"):
        open_grams(path).find()


# Without this package


def test_a_chunk_is_uncompressed_with_a_checksum(path, two_a_chunk):
    meta = make_gram_meta(sizes=(4, 4, 4, 4, 6))
    fill(path, meta)
    described = json.loads((path / meta.key.path / "grams/zarr.json").read_text())
    assert described["chunk_grid"]["configuration"]["chunk_shape"] == [2, 21]
    assert [codec["name"] for codec in described["codecs"]] == ["bytes", "crc32c"]
    assert described["fill_value"] == "NaN"
    assert described["dimension_names"] == ["minibatch", "pair"]


def test_plain_zarr_reads_it(path):
    meta = make_gram_meta()
    grams = fill(path, meta)
    group = zarr.open_group(path, mode="r")[meta.key.path]
    values = group["grams"][:]
    assert (values.dtype, values.shape) == (np.float32, (4, 21))
    np.testing.assert_array_equal(values[3], triangle(grams[3]))
    np.testing.assert_array_equal(values[0, :10], triangle(grams[0]))
    assert np.isnan(values[:3, 10:]).all()
    assert group["sample"].dtype == np.int64
    assert group["label"].dtype == np.int32


def test_xarray_reads_it(path):
    xarray = pytest.importorskip("xarray")
    meta = make_gram_meta()
    grams = fill(path, meta)
    with xarray.open_datatree(path, engine="zarr", consolidated=False) as tree:
        node = tree[meta.key.path]
        assert node["grams"].dims == ("minibatch", "pair")
        np.testing.assert_array_equal(node["grams"].values[3], triangle(grams[3]))
        np.testing.assert_array_equal(
            node["label"].sel(sample=[17, 0]), coordinates(meta)[1][[0, 17]]
        )


# Writing again


def stored(path):
    """Return all files but claims: the writer of ``fill`` was not closed."""
    return {name: content for name, content in contents(path).items() if name.name != ".claim"}


def test_a_damaged_chunk_is_written_again(path, two_a_chunk):
    meta = make_gram_meta()
    grams = fill(path, meta)
    before = stored(path)
    flip_bit(chunk_files(path / meta.key.path / "grams")[1])
    with open_writer(path, meta) as writer:
        write_again(writer, 2, *grams[2:])
    assert stored(path) == before


def test_other_grams_have_another_record(path, two_a_chunk):
    meta = make_gram_meta()
    grams = fill(path, meta)
    before = open_grams(path)[meta.key].commits
    with open_writer(path, meta) as writer:
        write_again(writer, 0, *[2 * K for K in grams[:2]])
    found = open_grams(path)[meta.key]
    assert (found.commits[0] == before[0], found.commits[1] == before[1]) == (False, True)
    wanted = [triangle(2 * K) for K in grams[:2]] + [triangle(K) for K in grams[2:]]
    assert_bit_equal(found.read(0, 4), wanted)


def test_the_bound_of_a_gram_is_not_kept_where_float32_rounds_it(path, two_a_chunk):
    meta = make_gram_meta()
    grams = fill(path, meta)
    with open_writer(path, meta) as writer:
        writer.take_back([0])
        writer.append(np.float64(grams[0]), 1e-12)
        writer.append(np.float64(grams[1]) / 3, 1e-12)
    assert open_grams(path)[meta.key].bounds == [1e-12, None, None, None]


@pytest.mark.parametrize("first", [1, 2, 4])
def test_only_whole_committed_chunks_are_taken_back(path, two_a_chunk, first):
    meta = make_gram_meta()
    fill(path, meta, 2)
    before = stored(path)
    message = rf"minibatch {first} of Grams .* begins none of its 1 blocks of 2"
    with (
        open_writer(path, meta) as writer,
        pytest.raises(MisalignedWriteError, match=message),
    ):
        writer.take_back([0, first])
    assert stored(path) == before


def test_grams_behind_one_that_is_taken_back_stay_in_float32(path, two_a_chunk):
    """In float64 all would be written again, and a kill would leave none."""
    meta = make_gram_meta()
    grams = fill(path, meta)
    with open_writer(path, meta) as writer:
        write_again(writer, 0, np.float64(grams[0]) / 3, grams[1])
    found = open_grams(path)[meta.key]
    assert found.meta.precision == "float32"
    assert_bit_equal(found.read(2, 4), [triangle(K) for K in grams[2:]])


def test_the_unit_stays_while_all_are_taken_back(path, two_a_chunk):
    meta = make_gram_meta()
    grams = make_grams(meta)
    with open_writer(path, meta) as writer:
        for K in grams:
            writer.append(K, None, -3)
    before = stored(path)
    with open_writer(path, meta) as writer:
        writer.take_back([0, 2])
    assert open_grams(path)[meta.key].unit == -3
    with open_writer(path, meta) as writer:
        for K in grams:
            writer.append(K, None, -3)
    assert stored(path) == before
