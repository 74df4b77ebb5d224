"""Heat maps: the colours, numbers and names of cells, and lines between groups of them."""

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from allcnn.drawing.canvas import as_label, text_inches, wrapped
from allcnn.drawing.layout import Bar, Sheet
from allcnn.drawing.panel import Groups, Panel, spans

ROUNDING: Final = 1e-6
"""How far rounding alone takes values out of their limits."""

_SEPARATOR: Final = "#00B7B7"
"""Neither in the colours of measures nor lost on the lightest or the darkest of them."""

_SMALLER: Final = 2
"""Points by which errors are smaller than the numbers above them."""

_LEAST: Final = 5
"""Points of the smallest errors that can be read."""


def draw_map(
    sheet: Sheet,
    panel: Panel,
    place: tuple[int, int],
    side: float,
    *,
    left: bool = True,
    bottom: bool = True,
    labels: bool = True,
    numbers: bool = False,
    bar: bool = False,
) -> Axes:
    """Draw a matrix in a line and column of a sheet, ``side`` inches along its longer side.

    The first row is at the bottom, cells are square, and those that are NaN hatched. Beside it
    stand the names of rows (``left``) and columns (``bottom``), the ``labels`` of both sides, and a
    colour ``bar`` of its own; in its cells ``numbers``.
    """
    style, cell = sheet.style, side / panel.longest
    width = cell * len(panel.columns)
    axes = sheet.place(*place, width, cell * len(panel.rows))
    # The hatched ground shows through cells that are NaN, and through these alone.
    axes.patch.set(facecolor="0.88", edgecolor="0.6", hatch="////", linewidth=0)
    how: dict[str, Any] = {"origin": "lower", "aspect": "equal", "interpolation": "none"}
    how |= {"cmap": panel.colours, "norm": Normalize(*panel.limits)}
    axes.imshow(np.ma.masked_invalid(panel.matrix), **how)
    _part_groups(axes, panel, cell)
    _label_ticks(axes, panel, cell, style.tick)
    axes.tick_params(which="both", labelleft=left, labelbottom=bottom, width=0.6)
    axes.spines[:].set_linewidth(0.6)
    if labels:
        axes.set_ylabel(panel.row_label, fontsize=style.label)
        axes.set_xlabel(panel.column_label, fontsize=style.label)
    axes.set_title(wrapped(panel.title, width, style.title), fontsize=style.title, pad=4)
    if numbers:
        _write_numbers(axes, panel, _scale(panel), style.number)
    if bar:
        colour_bar([panel]).draw(axes.inset_axes((1 + 0.08 / width, 0, 0.1 / width, 1)), style)
    return axes


def _scale(panel: Panel) -> ScalarMappable:
    return ScalarMappable(Normalize(*panel.limits), panel.colours)


def colour_bar(panels: Sequence[Panel], lines: tuple[int, int] = (0, 0)) -> Bar:
    """Return the colour bar that panels of one measure share, with arrows for values beyond it."""
    values = np.concatenate([np.ravel(panel.matrix) for panel in panels])
    low, high = panels[0].limits
    below, above = bool((values < low - ROUNDING).any()), bool((values > high + ROUNDING).any())
    arrows = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[below, above]
    return Bar(_scale(panels[0]), panels[0].measure, arrows, lines)


def _part_groups(axes: Axes, panel: Panel, cell: float) -> None:
    """Draw lines between groups, in cells of ``cell`` inches."""
    for groups, draw in ((panel.row_groups, axes.axhline), (panel.column_groups, axes.axvline)):
        if groups is None:
            continue
        # Hundreds of lines would tint the matrix, were they not thinner than few are.
        points = 72 * cell * min(count for _, count in groups)
        for _, first, _ in spans(groups)[1:]:
            draw(first - 0.5, color=_SEPARATOR, linewidth=min(0.7, 0.04 * points))


def _label_ticks(axes: Axes, panel: Panel, cell: float, font_size: float) -> None:
    """Name as many rows and columns as fit cells of ``cell`` inches, with groups beyond them."""
    axes.tick_params(which="both", length=2, labelsize=font_size)
    longest = as_label(max(panel.columns, key=len))
    side_by_side = panel.column_groups is None and text_inches(longest, font_size) <= 0.75 * cell
    axes.tick_params(axis="x", which="both", rotation=0 if side_by_side else 90)
    sides = (
        (axes.xaxis, panel.columns, panel.column_groups, 0),
        (axes.yaxis, panel.rows, panel.row_groups, 90),
    )
    for axis, names, groups, angle in sides:
        if groups is None:
            name_members(axis, names, cell, font_size)
        else:
            _name_groups(axis, names, groups, cell, font_size, angle)


def name_members(axis: Axis, names: Sequence[str], cell: float, font_size: float) -> None:
    """Name as many rows or columns as fit cells of ``cell`` inches, first and last included."""
    last, least = len(names) - 1, _cells(font_size, cell)
    shown = [*range(0, last - least + 1, least), last]
    axis.set_ticks(shown, [as_label(names[k]) for k in shown])


def _name_groups(
    axis: Axis, names: Sequence[str], groups: Groups, cell: float, font_size: float, angle: int
) -> None:
    """Name the members at the matrix, where two of a group fit, and the groups beyond them.

    ``angle`` turns the groups' names along the axis, which is done where all of them fit.
    """
    parts = spans(groups)
    members: list[int] = []
    small = 0.8 * font_size
    least = _cells(small, cell)
    for _, first, stop in parts:
        # The last of them keeps its distance from the next group's first.
        places = range(first, stop - least + 1, least)
        if len(places) > 1 or stop - first == 1:
            members += places
    axis.set_ticks(members, [as_label(names[k]) for k in members], minor=True)
    axis.set_tick_params(which="minor", labelsize=small)
    # Else a group's name would hide that of the member at its centre.
    axis.remove_overlapping_locs = False
    centres = [(first + stop - 1) / 2 for _, first, stop in parts]
    along = all(text_inches(name, font_size) < 0.95 * cell * count for name, count in groups)
    shown = [0]
    for k in range(1, len(centres)):
        if along or centres[k] - centres[shown[-1]] >= _cells(font_size, cell):
            shown.append(k)
    axis.set_ticks([centres[k] for k in shown], [parts[k][0] for k in shown])
    widest = 72 * max((text_inches(as_label(names[k]), small) for k in members), default=0)
    axis.set_tick_params(which="major", length=0, pad=widest + (10 if members else 4))
    if along:
        axis.set_tick_params(which="major", rotation=angle)


def _cells(font_size: float, cell: float) -> int:
    """Return how many cells of ``cell`` inches a line of text needs."""
    return math.ceil(1.4 * font_size / 72 / cell)


def fits_numbers(panel: Panel, cell: float, font_size: float) -> bool:
    """Return whether numbers of two decimals, and errors below them, fit such cells."""
    below = 0 if panel.errors is None else font_size - _SMALLER
    # The height first: matrices of millions of values need no words for them.
    if 0 < below < _LEAST or 1.3 * (font_size + below) / 72 > cell:
        return False
    errors = () if panel.errors is None else panel.errors
    for values, text, size in ((panel.matrix, _decimals, font_size), (errors, _plus_minus, below)):
        finite = np.ravel(values)[np.isfinite(np.ravel(values))].tolist()
        if text_inches(max(map(text, finite), key=len, default=""), size) > 0.85 * cell:
            return False
    return True


def _write_numbers(axes: Axes, panel: Panel, scale: ScalarMappable, font_size: float) -> None:
    """Write each value into its cell, and its standard error, where it has one, below it."""
    matrix = np.asarray(panel.matrix)
    errors = np.full(matrix.shape, np.nan) if panel.errors is None else np.asarray(panel.errors)
    # White is read better than black where the colour is dark.
    is_dark = scale.to_rgba(matrix)[..., :3] @ (0.299, 0.587, 0.114) < 0.5
    for (i, j), value in np.ndenumerate(matrix):
        if not np.isfinite(value):
            continue
        style: dict[str, Any] = {"color": "white" if is_dark[i, j] else "black", "ha": "center"}
        has_error = np.isfinite(errors[i, j])
        height = "bottom" if has_error else "center"
        axes.text(j, i, _decimals(value), fontsize=font_size, va=height, **style)
        if has_error:
            error = _plus_minus(float(errors[i, j]))
            axes.text(j, i, error, fontsize=font_size - _SMALLER, va="top", **style)


def _decimals(value: float) -> str:
    return f"{value:z.2f}"


def _plus_minus(error: float) -> str:
    # Near a self-HSIC of zero errors grow without bound; the cell does not.
    short = f"{error:.3f}" if error < 10 else f"{error:.1f}" if error < 1000 else f"{error:.0e}"
    return f"±{short}"
