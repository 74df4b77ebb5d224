"""Workers on hosts of their own, with one disk: pulled cables cost time, never a bit or a hang."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.hosts import REPOSITORY, namespaces, why_not
from tests.multihost import HOSTS, MOST_S, N_THREADS, N_TOGETHER, TCP_S, WORKERS, slow_s, wait_for

QUICK_TCP_S = 12
"""The least that Dask takes is 11."""

QUICK = {"no_workers_s": 4, "silent_s": 4, "stalled_s": 120}
"""In place of a minute, a minute and six hours."""

TO_END_S = 10
"""For what is no waiting: the end of a process, and a client that looks every two seconds."""


@pytest.fixture(autouse=True)
def hosts():
    """Skip where there can be no hosts; see that nothing is left of the trial."""
    if reason := why_not():
        pytest.skip(reason)
    yield
    assert [name for name in namespaces() if f"-{os.getpid()}-" in name] == []


class Script:
    """The demonstration as a process of its own, which cleans up whatever becomes of the tests."""

    def __init__(self, folder, *options):
        self.report = folder / "report.json"
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        self._log = folder / "log"
        with self._log.open("w") as log:
            command = [sys.executable, "-m", "tests.multihost", "--report", str(self.report)]
            self.process = subprocess.Popen(
                [*command, *options],
                cwd=REPOSITORY,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"TMPDIR": str(self.temporary)},
            )

    @property
    def said(self):
        return self._log.read_text()

    def descendants(self):
        return psutil.Process(self.process.pid).children(recursive=True)

    def ended(self):
        """Return the exit status, having seen that nothing is left of it."""
        try:
            status = self.process.wait(2 * MOST_S)
        except BaseException:
            self.process.terminate()
            self.process.wait()
            raise
        assert [name for name in namespaces() if f"-{self.process.pid}-" in name] == []
        assert [*self.temporary.iterdir()] == []
        return status

    def reported(self):
        return json.loads(self.report.read_text())


@pytest.mark.slow
def test_a_worker_that_is_cut_off_in_the_middle_changes_nothing(tmp_path):
    script = Script(tmp_path, "--cut", "worker2")
    assert script.ended() == 0, script.said
    report = script.reported()
    assert report["same"]
    assert 0 < report["n_kept"] < report["n_wanted"] - N_THREADS
    assert set(report["n_computed"]) == set(WORKERS)
    assert report["n_different"] == report["n_wanted"]
    # It lost what it had not kept of the tasks that it was at, and nothing of what it had finished.
    n_more = sum(report["n_computed"].values()) - report["n_wanted"]
    assert n_more <= N_THREADS * N_TOGETHER
    # Then a slow worker looks up from a minibatch, and the other one does what is left.
    assert report["waited_s"] < 2 * TCP_S + slow_s(TCP_S) + report["undisturbed_s"]
    assert any("is gone; others take its tasks" in line for line in report["said"])
    for host in ("scheduler", *WORKERS):
        assert report["listening"][host] == [f"10.77.0.{HOSTS.index(host) + 1}"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cut", "sentence", "most_s"),
    [
        ("worker1,worker2", r"all workers of \S+ are gone, and none came back within 4 s", 28),
        ("client", r"the scheduler of \S+ is gone, or cannot be reached any more", 4),
    ],
)
def test_a_client_that_can_get_no_result_says_so_in_time(tmp_path, cut, sentence, most_s):
    how = ("--limits", json.dumps(QUICK), "--tcp-s", str(QUICK_TCP_S))
    script = Script(tmp_path, "--cut", cut, *how)
    assert script.ended() == 1, script.said
    report = script.reported()
    assert report["status"] == 1
    assert report["n_kept"] < report["n_wanted"]
    assert report["waited_s"] < most_s + TO_END_S
    assert re.search(rf"s: \*@final with \*@final: Grams: {sentence}", report["said"][-1])
    # Nothing of Dask's own between the sentences.
    assert [line for line in report["said"] if not re.match(r"\d+\.\d s: ", line)] == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_script_that_is_stopped_leaves_nothing(tmp_path, number):
    script = Script(tmp_path)
    try:
        wait_for(lambda: _is_comparing(script), "the client to compare")
        others = script.descendants()
        assert len(others) >= len(HOSTS)
    finally:
        script.process.send_signal(number)
    script.process.send_signal(number)  # somebody who is impatient
    began = time.monotonic()
    assert script.ended() == 128 + number
    assert time.monotonic() - began < TO_END_S
    assert [each for each in others if each.is_running()] == []


def _is_comparing(script):
    assert script.process.poll() is None, script.said
    return any(script.temporary.glob("*/whole/grams.zarr"))


def test_without_permission_there_is_a_reason(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert why_not() == "network namespaces need root"
    monkeypatch.undo()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert why_not() == "ip (iproute2) and taskset (util-linux) are not installed"
    monkeypatch.undo()
    monkeypatch.setattr("tests.hosts._SUBNET", "10.77.0.0")
    assert why_not().startswith("network namespaces are not permitted here (")
