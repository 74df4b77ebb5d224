"""The flows with a real server, a real worker and every deployment, as operators have them."""

import json
import re
import secrets
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import httpx
import numpy as np
import psutil
import pytest

import store
from allcnn.settings.run import RunConfig
from allcnn.settings.selection import Selection
from allcnn.training import loop
from allcnn.workspace.nightly_ledger import Ledger
from allcnn.workspace.paths import Workspace
from flows.runtime.artifacts import key
from flows.settings.shared import FLOWS
from tests.networks import write_network
from tests.prefect_api import Api, clean_environment, free_port, picture_of, running, wait_for

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[1]

SMALL = {"image_size": 12, "width": 0.05, "epochs": 1, "batch_size": 64}
SAMPLES = {"n_samples": 64, "minibatch": 32}


class Clone(NamedTuple):
    """A copy of the repository's flows, deployed to a server of its own, with a worker."""

    folder: Path
    api: Api
    prefect: Callable[..., subprocess.CompletedProcess[str]]
    worker_log: Path

    @property
    def workspace(self) -> Workspace:
        return Workspace.at(self.folder / "workspace")

    def run(self, name: str, **settings: Any) -> dict[str, Any]:
        """Run a deployment to its end, which must be a success; return the run."""
        run = self.api.end(self.api.start(name, settings))
        assert run["state_type"] == "COMPLETED", run["state"]["message"] + self.log()
        return run

    def log(self) -> str:
        return self.worker_log.read_text()


def copied(root: Path) -> Path:
    """Copy what a user's clone has of the flows."""
    folder = root / "a repository"  # whose name has a space, as some have
    for name in ("flows", "allcnn", "store"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, folder / name, ignore=ignored)
    shutil.copy(REPOSITORY / "prefect.yaml", folder)
    return folder


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    """Do what README.md says, in a copy: start a server, make a pool, deploy, start a worker."""
    root = tmp_path_factory.mktemp("clone")
    folder = copied(root)
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    credentials = f"lab:{secrets.token_urlsafe()}"
    environment = clean_environment(root / "home", url) | {
        "PREFECT_SERVER_API_AUTH_STRING": credentials,
        "PREFECT_API_AUTH_STRING": credentials,
    }
    how = {"cwd": folder, "env": environment}

    def prefect(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "prefect", *command],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            **how,
        )

    def healthy() -> bool:
        with suppress(httpx.TransportError):
            return httpx.get(f"{url}/health").is_success
        return False

    serve = ("server", "start", "--host", "127.0.0.1", "--port", str(port))
    work = ("worker", "start", "--pool", "allcnn", "--limit", "1")
    api = Api(url, credentials)
    with api.http, running(*serve, log=root / "server.log", **how):
        wait_for("answer of the server", healthy, 120)
        for command in (
            ("work-pool", "create", "--type", "process", "allcnn"),
            ("deploy", "--all", "--no-prompt"),
        ):
            done = prefect(*command)
            assert done.returncode == 0, done.stdout + done.stderr
        # From another folder: where it is started must not matter.
        elsewhere = {"cwd": root, "env": how["env"]}
        with running(*work, log=root / "worker.log", **elsewhere):
            yield Clone(folder, api, prefect, root / "worker.log")


def properties_of(deployment: dict[str, Any]) -> dict[str, Any]:
    """Return the form of a deployment's settings."""
    schema = deployment["parameter_openapi_schema"]
    name = re.search(r'"#/definitions/(\w+)"', json.dumps(schema["properties"]["settings"]))[1]
    return schema["definitions"][name]["properties"]


def test_everything_is_deployed_with_forms_tags_versions_and_limits(clone: Clone):
    version = re.search(r'^version = "(.*)"', (REPOSITORY / "pyproject.toml").read_text(), re.M)[1]
    assert {each["name"] for each in clone.api.find("deployments")} == set(FLOWS)
    for name in FLOWS:
        found = clone.api.deployment(name)
        assert found["version"] == version
        assert "allcnn" in found["tags"]
        assert found["description"]
        assert found["global_concurrency_limit"]["limit"] == 1
        assert found["concurrency_options"]["collision_strategy"] == "ENQUEUE"
        assert found["enforce_parameter_schema"]
        (step,) = found["pull_steps"]
        folder = step["prefect.deployments.steps.set_working_directory"]["directory"]
        assert folder == str(clone.folder)
        for setting, form in properties_of(found).items():
            assert form["description"], (name, setting)


def test_a_server_with_credentials_answers_to_nobody_else(clone: Clone):
    for path in ("/flow_runs/filter", "/deployments/filter", "/block_documents/filter"):
        answer = httpx.post(f"{clone.api.http.base_url}{path}", json={})
        assert answer.status_code == httpx.codes.UNAUTHORIZED


def test_the_server_creates_runs_of_the_night_in_its_time_zone(clone: Clone):
    deployment = clone.api.deployment("nightly")
    query = {"deployments": {"id": {"any_": [deployment["id"]]}}}
    scheduled: list[dict[str, Any]] = []

    def found() -> bool:
        scheduled[:] = clone.api.find("flow_runs", **query)
        return len(scheduled) >= 3

    wait_for("scheduled runs", found, 120)
    zone = ZoneInfo("Europe/Berlin")
    times = sorted(
        datetime.fromisoformat(run["expected_start_time"]).astimezone(zone) for run in scheduled
    )
    assert {(at.hour, at.minute) for at in times} == {(3, 30)}
    assert len({at.date() for at in times}) == len(times)
    assert times[0] > datetime.now(zone)


def test_a_server_refuses_wrong_settings(clone: Clone):
    n_before = len(clone.api.find("flow_runs"))
    for name, settings, sentence in [
        ("train", {"depth": 0}, "0 is less than the minimum of 1"),
        ("train", {"width": 0}, "0 is less than the minimum of 0.001"),
        ("extract", {"run": "a", "batch_size": 3}, "3 is less than the minimum of 4"),
        ("compare", {"rows": "a", "columns": "b@final"}, "'a' does not match"),
        ("matrix", {"rows": "*@*", "cluster": "rm -rf"}, "'rm -rf' does not match"),
        ("pipeline", {"depth": 1}, "'depth' is not one of ["),
        ("nightly", {"share": 2}, "2 is greater than the maximum of 1"),
        ("probe", {"networks": "a"}, "'a' does not match"),
        ("report", {"workspace": ""}, "'' should be non-empty"),
    ]:
        path = f"/deployments/{clone.api.deployment(name)['id']}/create_flow_run"
        answer = clone.api.http.post(path, json={"parameters": {"settings": settings}})
        assert answer.status_code == httpx.codes.CONFLICT, name
        assert sentence in answer.json()["detail"]
    assert len(clone.api.find("flow_runs")) == n_before


def test_every_deployment_runs_and_a_night_takes_up_a_new_checkpoint(clone: Clone):
    """One after the other on a tiny workspace, as a user would."""
    run = clone.run("train", **SMALL, prefix="real", seed=0)
    assert run["name"] == "train-real-d1-v2-s0"
    run = clone.run("extract", run="real-d1-v2-s0", n_samples=64, batch_size=32)
    assert run["name"] == "extract-real-d1-v2-s0@final"

    pipeline = SMALL | SAMPLES | {"prefix": "real", "depths": [1], "seeds": [0, 1]}
    parameters = json.dumps({"settings": pipeline})
    command = ("deployment", "run", "pipeline/pipeline", "--params", parameters, "--watch")
    done = clone.prefect(*command)
    assert done.returncode == 0, done.stdout + clone.log()
    assert "finished successfully" in done.stdout

    sides = {"rows": "real-d1-v2-s0@final", "columns": "real-d1-v2-s1@final", "batch_size": 32}
    run = clone.run("compare", **sides)
    assert run["name"] == "compare-real-d1-v2-s0@final-real-d1-v2-s1@final"
    clone.api.logs(run["id"], "already computed")  # by the pipeline
    (name,) = (
        name
        for name in store.list_results(clone.workspace.similarity)
        if name.startswith("real-d1-v2-s0_final-real-d1-v2-s1_final")
    )
    picture = (clone.workspace.figures / f"{name}.png").read_bytes()
    assert picture_of(clone.api.artifacts(run["id"], "image")[key(name)]) == picture

    # In processes, which the run starts on the worker's machine.
    run = clone.run("matrix", rows="real-*@*:conv[12]", batch_size=32, cluster="local:2")
    assert run["name"] == "matrix-real-*@*:conv[12]"

    run = clone.run("nightly", **SAMPLES, matrices=["*@*:conv[12]"])
    assert run["name"] == "nightly-workspace"
    first = Ledger.read(clone.workspace)[0].nights[-1]
    # By the pipeline all is stored, and compared by the flow of that pattern.
    assert (first["added"], first["failed"]) == ([], [])

    config = RunConfig.of(**SMALL, prefix="real", seed=2)
    loop.train(config, clone.workspace)
    run = clone.run("nightly", **SAMPLES, matrices=["*@*:conv[12]"])
    assert run["state"]["message"].startswith("2 networks added, 0 stored again, ")
    second = Ledger.read(clone.workspace)[0].nights[-1]
    changes = {each["networks"].split(",")[0]: each for each in second["moved"]}
    assert changes["6 networks"]["change"] == "extended"
    assert changes["6 networks"]["largest"] == 0
    assert "added" in clone.api.artifacts(run["id"], "markdown")["nightly-workspace"]["data"]

    for split, n_samples in (("train", 80), ("test", 64)):
        how = {"split": split, "n_samples": n_samples, "batch_size": 32}
        clone.run("extract", run="real-d1-v2-s0", **how)
    run = clone.run("probe", networks="real-d1-v2-s0@final")
    assert run["name"] == "probe-real-d1-v2-s0@final"
    (probe,) = store.list_probes(clone.workspace.probes)

    run = clone.run("report")
    page = (clone.workspace.root / "report/index.html").read_text()
    assert "real-d1-v2-s2" in page
    assert changes["6 networks"]["result"] in page
    assert probe in page

    assert "distributed" not in clone.log()
    assert "Traceback" not in clone.log()


def test_a_wrong_name_fails_in_one_sentence(clone: Clone):
    run = clone.api.end(clone.api.start("extract", {"run": "nobody"}))
    assert run["state_type"] == "FAILED"
    lines = clone.api.logs(run["id"], "what was finished is kept")
    assert [line for line in lines if line.startswith("run 'extract-nobody@final' of the flow")]
    assert not [line for line in lines if "Traceback" in line]


def big_workspace(folder: Path) -> Workspace:
    """Store activations whose Grams take half a minute on two cores."""
    workspace = Workspace.at(folder)
    values = np.maximum(np.random.default_rng(0).standard_normal((2048, 64, 64)), 0)
    values = values.astype(np.float32)
    for run in "abcd":
        taps = {f"tap{i}": np.roll(values, i, 0) for i in range(4)}
        write_network(workspace.activations, Selection(run, "final"), taps, batch_rows=64)
    return workspace


def kept_grams(workspace: Workspace) -> int:
    """Return how many minibatches are kept of all Grams."""
    if not store.has_store(workspace.grams):
        return 0
    return sum(one.n_committed for one in store.open_grams(workspace.grams).find())


def dask_processes(folder: Path) -> list[psutil.Process]:
    """Return the processes that Dask started below a flow run of a worker in a folder."""
    found = []
    for each in psutil.process_iter():
        with suppress(psutil.Error):
            if "spawn_main" in " ".join(each.cmdline()) and each.cwd() == str(folder):
                found.append(each)
    return found


@pytest.mark.parametrize("cluster", ["threads", "local:2"])
def test_a_cancelled_run_stops_its_work_and_the_next_goes_on(
    clone: Clone, tmp_path: Path, cluster: str
):
    workspace = big_workspace(tmp_path / "big")
    settings = {
        "workspace": str(workspace.root),
        "rows": "*@*",
        "batch_size": 16,
        "cluster": cluster,
    }
    flow_run = clone.api.start("matrix", settings)
    wait_for("Grams", lambda: kept_grams(workspace) > 20, 600)
    answer = clone.api.http.post(
        f"/flow_runs/{flow_run}/set_state", json={"state": {"type": "CANCELLING"}}
    )
    answer.raise_for_status()
    run = clone.api.end(flow_run, 60)
    assert run["state_type"] == "CANCELLED"
    # By the worker, whose hooks are called in another way than those of the run itself.
    lines = clone.api.logs(flow_run, "was cancelled; what was finished is kept")
    assert not [line for line in lines if "error was encountered while running hook" in line]
    wait_for("end of all processes", lambda: not dask_processes(clone.folder), 20)
    n_kept = kept_grams(workspace)
    time.sleep(3)
    assert kept_grams(workspace) == n_kept  # nobody is at work any more
    assert n_kept < 16 * 2048 // 16
    assert not store.has_store(workspace.similarity) or not store.list_results(workspace.similarity)
    ours = [one.meta.key for one in store.open_grams(workspace.grams).find() if one.complete]
    made_at = {name: (workspace.grams / name.path / "grams/c").stat().st_mtime_ns for name in ours}
    run = clone.run("matrix", **settings)
    (name,) = store.list_results(workspace.similarity)
    assert store.read_result(workspace.similarity, name).cka.shape == (16, 16)
    for name, at in made_at.items():  # which was whole, and is not written again
        assert (workspace.grams / name.path / "grams/c").stat().st_mtime_ns == at


def test_with_no_server_a_flow_starts_one_for_itself_once(tmp_path: Path):
    environment = clean_environment(tmp_path / "home", None)
    environment |= {"PYTHONPATH": str(REPOSITORY), "PREFECT_LOGGING_LEVEL": "INFO"}
    settings = SMALL | SAMPLES | {"depths": [1], "seeds": [0, 1], "prefix": "own"}
    command = [sys.executable, "-m", "flows.cli.main", "flow", "pipeline", "--settings"]
    with (tmp_path / "log").open("w+") as log:
        process = subprocess.Popen(
            [*command, json.dumps(settings | {"workspace": str(tmp_path / "here")})],
            cwd=tmp_path,
            env=environment,
            stdout=log,
            stderr=log,
        )
        try:
            servers, secret = intruded(process)
            assert process.wait(600) == 0
        finally:
            process.kill()
            process.wait()
        log.seek(0)
        told = log.read()
    assert len(servers) == 1
    assert secret not in told
    names = store.list_results(tmp_path / "here/similarity.zarr")
    assert len([name for name in told.split() if name in names]) == 3
    with closing(sqlite3.connect(tmp_path / "home/prefect.db")) as records:
        for table in ("log", "events", "artifact"):  # whose senders know the password
            assert records.execute(f"select count(*) from {table}").fetchone()[0] > 0
    assert not [each for each in psutil.process_iter() if is_of(each, tmp_path / "home")]


def intruded(process: "subprocess.Popen[str]") -> tuple[set[int], str]:
    """Ask a flow's own server for its records, as others can; return it, and its secret."""
    servers: set[int] = set()
    secret = answer = None
    while process.poll() is None:
        for each in psutil.Process(process.pid).children():
            with suppress(psutil.Error, IndexError, httpx.TransportError):
                if "uvicorn" not in each.cmdline():
                    continue
                servers.add(each.pid)
                _, _, secret = each.environ()["PREFECT_SERVER_API_AUTH_STRING"].partition(":")
                assert not [word for word in each.cmdline() if secret in word]
                (port,) = {found.laddr.port for found in each.net_connections()}
                url = f"http://127.0.0.1:{port}/api/flow_runs/filter"
                answer = httpx.post(url, json={}, timeout=5).status_code
                assert answer == httpx.codes.UNAUTHORIZED
        time.sleep(0.5)
    assert answer is not None
    return servers, secret or ""


def is_of(process: psutil.Process, home: Path) -> bool:
    """Return whether a process works with a folder of Prefect's."""
    with suppress(psutil.Error):
        return process.environ().get("PREFECT_HOME") == str(home)
    return False
