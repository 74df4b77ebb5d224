"""A Prefect server as its web page asks it, and commands of Prefect in processes of their own."""

import base64
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx


def wait_for(what: str, found: Callable[[], bool], limit_s: float) -> None:
    """Return as soon as ``found`` does; logs arrive in batches, and servers start slowly."""
    deadline = time.monotonic() + limit_s
    while not found():
        assert time.monotonic() < deadline, f"no {what} within {limit_s:g} s"
        time.sleep(0.2)


class _Patient(httpx.HTTPTransport):
    """Asks again while the server's SQLite is busy (503), as Prefect's own client does."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        for _ in range(30):
            answer = super().handle_request(request)
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            answer.close()
            time.sleep(1)
        return answer


class Api:
    """Asks a Prefect server about a flow run, as its web page does."""

    def __init__(self, url: str, credentials: str | None = None) -> None:
        name, _, password = (credentials or "").partition(":")
        auth = httpx.BasicAuth(name, password) if credentials else None
        self.http = httpx.Client(base_url=url, timeout=30, auth=auth, transport=_Patient())

    def find(self, kind: str, **query: Any) -> list[dict[str, Any]]:
        return self.http.post(f"/{kind}/filter", json=query).raise_for_status().json()

    def of_run(self, kind: str, flow_run: str) -> list[dict[str, Any]]:
        return self.find(kind, flow_runs={"id": {"any_": [flow_run]}})

    def flow_run(self, flow_run: str) -> dict[str, Any]:
        return self.http.get(f"/flow_runs/{flow_run}").raise_for_status().json()

    def task_runs(self, flow_run: str) -> dict[str, dict[str, Any]]:
        return {run["name"]: run for run in self.of_run("task_runs", flow_run)}

    def artifacts(self, flow_run: str, kind: str) -> dict[str, dict[str, Any]]:
        found = self.of_run("artifacts", flow_run)
        return {each["key"]: each for each in found if each["type"] == kind}

    def logs(self, flow_run: str, last: str) -> list[str]:
        def messages() -> list[str]:
            query = {"flow_run_id": {"any_": [flow_run]}}
            return [log["message"] for log in self.find("logs", logs=query, sort="TIMESTAMP_ASC")]

        wait_for(f"log {last!r}", lambda: any(last in line for line in messages()), 30)
        return messages()

    def deployment(self, name: str) -> dict[str, Any]:
        return self.http.get(f"/deployments/name/{name}/{name}").raise_for_status().json()

    def start(self, name: str, settings: dict[str, Any]) -> str:
        """Ask for a run of a deployment; return its id."""
        path = f"/deployments/{self.deployment(name)['id']}/create_flow_run"
        answer = self.http.post(path, json={"parameters": {"settings": settings}})
        return answer.raise_for_status().json()["id"]

    def end(self, flow_run: str, limit_s: float = 180) -> dict[str, Any]:
        """Wait for the end of a run, and return it."""
        terminal = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
        wait_for(
            "end of the run", lambda: self.flow_run(flow_run)["state_type"] in terminal, limit_s
        )
        return self.flow_run(flow_run)


def picture_of(artifact: dict[str, Any]) -> bytes:
    """Return the PNG that an image artifact embeds."""
    head, _, data = artifact["data"].partition(",")
    assert head == "data:image/png;base64"
    return base64.b64decode(data)


@contextmanager
def running(*command: str, log: Path, **how: Any) -> Iterator[None]:
    """Run a Prefect command in the background; stop it, and all that it started, at the end."""
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", *command],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **how,
        )
        try:
            yield
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def clean_environment(home: Path, url: str | None) -> dict[str, str]:
    """Return an environment in which a copy is found, not the repository, and nothing leaks."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    kept.pop("PYTHONPATH", None)
    settings = {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "DO_NOT_TRACK": "1",
        "PWD": "/",  # stale, as a program leaves it that starts others in another folder
    }
    return kept | settings | ({} if url is None else {"PREFECT_API_URL": url})
