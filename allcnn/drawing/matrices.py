"""Matrices as heat maps, alone or in a grid, for pages and for columns of print.

Layer 1 is at the bottom left; colours run from one of a measure's limits to the other, of CKA from
0 to 1; what is not defined is hatched.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from allcnn.drawing.canvas import wrapped
from allcnn.drawing.cells import (
    ERRORS,
    SPREAD,
    Scale,
    draw_cells,
    extend,
    fits_numbers,
    label_ticks,
    part_groups,
    scale_of,
    write_numbers,
)
from allcnn.drawing.layout import Bar, Sheet, fitted
from allcnn.drawing.panel import Panel
from allcnn.drawing.style import PAGE, Style

GROUPED_INCHES: Final = 8.0
GRID_INCHES: Final = 2.2
PAIR_INCHES: Final = 3.4


@dataclass(frozen=True)
class Map:
    """A panel, the scale of its colours, None for that of its measure, and whether it has a bar."""

    panel: Panel
    scale: Scale | None = None
    has_bar: bool = False
    is_numbered: bool = False


def matrix(panel: Panel, style: Style = PAGE) -> Figure:
    """Draw one matrix, with numbers in its cells where they fit.

    Standard errors, where the panel has them, stand below the numbers, or where those leave no
    room in a second map, with colours of its own, beside or below the first.
    """
    largest = max(style.matrix, GROUPED_INCHES) if panel.is_grouped else style.matrix
    side = min(largest, max(1.5, style.cell * _longest(panel)))

    def build(side: float) -> Sheet:
        cell = side / _longest(panel)
        numbered = fits_numbers(panel, cell, style.number)
        maps = [Map(panel, has_bar=True, is_numbered=numbered)]
        if panel.errors is not None and not numbered:
            below = replace(panel, matrix=panel.errors, title="standard error", errors=None)
            maps.append(Map(below, ERRORS, has_bar=True))
        return _sheet(maps, 1 if style.fills else 2, side, style)

    return fitted(build, style, side)


def grid(panels: Sequence[Panel], title: str = "", style: Style = PAGE) -> Figure:
    """Draw matrices side by side, with one colour bar.

    Where all panels share their names, those stand at the outer panels alone. A line has as many
    matrices as the style says, and lines have about one length.
    """
    _check(panels)
    maps = [Map(panel) for panel in _on_one_scale(panels)]
    small = style.small
    abreast = _abreast(len(panels), style)
    return fitted(lambda side: _sheet(maps, abreast, side, small, title), small, _grid_side(panels))


def mean_and_spread(
    mean: Panel, spread: Float[np.ndarray, "r c"], title: str = "", style: Style = PAGE
) -> Figure:
    """Draw a matrix of means and, in colours of its own, how far single values lie from them."""
    other = replace(mean, matrix=spread, title="standard deviation", errors=None)
    side = min(PAIR_INCHES, style.cell * _longest(mean))
    small = style.small

    def build(side: float) -> Sheet:
        maps = [
            Map(each, scale, True, fits_numbers(each, side / _longest(each), small.number))
            for each, scale in ((mean, None), (other, SPREAD))
        ]
        return _sheet(maps, 1 if style.fills else 2, side, small, title)

    return fitted(build, small, max(1.5, side))


def classes(
    panels: Sequence[Panel],
    mean: Panel,
    whole: Panel | None,
    spread: Float[np.ndarray, "r c"],
    title: str = "",
    style: Style = PAGE,
) -> Figure:
    """Draw one matrix a class, their mean, that of all examples together, and their spread.

    The spread, in colours of its own, is the standard deviation between classes. ``whole`` None
    leaves the examples of all classes together out.
    """
    _check(panels)
    *panels, mean = _on_one_scale([*panels, *([] if whole is None else [whole]), mean])
    whole = None if whole is None else panels.pop()
    between = replace(mean, matrix=spread, title="standard deviation", errors=None)
    small = style.small
    abreast = _abreast(len(panels), style) if style.fills else min(5, len(panels))
    abreast = max(abreast, 3 if whole else 2)
    n_lines = math.ceil(len(panels) / abreast)

    def build(side: float) -> Sheet:
        sheet = Sheet(small, title)
        sheet.row_label, sheet.column_label = mean.row_label, mean.column_label
        places = [(k // abreast, k % abreast) for k in range(len(panels))]
        summary = [Map(mean), *([] if whole is None else [Map(whole)])]
        places += [(n_lines, k) for k in range(len(summary))] + [(n_lines, abreast - 1)]
        maps = [*map(Map, panels), *summary, Map(between, SPREAD)]
        for one, (line, column) in zip(maps, places, strict=True):
            names = Names(column == 0, line == n_lines, sides=False)
            _place(sheet, one, line, column, side / _longest(mean), names)
        last = Bar(SPREAD.over([spread]).bar, SPREAD.label, "neither", (n_lines, n_lines))
        sheet.bars = [bar(panels, (0, n_lines - 1)), last]
        return sheet

    return fitted(build, small, min(1.7, _grid_side(panels)))


def errors(panel: Panel, style: Style = PAGE) -> Figure:
    """Draw the standard errors of a matrix as a map, from 0 to the largest of them."""
    if panel.errors is None:
        raise ValueError(f"panel {panel.title!r} has no standard errors to draw")
    of = replace(panel, matrix=panel.errors, errors=None)
    side = min(style.matrix, max(1.5, style.cell * _longest(panel)))
    return fitted(lambda side: _sheet([Map(of, ERRORS, has_bar=True)], 1, side, style), style, side)


class Names(NamedTuple):
    """Whether the names of rows and columns stand beside a matrix, and the labels of both sides."""

    left: bool = True
    bottom: bool = True
    sides: bool = True


def _sheet(maps: Sequence[Map], abreast: int, side: float, style: Style, title: str = "") -> Sheet:
    """Put maps into lines, the longest side of the longest having ``side`` inches."""
    sheet = Sheet(style, title)
    shared = len({one.panel.names for one in maps}) == 1
    if shared and len(maps) > 1:
        sheet.row_label, sheet.column_label = maps[0].panel.row_label, maps[0].panel.column_label
    last = (len(maps) - 1) // abreast
    for k, one in enumerate(maps):
        names = Names()
        if shared:
            # Names below a hole in the last line would push the lines apart.
            names = Names(k % abreast == 0, k // abreast == last, sides=len(maps) == 1)
        # Of different networks, matrices have one size, not cells.
        _place(sheet, one, k // abreast, k % abreast, side / _longest(one.panel), names)
    alike = [k for k, one in enumerate(maps) if not one.has_bar]
    if alike:
        lines = alike[0] // abreast, alike[-1] // abreast
        sheet.bars.append(bar([maps[k].panel for k in alike], lines))
    return sheet


def _on_one_scale(panels: Sequence[Panel]) -> list[Panel]:
    """Return panels of one measure with limits that span those of all."""
    lows, highs = zip(*(panel.limits for panel in panels), strict=True)
    return [replace(panel, limits=(min(lows), max(highs))) for panel in panels]


def bar(panels: Sequence[Panel], lines: tuple[int, int]) -> Bar:
    """Return the colour bar that panels of one measure share."""
    scale = scale_of(panels[0])
    return Bar(scale.over().bar, scale.label, extend(panels), lines)


def _place(sheet: Sheet, one: Map, line: int, column: int, cell: float, names: Names) -> None:
    r, c = np.shape(one.panel.matrix)
    draw_map(sheet.place(line, column, c * cell, r * cell), one, cell, sheet.style, names)


def draw_map(axes: Axes, one: Map, cell: float, style: Style, names: Names) -> None:
    """Draw a map in axes whose cells have ``cell`` inches."""
    panel, colours = one.panel, one.scale or scale_of(one.panel)
    scale = colours.over([one.panel.matrix])
    width = cell * len(panel.columns)
    draw_cells(axes, panel.matrix, scale)
    part_groups(axes, panel, cell)
    label_ticks(axes, panel, cell, style.tick)
    axes.tick_params(which="both", labelleft=names.left, labelbottom=names.bottom, width=0.6)
    axes.spines[:].set_linewidth(0.6)
    if names.sides:
        axes.set_ylabel(panel.row_label, fontsize=style.label)
        axes.set_xlabel(panel.column_label, fontsize=style.label)
    axes.set_title(wrapped(panel.title, width, style.title), fontsize=style.title, pad=4)
    if one.is_numbered:
        write_numbers(axes, panel, scale, style.number)
    if one.has_bar:
        ends = extend([panel]) if one.scale is None else "neither"
        inset = axes.inset_axes((1 + 0.08 / width, 0, 0.1 / width, 1))
        bar = axes.figure.colorbar(scale.bar, cax=inset, extend=ends)
        bar.set_label(colours.label, fontsize=style.label)
        inset.tick_params(labelsize=style.tick, length=2)


def _longest(panel: Panel) -> int:
    return max(len(panel.rows), len(panel.columns))


def _grid_side(panels: Sequence[Panel]) -> float:
    return min(GRID_INCHES, max(1.2, 0.25 * max(map(_longest, panels))))


def _abreast(n: int, style: Style) -> int:
    """Return how many matrices a line has, all lines having about as many."""
    return math.ceil(n / math.ceil(n / style.abreast))


def _check(panels: Sequence[Panel]) -> None:
    if not panels:
        raise ValueError("there are no panels to draw; give one or more")
