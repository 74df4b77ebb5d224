"""How often layers are found by each way of comparing them, beside what was published."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure

from allcnn.drawing.canvas import finish_axes, line_colours
from allcnn.drawing.layout import Sheet, fitted
from allcnn.drawing.style import PAGE, Style

_PUBLISHED: Final = "0.75"
_BAR: Final = 0.4


def correspondence_bars(
    found: Mapping[str, float],
    published: Mapping[str, float],
    chance: float,
    *,
    source: str,
    title: str = "",
    style: Style = PAGE,
) -> Figure:
    """Draw the share of layers found, from 0 to 1, by the way of comparing, as pairs of bars.

    Args:
        found: ours, in the order of the bars.
        published: by the same names; ways without one have a single bar.
        chance: what guessing gives, a dashed line.
        source: of the published numbers, named in the legend.
        title: above the bars.
        style: for a page or a column.
    """
    if not found:
        raise ValueError("there are no shares to draw; give those of one way or more")
    ways = list(found)
    theirs = [way for way in ways if way in published]

    def build(side: float) -> Sheet:
        sheet = Sheet.new(style, title)
        axes = sheet.place(0, 0, side, min(3.2, 0.75 * side))
        ours = _bars(axes, [(ways.index(w), found[w]) for w in ways], -1, "here", style)
        drawn = [ours]
        if theirs:
            pairs = [(ways.index(w), published[w]) for w in theirs]
            drawn.append(_bars(axes, pairs, 1, f"published: {source}", style))
        line = axes.axhline(
            100 * chance, color="0.2", linestyle="--", linewidth=0.8 * style.line, label="chance"
        )
        sheet.legend = [*drawn, line]
        finish_axes(axes, "", "Layers found (%)", style.label, style.tick)
        axes.grid(visible=False, axis="x")
        # A line each of "RBF 0.4 CKA" lets five of them stand side by side in a column.
        axes.set_xticks(range(len(ways)), [_broken(way) for way in ways])
        axes.set_xlim(-0.6, len(ways) - 0.4)
        axes.set_ylim(0, 112)
        axes.set_yticks(range(0, 101, 20))
        return sheet

    return fitted(build, style, 6.0)


def _bars(axes: Any, shares: list[tuple[int, float]], side: int, label: str, style: Style) -> Any:
    """Draw bars at one side of their places, their numbers above them."""
    places = np.array([place for place, _ in shares]) + side * _BAR / 2
    percent = 100 * np.array([share for _, share in shares])
    colour = line_colours(1)[0] if side < 0 else _PUBLISHED
    drawn = axes.bar(places, percent, _BAR, color=colour, label=label)
    axes.bar_label(drawn, fmt="%.1f", fontsize=style.number, padding=1)
    return drawn


def _broken(way: str) -> str:
    head, _, tail = way.rpartition(" ")
    return f"{head}\n{tail}" if head else tail
