"""Crash safety: killed at random moments, and refused every single write in turn."""

import errno
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from upath import UPath

import store
from allcnn import extract
from allcnn.settings.extraction import Extraction
from allcnn.workspace.paths import Workspace
from store import GramMeta, GramWriter, StoreLocationError, Writer, has_store
from store.storage.claims import CLAIM
from store.storage.paths import is_leftover, remove_tree, walk_files
from tests import victims
from tests.faults import end_claims, write_again
from tests.refusals import failing_client, refusing
from tests.strategies import batches, coordinates, make_gram_meta, make_grams, make_meta, make_rows
from tests.victims import GRAMS, MEDIAN_DISTANCE, N_BLOCKS, TAPS, Victims


def files(folder):
    """Return the contents of all files below the stores in a folder."""
    stores = [folder / name for name in ("activations.zarr", "grams.zarr")]
    paths = [p.relative_to(folder) for path in stores for p in path.rglob("*") if p.is_file()]
    return {p: (folder / p).read_bytes() for p in paths}


def check_committed(folder, whole):
    """Check that all that counts is what was written; return how many blocks that is."""
    n_blocks = 0
    for name, opened in (("activations.zarr", store.open), ("grams.zarr", store.open_grams)):
        if has_store(folder / name):
            wanted = {each.key: each for each in opened(whole / name).find()}
            for found in opened(folder / name).find():
                assert_begins(found, wanted[found.key])
                n_blocks += len(found.commits)
    return n_blocks


def assert_begins(found, whole):
    """Check that what was committed is the beginning of the whole, bit for bit."""
    assert found.meta == whole.meta
    assert found.commits == whole.commits[: len(found.commits)]
    assert_same(found.read(0, found.n_committed), whole.read(0, found.n_committed))
    samples, labels = coordinates(found.meta)
    assert_same(found.samples, samples)
    assert_same(found.labels, labels)


def assert_same(found, wanted):
    pairs = zip([*found], [*wanted], strict=True)
    assert all(a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in pairs)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return two stores that were written without a fault."""
    path = tmp_path_factory.mktemp("whole")
    assert victims.write(path) == N_BLOCKS
    return path


def test_the_victims_write_what_they_should(whole):
    taps = store.open(whole / "activations.zarr").find()
    assert [tap.meta for tap in taps] == list(TAPS)
    for tap in taps:
        assert_same(tap.read(0, tap.meta.n_samples), np.concatenate(victims.values(tap.meta)))
    (grams,) = store.open_grams(whole / "grams.zarr").find()
    assert_same(grams.read(0, 24), [store.pack(K) for K in victims.values(GRAMS)])
    assert grams.median_distance == MEDIAN_DISTANCE
    assert sum(len(each.commits) for each in (*taps, grams)) == N_BLOCKS


def killed_at_random(n, folder, rng, running):
    """Kill writers at n random moments, those that came too late aside; yield what each left."""
    n_started = 0
    while n:
        path = folder / f"killed-{n_started}"
        path.mkdir()
        if n_started % 10 == 0:  # a machine becomes slower and faster
            typical_s = duration_s(folder / "timed", running)
        pid = running.start(path)
        time.sleep(rng.uniform(0, 1.1 * typical_s))
        os.kill(pid, signal.SIGKILL)
        status, _ = running.end()
        if status == -signal.SIGKILL:
            n -= 1
            yield path
        else:
            assert status == 0
        n_started += 1
        assert n_started < 1000
        shutil.rmtree(path)


def duration_s(path, running):
    begun = time.monotonic()
    running.start(path)
    assert running.end() == (0, N_BLOCKS)
    shutil.rmtree(path)
    return time.monotonic() - begun


def check_kills(n, folder, whole, seed):
    """Kill n writers, look at what they left, and let others go on; return what was committed."""
    wanted, n_committed = files(whole), []
    with Victims() as running:
        for path in killed_at_random(n, folder, random.Random(seed), running):
            n_committed.append(check_committed(path, whole))
            running.start(path)
            status, n_appended = running.end()
            assert (status, n_appended) == (0, N_BLOCKS - n_committed[-1])
            found = files(path)
            assert found.keys() == wanted.keys()
            assert found == wanted
    return n_committed


def test_five_kills_at_random_moments_lose_nothing(tmp_path, whole):
    assert len(check_kills(5, tmp_path, whole, seed=10)) == 5


@pytest.mark.slow
def test_95_kills_at_random_moments_lose_nothing(tmp_path, whole):
    # With the five of the real command a hundred.
    n_committed = check_kills(95, tmp_path, whole, seed=95)
    assert len(n_committed) == 95
    third = N_BLOCKS // 3
    spread = np.histogram(n_committed, [0, 1, third, 2 * third, N_BLOCKS + 1])[0]
    assert (spread >= 5).all(), spread


RUN = "small-d1-v2-s0"
EXTRACT = ("extract", RUN, "--checkpoint", "final", "--batch-size", "8")


def start_extract(workspace):
    """Start the real command; return its process."""
    root = Path(__file__).parent.parent
    keep = ("--keep", "activations,grams", "--workspace", str(workspace.root))
    return subprocess.Popen(
        [sys.executable, "-m", "flows.cli.main", *EXTRACT, *keep],
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_extract(workspace, n_least, delay_s):
    """Kill the command some time after the last tap has so many minibatches."""
    process = start_extract(workspace)
    try:
        deadline = time.monotonic() + 240
        while n_minibatches(workspace) < n_least:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
        time.sleep(delay_s)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL


def n_minibatches(workspace):
    """Return how far the last tap is, -1 where there is no store."""
    if not (workspace.activations / "zarr.json").exists():
        return -1
    taps = [tap for tap in store.open(workspace.activations).find() if tap.key.tap == "logits"]
    return len(taps[0].commits) if taps else 0


def undated(folder):
    """Return the contents of all files of two stores, and metadata without their time."""
    found = {}
    for path, content in files(folder).items():
        if path.name == "zarr.json":
            ours = {"allcnn_representation", "allcnn_grams"}
            attributes = json.loads(content)["attributes"]
            for name in ours & set(attributes):
                del attributes[name]["created_at"], attributes["allcnn_seal"]
            content = json.dumps(json.loads(content) | {"attributes": attributes}).encode()
        found[path] = content
    return found


@pytest.mark.slow
def test_5_kills_of_the_command_lose_nothing(workspace, tmp_path):
    whole = Workspace.at(tmp_path / "whole")
    whole.root.mkdir()
    (whole.root / "runs").symlink_to(workspace.root / "runs")
    kept, job = ("activations", "grams"), Extraction(RUN, "final", batch_size=8)
    extract.extract(whole, replace(job, keep=kept))
    rng, n_before = random.Random(5), -1
    # 75 minibatches; each command goes on from what the killed ones left.
    for n_least, delay_s in ((0, 0.1), (1, 0.05), (15, 0.05), (35, 0.05), (55, 0.01)):
        kill_extract(workspace, n_least, rng.uniform(0, delay_s))
        for opened, name in ((store.open, "activations"), (store.open_grams, "grams")):
            if has_store(getattr(workspace, name)):
                check_beginnings(opened(getattr(workspace, name)), opened(getattr(whole, name)))
        assert n_before <= n_minibatches(workspace) < 75
        n_before = n_minibatches(workspace)
    process = start_extract(workspace)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert undated(workspace.root) == undated(whole.root)


def check_beginnings(opened, whole):
    """Check that all that counts is the beginning of what the whole holds."""
    wanted = {each.key: each for each in whole.find()}
    for found in opened.find():
        n, other = found.n_committed, wanted[found.key]
        assert found.commits == other.commits[: len(found.commits)]
        assert_same(found.read(0, n), other.read(0, n))


class Job:
    """Writes one array step by step, and goes on after the last step that succeeded."""

    def __init__(self, path, meta, compression="none"):
        self._path, self._meta, self._compression = path, meta, compression
        self._writer = None

    @property
    def n_blocks(self):
        """How many blocks it was told are committed."""
        return 0 if self._writer is None else len(self._writer.commits)

    def go_on(self):
        """Do what is missing, with the writer that is open if one is."""
        grams = isinstance(self._meta, GramMeta)
        if self._writer is None:
            how = (*coordinates(self._meta), self._compression)
            self._writer = (GramWriter if grams else Writer).open(self._path, self._meta, *how)
            self._n_appended = self._writer.n_committed if grams else len(self._writer.commits)
        each = make_grams(self._meta) if grams else batches(self._meta, make_rows(self._meta))
        while not self._writer.complete:
            self._writer.append(each[self._n_appended])
            self._n_appended += 1
        if grams and self._writer.median_distance is None:
            self._writer.set_median_distance(MEDIAN_DISTANCE)
        self._writer.close()


SMALL = {
    "activations": (make_meta(n_samples=6, shape=(3, 2)), "none"),
    "split": (make_meta(n_samples=6, dtype="float16"), "none"),
    "zstd": (make_meta(n_samples=6), "zstd"),
    "grams": (make_gram_meta(sizes=(4, 4, 5)), "none"),
}


FAST = {("split", errno.ENOSPC), ("grams", errno.EIO)}
"""Those that always run."""


@pytest.fixture
def small_chunks(monkeypatch):
    """Cut what is small into several chunks."""
    monkeypatch.setattr("store.zarrfiles.layout.MAX_CHUNK_BYTES", 100)
    monkeypatch.setattr("store.model.schema.GRAM_CHUNK_BYTES", 120)


def what_counts(path, whole):
    """Check that all that counts is as in the whole; return how many blocks that is."""
    opened = store.open_grams if "grams" in path.name else store.open
    if not (path / "zarr.json").exists():
        return 0
    found = opened(path).find()
    (wanted,) = opened(whole).find()
    for each in found:
        assert_begins(each, wanted)
    return sum(len(each.commits) for each in found)


PASSED_OVER = {"write .claim", "unlink .claim"}
"""Nothing is lost by these: who holds a claim is only told, and without a lock it is no claim."""

SENTENCE = (
    r"cannot (make a store at|create|write to|write (rows|minibatches) \d+ to \d+ of) [^:]+: {}"
    r"(; (committed (rows|minibatches) are safe, so )?fix that and run again)?"
)
REFUSALS = {errno.ENOSPC: "No space left on device", errno.EIO: "Input/output error"}


def name_of(kind):
    return "grams.zarr" if kind == "grams" else "activations.zarr"


RANDOM = r"(?<=zarr\.)\w+(?=\.partial)|(?<=\d\.)\w{32}(?=\.partial)"


def each_refusal(folder, kind, code, changes):
    """Let every one of the changes in turn be refused; yield the job, its folder, and the change.

    Concurrent writes come in an order of their own every time, so that the n-th of a name is meant.
    """
    counts = Counter(re.sub(RANDOM, "*", change) for change in changes)
    for change, n in ((name, n) for name in counts for n in range(counts[name])):
        path = folder / f"refused-{n}-{change.replace('*', '')}"
        path.mkdir()
        job, message = Job(path / name_of(kind), *SMALL[kind]), None
        among = r"\w+".join(re.escape(part) for part in change.split("*"))
        with refusing(n, code, path, among) as refusal:
            try:
                job.go_on()
            except StoreLocationError as error:
                message = str(error)
        if refusal.refused is None:
            # They race for making a folder, and then both make it.
            assert message is None
            assert change.startswith("mkdir ")
            continue
        if message is None:
            # Of two parts that are written at once, the other one may have made their folder.
            made = kind == "zstd" and change.startswith("mkdir")
            assert made or change in PASSED_OVER
        else:
            assert re.fullmatch(SENTENCE.format(REFUSALS[code]), message)
        yield job, path, change


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        pytest.param(
            kind,
            code,
            id=f"{kind}-{errno.errorcode[code]}",
            marks=[] if (kind, code) in FAST else pytest.mark.slow,
        )
        for kind in SMALL
        for code in REFUSALS
    ],
)
@pytest.mark.usefixtures("small_chunks")
def test_a_refusal_of_any_one_write_loses_nothing(tmp_path, kind, code):
    whole = tmp_path / "whole"
    whole.mkdir()
    with refusing(10**9, code, whole) as counted:
        Job(whole / name_of(kind), *SMALL[kind]).go_on()
    wanted, n_refused, kept = files(whole), 0, set()
    for job, path, what in each_refusal(tmp_path, kind, code, counted.made):
        n_kept = what_counts(path / name_of(kind), whole / name_of(kind))
        assert n_kept >= job.n_blocks
        if code == errno.ENOSPC:  # what was begun would take room that is needed
            assert not [p for p in path.rglob("*") if is_leftover(p.name)]
        kept.add(n_kept)
        # A new writer goes on, and the old one as well.
        shutil.copytree(path, tmp_path / "copied")
        Job(tmp_path / "copied" / name_of(kind), *SMALL[kind]).go_on()
        assert files(tmp_path / "copied") == wanted
        shutil.rmtree(tmp_path / "copied")
        job.go_on()
        found = files(path)
        assert {p: found[p] for p in found if p.name != CLAIM or "unlink" not in what} == wanted
        n_refused += 1
    assert n_refused > 0.9 * len(counted.made)
    assert {0, 1} <= kept


@pytest.mark.parametrize("code", REFUSALS, ids=errno.errorcode.get)
def test_a_refusal_of_renewing_the_version_loses_nothing(tmp_path, code):
    path, (meta, _) = tmp_path / "activations.zarr", SMALL["activations"]
    Job(path, meta).go_on()
    whole = files(tmp_path)
    root = json.loads((path / "zarr.json").read_bytes())
    root["attributes"]["allcnn_store"]["schema_version"] = 1
    (path / "zarr.json").write_text(json.dumps(root))
    for n in range(3):
        with refusing(n, code, path) as refusal:
            with pytest.raises(StoreLocationError, match=SENTENCE.format(REFUSALS[code])):
                Job(path, meta).go_on()
        assert "zarr." in refusal.refused
        assert_same(store.open(path)[meta.key].read(0, 6), make_rows(meta))
    Job(path, meta).go_on()
    assert files(tmp_path).keys() == whole.keys()
    assert json.loads((path / "zarr.json").read_bytes()) == json.loads(
        whole[Path("activations.zarr/zarr.json")]
    )


def test_what_a_kill_leaves_of_a_compressed_chunk_is_cleared(tmp_path):
    path, (meta, compression) = tmp_path / "activations.zarr", SMALL["zstd"]
    with Writer.open(path, meta, *coordinates(meta), compression) as writer:
        writer.append(make_rows(meta)[:4])
    chunk = path / meta.key.path / "activations/c/1/0"
    chunk.mkdir(parents=True)
    (chunk / f"0.{'a' * 32}.partial").write_text("half")
    Job(path, meta, compression).go_on()
    assert not [p for p in path.rglob("*") if is_leftover(p.name)]


@pytest.mark.parametrize("code", REFUSALS, ids=errno.errorcode.get)
@pytest.mark.parametrize("kind", ["split", "zstd"])
@pytest.mark.parametrize("factor", [1, -1], ids=["same", "other"])
@pytest.mark.usefixtures("small_chunks")
def test_a_refusal_of_writing_rows_again_can_be_repaired(tmp_path, kind, factor, code):
    path, (meta, compression) = tmp_path / "activations.zarr", SMALL[kind]
    rows = make_rows(meta)[:4]
    with Writer.open(path, meta, *coordinates(meta), compression) as writer:
        writer.append(rows)
        for n in itertools.count():
            with refusing(n, code, path) as refusal, suppress(StoreLocationError):
                write_again(writer, 0, factor * rows)
            found = store.open(path)[meta.key]
            if refusal.refused is None:
                break
            assert_same(found.read(0, found.n_committed), rows[: found.n_committed])
            write_again(writer, 0, factor * rows)
            assert_same(store.open(path)[meta.key].read(0, 4), factor * rows)
            write_again(writer, 0, rows)
        assert n >= 3
        assert_same(found.read(0, 4), factor * rows)
        assert found.commits == writer.commits


def memory_files(place):
    """Return the contents of all files below an address."""
    return {name: (place / name).read_bytes() for name, _, _ in walk_files(place)}


@pytest.fixture
def memory():
    place = UPath("memory://crash", use_listings_cache=False)
    yield place
    remove_tree(place)


@pytest.mark.parametrize("same_writer", [True, False])
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("kind", ["zstd", "grams"])
@pytest.mark.usefixtures("small_chunks")
def test_a_failure_of_any_one_request_loses_nothing(memory, kind, moment, same_writer):
    whole, n_failed = memory / "whole" / name_of(kind), 0
    with failing_client(10**9, moment) as counted:
        Job(whole, *SMALL[kind]).go_on()
    wanted = memory_files(whole)
    for n in itertools.count():
        path = memory / f"failed-{n}" / name_of(kind)
        job = Job(path, *SMALL[kind])
        with failing_client(n, moment) as made, suppress(StoreLocationError):
            job.go_on()
            assert len(made) <= n
            break
        assert what_counts(path, whole) >= job.n_blocks
        if not same_writer:
            job = Job(path, *SMALL[kind])
            end_claims()
        job.go_on()
        assert memory_files(path) == wanted
        n_failed += 1
    assert n_failed >= len(counted)
