"""Accuracies in percent: of linear probes on each layer, and of finding layers by similarity."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from allcnn.drawing.canvas import finish_axes, line_colours
from allcnn.drawing.cells import colour_bar, draw_map, name_members
from allcnn.drawing.layout import Sheet, fitted
from allcnn.drawing.panel import Panel, check_shape
from allcnn.drawing.style import PAGE, Style

_BELOW: Final = 0.5
"""Height of the curve below a matrix, as a share of the matrix's."""

_BAR: Final = 0.4


@dataclass(frozen=True)
class Accuracies:
    """Accuracies of linear probes on the layers of one network, in the network's order.

    Attributes:
        names: of the layers.
        accuracy: shares of examples classified rightly, from 0 to 1; NaN where not known.
        errors: their standard errors.
    """

    names: Sequence[str]
    accuracy: Float[np.ndarray, "l"]
    errors: Float[np.ndarray, "l"]

    def __post_init__(self) -> None:
        n = len(self.names)
        wanted = f"there are {n} layers; give one of each a layer, and at least one layer"
        check_shape("the accuracies have", self.accuracy, (n,), wanted)
        check_shape("their errors have", self.errors, (n,), wanted)


def depths(
    networks: Sequence[tuple[Panel, Accuracies | None]], title: str = "", style: Style = PAGE
) -> Figure:
    """Draw networks side by side: values within each, and below it the accuracy of its layers.

    The columns of a matrix and the places of the curve below are the same. Networks without
    accuracies have an empty place there (Kornblith et al. 2019, Figure 3).
    """
    if not networks:
        raise ValueError("there are no networks to draw; give one or more")
    small = style.small
    abreast = min(len(networks), 2 if style.fills else 4)
    probes = [probe for _, probe in networks if probe]

    def build(side: float) -> Sheet:
        sheet = Sheet(small, title, bars=[colour_bar([panel for panel, _ in networks])])
        for k, (panel, probe) in enumerate(networks):
            line, column = 2 * (k // abreast), k % abreast
            draw_map(sheet, panel, (line, column), side, bottom=not probes, labels=False)
            if probes:
                cell = side / panel.longest
                below = sheet.place(line + 1, column, len(panel.columns) * cell, _BELOW * side)
                _draw_below(below, panel, probe, cell, small)
                below.set_ylim(*_limits(probes))
                below.tick_params(labelleft=column == 0)
                below.set_ylabel("Accuracy (%)" if column == 0 else "", fontsize=small.label)
        return sheet

    return fitted(build, 1.9 if len(networks) > 1 else 3.0)


def probe_curves(
    networks: Mapping[str, Accuracies], title: str = "", style: Style = PAGE
) -> Figure:
    """Draw the accuracy of linear probes along the layers, a line a network, with its errors.

    Layers are named where all networks have the same ones, else they are numbered.
    """
    if not networks:
        raise ValueError("there are no probes to draw; give those of one network or more")
    most = max(len(each.names) for each in networks.values())
    alike = len({tuple(each.names) for each in networks.values()}) == 1
    names = next(iter(networks.values())).names if alike else [str(k + 1) for k in range(most)]

    def draw(axes: Axes, side: float) -> list[Any]:
        colours = line_colours(len(networks))
        drawn = [
            _draw_curve(axes, each, colour, style, name)
            for (name, each), colour in zip(networks.items(), colours, strict=True)
        ]
        finish_axes(axes, "" if alike else "Layer", "Accuracy (%)", style.label, style.tick)
        axes.set_xlim(-0.5, most - 0.5)
        name_members(axes.xaxis, names, side / most, style.tick)
        axes.tick_params(axis="x", rotation=90 if alike else 0)
        axes.set_ylim(*_limits(list(networks.values())))
        return drawn

    return _alone(draw, title, style)


def correspondence_bars(
    found: Mapping[str, float],
    published: Mapping[str, float],
    chance: float,
    *,
    source: str,
    title: str = "",
    style: Style = PAGE,
) -> Figure:
    """Draw the shares of layers found, from 0 to 1, by the way of comparing, as pairs of bars.

    Ways that are not ``published``, whose ``source`` the legend names, have a single bar above
    their name; a dashed line shows ``chance``, the share found by guessing.
    """
    if not found:
        raise ValueError("there are no shares to draw; give those of one way or more")
    ways = list(found)

    def draw(axes: Axes, _: float) -> list[Any]:
        drawn: list[Any] = []
        ours, theirs = ("here", line_colours(1)[0]), (f"published: {source}", "0.75")
        for shares, sign, (label, colour) in ((found, -1, ours), (published, 1, theirs)):
            places = [k for k, way in enumerate(ways) if way in shares]
            if not places:
                continue
            percent = [100 * shares[ways[k]] for k in places]
            at = [k + sign * _BAR / 2 * (ways[k] in published) for k in places]
            drawn.append(axes.bar(at, percent, _BAR, color=colour, label=label))
            axes.bar_label(drawn[-1], fmt="%.1f", fontsize=style.number, padding=1)
        how: dict[str, Any] = {"linestyle": "--", "linewidth": 0.8 * style.line, "label": "chance"}
        drawn.append(axes.axhline(100 * chance, color="0.2", **how))
        finish_axes(axes, "", "Layers found (%)", style.label, style.tick)
        axes.grid(visible=False, axis="x")
        # A line each of "RBF 0.4 CKA" lets five of them stand side by side in a column.
        axes.set_xticks(range(len(ways)), ["\n".join(way.rsplit(" ", 1)) for way in ways])
        axes.set_xlim(-0.6, len(ways) - 0.4)
        axes.set_ylim(0, 112)
        axes.set_yticks(range(0, 101, 20))
        return drawn

    return _alone(draw, title, style)


def _alone(draw: Callable[[Axes, float], list[Any]], title: str, style: Style) -> Figure:
    """Draw axes of a width given in inches, and below them a legend of what ``draw`` returns."""

    def build(side: float) -> Sheet:
        sheet = Sheet(style, title)
        sheet.legend = draw(sheet.place(0, 0, side, min(3.2, 0.75 * side)), side)
        return sheet

    return fitted(build, 6.0)


def _draw_below(
    axes: Axes, panel: Panel, probe: Accuracies | None, cell: float, style: Style
) -> None:
    """Draw a curve whose places are the columns of the matrix above."""
    n = len(panel.columns)
    if probe is not None and len(probe.names) != n:
        raise ValueError(
            f"the probes of {panel.title!r} are of {len(probe.names)} layers, its matrix of {n};"
            " give probes of the same layers"
        )
    if probe is None:
        middle: dict[str, Any] = {"ha": "center", "va": "center", "transform": axes.transAxes}
        axes.text(0.5, 0.5, "no probes", color="0.4", fontsize=style.tick, **middle)
    else:
        _draw_curve(axes, probe, line_colours(1)[0], style)
    finish_axes(axes, "", "", style.label, style.tick)
    axes.set_xlim(-0.5, n - 0.5)
    name_members(axes.xaxis, panel.columns, cell, style.tick)
    axes.tick_params(axis="x", rotation=90, length=2)


def _draw_curve(axes: Axes, probe: Accuracies, colour: Any, style: Style, name: str = "") -> Any:
    percent = 100 * np.asarray(probe.accuracy, np.float64)
    return axes.errorbar(
        range(len(percent)),
        percent,
        100 * np.asarray(probe.errors, np.float64),
        color=colour,
        linewidth=style.line,
        elinewidth=0.6 * style.line,
        marker="o",
        markersize=(1.7 if len(percent) <= 20 else 0.8) * style.line,
        label=name,
    )


def _limits(probes: Sequence[Accuracies]) -> tuple[float, float]:
    """Return the range in percent that holds all curves with their errors."""
    signs = np.array([[-1], [1]])
    ends = [100 * (np.asarray(p.accuracy) + signs * np.nan_to_num(p.errors)) for p in probes]
    finite = np.concatenate(ends, axis=None)
    finite = finite[np.isfinite(finite)]
    if not len(finite):
        return 0.0, 100.0
    room = 0.06 * max(float(np.ptp(finite)), 5.0)
    return max(0.0, float(finite.min()) - room), min(102.0, float(finite.max()) + room)
