"""``allcnn run``: what is listed, shown, taken from one workspace to another, and removed."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest

import store
from allcnn.drawing import figure_files
from allcnn.workspace import run_record
from allcnn.workspace.paths import Workspace
from allcnn.workspace.run_listing import remove_run
from flows.views.listing import size
from store.storage.claims import claim
from tests.commands import contents, run, succeed

D1, D2 = "small-d1-v2-s0", "small-d2-v2-s0"
SAMPLES = ["--samples", "32", "--batch-size", "16"]


@pytest.fixture
def elsewhere(tmp_path):
    return Workspace.at(tmp_path / "elsewhere")


def fail(*arguments, workspace, status=1):
    """Run a command that fails; return its sentence. It changes nothing."""
    before = contents(workspace.root)
    result = run("run", *arguments, workspace=workspace)
    assert result.exit_code == status, result.output
    assert len(result.stderr.splitlines()) == 1
    assert contents(workspace.root) == before
    return result.stderr.removeprefix("Error: ").strip()


def stored_bytes(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def unfinish(workspace, name):
    shutil.rmtree(workspace.checkpoints_folder(name) / "final")
    run_record.write_history(workspace, name, run_record.read_history(workspace, name)[:1])


# curves


def test_curves_are_drawn_of_each_run_that_fits(workspace, monkeypatch):
    drawn = []
    draw = figure_files.curves.learning_curves
    monkeypatch.setattr(
        figure_files.curves, "learning_curves", lambda each: drawn.append(each) or draw(each)
    )
    unfinish(workspace, D2)
    out = succeed("run", "curves", "*-d1-*", "small-*", workspace=workspace).strip()
    name = re.fullmatch(rf"{D1}-and-1-more-[0-9a-f]{{8}}-curves.png", Path(out).name)
    assert name
    assert Path(out).parent == workspace.figures
    assert list(drawn[0]) == [D1, D2]
    for name, columns in drawn[0].items():
        assert columns == run_record.columns(run_record.read_history(workspace, name))
    out = succeed("run", "curves", D1, workspace=workspace).strip()
    assert out == str(workspace.figures / f"{D1}-curves.png")
    assert Path(out).read_bytes().startswith(b"\x89PNG")


def test_curves_of_nothing_are_refused(workspace, elsewhere):
    assert "no run in" in fail("curves", D1, "other-*", workspace=workspace)
    assert "there are no runs yet" in fail("curves", D1, workspace=elsewhere)
    (workspace.run_folder(D1) / "history.json").unlink()
    assert f"run '{D1}' has no learning curves" in fail("curves", "*", workspace=workspace)
    rows = [row._asdict() | {"test_loss": "low"} for row in run_record.read_history(workspace, D2)]
    (workspace.run_folder(D2) / "history.json").write_text(json.dumps(rows))
    assert "holds no learning curves" in fail("curves", D2, workspace=workspace)


# ls


def test_ls_has_a_line_for_each_run(workspace):
    unfinish(workspace, D2)
    lines = succeed("run", "ls", workspace=workspace).splitlines()
    assert lines[0].split() == (
        "run data set epochs state test accuracy checkpoints size age".split()
    )
    accuracy = f"{run_record.final_accuracy(workspace, D1):.1%}"
    taken = size(stored_bytes(workspace.run_folder(D1))).split()
    assert lines[1].split()[:-2] == [
        D1,
        "digits",
        *"2 of 2 finished".split(),
        accuracy,
        "3",
        *taken,
    ]
    assert lines[2].split()[:6] == [D2, "digits", *"1 of 2 unfinished".split()]
    assert lines[2].split()[7] == "2"


def test_ls_of_a_pattern_as_json(workspace):
    found = json.loads(succeed("run", "ls", "*-d2-*", "--json", workspace=workspace))
    assert found["workspace"] == str(workspace.root)
    (one,) = found["runs"]
    assert one["run"] == D2
    assert (one["epochs_done"], one["epochs"], one["finished"]) == (2, 2, True)
    assert one["checkpoints"] == ["init", "epoch-0001", "final"]
    assert one["n_bytes"] == stored_bytes(workspace.run_folder(D2))
    assert one["test_accuracy"] == run_record.final_accuracy(workspace, D2)
    assert found["unreadable"] == []


def test_a_run_before_its_first_epoch_has_no_accuracy(workspace):
    (workspace.run_folder(D1) / "history.json").unlink()
    line = succeed("run", "ls", D1, workspace=workspace).splitlines()[1]
    assert line.split()[2:7] == ["0", "of", "2", "finished", "-"]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", "{}"),
        ("config.json", "nonsense"),
        ("history.json", "{"),
        ("history.json", '[{"epoch": 1}]'),
        ("history.json", "5"),
    ],
)
def test_ls_lists_the_rest_beside_what_cannot_be_read(workspace, file, content):
    (workspace.run_folder(D1) / file).write_text(content)
    out = succeed("run", "ls", workspace=workspace)
    assert out.splitlines()[1].startswith(D2)
    assert f"{D1}/{file} " in out.splitlines()[-1]
    found = json.loads(succeed("run", "ls", "--json", workspace=workspace))
    assert [one["run"] for one in found["unreadable"]] == [D1]


def test_what_a_kill_left_is_not_listed(workspace):
    os.rename(workspace.run_folder(D1), workspace.root / "runs" / f".removed-{D1}")
    shutil.copytree(workspace.root / "runs" / D2, workspace.root / "runs" / ".importing")
    assert [line.split()[0] for line in succeed("run", "ls", workspace=workspace).splitlines()] == [
        "run",
        D2,
    ]


def test_ls_of_nothing_says_how_to_get_a_run(workspace, elsewhere):
    assert fail("ls", workspace=elsewhere) == (
        f"there are no runs yet in {elsewhere.root}; train one with `allcnn train --workspace"
        f" {elsewhere.root}`, or import the file of an exported one"
    )
    assert f"no run in {workspace.root} fits x*; `allcnn run ls --workspace" in fail(
        "ls", "x*", workspace=workspace
    )


# show


def test_show_tells_settings_curves_and_checkpoints(workspace):
    out = succeed("run", "show", D1, workspace=workspace)
    lines = [line.split() for line in out.splitlines()]
    assert ["state", "finished,", "2", "of", "2", "epochs"] in lines
    assert ["weight", "decay", "0.001"] in lines
    assert [line[0] for line in lines if line[1:2] == ["train"] or line[-1:] == ["s"]] == [
        "epoch",
        "1",
        "2",
    ]
    succeed("extract", D1, *SAMPLES, workspace=workspace)
    (tap,) = store.open(workspace.activations).find(run=D1, tap="conv1")
    taken = size(stored_bytes(workspace.checkpoints_folder(D1) / "final")).split()
    (line,) = [line for line in lines if line[:1] == ["final"]]
    assert line[2:] == [*taken, tap.meta.checkpoint_digest]


def test_show_as_json_has_all(workspace):
    found = json.loads(succeed("run", "show", D1, "--json", workspace=workspace))
    assert found["settings"] == run_record.read_record(workspace, D1).config.to_json()
    history = [row._asdict() for row in run_record.read_history(workspace, D1)]
    assert (found["run"], found["history"]) == (D1, history)
    assert [each["checkpoint"] for each in found["checkpoints"]] == ["init", "epoch-0001", "final"]
    assert {len(each["digests"]["optimiser"]) for each in found["checkpoints"]} == {71}


def test_long_curves_are_shown_in_brief(workspace):
    first = run_record.read_history(workspace, D1)[0]
    history = [first._replace(epoch=n) for n in range(1, 351)]
    run_record.write_history(workspace, D1, tuple(history))
    out = succeed("run", "show", D1, workspace=workspace)
    shown = [line.split()[0] for line in out.splitlines() if line.endswith(" s")]
    assert (len(shown), shown[0], shown[-1]) == (10, "1", "350")


def test_show_of_an_unknown_or_damaged_run_is_one_sentence(workspace):
    assert fail("show", "x", workspace=workspace).startswith(f"no run 'x' in {workspace.root}; cho")
    fail("show", "../x", workspace=workspace, status=2)
    (workspace.checkpoints_folder(D1) / "final" / "_CHECKPOINT_METADATA").write_text("{")
    assert "final cannot be read" in fail("show", D1, workspace=workspace)


# export and import


def test_what_is_extracted_elsewhere_is_the_same(workspace, elsewhere, tmp_path):
    file = tmp_path / "run.tar"
    out = succeed("run", "export", D1, file, workspace=workspace).splitlines()
    assert out[0].startswith(f"{file}  {size(file.stat().st_size)}, ")
    there = succeed("run", "import", file, workspace=elsewhere).splitlines()
    assert there == [out[-1], "added final", D1]
    for place in (workspace, elsewhere):
        succeed("extract", D1, *SAMPLES, workspace=place)
    one, other = (store.open(place.activations).find() for place in (workspace, elsewhere))
    assert len(one) == 10
    for tap, same in zip(one, other, strict=True):
        assert tap.key == same.key
        assert tap.read(0, 32).tobytes() == same.read(0, 32).tobytes()
    again = succeed("run", "import", file, workspace=elsewhere).splitlines()
    assert again == [out[-1], "nothing to add: all of it is here", D1]


def test_export_takes_the_checkpoints_that_are_named(workspace, elsewhere, tmp_path):
    named = ["--checkpoint", "init", "--checkpoint", "final"]
    succeed("run", "export", D1, tmp_path / "a.tar", *named, workspace=workspace)
    assert "added init, final" in succeed("run", "import", tmp_path / "a.tar", workspace=elsewhere)
    succeed("run", "export", D1, tmp_path / "b.tar", "--all", workspace=workspace)
    assert "added epoch-0001" in succeed("run", "import", tmp_path / "b.tar", workspace=elsewhere)


def test_an_unfinished_run_is_exported_only_on_demand(workspace, elsewhere, tmp_path):
    unfinish(workspace, D1)
    assert fail("export", D1, tmp_path / "a.tar", workspace=workspace) == (
        f"run '{D1}' is not finished; name a checkpoint with --checkpoint, or take --all"
    )
    succeed("run", "export", D1, tmp_path / "a.tar", "--all", workspace=workspace)
    assert "added init, epoch-0001" in succeed(
        "run", "import", tmp_path / "a.tar", workspace=elsewhere
    )


def test_a_file_is_replaced_only_by_force(workspace, tmp_path):
    file = tmp_path / "a.tar"
    file.write_text("mine")
    assert fail("export", D1, file, workspace=workspace, status=2) == (
        f"file is {file}, which exists; replace it with --force"
    )
    assert file.read_text() == "mine"
    succeed("run", "export", D1, file, "--force", workspace=workspace)
    assert file.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "status", "reason"),
    [
        (["x", "a.tar"], 1, "no run 'x' in "),
        ([D1, "a.tar", "--checkpoint", "x"], 1, f"run '{D1}' has no checkpoint 'x'; choose one"),
        ([D1, "a.tar", "--checkpoint", "init", "--all"], 2, "all and checkpoint exclude"),
        ([D1, "."], 2, "file is ., which is a folder; name a file"),
        ([D1, "none/a.tar"], 2, "and none is no folder; make it first"),
        ([D1, "s3://bucket/a.tar"], 2, "s3://bucket/a.tar is an address; give a local file"),
    ],
)
def test_what_cannot_be_exported_is_one_sentence(
    workspace, tmp_path, monkeypatch, arguments, status, reason
):
    monkeypatch.chdir(tmp_path)
    assert reason in fail("export", *arguments, workspace=workspace, status=status)
    assert list(tmp_path.glob("*.tar*")) == []


def test_what_cannot_be_imported_is_one_sentence(workspace, tmp_path):
    assert "none.tar is no file; name" in fail("import", tmp_path / "none.tar", workspace=workspace)
    reason = fail("import", "s3://bucket/a.tar", workspace=workspace, status=2)
    assert reason == "s3://bucket/a.tar is an address; give a local file"
    file = tmp_path / "a.tar"
    succeed("run", "export", D1, file, workspace=workspace)
    file.write_bytes(file.read_bytes()[:50_000])
    reason = fail("import", file, workspace=workspace)
    assert re.search(
        r"a.tar (is damaged: .* is missing|cannot be read .*end of data\)); copy", reason
    )


@pytest.mark.parametrize("keep", ["activations", "grams"])
def test_what_is_stored_of_another_network_of_that_name_keeps_a_run_out(
    workspace, elsewhere, tmp_path, keep
):
    """It would be compared as if it were of the run that is imported."""
    file = tmp_path / "a.tar"
    succeed("run", "export", D1, file, workspace=workspace)
    config = run_record.read_record(workspace, D1).config
    other = [f"--{k.replace('_', '-')}={v}" for k, v in config.to_json().items()]
    succeed("train", *other, "--learning-rate", "0.05", workspace=elsewhere)
    succeed("extract", D1, *SAMPLES, "--keep", keep, workspace=elsewhere)
    remove_run(elsewhere, D1)
    reason = fail("import", file, workspace=elsewhere)
    assert f"holds activations or Grams of another {D1}@final; import into another" in reason
    succeed("store", "rm", f"{D1}@final", "--yes", workspace=elsewhere)
    succeed("run", "import", file, workspace=elsewhere)


def test_what_nothing_vouches_for_is_told(workspace, tmp_path):
    file = tmp_path / "a.tar"
    succeed("extract", D1, "--checkpoint", "all", *SAMPLES, workspace=workspace)
    succeed("run", "export", D1, file, "--checkpoint", "init", workspace=workspace)
    remove_run(workspace, D1)
    result = run("run", "import", file, workspace=workspace)
    assert result.exit_code == 0
    assert [line.partition(",")[0] for line in result.stderr.splitlines()] == [
        f"{D1}@epoch-0001 is stored",
        f"{D1}@final is stored",
    ]


# rm


def test_rm_shows_what_would_go_and_asks(workspace, terminal):
    succeed("extract", D1, *SAMPLES, workspace=workspace)
    taken = stored_bytes(workspace.run_folder(D1))
    result = run("run", "rm", D1, workspace=workspace, answer="n\n")
    assert result.exit_code == 1
    assert size(taken) in result.stdout
    assert "What is stored of them stays" in result.stdout
    assert workspace.runs() == [D1, D2]
    out = succeed("run", "rm", D1, workspace=workspace, answer="y\n")
    assert out.splitlines()[-1] == f"removed {size(taken)}"
    assert os.listdir(workspace.root / "runs") == [D2]
    assert len(store.open(workspace.activations).find(run=D1)) == 10


def test_rm_removes_several_runs_unasked(workspace):
    taken = stored_bytes(workspace.root / "runs")
    told = json.loads(succeed("run", "rm", D1, D2, D1, "--yes", "--json", workspace=workspace))
    assert [(each["run"], each["is_run"]) for each in told["removed"]] == [(D1, True), (D2, True)]
    assert told["bytes"] == taken
    assert os.listdir(workspace.root / "runs") == []


def test_rm_without_a_terminal_wants_yes(workspace):
    assert fail("rm", D1, "--json", workspace=workspace, status=2).startswith("--json shows nothi")
    result = run("run", "rm", D1, workspace=workspace)
    assert (result.exit_code, workspace.runs()) == (2, [D1, D2])
    assert "nothing is removed without asking" in result.stderr


def test_rm_of_one_that_is_not_there_removes_none(workspace):
    reason = fail("rm", D1, "x", "--yes", workspace=workspace)
    assert reason.startswith(f"no run 'x' in {workspace.root}; choose one of: {D1}, {D2}")
    fail("rm", "../x", "--yes", workspace=workspace, status=2)


@pytest.mark.parametrize("n_files", [0, 1, 20])
def test_a_killed_rm_leaves_no_run_and_a_second_one_clears_it(workspace, monkeypatch, n_files):

    def dies(place):
        for path in [p for p in place.rglob("*") if p.is_file()][:n_files]:
            path.unlink()
        if place.exists():
            raise KeyboardInterrupt

    monkeypatch.setattr("allcnn.workspace.run_listing.remove_tree", dies)
    result = run("run", "rm", D1, "--yes", workspace=workspace)
    assert result.exit_code == 130
    monkeypatch.undo()
    assert workspace.runs() == [D2]
    assert D1 not in succeed("run", "ls", workspace=workspace)
    out = succeed("run", "rm", D1, "--yes", workspace=workspace)
    assert "no run: left over" in out
    assert os.listdir(workspace.root / "runs") == [D2]
    fail("rm", D1, "--yes", workspace=workspace)


def test_a_folder_that_is_no_run_can_be_removed(workspace):
    (workspace.run_folder(D1) / "config.json").unlink()
    succeed("run", "rm", D1, "--yes", workspace=workspace)
    assert os.listdir(workspace.root / "runs") == [D2]


def test_a_link_is_not_removed(workspace, tmp_path):
    workspace.run_folder(D1).rename(tmp_path / "mine")
    workspace.run_folder(D1).symlink_to(tmp_path / "mine")
    reason = fail("rm", D1, "--yes", workspace=workspace)
    assert reason.endswith(f"{D1} is a symbolic link; delete the link itself")


def test_a_run_that_a_living_process_holds_stays(workspace):
    with claim(workspace.run_folder(D1)):
        result = run("run", "rm", D2, D1, "--yes", workspace=workspace)
        assert result.exit_code == 1
        assert f"run '{D1}' is being trained; end that process first" in result.stderr
    assert workspace.runs() == [D1, D2]


def test_a_run_that_is_trained_while_one_is_asked_stays(workspace, monkeypatch):
    held = []
    monkeypatch.setattr(
        "flows.views.runs.ask", lambda **_: held.append(claim(workspace.run_folder(D1)))
    )
    result = run("run", "rm", D1, workspace=workspace)
    assert result.exit_code == 1
    assert f"run '{D1}' is being trained; end that process first" in result.stderr
    assert workspace.runs() == [D1, D2]
    held[0].release()


def test_runs_of_an_address_are_listed_shown_and_removed(trained, tmp_path):
    place = Workspace.at("memory://runs/workspace")
    file = tmp_path / "a.tar"
    succeed("run", "export", D1, file, "--all", workspace=trained)
    succeed("run", "import", file, workspace=place)
    (one,) = json.loads(succeed("run", "ls", "--json", workspace=place))["runs"]
    assert one["n_bytes"] == stored_bytes(trained.run_folder(D1))
    shown = [
        json.loads(succeed("run", "show", D1, "--json", workspace=p)) for p in (trained, place)
    ]
    assert shown[0] == shown[1]
    succeed("run", "rm", D1, "--yes", workspace=place)
    assert "there are no runs yet" in run("run", "ls", workspace=place).stderr
