"""Writing a whole network from minibatches of any size, by whatever library they were computed."""

import itertools
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import zarr
from zarr.codecs import ZstdCodec

import store
from store import (
    ActivationOverflowError,
    ArrayError,
    ClaimedError,
    ConflictError,
    Examples,
    InvalidKeyError,
    MisalignedWriteError,
    NetworkWriter,
    RepresentationKey,
    RepresentationMeta,
    SchemaError,
    StoreLocationError,
    UnfinishedError,
    Writer,
)
from store.maintenance.verify import verify
from tests.faults import Killed, kill_series, killed_before

N, SIZE = 22, 8
EXAMPLES = Examples.of("x", "test", N, labels=np.arange(N) % 3)
DIGEST = "sha256:" + "ab" * 32
STAMP = {"created_by": "tests", "created_at": "2026-01-31T12:00:00+00:00"}


def make_taps(dtype=np.float32, n=N):
    rng = np.random.default_rng(0)
    shapes = {"zero": (3, 2, 2), "conv1": (4, 3), "logits": (5,)}
    return {name: rng.standard_normal((n, *shape)).astype(dtype) for name, shape in shapes.items()}


TAPS = make_taps()


def open_network(path, **changes):
    settings = {"run": "mine", "checkpoint": "final", "examples": EXAMPLES, "digest": DIGEST}
    return NetworkWriter(path, **settings | {"batch_rows": SIZE} | changes)


def part(taps, rows):
    return {name: values[rows] for name, values in taps.items()}


def write(path, taps=TAPS, sizes=(SIZE,), **changes):
    """Append what is missing, in turn so many rows; return how many were appended."""
    n_appended = 0
    with open_network(path, **changes) as network:
        for size in itertools.cycle(sizes):
            if network.complete:
                return n_appended
            rows = slice(network.next_row, min(network.next_row + size, N))
            network.append(part(taps, rows))
            n_appended += rows.stop - rows.start


def stored(path):
    """Return every tap's position, attributes, commits and bytes."""
    return [
        (str(tap.key), tap.meta.tap_index, tap.meta.shape, tap.commits, tap.read(0, N).tobytes())
        for tap in store.open(path).find()
    ]


@pytest.fixture
def wanted(tmp_path):
    """Return what is stored by writers of single representations."""
    for index, (name, values) in enumerate(TAPS.items()):
        key = RepresentationKey(EXAMPLES.sample_set.name, "mine", "final", name)
        meta = RepresentationMeta(
            key=key,
            sample_set=EXAMPLES.sample_set,
            checkpoint_digest=DIGEST,
            tap_index=index,
            shape=values.shape[1:],
            dtype="float32",
            batch_rows=SIZE,
            **STAMP,
        )
        indices, labels = EXAMPLES.indices, EXAMPLES.labels
        with Writer.open(tmp_path / "wanted.zarr", meta, indices, labels) as writer:
            for start in range(0, N, SIZE):
                writer.append(values[start : start + SIZE])
    return stored(tmp_path / "wanted.zarr")


@pytest.mark.parametrize("sizes", [(8,), (22,), (1,), (3,), (16, 1), (7, 9, 2), (0, 5)])
def test_minibatches_of_any_size_give_the_same_store(tmp_path, wanted, sizes):
    assert write(tmp_path / "a.zarr", sizes=sizes) == N
    assert stored(tmp_path / "a.zarr") == wanted


def test_what_is_missing_is_asked_for_a_minibatch_at_a_time(tmp_path, wanted):
    asked = []
    with open_network(tmp_path / "a.zarr") as network:
        for rows in network.minibatches():
            asked.append((rows.start, rows.stop))
            network.append(part(TAPS, rows))
    assert asked == [(0, 8), (8, 16), (16, 22)]
    assert stored(tmp_path / "a.zarr") == wanted
    assert list(open_network(tmp_path / "a.zarr").minibatches()) == []


def test_rows_are_not_asked_for_for_ever(tmp_path):
    told = "mine@final got nothing after rows 0 to 7 were asked for; append them before asking"
    with pytest.raises(MisalignedWriteError, match=f"^{told}"):
        list(open_network(tmp_path / "a.zarr").minibatches())


def test_tensors_of_torch_are_stored_with_channels_last(tmp_path, wanted):
    torch = pytest.importorskip("torch", reason="PyTorch comes with the extra 'bench'")
    moved = {name: np.moveaxis(values, -1, 1) for name, values in TAPS.items()}
    tensors = {name: torch.tensor(values, requires_grad=True) for name, values in moved.items()}
    write(tmp_path / "a.zarr", tensors, channels_first=True)
    assert stored(tmp_path / "a.zarr") == wanted


@pytest.mark.parametrize("named", [["zero"], ("zero", "conv1"), {"zero", "conv1", "logits"}])
def test_channels_first_moves_three_and_four_axes_of_all_taps_or_some(tmp_path, wanted, named):
    moved = {n: np.moveaxis(X, -1, 1) if n in named else X for n, X in TAPS.items()}
    write(tmp_path / "a.zarr", moved, sizes=(5,), channels_first=named)
    assert stored(tmp_path / "a.zarr") == wanted


def test_memory_may_be_used_again(tmp_path, wanted):
    buffers = {name: np.empty((3, *values.shape[1:])) for name, values in TAPS.items()}
    with open_network(tmp_path / "a.zarr") as network:
        while not network.complete:
            rows = slice(network.next_row, min(network.next_row + 3, N))
            for name, buffer in buffers.items():
                buffer[: rows.stop - rows.start] = TAPS[name][rows]
            network.append(part(buffers, slice(0, rows.stop - rows.start)))
    assert stored(tmp_path / "a.zarr") == wanted


def test_whole_minibatches_are_not_copied(tmp_path, monkeypatch):
    seen = []
    append = Writer.append
    monkeypatch.setattr(
        Writer, "append", lambda self, rows: (seen.append(rows), append(self, rows))
    )
    write(tmp_path / "a.zarr", sizes=(16,))
    assert all(np.shares_memory(rows, TAPS[name]) for rows, name in zip(seen, TAPS, strict=False))


def test_other_types_are_cast(tmp_path):
    counts = {"pixels": np.arange(N * 2, dtype=np.uint8).reshape(N, 2), "on": np.ones((N, 1), bool)}
    write(tmp_path / "a.zarr", counts, dtype="float16")
    for tap in store.open(tmp_path / "a.zarr").find():
        found = tap.read(0, N)
        assert found.dtype == np.float16
        np.testing.assert_array_equal(found, counts[tap.key.tap])


def test_what_is_told_of_the_network_is_stored(tmp_path):
    facts = {"depth": 18, "seed": 0, "family": "resnet"}
    write(tmp_path / "a.zarr", attributes=facts, created_by="me 1.0", compression="zstd")
    for tap in store.open(tmp_path / "a.zarr").find():
        assert tap.meta.n_taps == len(TAPS)
        assert tap.meta.attributes == facts
        assert tap.meta.created_by == "me 1.0"
        codecs = zarr.open_array(tmp_path / "a.zarr" / tap.key.path / "activations").compressors
        assert any(isinstance(codec, ZstdCodec) for codec in codecs)
        np.testing.assert_array_equal(tap.labels, EXAMPLES.labels)
        np.testing.assert_array_equal(tap.samples, EXAMPLES.indices)


def test_nan_and_infinity_are_stored_as_they_are(tmp_path):
    values = TAPS["logits"].copy()
    values[3, :2] = np.nan, -np.inf
    write(tmp_path / "a.zarr", {"logits": values}, dtype="float16")
    found = store.open(tmp_path / "a.zarr").find()[0].read(0, N)
    np.testing.assert_array_equal(found, values.astype(np.float16))


def test_a_store_may_be_at_an_address(request, wanted):
    address = f"memory://{request.node.name}/a.zarr"
    network = open_network(address)
    network.append(part(TAPS, slice(0, 13)))
    network.close()
    assert write(address) == N - 8
    assert stored(address) == wanted


# Going on


def test_it_goes_on_after_the_last_whole_minibatch(tmp_path, wanted):
    path = tmp_path / "a.zarr"
    network = open_network(path)
    network.append(part(TAPS, slice(0, 13)))
    assert network.next_row == 13
    network.close()
    assert network.next_row == 8
    assert open_network(path).next_row == 8
    assert write(path, sizes=(5,)) == N - 8
    assert write(path) == 0
    assert stored(path) == wanted


def test_a_closed_one_can_be_appended_to_again(tmp_path, wanted):
    network = open_network(tmp_path / "a.zarr")
    network.append(part(TAPS, slice(0, 10)))
    network.close()
    network.append(part(TAPS, slice(8, N)))
    network.close()
    assert stored(tmp_path / "a.zarr") == wanted


def test_rows_that_are_missing_at_the_end_are_told(tmp_path):
    told = "mine@final has 16 of 22 rows; append the others: opened again, it goes on after the"
    with (
        pytest.raises(UnfinishedError, match=f"^{told}"),
        open_network(tmp_path / "a.zarr") as network,
    ):
        network.append(part(TAPS, slice(0, 20)))
    assert write(tmp_path / "a.zarr") == 6


def test_an_error_of_the_caller_is_not_hidden(tmp_path):
    def compute():
        with open_network(tmp_path / "a.zarr") as network:
            network.append(part(TAPS, slice(0, 8)))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        compute()
    assert open_network(tmp_path / "a.zarr").next_row == 8


@pytest.mark.slow
def test_a_kill_at_any_moment_loses_nothing(tmp_path, wanted):
    for path in kill_series(lambda path: write(path, sizes=(5,)), tmp_path, tmp_path / "none"):
        write(path, sizes=(7,))
        assert stored(path) == wanted


def test_taps_may_be_left_by_a_kill_at_different_rows(tmp_path, wanted, monkeypatch):
    append = Writer.append

    def dying(self, rows):
        if self.meta.key.tap == "conv1" and self.n_committed == 8:
            raise Killed
        append(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(Writer, "append", dying)
        with pytest.raises(Killed):
            write(tmp_path / "a.zarr")
    assert [tap.n_committed for tap in store.open(tmp_path / "a.zarr").find()] == [16, 8, 8]
    assert write(tmp_path / "a.zarr") == N - 8
    assert stored(tmp_path / "a.zarr") == wanted


def test_a_second_writer_is_refused_at_once(tmp_path):
    with open_network(tmp_path / "a.zarr") as first:
        first.append(part(TAPS, slice(0, 8)))
        second = open_network(tmp_path / "a.zarr")
        with pytest.raises(ClaimedError):
            second.append(part(TAPS, slice(8, 16)))
        first.append(part(TAPS, slice(8, N)))
    assert open_network(tmp_path / "a.zarr").complete


def test_after_too_large_a_value_it_goes_on_when_opened_again(tmp_path):
    taps = {"a": TAPS["logits"], "b": TAPS["logits"].copy()}
    taps["b"][9, 2] = 70000
    network = open_network(tmp_path / "a.zarr", dtype="float16")
    network.append(part(taps, slice(0, 8)))
    with pytest.raises(ActivationOverflowError, match=r"^mine@final:b reaches 70000, and float"):
        network.append(part(taps, slice(8, 16)))
    assert network.next_row == 8
    taps["b"][9, 2] = 0
    assert write(tmp_path / "a.zarr", taps, dtype="float16") == N - 8
    found = store.open(tmp_path / "a.zarr").find()[1].read(0, N)
    np.testing.assert_array_equal(found, taps["b"].astype(np.float16))


def fail_at(monkeypatch, tap, row):
    """Let the disk be full for one minibatch of one tap."""
    append = Writer.append

    def failing(self, rows):
        if self.meta.key.tap == tap and self.n_committed == row:
            raise StoreLocationError("No space left on device")
        append(self, rows)

    monkeypatch.setattr(Writer, "append", failing)


@pytest.mark.parametrize("tap", TAPS)
@pytest.mark.parametrize("sizes", [(16,), (8, 8), (5, 11), (13, 3)])
def test_rows_appended_again_after_an_error_are_not_the_next_ones(
    tmp_path, wanted, monkeypatch, tap, sizes
):
    network = open_network(tmp_path / "a.zarr")
    ends = [*itertools.accumulate(sizes)]
    parts = [part(TAPS, slice(end - n, end)) for n, end in zip(sizes, ends, strict=True)]
    with monkeypatch.context() as patch:
        fail_at(patch, tap, 8)
        with pytest.raises(StoreLocationError, match="No space left"):  # noqa: PT012
            for each in parts:
                network.append(each)
    assert network.next_row == 8
    told = "^mine@final failed at row 8; open it again and go on from next_row$"
    with pytest.raises(MisalignedWriteError, match=told):
        network.append(parts[-1])
    with pytest.raises(MisalignedWriteError, match=told):
        next(network.minibatches())
    # Its claims are gone with it.
    assert write(tmp_path / "a.zarr") == N - 8
    assert stored(tmp_path / "a.zarr") == wanted


def test_no_more_rows_are_asked_for_after_an_error(tmp_path, monkeypatch):
    network = open_network(tmp_path / "a.zarr")
    minibatches = network.minibatches()
    rows = next(minibatches)
    fail_at(monkeypatch, "conv1", 0)
    with pytest.raises(StoreLocationError):
        network.append(part(TAPS, rows))
    with pytest.raises(MisalignedWriteError, match=r"^mine@final failed at row 0; open it again"):
        next(minibatches)


def test_rows_may_say_where_they_begin(tmp_path, wanted):
    network = open_network(tmp_path / "a.zarr")
    network.append(part(TAPS, slice(0, 13)), start=0)
    told = "^mine@final got rows from row 0 on, and row 13 is next; go on from next_row$"
    with pytest.raises(MisalignedWriteError, match=told):
        network.append(part(TAPS, slice(0, 5)), start=0)
    network.append(part(TAPS, slice(13, N)), start=13)
    assert stored(tmp_path / "a.zarr") == wanted


# What is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"digest": "other"}, f"checkpoint_digest '{DIGEST}', not 'other'"),
        ({"dtype": "float16"}, "dtype 'float32', not 'float16'"),
        ({"batch_rows": 4}, "batch_rows 8, not 4"),
    ],
)
def test_another_network_of_the_same_name_is_refused(tmp_path, changes, message):
    write(tmp_path / "a.zarr")
    told = f"mine@final:zero on {EXAMPLES.sample_set.name} is stored with {message}; give the same"
    with pytest.raises(ConflictError, match=f"^{re.escape(told)}"):
        open_network(tmp_path / "a.zarr", **changes)


@pytest.mark.parametrize("names", [["zero"], ["zero", "logits", "conv1"], [*TAPS, "extra"]])
def test_other_taps_than_before_are_refused_in_going_on(tmp_path, names):
    network = open_network(tmp_path / "a.zarr")
    network.append(part(TAPS, slice(0, 8)))
    network.close()
    before = [tap.key for tap in store.open(tmp_path / "a.zarr").find()]
    told = f"mine@final is stored with the taps zero, conv1, logits, and got {', '.join(names)}; "
    with pytest.raises(ConflictError, match=f"^{told}"):
        open_network(tmp_path / "a.zarr").append({name: TAPS["zero"][8:16] for name in names})
    assert [tap.key for tap in store.open(tmp_path / "a.zarr").find()] == before


@pytest.mark.parametrize("lost", TAPS)
def test_a_tap_that_is_lost_is_written_again(tmp_path, wanted, lost):
    write(tmp_path / "a.zarr")
    shutil.rmtree(tmp_path / "a.zarr" / EXAMPLES.sample_set.name / "mine" / "final" / lost)
    assert write(tmp_path / "a.zarr") == N
    assert stored(tmp_path / "a.zarr") == wanted
    assert write(tmp_path / "a.zarr") == 0


def test_taps_that_are_told_are_compared_with_what_is_stored(tmp_path):
    write(tmp_path / "a.zarr")
    assert open_network(tmp_path / "a.zarr", taps=tuple(TAPS)).complete
    told = (
        "mine@final is stored with the taps zero, conv1, logits, and got zero, conv1, logits, more;"
    )
    with pytest.raises(ConflictError, match=told):
        open_network(tmp_path / "a.zarr", taps=[*TAPS, "more"])
    with pytest.raises(ConflictError, match="got conv1, zero, logits;"):
        open_network(tmp_path / "a.zarr", taps=["conv1", "zero", "logits"])


def test_attributes_that_are_given_again_take_the_place_of_others(tmp_path, wanted):
    path = tmp_path / "a.zarr"
    write(path, attributes={"depth": 18})
    write(path)
    assert len(store.open(path).find(depth=18)) == len(TAPS)
    write(path, attributes={"depth": np.int64(19), "pruned": np.bool_(True)})
    assert len(store.open(path).find(depth=19, pruned=True)) == len(TAPS)
    assert stored(path) == wanted
    assert [each for one in verify(path, "activations") for each in one.damage] == []


@pytest.mark.parametrize(("changed", "told"), [("indices", "samples"), ("labels", "labels")])
def test_other_examples_on_the_same_sample_set_are_refused(tmp_path, changed, told):
    path = tmp_path / "a.zarr"
    write(path)
    other = replace(EXAMPLES, **{changed: getattr(EXAMPLES, changed)[::-1].copy()})
    with pytest.raises(ConflictError, match=f"^yours@final:zero has other {told} "):
        write(path, run="yours", examples=other)
    assert [tap.key.run for tap in store.open(path).find()] == ["mine"] * len(TAPS)
    write(path, run="yours", examples=Examples.like(store.open(path).find()[0]))


def test_unknown_indices_are_like_any_others(tmp_path):
    images = np.zeros((N, 4, 4, 1), np.uint8)
    how = {"labels": np.arange(N) % 3, "images": images}
    unknown = Examples.of("x", "test", N, **how)
    known = Examples.of("x", "test", N, indices=np.arange(N)[::-1], **how)
    other = Examples.of("x", "test", N, indices=np.arange(N), **how)
    assert unknown.sample_set == known.sample_set
    assert set(unknown.indices) == {-1}
    for run, examples in {"a": unknown, "b": known, "c": unknown}.items():
        write(tmp_path / "a.zarr", run=run, examples=examples)
    with pytest.raises(ConflictError, match=r"^d@final:zero has other samples "):
        write(tmp_path / "a.zarr", run="d", examples=other)


def test_a_digest_that_begins_alike_is_no_same_sample_set(tmp_path):
    path, mine = tmp_path / "a.zarr", EXAMPLES.sample_set
    write(path)
    other = replace(EXAMPLES, sample_set=replace(mine, digest=mine.digest[:8] + "0" * 56))
    with pytest.raises(ConflictError, match="begin their digests differently"):
        write(path, run="yours", examples=other)


def test_a_network_stays_where_it_was_opened(tmp_path, monkeypatch, wanted):
    monkeypatch.chdir(tmp_path)
    network = open_network("a.zarr")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    network.append(TAPS)
    network.close()
    assert stored(tmp_path / "a.zarr") == wanted


def test_taps_that_a_kill_kept_from_being_created_are_created(tmp_path, wanted):
    path = tmp_path / "a.zarr"
    for n in itertools.count(0, 3):
        try:
            with killed_before(n):
                write(path)
        except Killed:
            continue
        break
    assert n > 20  # each attempt finds done what those before it did
    assert stored(path) == wanted


@pytest.mark.parametrize(
    ("taps", "error", "message"),
    [
        ({}, MisalignedWriteError, "mine@final got no taps; append the same rows of all taps"),
        (
            {"a": np.zeros((4, 1)), "b": np.zeros((5, 1))},
            MisalignedWriteError,
            "mine@final got 4 of a, 5 of b; append the same rows of all taps",
        ),
        (
            {"a": np.zeros((23, 1))},
            MisalignedWriteError,
            "mine@final got 23 rows after row 0, and there are 22 examples; append one row an",
        ),
        ({"a": np.zeros(4)}, ArrayError, "tap a has the shape (4,); wanted are two to four axes"),
        ({"a": np.float32(1)}, ArrayError, "tap a has the shape (); wanted are two to four axes"),
        ({"a": np.zeros((4, 1, 1, 1, 1))}, ArrayError, "tap a has the shape (4, 1, 1, 1, 1); wan"),
        ({"a": np.zeros((4, 0))}, ArrayError, "tap a has the shape (4, 0), so no values; leave"),
        ({"a": np.zeros((4, 1), object)}, ArrayError, "tap a is of type object; wanted are real"),
        ({"a": np.zeros((4, 1), complex)}, ArrayError, "tap a is of type complex128; wanted are"),
        ({"a": np.ma.masked_all((4, 1))}, ArrayError, "tap a has masked values, which are"),
        ({"a": [[1], [1, 2]]}, ArrayError, "tap a cannot be made an array of NumPy's: setting"),
        ({"a": [["x"]]}, ArrayError, "tap a is of type <U1; wanted are real numbers"),
        ({"": np.zeros((4, 1))}, InvalidKeyError, "'' cannot be the name of a tap; use 1 to 200"),
        ({"a\0": np.zeros((4, 1))}, InvalidKeyError, "'a\\x00' cannot be the name of a tap"),
        ({"x" * 201: np.zeros((4, 1))}, InvalidKeyError, f"'{'x' * 201}' cannot be the name of"),
        ({3: np.zeros((4, 1))}, InvalidKeyError, "3 cannot be the name of a tap"),
    ],
)
def test_rows_that_do_not_fit_are_refused_before_anything_is_written(
    tmp_path, taps, error, message
):
    network = open_network(tmp_path / "a.zarr")
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        network.append(taps)
    assert list(tmp_path.iterdir()) == []
    assert network.next_row == 0


@pytest.mark.parametrize(
    ("taps", "message"),
    [
        (part(TAPS, slice(8, 10)) | {"x": TAPS["logits"][8:10]}, "got the taps zero, conv1, logi"),
        ({"zero": TAPS["zero"][8:10]}, "got the taps zero, and before them zero, conv1, logits; a"),
        (
            part(TAPS, slice(8, 10)) | {"logits": np.zeros((2, 6))},
            ":logits got rows of shape (6,), and before them (5,); give all rows one shape",
        ),
        (part(make_taps(n=15), slice(0, 15)), "got 15 rows after row 8, and there are 22 exam"),
    ],
)
def test_later_rows_that_do_not_fit_are_refused(tmp_path, wanted, taps, message):
    with open_network(tmp_path / "a.zarr") as network:
        network.append(part(TAPS, slice(0, 8)))
        with pytest.raises(MisalignedWriteError, match=re.escape(message)):
            network.append(taps)
        network.append(part(TAPS, slice(8, N)))
    assert stored(tmp_path / "a.zarr") == wanted


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"run": "../a"}, InvalidKeyError, "run '../a' cannot be a folder's name"),
        ({"checkpoint": ""}, InvalidKeyError, "checkpoint '' cannot be a folder's name"),
        (
            {"dtype": "int8"},
            SchemaError,
            "dtype is 'int8'; use 'float64' or 'float32' or 'float16'",
        ),
        ({"batch_rows": 0}, SchemaError, "batch_rows is 0; want an integer of at least 1"),
        ({"digest": ""}, SchemaError, "checkpoint_digest is ''; want a text that is not empty"),
    ],
)
def test_settings_are_checked_before_any_row_is_computed(tmp_path, changes, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        open_network(tmp_path / "a.zarr", **changes)


def test_a_store_that_lost_rows_meanwhile_is_not_gone_on_with(tmp_path):
    network = open_network(tmp_path / "a.zarr")
    network.append(part(TAPS, slice(0, 8)))
    network.close()
    late = open_network(tmp_path / "a.zarr")
    (tmp_path / "a.zarr").rename(tmp_path / "b.zarr")
    with pytest.raises(
        ConflictError, match=r"^mine@final lost rows since it was opened for writing"
    ):
        late.append(part(TAPS, slice(8, 16)))
