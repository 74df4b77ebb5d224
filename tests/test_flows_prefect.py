"""The flows under Prefect: embedded, and with a server, a worker and deployments."""

import asyncio
import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep
from types import SimpleNamespace
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
import pytest
from prefect import flow, task
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ParameterTypeError
from prefect.runner._hook_runner import _run_hooks
from prefect.states import Cancelling, Crashed, Failed

import store
from allcnn.errors import ClusterError, ConfigError, RunError
from allcnn.extract import stream
from allcnn.settings.run import RunConfig
from allcnn.settings.selection import Selection
from allcnn.training import loop as training
from allcnn.workspace import run_record as record
from allcnn.workspace.paths import Workspace
from flows.compare import compare, compare_representations
from flows.extract import extract, extract_checkpoint
from flows.maintenance import nightly_run as nights
from flows.matrix import matrix
from flows.nightly import nightly, piece_of_work
from flows.pipeline import compare_stages, pipeline
from flows.probe import probe, probe_networks
from flows.report import make_report, report
from flows.runtime import artifacts, embedded, tasks
from flows.runtime.artifacts import key
from flows.runtime.tasks import may_pass
from flows.settings.parameters import (
    CompareParameters,
    ExtractParameters,
    MatrixParameters,
    NightlyParameters,
    PipelineParameters,
    ReportParameters,
    TrainParameters,
)
from flows.train import train, train_run
from store import ClaimedError
from tests.prefect_api import Api, picture_of

SAMPLES = {"n_samples": 64, "minibatch": 32}


def settings_of(config: RunConfig, workspace: Workspace) -> dict[str, Any]:
    return config.to_json() | {"workspace": str(workspace.root)}


def flow_run_of(state: Any) -> str:
    return str(state.state_details.flow_run_id)


def table_of(result: store.SimilarityResult, *, full_names: bool) -> list[dict[str, Any]]:
    """Return a CKA matrix as its artifact shows it: the last layer on top."""

    def name(key: store.RepresentationKey) -> str:
        return f"{key.run}@{key.checkpoint}:{key.tap}" if full_names else key.tap

    table = []
    for i in reversed(range(len(result.rows))):
        row = {"tap": name(result.rows[i])}
        for j, column in enumerate(result.columns):
            row[name(column)] = round(float(result.cka[i, j]), 4)
        table.append(row)
    return table


def check_artifacts(
    api: Api, flow_run: str, workspace: Workspace, name: str, *, full_names: bool = False
) -> None:
    """Check that a flow run shows a result's picture and its numbers as they are stored."""
    key = name.replace("_", "-").replace(".", "-")
    pictures, tables = api.artifacts(flow_run, "image"), api.artifacts(flow_run, "table")
    assert picture_of(pictures[key]) == (workspace.figures / f"{name}.png").read_bytes()
    result = store.read_result(workspace.similarity, name)
    assert json.loads(tables[f"{key}-numbers"]["data"]) == table_of(result, full_names=full_names)


def test_train_trains_a_network(api: Api, workspace: Workspace):
    config = replace(record.read_record(workspace, "small-d1-v2-s0").config, seed=3)
    state = train(TrainParameters(**settings_of(config, workspace)), return_state=True)
    assert state.result() == "small-d1-v2-s3"
    assert record.read_record(workspace, "small-d1-v2-s3").config == config
    assert workspace.checkpoints("small-d1-v2-s3") == ["init", "epoch-0001", "final"]
    assert list(api.task_runs(flow_run_of(state))) == ["train-small-d1-v2-s3"]
    assert api.flow_run(flow_run_of(state))["name"] == "train-small-d1-v2-s3"
    api.logs(flow_run_of(state), "training small-d1-v2-s3: 36 of 36, epoch 2 of 2, loss")


def test_a_run_that_is_trained_is_not_trained_again(api: Api, workspace: Workspace, monkeypatch):
    monkeypatch.setattr(training, "_train", None)  # nobody calls it
    config = record.read_record(workspace, "small-d1-v2-s0").config
    state = train(TrainParameters(**settings_of(config, workspace)), return_state=True)
    assert state.result() == "small-d1-v2-s0"
    api.logs(flow_run_of(state), "1 of 1, small-d1-v2-s0: already trained")


def test_extract_stores_every_checkpoint_once(api: Api, workspace: Workspace, monkeypatch):
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
    assert api.flow_run(flow_run_of(state))["name"] == "extract-small-d1-v2-s0@all"
    monkeypatch.setattr(stream, "take_minibatch", None)  # nobody calls it
    state = extract(settings, return_state=True)
    api.logs(flow_run_of(state), "64 of 64, small-d1-v2-s0@final: already extracted")


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
    assert store.read_result(piped.workspace.similarity, name).method["kernel"] == "rbf"
    check_artifacts(api, flow_run_of(state), piped.workspace, name)
    end = "comparing: 1 of 1, small-d1-v2-s0@init with small-d2-v2-s0@final: pairs"
    lines = api.logs(flow_run_of(state), end)
    assert not [line for line in lines if "distributed" in line or "tcp" in line]
    assert [line for line in lines if "dashboard http://127.0.0.1:" in line]
    run = api.flow_run(flow_run_of(state))
    assert run["name"] == "compare-small-d1-v2-s0@init-small-d2-v2-s0@final"
    shown = api.artifacts(flow_run_of(state), "markdown")[f"{key(name)}-result"]
    call = f"store.read_result({str(piped.workspace.similarity)!r}, {name!r})"
    assert shown["data"] == f"```\n{call}\n```"
    assert eval(call, {"store": store}).name == name
    # Again: nothing is computed, and no cluster started.
    state = compare(settings, return_state=True)
    assert state.result() == [name]
    lines = api.logs(flow_run_of(state), "already computed")
    assert not [line for line in lines if "dashboard" in line]


def test_matrix_compares_all_that_fit(api: Api, piped: Piped):
    settings = MatrixParameters(
        workspace=str(piped.workspace.root),
        rows="small-*@final:conv[1-3]",
        kernel="rbf",
        sigma=[0.2, 0.8],
        batch_size=16,
        errors=True,
    )
    state = matrix(settings, return_state=True)
    names = state.result()
    results = [store.read_result(piped.workspace.similarity, name) for name in names]
    assert [result.method["sigma"] for result in results] == [0.2, 0.8]
    assert all(result.cka.shape == (6, 6) for result in results)
    pictures = api.artifacts(flow_run_of(state), "image")
    assert len(pictures) == 2
    shown = api.artifacts(flow_run_of(state), "table")[f"{key(names[0])}-numbers"]
    assert json.loads(shown["data"])[-1]["tap"] == "small-d1-v2-s0@final:conv1"


def test_a_matrix_that_is_not_defined_everywhere_says_why(api: Api, piped: Piped):
    result = store.read_result(piped.workspace.similarity, piped.results[0])
    cka = result.cka.copy()
    cka[0, 1] = np.nan
    odd = replace(result, name="odd", values=cka, reasons=((0, 1, "conv1 is constant"),))

    @flow
    def show() -> None:
        artifacts.show_result(piped.workspace, odd)

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


def test_a_failed_run_is_named_with_its_cause_and_without_a_traceback(
    api: Api, workspace: Workspace, caplog
):
    with caplog.at_level(logging.ERROR):
        settings = ExtractParameters(workspace=str(workspace.root), run="nobody")
        state = extract(settings, return_state=True)
    name = api.flow_run(flow_run_of(state))["name"]
    assert name == "extract-nobody@final"
    lines = api.logs(flow_run_of(state), "what was finished is kept")
    sentence = f"run {name!r} of the flow 'extract' failed: {state.message}; "
    assert [line for line in lines if line.startswith(sentence)]
    ours = [each for each in caplog.records if each.name in ("prefect.flow_runs", TASKS)]
    assert ours
    assert not [each for each in ours if each.exc_info or "Traceback" in each.getMessage()]


TASKS = "prefect.task_runs"


FLOWS = (train, extract, compare, matrix, probe, pipeline, report, nightly)
ENDS = {"on_failure": Failed, "on_cancellation": Cancelling, "on_crashed": Crashed}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("each", FLOWS, ids=lambda each: each.name)
def test_hooks_can_be_called_as_prefect_does_in_its_engine_and_in_its_worker(each, end, caplog):
    hooks, state = getattr(each, f"{end}_hooks"), ENDS[end](message="a reason")
    assert hooks
    run = FlowRun(flow_id=uuid4(), name="a-run", state=state)
    with caplog.at_level(logging.INFO):
        for hook in hooks:
            hook(each, run, state)
            asyncio.run(_run_hooks([hook], run, each, state))
    assert not [record for record in caplog.records if record.exc_info]
    ends = [record.getMessage() for record in caplog.records if "is kept" in record.getMessage()]
    how = {"on_failure": "failed: a reason", "on_cancellation": "was cancelled"}
    sentence = f"run 'a-run' of the flow {each.name!r} {how.get(end, 'crashed')}; what was finished"
    assert [line.startswith(sentence) for line in ends] == [True] * 2 * len(hooks)


def test_errors_that_nobody_foresaw_keep_their_traceback(caplog):
    tasks.without_tracebacks()
    tasks.without_tracebacks()
    logger = logging.getLogger(TASKS)
    assert logger.filters.count(tasks._drop_known_traceback) == 1
    for error, is_kept in ((RunError("no run"), False), (OSError("disk"), True)):
        found = logging.LogRecord("a", 1, "b", 2, "c", (), (type(error), error, None))
        assert logger.filter(found)
        assert bool(found.exc_info) == is_kept


def test_long_work_shows_its_progress(api: Api, monkeypatch):
    monkeypatch.setattr(tasks, "_EVERY_S", 0.0)

    @task
    def long() -> None:
        report = tasks.logged("a long piece: of work")
        for done in range(1, 5):
            report(done, 4, f"part {done}")

    @flow
    def work() -> None:
        long()

    state = work(return_state=True)
    (shown,) = api.artifacts(flow_run_of(state), "progress").values()
    assert shown["key"] == "progress-a-long-piece-of-work"
    assert shown["data"] == 100.0
    assert shown["description"] == "a long piece: of work: part 4"


@pytest.mark.parametrize(
    ("error", "n_tries"),
    [
        (RunError("the run exists"), 1),
        (ClusterError("the scheduler is gone"), 2),
        (ClaimedError("somebody writes it"), 2),
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
    monkeypatch.setattr(train_run, "retry_delay_seconds", 0)
    settings = TrainParameters(**settings_of(RunConfig.of(), Workspace.at(tmp_path)))
    with pytest.raises(type(error), match=str(error)):
        train(settings)
    assert len(tries) == n_tries


def night_settings(workspace: Workspace, **more: Any) -> NightlyParameters:
    where = {"workspace": str(workspace.root), "matrices": ["*@*:conv[12]"]}
    return NightlyParameters(**where | SAMPLES | more)


def test_a_night_shows_what_it_did_and_its_matrices(api: Api, workspace: Workspace):
    state = nightly(night_settings(workspace), return_state=True)
    assert state.is_completed()
    assert state.message.startswith("6 networks added, 0 stored again, 0 as they were, 1 matrix")
    run = flow_run_of(state)
    assert api.flow_run(run)["name"] == "nightly-workspace"
    (name,) = store.list_results(workspace.similarity)
    check_artifacts(api, run, workspace, name, full_names=True)
    shown = api.artifacts(run, "markdown")
    assert set(shown) == {"nightly-workspace", "report-workspace", f"{key(name)}-result"}
    summary = shown["nightly-workspace"]
    assert "- small-d2-v2-s0@final on digits-test-64-" in summary["data"]
    stored = {f"store-{run}@{each}" for run in RUNS for each in ("init", "epoch-0001", "final")}
    others = {"survey", "list", "compare-*@*:conv[12]-*@*:conv[12]", "verify", "draw"}
    assert set(api.task_runs(run)) == stored | others
    state = nightly(night_settings(workspace), return_state=True)
    assert state.message.startswith("0 networks added, 0 stored again, 6 as they were, 0 matrices")
    assert api.artifacts(flow_run_of(state), "image") == {}


RUNS = ("small-d1-v2-s0", "small-d2-v2-s0")


@pytest.mark.slow
def test_a_night_beside_another_one_steps_aside_or_waits(
    api: Api, workspace: Workspace, monkeypatch
):
    settings = night_settings(workspace)
    with nights.holding(workspace, settings.job()):
        state = nightly(settings, return_state=True)
    assert (state.type.value, state.name) == ("COMPLETED", "SteppedAside")
    assert state.message.startswith("another nightly run is at work: ")
    assert not workspace.grams.exists()
    holding = nights.holding(workspace, settings.job())
    holding.__enter__()

    def end(seconds: float) -> None:
        assert seconds == 10
        holding.__exit__(None, None, None)

    monkeypatch.setattr(nights, "time", SimpleNamespace(sleep=end))
    state = nightly(night_settings(workspace, busy="wait"), return_state=True)
    assert state.message.startswith("6 networks added")
    api.logs(flow_run_of(state), "waiting for another nightly run: ")


@pytest.mark.slow
def test_a_night_of_which_a_piece_fails_fails_and_does_the_rest(
    api: Api, workspace: Workspace, monkeypatch
):
    keep = nights.keep

    def failing(workspace: Workspace, source: Any, *others: Any) -> None:
        if source.checkpoint == "init" and source.run == RUNS[0]:
            raise OSError("the disk is full")
        keep(workspace, source, *others)

    monkeypatch.setattr(nights, "keep", failing)
    monkeypatch.setattr(piece_of_work, "retry_delay_seconds", 0)
    state = nightly(night_settings(workspace), return_state=True)
    assert state.is_failed()
    sentence = f"1 piece of the nightly run failed: store-{RUNS[0]}@init: OSError: the disk is full"
    assert state.message == sentence
    summary = api.artifacts(flow_run_of(state), "markdown")["nightly-workspace"]
    assert "### Failed, and tried again the next time" in summary["data"]
    (name,) = store.list_results(workspace.similarity)
    assert len(store.read_result(workspace.similarity, name).rows) == 2 * 5


def test_the_place_of_a_report_is_shown(api: Api, piped: Piped):
    settings = ReportParameters(workspace=str(piped.workspace.root))
    state = report(settings, return_state=True)
    page = piped.workspace.root / "report/index.html"
    assert state.result() == str(page)
    (shown,) = api.artifacts(flow_run_of(state), "markdown").values()
    assert shown["data"] == f"```\n{page}\n```"
    text = page.read_text()
    for name in store.list_results(piped.workspace.similarity):
        assert f'<tr id="result-{name}">' in text


def test_flows_run_by_name_and_say_what_is_wrong(api: Api, piped: Piped):
    where = {"workspace": str(piped.workspace.root)}
    sides = {"rows": f"{RUNS[0]}@final", "columns": f"{RUNS[1]}@final"}
    found = embedded.run("compare", where | sides | {"batch_size": 32})
    assert found == [piped.results[1]]
    with pytest.raises(ConfigError, match=r"^batch_size: Input should be greater than or equal"):
        embedded.run("compare", where | sides | {"batch_size": 3})
    with pytest.raises(ConfigError, match=r"^cluster is 'local:x'; use threads, local|^cluster: "):
        embedded.run("compare", where | sides | {"cluster": "local:x"})
    with pytest.raises(RunError, match="no run 'nobody'"):
        embedded.run("extract", where | {"run": "nobody"})


def test_every_flow_can_be_run_by_its_name():
    assert set(embedded.PARAMETERS) == {"train", "extract", "compare", "matrix"} | {
        *("probe", "pipeline", "report", "nightly")
    }


@pytest.mark.parametrize(
    "work",
    [
        train_run,
        extract_checkpoint,
        compare_representations,
        probe_networks,
        compare_stages,
        piece_of_work,
        make_report,
    ],
    ids=lambda each: each.name,
)
def test_every_task_ends_at_some_time_and_is_tried_again(work):
    assert work.timeout_seconds >= 3600
    assert (work.retries, work.retry_condition_fn) == (1, may_pass)
    assert work.retry_delay_seconds == 30


def test_a_task_that_takes_too_long_is_ended(api: Api):
    @flow
    def slow() -> None:
        piece_of_work.with_options(timeout_seconds=0.5, retries=0)("slow", lambda _: sleep(20))

    began = monotonic()
    state = slow(return_state=True)
    assert state.is_failed()
    assert monotonic() - began < 15
    (run,) = api.task_runs(flow_run_of(state)).values()
    assert run["state"]["name"] == "TimedOut"


def test_settings_say_where_tasks_run():
    for model, more in (
        (MatrixParameters, {"rows": "*@*"}),
        (PipelineParameters, {}),
        (NightlyParameters, {}),
    ):
        assert str(model(cluster="local:2", **more).spec()) == "local:2"
        with pytest.raises(ValueError, match="cluster"):
            model(cluster="nowhere", **more)
    assert NightlyParameters().job().networks == Selection("*", "*")
