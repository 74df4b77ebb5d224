"""Accuracies of linear probes on each layer: curves, alone or below matrices.

The figure of matrices above and accuracies below is Figure 3 of Kornblith et al. (2019).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from allcnn.drawing.canvas import finish_axes, line_colours
from allcnn.drawing.cells import name_members
from allcnn.drawing.layout import Sheet, fitted
from allcnn.drawing.matrices import Map, Names, bar, draw_map
from allcnn.drawing.panel import Panel
from allcnn.drawing.style import PAGE, Style

_BELOW: Final = 0.5
"""Height of the curve below a matrix, as a share of the matrix's."""


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
        shapes = np.shape(self.accuracy), np.shape(self.errors)
        if set(shapes) != {(len(self.names),)} or not len(self.names):
            raise ValueError(
                f"accuracies and errors have shapes {shapes}, there are {len(self.names)} layers;"
                " give one of each a layer, and at least one layer"
            )


def depths(
    networks: Sequence[tuple[Panel, Accuracies | None]], title: str = "", style: Style = PAGE
) -> Figure:
    """Draw networks side by side: values within each, and below it the accuracy of its layers.

    The columns of a matrix and the places of the curve below are the same. Networks without
    accuracies have an empty place there.
    """
    if not networks:
        raise ValueError("there are no networks to draw; give one or more")
    small = style.small
    abreast = min(len(networks), 2 if style.fills else 4)
    has_probes = any(probe for _, probe in networks)
    limits = _limits([probe for _, probe in networks if probe])

    def build(side: float) -> Sheet:
        sheet = Sheet(small, title)
        for k, (panel, probe) in enumerate(networks):
            line, column = 2 * (k // abreast), k % abreast
            r, c = np.shape(panel.matrix)
            cell = side / max(r, c)
            shown = replace(panel, row_label="", column_label="")
            above = sheet.place(line, column, c * cell, r * cell)
            draw_map(above, Map(shown), cell, small, Names(bottom=not has_probes))
            if has_probes:
                below = sheet.place(line + 1, column, c * cell, _BELOW * side)
                _draw_below(below, panel, probe, cell, small)
                below.set_ylim(*limits)
                below.tick_params(labelleft=column == 0)
                below.set_ylabel("Accuracy (%)" if column == 0 else "", fontsize=small.label)
        sheet.bars = [bar([panel for panel, _ in networks], (0, 0))]
        return sheet

    return fitted(build, small, 1.9 if len(networks) > 1 else 3.0)


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

    def build(side: float) -> Sheet:
        sheet = Sheet(style, title)
        axes = sheet.place(0, 0, side, min(3.2, 0.75 * side))
        colours = line_colours(len(networks))
        sheet.legend = [
            _draw_curve(axes, each, colour, style, name)
            for (name, each), colour in zip(networks.items(), colours, strict=True)
        ]
        finish_axes(axes, "" if alike else "Layer", "Accuracy (%)", style.label, style.tick)
        axes.set_xlim(-0.5, most - 0.5)
        name_members(axes.xaxis, names, side / most, style.tick)
        axes.tick_params(axis="x", rotation=90 if alike else 0)
        axes.set_ylim(*_limits(list(networks.values())))
        return sheet

    return fitted(build, style, 6.0)


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
    values = [np.zeros(0)]
    for p in probes:
        values += [100 * (np.asarray(p.accuracy) + s * np.nan_to_num(p.errors)) for s in (-1, 1)]
    finite = np.concatenate(values)
    finite = finite[np.isfinite(finite)]
    if not len(finite):
        return 0.0, 100.0
    room = 0.06 * max(float(np.ptp(finite)), 5.0)
    return max(0.0, float(finite.min()) - room), min(102.0, float(finite.max()) + room)
