"""Dask's threads: reachable from this machine alone, and gone afterwards."""

import logging
import os
import threading
import warnings

import psutil
import pytest
from distributed import get_client

from allcnn import cluster

LOOPBACK = ("127.0.0.1", "::1")


def listening():
    connections = psutil.Process().net_connections(kind="all")
    return {c.laddr for c in connections if c.status == psutil.CONN_LISTEN}


def test_servers_listen_on_loopback_alone():
    before = listening()
    with cluster.connect() as client:
        opened = listening() - before
        assert client.submit(abs, -1).result() == 1
        services = client.scheduler_info()["services"]
    assert services["dashboard"] in {address.port for address in opened}
    assert {address.ip for address in opened} <= set(LOOPBACK)


def test_tasks_run_in_two_threads_of_this_process():
    with cluster.connect() as client:
        assert client.submit(os.getpid).result() == os.getpid()
        assert list(client.nthreads().values()) == [2]


def test_a_port_in_use_is_no_trouble():
    with warnings.catch_warnings(), cluster.connect() as first, cluster.connect() as second:
        warnings.simplefilter("error")
        assert first.submit(abs, -1).result() == second.submit(abs, -1).result()


@pytest.mark.parametrize("failing", [False, True])
def test_nothing_is_left_over(failing):
    sockets, threads = listening(), set(threading.enumerate())
    levels = {name: logging.getLogger(name).level for name in ("distributed", "distributed.worker")}
    children = set(psutil.Process().children(recursive=True))
    try:
        with cluster.connect() as client:
            if failing:
                client.submit(divmod, 1, 0).result()
    except ZeroDivisionError:
        assert failing
    assert listening() == sockets
    assert not [thread for thread in threading.enumerate() if thread not in threads]
    assert set(psutil.Process().children(recursive=True)) <= children
    assert {name: logging.getLogger(name).level for name in levels} == levels
    with pytest.raises(ValueError, match="No global client found"):
        get_client()


def test_a_failure_is_raised_and_not_also_logged():
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    logging.getLogger("distributed").addHandler(handler)
    try:
        with cluster.connect() as client, pytest.raises(ZeroDivisionError):
            client.submit(divmod, 1, 0).result()
    finally:
        logging.getLogger("distributed").removeHandler(handler)
    assert [record.getMessage() for record in records] == []
