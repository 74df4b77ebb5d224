"""What pictures show, read back from their axes."""

import numpy as np


def names(prefix, n):
    return [f"{prefix}{k + 1}" for k in range(n)]


def rendered(figure):
    """Return the pixels of a figure."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[:, :, :3]


def maps(figure):
    """Return the axes that show matrices."""
    return [axes for axes in figure.axes if axes.images]


def values(axes):
    return np.ma.filled(axes.images[0].get_array().astype(float), np.nan)


def colour_bars(figure):
    every = [*figure.axes, *(child for axes in figure.axes for child in axes.child_axes)]
    return [axes._colorbar for axes in every if hasattr(axes, "_colorbar")]


def ticks(axis):
    """Return what stands at an axis, by its place."""
    places = map(round, axis.get_ticklocs())
    return dict(zip(places, (label.get_text() for label in axis.get_ticklabels()), strict=True))


def assert_nothing_is_cropped(figure):
    """Check that axes with all their labels, legends and other words lie on the canvas."""
    rendered(figure)
    for artist in (*figure.axes, *figure.legends, *figure.texts):
        box = artist.get_tightbbox(figure.canvas.get_renderer())
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1
