"""Matrices as heat maps, alone or in a grid, for pages and for columns of print.

Layer 1 is at the bottom left; colours of CKA run from 0 to 1; what is not defined is hatched.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from allcnn.canvas import new_figure, set_title
from allcnn.drawing.cells import (
    CKA,
    ERRORS,
    SPREAD,
    Scale,
    draw_cells,
    extend,
    fits_numbers,
    label_ticks,
    part_groups,
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
    """A panel with what its colours stand for, and whether it has a bar that says so."""

    panel: Panel
    scale: Scale = CKA
    has_bar: bool = False
    is_numbered: bool = False


def matrix(panel: Panel, style: Style = PAGE) -> Figure:
    """Draw one matrix, with numbers in its cells where they fit.

    Standard errors, where the panel has them, stand below the numbers, or where those leave no
    room in a second map with colours of their own.
    """
    largest = max(style.matrix, GROUPED_INCHES) if panel.is_grouped else style.matrix
    side = min(largest, max(1.5, style.cell * _longest(panel)))

    def build(side: float) -> Sheet:
        cell = side / _longest(panel)
        room = cell if panel.errors is None else cell * 0.62
        numbered = fits_numbers(panel, cell, style.number) and room > 1.3 * style.number / 72
        maps = [Map(panel, CKA, has_bar=True, is_numbered=numbered)]
        if panel.errors is not None and not numbered:
            maps.append(Map(_error_panel(panel), ERRORS, has_bar=True))
        abreast = 1 if style.fills else 2
        return _sheet(maps, abreast, side, style, shares=False)

    return fitted(build, style, side)


def grid(
    panels: Sequence[Panel],
    title: str = "",
    style: Style = PAGE,
    abreast: int | None = None,
) -> Figure:
    """Draw matrices of CKA side by side, with one colour bar.

    Where all panels share their names, those stand at the outer panels alone. ``abreast`` are the
    matrices of a line; None for as many as the style has, in lines of about one length.
    """
    _check(panels)
    small = style.small
    abreast = _abreast(len(panels), style) if abreast is None else abreast
    maps = [Map(panel) for panel in panels]
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
            for each, scale in ((mean, CKA), (other, SPREAD))
        ]
        return _sheet(maps, 1 if style.fills else 2, side, small, title, shares=False)

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
    between = replace(mean, matrix=spread, title="standard deviation between classes", errors=None)
    maps = [Map(panel) for panel in (*panels, mean, *([] if whole is None else [whole]))]
    maps.append(Map(between, SPREAD, has_bar=True))
    small = style.small
    abreast = min(5, len(maps)) if not style.fills else _abreast(len(maps), style)
    side = min(1.7, _grid_side(panels))
    return fitted(lambda side: _sheet(maps, abreast, side, small, title), small, side)


def errors(panel: Panel, style: Style = PAGE) -> Figure:
    """Draw the standard errors of a matrix as a map, from 0 to the largest of them."""
    if panel.errors is None:
        raise ValueError(f"panel {panel.title!r} has no standard errors to draw")
    of = replace(_error_panel(panel), title=panel.title)
    side = min(style.matrix, max(1.5, style.cell * _longest(panel)))
    return fitted(lambda side: _sheet([Map(of, ERRORS, has_bar=True)], 1, side, style), style, side)


def _error_panel(panel: Panel) -> Panel:
    assert panel.errors is not None
    return replace(panel, matrix=panel.errors, title="standard error", errors=None)


def _sheet(
    maps: Sequence[Map],
    abreast: int,
    side: float,
    style: Style,
    title: str = "",
    *,
    shares: bool = True,
) -> Sheet:
    """Put maps into lines, the longest side of the longest having so many inches."""
    sheet = Sheet(new_figure(style.width, style.width, layout=None), style, title)
    shared = shares and len({one.panel.names for one in maps}) == 1
    cell = side / max(_longest(one.panel) for one in maps)
    for k, one in enumerate(maps):
        r, c = np.shape(one.panel.matrix)
        # Grids of different networks have matrices of one size, others cells of one size.
        own = cell if shared else side / _longest(one.panel)
        axes = sheet.place(k // abreast, k % abreast, c * own, r * own)
        left = not shared or k % abreast == 0
        bottom = not shared or k + abreast >= len(maps)
        draw_map(axes, one, own, style, left=left, bottom=bottom)
    with_bar = [k for k, one in enumerate(maps) if not one.has_bar]
    if with_bar:
        panels = [maps[k].panel for k in with_bar]
        lines = with_bar[0] // abreast, with_bar[-1] // abreast
        sheet.bar = Bar(CKA.mappable(()), CKA.label, extend(panels), lines)
    return sheet


def draw_map(
    axes: Axes, one: Map, cell: float, style: Style, *, left: bool = True, bottom: bool = True
) -> None:
    """Draw a map in axes of cells of so many inches, with names at the left and the bottom."""
    panel, scale = one.panel, one.scale.mappable([one.panel.matrix])
    width = cell * len(panel.columns)
    draw_cells(axes, panel.matrix, scale)
    part_groups(axes, panel, cell)
    label_ticks(axes, panel, cell, style.tick)
    axes.tick_params(which="both", labelleft=left, labelbottom=bottom, width=0.6)
    axes.set_ylabel(panel.row_label if left else "", fontsize=style.label)
    axes.set_xlabel(panel.column_label if bottom else "", fontsize=style.label)
    axes.spines[:].set_linewidth(0.6)
    set_title(axes, panel.title, width, style.title)
    axes.title.set_linespacing(1.05)
    if one.is_numbered:
        write_numbers(axes, panel, scale, style.number)
    if one.has_bar:
        ends = extend([panel]) if one.scale.high is not None else "neither"
        inset = axes.inset_axes((1 + 0.08 / width, 0, 0.1 / width, 1))
        bar = axes.figure.colorbar(scale, cax=inset, extend=ends)
        bar.set_label(one.scale.label, fontsize=style.label)
        inset.tick_params(labelsize=style.tick, length=2)


def _longest(panel: Panel) -> int:
    return max(np.shape(panel.matrix))


def _grid_side(panels: Sequence[Panel]) -> float:
    return min(GRID_INCHES, max(1.2, 0.25 * max(map(_longest, panels))))


def _abreast(n: int, style: Style) -> int:
    """Return how many matrices a line has, all lines having about as many."""
    return math.ceil(n / math.ceil(n / style.abreast))


def _check(panels: Sequence[Panel]) -> None:
    if not panels:
        raise ValueError("there are no panels to draw; give one or more")
