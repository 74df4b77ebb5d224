"""Heat maps of CKA matrices and learning curves, as Matplotlib figures without pyplot.

Nothing global is set, so tasks in several threads may draw at once; sizes are in inches.
"""

import math
import os
import textwrap
import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

History = Mapping[str, Sequence[float]]

MAX_NUMBERED = 12
"""Largest side of a matrix whose cells carry their numbers."""
GRID_COLUMNS = 4
GRID_INCHES = 2.6
ROUNDING = 1e-6
"""How far rounding alone takes CKA out of 0 to 1."""

_COLOURS = matplotlib.colormaps["magma"]
# Okabe and Ito's palette, told apart by colour-blind readers, without its yellow, pale on white.
_RUN_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_FORMATS: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
    "svg": {"Creator": None, "Date": None},
}
_svg_lock = threading.Lock()


@dataclass(frozen=True)
class Panel:
    """One CKA matrix to draw, with the taps of its rows and columns in order.

    Attributes:
        matrix: of any values; NaN is drawn hatched, values outside 0 to 1 as the nearest colour.
        rows: names, from the bottom up.
        columns: names, from left to right.
        title: above the matrix.
        row_label: what the rows are, such as the run.
        column_label: what the columns are.
    """

    matrix: Float[np.ndarray, "r c"]
    rows: Sequence[str]
    columns: Sequence[str]
    title: str = ""
    row_label: str = ""
    column_label: str = ""

    def __post_init__(self) -> None:
        shape = (len(self.rows), len(self.columns))
        if np.shape(self.matrix) != shape or 0 in shape:
            raise ValueError(
                f"the matrix of panel {self.title!r} has shape {np.shape(self.matrix)}, its names"
                f" {shape}; give one name a row and column, and at least one of each"
            )


def heatmap(panel: Panel) -> Figure:
    """Draw one matrix with the first row at the bottom and colours from 0 to 1."""
    height, width = _inches(panel, largest=6.4)
    figure = _figure(width + 2.2, height + 1.5)
    axes = figure.add_subplot()
    _draw(axes, panel)
    _label_ticks(axes, panel, height / len(panel.rows), font_size=8)
    axes.set_ylabel(panel.row_label, fontsize=10)
    axes.set_xlabel(panel.column_label, fontsize=10)
    _set_title(axes, panel.title, width, font_size=11)
    # Inset, so that the bar keeps to the height of the matrix.
    bar = axes.inset_axes((1 + 0.15 / width, 0, 0.18 / width, 1))
    _label_bar(figure.colorbar(_colour_scale(), cax=bar, extend=_extend([panel])))
    return figure


def heatmap_grid(panels: Sequence[Panel], title: str = "") -> Figure:
    """Draw matrices side by side, up to four a line, with one colour bar.

    Where all panels share their names and labels, those stand at the outer panels alone.
    """
    if not panels:
        raise ValueError("there are no panels to draw; give one or more")
    n_lines = math.ceil(len(panels) / GRID_COLUMNS)
    n_columns = math.ceil(len(panels) / n_lines)
    height, width = np.max([_inches(panel, GRID_INCHES) for panel in panels], axis=0)
    shared = len({_names(panel) for panel in panels}) == 1
    room = 0.3 if shared else 0.9
    figure = _figure(n_columns * (width + room) + 1.5, n_lines * (height + room + 0.15) + 1.0)
    drawn = [figure.add_subplot(n_lines, n_columns, k + 1) for k in range(len(panels))]
    for k, (axes, panel) in enumerate(zip(drawn, panels, strict=True)):
        left = not shared or k % n_columns == 0
        bottom = not shared or k + n_columns >= len(panels)
        _draw(axes, panel, numbered=False)
        _label_ticks(axes, panel, _inches(panel, GRID_INCHES)[0] / len(panel.rows), font_size=6.5)
        axes.tick_params(labelleft=left, labelbottom=bottom)
        axes.set_ylabel(panel.row_label if left else "", fontsize=9)
        axes.set_xlabel(panel.column_label if bottom else "", fontsize=9)
        _set_title(axes, panel.title, width, font_size=9)
    bar = figure.colorbar(_colour_scale(), ax=drawn, extend=_extend(panels), aspect=30, pad=0.02)
    _label_bar(bar)
    if title:
        figure.suptitle(_wrapped(title, figure.get_figwidth(), 12), fontsize=12)
    return figure


def learning_curves(histories: Mapping[str, History]) -> Figure:
    """Draw loss and accuracy of each run against the epoch: training dashed, test solid.

    A history has ``epoch``, ``train_loss``, ``test_loss``, ``train_accuracy`` and
    ``test_accuracy`` of equal lengths; accuracies are fractions, drawn in percent.
    """
    if not histories:
        raise ValueError("there are no histories to draw; give that of one run or more")
    figure = _figure(9.0, 3.9, layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    for (run, history), colour in zip(histories.items(), _run_colours(len(histories)), strict=True):
        for axes, quantity, factor in ((loss, "loss", 1), (accuracy, "accuracy", 100)):
            for split, style in (("train", "--"), ("test", "-")):
                axes.plot(
                    history["epoch"],
                    factor * np.asarray(history[f"{split}_{quantity}"], np.float64),
                    linestyle=style,
                    color=colour,
                    linewidth=1.5,
                    marker="o" if len(history["epoch"]) == 1 else None,
                    fillstyle="full" if split == "test" else "none",
                    label=run if split == "test" else None,
                )
    _finish_curves(loss, "Loss")
    _finish_curves(accuracy, "Accuracy (%)")
    if _spans_decades(histories):
        loss.set_yscale("log")
    _curve_legends(figure, loss)
    return figure


def save(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Write a figure as PNG, PDF or SVG by its suffix, at once or not at all; return the path.

    Carries no date and no random name: the same figure gives the same bytes. Folders are made.
    """
    path = Path(path)
    kind = path.suffix[1:].lower()
    if kind not in _FORMATS:
        raise ValueError(f"{path.name} is no picture; use a name in .{', .'.join(_FORMATS)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        _write(figure, partial, kind)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _write(figure: Figure, path: Path, kind: str) -> None:
    options: dict[str, Any] = {"format": kind, "dpi": 150, "metadata": _FORMATS[kind]}
    if kind != "svg":
        figure.savefig(path, **options)
        return
    # Matplotlib takes the seed of an SVG's ids from its global settings alone.
    with _svg_lock, matplotlib.rc_context({"svg.hashsalt": "allcnn"}):
        figure.savefig(path, **options)


def _figure(
    width: float, height: float, layout: Literal["compressed", "constrained"] = "compressed"
) -> Figure:
    figure = Figure(figsize=(width, height), layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    engine = figure.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.set(w_pad=0.07, h_pad=0.07)
    return figure


def _names(panel: Panel) -> tuple[object, ...]:
    return tuple(panel.rows), tuple(panel.columns), panel.row_label, panel.column_label


def _inches(panel: Panel, largest: float) -> tuple[float, float]:
    """Return height and width of the matrix, in square cells of 0.42 inches where they fit."""
    r, c = np.shape(panel.matrix)
    longest = max(r, c)
    cell = min(largest, max(1.5, 0.42 * longest)) / longest
    return r * cell, c * cell


def _draw(axes: Axes, panel: Panel, *, numbered: bool = True) -> None:
    matrix = np.ma.masked_invalid(panel.matrix)
    # The hatched ground shows through cells that are NaN, and through these alone.
    axes.patch.set(facecolor="0.88", edgecolor="0.6", hatch="////", linewidth=0)
    axes.imshow(
        matrix, cmap=_COLOURS, vmin=0, vmax=1, origin="lower", aspect="equal", interpolation="none"
    )
    if numbered and max(matrix.shape) <= MAX_NUMBERED:
        _write_numbers(axes, np.asarray(panel.matrix))


def _write_numbers(axes: Axes, matrix: Float[np.ndarray, "r c"]) -> None:
    for (i, j), value in np.ndenumerate(matrix):
        if not np.isfinite(value):
            continue
        red, green, blue, _ = _COLOURS(float(np.clip(value, 0, 1)))
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
        colour = "white" if dark else "black"
        axes.text(j, i, f"{value:z.2f}", color=colour, fontsize=7, ha="center", va="center")


def _label_ticks(axes: Axes, panel: Panel, cell: float, font_size: float) -> None:
    """Name as many rows and columns as fit cells of so many inches, first and last included."""
    step = math.ceil(1.4 * font_size / 72 / cell)
    axes.tick_params(length=2, labelsize=font_size)
    for axis, names in ((axes.xaxis, panel.columns), (axes.yaxis, panel.rows)):
        last = len(names) - 1
        shown = [*range(0, last - step + 1, step), last]
        axis.set_ticks(shown, [names[k] for k in shown])
    axes.xaxis.set_tick_params(rotation=90)


def _set_title(axes: Axes, title: str, width: float, font_size: float) -> None:
    axes.set_title(_wrapped(title, max(width, 1.5), font_size), fontsize=font_size)


def _wrapped(text: str, width: float, font_size: float) -> str:
    # A letter is about 0.55 of its size wide, and there are 72 points an inch.
    return textwrap.fill(text, max(12, int(width * 72 / (0.55 * font_size))))


def _colour_scale() -> ScalarMappable:
    return ScalarMappable(Normalize(0, 1), _COLOURS)


def _label_bar(bar: Colorbar) -> None:
    bar.set_label("CKA", fontsize=10)
    bar.ax.tick_params(labelsize=8, length=2)


def _extend(panels: Sequence[Panel]) -> str:
    """Say at which ends of the colour bar an arrow stands for values beyond it."""
    values = np.concatenate([np.ravel(panel.matrix) for panel in panels])
    below, above = bool((values < -ROUNDING).any()), bool((values > 1 + ROUNDING).any())
    return {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[below, above]


def _run_colours(n: int) -> list[Any]:
    if n <= len(_RUN_COLOURS):
        return list(_RUN_COLOURS[:n])
    return list(matplotlib.colormaps["viridis"](np.linspace(0, 0.95, n)))


def _finish_curves(axes: Axes, label: str) -> None:
    axes.set_xlabel("Epoch", fontsize=10)
    axes.set_ylabel(label, fontsize=10)
    axes.tick_params(labelsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _spans_decades(histories: Mapping[str, History]) -> bool:
    losses = [
        np.asarray(history[name], np.float64)
        for history in histories.values()
        for name in ("train_loss", "test_loss")
    ]
    finite = np.concatenate(losses)
    finite = finite[np.isfinite(finite)]
    return len(finite) > 0 and finite.min() > 0 and finite.max() > 10 * finite.min()


def _curve_legends(figure: Figure, axes: Axes) -> None:
    runs = [line for line in axes.lines if line.get_linestyle() == "-"]
    styles = [Line2D([], [], color="0.3", linestyle=style) for style in ("--", "-")]
    figure.legend(
        [*styles, *runs],
        ["training", "test", *(str(line.get_label()) for line in runs)],
        loc="outside lower center",
        ncols=min(6, len(runs) + 2),
        fontsize=9,
        frameon=False,
    )
