"""The Prefect server of a flow run: what is said where none answers, and who else can use ours."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_URL,
    PREFECT_SERVER_API_AUTH_STRING,
    PREFECT_SERVER_EPHEMERAL_ENABLED,
    temporary_settings,
)

from allcnn.errors import ConfigError
from flows import server
from flows.server import ServerError, serving
from tests.prefect_api import free_port


@contextmanager
def answering(status: int, body: object, version: object = "3.8.8") -> Iterator[str]:
    """Answer everything in one way on loopback, but a question for the version; yield the URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802 - its protocol's name
            asked = version if self.path.endswith("/admin/version") else body
            data = asked.encode() if isinstance(asked, str) and status != 200 else json.dumps(asked)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(data if isinstance(data, bytes) else data.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{found.server_port}/api"
        found.shutdown()
        thread.join()


def refused(url: str) -> str:
    """Return what is said of a server before any work."""
    with (
        temporary_settings({PREFECT_API_URL: url}),
        pytest.raises((ServerError, ConfigError)) as error,
        serving(),
    ):
        pytest.fail("something was done")
    return str(error.value)


@pytest.mark.parametrize(
    "url",
    ["no url", "ftp://x/api", "127.0.0.1:4200/api", "http://", "http://h:99999/api", "http://h:0"],
)
def test_what_is_no_address_is_refused_at_once(url: str):
    assert refused(url) == (
        f"PREFECT_API_URL is {url}, which is no address; use one such as http://127.0.0.1:4200/api"
    )


def test_where_no_server_answers_the_sentence_says_how_to_start_one(monkeypatch):
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    monkeypatch.setenv("PREFECT_API_URL", url)
    assert refused(url) == (
        f"PREFECT_API_URL is {url}, and no Prefect server answers there ([Errno 111] Connection"
        f" refused); start it by 'prefect server start --host 127.0.0.1 --port {port}', or let the"
        " flow start one for itself after 'unset PREFECT_API_URL'"
    )
    monkeypatch.delenv("PREFECT_API_URL")  # a profile of Prefect's names it
    assert refused(url).endswith("after 'prefect config unset -y PREFECT_API_URL'")


def test_a_name_that_no_machine_has_is_no_server():
    told = refused("http://user:secret@no-such-machine.invalid/api")
    assert told.startswith("PREFECT_API_URL is http://no-such-machine.invalid/api, and no Prefect")
    assert "start it by 'prefect server start' on that machine, or" in told


def test_a_server_that_is_silent_is_given_up(monkeypatch):
    monkeypatch.setattr(server, "ANSWER_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/api"
        assert "and no Prefect server answers there (" in refused(url)


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_are_named(status: int):
    with answering(status, "Unauthorized") as url:
        told = refused(url)
    assert told == (
        f"PREFECT_API_URL is {url}, and its server refuses our credentials (status {status}); set"
        " PREFECT_API_AUTH_STRING, or PREFECT_API_KEY for Prefect Cloud, to what it wants"
    )


@pytest.mark.parametrize("status", [404, 500])
def test_what_is_no_prefect_server_is_refused(status: int):
    with answering(status, "<html>") as url:
        sentence = f"and what answers there is no Prefect server (status {status}); its address is"
        assert sentence in refused(url)


@pytest.mark.parametrize("version", [{}, "<html>", None])
def test_nonsense_for_a_version_is_no_prefect_server(version: object):
    with answering(200, "hello", version) as url:
        assert "is no Prefect server" in refused(url)


def test_a_server_of_another_version_is_refused():
    with answering(200, "hello", "2.20.1") as url:
        told = refused(url)
    assert "whose server has another version of Prefect (Found incompatible versions: " in told
    assert told.endswith("; install the same one on both sides")


def test_a_server_that_is_lost_on_the_way_is_reported_in_a_sentence():
    with answering(200, "hello") as url, temporary_settings({PREFECT_API_URL: url}):
        with pytest.raises(ServerError, match="no Prefect server answers there"), serving():
            raise httpx.ConnectError("All connection attempts failed")


def test_certificates_that_cannot_be_read_are_named(monkeypatch):
    def missing(**_: object) -> None:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(server, "get_client", missing)
    assert refused("https://127.0.0.1:9/api").endswith("look at PREFECT_API_SSL_CERT_FILE")


def test_a_server_of_our_own_that_does_not_start_gives_its_cause(monkeypatch, capfd):
    def failing(**_: object) -> None:
        server.os.write(2, b"Traceback (most recent call last):\nasyncpg.ServerRefused: no\nOSError: x y\n")
        raise RuntimeError("Timed out while attempting to connect")

    monkeypatch.setattr(server, "get_client", failing)
    own = {PREFECT_API_URL: None, PREFECT_SERVER_EPHEMERAL_ENABLED: True}
    with temporary_settings(own), pytest.raises(ServerError) as error, serving():
        pytest.fail("something was done")
    assert str(error.value) == (
        "the Prefect server of this flow does not start (OSError: x y); look at the variables that"
        " begin with PREFECT_; PREFECT_HOME names the folder of its records"
    )
    assert capfd.readouterr().err == ""


def test_a_server_of_our_own_may_be_forbidden():
    forbidden = {PREFECT_API_URL: None, PREFECT_SERVER_EPHEMERAL_ENABLED: False}
    with (
        temporary_settings(forbidden),
        pytest.raises(ConfigError, match=r"forbids that a flow starts a server for itself; set"),
        serving(),
    ):
        pytest.fail("something was done")


def test_a_server_of_our_own_has_a_password_that_its_clients_know(monkeypatch):
    monkeypatch.setattr(server, "_start", lambda: None)
    own = {
        PREFECT_API_URL: None,
        PREFECT_SERVER_EPHEMERAL_ENABLED: True,
        PREFECT_API_AUTH_STRING: "of:another",  # server, for which it is right
    }
    with temporary_settings(own), serving():
        found = PREFECT_SERVER_API_AUTH_STRING.value()
        assert found == PREFECT_API_AUTH_STRING.value()
        name, _, secret = found.partition(":")
        assert name == "allcnn"
        assert len(secret) > 40
