"""From results and learning curves to files in the workspace's folder of figures, and to JSON."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from allcnn.compare import SimilarityResult, network_of
from allcnn.compare.describe import method, side
from allcnn.drawing import curves, matrices
from allcnn.drawing.canvas import save
from allcnn.drawing.panel import Panel
from allcnn.drawing.style import PAGE, SCREEN, Style
from allcnn.errors import ComparisonError
from allcnn.similarity.jackknife import convergence
from allcnn.similarity.layer_identification import Identification
from allcnn.similarity.measures import MEASURES
from allcnn.similarity.pair_sums import MinibatchSums
from allcnn.workspace import run_record
from allcnn.workspace.paths import Workspace
from store.storage.paths import Place


def panel(result: SimilarityResult, title: str = "", *, errors: bool = False) -> Panel:
    """Return a result as something to draw."""
    rows, columns = side(result.rows), side(result.columns)
    return Panel(
        matrix=result.values,
        rows=rows.names,
        columns=columns.names,
        title=title,
        row_label=rows.label,
        column_label=columns.label,
        errors=result.errors if errors else None,
        row_groups=rows.groups,
        column_groups=columns.groups,
        measure=result.title,
        limits=result.limits,
    )


def draw_comparison(
    workspace: Workspace, result: SimilarityResult, *, errors: bool = False
) -> Place:
    """Draw the heat map of one comparison; return the picture's path."""
    title = method(result, errors=errors)
    figure = matrices.matrix(panel(result, title, errors=errors), SCREEN)
    return _keep(workspace, figure, f"{result.name}{'-errors' if errors else ''}")


def draw_classes(workspace: Workspace, results: Sequence[SimilarityResult]) -> Place:
    """Draw the matrices of single classes in a grid."""
    panels = [panel(result, f"class {result.label}") for result in results]
    title = method(replace(results[0], label=None), examples=False)
    return _keep(workspace, matrices.grid(panels, title, SCREEN), f"classes-{results[0].name}")


def draw_convergence(workspace: Workspace, result: SimilarityResult) -> Place:
    """Draw values against the number of minibatches that it is summed over."""
    figure = convergence_figure(result, method(result, errors=True))
    return _keep(workspace, figure, f"{result.name}-convergence")


def convergence_figure(
    result: SimilarityResult,
    title: str,
    layers: Callable[[list[str]], Sequence[str]] = list,
    style: Style = PAGE,
) -> Figure:
    """Return a figure of values against the number of minibatches; ``layers`` names the taps."""
    parts, pairs = parts_of(result), _pairs(result, title, layers)
    values = convergence(parts, MEASURES.make(result.method["measure"], result.method))
    return curves.convergence_curves(
        values, sizes=parts.sizes, errors=result.errors, style=style, **pairs
    )


def draw_baseline(workspace: Workspace, result: SimilarityResult) -> Place:
    """Draw values beside those of examples matched at random."""
    assert result.baseline is not None
    pairs = _pairs(result, method(result))
    figure = curves.baseline_plot(result.values, result.baseline, **pairs)
    return _keep(workspace, figure, f"{result.name}-baseline")


def _pairs(
    result: SimilarityResult, title: str, layers: Callable[[list[str]], Sequence[str]] = list
) -> dict[str, Any]:
    """Return what plots of single pairs of layers need to know of them."""
    return {
        "row_names": layers(side(result.rows).full_names),
        "column_names": layers(side(result.columns).full_names),
        "is_self": result.rows == result.columns,
        "title": title,
        "measure": result.title,
    }


def draw_identification(
    workspace: Workspace, found: Mapping[str, Identification], name: str, title: str
) -> Place:
    """Draw how often each layer is identified, by the way it was compared."""
    layers = list(next(iter(found.values())).per_layer)
    shares = {way: np.array([*each.per_layer.values()]) for way, each in found.items()}
    figure = curves.identification_bars(shares, layers, title)
    return _keep(workspace, figure, f"identify-{name}")


def draw_stages(workspace: Workspace, results: Sequence[SimilarityResult]) -> Place:
    """Draw one network's last checkpoint against its earlier ones, in a grid."""
    final = network_of(results[0].rows[0])
    # One label for all columns, so that the axes are named once.
    panels = [
        replace(panel(result, network_of(result.columns[0]).checkpoint), column_label=final.run)
        for result in results
    ]
    title = f"{final} against its checkpoints: {method(results[0])}"
    # The name of the result of the final network with itself contains sigma and all else.
    name = f"stages-{results[-1].name}"
    return _keep(workspace, matrices.grid(panels, title, SCREEN), name)


def draw_learning_curves(workspace: Workspace, runs: Sequence[str], name: str) -> Place:
    """Draw loss and accuracy over the epochs of some runs."""
    histories = {run: run_record.columns(run_record.read_history(workspace, run)) for run in runs}
    return _keep(workspace, curves.learning_curves(histories), name)


def _keep(workspace: Workspace, figure: Figure, name: str) -> Place:
    return save(figure, workspace.figures / f"{name}.png")


def parts_of(result: SimilarityResult) -> MinibatchSums:
    """Return the sums of each minibatch that a result was computed from.

    Raises ComparisonError for a result of an older version, which kept their total alone.
    """
    names = ("minibatches", "rows_minibatches", "columns_minibatches")
    cross, rows, columns = (result.sums(name) for name in names)
    if result.sizes is None or cross is None:
        raise ComparisonError(
            f"result {result.name}", "has no sums of minibatches", remedy="compute it again"
        )
    return MinibatchSums(cross, rows, columns, result.sizes)
