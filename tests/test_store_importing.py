"""Whole arrays as the taps of a network: checked before, digested, written once."""

import re
import shutil

import numpy as np
import pytest

import store
from store import (
    ActivationOverflowError,
    ArrayError,
    ConflictError,
    Examples,
    InvalidKeyError,
    PrecisionError,
    SchemaError,
    write_network,
)
from store.ingest.import_arrays import rows_digest
from store.maintenance.verify import verify
from tests.faults import chunk_files, flip_bit

N = 22
EXAMPLES = Examples.of("x", "test", N, labels=np.arange(N) % 3)


def make_taps():
    rng = np.random.default_rng(0)
    shapes = {"zero": (3, 2, 2), "conv1": (4, 3), "logits": (5,)}
    return {name: rng.standard_normal((N, *s)).astype(np.float32) for name, s in shapes.items()}


TAPS = make_taps()


def write(path, taps=TAPS, **changes):
    settings = {"run": "mine", "checkpoint": "final", "examples": EXAMPLES, "batch_rows": 8}
    return write_network(path, taps, **settings | changes)


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


class Rows:
    """Gives rows as slices, and remembers which."""

    def __init__(self, values):
        self.values = values
        self.shape = values.shape
        self.read = []

    def __getitem__(self, rows):
        self.read.append(rows)
        return self.values[rows]


@pytest.mark.parametrize(
    "value",
    ["\udcff", 10**20, -(10**19), 10**5000, np.inf, np.nan, None],
    ids=["surrogate", "10^20", "-10^19", "10^5000", "infinite", "nan", "none"],
)
def test_attributes_that_could_not_be_read_again_are_refused(tmp_path, value):
    with pytest.raises(SchemaError, match=r"attribute note .*; want a text or a"):
        write(tmp_path / "a.zarr", attributes={"note": value})
    assert not (tmp_path / "a.zarr").exists()


def test_arrays_are_stored_in_their_order(tmp_path):
    digest = write(tmp_path / "a.zarr")
    for index, tap in enumerate(store.open(tmp_path / "a.zarr").find()):
        assert tap.complete
        assert (tap.meta.tap_index, tap.meta.checkpoint_digest) == (index, digest)
        assert tap.key.tap == list(TAPS)[index]
        np.testing.assert_array_equal(tap.read(0, N), TAPS[tap.key.tap])


def test_arrays_may_be_lists_tensors_and_files(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch comes with the extra 'bench'")
    np.save(tmp_path / "logits.npy", TAPS["logits"])
    others = {
        "zero": torch.tensor(TAPS["zero"]).permute(0, 3, 1, 2),
        "conv1": np.moveaxis(TAPS["conv1"], -1, 1).tolist(),
        "logits": np.load(tmp_path / "logits.npy", mmap_mode="r"),
    }
    digest = write(tmp_path / "a.zarr")
    assert write(tmp_path / "b.zarr", others, channels_first=True) == digest
    for first, second in zip(
        *(store.open(tmp_path / f"{x}.zarr").find() for x in "ab"), strict=True
    ):
        assert first.commits == second.commits


def test_arrays_are_read_twice_a_minibatch_at_a_time(tmp_path):
    taps = {name: Rows(values) for name, values in TAPS.items()}
    write(tmp_path / "a.zarr", taps)
    minibatches = [slice(0, 8), slice(8, 16), slice(16, 24)]
    for rows in taps.values():
        assert rows.read[1:4] == minibatches
        assert [(r.start, min(r.stop, N)) for r in rows.read[4:]] == [(0, 8), (8, 16), (16, N)]
        assert rows.read[0] == slice(None, 0)  # of which type it is


def test_the_same_again_writes_nothing(tmp_path):
    write(tmp_path / "a.zarr")
    before = contents(tmp_path)
    write(tmp_path / "a.zarr")
    write(tmp_path / "a.zarr", {name: values.astype(float) for name, values in TAPS.items()})
    assert contents(tmp_path) == before


def changed(name, row, value):
    values = TAPS[name].copy()
    values.reshape(N, -1)[row, 0] = value
    return TAPS | {name: values}


@pytest.mark.parametrize(
    "taps",
    [
        changed("logits", N - 1, 0),
        dict(reversed(TAPS.items())),
        {"conv0" if name == "conv1" else name: values for name, values in TAPS.items()},
        {name: values for name, values in TAPS.items() if name != "logits"},
    ],
)
def test_other_arrays_of_the_same_name_are_refused(tmp_path, taps):
    write(tmp_path / "a.zarr")
    before = contents(tmp_path)
    message = (
        r"^mine@final:zero on x-test-22-\w+ is stored with checkpoint_digest 'sha256:\w+', not"
    )
    with pytest.raises(ConflictError, match=message):
        write(tmp_path / "a.zarr", taps)
    assert contents(tmp_path) == before


def test_what_is_damaged_or_lost_is_written_again(tmp_path):
    path = tmp_path / "a.zarr"
    write(path)
    before = contents(path)
    zero, conv1, logits = store.open(path).find()
    flip_bit(chunk_files(zero.place / "activations")[1])
    chunk_files(conv1.place / "activations")[2].unlink()
    shutil.rmtree(logits.place)
    write(path)
    assert [each for one in verify(path, "activations") for each in one.damage] == []
    after = contents(path)
    assert set(after) == set(before)
    # Metadata hold the time.
    assert {p: c for p, c in after.items() if p.name != "zarr.json"} == {
        p: c for p, c in before.items() if p.name != "zarr.json"
    }


@pytest.mark.parametrize("taps", [[TAPS["zero"]], TAPS["zero"], None])
def test_taps_without_names_are_refused(tmp_path, taps):
    with pytest.raises(ArrayError, match="give a mapping of names to arrays"):
        write(tmp_path / "a.zarr", taps)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("examples", [None, 20])
def test_examples_are_asked_for(tmp_path, examples):
    with pytest.raises(ArrayError, match=r"give what store\.Examples\.of"):
        write(tmp_path / "a.zarr", examples=examples)


def test_an_interrupted_one_goes_on(tmp_path):
    def interrupted(done, total, detail):
        reports.append((done, total, detail))
        if done == 3 * N + 3 * 8:
            raise KeyboardInterrupt

    reports = []
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a.zarr", report=interrupted)
    assert reports[0] == (8, 2 * 3 * N, "checking zero")
    assert [tap.n_committed for tap in store.open(tmp_path / "a.zarr").find()] == [8] * 3
    taps = {name: Rows(values) for name, values in TAPS.items()}
    write(tmp_path / "a.zarr", taps, report=lambda *report: reports.append(report))
    assert all(len(rows.read) == 1 + 3 + 2 for rows in taps.values())
    assert all(tap.complete for tap in store.open(tmp_path / "a.zarr").find())


def test_what_is_told_of_the_network_is_stored(tmp_path):
    write(tmp_path / "a.zarr", attributes={"depth": 3}, dtype="float16")
    for tap in store.open(tmp_path / "a.zarr").find():
        assert (tap.meta.attributes, tap.meta.dtype) == ({"depth": 3}, "float16")


MASKED = np.ma.masked_less(TAPS["logits"], 0)


@pytest.mark.parametrize(
    ("taps", "error", "message"),
    [
        ({}, ArrayError, "there are no arrays to store; give one a tap"),
        (
            TAPS | {"conv1": TAPS["conv1"][:-1]},
            ArrayError,
            "tap conv1 has 21 rows, and there are 22 examples; want one row an example",
        ),
        ({"a": np.zeros((0, 3))}, ArrayError, "tap a has 0 rows, and there are 22 examples"),
        ({"a": np.zeros(N)}, ArrayError, "tap a has the shape (22,); wanted are two to four axes"),
        ({"a": np.float32(0)}, ArrayError, "tap a has the shape (); wanted are two to four axes"),
        ({"a": np.zeros((N, 1, 1, 1, 1))}, ArrayError, "tap a has the shape (22, 1, 1, 1, 1); w"),
        ({"a": np.full((N, 1), None)}, ArrayError, "tap a is of type object; wanted are real n"),
        ({"": TAPS["conv1"]}, InvalidKeyError, "'' cannot be the name of a tap; use 1 to 200"),
        (
            changed("conv1", 17, np.nan),
            ArrayError,
            "tap conv1 has NaN or infinite values, first in row 17; no CKA is defined with them",
        ),
        (changed("logits", 9, -np.inf), ArrayError, "tap logits has NaN or infinite values, firs"),
        (
            changed("logits", 9, -70000),
            ActivationOverflowError,
            "tap logits reaches 70000, and float16 ends at 65504; store it as float32 (--dty",
        ),
        ({"a": MASKED}, ArrayError, "tap a has masked values, which are no numbers; fill them"),
        ({"a": list(MASKED)}, ArrayError, "tap a has masked values, which are no numbers; fill"),
        ({"a": Rows(MASKED)}, ArrayError, "tap a has masked values, which are no numbers; fill"),
        ({"a": [[1.0], [2, 3]]}, ArrayError, "tap a cannot be made an array of NumPy's: setting"),
        (
            TAPS | {"logits": TAPS["logits"] + 1000},
            PrecisionError,
            "tap logits varies too little for the precision of float16: rounding would change CKA",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_refused_before_anything_is_written(
    tmp_path, taps, error, message
):
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        write(tmp_path / "a.zarr", taps, dtype="float16")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"run": "../a"}, InvalidKeyError, "run '../a' cannot be a folder's name"),
        ({"attributes": {"depth": None}}, SchemaError, "attribute depth is None; want a text or"),
        (
            {"dtype": "int8"},
            SchemaError,
            "dtype is 'int8'; use 'float64' or 'float32' or 'float16'",
        ),
        ({"dtype": "float16"}, ConflictError, "mine@final:zero on x-test-22-"),
        ({"batch_rows": 4}, ConflictError, "mine@final:zero on x-test-22-"),
    ],
)
def test_settings_are_checked_before_the_arrays_are_read(tmp_path, changes, error, message):
    write(tmp_path / "a.zarr")
    rows = Rows(TAPS["zero"])
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        write(tmp_path / "a.zarr", {"zero": rows}, **changes)
    assert rows.read == []


@pytest.mark.parametrize("batch_rows", [1, 3, 8])
def test_float64_far_from_zero_is_stored_as_such_alone(tmp_path, batch_rows):
    far = {"far": TAPS["logits"].astype(np.float64) + 1e9}
    with pytest.raises(PrecisionError, match=r"^tap far .* store it as float64 \(--dtype float64"):
        write(tmp_path / "a.zarr", far, batch_rows=batch_rows)
    assert list(tmp_path.iterdir()) == []
    write(tmp_path / "a.zarr", far, batch_rows=batch_rows, dtype="float64")
    (tap,) = store.open(tmp_path / "a.zarr").find(dtype="float64")
    np.testing.assert_array_equal(tap.read(0, N), far["far"])


def test_a_digest_may_stand_for_the_network(tmp_path):
    path = tmp_path / "a.zarr"
    assert write(path, digest="weights") == "weights"
    assert {tap.meta.checkpoint_digest for tap in store.open(path).find()} == {"weights"}
    before = contents(path)
    assert write(path, digest="weights") == "weights"
    assert contents(path) == before


@pytest.mark.parametrize("row", [0, 9, N - 1])
def test_a_digest_does_not_hide_other_arrays(tmp_path, row):
    path = tmp_path / "a.zarr"
    write(path, digest="weights")
    flip_bit(chunk_files(path / EXAMPLES.sample_set.name / "mine/final/zero/activations")[0])
    before = contents(path)
    other = TAPS["logits"].copy()
    other[row, 2] += 1
    with pytest.raises(ConflictError, match=r"logits on .* is stored with other values in rows"):
        write(path, TAPS | {"logits": other}, digest="weights")
    assert contents(path) == before
    write(path, digest="weights")
    assert all(tap.check(c) is None for tap in store.open(path).find() for c in tap.commits)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_digest_of_rows_is_found_in_what_is_stored(tmp_path, dtype):
    path = tmp_path / "a.zarr"
    digest = write(path, dtype=dtype)
    taps = store.open(path).find()
    assert rows_digest(taps) == rows_digest(taps[::-1]) == digest
    assert rows_digest(taps[1:]) != digest
    flip_bit(chunk_files(taps[0].place / "activations")[0])
    assert rows_digest(store.open(path).find()) is None
