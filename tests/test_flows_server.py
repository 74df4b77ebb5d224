"""The Prefect server of a flow run: what is said where none answers, and who else can use ours."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import httpx
import psutil
import pytest
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_SSL_CERT_FILE,
    PREFECT_API_URL,
    PREFECT_SERVER_EPHEMERAL_ENABLED,
    temporary_settings,
)

from allcnn.errors import ConfigError
from flows.runtime import server
from flows.runtime.server import ServerError, serving
from tests.prefect_api import free_port

REPOSITORY = Path(__file__).parents[1]


@contextmanager
def answering(status: int, body: object, version: object = "3.8.8") -> Iterator[str]:
    """Answer everything in one way on loopback, but a question for the version; yield the URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
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


@pytest.mark.parametrize("password", ["secret", "se@secret", "p/secret", "secret?", "a:secret"])
def test_a_password_in_an_address_is_never_shown(password: str):
    told = refused(f"http://user:{password}@127.0.0.1:99999/api")
    assert told.startswith("PREFECT_API_URL is http://127.0.0.1:99999/api, which is no address")


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


@pytest.mark.parametrize(
    ("file", "reason"), [("absent", "No such file or directory"), ("empty", "")]
)
def test_certificates_that_cannot_be_read_are_named(tmp_path, file: str, reason: str):
    (tmp_path / "empty").touch()
    with temporary_settings({PREFECT_API_SSL_CERT_FILE: str(tmp_path / file)}):
        told = refused("https://127.0.0.1:9/api")
    assert told.startswith(f"PREFECT_API_SSL_CERT_FILE is {tmp_path / file}, which cannot be read")
    assert reason in told


APP = """
import os
from fastapi import FastAPI

def create_app():
    app = FastAPI()
    app.get("/api/health")(lambda: True)
    app.get("/api/password")(lambda: os.environ["PREFECT_SERVER_API_AUTH_STRING"])
    return app

def fail():
    raise PermissionError(13, "Permission denied", "/home/other/.prefect")
"""


@pytest.fixture
def alone() -> Iterator[None]:
    """Let no server be known, and none be started before."""
    server._own_server.cache_clear()
    own = {PREFECT_API_URL: None, PREFECT_SERVER_EPHEMERAL_ENABLED: True}
    # What belongs to the server of a profile is not for ours.
    with temporary_settings(own | {PREFECT_API_AUTH_STRING: "of:another"}):
        yield
    server._own_server.cache_clear()


@pytest.fixture
def app(
    alone: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """Put a server that starts in a second, and one that fails, in the place of Prefect's.

    Yields those that would be stopped at the end of this process, and are at that of the test.
    """
    (tmp_path / "known_app.py").write_text(APP)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(server, "_APP", "known_app:create_app")
    started: list[subprocess.Popen[bytes]] = []
    register = SimpleNamespace(register=lambda _, process: started.append(process))
    monkeypatch.setattr(server, "atexit", register)
    yield started
    for process in started:
        server._stop(process)
        assert process.poll() is not None


def test_a_server_of_our_own_that_does_not_start_gives_its_cause(app, monkeypatch, capfd):
    monkeypatch.setattr(server, "_APP", "known_app:fail")
    with pytest.raises(ServerError) as error, serving():
        pytest.fail("something was done")
    assert str(error.value) == (
        "the Prefect server of this flow does not start (PermissionError: [Errno 13] Permission"
        " denied: '/home/other/.prefect'); look at the variables that begin with PREFECT_;"
        " PREFECT_HOME names the folder of its records"
    )
    assert capfd.readouterr().err == ""


def test_a_server_of_our_own_may_be_forbidden(alone):
    forbidden = {PREFECT_API_URL: None, PREFECT_SERVER_EPHEMERAL_ENABLED: False}
    with (
        temporary_settings(forbidden),
        pytest.raises(ConfigError, match=r"forbids that a flow starts a server for itself; set"),
        serving(),
    ):
        pytest.fail("something was done")


def test_a_server_of_our_own_has_a_password_that_is_seen_nowhere(app):
    with serving():
        found, url = PREFECT_API_AUTH_STRING.value(), PREFECT_API_URL.value()
        assert httpx.get(f"{url}/password").json() == found
        name, _, secret = found.partition(":")
        assert name == "allcnn"
        assert len(secret) > 40
        child = psutil.Process(app[0].pid)  # another test's may run beside it
        assert "uvicorn" in child.cmdline()
        assert not [word for word in child.cmdline() if secret in word]
        assert {each.laddr.ip for each in child.net_connections()} == {"127.0.0.1"}
    with serving():
        assert PREFECT_API_URL.value() == url  # one for all flows of a process
    assert len(app) == 1


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("PREFECT_API_URL", "http://[::1/api", "Invalid IPv6 URL"),
        ("PREFECT_API_REQUEST_TIMEOUT", "soon", "request_timeout: Input should be a valid number"),
        ("PREFECT_HOME", "{folder}", "Invalid value (at end of document)"),
    ],
)
def test_settings_that_prefect_refuses_are_reported_in_a_sentence(tmp_path, name, value, told):
    """In a process of its own, as Prefect reads its settings when it is imported."""
    (tmp_path / "profiles.toml").write_text("active = [")
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli.main", "flow", "report"],
        env=os.environ | {name: value.format(folder=tmp_path)},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    *_, last = done.stderr.splitlines()  # before which Prefect may name what it does without
    assert last.startswith(f"Error: Prefect refuses its settings ({told}")
    assert "Traceback" not in done.stderr
