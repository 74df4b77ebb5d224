"""Where tasks run: threads, processes, GPUs, a scheduler, a function; and nothing left of them."""

import asyncio
import json
import logging
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import warnings
from pathlib import Path

import dask
import psutil
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from distributed import LocalCluster, Security, get_client

from allcnn.cluster import backends
from allcnn.cluster.cluster import Cluster
from allcnn.cluster.spec import FORMS, THREADS, ClusterSpec
from allcnn.errors import ClusterError, ConfigError
from tests.stranger import NOBODY, intrude

REPOSITORY = Path(__file__).parents[1]
LOOPBACK = ("127.0.0.1", "::1")


def negated(value, *, wanted):
    assert wanted()
    return -value


def process(value, *, wanted):
    return os.getpid(), value


def cores(value, *, wanted):
    return tuple(os.sched_getaffinity(0))


def divided(value, *, wanted):
    return 1 // value


def quiet(done, total):
    pass


def gather(cluster, body, calls):
    return cluster.gather(body, calls, "testing", quiet)


def listening(of=None):
    connections = (of or psutil.Process()).net_connections(kind="all")
    return {c.laddr for c in connections if c.status == psutil.CONN_LISTEN}


def children():
    """Return the processes that this one started, but for what Python keeps until its end."""
    found = psutil.Process().children(recursive=True)
    return {each for each in found if "resource_tracker" not in " ".join(each.cmdline())}


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("threads", THREADS),
        ("local", ClusterSpec("local")),
        ("local:3", ClusterSpec("local", 3)),
        ("gpu", ClusterSpec("gpu")),
        ("tcp://10.0.0.1:8786", ClusterSpec("address", target="tcp://10.0.0.1:8786")),
        ("tls://host:8786", ClusterSpec("address", target="tls://host:8786")),
        ("mine.slurm:start", ClusterSpec("function", target="mine.slurm:start")),
    ],
)
def test_what_is_written_is_what_is_meant(text, spec):
    assert ClusterSpec.parse(text) == spec
    assert str(spec) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Threads",
        "local:",
        "local:0",
        "local:x",
        "local:-1",
        "gpu:0",
        "threads:2",
        "tcp://host",
        "http://host:1",
        "a:b:c",
        "../x:y",
        "a b:c",
        "os.path:",
    ],
)
def test_what_names_no_cluster_is_refused(text):
    with pytest.raises(ConfigError) as error:
        ClusterSpec.parse(text)
    assert str(error.value) == f"cluster is {text!r}; use {FORMS}"


def test_too_many_workers_are_refused():
    for n in ("1025", "99999", "9" * 5000):
        with pytest.raises(ConfigError, match=f"'local:{n}'; use 1024 workers or fewer"):
            ClusterSpec.parse(f"local:{n}")
    available = len(os.sched_getaffinity(0))
    with pytest.raises(ConfigError, match=f"may use {available} cores, one for each worker"):
        backends.check_possible(ClusterSpec("local", available + 1))


def test_threads_take_tasks_in_order_and_tell_where_they_are():
    told, before = [], listening()
    with Cluster(tell=told.append) as cluster:
        assert told == []  # nothing was needed yet
        assert gather(cluster, process, [(3,), (1,)]) == [(os.getpid(), 3), (os.getpid(), 1)]
        opened = listening() - before
        assert {address.ip for address in opened} <= set(LOOPBACK)
        (sentence,) = told
        head, _, address = sentence.rpartition(" ")
        assert head == "tasks run on threads of this process; dashboard"
        with urllib.request.urlopen(address, timeout=30) as answer:
            assert b"Bokeh" in answer.read()
        assert list(cluster.started.client.nthreads().values()) == [2]


def test_processes_are_pinned_to_a_core_each_and_listen_on_loopback_alone():
    before = children()
    with Cluster(ClusterSpec("local", 2)) as cluster:
        cluster.check_sees("s3://bucket")
        found = set(gather(cluster, cores, [(i,) for i in range(40)]))
        assert found == {(core,) for core in sorted(os.sched_getaffinity(0))[:2]}
        pids = {pid for pid, _ in gather(cluster, process, [(i,) for i in range(40)])}
        assert len(pids) == 2
        assert os.getpid() not in pids
        for each in [psutil.Process(), *(children() - before)]:
            assert {a.ip for a in listening(each) if hasattr(a, "ip")} <= set(LOOPBACK)
    assert children() <= before


@pytest.fixture(scope="module")
def local():
    """Return one process on a core of its own."""
    with Cluster(ClusterSpec("local", 1)) as cluster:
        gather(cluster, negated, [(1,)])
        yield cluster


def test_a_terminals_ctrl_c_is_left_to_the_process_that_started_the_workers(local, capfd):
    ((pid, _),) = gather(local, process, [(1,)])
    os.kill(pid, signal.SIGINT)
    time.sleep(0.5)
    assert gather(local, process, [(2,)])[0][0] == pid
    assert "Traceback" not in capfd.readouterr().err


def addresses(cluster):
    """Return where the scheduler, the workers and their nannies listen."""
    info = cluster.started.client.scheduler_info()
    nannies = [worker["nanny"] for worker in info["workers"].values()]
    return [info["address"], *info["workers"], *nannies]


def check_refused(found):
    assert {how: told.partition(":")[0] for how, told in found.items()} == {
        "tcp": "refused",
        "tls": "refused",
    }


def test_no_process_without_our_certificates_gets_an_answer(local, monkeypatch):
    # Another key than the one that all clusters of the tests have, see conftest.py.
    monkeypatch.setattr(rsa, "generate_private_key", rsa.generate_private_key.__wrapped__)
    for address in addresses(local):
        assert address.startswith("tls://")
        check_refused(asyncio.run(intrude(address)))
    assert gather(local, negated, [(1,)]) == [-1]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another account")
def test_no_other_account_can_have_its_code_run(local):
    done = subprocess.run(
        [sys.executable, "-m", "tests.stranger", *addresses(local)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(done.stdout)
    assert told["account"] == NOBODY
    assert set(told["found"]) == {*addresses(local)}
    for found in told["found"].values():
        check_refused(found)


def test_no_other_account_can_read_the_key_or_write_where_modules_are_found(local):
    for each in children():
        with each.oneshot():
            told = " ".join([*each.cmdline(), *each.environ().values()])
        assert "PRIVATE KEY" not in told
    folders = imported_from(local)
    assert folders
    for folder in folders:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def imported_from(cluster):
    """Return the outermost folders of those that Dask prepends to the path of its processes."""
    return outermost([*sys.path, *gather(cluster, path_of_modules, [(0,)])[0]])


def outermost(paths):
    found = [Path(path) for path in paths if "dask-scratch-space" in path]
    return {
        next(each for each in path.parents if each.name.startswith("allcnn-")) for path in found
    }


def path_of_modules(value, *, wanted):
    return sys.path


def test_threads_import_from_no_folder_of_another_account():
    of_others = outermost(sys.path)  # which this process may run beside
    with Cluster() as cluster:
        folders = imported_from(cluster) - of_others
        assert folders
        assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o700}
    assert not any(folder.exists() for folder in folders)


def test_the_pages_only_show(local):
    routes = [
        *dask.config.get("distributed.scheduler.http.routes"),
        "distributed.http.scheduler.api",
    ]
    with dask.config.set({"distributed.scheduler.http.routes": routes}), Cluster() as cluster:
        for each in (cluster, local):
            page = each.started.dashboard.removesuffix("/status")
            for path, data in [("/api/v1/retire_workers", b"{}"), ("/proxy/80/127.0.0.1/", None)]:
                with pytest.raises(urllib.error.HTTPError, match="404"):
                    urllib.request.urlopen(page + path, data, timeout=30)
            with urllib.request.urlopen(page + "/info/main/workers.html", timeout=30) as answer:
                assert answer.status == 200


def test_threads_need_no_network_whatever_dask_wants_of_one():
    with dask.config.set({"distributed.comm.require-encryption": True}), Cluster() as cluster:
        assert cluster.started.client.scheduler.address.startswith("inproc://")
        assert gather(cluster, negated, [(1,)]) == [-1]


def test_a_scheduler_of_others_is_reached_by_the_certificates_of_dasks_configuration(tmp_path):
    security = Security.temporary()
    config = {"distributed.comm.tls.ca-file": str(tmp_path / "ca")}
    (tmp_path / "ca").write_text(security.tls_ca_file)
    for what in ("cert", "key"):
        (tmp_path / what).write_text(getattr(security, f"tls_client_{what}"))
        config[f"distributed.comm.tls.client.{what}"] = str(tmp_path / what)
    with (
        LocalCluster(
            n_workers=1, processes=False, security=security, dashboard_address="127.0.0.1:0"
        ) as theirs,
        dask.config.set(config),
        Cluster(ClusterSpec.parse(theirs.scheduler_address)) as cluster,
    ):
        assert theirs.scheduler_address.startswith("tls://")
        assert gather(cluster, negated, [(1,)]) == [-1]


def test_local_takes_as_many_processes_as_cores_and_memory_allow(monkeypatch):
    available = len(os.sched_getaffinity(0))
    assert len(backends._cores(None)) == available
    monkeypatch.setattr(backends, "MEMORY_LIMIT", 2**30)
    assert len(backends._cores(None)) == 1


def test_a_gpu_has_a_process_of_its_own(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-5f")
    found = [env["CUDA_VISIBLE_DEVICES"] for env in backends._gpus()]
    assert found == ["2", "GPU-5f"]


def test_gpus_are_counted_by_the_driver(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    fake = tmp_path / "nvidia-smi"
    fake.write_text("#!/bin/sh\nprintf '0\\n1\\n'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert backends.gpu_names() == ["0", "1"]


@pytest.mark.parametrize("given", ["", "-1", None])
def test_without_a_gpu_the_sentence_says_what_else_there_is(monkeypatch, tmp_path, given):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        pytest.raises(ConfigError, match=r"no NVIDIA GPU is found.*use threads or local"),
        Cluster(ClusterSpec("gpu")),
    ):
        pytest.fail("something was done")


def test_a_machine_whose_jax_sees_no_gpu_is_told_what_to_install(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with Cluster(ClusterSpec("gpu")) as cluster:
        with pytest.raises(ClusterError, match=r"finds no GPU.*pip install '\.\[cuda\]'"):
            cluster.check_sees("s3://bucket")


@pytest.fixture(scope="module")
def scheduler():
    """Return a scheduler that somebody else started, with one worker."""
    with LocalCluster(
        n_workers=1,
        threads_per_worker=2,
        processes=False,
        protocol="tcp://",
        dashboard_address="127.0.0.1:0",
    ) as cluster:
        yield cluster


def test_an_address_is_of_a_scheduler_that_runs_on(scheduler):
    address = scheduler.scheduler_address
    for _ in range(2):
        with Cluster(ClusterSpec.parse(address)) as cluster:
            assert gather(cluster, negated, [(1,), (2,)]) == [-1, -2]
            assert str(cluster.started.about) == f"the workers of {address}"


def test_where_no_scheduler_answers_the_sentence_names_the_address(monkeypatch):
    monkeypatch.setattr(backends, "CONNECT_S", 0.5)
    spec, told = ClusterSpec.parse("tcp://127.0.0.1:9"), []
    sentence = r"answers at tcp://127.0.0.1:9 within 0.5 s"
    with pytest.raises(ClusterError, match=sentence), Cluster(spec):
        pytest.fail("something was done")
    with Cluster(spec, told.append, must_answer=False) as cluster:
        assert re.search(sentence, *told)
        with pytest.raises(ClusterError, match=sentence):
            gather(cluster, negated, [(1,)])


def test_a_scheduler_without_workers_is_waited_for_no_longer_than_said(monkeypatch):
    monkeypatch.setattr(backends, "WORKERS_S", 0.5)
    with (
        LocalCluster(
            n_workers=0, processes=False, protocol="tcp://", dashboard_address="127.0.0.1:0"
        ) as own,
        Cluster(ClusterSpec.parse(own.scheduler_address)) as cluster,
        pytest.raises(ClusterError, match=r"has fewer than 1 workers after 0\.5 s; start workers"),
    ):
        gather(cluster, negated, [(1,)])


MADE = """
from distributed import Client, LocalCluster
ADDRESS = "{address}"
def cluster():
    return LocalCluster(n_workers=1, processes=False, dashboard_address="127.0.0.1:0")
def client():
    return Client(cluster(), set_as_default=False)
def address():
    return ADDRESS
def nothing():
    return None
def failing():
    raise KeyError("partition")
"""


@pytest.fixture
def mine(scheduler, tmp_path, monkeypatch):
    """Put a module with functions of a user on the path."""
    (tmp_path / "mine.py").write_text(MADE.format(address=scheduler.scheduler_address))
    (tmp_path / "malformed.py").write_text("def start(:")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "mine", raising=False)


@pytest.mark.parametrize("name", ["cluster", "client", "address"])
def test_a_function_makes_a_cluster_a_client_or_an_address(mine, name):
    with Cluster(ClusterSpec.parse(f"mine:{name}")) as cluster:
        assert gather(cluster, negated, [(1,)]) == [-1]


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("mine:nothing", "returned None; it must return a cluster"),
        ("mine:absent", "cannot be imported .*check .* that its folder is on PYTHONPATH"),
        ("no_such_module:start", "cannot be imported"),
        ("mine:ADDRESS", "is no function"),
        ("malformed:start", r"cannot be imported \(invalid syntax"),
    ],
)
def test_a_function_that_makes_none_is_told_of(mine, target, sentence):
    with (
        pytest.raises(ConfigError, match=f"^cluster is {target}, .*{sentence}"),
        Cluster(ClusterSpec.parse(target)) as cluster,
    ):
        gather(cluster, negated, [(1,)])


def test_a_function_that_fails_is_told_of(mine):
    with Cluster(ClusterSpec.parse("mine:failing")) as cluster:
        with pytest.raises(ClusterError, match=r"^mine:failing failed: KeyError: 'partition'"):
            gather(cluster, negated, [(1,)])


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("tcp://[::1:8786", "which is no address: invalid address"),
        ("tls://127.0.0.1:8786", "Dask has no certificates to reach it by"),
    ],
)
def test_an_address_that_cannot_be_reached_so_is_told_of_at_once(address, sentence):
    with (
        pytest.raises(ConfigError, match=sentence),
        Cluster(ClusterSpec.parse(address)) as cluster,
    ):
        gather(cluster, negated, [(1,)])


def test_workers_must_see_the_workspace(scheduler, tmp_path):
    with Cluster(ClusterSpec.parse(scheduler.scheduler_address)) as cluster:
        cluster.check_sees(tmp_path)
        with pytest.raises(ClusterError, match=r"has no folder .*/absent; give its machine"):
            cluster.check_sees(tmp_path / "absent")
        with pytest.raises(ConfigError, match="in the memory of this process"):
            cluster.check_sees("memory://work")


def test_a_port_in_use_is_no_trouble():
    with warnings.catch_warnings(), Cluster() as first, Cluster() as second:
        warnings.simplefilter("error")
        assert gather(first, negated, [(1,)]) == gather(second, negated, [(1,)])


@pytest.mark.parametrize("failing", [False, True])
def test_nothing_is_left_over(failing):
    sockets, threads = listening(), set(threading.enumerate())
    levels = {name: logging.getLogger(name).level for name in ("distributed", "distributed.worker")}
    before = children()
    try:
        with Cluster() as cluster:
            gather(cluster, divided, [(0 if failing else 1,)])
    except ZeroDivisionError:
        assert failing
    assert listening() == sockets
    assert not [thread for thread in threading.enumerate() if thread not in threads]
    assert children() <= before
    assert {name: logging.getLogger(name).level for name in levels} == levels
    with pytest.raises(ValueError, match="No global client found"):
        get_client()


def test_a_failure_is_raised_and_not_also_logged():
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    logging.getLogger("distributed").addHandler(handler)
    try:
        with Cluster() as cluster, pytest.raises(ZeroDivisionError):
            gather(cluster, divided, [(0,)])
    finally:
        logging.getLogger("distributed").removeHandler(handler)
    assert [record.getMessage() for record in records] == []


STEPS = []


def counting(value, *, wanted):
    if value == 0:
        time.sleep(0.3)
        raise ArithmeticError("one of them fails")
    deadline = time.monotonic() + 30
    while wanted() and time.monotonic() < deadline:
        STEPS.append(value)
        time.sleep(0.01)
    return value


def test_tasks_that_nobody_wants_any_more_end_by_themselves():
    STEPS.clear()
    with Cluster() as cluster:
        with pytest.raises(ArithmeticError, match="one of them fails"):
            gather(cluster, counting, [(0,), (1,)])
        time.sleep(0.3)
        n_steps = len(STEPS)
        assert n_steps
        time.sleep(0.3)
        assert len(STEPS) == n_steps
        # The workers are free for others.
        assert gather(cluster, negated, [(5,)]) == [-5]


def test_a_cluster_that_cannot_be_is_refused_before_any_work():
    available = len(os.sched_getaffinity(0))
    for text in (f"local:{available + 1}", "no_such_module:start", "tcp://[::1:80"):
        with pytest.raises(ConfigError, match="cluster is "), Cluster(ClusterSpec.parse(text)):
            pytest.fail("something was done")


def test_a_worker_with_another_version_is_refused(scheduler, monkeypatch, tmp_path):
    monkeypatch.setattr("allcnn.cluster.cluster.version", lambda _: "99")
    with (
        Cluster(ClusterSpec.parse(scheduler.scheduler_address)) as cluster,
        pytest.raises(ClusterError, match=r"has allcnn-cka 0\.1\.0, and here is 99; install the"),
    ):
        cluster.check_sees(tmp_path)
