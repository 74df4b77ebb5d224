"""The cells of a heat map: their colours, numbers and names, and lines between groups of them."""

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize

from allcnn.drawing.canvas import as_label, text_inches
from allcnn.drawing.panel import Panel
from allcnn.drawing.ticks import name_groups, name_members, spans

ROUNDING: Final = 1e-6
"""How far rounding alone takes values out of their limits."""

_SEPARATOR: Final = "#00B7B7"
"""Neither in the colours of measures nor lost on the lightest or the darkest of them."""

_SMALLER: Final = 2
"""Points by which errors are smaller than the numbers above them."""

_LEAST: Final = 5
"""Points of the smallest errors that can be read."""


class Scale(NamedTuple):
    """What colours stand for.

    Attributes:
        label: of the colour bar.
        colours: a map of Matplotlib's that colour-blind readers can read.
        low: the value of the first colour.
        high: the value of the last colour; None for the largest of a matrix.
    """

    label: str
    colours: str
    low: float = 0.0
    high: float | None = None

    def over(self, matrices: Sequence[Float[np.ndarray, "r c"]] = ()) -> "Colouring":
        """Return the colours for values of these matrices."""
        high = self.high
        if high is None:
            finite = np.concatenate([np.ravel(matrix) for matrix in matrices])
            finite = finite[np.isfinite(finite)]
            # Of zeros alone, any scale shows them as its first colour.
            high = (float(finite.max()) if len(finite) else 0.0) or 1.0
        return Colouring(Normalize(self.low, high), matplotlib.colormaps[self.colours])


class Colouring(NamedTuple):
    """Which colour each value has."""

    norm: Normalize
    colours: Colormap

    @property
    def bar(self) -> ScalarMappable:
        """What a colour bar shows."""
        return ScalarMappable(self.norm, self.colours)

    def is_dark(self, value: float) -> bool:
        """Return whether white is read better than black on the colour of a value."""
        red, green, blue, _ = self.colours(float(np.clip(float(self.norm(value)), 0, 1)))
        return bool(0.299 * red + 0.587 * green + 0.114 * blue < 0.5)


COLOURS: Final = "magma"
"""Of values of measures."""

SPREAD: Final = Scale("standard deviation", "cividis")
ERRORS: Final = Scale("standard error", "cividis")


def scale_of(panel: Panel) -> Scale:
    """Return what the colours of a measure's values stand for."""
    return Scale(panel.measure, COLOURS, *panel.limits)


def draw_cells(axes: Axes, matrix: Float[np.ndarray, "r c"], colouring: Colouring) -> None:
    """Draw the first row at the bottom, in square cells; NaN is hatched."""
    # The hatched ground shows through cells that are NaN, and through these alone.
    axes.patch.set(facecolor="0.88", edgecolor="0.6", hatch="////", linewidth=0)
    axes.imshow(
        np.ma.masked_invalid(matrix),
        cmap=colouring.colours,
        norm=colouring.norm,
        origin="lower",
        aspect="equal",
        interpolation="none",
    )


def part_groups(axes: Axes, panel: Panel, cell: float) -> None:
    """Draw lines between groups, in cells of so many inches."""
    for groups, draw in ((panel.row_groups, axes.axhline), (panel.column_groups, axes.axvline)):
        if groups is None:
            continue
        # Hundreds of lines would tint the matrix, were they not thinner than few are.
        points = 72 * cell * min(count for _, count in groups)
        for _, first, _ in spans(groups)[1:]:
            draw(first - 0.5, color=_SEPARATOR, linewidth=min(0.7, 0.04 * points))


def label_ticks(axes: Axes, panel: Panel, cell: float, font_size: float) -> None:
    """Name as many rows and columns as fit cells of so many inches, with groups beyond them."""
    axes.tick_params(which="both", length=2, labelsize=font_size)
    short = panel.column_groups is None and _are_short(panel.columns, cell, font_size)
    axes.tick_params(axis="x", which="both", rotation=0 if short else 90)
    sides = (
        (axes.xaxis, panel.columns, panel.column_groups, 0),
        (axes.yaxis, panel.rows, panel.row_groups, 90),
    )
    for axis, names, groups, angle in sides:
        if groups is None:
            name_members(axis, names, cell, font_size)
        else:
            name_groups(axis, names, groups, cell, font_size, angle)


def _are_short(names: Sequence[str], cell: float, font_size: float) -> bool:
    """Return whether names stand side by side, each below its cell."""
    return text_inches(as_label(max(names, key=len)), font_size) <= 0.75 * cell


def fits_numbers(panel: Panel, cell: float, font_size: float) -> bool:
    """Return whether numbers of two decimals, and errors below them, fit such cells."""
    below = 0 if panel.errors is None else font_size - _SMALLER
    # The height first: matrices of millions of values need no words for them.
    if 0 < below < _LEAST or 1.3 * (font_size + below) / 72 > cell:
        return False
    numbers = _widest(map(_decimals, _finite(panel.matrix)), font_size)
    errors = () if panel.errors is None else _finite(panel.errors)
    return max(numbers, _widest(map(_plus_minus, errors), below)) <= 0.85 * cell


def _finite(matrix: Float[np.ndarray, "r c"]) -> list[float]:
    values = np.ravel(matrix)
    return [float(value) for value in values[np.isfinite(values)]]


def _widest(texts: Iterable[str], font_size: float) -> float:
    """Return the inches of the text that has most letters."""
    return text_inches(max(texts, key=len, default=""), font_size)


def write_numbers(axes: Axes, panel: Panel, colouring: Colouring, font_size: float) -> None:
    """Write each value into its cell, and its standard error, where it has one, below it."""
    matrix = np.asarray(panel.matrix)
    errors = np.full(matrix.shape, np.nan) if panel.errors is None else np.asarray(panel.errors)
    for (i, j), value in np.ndenumerate(matrix):
        if not np.isfinite(value):
            continue
        style: dict[str, Any] = {
            "color": "white" if colouring.is_dark(value) else "black",
            "ha": "center",
        }
        if np.isfinite(errors[i, j]):
            axes.text(j, i, _decimals(value), fontsize=font_size, va="bottom", **style)
            error = _plus_minus(float(errors[i, j]))
            axes.text(j, i, error, fontsize=font_size - _SMALLER, va="top", **style)
        else:
            axes.text(j, i, _decimals(value), fontsize=font_size, va="center", **style)


def _decimals(value: float) -> str:
    return f"{value:z.2f}"


def _plus_minus(error: float) -> str:
    # Near a self-HSIC of zero errors grow without bound; the cell does not.
    short = f"{error:.3f}" if error < 10 else f"{error:.1f}" if error < 1000 else f"{error:.0e}"
    return f"±{short}"


def extend(panels: Sequence[Panel]) -> str:
    """Say at which ends of the colour bar an arrow stands for values beyond the limits."""
    values = np.concatenate([np.ravel(panel.matrix) for panel in panels])
    low, high = panels[0].limits
    below, above = bool((values < low - ROUNDING).any()), bool((values > high + ROUNDING).any())
    return {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[below, above]
