"""The Prefect server that keeps the records of a flow run: one that runs already, or our own."""

import atexit
import functools
import os
import re
import secrets
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, Final
from urllib.parse import urlsplit

import httpx
import prefect
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_REQUEST_TIMEOUT,
    PREFECT_API_SSL_CERT_FILE,
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_SERVER_API_AUTH_STRING,
    PREFECT_SERVER_EPHEMERAL_ENABLED,
    PREFECT_UI_URL,
    temporary_settings,
)

from allcnn.errors import AllcnnError, ConfigError

ANSWER_S: Final = 10.0
"""How long a server that runs already has to answer."""

START_S: Final = 120.0
"""How long one of our own has to start, which on a busy machine takes half a minute once."""

_EXAMPLE: Final = "http://127.0.0.1:4200/api"
_APP: Final = "prefect.server.api.server:create_app"
_EPHEMERAL: Final = {
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
    "PREFECT_UI_ENABLED": "0",
}
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
_CAUSE: Final = re.compile(r"^[\w.]*(?:Error|Exception|Refused)\w*: .*$", re.MULTILINE)


class ServerError(AllcnnError, ConnectionError):
    """The Prefect server of a flow run cannot be reached, or does not start."""


@contextmanager
def serving() -> Iterator[None]:
    """Let the flows of this block find a server: that of PREFECT_API_URL, else one of their own.

    Raises ConfigError for settings that lead to none, and ServerError where one does not start or,
    also later in the block, does not answer as one of Prefect's.
    """
    _check_certificates()
    url = PREFECT_API_URL.value()
    if not url:
        with temporary_settings(_own_server()):
            yield
        return
    _check_address(url)
    try:
        _check_answers(url)
        yield
    except (httpx.TransportError, PrefectHTTPStatusError) as error:
        raise ServerError(_no_answer(url, error)) from error


def _check_address(url: str) -> None:
    parts = urlsplit(url)
    with suppress(ValueError):  # of its port
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return
    raise ConfigError(f"{_named(url)}, which is no address", remedy=f"use one such as {_EXAMPLE}")


def _check_answers(url: str) -> None:
    """Raise what a flow run would fail at: no answer, wrong credentials, another version."""
    quick = {PREFECT_API_REQUEST_TIMEOUT: ANSWER_S, PREFECT_CLIENT_MAX_RETRIES: 0}
    try:
        with temporary_settings(quick), get_client(sync_client=True) as client:
            client.hello()
            client.raise_for_api_version_mismatch()
    except (RuntimeError, ValueError) as error:
        if "incompatible versions" in str(error):
            reason = f"{_named(url)}, whose server has another version of Prefect ({error})"
            raise ServerError(reason, remedy="install the same one on both sides") from error
        raise ServerError(_no_answer(url, error.__cause__ or error)) from error


def _check_certificates() -> None:
    """Raise ConfigError for what every client would fail at without a name."""
    if file := PREFECT_API_SSL_CERT_FILE.value():
        try:
            ssl.create_default_context(cafile=file)
        except OSError as error:
            raise ConfigError(
                f"PREFECT_API_SSL_CERT_FILE is {file}, which cannot be read as certificates"
                f" ({error.strerror or error})",
                remedy="name another file, or unset it",
            ) from error


def _no_answer(url: str, error: BaseException) -> str:
    """Say why a server is none that a flow run can use, and what to do."""
    if isinstance(error, httpx.TransportError):
        reason = " ".join(str(error).split()) or type(error).__name__
        return f"{_named(url)}, and no Prefect server answers there ({reason}); {_remedy(url)}"
    status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else None
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return (
            f"{_named(url)}, and its server refuses our credentials (status {status}); set"
            " PREFECT_API_AUTH_STRING, or PREFECT_API_KEY for Prefect Cloud, to what it wants"
        )
    reason = f"status {status}" if status else type(error).__name__
    return (
        f"{_named(url)}, and what answers there is no Prefect server ({reason}); its address is one"
        f" such as {_EXAMPLE}"
    )


def _remedy(url: str) -> str:
    parts = urlsplit(url)
    start = f"'prefect server start --host {parts.hostname} --port {parts.port or 80}'"
    if parts.hostname not in _LOOPBACK:
        start = "'prefect server start' on that machine"
    given = "PREFECT_API_URL" in os.environ
    unset = "'unset PREFECT_API_URL'" if given else "'prefect config unset -y PREFECT_API_URL'"
    return f"start it by {start}, or let the flow start one for itself after {unset}"


def _named(url: str) -> str:
    """Name an address without the password that it may hold."""
    # Greedy: one that is not escaped may have "@" and "/" in it.
    return f"PREFECT_API_URL is {re.sub(r'//.*@', '//', url)}"


@functools.cache
def _own_server() -> dict[Any, str]:
    """Start a server that answers to this process alone, until its end; return how to reach it.

    Loopback is open to every account of this machine. The server's password is handed on in the
    environment of its process, which only its owner can read; its port is taken before it starts,
    lest another account passes for the server.
    """
    if not PREFECT_SERVER_EPHEMERAL_ENABLED:
        raise ConfigError(
            "PREFECT_SERVER_EPHEMERAL_ENABLED forbids that a flow starts a server for itself",
            remedy=f"set PREFECT_API_URL to that of a server, such as {_EXAMPLE}",
        )
    password = f"allcnn:{secrets.token_urlsafe(32)}"
    with socket.create_server(("127.0.0.1", 0)) as listening, tempfile.TemporaryFile() as log:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/api"
        with temporary_settings({PREFECT_SERVER_API_AUTH_STRING: password}):
            process = _start(listening.fileno(), log)
        atexit.register(_stop, process)
        _wait_for(process, url, log)
    # It has no pages to look at.
    return {PREFECT_API_URL: url, PREFECT_API_AUTH_STRING: password, PREFECT_UI_URL: ""}


def _start(listening: int, log: IO[bytes]) -> "subprocess.Popen[bytes]":
    """Start Prefect's server without its pages, as Prefect does for a flow by itself."""
    app = ("--app-dir", str(prefect.__module_path__.parent), "--factory", _APP)
    where = ("--fd", str(listening), "--log-level", "error")
    settings = prefect.settings.get_current_settings()
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "uvicorn", *app, *where],
        env=os.environ | _EPHEMERAL | settings.to_environment_variables(exclude_unset=True),
        stdout=log,
        stderr=log,  # hundreds of lines where it does not start
        pass_fds=[listening],
    )


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_for(process: "subprocess.Popen[bytes]", url: str, log: IO[bytes]) -> None:
    """Wait until a server answers; raises ServerError with the reason where it does not."""
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            if httpx.get(f"{url}/health", timeout=1, trust_env=False).is_success:
                return
        time.sleep(0.05)
    log.seek(0)
    found = _CAUSE.findall(log.read().decode(errors="replace"))
    reason = found[-1][:300] if found else f"it is silent for {START_S:g} s"
    raise ServerError(
        f"the Prefect server of this flow does not start ({reason}); look at the variables that"
        " begin with PREFECT_",
        remedy="PREFECT_HOME names the folder of its records",
    )
