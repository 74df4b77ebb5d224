"""The Prefect server that keeps the records of a flow run: one that runs already, or our own."""

import functools
import os
import re
import secrets
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Final
from urllib.parse import urlsplit

import httpx
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_REQUEST_TIMEOUT,
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_SERVER_API_AUTH_STRING,
    PREFECT_SERVER_EPHEMERAL_ENABLED,
    temporary_settings,
)

from allcnn.errors import AllcnnError, ConfigError

ANSWER_S: Final = 10.0
"""How long a server that runs already has to answer."""

_EXAMPLE: Final = "http://127.0.0.1:4200/api"
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
_CAUSE: Final = re.compile(r"^[\w.]*(?:Error|Exception|Refused)\w*(?::.*)?$", re.MULTILINE)


class ServerError(AllcnnError, ConnectionError):
    """The Prefect server of a flow run cannot be reached, or does not start."""


@contextmanager
def serving() -> Iterator[None]:
    """Let the flows of this block find a server: that of PREFECT_API_URL, else one of their own.

    Raises ConfigError for a PREFECT_API_URL that is no address, and ServerError where its server
    does not answer as one of Prefect's, also later in the block.
    """
    url = PREFECT_API_URL.value()
    if not url:
        with _own_server():
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
    try:
        is_address = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # of its port
        is_address = False
    if not is_address:
        raise ConfigError(f"{_named(url)}, which is no address; use one such as {_EXAMPLE}")


def _check_answers(url: str) -> None:
    """Raise what a flow run would fail at: no answer, wrong credentials, another version."""
    quick = {PREFECT_API_REQUEST_TIMEOUT: ANSWER_S, PREFECT_CLIENT_MAX_RETRIES: 0}
    try:
        with temporary_settings(quick), get_client(sync_client=True) as client:
            client.hello()
            client.raise_for_api_version_mismatch()
    except (RuntimeError, ValueError) as error:
        if "incompatible versions" in str(error):
            told = f"{_named(url)}, whose server has another version of Prefect ({error})"
            raise ServerError(f"{told}; install the same one on both sides") from error
        raise ServerError(_no_answer(url, error.__cause__ or error)) from error
    except OSError as error:  # of the file that holds the certificates
        raise ConfigError(
            f"the certificates to reach {_shown(url)} cannot be read ({error}); look at"
            " PREFECT_API_SSL_CERT_FILE"
        ) from error


def _no_answer(url: str, error: BaseException) -> str:
    """Say why a server is none that a flow run can use, and what to do."""
    if isinstance(error, httpx.TransportError):
        told = " ".join(str(error).split()) or type(error).__name__
        return f"{_named(url)}, and no Prefect server answers there ({told}); {_remedy(url)}"
    status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else None
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return (
            f"{_named(url)}, and its server refuses our credentials (status {status}); set"
            " PREFECT_API_AUTH_STRING, or PREFECT_API_KEY for Prefect Cloud, to what it wants"
        )
    told = f"status {status}" if status else type(error).__name__
    return (
        f"{_named(url)}, and what answers there is no Prefect server ({told}); its address is one"
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
    return f"PREFECT_API_URL is {_shown(url)}"


def _shown(url: str) -> str:
    """Return an address without the password that it may hold."""
    return re.sub(r"//[^/@]*@", "//", url)


@contextmanager
def _own_server() -> Iterator[None]:
    """Start a server for this process, which answers to nobody else on this machine.

    Loopback is open to every account; its password is made for this run, and handed on in the
    environment of the server's process, which only its owner can read.
    """
    if not PREFECT_SERVER_EPHEMERAL_ENABLED:
        raise ConfigError(
            "PREFECT_SERVER_EPHEMERAL_ENABLED forbids that a flow starts a server for itself; set"
            f" PREFECT_API_URL to that of a server, such as {_EXAMPLE}"
        )
    own = {PREFECT_SERVER_API_AUTH_STRING: _password(), PREFECT_API_AUTH_STRING: _password()}
    with temporary_settings(own):
        _start()
        yield


@functools.cache
def _password() -> str:
    """Return the same one as long as this process lives, and with it the server."""
    return f"allcnn:{secrets.token_urlsafe(32)}"


def _start() -> None:
    with tempfile.TemporaryFile() as log:
        try:
            with _errors_into(log):
                get_client(sync_client=True)
        except RuntimeError as error:
            log.seek(0)
            found = _CAUSE.findall(log.read().decode(errors="replace"))
            told = " ".join((found[-1] if found else str(error)).split())[:300]
            raise ServerError(
                f"the Prefect server of this flow does not start ({told}); look at the variables"
                " that begin with PREFECT_; PREFECT_HOME names the folder of its records"
            ) from error


@contextmanager
def _errors_into(log: IO[bytes]) -> Iterator[None]:
    """Let processes that are started in this block write their standard error to a file.

    A server that does not start writes hundreds of lines there.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        os.dup2(log.fileno(), 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
