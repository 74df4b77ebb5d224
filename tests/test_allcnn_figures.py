"""Results and learning curves become JSON and pictures, each under its own name."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from allcnn.compare import describe
from allcnn.drawing import figure_files
from allcnn.similarity.layer_identification import identify
from allcnn.workspace.paths import Workspace
from flows.reporting.page import numbers_script
from flows.views.tables import matrix_table
from store import RepresentationKey
from tests.strategies import make_similarity

SAMPLE_SET = "digits-test-66-01234567"


def keys(run, checkpoint, *taps):
    return tuple(RepresentationKey(SAMPLE_SET, run, checkpoint, tap) for tap in taps)


def make_result(name="a-b", columns=("b", "final"), **changes):
    """Return a result of three rows and two columns, its last row not defined."""
    matrix = np.array([[0.9, 0.25], [0.5, -0.125], [np.nan, np.nan]])
    values = {
        "name": name,
        "rows": keys("a", "final", "conv1", "conv2", "logits"),
        "columns": keys(*columns, "conv1", "logits"),
        "values": matrix,
        "hsic": matrix,
        "n_examples": 1066,
        "kernel": "rbf",
        "sigma": 0.4,
        "batch_size": 8,
        "reasons": ((2, 0, "row 2 is dead"), (2, 1, "row 2 is dead")),
        "sources": (2, 3),
    }
    return make_similarity(**values | changes)


def picture_size(path):
    with Image.open(path) as picture:
        return picture.size


def test_json_has_everything_and_null_for_nan():
    values = json.loads(json.dumps(describe.matrix_json(make_result()), allow_nan=False))
    assert values == {
        "rows": ["conv1", "conv2", "logits"],
        "columns": ["conv1", "logits"],
        "matrix": [[0.9, 0.25], [0.5, -0.125], [None, None]],
        "measure": "cka",
        "kernel": "rbf",
        "estimator": "unbiased",
        "examples": 1066,
        "sigma": 0.4,
        "batch_size": 8,
        "pool": "whole",
        "label": None,
        "minibatches": 134,
        "skipped_minibatches": 0,
        "sample_set": SAMPLE_SET,
        "networks": [["a@final"], ["b@final"]],
        "sources": {"activations": 2, "grams": 3},
        "reasons": [[2, 0, "row 2 is dead"], [2, 1, "row 2 is dead"]],
    }


def read_json(result, **options):
    return json.loads(json.dumps(describe.matrix_json(result, **options), allow_nan=False))


def test_json_has_standard_errors_on_request():
    errors = np.array([[0.01, 0.02], [0.03, 0.04], [np.nan, np.nan]])
    reason = "2 of 6 standard errors are missing: CKA itself is not defined for 2"
    result = make_result(errors=errors, errors_reason=reason)
    assert "standard_errors" not in read_json(result)
    values = read_json(result, errors=True)
    assert values["standard_errors"] == [[0.01, 0.02], [0.03, 0.04], [None, None]]
    assert values["standard_errors_reason"] == reason
    assert values["standard_errors_caution"] == ""


def few(n):
    """Return a result with standard errors from so many minibatches."""
    return make_result(errors=np.full((3, 2), 0.01), minibatch_sizes=[8] * n, n_examples=8 * n)


FEW = "standard errors from {} minibatches, likely too small"


@pytest.mark.parametrize(("n", "doubt"), [(2, FEW), (7, FEW), (8, ""), (134, "")])
def test_standard_errors_from_few_minibatches_are_qualified_wherever_they_are_shown(n, doubt):
    result, doubt = few(n), doubt.format(n)
    assert read_json(result, errors=True)["standard_errors_caution"] == doubt
    assert read_json(result)["minibatches"] == n
    assert describe.method(result, errors=True) == describe.method(result) + (
        doubt and f"; {doubt}"
    )
    assert "likely" not in describe.method(result)
    numbers = json.loads(numbers_script(result).decode().partition(",")[2].rpartition(")")[0])
    assert (numbers["errors_caution"], numbers["n_minibatches"]) == (doubt, n)
    table = matrix_table(result, errors=True)
    assert table.count("likely too small") == bool(doubt)
    assert doubt in table
    assert "likely too small" not in matrix_table(result)


def test_older_results_count_their_minibatches_by_size():
    result = make_result(errors=np.full((3, 2), 0.01), n_examples=17)
    assert describe.errors_caution(result) == FEW.format(3)


def test_what_has_no_standard_errors_is_not_qualified():
    assert describe.errors_caution(make_result(n_examples=17)) == ""
    undefined = np.full((3, 2), np.nan)
    assert describe.errors_caution(make_result(n_examples=17, errors=undefined)) == ""


def test_numbers_in_a_table_never_touch():
    matrix = np.array([[660.461, -1234.5], [99.9996, 0.25], [np.nan, 1e9]])
    table = matrix_table(make_result(values=matrix)).splitlines()
    assert [line.split() for line in table[:4]] == [
        ["logits", "nan", "1e+09"],
        ["conv2", "100.000", "0.250"],
        ["conv1", "660.5", "-1234"],
        ["conv1", "logits"],
    ]
    assert len({len(line) for line in table[:4]}) == 1


def test_json_of_an_older_result_has_no_standard_errors():
    assert "standard_errors" not in read_json(make_result(), errors=True)


def test_json_sums_up_the_baseline():
    baseline = np.zeros((4, 3, 2))
    baseline[:, 0, 1] = (-0.25, 0.5, 0.25, 0.5)
    baseline[:, 2] = np.nan
    values = read_json(make_result(baseline=baseline))["baseline"]
    assert values["permutations"] == 4
    assert values["mean"] == [[0, 0.25], [0, 0], [None, None]]
    assert values["largest"] == [[0, 0.5], [0, 0], [None, None]]


def test_json_says_which_class_and_how_much_was_skipped():
    values = read_json(make_result(label=3, n_skipped=2, pool="mean"))
    assert (values["label"], values["skipped_minibatches"], values["pool"]) == (3, 2, "mean")


ROWS = [*keys("a", "init", "conv1"), *keys("a", "final", "conv1"), *keys("b", "final", "conv1")]


def test_json_of_many_networks_tells_their_taps_apart():
    values = read_json(make_result(rows=tuple(ROWS)))
    assert values["rows"] == ["a@init:conv1", "a@final:conv1", "b@final:conv1"]
    assert values["columns"] == ["conv1", "logits"]
    assert values["networks"] == [["a@init", "a@final", "b@final"], ["b@final"]]


def test_json_of_the_linear_kernel_has_no_sigma():
    assert describe.matrix_json(make_result(kernel="linear", sigma=None))["sigma"] is None


def test_a_panel_keeps_rows_and_columns_apart():
    panel = figure_files.panel(make_result(), "title")
    assert panel.matrix.shape == (3, 2)
    assert (panel.rows, panel.columns) == (["conv1", "conv2", "logits"], ["conv1", "logits"])
    assert (panel.row_label, panel.column_label) == ("a@final", "b@final")
    assert panel.title == "title"
    assert (panel.row_groups, panel.column_groups, panel.errors) == (None, None, None)


def test_a_panel_of_many_networks_has_groups():
    rows = (*keys("a", "init", "conv1", "conv2"), *keys("b", "final", "conv1"))
    panel = figure_files.panel(make_result(rows=rows))
    assert panel.rows == ["conv1", "conv2", "conv1"]
    assert panel.row_label == "2 networks"
    assert panel.row_groups == [("a@init", 2), ("b@final", 1)]
    assert panel.column_groups is None


def test_a_panel_has_standard_errors_on_request():
    errors = np.full((3, 2), 0.01)
    result = make_result(errors=errors)
    assert figure_files.panel(result).errors is None
    np.testing.assert_array_equal(figure_files.panel(result, errors=True).errors, errors)


@pytest.mark.parametrize(
    ("changes", "title"),
    [
        ({}, "RBF 0.4 CKA, unbiased, 1,066 examples in minibatches of 8"),
        (
            {"kernel": "linear", "sigma": None},
            "linear CKA, unbiased, 1,066 examples in minibatches of 8",
        ),
        (
            {"kernel": "cosine", "sigma": None, "pool": "mean", "label": 3},
            "cosine (mean over space) CKA, unbiased, class 3, 1,066 examples in minibatches of 8",
        ),
        (
            {"estimator": "exact", "batch_size": 1066},
            "RBF 0.4 CKA, exact, 1,066 examples",
        ),
    ],
)
def test_a_comparison_is_drawn_under_its_name(tmp_path, monkeypatch, changes, title):
    titles, panel = [], figure_files.panel
    monkeypatch.setattr(
        figure_files,
        "panel",
        lambda result, text, **how: titles.append(text) or panel(result, text, **how),
    )
    path = figure_files.draw_comparison(Workspace.at(tmp_path), make_result(**changes))
    assert path == tmp_path / "figures" / "a-b.png"
    assert min(picture_size(path)) > 100
    assert titles == [title]


def test_a_comparison_with_errors_has_a_picture_of_its_own(tmp_path):
    result = make_result(errors=np.full((3, 2), 0.01))
    path = figure_files.draw_comparison(Workspace.at(tmp_path), result, errors=True)
    assert path == tmp_path / "figures" / "a-b-errors.png"
    assert min(picture_size(path)) > 100


def test_classes_are_drawn_in_a_grid(tmp_path):
    workspace = Workspace.at(tmp_path)
    classes = [make_result(f"class{label}", label=label) for label in range(10)]
    path = figure_files.draw_classes(workspace, classes)
    assert path == tmp_path / "figures" / "classes-class0.png"
    few = figure_files.draw_classes(workspace, [replace(classes[0], name="few"), classes[1]])
    assert picture_size(path) > picture_size(few)


def with_minibatches(b=3, **changes):
    """Return a result with the sums of some minibatches, which differ in their sizes."""
    cross = np.random.default_rng(0).uniform(0.1, 0.9, (b, 3, 2))
    sizes = np.arange(8.0, 8 + b)
    return make_result(
        minibatch_sizes=sizes,
        hsic_minibatches=cross,
        hsic_rows_minibatches=np.ones((b, 3)),
        hsic_columns_minibatches=np.ones((b, 2)),
        errors=np.full((3, 2), 0.01),
        **changes,
    )


def test_the_minibatches_of_a_result_are_its_sums():
    result = with_minibatches()
    parts = figure_files.parts_of(result)
    assert len(parts) == 3
    assert parts.sizes.tolist() == [8, 9, 10]
    assert parts.sizes.dtype == np.int64
    np.testing.assert_array_equal(parts.cross, result.sums("minibatches"))
    np.testing.assert_array_equal(parts.rows, result.sums("rows_minibatches"))
    np.testing.assert_array_equal(parts.columns, result.sums("columns_minibatches"))


def test_a_result_of_an_older_version_has_no_minibatches(tmp_path):
    message = "result a-b has no sums of minibatches; compute it again"
    with pytest.raises(ValueError, match=message):
        figure_files.draw_convergence(Workspace.at(tmp_path), make_result())


def test_convergence_is_drawn_from_the_minibatches(tmp_path, monkeypatch):
    drawn, curves = [], figure_files.curves.convergence_curves
    monkeypatch.setattr(
        figure_files.curves,
        "convergence_curves",
        lambda *values, **options: drawn.append(values) or curves(*values, **options),
    )
    result = with_minibatches()
    path = figure_files.draw_convergence(Workspace.at(tmp_path), result)
    assert path == tmp_path / "figures" / "a-b-convergence.png"
    assert min(picture_size(path)) > 100
    ((values, *_),) = drawn
    # All self-sums are 1 a minibatch, so CKA is the mean of the sums so far.
    wanted = np.cumsum(result.sums("minibatches"), axis=0) / np.arange(1, 4)[:, None, None]
    np.testing.assert_allclose(values, wanted, rtol=1e-12)


def test_a_baseline_is_drawn(tmp_path):
    baseline = np.random.default_rng(0).normal(0, 0.1, (20, 3, 2))
    path = figure_files.draw_baseline(Workspace.at(tmp_path), make_result(baseline=baseline))
    assert path == tmp_path / "figures" / "a-b-baseline.png"
    assert min(picture_size(path)) > 100


def test_identified_layers_are_drawn(tmp_path):
    matrix = np.random.default_rng(0).uniform(size=(6, 6))
    found = identify(matrix, ["a", "a", "a", "b", "b", "b"], 2 * ["conv1", "conv2", "logits"])
    path = figure_files.draw_identification(
        Workspace.at(tmp_path), {"linear": found}, "d1", "title"
    )
    assert path == tmp_path / "figures" / "identify-d1.png"
    assert min(picture_size(path)) > 100


def test_stages_are_drawn_one_beside_the_other(tmp_path):
    workspace = Workspace.at(tmp_path)
    stages = [make_result(name, ("a", name)) for name in ("init", "epoch-0005", "final")]
    path = figure_files.draw_stages(workspace, stages)
    assert path == tmp_path / "figures" / f"stages-{stages[-1].name}.png"
    one = figure_files.draw_stages(workspace, [replace(stages[0], name="another")])
    assert one == tmp_path / "figures" / "stages-another.png"
    assert picture_size(path)[0] > picture_size(one)[0]


def test_learning_curves_are_drawn(workspace):
    path = figure_files.draw_learning_curves(workspace, workspace.runs(), "curves")
    assert path == workspace.figures / "curves.png"
    assert min(picture_size(path)) > 100
