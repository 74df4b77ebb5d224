"""``allcnn store verify``: what it prints, its exit status, and what it repairs."""

import json
import re
import shutil

import pytest

import store
from allcnn.workspace.paths import Workspace
from tests.commands import contents, run
from tests.faults import chunk_files, damaging, flip_bit, swap

D1, D2 = "small-d1-v2-s0", "small-d2-v2-s0"
HOW = ["--samples", "16", "--batch-size", "8"]


@pytest.fixture(scope="module")
def untouched(trained, tmp_path_factory):
    place = Workspace.at(tmp_path_factory.mktemp("untouched") / "workspace")
    shutil.copytree(trained.root, place.root)
    for arguments in (["extract", D1, *HOW], ["compare", f"{D1}@final", f"{D1}@final"]):
        result = run(*arguments, workspace=place)
        assert result.exit_code == 0, result.output
    return place


@pytest.fixture
def place(untouched, tmp_path):
    shutil.copytree(untouched.root, tmp_path / "workspace")
    return Workspace.at(tmp_path / "workspace")


def chunks_of(place, tap):
    (found,) = [one for one in store.open(place.activations).find() if one.key.tap == tap]
    return chunk_files(found.place / "activations")


def test_a_whole_workspace_has_exit_status_0(place):
    before = contents(place.root)
    result = run("store", "verify", workspace=place)
    assert result.exit_code == 0, result.output
    # Ten taps, their Grams, and a result.
    assert result.stdout.startswith("21 representations, Grams, results and probes, ")
    assert re.search(r", \d+ kB: no damage\n$", result.stdout)
    assert contents(place.root) == before


def test_a_tap_that_is_lost_whole_is_named_and_repaired(place, untouched):
    lost = [
        one for one in store.open(place.activations).find() if one.key.tap in ("conv2", "conv5")
    ]
    for one in lost:
        shutil.rmtree(one.place)
    result = run("store", "verify", workspace=place)
    assert result.exit_code == 1
    of = f"run {D1}, checkpoint final, on {lost[0].key.sample_set}"
    wanted = [f"tap {tap} of {of} is missing (no folder)" for tap in ("conv2", "conv5")]
    assert result.stdout.splitlines()[:2] == wanted
    result = run("store", "verify", "--repair", workspace=place)
    assert result.exit_code == 0, result.output
    assert run("store", "verify", workspace=place).exit_code == 0
    before, after = contents(untouched.root), contents(place.root)
    assert after.keys() == before.keys()
    assert all(after[n] == before[n] for n in after if "/c/" in n)


def test_what_was_removed_on_purpose_is_told_with_exit_status_0(place):
    removed = run("store", "rm", f"{D1}@final:conv2", "--yes", workspace=place)
    assert removed.exit_code == 0, removed.output
    result = run("store", "verify", "--repair", workspace=place)
    assert result.exit_code == 0, result.output
    assert f"unfinished: run {D1}, checkpoint final, on " in result.stdout
    assert "taps are missing: 1" in result.stdout
    assert result.stdout.splitlines()[-1].endswith(": no damage")


def injure_config(folder):
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(
        text.replace('"weight_decay": 0.001', '"weight_decay": 0.003')
    )


def injure_history(folder):
    swap(folder / "history.json", folder.with_name(D2) / "history.json")


def injure_checkpoint(folder):
    # All of them: a checkpoint may keep one that nothing refers to any more.
    for path in (folder / "checkpoints/final").rglob("d/*"):
        flip_bit(path)


@damaging
@pytest.mark.parametrize(
    ("injure", "part", "reason"),
    [
        (injure_config, "config.json", "is not what was written (its seal is of another content)"),
        (injure_history, "history.json", f"the learning curves of another run, '{D2}' with other"),
        (injure_checkpoint, "checkpoints/final", "cannot be read"),
    ],
)
def test_damage_of_a_run_is_named(place, injure, part, reason):
    injure(place.run_folder(D1))
    result = run("store", "verify", f"{D1}@*", workspace=place)
    assert result.exit_code == 1
    line = result.stdout.splitlines()[0]
    assert line.startswith(f"{part} of run {D1} is damaged (")
    assert reason in line
    document = json.loads(run("store", "verify", D1, "--json", workspace=place).stdout)
    (damage,) = document["damage"]
    assert (damage["kind"], damage["path"], damage["part"]) == ("runs", D1, part)
    assert document["runs"] == 1


def test_settings_of_a_run_are_repaired_from_its_curves(place, untouched):
    config = place.run_folder(D1) / "config.json"
    for injure in (injure_config, lambda folder: (folder / "config.json").unlink()):
        injure(place.run_folder(D1))
        result = run("store", "verify", "--repair", workspace=place)
        assert result.exit_code == 0, result.output
        assert "  repaired: written again from history.json" in result.stdout
        assert config.read_bytes() == (untouched.run_folder(D1) / "config.json").read_bytes()


def test_settings_that_nothing_tells_stay_damaged(place):
    injure_config(place.run_folder(D1))
    (place.run_folder(D1) / "history.json").unlink()
    result = run("store", "verify", D1, "--repair", workspace=place)
    assert result.exit_code == 1
    assert (
        f"  not repaired: restore {place.run_folder(D1)}/config.json from a copy" in result.stdout
    )


def test_a_run_of_an_earlier_version_is_told_not_to_be_sealed(place):
    folder = place.run_folder(D1)
    values = json.loads((folder / "config.json").read_text())
    del values["seal"]
    (folder / "config.json").write_text(json.dumps(values | {"schema_version": 1}))
    rows = json.loads((folder / "history.json").read_text())["epochs"]
    (folder / "history.json").write_text(json.dumps(rows))
    result = run("store", "verify", f"{D1}@init", workspace=place)
    assert result.exit_code == 0, result.output
    line = f"not sealed, as an earlier version wrote it: config.json and history.json of {D1}"
    assert line in result.stdout.splitlines()


def test_damage_is_named_with_exit_status_1(place):
    flip_bit(chunks_of(place, "conv3")[1])
    before = contents(place.root)
    result = run("store", "verify", workspace=place)
    assert result.exit_code == 1
    sentence, _, last = result.stdout.splitlines()
    assert sentence.startswith(f"rows 8 to 15 of tap conv3 of run {D1}, checkpoint final, on ")
    assert last.endswith("` repairs what a checkpoint still gives")
    assert contents(place.root) == before


def test_repair_repairs(place, untouched):
    flip_bit(chunks_of(place, "conv3")[1])
    chunks_of(place, "conv3")[0].unlink()
    result = run("store", "verify", "--repair", workspace=place)
    assert result.exit_code == 0, result.output
    said = f"  repaired: computed again from checkpoint final of run {D1}"
    assert result.stdout.splitlines().count(said) == 2
    assert result.stdout.endswith(": 2 damaged, 2 repaired\n")
    assert contents(place.root) == contents(untouched.root)
    assert run("store", "verify", workspace=place).exit_code == 0


def test_what_cannot_be_repaired_has_exit_status_1(place):
    flip_bit(chunks_of(place, "conv3")[1])
    shutil.rmtree(place.run_folder(D1))
    result = run("store", "verify", "--repair", workspace=place)
    assert result.exit_code == 1
    assert f"of tap conv3 of run {D1}, checkpoint final, " in result.stdout
    said = (
        f"  not repaired: nothing in {place.root} computes this; restore the run, or store it again"
    )
    assert said in result.stdout
    assert result.stdout.endswith(": 1 damaged, 0 repaired\n")


@pytest.mark.parametrize("repair", [False, True])
def test_json_is_one_document(place, repair):
    flip_bit(chunks_of(place, "conv3")[1])
    result = run("store", "verify", "--json", *["--repair"] * repair, workspace=place)
    assert result.exit_code == (0 if repair else 1)
    document = json.loads(result.stdout)
    (damage,) = document["damage"]
    assert document["checked"] == 21
    assert (damage["part"], damage["start"], damage["stop"]) == ("rows", 8, 16)
    assert damage["repaired"] is (True if repair else None)
    assert damage["path"].endswith(f"/{D1}/final/conv3")


def test_a_pattern_narrows_what_is_looked_at(place):
    flip_bit(chunks_of(place, "conv3")[1])
    assert run("store", "verify", f"{D1}@*:conv[12]", workspace=place).exit_code == 0
    assert run("store", "verify", f"{D1}@final", workspace=place).exit_code == 1
    assert run("store", "verify", D1, workspace=place).exit_code == 1
    result = run("store", "verify", f"{D1}:conv3", workspace=place)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: '{D1}:conv3' names no network; write RUN@CHECKPOINT")


@pytest.mark.parametrize("repair", [False, True])
def test_a_pattern_that_fits_nothing_is_one_sentence(place, repair):
    result = run("store", "verify", "typo-*@final", *["--repair"] * repair, workspace=place)
    assert result.exit_code == 1
    lists = f"`allcnn store ls --workspace {place.root}` lists what is stored"
    wanted = f"Error: nothing in {place.root} fits typo-*@final; {lists}"
    assert result.stderr.splitlines()[-1] == wanted
    assert result.stdout == ""


def test_nothing_to_look_at_is_one_sentence(tmp_path):
    workspace = Workspace.at(tmp_path)
    result = run("store", "verify", workspace=workspace)
    assert result.exit_code == 1
    command = f"`allcnn train --workspace {workspace.root}`"
    wanted = (
        f"Error: nothing is extracted yet in {workspace.root}; train a network first with {command}"
    )
    assert result.stderr.startswith(wanted)


@pytest.mark.parametrize("keep", ["activations", "grams"])
def test_a_comparison_stops_at_damage_with_the_sentence(place, keep):
    """Rather than giving a wrong number."""
    shutil.rmtree(place.similarity)
    if keep == "activations":
        shutil.rmtree(place.grams)
        flip_bit(chunks_of(place, "conv3")[1])
        wanted = f"Error: rows 8 to 15 of tap conv3 of run {D1}, checkpoint final are damaged ("
    else:
        one = store.open_grams(place.grams).find()[2]
        flip_bit(chunk_files(one.place / "grams")[0])
        wanted = (
            f"Error: minibatches 0 to 0 of the Grams {one.key.variant} of tap conv3 of run {D1}"
        )
    found = run("compare", f"{D1}@final", f"{D1}@final", workspace=place)
    assert found.exit_code == 1
    assert found.stderr.splitlines()[-1].startswith(wanted)
    assert "allcnn store verify --repair --workspace" in found.stderr
    assert found.stdout == ""
    assert store.list_results(place.similarity) == []
