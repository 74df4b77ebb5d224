"""What the figures show, read back from their axes and pixels; and how they are saved."""

import itertools
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from allcnn import plots
from allcnn.plots import (
    Panel,
    baseline_plot,
    choose_pairs,
    convergence_curves,
    heatmap,
    heatmap_grid,
    identification_bars,
    learning_curves,
    save,
)

SIGNATURES = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}


def names(prefix, n):
    return [f"{prefix}{k + 1}" for k in range(n)]


def panel(r=3, c=4, title="", **changes):
    matrix = np.linspace(0, 1, r * c).reshape(r, c)
    for (i, j), value in changes.pop("values", {}).items():
        matrix[i, j] = value
    return Panel(matrix, names("row", r), names("col", c), title, **changes)


def history(n=5, loss=1.0):
    epochs = list(range(n))
    return {
        "epoch": epochs,
        "train_loss": [loss / (k + 1) for k in epochs],
        "test_loss": [loss / (k + 1) + 0.1 for k in epochs],
        "train_accuracy": [0.5 + k / 20 for k in epochs],
        "test_accuracy": [0.4 + k / 20 for k in epochs],
    }


def rendered(figure):
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[:, :, :3]


def shown(axis):
    places = map(round, axis.get_ticklocs())
    return dict(zip(places, (label.get_text() for label in labels(axis)), strict=True))


def labels(axis):
    return axis.get_ticklabels()


def pixel(figure, axes, row, column):
    """Return the colour in a corner of a cell, clear of its number."""
    pixels = rendered(figure)
    x, y = axes.transData.transform((column - 0.35, row - 0.35))
    return pixels[len(pixels) - 1 - int(y), int(x)] / 255


def test_the_first_layer_is_at_the_bottom_left_and_colours_run_from_0_to_1():
    figure = heatmap(panel(2, 2, values={(0, 0): 0.0, (0, 1): 0.25, (1, 0): 0.5, (1, 1): 0.75}))
    axes = figure.axes[0]
    assert axes.images[0].get_clim() == (0, 1)
    assert axes.images[0].origin == "lower"
    assert shown(axes.yaxis) == {0: "row1", 1: "row2"}
    assert shown(axes.xaxis) == {0: "col1", 1: "col2"}
    colours = matplotlib.colormaps["magma"]
    for (row, column), value in {(0, 0): 0.0, (0, 1): 0.25, (1, 0): 0.5, (1, 1): 0.75}.items():
        np.testing.assert_allclose(pixel(figure, axes, row, column), colours(value)[:3], atol=0.01)
    (_, low), (_, high) = axes.transData.transform([(0, 0), (0, 1)])
    assert high > low


def test_not_a_number_is_drawn_hatched_and_without_a_number():
    figure = heatmap(panel(values={(1, 2): np.nan}))
    axes = figure.axes[0]
    written = {tuple(round(x) for x in text.get_position()) for text in axes.texts}
    assert len(written) == 11
    assert (2, 1) not in written
    assert axes.patch.get_hatch()
    pixels = rendered(figure)
    (left, low), (right, high) = axes.transData.transform([(1.6, 0.6), (2.4, 1.4)]).astype(int)
    cell = pixels[len(pixels) - high : len(pixels) - low, left:right].reshape(-1, 3)
    assert (np.ptp(cell.astype(int), axis=1) == 0).all()  # grey
    assert len(np.unique(cell[:, 0])) > 1  # hatched


@pytest.mark.parametrize(
    ("values", "extend"),
    [
        ({}, "neither"),
        ({(0, 0): 1 + 1e-8, (0, 1): -1e-9}, "neither"),
        ({(0, 0): -0.1}, "min"),
        ({(0, 0): 1.1, (1, 1): np.nan}, "max"),
        ({(0, 0): 1.1, (0, 1): -0.1}, "both"),
    ],
)
def test_values_beyond_the_colours_get_an_arrow(values, extend):
    for figure in (heatmap(panel(values=values)), heatmap_grid([panel(), panel(values=values)])):
        assert colour_bar(figure).extend == extend
        assert colour_bar(figure).ax.get_ylabel() == "CKA"
        assert (colour_bar(figure).vmin, colour_bar(figure).vmax) == (0, 1)


def colour_bar(figure):
    return colour_bars(figure)[0]


def colour_bars(figure):
    every = [*figure.axes, *(child for axes in figure.axes for child in axes.child_axes)]
    return [axes._colorbar for axes in every if hasattr(axes, "_colorbar")]


def assert_nothing_is_cropped(figure):
    """Check that axes with all their labels, and legends, lie on the canvas."""
    rendered(figure)
    for artist in (*figure.axes, *figure.legends):
        box = artist.get_tightbbox(figure.canvas.get_renderer())
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1


def test_numbers_are_written_in_small_matrices_alone():
    numbers = [text.get_text() for text in heatmap(panel(12, 2)).axes[0].texts]
    assert numbers[0] == "0.00"
    assert numbers[-1] == "1.00"
    assert not heatmap(panel(13, 2)).axes[0].texts
    tiny = heatmap(panel(1, 2, values={(0, 0): -0.001, (0, 1): -0.06})).axes[0].texts
    assert [text.get_text() for text in tiny] == ["0.00", "-0.06"]


@pytest.mark.parametrize(("n", "most"), [(10, 10), (17, 17), (30, 30), (60, 33), (66, 34)])
def test_names_are_thinned_out_and_do_not_overlap(n, most):
    figure = heatmap(panel(n, n))
    axes = figure.axes[0]
    rendered(figure)
    for axis in (axes.xaxis, axes.yaxis):
        assert most / 2 <= len(labels(axis)) <= most
        assert {0, n - 1} <= set(shown(axis))
    assert all(text == f"row{k + 1}" for k, text in shown(axes.yaxis).items())
    boxes = [label.get_window_extent() for label in labels(axes.yaxis)]
    assert all(a.y1 <= b.y0 for a, b in itertools.pairwise(boxes))


@pytest.mark.parametrize("shape", [(1, 1), (10, 10), (17, 10), (10, 17), (66, 66), (2, 40)])
def test_cells_are_square_and_nothing_is_cropped(shape):
    title = "a long title of a comparison, with its kernel, estimator and sample set"
    figure = heatmap(panel(*shape, title=title, row_label="run a", column_label="run b"))
    rendered(figure)
    axes, canvas = figure.axes[0], figure.bbox
    (x, y) = axes.transData.transform((1, 1)) - axes.transData.transform((0, 0))
    assert x == pytest.approx(y, rel=1e-3)
    for artist in (axes.title, axes.xaxis.label, axes.yaxis.label, colour_bar(figure).ax):
        box = artist.get_tightbbox(figure.canvas.get_renderer())
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= canvas.x1
        assert box.y1 <= canvas.y1
    assert axes.title.get_text().replace("\n", " ") == title


def test_a_grid_names_its_outer_panels_and_has_one_colour_bar():
    panels = [panel(title=f"epoch {k}", row_label="final", column_label="then") for k in range(6)]
    figure = heatmap_grid(panels, "a run against its past")
    cells = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in cells] == [f"epoch {k}" for k in range(6)]
    named = [(bool(axes.get_ylabel()), bool(axes.get_xlabel())) for axes in cells]
    assert named == [(k % 3 == 0, k >= 3) for k in range(6)]
    assert [axes.yaxis.get_tick_params()["labelleft"] for axes in cells] == [True, False, False] * 2
    assert figure.get_suptitle() == "a run against its past"
    assert colour_bar(figure)


@pytest.mark.parametrize(("n", "lines"), [(1, [1]), (4, [4]), (5, [3, 2]), (9, [3, 3, 3])])
def test_a_grid_has_up_to_four_panels_a_line(n, lines):
    cells = [axes for axes in heatmap_grid([panel()] * n).axes if axes.images]
    tops = [round(axes.get_subplotspec().rowspan.start) for axes in cells]
    assert [tops.count(line) for line in range(len(lines))] == lines


def test_panels_of_different_names_are_each_named():
    figure = heatmap_grid([panel(3, 4), panel(4, 3), panel(3, 3)])
    cells = [axes for axes in figure.axes if axes.images]
    assert all(axes.yaxis.get_tick_params()["labelleft"] for axes in cells)


def test_learning_curves_are_dashed_for_training_and_solid_for_test():
    runs = {"first": history(), "second": history(loss=2)}
    loss, accuracy = learning_curves(runs).axes
    for axes, quantity, factor in ((loss, "loss", 1), (accuracy, "accuracy", 100)):
        lines = iter(axes.lines)
        for run in runs.values():
            for split, style in (("train", "--"), ("test", "-")):
                line = next(lines)
                assert line.get_linestyle() == style
                np.testing.assert_array_equal(line.get_xdata(), run["epoch"])
                wanted = factor * np.array(run[f"{split}_{quantity}"])
                np.testing.assert_array_equal(line.get_ydata(), wanted)
        colours = [to_rgb(line.get_color()) for line in axes.lines]
        assert colours[0] == colours[1] != colours[2] == colours[3]
    assert accuracy.get_ylabel() == "Accuracy (%)"


def test_loss_is_logarithmic_where_it_spans_decades():
    assert learning_curves({"a": history()}).axes[0].get_yscale() == "linear"
    assert learning_curves({"a": history(n=100)}).axes[0].get_yscale() == "log"
    zero = history(n=100) | {"train_loss": [0.0] * 100}
    assert learning_curves({"a": zero}).axes[0].get_yscale() == "linear"
    rendered(learning_curves({"a": history(n=1), "b": history(n=0)}))


@pytest.mark.parametrize("n", [1, 4, 12])
def test_the_legend_covers_no_data_and_names_every_run(n):
    figure = learning_curves({f"run{k}": history() for k in range(n)})
    rendered(figure)
    (legend,) = figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == ["training", "test", *(f"run{k}" for k in range(n))]
    box = legend.get_window_extent()
    assert not any(box.overlaps(axes.get_window_extent()) for axes in figure.axes)
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1
    colours = {
        line.get_color() if n < 8 else tuple(line.get_color()) for line in figure.axes[0].lines
    }
    assert len(colours) == n


def test_errors_stand_below_their_numbers():
    matrix = np.array([[0.25, np.nan], [-0.5, 1.0]])
    errors = np.array([[0.0123, 0.1], [np.nan, 12.34]])
    (axes,) = heatmap(Panel(matrix, ["a", "b"], ["c", "d"], errors=errors)).axes
    texts = {}
    for text in axes.texts:
        texts.setdefault(text.get_position(), []).append((text.get_text(), text.get_fontsize()))
    assert texts == {
        (0, 0): [("0.25", 7), ("±0.012", 5)],
        (0, 1): [("-0.50", 7)],
        (1, 1): [("1.00", 7), ("±12.3", 5)],
    }


def test_numbers_and_errors_keep_to_their_cells():
    values = {(0, 0): -1.25, (11, 11): 1.0}
    errors = np.full((12, 12), 0.0123)
    errors[0, 0], errors[1, 1], errors[2, 2] = 123.4, 1234.5, 9.999
    figure = heatmap(panel(12, 12, values=values, errors=errors))
    rendered(figure)
    axes = figure.axes[0]
    assert len(axes.texts) == 288
    boxes = [text.get_window_extent() for text in axes.texts]
    for number, error, text in zip(boxes[::2], boxes[1::2], axes.texts[::2], strict=True):
        x, y = text.get_position()
        (left, low), (right, high) = axes.transData.transform(
            [(x - 0.5, y - 0.5), (x + 0.5, y + 0.5)]
        )
        assert left < min(number.x0, error.x0)
        assert max(number.x1, error.x1) < right
        assert low < error.y0
        # A line's box has room for descenders, which digits lack.
        assert error.y1 <= number.y0 + 1
        assert number.y1 < high


@pytest.mark.parametrize("shape", [(13, 13), (10, 17), (17, 10), (200, 200)])
def test_errors_of_large_matrices_have_a_smaller_map_beside(shape):
    errors = np.random.default_rng(0).random(shape) / 10
    errors[2:8, 2:8] = np.nan
    figure = heatmap(panel(*shape, title="CKA", row_label="run a", errors=errors))
    axes, beside = figure.axes
    assert not axes.texts
    assert beside.get_title() == "standard error"
    np.testing.assert_array_equal(beside.images[0].get_array().filled(np.nan), errors)
    first, second = colour_bars(figure)
    assert (first.vmin, first.vmax) == (0, 1)
    assert (second.vmin, second.vmax) == (0, np.nanmax(errors))
    assert first.cmap != second.cmap
    assert_nothing_is_cropped(figure)
    one, other = (a.get_tightbbox(figure.canvas.get_renderer()) for a in figure.axes)
    assert one.x1 < other.x0
    assert beside.get_window_extent().width < axes.get_window_extent().width
    np.testing.assert_array_equal(pixel(figure, beside, 5, 5), [1, 1, 1])  # blank


@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_a_map_of_no_errors_has_a_scale(value):
    figure = heatmap(panel(13, 13, errors=np.full((13, 13), value)))
    rendered(figure)
    assert colour_bars(figure)[1].vmax == 1


def test_grids_ignore_errors():
    figure = heatmap_grid([panel(13, 13, errors=np.zeros((13, 13)))] * 2)
    assert len(colour_bars(figure)) == 1
    assert len([axes for axes in figure.axes if axes.images]) == 2


def networks(n, n_taps):
    """Return the groups and names of networks of so many taps each."""
    groups = [(f"allcnn-d1-v2-s{k}@final", n_taps) for k in range(n)]
    return groups, names("conv", n_taps) * n


def grouped(row_groups, rows, column_groups, columns, **changes):
    matrix = np.random.default_rng(0).random((len(rows), len(columns)))
    return Panel(
        matrix, rows, columns, row_groups=row_groups, column_groups=column_groups, **changes
    )


def shown_minor(axis):
    ticks = zip(axis.get_ticklocs(minor=True), axis.get_ticklabels(minor=True), strict=True)
    return {round(place): label.get_text() for place, label in ticks}


def test_two_groups_of_different_sizes_are_parted_and_named_once():
    groups = [("a", 10), ("b", 17)]
    taps = [*names("conv", 10), *names("conv", 17)]
    figure = heatmap(grouped(groups, taps, groups, taps, row_label="r", column_label="c"))
    axes = figure.axes[0]
    lines = [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines]
    assert lines == [(0, 9.5), (9.5, 0)]
    for axis in (axes.xaxis, axes.yaxis):
        assert list(axis.get_ticklocs()) == [4.5, 18]
        assert [label.get_text() for label in labels(axis)] == ["a", "b"]
        assert shown_minor(axis) == dict(enumerate(taps))
    # Both run along their axis, as they fit.
    assert [labels(axis)[0].get_rotation() for axis in (axes.xaxis, axes.yaxis)] == [0, 90]
    assert_nothing_is_cropped(figure)


@pytest.mark.parametrize(("n", "least"), [(20, 20), (50, 50), (100, 40)])
def test_many_groups_are_named_as_far_as_they_fit(n, least):
    groups, taps = networks(n, 10)
    figure = heatmap(grouped(groups, taps, groups, taps))
    axes = figure.axes[0]
    assert_nothing_is_cropped(figure)
    assert len(axes.lines) == 2 * (n - 1)
    assert least <= len(labels(axes.yaxis)) <= n
    assert axes.yaxis.get_ticklocs()[0] == 4.5
    assert [labels(axis)[0].get_rotation() for axis in (axes.xaxis, axes.yaxis)] == [90, 0]
    for which in ("major", "minor"):
        boxes = [label.get_window_extent() for label in axes.yaxis.get_ticklabels(which=which)]
        assert all(a.y1 <= b.y0 + 1 for a, b in itertools.pairwise(boxes))
    members, outer = (
        [label.get_window_extent() for label in axes.yaxis.get_ticklabels(which=which)]
        for which in ("minor", "major")
    )
    if n == 20:
        assert shown_minor(axes.yaxis)[190] == "conv1"
        assert len(members) == 40
        assert max(box.x1 for box in outer) < min(box.x0 for box in members)
    else:
        assert not members


def test_groups_of_one_member_each_and_of_one_side_alone():
    groups = [(f"epoch-{k:04d}", 1) for k in range(100)]
    figure = heatmap(grouped(groups, ["conv1"] * 100, None, names("conv", 5)))
    axes = figure.axes[0]
    assert_nothing_is_cropped(figure)
    assert not shown_minor(axes.yaxis)
    assert shown(axes.xaxis) == {0: "conv1", 2: "conv3", 4: "conv5"}
    assert len(axes.lines) == 99


def test_a_grid_of_groups_is_not_cropped():
    groups, taps = networks(20, 10)
    figure = heatmap_grid([grouped(groups, taps, groups, taps, title=k) for k in "abc"])
    assert_nothing_is_cropped(figure)
    drawn = [axes for axes in figure.axes if axes.images]
    assert [len(axes.lines) for axes in drawn] == [38] * 3
    # The names have their own room: the matrices stay as large as without them.
    least = plots.GRID_INCHES * figure.dpi
    assert all(axes.get_window_extent().height > least for axes in drawn)


def test_a_grid_names_the_members_of_groups_at_its_outer_panels():
    groups, taps = networks(2, 5)
    figure = heatmap_grid([grouped(groups, taps, groups, taps)] * 2)
    drawn = [axes for axes in figure.axes if axes.images]
    for axes, named in zip(drawn, (True, False), strict=True):
        assert len(axes.yaxis.get_ticklocs(minor=True)) == 10
        for which in ("major", "minor"):
            assert axes.yaxis.get_tick_params(which=which)["labelleft"] is named
            assert axes.xaxis.get_tick_params(which=which)["labelbottom"] is True


# Neighbours of one list; the diagonal of two of one length; else the best match.
@pytest.mark.parametrize(
    ("matrix", "is_self", "pairs"),
    [
        (np.eye(4), True, [(0, 1), (1, 2), (2, 3)]),
        (np.eye(1), True, [(0, 0)]),
        (np.zeros((3, 3)), False, [(0, 0), (1, 1), (2, 2)]),
        ([[0, 2, 1], [3, np.nan, 1]], False, [(0, 1), (1, 0)]),
        ([[0, 3], [2, np.nan], [1, 1]], False, [(1, 0), (0, 1)]),
        ([[np.nan, np.nan, np.nan], [0, -1, -1]], False, [(1, 0)]),
        ([[np.nan, np.nan]], False, []),
        (np.eye(24), True, [(2 * k, 2 * k + 1) for k in range(12)]),
    ],
)
def test_the_pairs_that_are_followed(matrix, is_self, pairs):
    assert choose_pairs(np.array(matrix, np.float64), is_self=is_self) == pairs


@pytest.mark.parametrize("n", range(1, 60))
def test_few_pairs_are_chosen_evenly_and_once(n):
    pairs = choose_pairs(np.eye(n), most=7)
    assert len(set(pairs)) == len(pairs) == min(n, 7)
    assert (pairs[0], pairs[-1]) == ((0, 0), (n - 1, n - 1))
    steps = np.diff([i for i, _ in pairs])
    assert len(steps) == 0 or np.ptp(steps) <= 1


def test_convergence_is_drawn_line_by_line_with_a_bar_at_the_end():
    curves = np.random.default_rng(0).random((5, 3, 3))
    curves[0, 1, 1] = np.nan
    errors = np.array([[0.1, 9, 9], [9, np.nan, 9], [9, 9, 0.3]])
    figure = convergence_curves(curves, list("abc"), list("abd"), [256, 256, 256, 256, 9], errors)
    (axes,) = figure.axes
    lines = [line for line in axes.lines if len(line.get_xdata()) == 5]
    for k, line in enumerate(lines):
        np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3, 4, 5])
        np.testing.assert_array_equal(line.get_ydata(), curves[:, k, k])
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["a", "b", "c, d"]
    for bar, k in zip(axes.containers, (0, 2), strict=True):
        (segment,) = bar.lines[2][0].get_segments()
        error = errors[k, k]
        np.testing.assert_allclose(segment[:, 1], curves[-1, k, k] + np.array([-error, error]))
        assert segment[0, 0] >= 5
        assert to_rgb(bar.lines[0].get_color()) == to_rgb(lines[k].get_color())
    assert shown(axes.xaxis)[5] == "5"
    (top,) = axes.child_axes
    examples = {1: "256", 2: "512", 3: "768", 4: "1,024", 5: "1,033"}
    assert shown(top.xaxis) == {k: examples[k] for k in shown(axes.xaxis)}


@pytest.mark.parametrize(
    ("b", "r", "c", "is_self", "lines"),
    [(1, 10, 10, False, 10), (40, 10, 10, True, 9), (4, 10, 17, False, 10), (9, 60, 60, True, 12)],
)
def test_convergence_of_any_size_is_not_cropped(b, r, c, is_self, lines):
    curves = np.random.default_rng(0).random((b, r, c)) - 0.3
    labels = (names("allcnn-d1-v2-s0@final:conv", r), names("conv", c))
    errors = curves[-1] ** 2
    title = "a long title of a comparison, with its kernel, estimator and sample set"
    figure = convergence_curves(
        curves, *labels, np.full(b, 256), errors, is_self=is_self, title=title
    )
    assert len(figure.legends[0].get_texts()) == lines
    assert_nothing_is_cropped(figure)
    assert not figure.legends[0].get_window_extent().overlaps(figure.axes[0].get_window_extent())


@pytest.mark.parametrize("c", [2, 3])
def test_curves_of_nothing_but_nan_are_empty(c):
    nothing = np.full((3, 2, c), np.nan)
    figure = convergence_curves(nothing, "ab", "abc"[:c], [4, 4, 4], nothing[0])
    assert_nothing_is_cropped(figure)
    assert not figure.axes[0].containers
    assert len(figure.legends[0].get_texts()) == (2 if c == 2 else 0)


def test_a_baseline_is_a_band_from_smallest_to_largest_with_its_mean():
    values = np.diag([0.9, np.nan, -0.4])
    baseline = np.zeros((4, 3, 3)) + np.array([-0.1, 0.3, 0.0, 0.0])[:, None, None]
    baseline[1, 2, 2] = np.nan
    baseline[:, 1, 1] = np.nan
    (axes,) = baseline_plot(values, baseline, list("abc"), list("abd")).axes
    bands = {round(p.get_x() + 0.35): (p.get_y(), p.get_height()) for p in axes.patches}
    assert bands == {0: (-0.1, pytest.approx(0.4)), 2: (-0.1, pytest.approx(0.1))}
    means = [segment[0, 1] for segment in axes.collections[0].get_segments()]
    np.testing.assert_allclose(means, [0.05, -0.1 / 3])
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [0.9, np.nan, -0.4])
    assert shown(axes.xaxis) == {0: "a", 1: "b", 2: "c, d"}
    low, high = axes.get_ylim()
    assert low < -0.4
    assert high > 1


@pytest.mark.parametrize(("r", "c"), [(1, 1), (10, 10), (10, 17), (100, 100)])
def test_a_baseline_of_any_size_is_not_cropped(r, c):
    rng = np.random.default_rng(0)
    labels = (names("allcnn-d1-v2-s0@final:conv", r), names("allcnn-d1-v2-s1@final:conv", c))
    figure = baseline_plot(rng.random((r, c)), rng.random((5, r, c)), *labels, title="t " * 60)
    assert_nothing_is_cropped(figure)
    assert len(labels_of_x(figure)) == min(r, 40)
    nothing = baseline_plot(np.full((2, 3), np.nan), np.full((1, 2, 3), np.nan), "ab", "abc")
    rendered(nothing)


def labels_of_x(figure):
    return labels(figure.axes[0].xaxis)


def test_identified_layers_have_a_bar_for_each_measure_and_a_line_for_chance():
    shares = {"linear": np.array([1.0, 0.5, 0.9, 0.8]), "RBF 0.4": np.array([0.1, 0.2, 0.3, 0.4])}
    figure = identification_bars(shares, names("conv", 4), "ten networks")
    (axes,) = figure.axes
    assert [[100 * x for x in values] for values in shares.values()] == [
        [bar.get_height() for bar in bars] for bars in axes.containers
    ]
    for k in range(4):
        first, second = (bars[k] for bars in axes.containers)
        assert k - 0.5 < first.get_x()
        assert first.get_x() + first.get_width() == pytest.approx(second.get_x())
        assert second.get_x() + second.get_width() < k + 0.5
    assert list(axes.lines[0].get_ydata()) == [25, 25]
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["linear: 80.0 %", "RBF 0.4: 25.0 %", "chance"]
    assert axes.get_title() == "ten networks"


@pytest.mark.parametrize(("n", "layers"), [(1, 2), (4, 9), (9, 66)])
def test_bars_of_any_number_are_not_cropped(n, layers):
    shares = {f"RBF {k / 10}": np.full(layers, k / 10) for k in range(n)}
    figure = identification_bars(shares, names("conv", layers), "t " * 60)
    assert_nothing_is_cropped(figure)


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_the_same_input_gives_the_same_bytes(tmp_path, suffix):
    first, second = (
        save(heatmap(panel(values={(0, 0): np.nan})), tmp_path / f"deep/{k}.{suffix}") for k in "ab"
    )
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes().startswith(SIGNATURES[suffix])
    assert b"date" not in first.read_bytes().lower()
    assert sorted(path.name for path in first.parent.iterdir()) == [f"a.{suffix}", f"b.{suffix}"]


def test_a_failed_save_leaves_the_old_picture_and_no_rest(tmp_path, monkeypatch):
    path = save(heatmap(panel()), str(tmp_path / "a.png"))
    before = path.read_bytes()
    assert before.startswith(SIGNATURES["png"])

    def half_written(partial, **_):
        partial.write_bytes(before[:100])
        raise OSError("no space left")

    figure = heatmap(panel(4, 4))
    monkeypatch.setattr(figure, "savefig", half_written)
    with pytest.raises(OSError, match="no space left"):
        save(figure, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_threads_draw_what_one_thread_draws(tmp_path):
    def draw(k):
        return save(heatmap(panel(k, 5)), tmp_path / f"{k}.svg").read_bytes()

    alone = [draw(k) for k in range(1, 7)]
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(draw, range(1, 7))) == alone


def test_pyplot_is_not_imported():
    script = "import sys, allcnn.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_refusals(tmp_path):
    with pytest.raises(ValueError, match=r"panel 'x' has shape \(2, 3\), its names \(2, 2\)"):
        Panel(np.zeros((2, 3)), ["a", "b"], ["a", "b"], "x")
    with pytest.raises(ValueError, match="at least one of each"):
        Panel(np.zeros((0, 1)), [], ["a"])
    with pytest.raises(
        ValueError, match=r"errors of panel 'x' have shape \(2,\), its matrix \(2, 2\)"
    ):
        Panel(np.zeros((2, 2)), ["a", "b"], ["a", "b"], "x", errors=np.zeros(2))
    for kind, counts in (("row", [1, 2]), ("column", [2, 0]), ("row", [])):
        groups = {f"{kind}_groups": [("g", count) for count in counts]}
        with pytest.raises(ValueError, match=rf"{kind} groups of panel 'x' have .*, its matrix 2;"):
            Panel(np.zeros((2, 2)), ["a", "b"], ["a", "b"], "x", **groups)
    with pytest.raises(ValueError, match="no panels to draw"):
        heatmap_grid([])
    with pytest.raises(ValueError, match="no histories to draw"):
        learning_curves({})
    with pytest.raises(ValueError, match=r"a\.jpg is no picture; use a name in \.png, "):
        plots.save(heatmap(panel()), tmp_path / "a.jpg")
    assert not list(tmp_path.iterdir())


def test_refusals_of_curves():
    curves, ab = np.zeros((3, 2, 2)), ["a", "b"]
    with pytest.raises(ValueError, match=r"curves have shape \(3, 2, 2\), their .* \(2, 2, 2\)"):
        convergence_curves(curves, ab, ab, [4, 4])
    with pytest.raises(ValueError, match=r"and at least one of each"):
        convergence_curves(curves[:0], ab, ab, [])
    with pytest.raises(ValueError, match=r"errors have shape \(2,\), the curves' last values"):
        convergence_curves(curves, ab, ab, [4, 4, 4], np.zeros(2))
    with pytest.raises(ValueError, match=r"values have shape \(2, 2\), their names \(2, 1\)"):
        baseline_plot(curves[0], curves, ab, ["a"])
    for baseline in (curves[0], curves[:0], curves[:, :1]):
        with pytest.raises(ValueError, match=r"baseline has shape .*, the values \(2, 2\)"):
            baseline_plot(curves[0], baseline, ab, ab)
    with pytest.raises(ValueError, match="no shares to draw"):
        identification_bars({}, ab)
    with pytest.raises(ValueError, match=r"shares of rbf have shape \(3,\), there are 2 layers"):
        identification_bars({"linear": np.zeros(2), "rbf": np.zeros(3)}, ab)
