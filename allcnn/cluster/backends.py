"""Start workers of each kind, or find those that run already; and stop what was started."""

import logging
import os
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any, Final

import dask
from distributed import Client, LocalCluster, Nanny, Scheduler, Security, SpecCluster
from distributed.comm.addressing import parse_host_port
from distributed.deploy.cluster import Cluster as DaskCluster
from distributed.system import MEMORY_LIMIT

from allcnn.cluster.preload import CORES
from allcnn.cluster.spec import ClusterSpec
from allcnn.definitions.registry import imported
from allcnn.errors import ClusterError, ConfigError

_THREADS: Final = 2
"""One computes while the other reads; more would only hold more minibatches in memory."""

_LOOPBACK: Final = "127.0.0.1:0"

_LEAST_BYTES: Final = 2**30
"""Memory of one worker process: JAX alone takes half of it."""

CONNECT_S: Final = 15.0
"""How long a scheduler that runs already has to answer."""

WORKERS_S: Final = 60.0
"""How long its workers, or processes of this machine, have to come."""

QUEUE_S: Final = 3600.0
"""How long the workers of a user's function have to come, which may wait in a batch queue."""

_MEMORY: Final = {
    # What a task holds is its own, so that a worker that pauses would wait for ever.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
}

_PAGES: Final = {
    # Pages to look at alone: neither those that end workers, nor those that fetch other addresses.
    "distributed.scheduler.http.routes": [
        "distributed.http.scheduler.prometheus",
        "distributed.http.scheduler.info",
        "distributed.http.scheduler.json",
        "distributed.http.health",
        "distributed.http.statics",
    ],
    "distributed.worker.http.routes": [
        "distributed.http.worker.prometheus",
        "distributed.http.health",
        "distributed.http.statics",
    ],
}


@dataclass(frozen=True)
class Started:
    """Workers that take tasks: what they are in words, and their scheduler's pages.

    Beyond ``memory_bytes`` a worker is ended; None where that is not ours to say.
    """

    client: Client
    about: str
    dashboard: str
    memory_bytes: int | None = None


def check_possible(spec: ClusterSpec) -> None:
    """Raise ConfigError for workers that this machine cannot have, before any work.

    Raises ClusterError where nothing answers at a scheduler's address, even if no task needs it.
    """
    if spec.kind == "local":
        _cores(spec.n_workers)
    elif spec.kind == "gpu":
        _gpus()
    elif spec.kind == "function":
        _function(spec.target)
    elif spec.kind == "address":
        where = _check_address(spec.target)
        try:
            socket.create_connection(where, timeout=CONNECT_S).close()
        except OSError as error:
            raise _silent(spec.target, error) from error


def _silent(name: str, error: Exception) -> ClusterError:
    return ClusterError(
        f"no scheduler of Dask answers at {name} within {CONNECT_S:g} s ({error})",
        remedy="start one with 'dask scheduler', or name another --cluster",
    )


@contextmanager
def started(spec: ClusterSpec) -> Iterator[Started]:
    """Yield workers, which are stopped at the end unless they ran before.

    Schedulers and status pages that are started here listen on free ports of loopback alone;
    schedulers and workers answer this process alone.
    Raises ConfigError for workers that this machine cannot have, ClusterError where none come.
    """
    with ExitStack() as stack:
        # Each start and stop would otherwise log a page, where any handler listens to INFO, and
        # tornado the traceback of a broken transfer; errors reach whoever asked for the result.
        for library in ("distributed", "tornado.application"):
            stack.enter_context(_silenced(library))
        if spec.kind == "threads":
            yield _threads(stack)
        elif spec.kind == "local":
            yield _processes(stack, _cores(spec.n_workers))
        elif spec.kind == "gpu":
            yield _processes(stack, _gpus())
        elif spec.kind == "address":
            yield _connected(stack, spec.target, spec.target, WORKERS_S)
        else:
            yield _made(stack, spec.target)


@contextmanager
def _private() -> Iterator[Security]:
    """Keep other accounts of this machine out of a cluster: yield certificates for it alone.

    All accounts reach loopback, and whoever reaches a process of Dask can run code as its owner; so
    can whoever owns a folder that it imports from. Within this block that is a folder that only its
    owner may write; Dask would take one that another account may have made before.
    """
    with (
        TemporaryDirectory(prefix="allcnn-", ignore_cleanup_errors=True) as folder,
        dask.config.set({**_PAGES, "temporary-directory": folder}),
    ):
        yield Security.temporary()


def _threads(stack: ExitStack) -> Started:
    stack.enter_context(_private())
    cluster = stack.enter_context(
        LocalCluster(
            n_workers=1,
            threads_per_worker=_THREADS,
            processes=False,
            protocol="inproc://",  # whatever Dask's configuration wants of networks
            dashboard_address=_LOOPBACK,
            worker_dashboard_address=_LOOPBACK,
            memory_limit=0,
        )
    )
    client = stack.enter_context(Client(cluster, set_as_default=False))
    return Started(client, "threads of this process", _own_dashboard(client))


def _processes(stack: ExitStack, environments: list[dict[str, str]]) -> Started:
    """Start one process for each environment; one that dies is started again."""
    memory_bytes = MEMORY_LIMIT // len(environments)
    stack.enter_context(dask.config.set(_MEMORY))
    security = stack.enter_context(_private())
    guarded = {"host": "127.0.0.1", "protocol": "tls://", "security": security}
    guarded |= {"dashboard_address": _LOOPBACK}
    options = guarded | {
        "nthreads": _THREADS,
        "memory_limit": memory_bytes,
        "preload": ["allcnn.cluster.preload"],
        "silence_logs": logging.CRITICAL,
    }
    workers = {
        i: {"cls": Nanny, "options": options | {"env": env}} for i, env in enumerate(environments)
    }
    scheduler = {"cls": Scheduler, "options": guarded | {"port": 0}}
    cluster = SpecCluster(workers=workers, scheduler=scheduler, security=security)
    stack.enter_context(cluster)
    client = stack.enter_context(Client(cluster, security=security, set_as_default=False))
    _wait_for(client, len(environments), "this machine", WORKERS_S)
    kind = "GPUs" if "CUDA_VISIBLE_DEVICES" in environments[0] else "cores"
    about = f"{len(environments)} processes on as many {kind}"
    return Started(client, about, _own_dashboard(client), memory_bytes)


def _cores(n_workers: int | None) -> list[dict[str, str]]:
    """Return an environment for each worker on a core of its own.

    Raises ConfigError for more workers than this process may use cores.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = sorted(affinity(0)) if affinity else list(range(os.cpu_count() or 1))
    if n_workers is None:
        n_workers = min(len(cores), max(1, MEMORY_LIMIT // _LEAST_BYTES))
    if n_workers > len(cores):
        raise ConfigError(
            f"cluster is local:{n_workers}, and this process may use {len(cores)} cores, one for"
            f" each worker",
            remedy=f"use local:{len(cores)} or fewer",
        )
    return [{CORES: str(core), "JAX_PLATFORMS": "cpu"} for core in cores[:n_workers]]


def _gpus() -> list[dict[str, str]]:
    """Return an environment for each GPU; raises ConfigError if none is found."""
    if names := gpu_names():
        # This process may hold memory of the same GPU.
        shared = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        return [shared | {"CUDA_VISIBLE_DEVICES": name} for name in names]
    raise ConfigError(
        "cluster is gpu, and no NVIDIA GPU is found here (by CUDA_VISIBLE_DEVICES or nvidia-smi)",
        remedy="use threads or local",
    )


def gpu_names() -> list[str]:
    """Return the names of the GPUs that this process may use, without starting JAX on them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name.strip() not in ("", "-1")]
    query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        found = subprocess.check_output(query, text=True, timeout=30, stderr=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        return []
    return found.split()


def _connected(stack: ExitStack, scheduler: Any, name: str, patience_s: float) -> Started:
    """Connect to a scheduler that runs already, and wait for the first of its workers."""
    if isinstance(scheduler, str):
        _check_address(scheduler)
    client = scheduler
    if not isinstance(scheduler, Client):
        try:
            client = stack.enter_context(Client(scheduler, timeout=CONNECT_S, set_as_default=False))
        except (OSError, ValueError) as error:
            raise _silent(name, error) from error
    _wait_for(client, 1, name, patience_s)
    return Started(client, f"the workers of {name}", client.dashboard_link)


def _check_address(address: str) -> tuple[str, int]:
    """Return host and port; raises ConfigError where a client would fail half a minute later."""
    protocol, _, where = address.partition("://")
    try:
        host, port = parse_host_port(where)
    except ValueError as error:
        raise ConfigError(f"cluster is {address}, which is no address: {error}") from error
    if protocol == "tls" and Security().get_connection_args("client").get("ssl_context") is None:
        raise ConfigError(
            f"cluster is {address}, and Dask has no certificates to reach it by",
            remedy="name them in its configuration, distributed.comm.tls",
        )
    return host, port


def _made(stack: ExitStack, target: str) -> Started:
    """Call a user's function, which returns a cluster, a client or a scheduler's address."""
    function = _function(target)
    try:
        made = function()
    except Exception as error:  # whatever the user's function raises
        raise ClusterError(
            f"{target} failed: {type(error).__name__}: {error}", remedy="repair that function"
        ) from error
    if isinstance(made, Client):
        if made.cluster is not None:  # which nothing else can stop
            stack.callback(made.cluster.close)
        stack.callback(made.close)
    elif isinstance(made, DaskCluster):
        stack.enter_context(made)
    elif not (isinstance(made, str) and "://" in made):
        raise ConfigError(
            f"cluster is {target}, which returned {made!r}",
            remedy="it must return a cluster or a client of Dask, or a scheduler's address",
        )
    return _connected(stack, made, target, QUEUE_S)


def _function(target: str) -> Callable[[], object]:
    found: Callable[[], object] = imported("cluster", target)
    if not callable(found):
        raise ConfigError(f"cluster is {target}, which is no function but {found!r}")
    return found


def _wait_for(client: Client, n_workers: int, name: str, patience_s: float) -> None:
    try:
        client.wait_for_workers(n_workers, timeout=patience_s)
    except TimeoutError as error:
        raise ClusterError(
            f"{name} has fewer than {n_workers} workers after {patience_s:g} s",
            remedy="start workers there, with 'dask worker', and run this again",
        ) from error


def _own_dashboard(client: Client) -> str:
    # Dask would name an address of this machine on which nothing listens.
    services: Mapping[str, int] = client.scheduler_info()["services"]
    return f"http://127.0.0.1:{services['dashboard']}/status"


@contextmanager
def _silenced(library: str) -> Iterator[None]:
    logger = logging.getLogger(library)
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    except KeyboardInterrupt:
        before = logging.CRITICAL  # what was still starting fails, and this process ends
        raise
    finally:
        logger.setLevel(before)
