"""Names of rows and columns at the axes of a heat map, as many as fit, and of groups of them."""

import itertools
import math
from collections.abc import Sequence

from matplotlib.axis import Axis

from allcnn.drawing.canvas import as_label, text_inches

Groups = Sequence[tuple[str, int]]
"""Names of consecutive rows or columns and how many each has, in order."""


def spans(groups: Groups) -> list[tuple[str, int, int]]:
    """Return name, first and stop of each group."""
    stops = itertools.accumulate(count for _, count in groups)
    return [(name, stop - count, stop) for (name, count), stop in zip(groups, stops, strict=True)]


def name_members(axis: Axis, names: Sequence[str], cell: float, font_size: float) -> None:
    """Name as many rows or columns as fit cells of so many inches, first and last included."""
    last, least = len(names) - 1, _cells(font_size, cell)
    shown = [*range(0, last - least + 1, least), last]
    axis.set_ticks(shown, [as_label(names[k]) for k in shown])


def name_groups(
    axis: Axis, names: Sequence[str], groups: Groups, cell: float, font_size: float, angle: int
) -> None:
    """Name the members at the matrix, where two of a group fit, and the groups beyond them.

    ``angle`` turns the groups' names along the axis, which is done where all of them fit.
    """
    parts = spans(groups)
    small = 0.8 * font_size
    members = [k for _, first, stop in parts for k in _spread(first, stop, _cells(small, cell))]
    axis.set_ticks(members, [as_label(names[k]) for k in members], minor=True)
    axis.set_tick_params(which="minor", labelsize=small)
    # Else a group's name would hide that of the member at its centre.
    axis.remove_overlapping_locs = False
    centres = [(first + stop - 1) / 2 for _, first, stop in parts]
    along = all(text_inches(name, font_size) < 0.95 * cell * count for name, count in groups)
    shown = _apart(centres, 0 if along else _cells(font_size, cell))
    axis.set_ticks([centres[k] for k in shown], [parts[k][0] for k in shown])
    widest = 72 * max((text_inches(as_label(names[k]), small) for k in members), default=0)
    axis.set_tick_params(which="major", length=0, pad=widest + (10 if members else 4))
    if along:
        axis.set_tick_params(which="major", rotation=angle)


def _cells(font_size: float, cell: float) -> int:
    """Return how many cells of so many inches a line of text needs."""
    return math.ceil(1.4 * font_size / 72 / cell)


def _spread(first: int, stop: int, least: int) -> range:
    """Return places from the first on that lie so far apart; none where one of several fits alone.

    The last of them keeps its distance from the next group's first.
    """
    shown = range(first, stop - least + 1, least)
    return shown if len(shown) > 1 or stop - first == 1 else range(0)


def _apart(places: Sequence[float], least: float) -> list[int]:
    """Return the indices of places from the first on, each so far from the one before."""
    shown = [0]
    for k in range(1, len(places)):
        if places[k] - places[shown[-1]] >= least:
            shown.append(k)
    return shown
