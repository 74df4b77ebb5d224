"""Probes from the command line and under Prefect: what they print, write and show."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import store
from allcnn.definitions.fields import json_of
from allcnn.extract import extract
from allcnn.probing import fit
from allcnn.settings.extraction import Extraction
from allcnn.settings.probing import Probing
from allcnn.settings.selection import Selection
from allcnn.workspace.paths import Workspace
from flows.probe import probe
from flows.runtime.artifacts import key
from flows.settings.parameters import ProbeParameters
from tests.commands import contents, run, succeed
from tests.faults import chunk_files, flip_bit
from tests.prefect_api import Api
from tests.test_store_probes import make_probe

RUN = "small-d1-v2-s0"
TAPS = f"{RUN}@final:conv[68]"


@pytest.fixture(scope="session")
def both_splits(trained: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return a workspace with activations of training and test examples, which no test changes."""
    place = Workspace.at(tmp_path_factory.mktemp("splits") / "workspace")
    shutil.copytree(trained.root, place.root)
    for split, n in (("train", 160), ("test", 64)):
        extract(place, Extraction(RUN, "final", split, n_samples=n, batch_size=32))
    return place


@pytest.fixture
def extracted(both_splits: Workspace, tmp_path: Path) -> Workspace:
    """Return a copy of it, to write into."""
    shutil.copytree(both_splits.root, tmp_path / "extracted")
    return Workspace.at(tmp_path / "extracted")


def test_probe_prints_and_writes_how_well_each_tap_does(extracted: Workspace) -> None:
    path = extracted.root / "probe.json"
    out = succeed("probe", TAPS, "--json", path, workspace=extracted)
    (name,) = store.list_probes(extracted.probes)
    result = store.read_probe(extracted.probes, name)
    head, *lines = out.splitlines()
    assert head.split() == ["tap", "accuracy", "training", "penalty", "features"]
    for line, accuracy, error, tap in zip(
        lines, result.accuracy, result.standard_errors, ("conv6", "conv8"), strict=False
    ):
        assert line.split()[:4] == [tap, f"{100 * accuracy:.1f}", "±", f"{100 * error:.1f}"]
    assert str(extracted.probes / name) in out
    assert "64 examples of 10 classes" in out
    written = json.loads(path.read_text())
    assert (written["run"], written["checkpoint"]) == (RUN, "final")
    assert (written["n_train"], written["n_test"], written["pool"]) == (160, 64, "whole")
    assert [each["tap"] for each in written["taps"]] == ["conv6", "conv8"]
    assert [each["accuracy"] for each in written["taps"]] == result.accuracy.tolist()
    found = np.array([each["class_accuracy"] for each in written["taps"]], float)
    np.testing.assert_array_equal(found, result.class_accuracy)
    # Ten classes are told apart far better than by guessing.
    assert result.accuracy.min() > 0.1 + 4 * np.sqrt(0.09 / 64)


def test_the_same_command_computes_nothing(
    extracted: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = succeed("probe", TAPS, "--penalties", "1e-3", workspace=extracted)
    monkeypatch.setattr(fit, "_score", None)  # calling it would fail
    assert succeed("probe", TAPS, "--penalties", "1e-3", workspace=extracted) == first


BAD = {
    "half a pattern": (["a@"], 2, "names no network; write RUN@CHECKPOINT"),
    "penalties": (["a@b", "--penalties", "1;2"], 2, "penalties is '1;2'; write numbers"),
    "a penalty": (["a@b", "--penalties", "0"], 2, "penalties is 0.0; use a number from"),
    "a set's name": (["a@b", "--train-set", "../x"], 2, "train-set '../x' is not a name"),
    "json nowhere": (["a@b", "--json", "no/such/a.json"], 2, "no/such is no folder; make it first"),
    "an address": (["a@b", "--json", "s3://b/a.json"], 2, "is an address; give a local file"),
    "no match": (["x@final"], 1, "`allcnn store ls --workspace"),
    "no pattern's match": (["x-*@*"], 1, "`allcnn store ls --workspace"),
    "no such set": ([TAPS, "--test-set", "other"], 1, "no activations of"),
    "the same split": (
        [TAPS, "--train-set", "digits-test-64-9c0b26f9", "--test-set", "digits-test-64-9c0b26f9"],
        1,
        "",
    ),
    "nothing of a checkpoint": ([f"{RUN}@init"], 1, "--checkpoint init --split train --work"),
}


@pytest.mark.parametrize(("arguments", "status", "sentence"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_sentence_and_touches_nothing(
    both_splits: Workspace, arguments: list[str], status: int, sentence: str
) -> None:
    before = contents(both_splits.root)
    result = run("probe", *arguments, workspace=both_splits)
    assert result.exit_code == status
    assert sentence in result.stderr
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr.splitlines()) == 1
    assert contents(both_splits.root) == before


def test_the_advice_for_small_data_takes_what_there_is(both_splits: Workspace) -> None:
    result = run("probe", f"{RUN}@init", workspace=both_splits)
    assert "--samples" not in result.stderr


@pytest.fixture
def kept(extracted: Workspace) -> Workspace:
    """Return a workspace with a probe of the run, and one of a run that is gone."""
    store.write_probe(extracted.probes, _probe_of(RUN, name="mine"))
    store.write_probe(extracted.probes, _probe_of("gone-s0", name="gone"))
    return extracted


def _probe_of(run_name: str, **how: Any) -> store.ProbeResult:
    made = make_probe(**how)
    taps = tuple(replace(tap, run=run_name) for tap in made.taps)
    job = Probing(Selection(run_name, "final"), "train-set", "test-set")
    return replace(made, taps=taps, provenance={"job": json_of(job)})


def test_du_counts_probes(kept: Workspace) -> None:
    told = json.loads(succeed("store", "du", "--json", workspace=kept))
    stored = sum(f.stat().st_size for f in kept.probes.rglob("*") if f.is_file())
    assert told["by_store"]["probes"]["stored_bytes"] == stored
    found = {each["probe"] for each in told["entries"] if "probe" in each}
    assert found == {"mine", "gone"}
    lines = succeed("store", "du", workspace=kept).splitlines()
    assert [line.split()[1] for line in lines if line.startswith("probes")] == ["2"]


def test_rm_removes_the_probes_of_what_a_pattern_names(kept: Workspace) -> None:
    succeed("store", "rm", f"{RUN}@*", "--what", "probes", "--yes", workspace=kept)
    assert store.list_probes(kept.probes) == ["gone"]
    assert store.open(kept.activations).find(run=RUN)


def test_gc_removes_the_probes_of_runs_that_are_gone(kept: Workspace) -> None:
    out = succeed("store", "gc", "--what", "orphaned", "--yes", workspace=kept)
    assert "gone: gone-s0" in out
    assert store.list_probes(kept.probes) == ["mine"]


def test_verify_names_damage_and_the_command_that_repairs_it(kept: Workspace) -> None:
    # Ten taps on two sample sets, and two probes.
    told = succeed("store", "verify", workspace=kept)
    assert told.startswith("22 representations, Grams, results and probes, ")
    assert told.endswith(": no damage\n")
    flip_bit(chunk_files(kept.probes / "mine" / "accuracy")[0])
    result = run("store", "verify", "--repair", workspace=kept)
    assert result.exit_code == 1
    assert "accuracy of probe mine is damaged" in result.output
    wanted = f"`allcnn probe {RUN}@final --train-set train-set --test-set test-set --pool whole"
    assert wanted in result.output
    assert (kept.probes / "mine").exists()


@pytest.mark.slow
def test_the_flow_shows_the_numbers(api: Api, extracted: Workspace) -> None:
    settings: dict[str, Any] = {"networks": TAPS, "penalties": [1e-3]}
    state = probe(
        ProbeParameters(workspace=str(extracted.root), **settings),
        return_state=True,
    )
    (name,) = state.result()
    flow_run = str(state.state_details.flow_run_id)
    assert api.flow_run(flow_run)["name"] == f"probe-{TAPS}"
    assert list(api.task_runs(flow_run)) == [f"probe-{TAPS}"]
    result = store.read_probe(extracted.probes, name)
    shown = json.loads(api.artifacts(flow_run, "table")[f"{key(name)}-numbers"]["data"])
    assert [row["tap"] for row in shown] == ["conv6", "conv8"]
    assert [row["accuracy"] for row in shown] == np.round(result.accuracy, 4).tolist()
    assert f"{key(name)}-result" in api.artifacts(flow_run, "markdown")
    api.logs(flow_run, f"probing: 2 of 2, {RUN}@final: done")
