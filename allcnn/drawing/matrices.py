"""Matrices as heat maps, alone or in a grid, for pages and for columns of print.

Layer 1 is at the bottom left; colours run from one of a measure's limits to the other, of CKA from
0 to 1; what is not defined is hatched.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from allcnn.drawing.cells import colour_bar, draw_map, fits_numbers
from allcnn.drawing.layout import Bar, Sheet, fitted
from allcnn.drawing.panel import Panel, deviations
from allcnn.drawing.style import PAGE, Style

GROUPED_INCHES: Final = 8.0
GRID_INCHES: Final = 2.2
PAIR_INCHES: Final = 3.4


def matrix(panel: Panel, style: Style = PAGE) -> Figure:
    """Draw one matrix, with numbers in its cells where they fit.

    Standard errors, where the panel has them, stand below the numbers, or where those leave no
    room in a second map, with colours of its own, beside or below the first.
    """
    largest = max(style.matrix, GROUPED_INCHES) if panel.is_grouped else style.matrix

    def build(side: float) -> Sheet:
        panels, fits = [panel], fits_numbers(panel, side / panel.longest, style.number)
        if panel.errors is not None and not fits:
            panels.append(deviations(panel, panel.errors, "standard error"))
        return _sheet(panels, _pair(style), side, style, numbered={0} if fits else ())

    return fitted(build, _side(panel, style, largest))


def grid(panels: Sequence[Panel], title: str = "", style: Style = PAGE) -> Figure:
    """Draw matrices side by side, with one colour bar.

    Where all panels share their names, those stand at the outer panels alone. A line has as many
    matrices as the style says, and lines have about one length.
    """
    _check(panels)
    panels = _on_one_scale(panels)
    n = len(panels)
    places = [divmod(k, _abreast(n, style)) for k in range(n)]

    def build(side: float) -> Sheet:
        bars = [colour_bar(panels, (0, places[-1][0]))]
        return _sheet(panels, places, side, style.small, title, bars)

    return fitted(build, _grid_side(panels))


def mean_and_spread(
    mean: Panel, spread: Float[np.ndarray, "r c"], title: str = "", style: Style = PAGE
) -> Figure:
    """Draw a matrix of means and, in colours of its own, how far single values lie from them."""
    panels, small = (mean, deviations(mean, spread, "standard deviation")), style.small

    def build(side: float) -> Sheet:
        cell = side / mean.longest
        fit = {k for k, panel in enumerate(panels) if fits_numbers(panel, cell, small.number)}
        return _sheet(panels, _pair(style), side, small, title, numbered=fit)

    return fitted(build, _side(mean, style, PAIR_INCHES))


def classes(
    panels: Sequence[Panel],
    mean: Panel,
    whole: Panel,
    spread: Float[np.ndarray, "r c"],
    title: str = "",
    style: Style = PAGE,
) -> Figure:
    """Draw one matrix a class, their mean, that of all examples together, and their spread.

    The spread, in colours of its own, is the standard deviation between classes.
    """
    _check(panels)
    n = len(panels)
    abreast = max(3, _abreast(n, style) if style.fills else min(5, n))
    shown = _on_one_scale([*panels, mean, whole])
    between = deviations(mean, spread, "standard deviation")
    places = [divmod(k, abreast) for k in range(n)]
    last = places[-1][0] + 1
    places += [(last, 0), (last, 1), (last, abreast - 1)]

    def build(side: float) -> Sheet:
        bars = [colour_bar(shown[:n], (0, last - 1)), colour_bar([between], (last, last))]
        return _sheet([*shown, between], places, side, style.small, title, bars)

    return fitted(build, min(1.7, _grid_side(panels)))


def errors(panel: Panel, style: Style = PAGE) -> Figure:
    """Draw the standard errors of a matrix as a map, from 0 to the largest of them."""
    if panel.errors is None:
        raise ValueError(f"panel {panel.title!r} has no standard errors to draw")
    of = replace(deviations(panel, panel.errors, "standard error"), title=panel.title)
    side = _side(panel, style, style.matrix)
    return fitted(lambda side: _sheet([of], _pair(style), side, style), side)


def _sheet(
    panels: Sequence[Panel],
    places: Sequence[tuple[int, int]],
    side: float,
    style: Style,
    title: str = "",
    bars: Sequence[Bar] = (),
    numbered: Collection[int] = (),
) -> Sheet:
    """Put panels into lines and columns, each with ``side`` inches along its longer side.

    Each has a bar of its own where there are no ``bars``; those ``numbered`` have numbers.
    """
    sheet = Sheet(style, title, bars=bars)
    alone, shared = len(panels) == 1, len({panel.names for panel in panels}) == 1
    if shared and not alone:
        sheet.row_label, sheet.column_label = panels[0].row_label, panels[0].column_label
    last = places[len(panels) - 1][0]
    for k, (panel, (line, column)) in enumerate(zip(panels, places, strict=False)):
        draw_map(
            sheet,
            panel,
            (line, column),
            side,
            left=not shared or column == 0,
            # Names below a hole in the last line would push the lines apart.
            bottom=not shared or line == last,
            labels=not shared or alone,
            numbers=k in numbered,
            bar=not bars,
        )
    return sheet


def _pair(style: Style) -> list[tuple[int, int]]:
    """Return the places of two matrices, which a column of print has below each other."""
    return [(0, 0), (1, 0) if style.fills else (0, 1)]


def _on_one_scale(panels: Sequence[Panel]) -> list[Panel]:
    """Return panels of one measure with limits that span those of all."""
    lows, highs = zip(*(panel.limits for panel in panels), strict=True)
    return [replace(panel, limits=(min(lows), max(highs))) for panel in panels]


def _side(panel: Panel, style: Style, largest: float) -> float:
    return min(largest, max(1.5, style.cell * panel.longest))


def _grid_side(panels: Sequence[Panel]) -> float:
    return min(GRID_INCHES, max(1.2, 0.25 * max(panel.longest for panel in panels)))


def _abreast(n: int, style: Style) -> int:
    """Return how many matrices a line has, all lines having about as many."""
    return math.ceil(n / math.ceil(n / style.abreast))


def _check(panels: Sequence[Panel]) -> None:
    if not panels:
        raise ValueError("there are no panels to draw; give one or more")
