"""Text that commands print: matrices, accuracies and aligned columns."""

from collections.abc import Mapping, Sequence

import numpy as np

from allcnn.commands import command
from allcnn.compare import SimilarityResult, describe
from allcnn.similarity.layer_identification import Identification
from allcnn.workspace import run_record
from allcnn.workspace.paths import Workspace
from store.model.names import some_of

MOST_COLUMNS = 24
"""Wider matrices are not shown in numbers: no page has room for them."""

_WIDEST = 200
"""Letters of a line, beyond which no terminal shows a matrix."""


def matrix_table(result: SimilarityResult, *, errors: bool = False) -> str:
    """Return a matrix as text, the first layer at the bottom as in the pictures."""
    rows, columns = describe.side(result.rows), describe.side(result.columns)
    names = rows.full_names, columns.full_names
    lines = _numbers(result.values, *names)
    if len(columns.names) > MOST_COLUMNS or len(lines[0]) > _WIDEST:
        lines = [_summary(result)]
    elif errors and result.errors is not None:
        lines += ["", "standard errors", *_numbers(result.errors, *names)]
    computed, kept = result.sources
    sources = [f"activations of {computed} representations"] if computed else []
    sources += [f"kept Grams of {kept} representations"] if kept else []
    lines += [
        "",
        f"rows     {_networks(rows)}",
        f"columns  {_networks(columns)}",
        f"kernel   {_kernel(result)}",
        f"on       {result.rows[0].sample_set}, {_examples(result)}",
        f"from     {' and '.join(sources)}",
    ]
    if errors and (doubt := describe.errors_caution(result)):
        lines.append(f"caution  {doubt}; 8 or more are enough")
    if errors and result.errors_reason:
        lines.append(f"standard errors not defined: {result.errors_reason}")
    if (baseline := result.baseline) is not None:
        mean, largest = number(float(np.nanmean(baseline))), number(float(np.nanmax(baseline)))
        lines.append(
            f"chance   {mean} on average, {largest} at most, over"
            f" {len(baseline)} random matchings of the examples"
        )
    reasons = dict.fromkeys(reason for _, _, reason in result.reasons)
    return "\n".join([*lines, *(f"not defined: {why}" for why in reasons)])


def identification_table(found: Mapping[str, Identification]) -> str:
    """Return how often layers were identified, a line a way of comparing, a column a layer."""
    some = next(iter(found.values()))
    cells = [[f"{'all':>7}", *some.per_layer]]
    for each in found.values():
        cells.append([f"{each.accuracy:7.1%}", *(f"{s:.0%}" for s in each.per_layer.values())])
    width = max(map(len, found))
    lines = _right_aligned(cells, 6)
    lines = [f"{way:{width}}{line}" for way, line in zip(["", *found], lines, strict=True)]
    tail = (
        f"{some.n_pairs} ordered pairs of networks, {some.n_layers} layers each;"
        f" chance is {1 / some.n_layers:.1%}"
    )
    return "\n".join([*lines, "", tail])


def accuracy_table(accuracies: Mapping[str, float]) -> str:
    """Return the test accuracies that runs ended with."""
    return aligned([(run, f"test accuracy {share:6.1%}") for run, share in accuracies.items()])


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


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """Return rows of named cells as aligned lines below their names."""
    return aligned([list(rows[0]), *(list(row.values()) for row in rows)])


def _numbers(matrix: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> list[str]:
    """Return lines of right-aligned cells, the last row first, and the columns' names below."""
    cells = [[name, *map(number, values)] for name, values in zip(rows, matrix, strict=True)]
    return _right_aligned([*reversed(cells), ["", *columns]], 7)


def _right_aligned(rows: Sequence[Sequence[str]], least: int) -> list[str]:
    widths = [max(least, *(len(cell) + 1 for cell in column)) for column in zip(*rows, strict=True)]
    return ["".join(f"{cell:>{w}}" for cell, w in zip(row, widths, strict=True)) for row in rows]


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
    return f"{len(names)} networks: {some_of(names, 4)}"


def _kernel(result: SimilarityResult) -> str:
    pooled = ", mean over space" if result.pool == "mean" else ""
    size = "" if result.is_whole else f", minibatches of {result.batch_size}"
    return f"{result.kernel_title}{pooled}; {result.method['how']}{size}"


def _examples(result: SimilarityResult) -> str:
    if result.label is None:
        return f"{result.n_examples} examples"
    skipped = f"; {result.n_skipped} minibatches skipped" if result.n_skipped else ""
    return f"{result.n_examples} examples of label {result.label}{skipped}"
