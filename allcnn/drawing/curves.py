"""Plots of learning, of how CKA settles, of CKA by chance, and of layers identified."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from allcnn.drawing.canvas import (
    as_label,
    finish_axes,
    line_colours,
    new_figure,
    text_inches,
    wrapped,
)
from allcnn.drawing.panel import check_shape
from allcnn.drawing.style import PAGE, Style

History = Mapping[str, Sequence[float]]
Pairs = list[tuple[int, int]]

SPLITS: dict[str, Any] = {"train": "--", "test": "-"}
MAX_LINES = 12
MAX_DOTS = 40
_BARS: dict[str, Any] = {"markersize": 3, "capsize": 2, "linewidth": 1}


def learning_curves(
    histories: Mapping[str, History], title: str = "", style: Style = PAGE
) -> Figure:
    """Draw loss and accuracy of each run against the epoch: training dashed, test solid.

    A history has ``epoch``, ``train_loss``, ``test_loss``, ``train_accuracy`` and
    ``test_accuracy`` of equal lengths; accuracies are fractions, drawn in percent.
    """
    if not histories:
        raise ValueError("there are no histories to draw; give that of one run or more")
    width, height = (style.width, 1.4 * style.width) if style.fills else (9.0, 3.9)
    figure = new_figure(width, height, layout="constrained")
    loss, accuracy = figure.subplots(*(2, 1) if style.fills else (1, 2))
    for (run, history), colour in zip(histories.items(), line_colours(len(histories)), strict=True):
        for axes, quantity, factor in ((loss, "loss", 1), (accuracy, "accuracy", 100)):
            for split, dash in SPLITS.items():
                axes.plot(
                    history["epoch"],
                    factor * np.asarray(history[f"{split}_{quantity}"], np.float64),
                    linestyle=dash,
                    color=colour,
                    linewidth=style.line,
                    marker="o" if len(history["epoch"]) == 1 else None,
                    fillstyle="full" if split == "test" else "none",
                    label=run if split == "test" else None,
                )
    for axes, label in ((loss, "Loss"), (accuracy, "Accuracy (%)")):
        finish_axes(axes, "Epoch", label, style.label, _ticks(style))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    losses = np.array([x for line in loss.lines for x in line.get_ydata() if np.isfinite(x)])
    if len(losses) and 0 < 10 * losses.min() < losses.max():
        loss.set_yscale("log")
    if title:
        figure.suptitle(wrapped(title, width, style.title), fontsize=style.title)
    runs = [line for line in loss.lines if line.get_linestyle() == "-"]
    dashes = [
        Line2D([], [], color="0.3", linestyle=dash, label=label)
        for label, dash in zip(("training", "test"), SPLITS.values(), strict=True)
    ]
    return _with_legend(figure, [*dashes, *runs], style)


def choose_pairs(
    matrix: Float[np.ndarray, "r c"], *, is_self: bool = False, most: int = MAX_LINES
) -> Pairs:
    """Return the rows and columns of a matrix that are worth following one by one.

    For a list compared with itself: neighbours, as its diagonal is 1. For two lists of one length:
    the diagonal. Else each entry of the shorter list with the most similar one of the longer,
    unless all are NaN. From more than ``most``, that many are taken evenly.
    """
    matrix = np.asarray(matrix)
    r, c = matrix.shape
    if is_self and r > 1:
        pairs = list(itertools.pairwise(range(r)))
    elif r == c:
        pairs = [(k, k) for k in range(r)]
    elif r < c:
        known = np.flatnonzero(~np.isnan(matrix).all(axis=1)).tolist()
        pairs = [(i, int(np.nanargmax(matrix[i]))) for i in known]
    else:
        pairs = [(i, j) for j, i in choose_pairs(matrix.T, most=c)]
    places = np.linspace(0, len(pairs) - 1, min(most, len(pairs)))
    return [pairs[k] for k in np.round(places).astype(int)]


def convergence_curves(
    curves: Float[np.ndarray, "b r c"],
    row_names: Sequence[str],
    column_names: Sequence[str],
    sizes: Int[np.ndarray, "b"],
    errors: Float[np.ndarray, "r c"] | None = None,
    *,
    is_self: bool = False,
    title: str = "",
    style: Style = PAGE,
    measure: str = "CKA",
) -> Figure:
    """Draw values of the first minibatches against their number, a line for each chosen pair.

    ``sizes`` are the examples of each minibatch, counted at the top; ``errors`` are the standard
    errors of the last values, drawn as bars beside the ends. Which pairs: ``choose_pairs``.
    """
    curves = np.asarray(curves)
    _check_curves(curves, (len(sizes), len(row_names), len(column_names)), errors)
    pairs, numbers = choose_pairs(curves[-1], is_self=is_self), np.arange(1, len(curves) + 1)
    width = min(8.0, style.width)
    figure = new_figure(width, 3.6 if style.fills else 4.4, layout="constrained")
    axes = figure.add_subplot()
    drawn: list[Any] = []
    for k, ((i, j), colour) in enumerate(zip(pairs, line_colours(len(pairs)), strict=True)):
        drawn += axes.plot(
            numbers,
            curves[:, i, j],
            color=colour,
            linewidth=0.8 * style.line,
            marker="o" if len(numbers) == 1 else None,
            markersize=4,
            label=_pair_name(row_names[i], column_names[j]),
        )
        if errors is not None and np.isfinite(errors[i][j]):
            # Side by side, as the ends of several lines are often at one height.
            x = len(curves) * (1 + 0.012 * (k + 1))
            axes.errorbar(x, curves[-1, i, j], errors[i][j], fmt="o", color=colour, **_BARS)
    finish_axes(axes, "Minibatches", measure, style.label, _ticks(style))
    _count_examples(axes, np.cumsum(sizes), style)
    beside = 0.5 if style.fills else 2
    axes.set_title(wrapped(title, width - beside, style.title), fontsize=style.title)
    if style.fills:
        return _with_legend(figure, drawn, style)
    figure.legend(handles=drawn, loc="outside right center", fontsize=9, frameon=False)
    return figure


def baseline_plot(
    values: Float[np.ndarray, "r c"],
    baseline: Float[np.ndarray, "p r c"],
    row_names: Sequence[str],
    column_names: Sequence[str],
    *,
    is_self: bool = False,
    title: str = "",
    measure: str = "CKA",
) -> Figure:
    """Draw the value of each chosen pair beside those of examples matched at random.

    ``baseline`` holds values of p random matchings: a grey band from the smallest to the largest,
    with a line at their mean. Which pairs: ``choose_pairs``.
    """
    values, baseline = np.asarray(values), np.asarray(baseline)
    shape = (len(row_names), len(column_names))
    wanted = "give one name a row and column, and at least one of each"
    check_shape("the values have", values, shape, f"their names {shape}; {wanted}")
    wanted = "give one value or more a pair, by random matching first"
    many = (*baseline.shape[:1], *shape)
    check_shape("the baseline has", baseline, many, f"the values {shape}; {wanted}")
    pairs = choose_pairs(values, is_self=is_self, most=MAX_DOTS)
    names = [_pair_name(row_names[i], column_names[j]) for i, j in pairs]
    figure, axes = _places_axes(names, 0.35 * max(8, len(pairs)), measure, title)
    rows, columns = np.array(pairs, int).reshape(-1, 2).T
    finite = np.ma.masked_invalid(baseline[:, rows, columns])
    x = np.flatnonzero(finite.count(axis=0))
    bottom, top, mean = (np.asarray(f(axis=0))[x] for f in (finite.min, finite.max, finite.mean))
    matchings = f"{len(baseline):,} random matchings"
    bands = [
        axes.bar(x, top - bottom, 0.7, bottom=bottom, color="0.78", label=matchings),
        axes.hlines(mean, x - 0.35, x + 0.35, color="0.35", linewidth=1.2, label="their mean"),
    ]
    dots = axes.plot(values[rows, columns], "o", color=line_colours(1)[0], label=measure)
    axes.axhline(0, color="0.5", linewidth=0.8, zorder=0.5)
    axes.use_sticky_edges = False
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, -0.03), max(high, 1.03))
    return _with_legend(figure, [*dots, *bands])


def identification_bars(
    per_layer: Mapping[str, Float[np.ndarray, "l"]], names: Sequence[str], title: str = ""
) -> Figure:
    """Draw the share of identified layers, layer by layer, with one bar for each measure.

    ``per_layer`` holds shares from 0 to 1 by the name of the measure, such as ``RBF 0.4``, whose
    mean stands in the legend. A dashed line shows what guessing gives.
    """
    if not per_layer or not names:
        raise ValueError("there are no shares to draw; give those of one measure and layer or more")
    n, n_layers = len(per_layer), len(names)
    for label, shares in per_layer.items():
        wanted = f"there are {n_layers} layers; give one share a layer"
        check_shape(f"the shares of {label} have", shares, (n_layers,), wanted)
    labels, width = list(map(as_label, names)), n_layers * (0.25 + 0.16 * n)
    figure, axes = _places_axes(labels, width, "Layers identified (%)", title)
    drawn: list[Any] = []
    for k, (label, colour) in enumerate(zip(per_layer, line_colours(n), strict=True)):
        percent = 100 * np.asarray(per_layer[label], np.float64)
        places = np.arange(n_layers) + (k - (n - 1) / 2) * 0.8 / n
        label = f"{label}: {percent.mean():.1f} %"
        drawn.append(axes.bar(places, percent, 0.8 / n, color=colour, label=label))
    chance = 100 / n_layers
    drawn.append(axes.axhline(chance, color="0.2", linestyle="--", linewidth=1.2, label="chance"))
    axes.set_ylim(0, 102)
    return _with_legend(figure, drawn)


def _places_axes(names: Sequence[str], width: float, label: str, title: str) -> tuple[Figure, Axes]:
    """Return a new figure and axes with a place for each name."""
    longest = max((text_inches(name, 9) for name in names), default=0.0)
    width = min(14.0, max(4.5, width + 1.2))
    figure = new_figure(width, 3.7 + longest, layout="constrained")
    axes = figure.add_subplot()
    finish_axes(axes, "", label)
    axes.grid(visible=False, axis="x")
    axes.set_xticks(range(len(names)), list(names), rotation=90)
    axes.set_xlim(-0.6, max(len(names), 1) - 0.4)
    axes.set_title(wrapped(title, width - 1, 11), fontsize=11)
    return figure, axes


def _pair_name(row: str, column: str) -> str:
    return as_label(row) if row == column else f"{as_label(row)}, {as_label(column)}"


def _ticks(style: Style) -> float:
    # Curves have fewer numbers at their axes than matrices have names.
    return style.tick if style.fills else style.tick + 1


def _with_legend(figure: Figure, drawn: Sequence[Any], style: Style | None = None) -> Figure:
    """Return a figure with a legend below it, in as many columns as fit a style's letters."""
    if style is None:
        size, columns = 9.0, min(len(drawn), int(figure.get_figwidth() / 1.5))
    else:
        size = _ticks(style)
        longest = max((text_inches(str(each.get_label()), size) for each in drawn), default=0.0)
        # With the line before a name, and the room between columns.
        fitting = int(figure.get_figwidth() / (longest + 6 * size / 72))
        columns = max(1, min(6, fitting))
    where: dict[str, Any] = {"loc": "outside lower center", "ncols": columns}
    figure.legend(handles=drawn, fontsize=size, frameon=False, **where)
    return figure


def _count_examples(axes: Axes, examples: Int[np.ndarray, "b"], style: Style) -> None:
    """Mark whole minibatches below, and at the top how many examples those are."""
    b = len(examples)
    ticks = MaxNLocator(4 if style.fills else 8, integer=True, min_n_ticks=1).tick_values(1, b)
    marked = [int(k) for k in ticks if 1 <= k <= b]
    axes.set_xticks(marked)
    top = axes.secondary_xaxis("top")
    top.set_xticks(marked, [f"{examples[k - 1]:,}" for k in marked])
    top.set_xlabel("Examples", fontsize=style.label)
    top.tick_params(labelsize=_ticks(style))


def _check_curves(
    curves: np.ndarray, shape: tuple[int, int, int], errors: np.ndarray | None
) -> None:
    wanted = "give one size a minibatch, one name a row and column, and at least one of each"
    check_shape("the curves have", curves, shape, f"their minibatches and names {shape}; {wanted}")
    if errors is not None:
        wanted = "give one error a pair, NaN where there is none"
        last = f"the curves' last values {shape[1:]}; {wanted}"
        check_shape("the errors have", errors, shape[1:], last)
