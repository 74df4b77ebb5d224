"""From results and learning curves to files in the workspace's folder of figures."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from allcnn import plots, record
from allcnn.compare import SimilarityResult, network_of
from allcnn.plots import Panel
from allcnn.workspace import Workspace


def matrix_json(result: SimilarityResult) -> dict[str, Any]:
    """Return a result as JSON values: tap names and nested lists, NaN as null."""
    matrix = [[None if np.isnan(x) else x for x in row] for row in result.cka.tolist()]
    return {
        "rows": [key.tap for key in result.rows],
        "columns": [key.tap for key in result.columns],
        "matrix": matrix,
        "kernel": result.kernel,
        "estimator": result.estimator,
        "examples": result.n_examples,
        "sigma": result.sigma,
        "batch_size": result.batch_size,
        "sample_set": result.rows[0].sample_set,
        "networks": [str(network_of(keys[0])) for keys in (result.rows, result.columns)],
        "reasons": [list(reason) for reason in result.reasons],
    }


def panel(result: SimilarityResult, title: str = "") -> Panel:
    """Return a result as something to draw."""
    return Panel(
        matrix=result.cka,
        rows=[key.tap for key in result.rows],
        columns=[key.tap for key in result.columns],
        title=title,
        row_label=str(network_of(result.rows[0])),
        column_label=str(network_of(result.columns[0])),
    )


def draw_comparison(workspace: Workspace, result: SimilarityResult) -> Path:
    """Draw the heat map of one comparison; return the picture's path."""
    figure = plots.heatmap(panel(result, _method(result)))
    return plots.save(figure, workspace.figures / f"{result.name}.png")


def draw_stages(workspace: Workspace, results: Sequence[SimilarityResult]) -> Path:
    """Draw one network's last checkpoint against its earlier ones, in a grid."""
    final = network_of(results[0].rows[0])
    # One label for all columns, so that the axes are named once.
    panels = [
        replace(panel(result, network_of(result.columns[0]).checkpoint), column_label=final.run)
        for result in results
    ]
    title = f"{final} against its checkpoints: {_method(results[0])}"
    figure = plots.heatmap_grid(panels, title)
    # The name of the result of the final network with itself tells sigma and all else apart.
    return plots.save(figure, workspace.figures / f"stages-{results[-1].name}.png")


def draw_learning_curves(workspace: Workspace, runs: Sequence[str], name: str) -> Path:
    """Draw loss and accuracy over the epochs of some runs."""
    histories = {run: record.columns(record.read_history(workspace, run)) for run in runs}
    return plots.save(plots.learning_curves(histories), workspace.figures / f"{name}.png")


def _method(result: SimilarityResult) -> str:
    kernel = f"RBF {result.sigma:g}" if result.sigma is not None else result.kernel
    examples = f"{result.n_examples:,} examples in minibatches of {result.batch_size}"
    return f"{kernel} CKA, {result.estimator}, {examples}"
