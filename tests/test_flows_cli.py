"""The command line: what it prints, what it writes, and one sentence for whatever goes wrong."""

import errno
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
import zarr
from click.testing import CliRunner

import store
from allcnn.networks.architectures import Tiny10
from allcnn.workspace import run_record
from allcnn.workspace.paths import Workspace
from allcnn.workspace.run_record import read_record
from flows.cli.main import main
from flows.settings import pipeline_plan
from tests.commands import contents, run, succeed
from tests.sweeps import slow

SMALL = ["--image-size", "12", "--width", "0.05", "--epochs", "2", "--checkpoint-every", "1"]
SMALL += ["--batch-size", "64"]
SAMPLES = ["--samples", "64", "--batch-size", "32"]
D1, D2 = "small-d1-v2-s0", "small-d2-v2-s0"


@pytest.fixture(scope="session")
def untouched(trained: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return a workspace with two extracted networks, which no command may change."""
    place = Workspace.at(tmp_path_factory.mktemp("untouched") / "workspace")
    shutil.copytree(trained.root, place.root)
    for name in (D1, D2):
        succeed("extract", name, *SAMPLES, workspace=place)
    return place


@pytest.fixture
def extracted(untouched: Workspace, tmp_path: Path) -> Workspace:
    """Return a copy of it, to write into."""
    shutil.copytree(untouched.root, tmp_path / "extracted")
    return Workspace.at(tmp_path / "extracted")


def test_train_prints_the_runs_name_and_beside_it_accuracy_and_next_command(tmp_path: Path) -> None:
    place = Workspace.at(tmp_path)
    found = run("train", *SMALL, "--prefix", "a", "--seed", "3", workspace=place)
    assert found.stdout == "a-d1-v2-s3\n"
    assert place.checkpoints("a-d1-v2-s3") == ["init", "epoch-0001", "final"]
    *_, accuracy, follows = found.stderr.splitlines()
    share = run_record.final_accuracy(place, "a-d1-v2-s3")
    assert accuracy == f"a-d1-v2-s3  test accuracy {share:6.1%}"
    assert "compiling · time left not known yet" in found.stderr
    line = f"allcnn extract a-d1-v2-s3 --checkpoint all --workspace {place.root}"
    assert follows == f"next: `{line}`"
    words = shlex.split(line.removeprefix("allcnn "))
    assert CliRunner().invoke(main, words).exit_code == 0
    assert len(store.open(place.activations).summaries()) == 3


def test_options_come_before_those_of_a_preset(tmp_path: Path) -> None:
    place = Workspace.at(tmp_path)
    options = ["--preset", "tiny-10", "--dataset", "digits", *SMALL, "--epochs", "1"]
    assert succeed("train", *options, workspace=place).splitlines() == ["allcnn-tiny-10-s0"]
    config = read_record(place, "allcnn-tiny-10-s0").config
    assert (config.architecture, config.dataset, config.epochs) == (Tiny10(0.05), "digits", 1)
    assert config.batch_size == 64


@pytest.mark.parametrize("together", [[], ["--together"]])
def test_several_seeds_are_several_runs(tmp_path: Path, together: list[str]) -> None:
    place = Workspace.at(tmp_path)
    out = succeed("train", *SMALL, "--epochs", "1", "--seeds", "0-1", *together, workspace=place)
    assert out.splitlines() == ["allcnn-d1-v2-s0", "allcnn-d1-v2-s1"]
    assert [read_record(place, run).config.seed for run in place.runs()] == [0, 1]
    assert all(place.checkpoints(run) == ["init", "final"] for run in place.runs())


def test_extract_all_stores_every_checkpoint(workspace: Workspace) -> None:
    sample_set = succeed("extract", D1, "--checkpoint", "all", *SAMPLES, workspace=workspace)
    stored = store.open(workspace.activations).summaries()
    assert {s.checkpoint for s in stored} == {"init", "epoch-0001", "final"}
    assert {s.sample_set for s in stored} == {sample_set.strip()}
    assert all(s.complete and s.n_taps == 10 and s.n_rows == 64 for s in stored)


def test_extract_all_of_a_run_without_checkpoints_says_so(workspace: Workspace) -> None:
    shutil.rmtree(workspace.checkpoints_folder(D1))
    result = run("extract", D1, "--checkpoint", "all", workspace=workspace)
    assert result.exit_code == 1
    assert result.stderr == f"Error: run '{D1}' has no checkpoints yet; train it first\n"


@pytest.mark.parametrize("kernel", [slow("linear"), "rbf"])
def test_compare_prints_writes_and_draws_the_matrix(extracted: Workspace, kernel: str) -> None:
    path = extracted.root / "matrix.json"
    out = succeed(
        "compare", f"{D1}@final", f"{D2}@final", "--kernel", kernel, "--estimator", "biased",
        "--batch-size", "32", "--json", path, workspace=extracted,
    )  # fmt: skip
    written = json.loads(path.read_text())
    result = store.read_result(extracted.similarity, *store.list_results(extracted.similarity))
    assert written["rows"] == [f"conv{i}" for i in range(1, 10)] + ["logits"]
    assert written["columns"] == [f"conv{i}" for i in range(1, 17)] + ["logits"]
    assert (written["kernel"], written["estimator"], written["examples"]) == (kernel, "biased", 64)
    np.testing.assert_array_equal(np.array(written["matrix"], float), result.cka)
    (figure,) = extracted.figures.glob("*.png")
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert str(figure) in out
    # The first layer is at the bottom, as in the picture.
    assert out.splitlines()[0].split()[0] == "logits"
    assert f"{result.cka[0, 0]:.3f}" == out.splitlines()[9].split()[1]


@pytest.mark.parametrize(
    "command", [["compare", "a@b", "a@b"], ["matrix", "a@b"], ["identify", "*@*"]]
)
def test_an_address_is_no_file_for_json(tmp_path: Path, command: list[str]) -> None:
    result = run(*command, "--json", "s3://bucket/a.json", workspace=Workspace.at(tmp_path))
    assert result.exit_code == 2
    assert result.stderr == "Error: s3://bucket/a.json is an address; give a local file\n"


def test_json_has_null_for_what_is_not_defined(extracted: Workspace) -> None:
    zeros = np.zeros((64, 3), np.float32)
    live = store.open(extracted.activations).find(run=D1)[-1]
    meta = live.meta.to_json() | {"tap_index": 0, "n_taps": 1, "shape": [3], "batch_rows": 64}
    meta["key"] = f"{live.key.sample_set}/dead/final/conv1"
    dead = store.RepresentationMeta.from_json(meta)
    store.Writer.open(extracted.activations, dead, live.samples, live.labels).append(zeros)
    path = extracted.root / "matrix.json"
    out = succeed("compare", "dead@final", f"{D1}@final", "--json", path, workspace=extracted)
    assert json.loads(path.read_text())["matrix"] == [[None] * 10]
    assert "not defined: dead@final:conv1" in out


def test_store_ls_has_a_line_for_each_checkpoint(extracted: Workspace) -> None:
    lines = succeed("store", "ls", workspace=extracted).splitlines()
    assert lines[0].split()[:2] == ["activations", "of"]
    assert [line.split()[0] for line in lines[1:]] == [f"{D1}@final", f"{D2}@final"]
    assert all(line.endswith("complete") for line in lines[1:])


def test_pipeline_ends_with_accuracies_and_files(tmp_path: Path) -> None:
    place = Workspace.at(tmp_path)
    options = [*SMALL, "--depth", "1", "--seeds", "0-1", "--samples", "64", "--minibatch", "32"]
    out = succeed("pipeline", *options, workspace=place)
    lines = out.split("\n\n")
    assert [line.split()[0] for line in lines[0].splitlines()] == place.runs()
    files = [Path(line) for line in lines[1].splitlines()]
    assert all(path.exists() for path in files)
    # Three pairs, two grids of stages, learning curves, two stores.
    assert sorted(path.suffix for path in files) == [".png"] * 6 + [".zarr"] * 2
    before = contents(tmp_path)
    assert succeed("pipeline", *options, workspace=place) == out
    assert contents(tmp_path) == before


@pytest.mark.slow
def test_pipeline_compares_the_samples_that_were_asked_for(workspace: Workspace) -> None:
    known = ["pipeline", *SMALL, "--prefix", "small", "--depth", "1", "--seeds", "0"]
    more = ["--checkpoint", "all", "--samples", "96", "--batch-size", "32"]
    succeed("extract", D1, *more, workspace=workspace)
    succeed("extract", D1, *more, "--split", "train", workspace=workspace)
    succeed(*known, "--samples", "64", "--minibatch", "32", workspace=workspace)
    names = store.list_results(workspace.similarity)
    results = [store.read_result(workspace.similarity, name) for name in names]
    assert [result.n_examples for result in results] == [64] * 3


def test_pipeline_refuses_too_many_samples_before_it_trains(tmp_path: Path) -> None:
    place = Workspace.at(tmp_path / "workspace")
    result = run("pipeline", *SMALL, "--samples", "600", workspace=place)
    assert result.exit_code == 2
    assert "600 samples are wanted of digits/test, which has 599 examples" in result.stderr
    assert not place.root.exists()


def test_help_of_every_option_says_what_it_is() -> None:
    commands = [main, *main.commands.values()]
    options = [p for command in commands for p in command.params if p.param_type_name == "option"]
    assert len(options) > 30
    assert [p.name for p in options if not getattr(p, "help", "")] == []


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, flows.cli.main; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"jax", "numpy", "zarr", "prefect", "distributed", "matplotlib", "pydantic", "rich"}
    assert heavy.isdisjoint(done.stdout.split())


BAD = {
    "unknown data set": (["train", "--dataset", "nope"], 1, "data set 'nope' is not prepared"),
    "depth 0": (["train", "--depth", "0"], 2, "depth is 0; use 1 or more"),
    "width 0": (["train", "--width", "0"], 2, "width is 0.0; use a number from 0.001"),
    "width nan": (["train", "--width", "nan"], 2, "width is nan; use a number from 0.001"),
    "width 1e300": (
        ["train", "--width", "1e300"],
        2,
        "width is 1e+300; use a number from 0.001 to 1000",
    ),
    "training batch": (["train", "--batch-size", "3"], 2, "batch-size is 3; use 4 or more"),
    "large batch": (["train", "--batch-size", "5000"], 2, "digits has 1198 training images"),
    "small images": (["train", "--image-size", "11"], 2, "image-size is 11; use 12 or more"),
    "unsafe prefix": (["train", "--prefix", "../a"], 2, "prefix '../a' is not a name"),
    "unknown preset": (["train", "--preset", "d3-v2"], 2, "preset is 'd3-v2'; use d1-v1, d1-v2,"),
    "two depths": (
        ["train", "--preset", "tiny-10", "--depth", "2"],
        2,
        "depth has no effect: archite",
    ),
    "no channels": (["train", "--architecture", "width"], 2, "channels is missing; use a whole"),
    "one together": (["train", "--together"], 2, "together needs several seeds"),
    "two kinds of seeds": (["train", "--seed", "1", "--seeds", "0-2"], 2, "exclude each other"),
    "extraction batch": (["extract", D1, "--batch-size", "3"], 2, "batch-size is 3; use 4"),
    "few samples": (["extract", D1, "--samples", "3"], 2, "samples is 3; use 4 or more"),
    "many samples": (["extract", D1, "--samples", "600"], 2, "has 599 examples"),
    "unknown split": (["extract", D1, "--split", "x"], 1, "no split 'x'; use one of train, test"),
    "unknown run": (["extract", "nope"], 1, "no run 'nope'"),
    "run with a path": (["extract", "../nope"], 2, "run '../nope' is not a name"),
    "unknown checkpoint": (["extract", D1, "--checkpoint", "epoch-0009"], 1, "init, epoch-0001"),
    "other settings": (
        ["train", "--prefix", "small", *SMALL, "--learning-rate", "0.2"],
        1,
        "run 'small-d1-v2-s0' exists with learning-rate 0.1 (asked for: 0.2)",
    ),
    "other settings of a later network": (
        ["pipeline", "--prefix", "small", *SMALL, "--depth", "3,1", "--learning-rate", "0.2"],
        1,
        "run 'small-d1-v2-s0' exists with learning-rate 0.1 (asked for: 0.2)",
    ),
    "no network": (["compare", D1, D1], 2, "names no network; write RUN@CHECKPOINT"),
    "comparison batch": (
        ["compare", f"{D1}@final", f"{D1}@final", "--batch-size", "3"],
        2,
        "batch-size is 3; use 4 or more",
    ),
    "sigma 0": (["matrix", "*@final", "--kernel", "rbf", "--sigma", "0"], 2, "sigma is 0.0"),
    "not extracted": (["compare", f"{D1}@init", f"{D1}@final"], 1, "allcnn extract"),
    "json nowhere": (
        ["compare", "x@final", "y@final", "--json", "no/such/folder/a.json"],
        2,
        "json is no/such/folder/a.json, and no/such/folder is no folder; make it first",
    ),
    "sigma list": (
        ["compare", f"{D1}@final", f"{D1}@final", "--kernel", "rbf", "--sigma", "0.2;1"],
        2,
        "as in 0.2,0.4",
    ),
    "sigma twice": (
        ["matrix", "*@final", "--kernel", "rbf", "--sigma", "0.2,0.2"],
        2,
        "each once",
    ),
    "a pattern of networks": (["compare", "*@final", f"{D1}@final"], 2, "`allcnn matrix '*@fin"),
    "no match": (["matrix", "x-*@final"], 1, "holds no activations or Grams of x-*@final"),
    "half a pattern": (["matrix", "*@final:"], 2, "names no network; write RUN@CHECKPOINT"),
    "absent label": (["matrix", "*@final", "--label", "10"], 1, "its labels are 0, 1, 2"),
    "two kinds of labels": (["matrix", "*@final", "--label", "1", "--each-label"], 2, "exclude"),
    "negative label": (["matrix", "*@final", "--label", "-1"], 2, "label is -1; use 0 or more"),
    "permutations": (["matrix", "*@final", "--permutations", "-1"], 2, "permutations is -1"),
    "permuted exact": (
        ["matrix", "*@final", "--permutations", "5", "--estimator", "exact"],
        2,
        "permutations shuffle within minibatches",
    ),
    "one network to identify": (["identify", f"{D1}@final"], 2, "between two or more"),
    "no such tap to leave out": (
        ["identify", "small-d1-*@final", "--exclude", "conv99,logits"],
        2,
        "exclude names 'conv99', and no network here has such a tap; theirs are conv1, conv2",
    ),
    "depths to identify": (["identify", "*@final"], 2, "networks of one architecture"),
    "nothing to keep": (["extract", D1, "--keep", "all"], 2, "keep is 'all'; use activations"),
    "unknown network": (["compare", "x@final", f"{D1}@final"], 1, "x@final"),
    "pipeline list": (["pipeline", "--depth", "1;2"], 2, "depth is '1;2'; write numbers"),
    "pipeline depth 0": (["pipeline", "--depth", "0-1"], 2, "depth is 0; use 1 or more"),
}


@pytest.mark.parametrize(("arguments", "status", "sentence"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_sentence_and_touches_nothing(
    untouched: Workspace, arguments: list[str], status: int, sentence: str
) -> None:
    before = contents(untouched.root)
    result = run(*arguments, workspace=untouched)
    assert result.exit_code == status
    assert sentence in result.stderr
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr.splitlines()) == 1
    assert contents(untouched.root) == before


@pytest.mark.parametrize(
    "command", [["demo"], ["train"], ["extract", "a"], ["store", "ls"], ["pipeline"]]
)
def test_a_workspace_that_is_a_file_is_refused(tmp_path: Path, command: list[str]) -> None:
    path = tmp_path / "file"
    path.write_text("mine")
    result = run(*command, workspace=Workspace(path))
    assert result.exit_code == 1
    assert (
        result.stderr == f"Error: the workspace {path} is a file; name a folder with --workspace\n"
    )
    assert path.read_text() == "mine"


def raising(error: Exception) -> Callable[..., None]:
    def work(*_: object) -> None:
        raise error

    return work


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 9 TiB for an array"),
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nwhile allocating 9 TiB"),
    ],
)
def test_too_little_memory_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr("flows.cli.local_pipeline.train", raising(error))
    result = run("train", workspace=Workspace.at(tmp_path))
    assert result.exit_code == 1
    sentence = r"Error: the memory does not suffice \(.*alloca.* 9 TiB.*\); use smaller .*\n"
    assert re.fullmatch(sentence, result.stderr)


def test_other_failures_are_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "flows.cli.local_pipeline.train", raising(jax.errors.JaxRuntimeError("INTERNAL: bug"))
    )
    result = run("train", workspace=Workspace.at(tmp_path))
    assert isinstance(result.exception, jax.errors.JaxRuntimeError)


def test_a_reader_that_went_away_is_no_error(
    untouched: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = BrokenPipeError(errno.EPIPE, "Broken pipe")
    monkeypatch.setattr("flows.views.listing.listing_table", raising(gone))
    assert run("store", "ls", workspace=untouched).stderr == ""


def test_different_sample_sets_do_not_compare(extracted: Workspace) -> None:
    succeed("extract", D1, "--checkpoint", "init", "--samples", "96", workspace=extracted)
    result = run("compare", f"{D1}@init", f"{D2}@final", workspace=extracted)
    assert result.exit_code == 1
    assert "digits-test-96-" in result.stderr
    assert "digits-test-64-" in result.stderr
    assert "only representations of the same sample set compare" in result.stderr


def test_a_store_of_a_newer_schema_is_refused(extracted: Workspace) -> None:
    root = zarr.open_group(extracted.activations, mode="r+")
    root.attrs["allcnn_store"] = {"kind": "activations", "schema_version": 99}
    before = contents(extracted.root)
    for command in (["store", "ls"], ["extract", D1], ["compare", f"{D1}@final", f"{D2}@final"]):
        result = run(*command, workspace=extracted)
        assert result.exit_code == 1
        assert "99" in result.stderr
        assert len(result.stderr.splitlines()) == 1
    assert contents(extracted.root) == before


def test_the_demo_is_three_networks_without_downloads() -> None:
    names = [config.name for config in pipeline_plan.DEMO.runs]
    assert names == ["demo-d1-v2-s0", "demo-d1-v2-s1", "demo-d2-v2-s0"]
    assert {config.dataset for config in pipeline_plan.DEMO.runs} == {"digits"}
