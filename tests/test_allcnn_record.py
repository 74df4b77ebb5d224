"""A run's own account of itself: settings, data and learning curves, there and back."""

import pytest

from allcnn.errors import RunError
from allcnn.settings.run import RunConfig
from allcnn.workspace import run_record, sealed_json
from allcnn.workspace.paths import Workspace
from allcnn.workspace.run_record import Epoch, RunRecord

ENTRY = RunRecord(RunConfig.of(depth=2, width=0.5), ("cat", "dog", "ship"), 3)
RUN = ENTRY.config.name


@pytest.fixture
def written(tmp_path):
    workspace = Workspace.at(tmp_path)
    run_record.write_record(workspace, ENTRY)
    return workspace


def change(workspace, **values):
    path = workspace.run_folder(RUN) / "config.json"
    sealed_json.write_sealed(path, sealed_json.read_sealed(path) | values)


def test_a_record_is_read_as_it_was_written(written):
    assert run_record.read_record(written, RUN) == ENTRY
    assert written.runs() == [RUN]


def test_a_record_decides_the_network():
    network = ENTRY.network
    assert (network.n_classes, network.input_channels, len(network.taps)) == (3, 3, 17)
    assert network.layers.blocks[0].features == 48
    assert network.image_size == ENTRY.config.image_size


def test_an_unknown_run_is_told_which_exist(written):
    with pytest.raises(RunError, match=f"no run 'other' in .*; choose one of: {RUN}"):
        run_record.read_record(written, "other")
    with pytest.raises(RunError, match=f"no run 'other' in .*; choose one of: {RUN}"):
        run_record.read_history(written, "other")


@pytest.mark.parametrize(
    "values",
    [
        {"schema_version": 3},
        {"schema_version": None},
        {"config": {}},
        {"config": 7},
        {"config": ENTRY.config.to_json() | {"depth": 0}},
        {"config": ENTRY.config.to_json() | {"depth": "2"}},
        {"class_names": None},
        {"input_channels": "three"},
    ],
)
def test_a_record_of_another_version_is_refused(written, values):
    change(written, **values)
    with pytest.raises(RunError, match=r"config.json does not describe a run .*use the version"):
        run_record.read_record(written, RUN)


def test_a_record_that_is_no_object_is_refused(written):
    (written.run_folder(RUN) / "config.json").write_text("[]")
    with pytest.raises(RunError, match="does not describe a run"):
        run_record.read_record(written, RUN)


def test_the_same_settings_pass():
    assert run_record.check_same(RunConfig.of(), RunConfig.of()) is None


def test_the_final_accuracy_is_that_of_the_last_epoch(workspace):
    history = run_record.read_history(workspace, "small-d1-v2-s0")
    assert run_record.final_accuracy(workspace, "small-d1-v2-s0") == history[-1].test_accuracy


def test_a_run_without_learning_curves_has_no_accuracy(written):
    with pytest.raises(RunError, match=f"run '{RUN}' has no learning curves; restore its history"):
        run_record.final_accuracy(written, RUN)


def test_each_setting_that_differs_is_named_with_both_values():
    wanted = ENTRY.config.but(learning_rate=0.05, epochs=10)
    message = (
        r"^run 'allcnn-d2-v2-s0' exists with epochs 20 \(asked for: 10\),"
        r" learning-rate 0.1 \(asked for: 0.05\); ask for the same settings, or use another"
    )
    with pytest.raises(RunError, match=message):
        run_record.check_same(ENTRY.config, wanted)


def test_history_is_read_as_it_was_written(written):
    assert run_record.read_history(written, RUN) == ()
    history = (Epoch(1, 2.3, 0.1, 2.2, 0.2, 1.5), Epoch(2, 1.25, 0.5, 1.0, 0.625, 1.25))
    run_record.write_history(written, RUN, history)
    assert run_record.read_history(written, RUN) == history
    assert run_record.columns(history)["test_accuracy"] == [0.2, 0.625]
    assert list(run_record.columns(())) == list(Epoch._fields)


@pytest.mark.parametrize("content", ['[{"epoch": 1}]', "[7]", "7"])
def test_damaged_history_is_named(written, content):
    (written.run_folder(RUN) / "history.json").write_text(content)
    with pytest.raises(RunError, match=r"history.json holds no learning curves .*restore it from"):
        run_record.read_history(written, RUN)
