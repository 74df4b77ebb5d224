"""The flows under Prefect: embedded, and with a server, a worker and deployments."""

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest
from prefect import flow
from prefect.exceptions import ParameterTypeError
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings
from prefect.testing.utilities import prefect_test_harness

import store
from allcnn import record
from allcnn import train as training
from allcnn.config import RunConfig
from allcnn.errors import RunError
from allcnn.workspace import Workspace
from flows import artifacts
from flows.compare import compare
from flows.extract import extract
from flows.keys import key
from flows.matrix import matrix
from flows.parameters import (
    CompareParameters,
    ExtractParameters,
    MatrixParameters,
    PipelineParameters,
    TrainParameters,
)
from flows.pipeline import pipeline
from flows.train import train

REPOSITORY = Path(__file__).parents[1]

SAMPLES = {"n_samples": 64, "minibatch": 32}


def wait_for(what: str, found: Callable[[], bool], limit_s: float) -> None:
    """Return as soon as ``found`` does; logs arrive in batches, and servers start slowly."""
    deadline = time.monotonic() + limit_s
    while not found():
        assert time.monotonic() < deadline, f"no {what} within {limit_s:g} s"
        time.sleep(0.2)


class Api:
    """Asks a Prefect server about a flow run, as its web page does."""

    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=30)

    def find(self, kind: str, **query: Any) -> list[dict[str, Any]]:
        return self.http.post(f"/{kind}/filter", json=query).raise_for_status().json()

    def of_run(self, kind: str, flow_run: str) -> list[dict[str, Any]]:
        return self.find(kind, flow_runs={"id": {"any_": [flow_run]}})

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


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """Return the server that Prefect embeds in a process without one."""
    home = tmp_path_factory.mktemp("prefect")
    with temporary_settings({PREFECT_HOME: home}), prefect_test_harness(120):
        api = Api(PREFECT_API_URL.value())
        with api.http:
            yield api


def settings_of(config: RunConfig, workspace: Workspace) -> dict[str, Any]:
    return config.to_json() | {"workspace": str(workspace.root)}


def flow_run_of(state: Any) -> str:
    return str(state.state_details.flow_run_id)


def picture_of(artifact: dict[str, Any]) -> bytes:
    head, _, data = artifact["data"].partition(",")
    assert head == "data:image/png;base64"
    return base64.b64decode(data)


def table_of(result: store.SimilarityResult) -> list[dict[str, Any]]:
    """Return a CKA matrix as its artifact shows it: the last layer on top."""
    table = []
    for i in reversed(range(len(result.rows))):
        row = {"tap": result.rows[i].tap}
        for j, column in enumerate(result.columns):
            row[column.tap] = round(float(result.cka[i, j]), 4)
        table.append(row)
    return table


def check_artifacts(api: Api, flow_run: str, workspace: Workspace, name: str) -> None:
    """Check that a flow run shows a result's picture and its numbers as they are stored."""
    key = name.replace("_", "-").replace(".", "-")
    pictures, tables = api.artifacts(flow_run, "image"), api.artifacts(flow_run, "table")
    assert picture_of(pictures[key]) == (workspace.figures / f"{name}.png").read_bytes()
    result = store.read_result(workspace.similarity, name)
    assert json.loads(tables[f"{key}-numbers"]["data"]) == table_of(result)


def test_train_trains_a_network(api: Api, workspace: Workspace):
    config = replace(record.read_record(workspace, "small-d1-v2-s0").config, seed=3)
    state = train(TrainParameters(**settings_of(config, workspace)), return_state=True)
    assert state.result() == "small-d1-v2-s3"
    assert record.read_record(workspace, "small-d1-v2-s3").config == config
    assert workspace.checkpoints("small-d1-v2-s3") == ["init", "epoch-0001", "final"]
    assert list(api.task_runs(flow_run_of(state))) == ["train-small-d1-v2-s3"]
    api.logs(flow_run_of(state), "training small-d1-v2-s3: 36 of 36, epoch 2 of 2, loss")


def test_extract_stores_every_checkpoint(api: Api, workspace: Workspace):
    settings = ExtractParameters(
        workspace=str(workspace.root),
        run="small-d1-v2-s0",
        checkpoint="all",
        n_samples=64,
        batch_size=32,
    )
    state = extract(settings, return_state=True)
    stored = store.open(workspace.activations)
    names = ["init", "epoch-0001", "final"]
    for name in names:
        taps = list(stored.find(run="small-d1-v2-s0", checkpoint=name))
        assert {tap.key.sample_set for tap in taps} == {state.result()}
        assert len(taps) == 10
        assert all(tap.complete for tap in taps)
    tasks = {f"extract-small-d1-v2-s0@{name}" for name in names}
    assert set(api.task_runs(flow_run_of(state))) == tasks
    api.logs(flow_run_of(state), "extracting: 64 of 64, small-d1-v2-s0@final")


class Piped(NamedTuple):
    """What a run of the pipeline left."""

    workspace: Workspace
    flow_run: str
    results: list[str]


@pytest.fixture(scope="module")
def piped(api: Api, trained: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Piped:
    """Run the pipeline on two runs that are trained already."""
    root = tmp_path_factory.mktemp("piped") / "workspace"
    shutil.copytree(trained.root, root)
    workspace = Workspace.at(root)
    settings = settings_of(record.read_record(workspace, "small-d1-v2-s0").config, workspace)
    del settings["depth"], settings["seed"]
    networks = {"depths": [1, 2], "seeds": [0]}
    state = pipeline(PipelineParameters(**settings, **SAMPLES, **networks), return_state=True)
    return Piped(workspace, flow_run_of(state), state.result())


def test_pipeline_compares_all_networks(api: Api, piped: Piped):
    one, two = "small-d1-v2-s0", "small-d2-v2-s0"
    sides = [(one, one), (one, two), (two, two)]
    for name, (rows, columns) in zip(piped.results, sides, strict=True):
        result = store.read_result(piped.workspace.similarity, name)
        assert {key.run for key in result.rows} == {rows}
        assert {key.run for key in result.columns} == {columns}
        assert result.cka.shape == (17 if rows == two else 10, 17 if columns == two else 10)
        assert result.batch_size == 32
        assert result.n_examples == 64
        check_artifacts(api, piped.flow_run, piped.workspace, name)


def test_pipeline_shows_stages_and_curves(api: Api, piped: Piped):
    pictures = api.artifacts(piped.flow_run, "image")
    stages = [path.stem for path in piped.workspace.figures.glob("stages-*.png")]
    assert len(stages) == 2
    for name in (*stages, "small-curves"):
        picture = (piped.workspace.figures / f"{name}.png").read_bytes()
        assert picture_of(pictures[name.replace("_", "-")]) == picture


def test_tasks_of_the_pipeline_have_readable_names(api: Api, piped: Piped):
    one, two = "small-d1-v2-s0", "small-d2-v2-s0"
    extractions = {
        f"extract-{run}@{name}" for run in (one, two) for name in ("init", "epoch-0001", "final")
    }
    pairs = [(one, one), (one, two), (two, two)]
    assert set(api.task_runs(piped.flow_run)) == extractions | {
        *(f"train-{run}" for run in (one, two)),
        *(f"compare-{rows}@final-{columns}@final" for rows, columns in pairs),
        *(f"stages-{run}" for run in (one, two)),
        "draw-small-curves",
    }


def test_compare_shows_the_matrix_and_logs_only_progress(api: Api, piped: Piped):
    sides = {"rows": "small-d1-v2-s0@init", "columns": "small-d2-v2-s0@final"}
    where = str(piped.workspace.root)
    settings = CompareParameters(workspace=where, **sides, kernel="rbf", batch_size=16)
    state = compare(settings, return_state=True)
    (name,) = state.result()
    assert store.read_result(piped.workspace.similarity, name).kernel == "rbf"
    check_artifacts(api, flow_run_of(state), piped.workspace, name)
    end = "comparing: 1 of 1, small-d1-v2-s0@init with small-d2-v2-s0@final: pairs"
    logs = api.logs(flow_run_of(state), end)
    assert not [line for line in logs if "distributed" in line or "tcp" in line]


def test_matrix_compares_all_that_fit(api: Api, piped: Piped):
    settings = MatrixParameters(
        workspace=str(piped.workspace.root),
        rows="small-*@final:conv[1-3]",
        kernel="rbf",
        sigmas=[0.2, 0.8],
        batch_size=16,
        errors=True,
    )
    state = matrix(settings, return_state=True)
    names = state.result()
    results = [store.read_result(piped.workspace.similarity, name) for name in names]
    assert [result.sigma for result in results] == [0.2, 0.8]
    assert all(result.cka.shape == (6, 6) for result in results)
    pictures = api.artifacts(flow_run_of(state), "image")
    assert len(pictures) == 2
    shown = api.artifacts(flow_run_of(state), "table")[f"{key(names[0])}-numbers"]
    assert json.loads(shown["data"])[-1]["tap"] == "small-d1-v2-s0@final:conv1"


def test_a_matrix_that_is_not_defined_everywhere_says_why(api: Api, piped: Piped):
    result = store.read_result(piped.workspace.similarity, piped.results[0])
    cka = result.cka.copy()
    cka[0, 1] = np.nan
    odd = replace(result, name="odd", cka=cka, reasons=((0, 1, "conv1 is constant"),))

    @flow
    def show() -> None:
        artifacts.show_matrix(odd)

    state = show(return_state=True)
    shown = api.artifacts(flow_run_of(state), "table")["odd-numbers"]
    assert shown["description"].endswith("empty: conv1 is constant")
    assert json.loads(shown["data"])[-1]["conv2"] is None


def test_a_wrong_setting_is_refused_before_any_task(api: Api):
    known = {run["id"] for run in api.find("task_runs")}
    with pytest.raises(ParameterTypeError, match=r"settings.depth.*greater than or equal to 1"):
        train({"depth": 0})
    assert {run["id"] for run in api.find("task_runs")} == known


def test_a_failing_task_says_its_sentence(api: Api, workspace: Workspace):
    with pytest.raises(RunError) as caught:
        workspace.find_run("nobody")
    settings = ExtractParameters(workspace=str(workspace.root), run="nobody")
    state = extract(settings, return_state=True)
    assert state.is_failed()
    assert state.message == f"Flow run encountered an exception: RunError: {caught.value}"
    (task_run,) = api.task_runs(flow_run_of(state)).values()
    sentence = f"Task run encountered an exception RunError: {caught.value}"
    assert task_run["state"]["message"] == sentence


@pytest.mark.parametrize(
    ("error", "n_tries"),
    [
        (RunError("the run exists"), 1),
        (store.DamagedChunkError("the chunk is damaged"), 1),
        (OSError("the disk is full"), 2),
    ],
)
def test_only_what_may_pass_is_tried_again(api: Api, tmp_path: Path, monkeypatch, error, n_tries):
    tries = []

    def fail(*_):
        tries.append(1)
        raise error

    monkeypatch.setattr(training, "train", fail)
    settings = TrainParameters(**settings_of(RunConfig(), Workspace.at(tmp_path)))
    with pytest.raises(type(error), match=str(error)):
        train(settings)
    assert len(tries) == n_tries


class Clone(NamedTuple):
    """A copy of the repository's flows, deployed to a server of its own, with a worker."""

    folder: Path
    api: Api
    prefect: Callable[..., subprocess.CompletedProcess[str]]
    worker_log: Path


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
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def clean_environment(home: Path, url: str) -> dict[str, str]:
    """Return an environment in which the copy is found, not the repository, and nothing leaks."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    kept.pop("PYTHONPATH", None)
    return kept | {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": url,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "DO_NOT_TRACK": "1",
        "PWD": "/",  # stale, as a program leaves it that starts others in another folder
    }


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    """Do what README.md says, in a copy: start a server, make a pool, deploy, start a worker."""
    root = tmp_path_factory.mktemp("clone")
    folder = root / "repository"
    for name in ("flows", "allcnn", "store"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, folder / name, ignore=ignored)
    shutil.copy(REPOSITORY / "prefect.yaml", folder)
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    how = {"cwd": folder, "env": clean_environment(root / "home", url)}

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
    api = Api(url)
    with api.http, running(*serve, log=root / "server.log", **how):
        wait_for("answer of the server", healthy, 120)
        for command in (
            ("work-pool", "create", "--type", "process", "allcnn"),
            ("deploy", "--all", "--no-prompt"),
        ):
            done = prefect(*command)
            assert done.returncode == 0, done.stdout + done.stderr
        with running(*work, log=root / "worker.log", **how):
            yield Clone(folder, api, prefect, root / "worker.log")


RIGHT = {
    "settings": {
        "image_size": 12,
        "width": 0.05,
        "epochs": 1,
        "batch_size": 64,
        "prefix": "real",
        "depths": [1],
        "seeds": [0, 1],
        **SAMPLES,
    }
}


@pytest.mark.slow
def test_a_server_refuses_wrong_settings(clone: Clone):
    for name, settings, sentence in [
        ("train", {"depth": 0}, "0 is less than the minimum of 1"),
        ("train", {"width": 0}, "0 is less than or equal to the minimum of 0"),
        ("extract", {"run": "a", "batch_size": 3}, "3 is less than the minimum of 4"),
        ("compare", {"rows": "a", "columns": "b@final"}, "'a' does not match"),
        ("pipeline", {"depth": 1}, "Additional properties are not allowed"),
    ]:
        found = clone.api.http.get(f"/deployments/name/{name}/{name}").raise_for_status().json()
        parameters = {"parameters": {"settings": settings}}
        path = f"/deployments/{found['id']}/create_flow_run"
        answer = clone.api.http.post(path, json=parameters)
        assert answer.status_code == httpx.codes.CONFLICT
        assert sentence in answer.json()["detail"]
    assert not [run for run in clone.api.find("flow_runs") if run["parameters"] != RIGHT]


@pytest.mark.slow
def test_a_deployment_runs_the_pipeline(clone: Clone):
    parameters = json.dumps(RIGHT)
    command = ("deployment", "run", "pipeline/pipeline", "--params", parameters, "--watch")
    done = clone.prefect(*command)
    log = clone.worker_log.read_text()
    assert done.returncode == 0, done.stdout + log
    assert "finished successfully" in done.stdout
    (flow_run,) = clone.api.find("flow_runs")
    workspace = Workspace.at(clone.folder / "workspace")
    names = store.list_results(workspace.similarity)
    between = [name for name in names if "init" not in name]
    assert len(between) == 3
    for name in between:
        check_artifacts(clone.api, flow_run["id"], workspace, name)
    clone.api.logs(flow_run["id"], "training real-d1-v2-s1: 18 of 18, epoch 1 of 1, loss")
    assert "distributed" not in log
    assert "Traceback" not in log
