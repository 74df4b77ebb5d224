"""What the commands print: matrices and accuracies; and columns that stand in line."""

from collections.abc import Mapping, Sequence

import numpy as np

from allcnn.commands import command
from allcnn.compare import SimilarityResult, describe
from allcnn.similarity.layer_identification import Identification
from allcnn.workspace import run_record
from allcnn.workspace.paths import Workspace

MOST_COLUMNS = 24
"""Wider matrices are not shown in numbers: no page has room for them."""

_WIDEST = 200
"""Letters of a line, beyond which no terminal shows a matrix."""


def matrix_table(result: SimilarityResult, *, errors: bool = False) -> str:
    """Return a matrix as text, the first layer at the bottom as in the pictures."""
    rows, columns = describe.side(result.rows), describe.side(result.columns)
    lines = []
    numbers = _numbers(result.values, rows.full_names, columns.full_names)
    if len(columns.names) <= MOST_COLUMNS and len(numbers[0]) <= _WIDEST:
        lines += [*numbers, ""]
        if errors and result.errors is not None:
            lines += ["standard errors"]
            lines += _numbers(result.errors, rows.full_names, columns.full_names)
            lines += [""]
    else:
        lines += [_summary(result), ""]
    lines += [
        f"rows     {_networks(rows)}",
        f"columns  {_networks(columns)}",
        f"kernel   {_kernel(result)}",
        f"on       {result.rows[0].sample_set}, {_examples(result)}",
        f"from     {_sources(result)}",
    ]
    if errors and (doubt := describe.errors_caution(result)):
        lines.append(f"caution  {doubt}; 8 or more are enough")
    if errors and result.errors_reason:
        lines.append(f"standard errors not defined: {result.errors_reason}")
    if result.baseline is not None:
        lines.append(_baseline(result.baseline))
    return "\n".join(lines + [f"not defined: {why}" for why in _reasons(result)])


def identification_table(found: Mapping[str, Identification]) -> str:
    """Return how often layers were identified, a line a way of comparing, a column a layer."""
    layers = list(next(iter(found.values())).per_layer)
    width = max(len(way) for way in found)
    columns = [max(6, len(layer) + 1) for layer in layers]
    head = f"{'':{width}}{'all':>8}" + "".join(
        f"{layer:>{w}}" for layer, w in zip(layers, columns, strict=True)
    )
    lines = [
        f"{way:{width}}{each.accuracy:8.1%}"
        + "".join(f"{s:>{w}.0%}" for s, w in zip(each.per_layer.values(), columns, strict=True))
        for way, each in found.items()
    ]
    some = next(iter(found.values()))
    tail = (
        f"{some.n_pairs} ordered pairs of networks, {some.n_layers} layers each;"
        f" chance is {1 / some.n_layers:.1%}"
    )
    return "\n".join([head, *lines, "", tail])


def accuracy_table(accuracies: Mapping[str, float]) -> str:
    """Return the test accuracies that runs ended with."""
    width = max(map(len, accuracies))
    return "\n".join(f"{run:<{width}}  test accuracy {a:6.1%}" for run, a in accuracies.items())


def trained_lines(place: Workspace, runs: Sequence[str]) -> str:
    """Return how well trained runs do, and the command that stores what the first one computes."""
    if not runs:
        return ""
    accuracies = accuracy_table({run: run_record.final_accuracy(place, run) for run in runs})
    following = command(place.root, "extract", runs[0], checkpoint="all")
    others = ", and so on for the others" if len(runs) > 1 else ""
    return f"{accuracies}\nnext: {following}{others}"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as lines, the columns below one another."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def _numbers(matrix: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> list[str]:
    """Return lines of right-aligned cells, the last row first, and the columns' names below."""
    cells = [[name, *map(number, values)] for name, values in zip(rows, matrix, strict=True)]
    lines = [*reversed(cells), ["", *columns]]
    widths = [max(6, *map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "".join(f" {cell:>{w}}" for cell, w in zip(line, widths, strict=True)) for line in lines
    ]


def number(value: float) -> str:
    """Return a number in six letters or a few more: 0.123, 660.5, 1.2e+06."""
    return f"{value:.3f}" if not abs(value) >= 100 else f"{value:.4g}"


def _summary(result: SimilarityResult) -> str:
    r, c = result.values.shape
    found = result.values[np.isfinite(result.values)]
    spread = f"from {number(found.min())} to {number(found.max())}" if len(found) else "not defined"
    return f"{r} x {c} values of {result.title}, {spread}; --json writes them all"


def _networks(side: describe.Side) -> str:
    if side.groups is None:
        return side.label
    names = list(dict.fromkeys(network for network, _ in side.groups))
    shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
    return f"{len(names)} networks: {shown}"


def _kernel(result: SimilarityResult) -> str:
    pooled = ", mean over space" if result.pool == "mean" else ""
    size = "" if result.is_whole else f", minibatches of {result.batch_size}"
    return f"{result.kernel_title}{pooled}; {result.method['how']}{size}"


def _examples(result: SimilarityResult) -> str:
    if result.label is None:
        return f"{result.n_examples} examples"
    skipped = f"; {result.n_skipped} minibatches skipped" if result.n_skipped else ""
    return f"{result.n_examples} examples of label {result.label}{skipped}"


def _sources(result: SimilarityResult) -> str:
    computed, kept = result.sources
    told = [f"activations of {computed} representations"] if computed else []
    told += [f"kept Grams of {kept} representations"] if kept else []
    return " and ".join(told)


def _baseline(baseline: np.ndarray) -> str:
    mean, largest = number(np.nanmean(baseline)), number(np.nanmax(baseline))
    return (
        f"chance   {mean} on average, {largest} at most, over"
        f" {len(baseline)} random matchings of the examples"
    )


def _reasons(result: SimilarityResult) -> list[str]:
    return list(dict.fromkeys(reason for _, _, reason in result.reasons))
