"""A comparison on four hosts that share one disk, in the middle of which a cable is pulled.

    python -m tests.multihost                            # that of one worker: nothing is lost
    python -m tests.multihost --cut worker1,worker2      # the client gives up, with a sentence

Needs root, as ``tests.hosts`` says. A scheduler, two workers and a client run on hosts of their own
and compare twice, first undisturbed; then the workers to be cut off are so slow that they are still
at work when Dask takes the silence for their end. Prints what happened; the exit status is 0 where
the second result has the bits of the first. Whatever ends it, but a SIGKILL, leaves nothing behind.
"""

# ruff: noqa: T201 - prints what happened

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

import store
from allcnn.settings.selection import Selection
from allcnn.workspace.paths import Workspace
from tests.comparing import BATCH
from tests.hosts import Network, why_not
from tests.networks import assert_same_bits, kept_grams, write_network
from tests.noting import NOTES, pause_file

WORKERS = ("worker1", "worker2")
HOSTS = ("scheduler", "client", *WORKERS)
PORT = 8786

RUNS, TAPS = "abcd", ("one", "two", "three")
N_MINIBATCHES = 8
N_GRAMS = len(RUNS) * len(TAPS) * N_MINIBATCHES

_PAUSE_S = 0.25
"""What a minibatch takes more than its Gram does: 6 s in all, whatever the machine."""

N_THREADS = 2
N_TOGETHER = 2
"""Of these Grams, a mebibyte: they are kept together or, where the worker ends between, lost."""

TCP_S = 30
"""How long Dask takes a silent connection for alive, where it is not told otherwise.

Up to twice as long where it sends something shortly before that: the time counts from then.
"""

MOST_S = 240.0
"""Of any wait: what takes longer hangs."""


@dataclass
class Report:
    """What happened.

    Attributes:
        cut: the hosts whose cables were pulled.
        n_wanted: minibatches whose Grams were wanted.
        n_kept: how many of them were kept when the cables were pulled.
        n_computed: how many each worker computed, in all.
        n_different: how many of these were not computed before.
        undisturbed_s: how long the client took where nothing was pulled.
        waited_s: how long it took from the cut to its end.
        status: its exit status; ``said`` is what it printed.
        same: whether both results are the same to the bit.
        listening: the addresses on which something listened on each host.
    """

    cut: list[str]
    n_wanted: int = N_GRAMS
    n_kept: int = 0
    n_computed: dict[str, int] = field(default_factory=dict)
    n_different: int = 0
    undisturbed_s: float = 0.0
    waited_s: float = 0.0
    status: int = 0
    said: list[str] = field(default_factory=list)
    same: bool = False
    listening: dict[str, list[str]] = field(default_factory=dict)


class Scene:
    """Hosts on which Dask runs, and the folder that all of them see."""

    def __init__(self, network: Network, folder: Path, tcp_s: int) -> None:
        self.network = network
        self.notes = folder / "notes"
        self._folder = folder
        self._tcp_s = tcp_s
        self._address = f"tcp://{network.addresses['scheduler']}:{PORT}"

    def start(self) -> None:
        """Start the scheduler and the workers, and wait until they have found each other."""
        self._dask("scheduler", "scheduler", "--port", str(PORT))
        cores = sorted(os.sched_getaffinity(0))
        for i, name in enumerate(WORKERS):
            self.slow_down(name, _PAUSE_S)
            # Before the interpreter starts, as importing the preload imports JAX.
            self._dask(
                *(
                    name,
                    "worker",
                    self._address,
                    "--name",
                    name,
                    "--nthreads",
                    str(N_THREADS),
                    "--no-nanny",
                ),
                *("--preload", "tests.noting"),
                before=("taskset", "-c", str(cores[i % len(cores)])),
            )
        for name in WORKERS:
            log = self._folder / f"{name}.log"
            wait_for(lambda log=log: "Registered to" in log.read_text(), f"{name} to register")

    def _dask(self, host: str, *words: str, before: tuple[str, ...] = ()) -> None:
        address = self.network.addresses[host]
        # The status page would listen on all addresses otherwise, also where there is none to see.
        where = ("--no-dashboard", "--host", address, "--dashboard-address", f"{address}:0")
        self.run(host, *before, sys.executable, "-m", "dask", *words, *where)

    def compare(self, root: Path, limits: dict[str, float]) -> "subprocess.Popen[bytes]":
        """Start a client that compares what lies below a root."""
        how = (str(root), self._address, json.dumps(limits))
        return self.run("client", sys.executable, "-m", "tests.comparing", *how)

    def slow_down(self, worker: str, pause_s: float) -> None:
        """Let a worker take so much longer for each minibatch."""
        pause_file(self.notes, worker).write_text(str(pause_s))

    def run(self, host: str, *command: str) -> "subprocess.Popen[bytes]":
        """Start a command on a host; what it prints goes to its log."""
        with self.log(host).open("w") as log:
            return self.network.start(
                host,
                command,
                log,
                DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP=f"{self._tcp_s}s",
                DASK_TEMPORARY_DIRECTORY=str(self._folder),
                JAX_PLATFORMS="cpu",
                OMP_NUM_THREADS="1",
                OPENBLAS_NUM_THREADS="1",
                **{NOTES: str(self.notes)},
            )

    def log(self, host: str) -> Path:
        """Return the file that holds what a host's last command prints."""
        return self._folder / f"{host}.log"

    def noted(self) -> list[tuple[str, str]]:
        """Return who computed which minibatch's Gram, in that order."""
        text = self.notes.read_text() if self.notes.exists() else ""
        return [(line.partition(" ")[0], line.partition(" ")[2]) for line in text.splitlines()]


def demonstrate(
    folder: Path, cut: list[str], limits: dict[str, float], tcp_s: int = TCP_S
) -> Report:
    """Compare twice on hosts of their own, the second time with a cut in the middle."""
    whole, broken = (_workspace(folder, name) for name in ("whole", "broken"))
    report = Report(cut)
    with Network(*HOSTS) as network:
        scene = Scene(network, folder, tcp_s)
        scene.start()
        report.listening = {host: sorted(network.listening(host)) for host in HOSTS}
        began = time.monotonic()
        if _ended(scene.compare(whole.root, {})):
            raise RuntimeError(f"nothing was cut, and yet: {scene.log('client').read_text()}")
        report.undisturbed_s = time.monotonic() - began
        scene.notes.unlink()
        for worker in set(cut).intersection(WORKERS):
            scene.slow_down(worker, slow_s(tcp_s))
        _disturb(scene, broken, limits, report)
    report.same = report.status == 0 and _same(whole, broken)
    return report


def slow_s(tcp_s: int) -> float:
    """Return how long a slow worker takes for a minibatch: it must be at work after the silence."""
    return 1.3 * tcp_s / N_MINIBATCHES


def _disturb(scene: Scene, workspace: Workspace, limits: dict[str, float], report: Report) -> None:
    client = scene.compare(workspace.root, limits)
    wait_for(lambda: _under_way(scene, workspace), "all workers to be in the middle of it")
    for host in report.cut:
        scene.network.cut(host)
    began = time.monotonic()
    report.n_kept = kept_grams(workspace)
    print(f"cut off {', '.join(report.cut)}: {report.n_kept} of {N_GRAMS} Grams are kept")
    report.status = _ended(client)
    report.waited_s = time.monotonic() - began
    report.said = scene.log("client").read_text().splitlines()
    noted = scene.noted()
    report.n_computed = dict(Counter(name for name, _ in noted))
    report.n_different = len({minibatch for _, minibatch in noted})


def _under_way(scene: Scene, workspace: Workspace) -> bool:
    return {name for name, _ in scene.noted()} == {*WORKERS} and kept_grams(workspace) > 0


def _ended(client: "subprocess.Popen[bytes]") -> int:
    wait_for(lambda: client.poll() is not None, "the client to end")
    return client.wait()


def _workspace(folder: Path, name: str) -> Workspace:
    """Make a workspace of the same activations as the others, which are written once."""
    activations = folder / "activations.zarr"
    if not activations.exists():
        shape = (N_MINIBATCHES * BATCH, 16, 16)
        values = np.random.default_rng(0).standard_normal(shape, np.float32)
        for run in RUNS:
            taps = {tap: np.roll(values, i, 0) for i, tap in enumerate(TAPS)}
            write_network(activations, Selection(run, "final"), taps, batch_rows=BATCH)
    (folder / name).mkdir()
    (folder / name / "activations.zarr").symlink_to(activations)
    return Workspace.at(folder / name)


def _same(*workspaces: Workspace) -> bool:
    results = [
        store.read_result(workspace.similarity, name)
        for workspace in workspaces
        for name in store.list_results(workspace.similarity)
    ]
    try:
        assert_same_bits(*results)
    except AssertionError:
        return False
    return True


def wait_for(found: Callable[[], bool], what: str) -> None:
    """Wait until something is found; raises TimeoutError."""
    deadline = time.monotonic() + MOST_S
    while not found():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {MOST_S:g} s for {what}")
        time.sleep(0.1)


def _stop(number: int, _: object) -> None:
    """End in the ordinary way, which cleans up, and let no second signal disturb that."""
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)


def _tell(report: Report) -> None:
    print(f"undisturbed, the client took {report.undisturbed_s:.1f} s")
    print(f"after the cut it took {report.waited_s:.1f} s, and ended with status {report.status}:")
    print(*(f"    {line}" for line in report.said), sep="\n")
    each = ", ".join(f"{n} by {name}" for name, n in sorted(report.n_computed.items()))
    print(f"Grams computed: {each}; {report.n_different} different ones of {report.n_wanted}")
    print(f"same bits as undisturbed: {report.same}")


def main() -> int:
    """Demonstrate, print what happened, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cut", default="worker2", help="hosts, with commas between them")
    parser.add_argument("--limits", default="{}", type=json.loads, help="the client's, as JSON")
    parser.add_argument("--tcp-s", default=TCP_S, type=int, help="Dask's patience with a silence")
    parser.add_argument("--report", type=Path, help="a file for what happened, as JSON")
    given = parser.parse_args()
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(each, _stop)
    if reason := why_not():
        print(reason)
        return 2
    with tempfile.TemporaryDirectory(prefix="allcnn-hosts-") as folder:
        report = demonstrate(Path(folder), given.cut.split(","), given.limits, given.tcp_s)
    _tell(report)
    if given.report:
        given.report.write_text(json.dumps(asdict(report)))
    return 0 if report.same else 1


if __name__ == "__main__":
    raise SystemExit(main())
