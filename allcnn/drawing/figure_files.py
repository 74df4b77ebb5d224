"""From results and learning curves to files in the workspace's folder of figures, and to JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from allcnn.compare import RepresentationKey, SimilarityResult, network_of
from allcnn.drawing import curves, matrices
from allcnn.drawing.canvas import save
from allcnn.drawing.panel import Panel
from allcnn.drawing.style import SCREEN
from allcnn.errors import ComparisonError
from allcnn.similarity.jackknife import caution, convergence
from allcnn.similarity.layer_identification import Identification
from allcnn.similarity.measures import MEASURES, Measure
from allcnn.similarity.pair_sums import MinibatchSums
from allcnn.workspace import run_record
from allcnn.workspace.paths import Workspace
from store.records.results import settings_of
from store.storage.paths import Place


class Side(NamedTuple):
    """What stands along one side of a matrix.

    Attributes:
        names: of the taps.
        label: the network, or how many there are.
        groups: networks and their numbers of taps, where there is more than one.
    """

    names: list[str]
    label: str
    groups: list[tuple[str, int]] | None

    @property
    def full_names(self) -> list[str]:
        """The names by which taps of several networks are told apart."""
        if self.groups is None:
            return self.names
        networks = [network for network, n in self.groups for _ in range(n)]
        return [f"{network}:{tap}" for network, tap in zip(networks, self.names, strict=True)]


def side(keys: Sequence[RepresentationKey]) -> Side:
    """Return what the representations along one side are called."""
    names = [key.tap for key in keys]
    groups = [
        (network, len(list(members))) for network, members in groupby(map(_network_name, keys))
    ]
    if len(groups) == 1:
        return Side(names, groups[0][0], None)
    return Side(names, f"{len(groups)} networks", groups)


def _network_name(key: RepresentationKey) -> str:
    return str(network_of(key))


def matrix_json(result: SimilarityResult, *, errors: bool = False) -> dict[str, Any]:
    """Return a result as JSON values: names and nested lists, NaN as null."""
    rows, columns = side(result.rows), side(result.columns)
    values = {
        "rows": rows.full_names,
        "columns": columns.full_names,
        "matrix": _nested(result.values),
        **settings_of(result.method),
        "examples": result.n_examples,
        "label": result.label,
        "minibatches": result.n_minibatches,
        "skipped_minibatches": result.n_skipped,
        "sample_set": result.rows[0].sample_set,
        "networks": [
            list(dict.fromkeys(map(_network_name, keys))) for keys in (result.rows, result.columns)
        ],
        "sources": dict(zip(("activations", "grams"), result.sources, strict=True)),
        "reasons": [list(reason) for reason in result.reasons],
    }
    if errors and result.errors is not None:
        values["standard_errors"] = _nested(result.errors)
        values["standard_errors_reason"] = result.errors_reason
        values["standard_errors_caution"] = errors_caution(result)
    if result.baseline is not None:
        values["baseline"] = {
            "permutations": len(result.baseline),
            "mean": _nested(result.baseline.mean(axis=0)),
            "largest": _nested(result.baseline.max(axis=0)),
        }
    return values


def _nested(matrix: np.ndarray) -> list[list[float | None]]:
    return [[None if np.isnan(x) else x for x in row] for row in matrix.tolist()]


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
    suffix = "-errors" if errors else ""
    return save(figure, workspace.figures / f"{result.name}{suffix}.png")


def draw_classes(workspace: Workspace, results: Sequence[SimilarityResult]) -> Place:
    """Draw the matrices of single classes in a grid."""
    panels = [panel(result, f"class {result.label}") for result in results]
    title = method(replace(results[0], label=None), examples=False)
    figure = matrices.grid(panels, title, SCREEN)
    return save(figure, workspace.figures / f"classes-{results[0].name}.png")


def draw_convergence(workspace: Workspace, result: SimilarityResult) -> Place:
    """Draw values against the number of minibatches that it is summed over."""
    rows, columns = side(result.rows), side(result.columns)
    parts = parts_of(result)
    figure = curves.convergence_curves(
        convergence(parts, measure_of(result)),
        rows.full_names,
        columns.full_names,
        parts.sizes,
        result.errors,
        is_self=result.rows == result.columns,
        title=method(result, errors=True),
        measure=result.title,
    )
    return save(figure, workspace.figures / f"{result.name}-convergence.png")


def draw_baseline(workspace: Workspace, result: SimilarityResult) -> Place:
    """Draw values beside what they are when examples are matched at random."""
    assert result.baseline is not None
    figure = curves.baseline_plot(
        result.values,
        result.baseline,
        side(result.rows).full_names,
        side(result.columns).full_names,
        is_self=result.rows == result.columns,
        title=method(result),
        measure=result.title,
    )
    return save(figure, workspace.figures / f"{result.name}-baseline.png")


def draw_identification(
    workspace: Workspace, found: Mapping[str, Identification], name: str, title: str
) -> Place:
    """Draw how often each layer is identified, by the way it was compared."""
    layers = list(next(iter(found.values())).per_layer)
    shares = {way: np.array([*each.per_layer.values()]) for way, each in found.items()}
    figure = curves.identification_bars(shares, layers, title)
    return save(figure, workspace.figures / f"identify-{name}.png")


def draw_stages(workspace: Workspace, results: Sequence[SimilarityResult]) -> Place:
    """Draw one network's last checkpoint against its earlier ones, in a grid."""
    final = network_of(results[0].rows[0])
    # One label for all columns, so that the axes are named once.
    panels = [
        replace(panel(result, network_of(result.columns[0]).checkpoint), column_label=final.run)
        for result in results
    ]
    title = f"{final} against its checkpoints: {method(results[0])}"
    figure = matrices.grid(panels, title, SCREEN)
    # The name of the result of the final network with itself tells sigma and all else apart.
    return save(figure, workspace.figures / f"stages-{results[-1].name}.png")


def draw_learning_curves(workspace: Workspace, runs: Sequence[str], name: str) -> Place:
    """Draw loss and accuracy over the epochs of some runs."""
    histories = {run: run_record.columns(run_record.read_history(workspace, run)) for run in runs}
    return save(curves.learning_curves(histories), workspace.figures / f"{name}.png")


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


def measure_of(result: SimilarityResult) -> Measure:
    """Return the measure of a result; raises ConfigError where it cannot be imported."""
    return MEASURES.make(result.method["measure"], result.method)


def way(result: SimilarityResult) -> str:
    """Return the kernel, such as ``RBF 0.4``, and the pooling where there is any."""
    return result.kernel_title + (" (mean over space)" if result.pool == "mean" else "")


def method(result: SimilarityResult, *, examples: bool = True, errors: bool = False) -> str:
    """Return in one line how a result was computed, and what qualifies its standard errors."""
    text = ", ".join(filter(None, (f"{way(result)} {result.title}", result.method["qualifier"])))
    if result.label is not None:
        text += f", class {result.label}"
    if not examples:
        return text
    text += f", {result.n_examples:,} examples"
    if not result.is_whole:
        text += f" in minibatches of {result.batch_size}"
    doubt = errors_caution(result) if errors and not result.is_whole else ""
    return f"{text}; {doubt}" if doubt else text


def errors_caution(result: SimilarityResult) -> str:
    """Return how the standard errors of a result are qualified; empty where nothing is in doubt."""
    errors = result.errors
    if errors is None or not np.isfinite(errors).any():
        return ""
    return caution(result.n_minibatches)
