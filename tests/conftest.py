"""Settings of all tests: strict JAX, no telemetry, networks small enough to train in seconds."""

import os

# Before JAX and Prefect are imported: both read their settings once.
os.environ["JAX_NUMPY_DTYPE_PROMOTION"] = "strict"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
os.environ["DO_NOT_TRACK"] = "1"
if not os.environ.get("OPTIMISED"):
    # Compiling took three quarters of all tests' time: networks here are too small to repay it.
    # Commands that tests start inherit this. OPTIMISED=1 compiles them as users' are.
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    os.environ["XLA_FLAGS"] = (
        f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false"
    )

import fcntl
import functools
import gc
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from matplotlib.figure import Figure

from allcnn.drawing import figure_files
from allcnn.drawing.canvas import new_figure
from allcnn.settings.run import RunConfig
from allcnn.training import loop
from allcnn.workspace.paths import Workspace

_MEMORY = Path("/dev/shm")
if "TMPDIR" not in os.environ and _MEMORY.is_dir():
    if shutil.disk_usage(_MEMORY).free >= 4 * 2**30:
        # Small files by the hundred thousand take seven times as long on a disk.
        tempfile.tempdir = os.environ["TMPDIR"] = str(_MEMORY)

# Each cluster makes a key, which takes a tenth of a second. Tests of strangers make another.
rsa.generate_private_key = functools.cache(rsa.generate_private_key)

SMALL = RunConfig.of(
    image_size=12, width=0.05, epochs=2, checkpoint_every=1, batch_size=64, prefix="small"
)
"""Learns a little from the digits in a few seconds."""


_STATUS = pytest.StashKey[int]()


def pytest_collection_finish() -> None:
    """Leave millions of objects that stay out of every collection, which would take seconds."""
    gc.freeze()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Remember how it ended."""
    session.config.stash[_STATUS] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """End at once after all tests and their clean-up, without taking the interpreter apart.

    Hundreds of native threads of JAX, TensorStore and gRPC are left of a whole run, and now
    and then one of them crashed then, after everything had passed. Which one is not known: three
    runs of 78 tests with checkpoints, clusters, S3, Prefect and a browser ended as they should
    without this (JAX 0.10.2, TensorStore 0.1.86). Commands, which have few, end as they should;
    tests of them see their exit status.
    """
    if _STATUS in config.stash:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(config.stash[_STATUS])


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return a workspace with two small trained runs, of depth 1 and 2; copy it before writing.

    The first worker that needs it trains them, for all of them.
    """
    own = tmp_path_factory.getbasetemp()
    folder = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    workspace, made = Workspace.at(folder / "trained"), folder / "trained.made"
    with (folder / "trained.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            for depth in (1, 2):
                loop.train(RunConfig.of(**(SMALL.to_json() | {"depth": depth})), workspace)
            made.touch()
    return workspace


@pytest.fixture
def workspace(trained: Workspace, tmp_path: Path) -> Workspace:
    """Return a copy of the trained workspace, to write into."""
    shutil.copytree(trained.root, tmp_path / "workspace")
    return Workspace.at(tmp_path / "workspace")


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Return the server that Prefect embeds in a process without one; one for all tests."""
    # Seconds that other tests need not wait for.
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings  # noqa: PLC0415
    from prefect.testing.utilities import prefect_test_harness  # noqa: PLC0415

    from tests.prefect_api import Api  # noqa: PLC0415

    home = tmp_path_factory.mktemp("prefect")
    with temporary_settings({PREFECT_HOME: home}), prefect_test_harness(120):
        found = Api(PREFECT_API_URL.value())
        with found.http:
            yield found


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[tuple[Path, Callable[[str], object]]]:
    """Return a disk and a function that sets its size; needs a system that lets us mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount(*options: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(["mount", *options, str(disk)], capture_output=True, check=False)

    if shutil.which("mount") is None or mount("-t", "tmpfs", "-o", "size=64m", "tmpfs").returncode:
        pytest.skip("no disk can be mounted here")
    yield disk, lambda n_bytes: mount("-o", f"remount,size={n_bytes}")
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.fixture
def collected() -> Iterator[None]:
    """Collect here what a failed read leaves behind, lest it shows up in another test."""
    gc.freeze()
    yield
    gc.collect()


@pytest.fixture
def sketched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pictures beside results be blank: where it matters that one is drawn, not what it shows.

    Drawing takes a third of a night on small networks.
    """

    class Blank:
        def __getattr__(self, name: str) -> Callable[..., Figure]:
            return lambda *_, **__: new_figure(1, 1)

    for module in ("matrices", "curves"):
        monkeypatch.setattr(figure_files, module, Blank())


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let standard input pass for a terminal."""

    class Terminal:
        def __getattr__(self, name: str) -> Any:
            return getattr(sys.stdin, name)

        def isatty(self) -> bool:
            return True

    class System:
        stdin = Terminal()

    monkeypatch.setattr("flows.views.removal.sys", System)
