"""Heat maps of CKA matrices, as Matplotlib figures; all other pictures can be had from here too.

Nothing global is set, so tasks in several threads may draw at once; sizes are in inches.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from allcnn.canvas import fit_around, new_figure, save, set_title, text_inches, wrapped
from allcnn.curves import (
    History,
    baseline_plot,
    choose_pairs,
    convergence_curves,
    identification_bars,
    learning_curves,
)
from allcnn.ticks import Groups, name_groups, name_members, spans

__all__ = [
    "History",
    "Panel",
    "baseline_plot",
    "choose_pairs",
    "convergence_curves",
    "heatmap",
    "heatmap_grid",
    "identification_bars",
    "learning_curves",
    "save",
]

MAX_NUMBERED = 12
"""Largest side of a matrix whose cells carry their numbers."""
GRID_COLUMNS = 4
GRID_INCHES = 2.6
GROUPED_INCHES = 8.0
ERROR_INCHES = 3.2
"""Largest side of the heat map of standard errors."""
ROUNDING = 1e-6
"""How far rounding alone takes CKA out of 0 to 1."""

_COLOURS = matplotlib.colormaps["magma"]
_ERROR_COLOURS = matplotlib.colormaps["cividis"]
_SEPARATOR = "#00B7B7"
"""Neither in the colours of CKA nor lost on the lightest or the darkest of them."""


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
        errors: standard errors of the values, where NaN is left blank.
        row_groups: names and numbers of rows that belong together, such as those of one network.
        column_groups: the same of columns.
    """

    matrix: Float[np.ndarray, "r c"]
    rows: Sequence[str]
    columns: Sequence[str]
    title: str = ""
    row_label: str = ""
    column_label: str = ""
    errors: Float[np.ndarray, "r c"] | None = None
    row_groups: Groups | None = None
    column_groups: Groups | None = None

    def __post_init__(self) -> None:
        shape = (len(self.rows), len(self.columns))
        if np.shape(self.matrix) != shape or 0 in shape:
            raise ValueError(
                f"the matrix of panel {self.title!r} has shape {np.shape(self.matrix)}, its names"
                f" {shape}; give one name a row and column, and at least one of each"
            )
        if self.errors is not None and np.shape(self.errors) != shape:
            raise ValueError(
                f"the errors of panel {self.title!r} have shape {np.shape(self.errors)}, its"
                f" matrix {shape}; give one error a value, NaN where there is none"
            )
        self._check_groups("row", self.row_groups, len(self.rows))
        self._check_groups("column", self.column_groups, len(self.columns))

    def _check_groups(self, kind: str, groups: Groups | None, n: int) -> None:
        if groups is None:
            return
        counts = [count for _, count in groups]
        if sum(counts) != n or min(counts) < 1:
            raise ValueError(
                f"the {kind} groups of panel {self.title!r} have {counts} {kind}s, its matrix {n};"
                " give groups of one or more that add up to all"
            )


def heatmap(panel: Panel) -> Figure:
    """Draw one matrix with the first row at the bottom and colours from 0 to 1.

    Standard errors stand below the numbers, or where cells are too small for these, in a second
    and smaller heat map with colours from 0 to the largest. Lines part groups.
    """
    figure = new_figure(6.4, 6.4, layout=None)
    height, width = _inches(panel, GROUPED_INCHES if _is_grouped(panel) else 6.4)
    axes = figure.add_subplot()
    _draw(axes, panel, cell := height / len(panel.rows))
    _label_ticks(axes, panel, cell, font_size=8)
    axes.set_ylabel(panel.row_label, fontsize=10)
    axes.set_xlabel(panel.column_label, fontsize=10)
    set_title(axes, panel.title, width, font_size=11)
    _add_bar(axes, width, _colour_scale(), _extend([panel]))
    placed = [(axes, width, height)]
    if _is_numbered(panel):
        _write_numbers(axes, panel)
    elif panel.errors is not None:
        placed.append(_draw_errors(figure, panel))
    fit_around(figure, placed)
    return figure


def heatmap_grid(panels: Sequence[Panel], title: str = "") -> Figure:
    """Draw matrices side by side, up to four a line, with one colour bar and no errors.

    Where all panels share their names and labels, those stand at the outer panels alone.
    """
    if not panels:
        raise ValueError("there are no panels to draw; give one or more")
    n_lines = math.ceil(len(panels) / GRID_COLUMNS)
    n_columns = math.ceil(len(panels) / n_lines)
    height, width = np.max([_inches(panel, GRID_INCHES) for panel in panels], axis=0)
    shared = len({_names(panel) for panel in panels}) == 1
    room = 0.3 if shared else 0.9
    figure = new_figure(
        n_columns * (width + room) + 1.5 + _longest(panel.row_groups for panel in panels),
        n_lines * (height + room + 0.15) + 1.0 + _longest(panel.column_groups for panel in panels),
    )
    drawn = [figure.add_subplot(n_lines, n_columns, k + 1) for k in range(len(panels))]
    for k, (axes, panel) in enumerate(zip(drawn, panels, strict=True)):
        left = not shared or k % n_columns == 0
        bottom = not shared or k + n_columns >= len(panels)
        _draw(axes, panel, cell := _inches(panel, GRID_INCHES)[0] / len(panel.rows))
        _label_ticks(axes, panel, cell, font_size=6.5)
        axes.tick_params(which="both", labelleft=left, labelbottom=bottom)
        axes.set_ylabel(panel.row_label if left else "", fontsize=9)
        axes.set_xlabel(panel.column_label if bottom else "", fontsize=9)
        set_title(axes, panel.title, width, font_size=9)
    bar = figure.colorbar(_colour_scale(), ax=drawn, extend=_extend(panels), aspect=30, pad=0.02)
    _label_bar(bar, "CKA", font_size=8)
    if title:
        figure.suptitle(wrapped(title, figure.get_figwidth(), 12), fontsize=12)
    return figure


def _longest(groups: Iterable[Groups | None]) -> float:
    """Return the inches of the longest name in a grid."""
    return max((text_inches(name, 6.5) for some in groups for name, _ in some or ()), default=0)


def _names(panel: Panel) -> tuple[object, ...]:
    groups = (tuple(panel.row_groups or ()), tuple(panel.column_groups or ()))
    return tuple(panel.rows), tuple(panel.columns), panel.row_label, panel.column_label, groups


def _inches(panel: Panel, largest: float) -> tuple[float, float]:
    """Return height and width of the matrix, in square cells of 0.42 inches where they fit."""
    r, c = np.shape(panel.matrix)
    longest = max(r, c)
    cell = min(largest, max(1.5, 0.42 * longest)) / longest
    return r * cell, c * cell


def _is_grouped(panel: Panel) -> bool:
    return panel.row_groups is not None or panel.column_groups is not None


def _is_numbered(panel: Panel) -> bool:
    return max(len(panel.rows), len(panel.columns)) <= MAX_NUMBERED


def _draw(axes: Axes, panel: Panel, cell: float) -> None:
    # The hatched ground shows through cells that are NaN, and through these alone.
    axes.patch.set(facecolor="0.88", edgecolor="0.6", hatch="////", linewidth=0)
    axes.imshow(
        np.ma.masked_invalid(panel.matrix),
        cmap=_COLOURS,
        vmin=0,
        vmax=1,
        origin="lower",
        aspect="equal",
        interpolation="none",
    )
    _part_groups(axes, panel, cell)


def _draw_errors(figure: Figure, panel: Panel) -> tuple[Axes, float, float]:
    """Draw standard errors from 0 to the largest of them; return axes, width and height."""
    errors = np.ma.masked_invalid(np.asarray(panel.errors, np.float64))
    largest = float(errors.max()) if errors.count() else 0.0
    norm = Normalize(0, largest or 1.0)
    height, width = _inches(panel, ERROR_INCHES)
    axes = figure.add_subplot()
    axes.imshow(errors, cmap=_ERROR_COLOURS, norm=norm, origin="lower", interpolation="none")
    _part_groups(axes, panel, cell := height / len(panel.rows))
    _label_ticks(axes, panel, cell, font_size=6.5)
    set_title(axes, "standard error", width, font_size=9)
    _add_bar(axes, width, ScalarMappable(norm, _ERROR_COLOURS), "neither", "", font_size=6.5)
    return axes, width, height


def _add_bar(
    axes: Axes,
    width: float,
    scale: ScalarMappable,
    extend: str,
    label: str = "CKA",
    font_size: float = 8,
) -> None:
    # Inset, so that the bar keeps to the height of the matrix.
    inset = axes.inset_axes((1 + 0.15 / width, 0, 0.18 / width, 1))
    bar = axes.figure.colorbar(scale, cax=inset, extend=extend)
    _label_bar(bar, label, font_size)


def _write_numbers(axes: Axes, panel: Panel) -> None:
    """Write each value into its cell, and its standard error, where it has one, below it."""
    matrix = np.asarray(panel.matrix)
    errors = np.full(matrix.shape, np.nan) if panel.errors is None else np.asarray(panel.errors)
    for (i, j), value in np.ndenumerate(matrix):
        if not np.isfinite(value):
            continue
        red, green, blue, _ = _COLOURS(float(np.clip(value, 0, 1)))
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
        style: dict[str, Any] = {"color": "white" if dark else "black", "ha": "center"}
        if np.isfinite(errors[i, j]):
            axes.text(j, i, f"{value:z.2f}", fontsize=7, va="bottom", **style)
            axes.text(j, i, f"±{_short(float(errors[i, j]))}", fontsize=5, va="top", **style)
        else:
            axes.text(j, i, f"{value:z.2f}", fontsize=7, va="center", **style)


def _short(error: float) -> str:
    # Near a self-HSIC of zero errors grow without bound; the cell does not.
    return f"{error:.3f}" if error < 10 else f"{error:.1f}" if error < 1000 else f"{error:.0e}"


def _part_groups(axes: Axes, panel: Panel, cell: float) -> None:
    for groups, draw in ((panel.row_groups, axes.axhline), (panel.column_groups, axes.axvline)):
        if groups is None:
            continue
        # Hundreds of lines would tint the matrix, were they not thinner than few are.
        points = 72 * cell * min(count for _, count in groups)
        for _, first, _ in spans(groups)[1:]:
            draw(first - 0.5, color=_SEPARATOR, linewidth=min(0.7, 0.04 * points))


def _label_ticks(axes: Axes, panel: Panel, cell: float, font_size: float) -> None:
    """Name as many rows and columns as fit cells of so many inches, with groups beyond them."""
    axes.tick_params(which="both", length=2, labelsize=font_size)
    axes.tick_params(axis="x", which="both", rotation=90)
    sides = (
        (axes.xaxis, panel.columns, panel.column_groups, 0),
        (axes.yaxis, panel.rows, panel.row_groups, 90),
    )
    for axis, names, groups, angle in sides:
        if groups is None:
            name_members(axis, names, cell, font_size)
        else:
            name_groups(axis, names, groups, cell, font_size, angle)


def _colour_scale() -> ScalarMappable:
    return ScalarMappable(Normalize(0, 1), _COLOURS)


def _label_bar(bar: Colorbar, label: str, font_size: float) -> None:
    bar.set_label(label, fontsize=10)
    bar.ax.tick_params(labelsize=font_size, length=2)


def _extend(panels: Sequence[Panel]) -> str:
    """Say at which ends of the colour bar an arrow stands for values beyond it."""
    values = np.concatenate([np.ravel(panel.matrix) for panel in panels])
    below, above = bool((values < -ROUNDING).any()), bool((values > 1 + ROUNDING).any())
    return {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[below, above]
