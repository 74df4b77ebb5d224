"""Axes of given sizes in lines and columns, and a figure around them that cuts nothing off.

Matplotlib's own layouts fit axes into a figure; here matrices keep square cells of one size, and
the figure is as large as their names need, or the cells as large as a column of print lets them be.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation, Transform

from allcnn.drawing.canvas import new_figure, set_inches, wrapped
from allcnn.drawing.style import Style

_MARGIN: Final = 0.06
_BETWEEN: Final = 0.1
_BAR: Final = 0.1
_AFTER_NAMES: Final = 0.05
_SMALLEST: Final = 0.15
_TRIES: Final = 6
_CLOSE: Final = 0.97
"""The share of the available width that is enough to have used."""


class Placed(NamedTuple):
    """Axes with their size in inches, and the line and column that they stand in."""

    axes: Axes
    line: int
    column: int
    width: float
    height: float


class Bar(NamedTuple):
    """A colour bar at the right of the lines that share it, the first and the last given."""

    scale: ScalarMappable
    label: str
    extend: str
    lines: tuple[int, int]

    def draw(self, axes: Axes, style: Style) -> None:
        """Draw it over all of some axes."""
        drawn = axes.figure.colorbar(self.scale, cax=axes, extend=self.extend)
        drawn.set_label(self.label, fontsize=style.label)
        axes.tick_params(labelsize=style.tick, length=2)


@dataclass
class Sheet:
    """A figure in the making; axes are placed by their lines, from the top, and columns.

    ``row_label`` and ``column_label`` describe the rows and columns of all matrices.
    """

    style: Style
    title: str = ""
    placed: list[Placed] = field(default_factory=list)
    bars: Sequence[Bar] = ()
    legend: Sequence[Any] = ()
    row_label: str = ""
    column_label: str = ""

    def __post_init__(self) -> None:
        self.figure = new_figure(self.style.width, self.style.width)
        # Letters have other lengths at other dots an inch, and everything is measured at these.
        self.figure.set_dpi(self.style.dpi)

    def place(self, line: int, column: int, width: float, height: float) -> Axes:
        """Return new axes; sizes are in inches."""
        axes = self.figure.add_subplot()
        self.placed.append(Placed(axes, line, column, width, height))
        return axes


class _Tracks(NamedTuple):
    """The room before the axes of each line or column, theirs, and that after them, in inches."""

    before: dict[int, float]
    own: dict[int, float]
    after: dict[int, float]

    def add(self, key: int, size: float, low: float, high: float) -> None:
        """Make room for axes that begin at 0, and for all that is drawn from low to high."""
        for of, inches in zip(self, (-low, size, high - size), strict=True):
            of[key] = max(of.get(key, 0.0), inches)

    def starts(self, at: float, keys: Iterable[int]) -> tuple[dict[int, float], float]:
        """Return where the axes of each begin, one after the other, and where the last ends."""
        found = {}
        for key in keys:
            found[key] = at + self.before[key]
            at = found[key] + self.own[key] + self.after[key] + _BETWEEN
        return found, at - _BETWEEN


def fitted(build: Callable[[float], Sheet], side: float) -> Figure:
    """Return a figure of the style's width, or less where that suffices.

    ``build`` makes the sheet, its matrices having the given inches along their longest side:
    ``side``, or fewer where the width asks for it.
    """
    largest, sheet = side, build(side)
    style = sheet.style
    for _ in range(_TRIES - 1):
        width, stretch = _arrange(sheet)
        room = style.width - width
        done = room >= 0 and (side >= largest or width >= _CLOSE * style.width)
        if done or side <= _SMALLEST:
            return sheet.figure
        # A little less than would fill it: names may need more room once cells have another size.
        side = float(np.clip(side * (1 + 0.99 * room / stretch - 0.002), _SMALLEST, largest))
        # Figure and axes hold each other: its matrices would stay until that cycle is collected.
        sheet.figure.clear()
        sheet = build(side)
    _arrange(sheet)
    return sheet.figure


def _arrange(sheet: Sheet) -> tuple[float, float]:
    """Give everything its place; return the width needed, and how much of it are axes."""
    figure, style = sheet.figure, sheet.style
    columns, lines = _measured(sheet)
    line_of_text = 1.4 * style.label / 72 + _AFTER_NAMES
    left = _MARGIN + (line_of_text if sheet.row_label else 0)
    x, right = columns.starts(left, sorted(columns.own))
    bars, bar_inches = _colour_bars(sheet)
    needed = right + bar_inches + _MARGIN
    width = style.width if style.fills and needed <= style.width else needed
    shift = (width - needed) / 2
    x = {column: start + shift for column, start in x.items()}
    low = _MARGIN + _legend(sheet, width) + (line_of_text if sheet.column_label else 0)
    y, top = lines.starts(low, sorted(lines.own, reverse=True))
    height = top + _title(sheet, width) + _MARGIN
    figure.set_size_inches(width, height)
    for one in sheet.placed:
        # Those that are lower than others of their line hang from the same height.
        bottom = y[one.line] + lines.own[one.line] - one.height
        set_inches(figure, one.axes, (x[one.column], bottom, one.width, one.height))
    for axes, bar in zip(bars, sheet.bars, strict=True):
        bottom = y[bar.lines[1]]
        high = y[bar.lines[0]] + lines.own[bar.lines[0]] - bottom
        set_inches(figure, axes, (right + _BETWEEN + shift, bottom, _BAR, high))
    across = (min(x.values()) + max(x[k] + columns.own[k] for k in x)) / 2
    down = (min(y.values()) + max(y[k] + lines.own[k] for k in y)) / 2
    name = partial(figure.text, size=style.label)
    if sheet.row_label:
        left = (_MARGIN + shift) / width
        name(left, down / height, sheet.row_label, rotation=90, ha="left", va="center")
    if sheet.column_label:
        below = (low - _AFTER_NAMES) / height
        name(across / width, below, sheet.column_label, ha="center", va="top")
    return needed, sum(columns.own.values())


def _measured(sheet: Sheet) -> tuple[_Tracks, _Tracks]:
    """Return the room that columns and lines need for the axes in them and their names."""
    columns, lines = _Tracks({}, {}, {}), _Tracks({}, {}, {})
    to_inches = sheet.figure.dpi_scale_trans.inverted()
    for one in sheet.placed:
        set_inches(sheet.figure, one.axes, (0, 0, one.width, one.height))
        box = (one.axes.get_tightbbox() or one.axes.bbox).transformed(to_inches)
        columns.add(one.column, one.width, box.x0, box.x1)
        lines.add(one.line, one.height, box.y0, box.y1)
    return columns, lines


def _colour_bars(sheet: Sheet) -> tuple[list[Axes], float]:
    """Draw the bars; return them with the inches that they and their numbers need."""
    drawn, widest = [], 0.0
    for each in sheet.bars:
        axes = sheet.figure.add_axes((0, 0, 0.1, 0.5))
        each.draw(axes, sheet.style)
        set_inches(sheet.figure, axes, (0, 0, _BAR, 1))
        box = axes.get_tightbbox() or axes.bbox
        widest = max(widest, _BETWEEN + float(box.x1) / sheet.figure.dpi)
        drawn.append(axes)
    return drawn, widest


def _legend(sheet: Sheet, width: float) -> float:
    """Draw the legend in as few lines as fit; return the inches that it needs."""
    for n in range(min(len(sheet.legend), 6), 0, -1):
        legend = sheet.figure.legend(
            handles=list(sheet.legend),
            loc="lower center",
            bbox_to_anchor=(0.5, 0),
            bbox_transform=_inside(sheet.figure, _MARGIN),
            ncols=n,
            fontsize=sheet.style.tick,
            frameon=False,
            borderaxespad=0,
            borderpad=0,
            columnspacing=1.2,
            handlelength=1.8,
        )
        box = legend.get_window_extent()
        if n == 1 or box.width <= (width - 2 * _MARGIN) * sheet.figure.dpi:
            return float(box.height) / sheet.figure.dpi + _BETWEEN
        legend.remove()
    return 0.0


def _title(sheet: Sheet, width: float) -> float:
    """Write the title of the whole; return the inches that it needs."""
    if not sheet.title:
        return 0.0
    figure, size = sheet.figure, sheet.style.title
    lines = wrapped(sheet.title, width - 2 * _MARGIN, size)
    how: dict[str, Any] = {"fontsize": size, "ha": "center", "va": "top"}
    text = figure.text(0.5, 1, lines, transform=_inside(figure, -_MARGIN), **how)
    return float(text.get_window_extent().height) / figure.dpi + _BETWEEN


def _inside(figure: Figure, inches: float) -> Transform:
    """Return shares of the figure, so many inches higher, whatever its size is at last."""
    return figure.transFigure + ScaledTranslation(0, inches, figure.dpi_scale_trans)
