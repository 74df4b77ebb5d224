"""moto's S3 server on loopback: a process of its own would be as real, and slower to start."""

import logging
import os
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from unittest import mock

import fsspec
import s3fs
import zarr.core.sync
from moto.server import ThreadedMotoServer

BUCKET = "bucket"

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    # Else the user's own settings, or a cloud's, might be found.
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextmanager
def serving() -> Iterator[str]:
    """Serve S3 with one empty bucket; the environment leads to it. Yields its URL."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        url = "http://{}:{}".format(*server.get_host_and_port())
        with leading_to(url):
            # moto's buckets are those of the process, whichever server serves them.
            with suppress(FileExistsError):
                fsspec.filesystem("s3").mkdir(BUCKET)
            yield url
    finally:
        server.stop()


@contextmanager
def leading_to(url: str, **changes: str | None) -> Iterator[None]:
    """Let the environment lead to a server, and no client remember another one."""
    settings = {"AWS_ENDPOINT_URL": url} | CREDENTIALS | changes
    with mock.patch.dict(os.environ):
        for name, value in settings.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        _forget_clients()
        try:
            yield
        finally:
            _forget_clients()


def _forget_clients() -> None:
    """Close the clients, which live as long as their process otherwise."""
    for fs in list(s3fs.S3FileSystem._cache.values()):
        if fs._s3 is not None and fs.asynchronous:
            zarr.core.sync.sync(fs._s3.__aexit__(None, None, None))
        elif fs._s3 is not None:
            fsspec.asyn.sync(fs.loop, fs._s3.__aexit__, None, None, None)
    s3fs.S3FileSystem.clear_instance_cache()


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Count the requests to S3, by their names."""
    found: Counter[str] = Counter()
    original = s3fs.S3FileSystem._call_s3

    async def call(self, method, *args, **kwargs):
        found[method] += 1
        return await original(self, method, *args, **kwargs)

    with mock.patch.object(s3fs.S3FileSystem, "_call_s3", call):
        yield found


@contextmanager
def silent_server() -> Iterator[str]:
    """Accept connections and never answer; yields the URL."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        accepted = []

        def accept():
            while True:
                try:
                    accepted.append(server.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield "http://{}:{}".format(*server.getsockname())
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in accepted:
            connection.close()
