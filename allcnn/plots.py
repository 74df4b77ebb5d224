"""Heat maps of CKA matrices, as Matplotlib figures; all other pictures can be had from here too.

Nothing global is set, so tasks in several threads may draw at once; sizes are in inches.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
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
from allcnn.drawing.cells import (
    CKA,
    ERRORS,
    Colouring,
    draw_cells,
    extend,
    label_ticks,
    part_groups,
    write_numbers,
)
from allcnn.drawing.panel import Panel
from allcnn.ticks import Groups

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


def heatmap(panel: Panel) -> Figure:
    """Draw one matrix with the first row at the bottom and colours from 0 to 1.

    Standard errors stand below the numbers, or where cells are too small for these, in a second
    and smaller heat map with colours from 0 to the largest. Lines part groups.
    """
    figure = new_figure(6.4, 6.4, layout=None)
    height, width = _inches(panel, GROUPED_INCHES if panel.is_grouped else 6.4)
    axes = figure.add_subplot()
    _draw(axes, panel, cell := height / len(panel.rows))
    label_ticks(axes, panel, cell, font_size=8)
    axes.set_ylabel(panel.row_label, fontsize=10)
    axes.set_xlabel(panel.column_label, fontsize=10)
    set_title(axes, panel.title, width, font_size=11)
    _add_bar(axes, width, _colour_scale().bar, extend([panel]))
    placed = [(axes, width, height)]
    if _is_numbered(panel):
        write_numbers(axes, panel, _colour_scale(), font_size=7)
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
    shared = len({panel.names for panel in panels}) == 1
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
        label_ticks(axes, panel, cell, font_size=6.5)
        axes.tick_params(which="both", labelleft=left, labelbottom=bottom)
        axes.set_ylabel(panel.row_label if left else "", fontsize=9)
        axes.set_xlabel(panel.column_label if bottom else "", fontsize=9)
        set_title(axes, panel.title, width, font_size=9)
    bar = figure.colorbar(_colour_scale().bar, ax=drawn, extend=extend(panels), aspect=30, pad=0.02)
    _label_bar(bar, "CKA", font_size=8)
    if title:
        figure.suptitle(wrapped(title, figure.get_figwidth(), 12), fontsize=12)
    return figure


def _longest(groups: Iterable[Groups | None]) -> float:
    """Return the inches of the longest name in a grid."""
    return max((text_inches(name, 6.5) for some in groups for name, _ in some or ()), default=0)


def _inches(panel: Panel, largest: float) -> tuple[float, float]:
    """Return height and width of the matrix, in square cells of 0.42 inches where they fit."""
    r, c = np.shape(panel.matrix)
    longest = max(r, c)
    cell = min(largest, max(1.5, 0.42 * longest)) / longest
    return r * cell, c * cell


def _is_numbered(panel: Panel) -> bool:
    return max(len(panel.rows), len(panel.columns)) <= MAX_NUMBERED


def _draw(axes: Axes, panel: Panel, cell: float) -> None:
    draw_cells(axes, panel.matrix, _colour_scale())
    part_groups(axes, panel, cell)


def _draw_errors(figure: Figure, panel: Panel) -> tuple[Axes, float, float]:
    """Draw standard errors from 0 to the largest of them; return axes, width and height."""
    errors = np.asarray(panel.errors, np.float64)
    scale = ERRORS.over([errors])
    height, width = _inches(panel, ERROR_INCHES)
    axes = figure.add_subplot()
    shown = np.ma.masked_invalid(errors)
    axes.imshow(shown, cmap=scale.colours, norm=scale.norm, origin="lower", interpolation="none")
    part_groups(axes, panel, cell := height / len(panel.rows))
    label_ticks(axes, panel, cell, font_size=6.5)
    set_title(axes, "standard error", width, font_size=9)
    _add_bar(axes, width, scale.bar, "neither", "", font_size=6.5)
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


def _colour_scale() -> Colouring:
    return CKA.over()


def _label_bar(bar: Colorbar, label: str, font_size: float) -> None:
    bar.set_label(label, fontsize=10)
    bar.ax.tick_params(labelsize=font_size, length=2)
