"""Seals of JSON documents: any change of a byte is noticed, and earlier versions are read."""

import json

import pytest

from allcnn.errors import AllcnnError, RunError, WorkspaceError
from allcnn.settings.run import RunConfig
from allcnn.workspace import run_record
from allcnn.workspace.paths import Workspace
from allcnn.workspace.run_record import Epoch, RunRecord
from allcnn.workspace.sealed_json import is_sealed, read_sealed, write_sealed

VALUES = {"schema_version": 2, "name": "é", "rate": 0.1, "n": 0.30000000000000004, "of": [1, None]}
HISTORY = (Epoch(1, 2.25, 0.1, 2.2, 0.2, 1.5), Epoch(2, 1.3, 0.5, 1.0, 0.625, 1.25))


@pytest.fixture
def file(tmp_path):
    write_sealed(tmp_path / "values.json", VALUES)
    return tmp_path / "values.json"


def test_values_are_read_as_they_were_written(file):
    assert read_sealed(file) == VALUES
    assert is_sealed(file)
    assert {**json.loads(file.read_text()), "seal": None} == {**VALUES, "seal": None}


def test_every_flipped_bit_and_every_cut_is_noticed(file):
    content = file.read_bytes()
    for n in range(len(content)):
        for changed in (*(flipped(content, n, bit) for bit in range(8)), content[:n]):
            file.write_bytes(changed)
            try:
                values = read_sealed(file)
            except (AllcnnError, RecursionError):
                continue
            # Another version's, which its reader refuses.
            assert values["schema_version"] > 2 or not isinstance(values["schema_version"], int)


def flipped(content, n, bit):
    return content[:n] + bytes([content[n] ^ 1 << bit]) + content[n + 1 :]


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace("0.30000000000000004", "0.30000000000000005"),  # the same number
        lambda text: text.replace("\n ", "\n  "),
        lambda text: text + "\n",
    ],
)
def test_a_change_that_changes_no_value_is_noticed_too(file, edit):
    before, text = file.read_text(), edit(file.read_text())
    assert text != before
    file.write_text(text)
    with pytest.raises(RunError, match=r"is not what was written \(its seal is of another conten"):
        read_sealed(file)


def test_a_name_that_stands_in_it_twice_is_noticed_before_its_seal(file):
    before = file.read_text()
    file.write_text(before.replace('"n":', '"n": 1,\n "n":'))
    assert file.read_text() != before
    with pytest.raises(WorkspaceError, match=r"is no JSON \(the name 'n' stands in it twice\)"):
        read_sealed(file)


def test_the_advice_helps(file):
    """Whoever changed a document by hand can have it read."""
    values = json.loads(file.read_text()) | {"rate": 0.2}
    file.write_text(json.dumps(values))
    with pytest.raises(RunError, match="delete its seal and write schema_version 1"):
        read_sealed(file)
    del values["seal"]
    file.write_text(json.dumps(values))
    with pytest.raises(RunError, match="it has lost its seal"):
        read_sealed(file)
    file.write_text(json.dumps(values | {"schema_version": 1}))
    assert read_sealed(file)["rate"] == 0.2
    assert not is_sealed(file)


# Of runs


def write_run(workspace, history=HISTORY, **settings):
    entry = RunRecord(
        RunConfig.of(**{"epochs": 2} | settings), ("cat", "dog"), 3, "2026-01-31T12:00+00:00"
    )
    run_record.write_record(workspace, entry)
    run_record.write_history(workspace, entry.config.name, history)
    return entry.config.name


def files_of(workspace, run):
    return workspace.run_folder(run) / "config.json", workspace.run_folder(run) / "history.json"


@pytest.mark.parametrize(
    "others", [{"seed": 1}, {"weight_decay": 1e-4}, {"learning_rate": 0.05}, {"epochs": 3}]
)
def test_curves_of_another_run_are_refused(tmp_path, others):
    here, there = Workspace.at(tmp_path / "here"), Workspace.at(tmp_path / "there")
    run, other = write_run(here), write_run(there, HISTORY[:1], **others)
    _, history = files_of(here, run)
    history.write_bytes(files_of(there, other)[1].read_bytes())
    message = rf"history.json holds the learning curves of another run, '{other}' with other sett"
    with pytest.raises(RunError, match=message):
        run_record.read_history(here, run)


def test_runs_of_earlier_versions_are_read_and_sealed_when_they_are_written_again(tmp_path):
    workspace = Workspace.at(tmp_path)
    run = write_run(workspace)
    config, history = files_of(workspace, run)
    entry = run_record.read_record(workspace, run)
    old = {name: each for name, each in json.loads(config.read_text()).items() if name != "seal"}
    config.write_text(json.dumps(old | {"schema_version": 1}))
    history.write_text(json.dumps([row._asdict() for row in HISTORY]))
    assert run_record.read_record(workspace, run) == entry
    assert run_record.read_history(workspace, run) == HISTORY
    assert not is_sealed(config)
    assert not is_sealed(history)
    run_record.write_record(workspace, entry)
    run_record.write_history(workspace, run, HISTORY)
    assert is_sealed(config)
    assert is_sealed(history)
    assert run_record.read_history(workspace, run) == HISTORY


def test_curves_go_on_where_a_setting_came_later(tmp_path, monkeypatch):
    """What they say of their run is compared as settings, not as text."""
    workspace = Workspace.at(tmp_path)
    run = write_run(workspace)
    _, history = files_of(workspace, run)
    values = read_sealed(history)
    del values["of"]["config"]["precision"]  # as version 0.1 wrote it
    write_sealed(history, values)
    assert run_record.read_history(workspace, run) == HISTORY
