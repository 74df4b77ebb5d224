"""Crash safety: killed at random moments, and refused every single write in turn."""

import os
import random
import shutil
import signal
import time

import numpy as np
import pytest

import store
from store import has_store
from store.place import is_leftover
from tests import victims
from tests.strategies import coordinates
from tests.victims import GRAMS, MEDIAN_DISTANCE, N_BLOCKS, TAPS, Victims

DEPTHS = {"activations.zarr": 4, "grams.zarr": 5}
"""Components of the path of a group that one writer claims."""


def files(folder):
    """Return the contents of all files below a folder, but what kills left where nobody claims.

    There it might be another writer's at work; ``allcnn store gc`` removes it once it is old.
    """
    paths = [p.relative_to(folder) for p in folder.rglob("*") if p.is_file()]
    return {
        p: (folder / p).read_bytes()
        for p in paths
        if is_claimed_by_one(p) or not is_leftover(p.name)
    }


def is_claimed_by_one(path):
    return len(path.parts) > DEPTHS[path.parts[0]] + 1


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


def test_ten_kills_at_random_moments_lose_nothing(tmp_path, whole):
    assert len(check_kills(10, tmp_path, whole, seed=10)) == 10


@pytest.mark.slow
def test_95_kills_at_random_moments_lose_nothing(tmp_path, whole):
    # With five of the real command (test_allcnn_extract.py) a hundred.
    n_committed = check_kills(95, tmp_path, whole, seed=95)
    assert len(n_committed) == 95
    third = N_BLOCKS // 3
    spread = np.histogram(n_committed, [0, 1, third, 2 * third, N_BLOCKS + 1])[0]
    assert (spread >= 5).all(), spread
