"""Results and learning curves become JSON and pictures, each under its own name."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from allcnn import figures
from allcnn.compare import SimilarityResult
from allcnn.workspace import Workspace
from store import RepresentationKey

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
        "cka": matrix,
        "hsic": matrix,
        "hsic_rows": np.ones(3),
        "hsic_columns": np.ones(2),
        "n_examples": 1066,
        "kernel": "rbf",
        "sigma": 0.4,
        "estimator": "unbiased",
        "batch_size": 8,
        "reasons": ((2, 0, "row 2 is dead"), (2, 1, "row 2 is dead")),
    }
    return SimilarityResult(**values | changes)


def picture_size(path):
    with Image.open(path) as picture:
        return picture.size


def test_json_has_everything_and_null_for_nan():
    values = json.loads(json.dumps(figures.matrix_json(make_result()), allow_nan=False))
    assert values == {
        "rows": ["conv1", "conv2", "logits"],
        "columns": ["conv1", "logits"],
        "matrix": [[0.9, 0.25], [0.5, -0.125], [None, None]],
        "kernel": "rbf",
        "estimator": "unbiased",
        "examples": 1066,
        "sigma": 0.4,
        "batch_size": 8,
        "sample_set": SAMPLE_SET,
        "networks": ["a@final", "b@final"],
        "reasons": [[2, 0, "row 2 is dead"], [2, 1, "row 2 is dead"]],
    }


def test_json_of_the_linear_kernel_has_no_sigma():
    assert figures.matrix_json(make_result(kernel="linear", sigma=None))["sigma"] is None


def test_a_panel_keeps_rows_and_columns_apart():
    panel = figures.panel(make_result(), "title")
    assert panel.matrix.shape == (3, 2)
    assert (panel.rows, panel.columns) == (["conv1", "conv2", "logits"], ["conv1", "logits"])
    assert (panel.row_label, panel.column_label) == ("a@final", "b@final")
    assert panel.title == "title"


@pytest.mark.parametrize(
    ("changes", "title"),
    [
        ({}, "RBF 0.4 CKA, unbiased, 1,066 examples in minibatches of 8"),
        (
            {"kernel": "linear", "sigma": None},
            "linear CKA, unbiased, 1,066 examples in minibatches of 8",
        ),
    ],
)
def test_a_comparison_is_drawn_under_its_name(tmp_path, monkeypatch, changes, title):
    titles, panel = [], figures.panel
    monkeypatch.setattr(
        figures, "panel", lambda result, text: titles.append(text) or panel(result, text)
    )
    path = figures.draw_comparison(Workspace.at(tmp_path), make_result(**changes))
    assert path == tmp_path / "figures" / "a-b.png"
    assert min(picture_size(path)) > 100
    assert titles == [title]


def test_stages_are_drawn_one_beside_the_other(tmp_path):
    workspace = Workspace.at(tmp_path)
    stages = [make_result(name, ("a", name)) for name in ("init", "epoch-0005", "final")]
    path = figures.draw_stages(workspace, stages)
    assert path == tmp_path / "figures" / f"stages-{stages[-1].name}.png"
    one = figures.draw_stages(workspace, [replace(stages[0], name="another")])
    assert one == tmp_path / "figures" / "stages-another.png"
    assert picture_size(path)[0] > picture_size(one)[0]


def test_learning_curves_are_drawn(workspace):
    path = figures.draw_learning_curves(workspace, workspace.runs(), "curves")
    assert path == workspace.figures / "curves.png"
    assert min(picture_size(path)) > 100
