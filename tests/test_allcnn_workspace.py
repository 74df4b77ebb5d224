"""The workspace: paths inside one root, what exists there."""

import json
import os
import shutil

import pytest

from allcnn.drawing import figure_files
from allcnn.errors import ConfigError, RunError, WorkspaceError
from allcnn.training import loop
from allcnn.workspace import run_export, run_listing, run_record
from allcnn.workspace.checkpoint_names import checkpoint_epoch, checkpoint_name
from allcnn.workspace.nightly_ledger import Ledger
from allcnn.workspace.paths import Workspace, read_json, write_json
from flows.maintenance.nightly_run import holding
from tests.commands import contents

OUTSIDE = ["../x", "/etc", "a/b", "..", ""]


@pytest.fixture
def sketch(tmp_path):
    """Return a workspace with two runs, of one of which there are checkpoints; no arrays."""
    for run in ("b", "a"):
        (tmp_path / "runs" / run).mkdir(parents=True)
        (tmp_path / "runs" / run / "config.json").write_text("{}")
    (tmp_path / "runs" / "unfinished").mkdir()
    for name in ("final", "epoch-10000", "epoch-0005", "init", "epoch-0010"):
        (tmp_path / "runs" / "a" / "checkpoints" / name).mkdir(parents=True)
    return Workspace.at(tmp_path)


def test_the_root_is_absolute_and_need_not_exist(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    workspace = Workspace.at("new/place")
    assert workspace.root == tmp_path / "new" / "place"
    assert not workspace.root.exists()
    assert workspace.runs() == []


def test_the_home_folder_is_understood(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Workspace.at("~/work").root == tmp_path / "work"


def test_a_home_that_does_not_exist_is_no_workspace():
    with pytest.raises(WorkspaceError, match=r"the workspace ~nobody-of-that-name/a cannot be fou"):
        Workspace.at("~nobody-of-that-name/a")


def test_everything_lies_below_the_root(sketch):
    for path in (sketch.activations, sketch.similarity, sketch.figures, sketch.run_folder("a")):
        assert sketch.root in path.parents


def test_a_file_is_no_workspace(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkspaceError, match=r"file is a file; name a folder with --workspace$"):
        Workspace.at(tmp_path / "file")
    with pytest.raises(WorkspaceError, match=r"below would lie in .*file, which is a file; name"):
        Workspace.at(tmp_path / "file" / "below")


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_would_leave_the_workspace_are_refused(sketch, name):
    for find in (sketch.run_folder, sketch.find_run, sketch.checkpoints_folder):
        with pytest.raises(ConfigError, match=r"^run .* is not a name"):
            find(name)
    with pytest.raises(ConfigError, match=r"^checkpoint .* is not a name"):
        sketch.find_checkpoint("a", name)


def test_runs_are_those_with_settings(sketch):
    assert sketch.runs() == ["a", "b"]
    assert sketch.find_run("a") == sketch.root / "runs" / "a"


def test_an_unknown_run_is_told_which_exist(sketch, tmp_path):
    with pytest.raises(RunError, match=r"no run 'c' in .*; choose one of: a, b, or train it first"):
        sketch.find_run("c")
    with pytest.raises(RunError, match=r"no run 'c' in .*; there are no runs yet, or train it"):
        Workspace.at(tmp_path / "empty").find_run("c")


def test_checkpoints_are_in_the_order_of_training(sketch):
    wanted = ["init", "epoch-0005", "epoch-0010", "epoch-10000", "final"]
    assert sketch.checkpoints("a") == wanted
    assert sketch.checkpoints("b") == []


def test_checkpoints_in_the_making_are_not_listed(sketch):
    folder = sketch.checkpoints_folder("a")
    known = sketch.checkpoints("a")
    for name in ("epoch-0015.orbax-checkpoint-tmp", "final.orbax-checkpoint-tmp-17", "epoch-15"):
        (folder / name).mkdir()
    assert sketch.checkpoints("a") == known


def test_an_unknown_checkpoint_is_told_which_exist(sketch):
    with pytest.raises(RunError, match="run 'a' has no checkpoint 'epoch-0007'; choose one of:"):
        sketch.find_checkpoint("a", "epoch-0007")
    with pytest.raises(RunError, match="run 'b' has no checkpoint 'final'; there are no check"):
        sketch.find_checkpoint("b", "final")
    assert sketch.find_checkpoint("a", "final").name == "final"


@pytest.mark.parametrize(
    ("epoch", "name"), [(0, "init"), (1, "epoch-0001"), (350, "epoch-0350"), (12345, "epoch-12345")]
)
def test_checkpoint_names_and_epochs_agree(epoch, name):
    assert checkpoint_name(epoch) == name
    assert checkpoint_epoch(name) == epoch


def test_final_comes_after_every_epoch():
    assert checkpoint_epoch("final") > checkpoint_epoch("epoch-99999999")


def test_json_is_read_as_it_was_written(tmp_path):
    values = {"a": [1, 2.5, None], "b": "ü"}
    write_json(tmp_path / "x.json", values)
    assert read_json(tmp_path / "x.json") == values
    assert os.listdir(tmp_path) == ["x.json"]


def test_a_crash_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    write_json(tmp_path / "x.json", "old")

    def crash(*args):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(OSError, match="no space left"):
        write_json(tmp_path / "x.json", "new")
    assert json.loads((tmp_path / "x.json").read_text()) == "old"


@pytest.mark.parametrize("content", [b"", b'{"a": ', b"\xff\xfe"])
def test_damaged_json_is_named(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(WorkspaceError, match=r"x.json is no JSON .*; restore it from a copy$"):
        read_json(tmp_path / "x.json")


# Links


@pytest.mark.parametrize("names", [("report",), ("report", "data"), ("nightly", "a", "b")])
@pytest.mark.parametrize("n", [1, 2])
def test_what_is_our_own_does_not_lie_elsewhere(tmp_path, names, n):
    place = Workspace.at(tmp_path / "here")
    assert place.own(*names) == place.root.joinpath(*names)
    elsewhere = tmp_path / "here-too"  # a name that begins as the workspace's does
    elsewhere.mkdir()
    link = place.root.joinpath(*names[:n])
    link.parent.mkdir(parents=True)
    link.symlink_to(elsewhere)
    message = rf"leads by a symbolic link to {elsewhere}.*, out of {place.root}; delete the link"
    with pytest.raises(WorkspaceError, match=message):
        place.own(*names)


def test_links_that_stay_inside_and_links_to_the_workspace_are_followed(tmp_path):
    (tmp_path / "disk/there").mkdir(parents=True)
    (tmp_path / "here").symlink_to(tmp_path / "disk")
    (tmp_path / "disk/report").symlink_to(tmp_path / "disk/there")
    place = Workspace.at(tmp_path / "here")
    assert place.own("report", "data") == tmp_path / "here/report/data"


def test_the_folder_of_runs_may_lie_on_another_disk_but_no_run_outside_of_it(tmp_path):
    (tmp_path / "disk/other").mkdir(parents=True)
    place = Workspace.at(tmp_path / "here")
    place.root.mkdir()
    (place.root / "runs").symlink_to(tmp_path / "disk")
    assert place.own("runs", "a") == place.root / "runs/a"
    (tmp_path / "disk/a").symlink_to(tmp_path)
    with pytest.raises(WorkspaceError, match=r"out of .*/here/runs; delete the link"):
        place.own("runs", "a")


RUN = "small-d1-v2-s0"


def draw(place, _):
    figure_files.draw_learning_curves(place, [RUN], "curves")


def go_on(place, _):
    shutil.rmtree(place.checkpoints_folder(RUN) / "final")
    loop.train(run_record.read_record(place, RUN).config, place)


def bring(place, exported):
    shutil.rmtree(place.checkpoints_folder(RUN) / "final")
    run_export.import_run(place, exported, lambda *_: None)


def note(place, _):
    Ledger().write(place)


def spend_night(place, _):
    with holding(place, None):
        pass


WRITERS = [
    ("figures", draw),
    ("nightly", note),
    ("nightly", spend_night),
    *[(f"runs/{RUN}{name}", work) for name in ("", "/checkpoints") for work in (go_on, bring)],
]


@pytest.mark.parametrize(("linked", "work"), WRITERS)
def test_nobody_writes_through_a_link_out_of_the_workspace(workspace, tmp_path, linked, work):
    exported, link, elsewhere = tmp_path / "run.tar", workspace.root / linked, tmp_path / "other"
    run_export.export_run(workspace, RUN, exported)
    if link.exists():
        shutil.move(link, elsewhere)
    else:
        elsewhere.mkdir()
        (elsewhere / "curves.png").write_text("mine")
    link.symlink_to(elsewhere)
    before = contents(elsewhere)
    with pytest.raises(WorkspaceError, match=r"by a symbolic link to .*; delete the link"):
        work(workspace, exported)
    kept = {name: each for name, each in before.items() if "final" not in name}
    assert {n: each for n, each in contents(elsewhere).items() if "final" not in n} == kept


def test_a_run_is_removed_without_what_a_link_in_it_leads_to(workspace, tmp_path):
    folder = workspace.checkpoints_folder(RUN)
    shutil.move(folder, tmp_path / "other")
    folder.symlink_to(tmp_path / "other")
    before = contents(tmp_path / "other")
    run_listing.remove_run(workspace, RUN)
    assert contents(tmp_path / "other") == before
    assert RUN not in os.listdir(workspace.root / "runs")
