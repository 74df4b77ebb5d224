"""Extraction: what is kept is what the network says, a minibatch at a time, and never twice."""

import functools
import itertools
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import weakref
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import store
from allcnn import extract
from allcnn.errors import ConfigError, RunError
from allcnn.extract import LoadedNetwork, Samples, sinks
from allcnn.networks.variables import abstract
from allcnn.progress import silent
from allcnn.settings.extraction import Extraction
from allcnn.similarity import gram, gram_error
from allcnn.workspace import checkpoints, run_record
from allcnn.workspace.paths import Workspace
from store import ConflictError, GramWriter, RepresentationKey, Writer
from store.errors import ActivationOverflowError, ClaimedError, PrecisionError
from store.storage.claims import claim
from tests.faults import Killed, chunk_files, kill_series, relabel
from tests.oracles import median_distance64
from tests.sweeps import every

RUN = "small-d1-v2-s0"
TAPS = ("second", "first")
"""Not in alphabetical order, in which JAX would sort them."""


class Forward:
    """A network of two taps that counts the minibatches it computes, and who still holds them."""

    def __init__(self, factor=1.0):
        self.factor = np.float32(factor)
        self.n_images = []
        self.n_alive = []
        self._taps = []

    def __call__(self, images):
        if isinstance(images, np.ndarray):  # and no tracer, of which only shapes are wanted
            self.n_images.append(len(images))
            self.n_alive.append(sum(tap() is not None for tap in self._taps))
        x = jnp.asarray(images).astype(jnp.float32) * self.factor
        taps = dict(zip(TAPS, (x, x.mean((1, 2))), strict=True))
        if isinstance(images, np.ndarray):
            self._taps += map(weakref.ref, taps.values())
        return taps


def make_samples(n=10, size=4):
    rng = np.random.default_rng(n)
    images = rng.integers(0, 256, (n, size, size, 1), np.uint8)
    sample_set = store.SampleSet("digits", "test", n, images.shape[1:], "0123456789abcdef")
    return Samples(sample_set, np.arange(n)[::-1], np.arange(n, dtype=np.int32) % 3, images)


SAMPLES = make_samples()
N_APPENDS = 3 * len(TAPS)


def write(root, forward, samples=SAMPLES, digest="d0", report=silent, **how):
    job = Extraction("net", "final", **{"batch_size": 4} | how)
    extract.keep(
        Workspace(root), LoadedNetwork("net", "final", digest, forward), samples, job, report
    )


def read_all(root):
    taps = store.open(Workspace(root).activations).find()
    return {tap.key: tap.read(0, tap.meta.n_samples) for tap in taps}


def files(folder):
    """Return the contents of all files below a folder."""
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def chunks(root):
    """Return the contents of all chunks of activations in a workspace."""
    arrays = root.rglob("activations")
    return {p.relative_to(root): p.read_bytes() for array in arrays for p in chunk_files(array)}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    path = tmp_path_factory.mktemp("uninterrupted")
    write(path, Forward())
    return path


def evaluate(workspace, run, images):
    """Return the taps of some images by the network alone."""
    entry = run_record.read_record(workspace, run)
    folder = workspace.find_checkpoint(run, "final")
    variables = checkpoints.load_variables(folder, abstract(entry.network))[0]
    taps = entry.network.apply(variables, images)
    return {name: np.asarray(tap) for name, tap in taps.items()}


def padded(images, n):
    return np.concatenate([images, np.zeros((n - len(images), *images.shape[1:]), np.uint8)])


@pytest.mark.parametrize(
    ("run", "dtype"), [(RUN, "float32"), (RUN, "float16"), ("small-d2-v2-s0", "float32")]
)
def test_stored_activations_are_the_networks(workspace, run, dtype):
    job = Extraction(run, "final", n_samples=19, batch_size=8, dtype=dtype)
    name = extract.extract(workspace, job)
    samples = extract.load_samples("digits", 12, "test", 19)
    taps = store.open(workspace.activations).find(sample_set=name)
    assert [tap.key.tap for tap in taps] == list(
        run_record.read_record(workspace, run).network.taps
    )
    assert [tap.meta.tap_index for tap in taps] == list(range(len(taps)))
    for start, stop in [(0, 8), (8, 16), (16, 19)]:
        images = samples.images[start:stop]
        exact = evaluate(workspace, run, padded(images, 8))
        unpadded = evaluate(workspace, run, images)
        for tap in taps:
            rows, wanted = tap.read(start, stop), exact[tap.key.tap][: stop - start]
            assert rows.dtype == dtype
            np.testing.assert_array_equal(rows, wanted.astype(dtype))
            # Half a unit in the last place; 2**-25 is half of float16's smallest number.
            limits = np.finfo(dtype)
            smallest = float(limits.smallest_subnormal)
            np.testing.assert_allclose(rows, wanted, limits.eps / 2, smallest / 2)
            # Another number of images is another program: equal up to float32 rounding.
            close = max(1e-5, float(limits.eps))
            np.testing.assert_allclose(rows, unpadded[tap.key.tap], close, close)


def test_rows_say_which_example_they_are(workspace):
    name = extract.extract(workspace, Extraction(RUN, "init", n_samples=10, batch_size=4))
    samples = extract.load_samples("digits", 12, "test", 10)
    for tap in store.open(workspace.activations).find(sample_set=name):
        np.testing.assert_array_equal(tap.samples, samples.indices)
        np.testing.assert_array_equal(tap.labels, samples.labels)
        assert tap.meta.sample_set == samples.sample_set
        assert tap.meta.created_by.startswith("allcnn-cka ")


def test_the_order_of_samples_does_not_depend_on_the_runs_seed(workspace):
    entry = run_record.read_record(workspace, RUN)
    other = replace(entry, config=replace(entry.config, seed=7))
    shutil.copytree(workspace.run_folder(RUN), workspace.run_folder(other.config.name))
    run_record.write_record(workspace, other)
    relabel(workspace.checkpoints_folder(other.config.name) / "final")
    for run in (RUN, other.config.name):
        extract.extract(workspace, Extraction(run, "final", n_samples=10))
    first, second = (
        store.open(workspace.activations).find(run=r) for r in (RUN, other.config.name)
    )
    for a, b in zip(first, second, strict=True):
        assert a.meta.sample_set == b.meta.sample_set
        np.testing.assert_array_equal(a.samples, b.samples)
        np.testing.assert_array_equal(a.read(0, 10), b.read(0, 10))


def test_more_samples_begin_with_the_fewer():
    few, many = (extract.load_samples("digits", 12, "test", n) for n in (10, 50))
    np.testing.assert_array_equal(few.indices, many.indices[:10])
    np.testing.assert_array_equal(few.images, many.images[:10])


def test_by_default_a_small_split_is_taken_whole():
    assert extract.load_samples("digits", 12, "test", None).sample_set.n_samples == 599


def test_taps_say_how_many_there_are(tmp_path):
    write(tmp_path, Forward(), keep=("activations", "grams"))
    for kept in (
        store.open(Workspace(tmp_path).activations),
        store.open_grams(Workspace(tmp_path).grams),
    ):
        assert [one.meta.n_taps for one in kept.find()] == [len(TAPS)] * len(TAPS)


def test_taps_keep_the_networks_order(uninterrupted):
    taps = store.open(Workspace(uninterrupted).activations).find()
    assert [tap.key.tap for tap in taps] == list(TAPS)


def test_one_minibatch_is_held_while_the_next_is_computed(tmp_path):
    forward = Forward()
    write(tmp_path, forward, make_samples(30))
    assert forward.n_images == [4] * 8  # one shape, so one compiled program
    assert max(forward.n_alive) <= len(TAPS)


def test_fewer_samples_than_a_minibatch(tmp_path):
    write(tmp_path, Forward(), batch_size=64)
    for values in read_all(tmp_path).values():
        assert len(values) == 10
        assert np.isfinite(values).all()


def test_progress_counts_examples(tmp_path):
    told = []
    write(tmp_path, Forward(), report=lambda *step: told.append(step))
    assert told == [(n, 10, "net@final") for n in (0, 4, 8, 10)]
    told.clear()
    write(tmp_path, Forward(), report=lambda *step: told.append(step))
    assert told == [(10, 10, "net@final: already extracted")]


@pytest.mark.parametrize("n", range(N_APPENDS))
@pytest.mark.parametrize("moment", ["before", "after"])
def test_an_interrupted_extraction_goes_on(tmp_path, monkeypatch, uninterrupted, n, moment):
    append, begun = Writer.append, itertools.count()

    def dying(self, rows):
        dies = next(begun) >= n
        if moment == "after" or not dies:
            append(self, rows)
        if dies:
            raise Killed

    monkeypatch.setattr(Writer, "append", dying)
    with pytest.raises(Killed):
        write(tmp_path, Forward())
    monkeypatch.setattr(Writer, "append", append)
    kept = [math.ceil(len(rows) / 4) for rows in committed(tmp_path).values()]
    forward = Forward()
    write(tmp_path, forward)
    assert chunks(tmp_path) == chunks(uninterrupted)
    # Only a minibatch that some tap lacks is computed again.
    assert len(forward.n_images) == 3 - min(kept)
    # The other thread that writes may have been at a second one.
    assert sum(kept) - n in ((0,) if moment == "before" else (1, 2))


@pytest.mark.slow
def test_a_kill_between_any_two_changes_of_the_disk_loses_nothing(tmp_path, uninterrupted):
    wanted = read_all(uninterrupted)
    states = 0
    for path in kill_series(lambda path: write(path, Forward()), tmp_path, tmp_path / "nothing"):
        before = {key: len(values) for key, values in committed(path).items()}
        forward = Forward()
        write(path, forward)
        found = read_all(path)
        assert found.keys() == wanted.keys()
        for key, values in wanted.items():
            np.testing.assert_array_equal(found[key], values)
        finished = math.ceil(min(before.values()) / 4) if len(before) == len(TAPS) else 0
        assert len(forward.n_images) == 3 - finished
        states += 1
    assert states > 5 * N_APPENDS


def committed(path):
    path = Workspace(path).activations
    if not (path / "zarr.json").exists():
        return {}
    return {tap.key: tap.read(0, tap.n_committed) for tap in store.open(path).find()}


def test_a_finished_extraction_computes_nothing(tmp_path, uninterrupted):
    shutil.copytree(uninterrupted, tmp_path / "whole")
    before = files(tmp_path / "whole")
    forward = Forward()
    write(tmp_path / "whole", forward)
    assert forward.n_images == []
    assert files(tmp_path / "whole") == before


def test_a_tap_that_was_deleted_is_extracted_again(tmp_path, uninterrupted):
    shutil.copytree(uninterrupted, tmp_path / "whole")
    tap = store.open(Workspace(tmp_path / "whole").activations).find()[0]
    shutil.rmtree(Workspace(tmp_path / "whole").activations / tap.key.path)
    write(tmp_path / "whole", Forward())
    assert chunks(tmp_path / "whole") == chunks(uninterrupted)


@pytest.mark.parametrize(
    ("change", "message", "n_committed"),
    [
        ({"batch_size": 5}, "is stored with batch_rows 4, not 5", 4),
        ({"dtype": "float16"}, "is stored with dtype 'float32', not 'float16'", 4),
        ({"dtype": "float16"}, "is stored with dtype 'float32', not 'float16'", 10),
        ({"digest": "d1"}, "is stored with checkpoint_digest 'd0', not 'd1'", 4),
        ({"digest": "d1"}, "is stored with checkpoint_digest 'd0', not 'd1'", 10),
    ],
)
def test_another_extraction_of_the_name_is_refused(tmp_path, change, message, n_committed):
    path = tmp_path
    forward = Forward()
    with pytest.raises(Killed):
        write(path, forward, report=dying_after(n_committed))
    before = files(path)
    with pytest.raises(ConflictError) as caught:
        write(path, Forward(), **change)
    assert f"{message}; that was imported; import it under another --run" in str(caught.value)
    assert files(path) == before


def test_a_whole_extraction_serves_minibatches_of_any_size(tmp_path):
    path = tmp_path
    write(path, Forward())
    before, again = files(path), Forward()
    write(path, again, batch_size=5)
    assert again.n_images == []
    assert files(path) == before


def dying_after(n_committed):
    def report(done, total, detail):
        if done == n_committed:
            raise Killed

    return report


def test_a_retrained_checkpoint_of_the_name_is_refused(workspace):
    job = Extraction(RUN, "final", n_samples=10)
    extract.extract(workspace, job)
    before = files(workspace.activations)
    final, init = (workspace.checkpoints_folder(RUN) / name for name in ("final", "init"))
    shutil.rmtree(final)
    shutil.copytree(init, final)
    relabel(final)
    with pytest.raises(ConflictError, match="is stored with checkpoint_digest 'sha256:"):
        extract.extract(workspace, job)
    assert files(workspace.activations) == before


@pytest.mark.parametrize("keep", [("activations",), ("grams",)], ids=str)
def test_a_spread_that_float16_loses_is_refused_and_says_where(tmp_path, keep):
    with pytest.raises(PrecisionError, match=r"net@final:second varies .* \(--dtype float32\)$"):
        write(tmp_path, Forward(1e-9), dtype="float16", keep=keep)
    assert set(kept_minibatches(tmp_path).values()) <= {0}


def test_float16_overflow_is_refused_and_says_where(tmp_path):
    with pytest.raises(
        ActivationOverflowError, match=r"net@final:second reaches .* as float32 \(--dtype"
    ):
        write(tmp_path, Forward(factor=1000), dtype="float16")
    stored = store.open(Workspace(tmp_path).activations).find()
    assert all(tap.n_committed == 0 for tap in stored)


def grams_of(root):
    """Return what is kept of each tap, by its name: whole matrices, and the median distance."""
    kept = store.open_grams(Workspace(root).grams).find()
    return {
        each.key.of.tap: (
            [store.unpack(packed) for packed in each.read(0, each.n_committed)],
            sinks.median_distance_of(each) if each.complete else None,
        )
        for each in kept
    }


def assert_same_grams(found, wanted):
    assert found.keys() == wanted.keys()
    for tap, (Ks, median) in wanted.items():
        for K, L in zip(found[tap][0], Ks, strict=True):
            np.testing.assert_array_equal(K, L)
        assert found[tap][1] == median


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("pool", ["whole", "mean"])
@pytest.mark.parametrize("kernel", ["linear", "rbf", "cosine"])
def test_grams_are_those_of_stored_activations(tmp_path, kernel, pool, dtype):
    how = {"dtype": dtype, "kernel": kernel, "pool": pool}
    # Means over many pixels lie too far from 0 for float16.
    samples = SAMPLES if dtype == "float32" else make_samples(size=1)
    write(tmp_path / "a", Forward(), samples, dtype=dtype)
    write(tmp_path / "g", Forward(), samples, keep=("grams",), **how)
    assert not Workspace(tmp_path / "g").activations.exists()
    kept = store.open_grams(Workspace(tmp_path / "g").grams).find()
    taps = {tap.key.tap: tap for tap in store.open(Workspace(tmp_path / "a").activations).find()}
    assert sorted((each.meta.tap_index, each.key.of.tap) for each in kept) == [*enumerate(TAPS)]
    for grams in kept:
        tap = taps[grams.key.of.tap]
        assert grams.complete
        assert grams.meta.ranges == ((0, 4), (4, 10))  # the last two rows join those before
        np.testing.assert_array_equal(grams.samples, tap.samples)
        np.testing.assert_array_equal(grams.labels, tap.labels)
        base = "cosine" if kernel == "cosine" else "linear"
        assert (grams.key.kernel, grams.key.pool, grams.key.dtype) == (base, pool, dtype)
        for (start, stop), packed in zip(grams.meta.ranges, grams.read(0, 2), strict=True):
            wanted = gram.gram(gram.pooled(tap.read(start, stop), pool), base)
            np.testing.assert_array_equal(store.unpack(packed), wanted.values)
        if base == "cosine":
            assert grams.median_distance is None
        else:
            X = gram.pooled(tap.read(0, 10), pool)
            wanted = median_distance64(X, grams.meta.ranges)
            assert grams.median_distance == pytest.approx(wanted, rel=1e-5)
        assert all(0 <= bound < gram_error.LIMIT for bound in grams.bounds)


def test_activations_and_grams_come_from_one_pass(tmp_path, uninterrupted):
    forward = Forward()
    write(tmp_path / "both", forward, keep=("activations", "grams"))
    assert forward.n_images == [4, 4, 4]
    write(tmp_path / "grams", Forward(), keep=("grams",))
    assert chunks(tmp_path / "both") == chunks(uninterrupted)
    assert_same_grams(grams_of(tmp_path / "both"), grams_of(tmp_path / "grams"))


def test_what_one_store_lacks_does_not_touch_the_other(tmp_path, uninterrupted):
    shutil.copytree(uninterrupted, tmp_path / "whole")
    before = files(tmp_path / "whole" / "activations.zarr")
    write(tmp_path / "whole", Forward(), keep=("activations", "grams"))
    assert files(tmp_path / "whole" / "activations.zarr") == before
    assert grams_of(tmp_path / "whole").keys() == set(TAPS)


def test_the_median_distance_comes_from_the_grams_whatever_ended_before_it(tmp_path, monkeypatch):
    write(tmp_path / "whole", Forward(), keep=("grams",), kernel="rbf")
    with monkeypatch.context() as patched:
        patched.setattr(sinks, "keep_median_distance", lambda writer: None)  # as a kill would
        write(tmp_path / "killed", Forward(), keep=("grams",))
    killed = store.open_grams(Workspace(tmp_path / "killed").grams).find()
    assert {grams.median_distance for grams in killed} == {None}
    whole = store.open_grams(Workspace(tmp_path / "whole").grams).find()
    assert all(grams.median_distance > 0 for grams in whole)
    assert_same_grams(grams_of(tmp_path / "killed"), grams_of(tmp_path / "whole"))


def test_grams_of_other_kinds_are_kept_beside(tmp_path):
    for how in (
        {},
        {"kernel": "cosine"},
        {"pool": "mean"},
        {"batch_size": 5},
        {"dtype": "float16"},
    ):
        forward = Forward()
        write(tmp_path, forward, make_samples(size=1), keep=("grams",), **how)
        assert forward.n_images
    assert len(store.open_grams(Workspace(tmp_path).grams).find()) == 5 * len(TAPS)


def test_grams_that_are_kept_are_not_computed_again(tmp_path):
    told, forward = [], Forward()
    write(tmp_path, Forward(), keep=("grams",), kernel="rbf")
    before = files(tmp_path)
    for kernel in ("rbf", "linear"):
        write(
            tmp_path,
            forward,
            keep=("grams",),
            kernel=kernel,
            report=lambda *step: told.append(step),
        )
    assert forward.n_images == []
    assert told == 2 * [(10, 10, "net@final: already extracted")]
    assert files(tmp_path) == before


LONG = make_samples(42)
"""Ten minibatches of 4, two rows joining the last."""


def kept_minibatches(root):
    """Return how many minibatches of each tap are kept, none where nothing is."""
    if not Workspace(root).grams.exists():
        return {}
    return {
        each.key.of.tap: each.n_committed for each in store.open_grams(Workspace(root).grams).find()
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return a function that extracts, once for each way to keep, what is not interrupted."""

    @functools.cache
    def extracted(keep):
        root = tmp_path_factory.mktemp("whole")
        write(root, Forward(), LONG, keep=keep)
        return root

    return extracted


KEPT = (("grams",), ("activations", "grams"))
INTERRUPTED = itertools.product(range(0, 10 * len(TAPS), 3), ("before", "after"), KEPT)


@pytest.mark.parametrize(("n", "moment", "keep"), every(7, INTERRUPTED))
def test_interrupted_grams_go_on(tmp_path, monkeypatch, whole, keep, n, moment):
    append, n_done = GramWriter.append, 0

    def dying(self, *K):
        nonlocal n_done
        if moment == "after" or n_done < n:
            append(self, *K)
        n_done += 1
        if n_done > n:
            raise Killed

    monkeypatch.setattr(GramWriter, "append", dying)
    with pytest.raises(Killed):
        write(tmp_path, Forward(), LONG, keep=keep)
    monkeypatch.setattr(GramWriter, "append", append)
    kept = kept_minibatches(tmp_path)
    forward = Forward()
    write(tmp_path, forward, LONG, keep=keep)
    assert_same_grams(grams_of(tmp_path), grams_of(whole(keep)))
    assert chunks(tmp_path) == chunks(whole(keep))
    # A batch is computed again only where its minibatch is kept of no tap, or not of all.
    least = min(kept.values()) if len(kept) == len(TAPS) else 0
    assert len(forward.n_images) == 11 - least


@pytest.mark.slow
def test_a_kill_at_any_change_of_the_disk_loses_no_gram(tmp_path):
    def work(path):
        write(path, Forward(), keep=("grams",), kernel="rbf")

    work(tmp_path / "wanted")
    wanted, n_states = grams_of(tmp_path / "wanted"), 0
    for path in kill_series(work, tmp_path, tmp_path / "nothing"):
        work(path)
        assert_same_grams(grams_of(path), wanted)
        n_states += 1
    assert n_states > 20


def test_grams_beside_activations_of_another_checkpoint_are_refused(tmp_path, uninterrupted):
    shutil.copytree(uninterrupted, tmp_path / "whole")
    before = files(tmp_path / "whole")
    message = "net@final is stored on digits-test-10-01234567 with activations of"
    with pytest.raises(ConflictError, match=re.escape(message)):
        write(tmp_path / "whole", Forward(), digest="d1", keep=("grams",))
    assert files(tmp_path / "whole") == before


@pytest.mark.parametrize("kernel", ["linear", "cosine"])
def test_grams_of_a_retrained_checkpoint_are_refused_beside(tmp_path, kernel):
    write(tmp_path, Forward(), digest="d0", keep=("grams",))
    message = r"net@final is stored .* with Grams of checkpoint_digest 'd0', not 'd1'; that was"
    with pytest.raises(ConflictError, match=message):
        write(tmp_path, Forward(), digest="d1", keep=("grams",), kernel=kernel)
    kept = store.open_grams(Workspace(tmp_path).grams).find()
    assert sorted(each.key.checkpoint_digest for each in kept) == ["d0", "d0"]


@pytest.mark.parametrize("keep", [("grams",), ("activations", "grams")], ids=str)
def test_grams_of_what_float16_cannot_hold_are_refused(tmp_path, keep):
    with pytest.raises(ActivationOverflowError, match=r"net@final:second reaches .* as float32 \("):
        write(tmp_path, Forward(factor=1000), dtype="float16", keep=keep)
    assert set(kept_minibatches(tmp_path).values()) == {0}


@pytest.mark.parametrize(
    ("job", "error", "message"),
    [
        (Extraction("nobody", "final"), RunError, "no run 'nobody' in .* train it first with"),
        (
            Extraction(RUN, "epoch-0099"),
            RunError,
            "no checkpoint 'epoch-0099'; choose one of: init",
        ),
        (Extraction(RUN, "final", n_samples=600), ConfigError, "600 samples are wanted of digits"),
    ],
)
def test_what_cannot_be_extracted_is_refused_before_anything_is_written(
    workspace, job, error, message
):
    with pytest.raises(error, match=message):
        extract.extract(workspace, job)
    assert not workspace.activations.exists()


def command(workspace):
    arguments = ["extract", RUN, "--checkpoint", "final", "--batch-size", "8"]
    return [sys.executable, "-m", "flows.cli.main", *arguments, "--workspace", str(workspace.root)]


def start(workspace):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command(workspace), env=environment, text=True, **output)


def n_committed(folder):
    """Count the committed minibatches of a tap without opening the store."""
    try:
        attributes = json.loads((folder / "zarr.json").read_text())["attributes"]
    except FileNotFoundError:
        return 0
    return len(attributes.get("allcnn_commits", []))


def wait_for(condition, process):
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.001)


def kill_in_the_middle(workspace, folder, n_least):
    """Start the command, kill it once a tap has some minibatches, and let nothing follow."""
    process = start(workspace)
    try:
        wait_for(lambda: n_committed(folder) >= n_least, process)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_a_killed_command_goes_on_where_it_was(trained, workspace, tmp_path):
    whole = Workspace.at(tmp_path / "whole")
    whole.root.mkdir()
    (whole.root / "runs").symlink_to(trained.root / "runs")
    name = extract.extract(whole, Extraction(RUN, "final", batch_size=8))
    wanted = chunks(whole.activations)
    last = workspace.activations / RepresentationKey(name, RUN, "final", "logits").path
    kill_in_the_middle(workspace, last, 5)
    n_kept = n_committed(last)
    kept = [path for tap in last.parent.glob("*/") for path in kept_chunks(tap)]
    written = {path: path.stat().st_mtime_ns for path in kept}
    assert 5 <= n_kept < 75
    assert len(written) >= 10 * n_kept - 1  # the other thread may still be at the tap before
    process = start(workspace)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert output.splitlines()[-1] == name
    assert chunks(workspace.activations) == wanted
    assert {path: path.stat().st_mtime_ns for path in kept} == written


def kept_chunks(tap):
    return chunk_files(tap / "activations")[: n_committed(tap)]


@pytest.mark.parametrize("what", ["activations", "grams"])
def test_what_another_process_extracts_is_refused_before_anything_is_loaded(
    workspace, monkeypatch, what
):
    job = Extraction(RUN, "final", n_samples=16, batch_size=4, keep=(what,))
    take, taken = extract.stream.take_minibatch, []

    def stopping(sinks, forward, images, start, job):
        take(sinks, forward, images, start, job)
        if taken.append(start) or len(taken) == 3:
            raise Killed

    monkeypatch.setattr(extract.stream, "take_minibatch", stopping)
    with pytest.raises(Killed):
        extract.extract(workspace, job)
    monkeypatch.setattr(extract.stream, "load_source", None)  # nobody calls it
    found = store.open(workspace.activations) if what == "activations" else None
    one = (found or store.open_grams(workspace.grams)).find()[-1]
    with claim(one.place / one.form.array):
        with pytest.raises(ClaimedError, match="is being written by another writer"):
            extract.extract(workspace, job)
        monkeypatch.undo()
        # Other examples are nobody's yet.
        extract.extract(workspace, replace(job, n_samples=8))
    extract.extract(workspace, job)
