"""Workers that die or fill their memory, schedulers that vanish: the same result, or a sentence."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
from distributed import Client
from distributed.comm import CommClosedError

from allcnn.cluster.cluster import Cluster
from allcnn.cluster.spec import ClusterSpec
from allcnn.compare import compare
from allcnn.compare import tasks as compare_tasks
from allcnn.errors import ClusterError
from allcnn.settings.selection import Selection
from allcnn.workspace.paths import Workspace
from tests import bodies
from tests.networks import ALL, assert_same_bits, compare_one, job, kept_grams, write_network

LOCAL = ClusterSpec("local", 2)
REPOSITORY = Path(__file__).parents[1]


def hurry(monkeypatch, stalled_s=6.0):
    """Wait seconds in place of a minute, a minute and six hours."""
    for name, seconds in (("NO_WORKERS_S", 4.0), ("SILENT_S", 4.0), ("STALLED_S", stalled_s)):
        monkeypatch.setattr(f"allcnn.cluster.cluster.{name}", seconds)


def quiet(done, total):
    pass


def wait_for(found, limit_s=60):
    deadline = time.monotonic() + limit_s
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def children():
    return set(psutil.Process().children(recursive=True))


def workers_since(before):
    """Return the worker processes of this machine that were started since."""
    return [each for each in children() - before if "spawn_main" in " ".join(each.cmdline())]


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Return a workspace whose Grams take some seconds, and its result from threads."""
    workspace = Workspace.at(tmp_path_factory.mktemp("wide"))
    rng = np.random.default_rng(0)
    for run in "abcd":
        values = np.maximum(rng.standard_normal((512, 64, 64)), 0).astype(np.float32)
        taps = {name: np.roll(values, i, 0) for i, name in enumerate(("one", "two", "three"))}
        write_network(workspace.activations, Selection(run, "final"), taps, batch_rows=32)
    return workspace


@pytest.fixture
def fresh(wide, tmp_path):
    """Return a workspace of the same activations, without Grams and results."""
    (tmp_path / "fresh").mkdir()
    (tmp_path / "fresh/activations.zarr").symlink_to(wide.activations)
    return Workspace.at(tmp_path / "fresh")


@pytest.fixture(scope="module")
def wanted(wide, tmp_path_factory):
    """Return the result that pinned processes give where nothing goes wrong."""
    root = tmp_path_factory.mktemp("wanted")
    (root / "activations.zarr").symlink_to(wide.activations)
    with Cluster(ClusterSpec("local", 1)) as cluster:
        return compare(Workspace.at(root), job(ALL, ALL, batch_size=16), cluster=cluster)[0]


N_GRAMS = 12 * 512 // 16


@pytest.mark.slow
def test_one_worker_or_two_give_the_same_bits(fresh, wanted):
    with Cluster(LOCAL) as cluster:
        (found,) = compare(fresh, job(ALL, ALL, batch_size=16), cluster=cluster)
    assert_same_bits(wanted, found)


@pytest.mark.slow
def test_threads_agree_with_processes_to_a_millionth(fresh, wanted):
    found = compare_one(fresh, ALL, ALL, batch_size=16)
    np.testing.assert_allclose(found.cka, wanted.cka, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_workers_killed_in_the_middle_change_nothing(fresh, wanted):
    before, killed = children(), []

    def kill():
        wait_for(lambda: 0 < kept_grams(fresh) < N_GRAMS - 16)
        worker = workers_since(before)[0]
        killed.append((worker.pid, kept_grams(fresh)))
        worker.kill()

    with Cluster(LOCAL) as cluster:
        cluster.check_sees(fresh.root)
        killer = threading.Thread(target=kill)
        killer.start()
        (found,) = compare(fresh, job(ALL, ALL, batch_size=16), cluster=cluster)
        killer.join()
    ((_, n_kept),) = killed
    assert 0 < n_kept < N_GRAMS
    assert_same_bits(wanted, found)


@pytest.mark.slow
def test_what_a_worker_returned_before_it_died_is_not_computed_again(tmp_path):
    before, told = children(), []

    def kill(done, total):
        if done == 4:
            time.sleep(0.5)  # nothing can be known of what the last moment brought
            workers_since(before)[0].kill()

    with Cluster(ClusterSpec("local", 1), told.append) as cluster:
        calls = [(value, 0.2, str(tmp_path)) for value in range(10)]
        assert cluster.gather(bodies.notes, calls, "testing", kill) == [*range(10)]
    n_times = Counter(path.name.partition("-")[0] for path in tmp_path.iterdir())
    assert [n_times[str(value)] for value in range(4)] == [1, 1, 1, 1]
    assert any("is gone; others take its tasks" in sentence for sentence in told)


def test_a_task_that_kills_its_worker_once_is_done_by_another(tmp_path):
    with Cluster(LOCAL) as cluster:
        calls = [(value, str(tmp_path)) for value in range(2)]
        assert cluster.gather(bodies.dies_once, calls, "testing", quiet) == [0, 1]
        assert {path.name for path in tmp_path.iterdir()} == {"died-0", "died-1"}


@pytest.mark.slow
def test_a_task_that_kills_every_worker_is_given_up(tmp_path):
    with Cluster(LOCAL) as cluster:
        with pytest.raises(ClusterError) as error:
            cluster.gather(bodies.dies, [(0, str(tmp_path))], "Grams of a", quiet)
        assert str(error.value) == (
            "Grams of a: 4 workers died of the same task, one after the other: they were killed, or"
            " their machines ran out of memory; what was finished is kept, so take fewer workers or"
            " smaller minibatches and run it again"
        )
        assert len([*tmp_path.iterdir()]) == 4
        assert cluster.gather(bodies.doubled, [(2,)], "testing", quiet) == [4]


@pytest.mark.slow
def test_a_task_that_fills_the_memory_is_given_up_with_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr("allcnn.cluster.backends.MEMORY_LIMIT", 2 * 800_000_000)
    with Cluster(LOCAL) as cluster:
        with pytest.raises(ClusterError, match=r"went over their memory limit of 0\.8 GB"):
            cluster.gather(bodies.fills_memory, [(2**31, str(tmp_path))], "testing", quiet)
        assert len([*tmp_path.iterdir()]) == 4


@pytest.mark.slow
def test_a_worker_that_fills_its_memory_once_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr("allcnn.cluster.backends.MEMORY_LIMIT", 2 * 800_000_000)
    with Cluster(LOCAL) as cluster:
        calls = [(2**31, str(tmp_path))]
        assert cluster.gather(bodies.fills_memory_once, calls, "testing", quiet) == [0]


def test_what_a_task_raises_is_raised():
    with Cluster(ClusterSpec("local", 1)) as cluster:
        with pytest.raises(ValueError, match="no such value as 7"):
            cluster.gather(bodies.raises, [(7,)], "testing", quiet)
        with pytest.raises(Exception, match="this and that"):
            cluster.gather(bodies.raises_oddly, [(7,)], "testing", quiet)
        # The error of one task is no harm to the next.
        assert cluster.gather(bodies.doubled, [(2,)], "testing", quiet) == [4]


@pytest.mark.slow
def test_a_transfer_that_breaks_off_is_told_in_a_sentence(monkeypatch, caplog):
    async def broken(*arguments, **options):
        raise CommClosedError("Stream is closed")

    monkeypatch.setattr(Client, "_gather_remote", broken)
    hurry(monkeypatch, stalled_s=2.0)
    with Cluster(ClusterSpec("local", 1)) as cluster:
        with pytest.raises(ClusterError, match=r"no task of local:1 ended within 2 s"):
            cluster.gather(bodies.doubled, [(2,)], "testing", quiet)
    assert caplog.text == ""


@pytest.mark.slow
def test_no_task_is_waited_for_longer_than_said(monkeypatch):
    hurry(monkeypatch, stalled_s=2.0)
    with Cluster(ClusterSpec("local", 1)) as cluster:
        with pytest.raises(ClusterError, match=r"no task of local:1 ended within 2 s; look at its"):
            cluster.gather(bodies.slow, [(0, 60)], "testing", quiet)


class Foreign:
    """A scheduler and a worker in processes of their own, as on other machines."""

    def __init__(self, folder):
        self._file = folder / "scheduler.json"
        self._log = (folder / "log").open("w")
        self.scheduler = self._start("scheduler", "--dashboard-address", "127.0.0.1:0")
        wait_for(self._file.exists)
        text = self._file.read_text()
        wait_for(lambda: "address" in self._file.read_text())
        text = self._file.read_text()
        self.spec = ClusterSpec.parse(re.search(r'"address": "(.*?)"', text)[1])
        self.workers = [self.start_worker()]

    def start_worker(self):
        return self._start("worker", "--nthreads", "2", "--no-nanny", "--no-dashboard")

    def _start(self, what, *options):
        command = [sys.executable, "-m", "dask", what, "--scheduler-file", str(self._file)]
        host = ("--host", "127.0.0.1")
        more = ("--port", "0") if what == "scheduler" else ()
        return subprocess.Popen(
            [*command, *host, *more, *options],
            cwd=REPOSITORY,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        )

    def stop(self):
        for each in (*self.workers, self.scheduler):
            each.send_signal(signal.SIGCONT)
            each.kill()
            each.wait()
        self._log.close()


@pytest.fixture
def foreign(tmp_path):
    running = Foreign(tmp_path)
    yield running
    running.stop()


@contextmanager
def later(action, seconds):
    timer = threading.Timer(seconds, action)
    timer.start()
    yield
    timer.join()


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_scheduler_that_disappears_is_told_of(foreign, monkeypatch, how):
    monkeypatch.setattr("allcnn.cluster.backends.CONNECT_S", 3.0)
    hurry(monkeypatch)
    with Cluster(foreign.spec) as cluster:
        cluster.check_sees(REPOSITORY)
        with later(lambda: foreign.scheduler.send_signal(how), 1):
            began = time.monotonic()
            with pytest.raises(ClusterError, match=f"the scheduler of {foreign.spec} is gone, or"):
                cluster.gather(bodies.slow, [(0, 60)], "testing", quiet)
            assert time.monotonic() - began < 30


@pytest.mark.slow
def test_a_worker_that_does_not_answer_is_told_of(foreign, monkeypatch):
    hurry(monkeypatch)
    with Cluster(foreign.spec) as cluster:
        cluster.check_sees(REPOSITORY)
        foreign.workers[0].send_signal(signal.SIGSTOP)
        with pytest.raises(ClusterError, match=r"a worker of .* does not answer within 4 s; look"):
            cluster.check_sees(REPOSITORY)


@pytest.mark.slow
def test_workers_that_are_all_gone_are_told_of_and_one_that_comes_goes_on(foreign, monkeypatch):
    told = []
    hurry(monkeypatch)
    with Cluster(foreign.spec, told.append) as cluster:
        cluster.check_sees(REPOSITORY)
        with (
            later(foreign.workers[0].kill, 2.5),
            pytest.raises(ClusterError, match=r"all workers of .* are gone.* within 4 s"),
        ):
            cluster.gather(bodies.slow, [(0, 60)], "testing", quiet)
        assert any("is gone; others take its tasks" in sentence for sentence in told)
        foreign.workers.append(foreign.start_worker())
        assert cluster.gather(bodies.doubled, [(2,)], "testing", quiet) == [4]


@pytest.mark.slow
def test_what_a_failed_run_kept_is_not_computed_again(foreign, fresh, wanted, monkeypatch):
    monkeypatch.setattr("allcnn.cluster.backends.CONNECT_S", 3.0)

    def kill():
        wait_for(lambda: 40 < kept_grams(fresh))
        foreign.scheduler.kill()

    killer = threading.Thread(target=kill)
    # Beside busy programs one of its first tasks may take longer than is usual here.
    hurry(monkeypatch, stalled_s=60.0)
    with Cluster(foreign.spec) as cluster:
        cluster.check_sees(fresh.root)
        killer.start()
        with pytest.raises(ClusterError, match="is gone, or cannot be reached any more"):
            compare(fresh, job(ALL, ALL, batch_size=16), cluster=cluster)
        killer.join()
    foreign.workers[0].kill()
    foreign.workers[0].wait()
    n_kept = kept_grams(fresh)
    assert 0 < n_kept < N_GRAMS
    n_computed = []
    original = compare_tasks.kernels.gram

    def counted(*arguments):
        n_computed.append(1)
        return original(*arguments)

    monkeypatch.setattr(compare_tasks.kernels, "gram", counted)
    (found,) = compare(fresh, job(ALL, ALL, batch_size=16))
    # One minibatch of each of the two tasks under way may have been computed, but not kept.
    assert len(n_computed) == N_GRAMS - n_kept
    np.testing.assert_allclose(found.cka, wanted.cka, rtol=0, atol=1e-6)
