"""How often layers are found by each way of comparing them, beside published numbers."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure

from allcnn.drawing.canvas import finish_axes, line_colours
from allcnn.drawing.layout import Sheet, fitted
from allcnn.drawing.style import PAGE, Style

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
        chance: the share found by guessing, a dashed line.
        source: of the published numbers, named in the legend.
        title: above the bars.
        style: for a page or a column.
    """
    if not found:
        raise ValueError("there are no shares to draw; give those of one way or more")
    ways = list(found)

    def build(side: float) -> Sheet:
        sheet = Sheet(style, title)
        axes = sheet.place(0, 0, side, min(3.2, 0.75 * side))
        drawn: list[Any] = []
        ours, theirs = ("here", line_colours(1)[0]), (f"published: {source}", "0.75")
        for shares, sign, (label, colour) in ((found, -1, ours), (published, 1, theirs)):
            places = [k for k, way in enumerate(ways) if way in shares]
            if not places:
                continue
            percent = [100 * shares[ways[k]] for k in places]
            at = np.array(places) + sign * _BAR / 2
            drawn.append(axes.bar(at, percent, _BAR, color=colour, label=label))
            axes.bar_label(drawn[-1], fmt="%.1f", fontsize=style.number, padding=1)
        how: dict[str, Any] = {"linestyle": "--", "linewidth": 0.8 * style.line, "label": "chance"}
        sheet.legend = [*drawn, axes.axhline(100 * chance, color="0.2", **how)]
        finish_axes(axes, "", "Layers found (%)", style.label, style.tick)
        axes.grid(visible=False, axis="x")
        # A line each of "RBF 0.4 CKA" lets five of them stand side by side in a column.
        axes.set_xticks(range(len(ways)), ["\n".join(way.rsplit(" ", 1)) for way in ways])
        axes.set_xlim(-0.6, len(ways) - 0.4)
        axes.set_ylim(0, 112)
        axes.set_yticks(range(0, 101, 20))
        return sheet

    return fitted(build, style, 6.0)
