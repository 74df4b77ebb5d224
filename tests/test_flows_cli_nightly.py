"""``allcnn nightly``, ``report`` and ``flow``: what they print, and what wrong input gets."""

import json
import shutil

import pytest

import store
from allcnn import compare as comparing
from allcnn import extract
from allcnn.settings.extraction import Extraction
from allcnn.settings.selection import Selection
from allcnn.workspace.paths import Workspace
from flows.cli.main import main
from flows.maintenance import nightly_run as nights
from flows.runtime import embedded  # noqa: F401  # before a runner replaces its streams
from flows.settings.nightly_plan import Nightly
from tests.commands import CliRunner, run, succeed
from tests.networks import A, comparison, make_taps, write_network

ONE = "small-d1-v2-s0"
FEW = ("--samples", 64, "--minibatch", 32, "--matrices", "*@final:conv[12]")


def test_a_night_prints_what_it_did_and_where_the_report_is(workspace):
    out = succeed("nightly", *FEW, workspace=workspace)
    head, *_, last = out.splitlines()
    assert head.startswith("6 networks added, 0 stored again, 0 as they were, 1 matrix changed, ")
    assert "Added:\n  small-d1-v2-s0@init on digits-test-64-" in out
    assert last == f"report   {workspace.root / 'report/index.html'}"
    out = succeed("nightly", *FEW, "--json", workspace=workspace)
    document = json.loads(out)
    assert (document["added"], document["n_unchanged"], document["failed"]) == ([], 1, [])


def test_a_night_can_keep_several_matrices_and_another_kernel(workspace):
    more = ("--matrices", "*@init:conv1", "--kernel", "rbf", "--sigma", "0.2,0.8")
    succeed("nightly", *FEW, *more, workspace=workspace)
    names = store.list_results(workspace.similarity)
    results = [store.read_result(workspace.similarity, name) for name in names]
    found = sorted((len(result.rows), result.method.get("sigma")) for result in results)
    assert found == [(2, 0.2), (2, 0.8), (4, 0.2), (4, 0.8)]


def test_what_failed_is_told_with_the_status(workspace, monkeypatch):
    def failing(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(nights, "keep", failing)
    result = run("nightly", *FEW, workspace=workspace)
    assert result.exit_code == 1
    assert f"store-{ONE}@init: OSError: the disk is full" in result.stdout


def test_a_second_night_steps_aside_in_one_sentence(workspace):
    with nights.holding(workspace, Nightly()):
        result = run("nightly", *FEW, workspace=workspace)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {workspace.root / 'nightly'} is being written by ")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--share", "0"), "share is 0.0; use a number from 1e-09 to 1"),
        (("--share", "nan"), "share is nan; use a number from 1e-09 to 1"),
        (("--networks", "a"), "'a' names no network"),
        (("--networks", "a@b:c"), "all taps are stored together"),
        (("--matrices", "a"), "'a' names no network"),
        (("--minibatch", "3"), "batch-size is 3; use 4 or more"),
        (("--keep", "all"), "keep is 'all'; use activations or grams"),
        (("--estimator", "exact"), "exact HSIC needs activations"),
        (("--cluster", "nowhere"), "cluster is 'nowhere'; use threads, local, local:WORKERS, gpu"),
    ],
)
def test_wrong_settings_of_a_night_get_one_sentence(workspace, options, sentence):
    result = run("nightly", *options, workspace=workspace)
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (workspace.root / "nightly").exists()


def test_a_night_compares_what_was_imported(tmp_path):
    place = Workspace.at(tmp_path)
    for run_name, split, n in (("a", "test", 66), ("b", "test", 66), ("b", "train", 80)):
        examples = store.Examples.of("d", split, n)
        how = {"run": run_name, "checkpoint": "final", "examples": examples, "batch_rows": 32}
        store.write_network(place.activations, make_taps(n=n), **how)
    out = succeed("nightly", "--minibatch", 32, "--matrices", "*@*", workspace=place)
    assert "1 matrix changed" in out
    (name,) = store.list_results(place.similarity)
    assert {key.run for key in store.read_result(place.similarity, name).rows} == {"a", "b"}
    out = succeed("nightly", "--minibatch", 32, "--networks", "x@*", workspace=place)
    assert "no network that fits x@* is stored, so no matrix is computed; `allcnn store ls" in out


@pytest.mark.parametrize("command", ["nightly", "report"])
def test_a_workspace_with_nothing_in_it_is_refused_and_not_made(tmp_path, command):
    result = run(command, workspace=Workspace.at(tmp_path / "mistyped"))
    assert result.exit_code == 1
    assert f"{tmp_path / 'mistyped'} holds no runs and no stores; train" in result.stderr
    assert not (tmp_path / "mistyped").exists()


def test_a_workspace_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    command = ["nightly", "--workspace", str(tmp_path / "file")]
    result = CliRunner().invoke(main, command, prog_name="allcnn")
    assert result.exit_code == 1
    assert "is a file; name a folder with --workspace" in result.stderr


def test_a_report_is_written_alone(workspace):
    extract.extract(workspace, Extraction(ONE, "final", n_samples=64, batch_size=32))
    (result,) = comparing.compare(
        workspace, comparison(Selection(ONE, "final"), Selection(ONE, "final"), batch_size=32)
    )
    page = workspace.root / "report/index.html"
    assert succeed("report", workspace=workspace) == f"{page}\n"
    assert (page.parent / "data" / f"{result.name}.js").is_file()
    text = page.read_text()
    assert f"allcnn compare {ONE}@final {ONE}@final" in text
    # A result that is damaged is named, and hides no other.
    shutil.copytree(workspace.similarity / result.name, workspace.similarity / "copy")
    succeed("report", workspace=workspace)
    assert f"holds result {result.name}; rename the folder" in page.read_text()


def test_a_workspace_without_results_has_a_report(workspace):
    succeed("report", workspace=workspace)
    text = (workspace.root / "report/index.html").read_text()
    assert "Nothing is compared yet." in text
    shutil.rmtree(workspace.root / "runs")
    write_network(workspace.activations, A, make_taps())
    succeed("report", workspace=workspace)
    assert "There are no runs yet." in (workspace.root / "report/index.html").read_text()


def test_a_report_keeps_no_numbers_of_results_that_went(workspace):
    succeed("nightly", *FEW, workspace=workspace)
    (name,) = store.list_results(workspace.similarity)
    numbers = workspace.root / "report/data" / f"{name}.js"
    assert numbers.is_file()
    shutil.rmtree(workspace.similarity / name)
    succeed("report", workspace=workspace)
    assert not numbers.exists()


def test_the_report_escapes_what_comes_from_elsewhere(workspace):
    path = workspace.run_folder(ONE) / "config.json"
    path.write_text(path.read_text().replace('"digits"', '"digits<script>"'))
    root = workspace.root.rename(workspace.root.parent / "<b>bold")
    succeed("report", workspace=Workspace.at(root))
    text = (root / "report/index.html").read_text()
    assert "&lt;b&gt;bold" in text
    assert "<b>bold" not in text
    assert "digits<script>" not in text


def flow(*words):
    return CliRunner().invoke(main, ["flow", *words], prog_name="allcnn")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("train", "--settings", "{"), "settings is no JSON"),
        (("train", "--settings", "[1]"), "settings is [1]; write an object"),
        (
            ("train", "--settings", '{"depth": 0}'),
            "depth: Input should be greater than or equal to",
        ),
        (("train", "--settings", '{"deep": 1}'), "'deep' is no setting of this flow; use "),
        (("compare",), "rows: Field required"),
        (
            ("pipeline", "--settings", '{"architecture": "tiny", "depths": [2]}'),
            "depth has no effect: architecture is tiny, which has no depth",
        ),
        (
            ("matrix", "--settings", '{"rows": "*@*", "cluster": "gpu:1"}'),
            "cluster: it is no such thing as wanted, which is where tasks run: threads, local",
        ),
    ],
)
def test_wrong_settings_of_a_flow_get_one_sentence(words, sentence):
    result = flow(*words)
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_flows_have_the_names_of_their_modules():
    assert "Invalid value for" in flow("nobody").stderr
