"""Shared by all pictures: figures without pyplot, their colours, and writing them to files.

Nothing global is set, so tasks in several threads may draw at once; sizes are in inches.
"""

import io
import textwrap
import threading
from contextlib import ExitStack
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.textpath import TextPath

from store.storage.paths import Address, Place, as_place, make_folder, write_bytes

# Okabe and Ito's palette, for colour-blind readers too, without its yellow, pale on white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MAX_LETTERS = 40
"""The most letters of a label: longer ones would leave no room for the drawing."""

_FORMATS: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
    "svg": {"Creator": None, "Date": None},
}
_svg_lock = threading.Lock()


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = None) -> Figure:
    """Return an empty white figure; sizes are in inches."""
    figure = Figure(figsize=(width, height), layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    engine = figure.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.set(w_pad=0.07, h_pad=0.07)
    return figure


def set_inches(figure: Figure, axes: Axes, bounds: tuple[float, float, float, float]) -> None:
    """Place axes by left, bottom, width and height in inches."""
    (left, bottom, width, height), (w, h) = bounds, figure.get_size_inches()
    axes.set_position((left / w, bottom / h, width / w, height / h))


def save(figure: Figure, path: Address, dpi: int = 150) -> Place:
    """Write a figure as PNG, PDF or SVG by its suffix, at once or not at all; return the place.

    ``dpi`` are the dots an inch of a bitmap.
    Carries no date and no random name: the same figure gives the same bytes. Folders are made.
    """
    place = as_place(path)
    kind = place.suffix[1:].lower()
    if kind not in _FORMATS:
        raise ValueError(f"{place.name} is no picture; use a name in .{', .'.join(_FORMATS)}")
    drawn = io.BytesIO()
    with ExitStack() as seeded:
        if kind == "svg":
            # Matplotlib takes the seed of an SVG's ids from its global settings alone.
            seeded.enter_context(_svg_lock)
            seeded.enter_context(matplotlib.rc_context({"svg.hashsalt": "allcnn"}))
        figure.savefig(drawn, format=kind, dpi=dpi, metadata=_FORMATS[kind])
    make_folder(place.parent)
    write_bytes(place, drawn.getvalue())
    return place


def wrapped(text: str, width: float, font_size: float) -> str:
    """Break a text into lines of at most ``width`` inches, all about as long."""
    # A letter is about 0.55 of its size wide, and there are 72 points an inch.
    letters = max(12, int(width * 72 / (0.55 * font_size)))
    lines = textwrap.wrap(text, letters)
    even = max(12, -(-len(text) // max(len(lines), 1)))
    tries = (textwrap.wrap(text, n) for n in range(even, letters))
    return "\n".join(next((some for some in tries if len(some) == len(lines)), lines))


def as_label(name: str) -> str:
    """Return a name as an axis or a legend writes it: only the ends of a long one."""
    half = MAX_LETTERS // 2
    return verbatim(name if len(name) <= MAX_LETTERS else f"{name[:half]}…{name[-half:]}")


def verbatim(name: str) -> str:
    """Return a name escaped for Matplotlib, which reads mathematics between dollars."""
    return name.replace("$", r"\$")


def text_inches(text: str, font_size: float) -> float:
    """Return the length of one line of text."""
    if not text:
        return 0.0
    line = TextPath((0, 0), verbatim(text), size=font_size)
    return float(line.get_extents().width) / 72


def line_colours(n: int) -> list[Any]:
    """Return n colours that colour-blind readers, too, can distinguish."""
    if n <= len(_COLOURS):
        return list(_COLOURS[:n])
    return list(matplotlib.colormaps["viridis"](np.linspace(0, 0.95, n)))


def finish_axes(
    axes: Axes, x_label: str, y_label: str, label_size: float = 10, tick_size: float = 9
) -> None:
    """Name the axes of a plot of curves, and draw its grid behind them."""
    axes.set_xlabel(x_label, fontsize=label_size)
    axes.set_ylabel(y_label, fontsize=label_size)
    axes.tick_params(labelsize=tick_size)
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
