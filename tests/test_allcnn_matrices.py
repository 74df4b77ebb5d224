"""What heat maps show, read back from their axes and pixels: colours, numbers, names and groups."""

import itertools

import matplotlib
import numpy as np
import pytest

from allcnn.drawing import matrices
from allcnn.drawing.panel import Panel
from allcnn.drawing.style import COLUMN, PAGE, SCREEN
from tests.drawn import (
    assert_nothing_is_cropped,
    colour_bars,
    maps,
    names,
    rendered,
    ticks,
    values,
)
from tests.sweeps import slow

STYLES = pytest.mark.parametrize("style", [PAGE, COLUMN, SCREEN], ids=["page", "column", "screen"])


def panel(r=3, c=4, title="", **changes):
    matrix = np.linspace(0, 1, r * c).reshape(r, c)
    for (i, j), value in changes.pop("values", {}).items():
        matrix[i, j] = value
    return Panel(matrix, names("row", r), names("col", c), title, **changes)


def pixel(figure, axes, row, column):
    """Return the colour in a corner of a cell, clear of its number."""
    pixels = rendered(figure)
    x, y = axes.transData.transform((column - 0.35, row - 0.35))
    return pixels[len(pixels) - 1 - int(y), int(x)] / 255


def test_the_first_layer_is_at_the_bottom_left_and_colours_run_from_0_to_1():
    figure = matrices.matrix(
        panel(2, 2, values={(0, 0): 0.0, (0, 1): 0.25, (1, 0): 0.5, (1, 1): 0.75})
    )
    axes = figure.axes[0]
    assert axes.images[0].get_clim() == (0, 1)
    assert axes.images[0].origin == "lower"
    assert ticks(axes.yaxis) == {0: "row1", 1: "row2"}
    assert ticks(axes.xaxis) == {0: "col1", 1: "col2"}
    colours = matplotlib.colormaps["magma"]
    for (row, column), value in {(0, 0): 0.0, (0, 1): 0.25, (1, 0): 0.5, (1, 1): 0.75}.items():
        np.testing.assert_allclose(pixel(figure, axes, row, column), colours(value)[:3], atol=0.01)
    (_, low), (_, high) = axes.transData.transform([(0, 0), (0, 1)])
    assert high > low


def test_not_a_number_is_drawn_hatched_and_without_a_number():
    figure = matrices.matrix(panel(values={(1, 2): np.nan}))
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
    one = panel(values=values)
    for figure in (matrices.matrix(one), matrices.grid([panel(), one])):
        (bar,) = colour_bars(figure)
        assert bar.extend == extend
        assert bar.ax.get_ylabel() == "CKA"
        assert (bar.vmin, bar.vmax) == (0, 1)


def test_numbers_are_written_where_cells_hold_them():
    numbers = [text.get_text() for text in matrices.matrix(panel(12, 2)).axes[0].texts]
    assert numbers[0] == "0.00"
    assert numbers[-1] == "1.00"
    assert not matrices.matrix(panel(30, 2)).axes[0].texts
    tiny = matrices.matrix(panel(1, 2, values={(0, 0): -0.001, (0, 1): -0.06})).axes[0].texts
    assert [text.get_text() for text in tiny] == ["0.00", "-0.06"]


@pytest.mark.parametrize(
    ("n", "most"), [(10, 10), slow((17, 17)), slow((30, 30)), slow((60, 33)), (66, 34)]
)
def test_names_are_thinned_out_and_do_not_overlap(n, most):
    figure = matrices.matrix(panel(n, n))
    axes = figure.axes[0]
    rendered(figure)
    for axis in (axes.xaxis, axes.yaxis):
        assert most / 2 <= len(axis.get_ticklabels()) <= most
        assert {0, n - 1} <= set(ticks(axis))
    assert all(text == f"row{k + 1}" for k, text in ticks(axes.yaxis).items())
    boxes = [label.get_window_extent() for label in axes.yaxis.get_ticklabels()]
    assert all(a.y1 <= b.y0 for a, b in itertools.pairwise(boxes))


@STYLES
@pytest.mark.parametrize(
    ("r", "c"),
    [(1, 1), slow((10, 10)), slow((17, 10)), (10, 17), slow((66, 66)), slow((2, 40))],
)
def test_cells_are_square_and_nothing_is_cropped(r, c, style):
    title = "a long title of a comparison, with its kernel, estimator and sample set"
    one = panel(r, c, title=title, row_label="run a", column_label="run b")
    figure = matrices.matrix(one, style)
    assert_nothing_is_cropped(figure)
    axes = figure.axes[0]
    (x, y) = axes.transData.transform((1, 1)) - axes.transData.transform((0, 0))
    assert x == pytest.approx(y, rel=1e-3)
    assert axes.title.get_text().replace("\n", " ") == title
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("run a", "run b")


@pytest.mark.parametrize(("n", "lines"), [(1, [1]), (4, [4]), (5, [3, 2]), (9, [3, 3, 3])])
def test_a_grid_has_up_to_four_panels_a_line(n, lines):
    drawn = maps(matrices.grid([panel()] * n))
    tops = [round(axes.get_position().y1, 4) for axes in drawn]
    assert [len(list(line)) for _, line in itertools.groupby(tops)] == lines
    assert tops == sorted(tops, reverse=True)


def test_panels_of_different_names_are_each_named():
    figure = matrices.grid([panel(3, 4), panel(4, 3), panel(3, 3)])
    for axes in maps(figure):
        assert axes.yaxis.get_tick_params()["labelleft"]
        assert axes.xaxis.get_tick_params()["labelbottom"]


def test_errors_stand_below_their_numbers():
    matrix = np.array([[0.25, np.nan], [-0.5, 1.0]])
    errors = np.array([[0.0123, 0.1], [np.nan, 12.34]])
    (axes,) = matrices.matrix(Panel(matrix, ["a", "b"], ["c", "d"], errors=errors)).axes
    texts = {}
    for text in axes.texts:
        texts.setdefault(text.get_position(), []).append((text.get_text(), text.get_fontsize()))
    assert texts == {
        (0, 0): [("0.25", 7), ("±0.012", 5)],
        (0, 1): [("-0.50", 7)],
        (1, 1): [("1.00", 7), ("±12.3", 5)],
    }


# Of 25 a side, numbers alone would fit; their errors are wider.
@pytest.mark.parametrize(
    ("n", "least", "fit"), [(12, -1.25, True), slow((20, -1.25, True)), (25, 0, False)]
)
def test_numbers_and_errors_keep_to_their_cells(n, least, fit):
    errors = np.full((n, n), 0.0123)
    errors[range(4), range(4)] = (9.999, 123.4, 1234.5, np.nan)
    figure = matrices.matrix(panel(n, n, values={(0, 0): least}, errors=errors))
    rendered(figure)
    axes = figure.axes[0]
    assert len(axes.texts) == (2 * n * n - 1 if fit else 0)
    assert len(maps(figure)) == (1 if fit else 2)
    assert matrices.matrix(panel(n, n, values={(0, 0): least})).axes[0].texts
    places = {}
    for text in axes.texts:
        places.setdefault(text.get_position(), []).append(text.get_window_extent())
    for (x, y), boxes in places.items():
        cell = [(x - 0.5, y - 0.5), (x + 0.5, y + 0.5)]
        (left, low), (right, high) = axes.transData.transform(cell)
        # A line's box has room for descenders, which digits lack.
        assert all(a.y0 + 1 >= b.y1 for a, b in itertools.pairwise(boxes))
        for box in boxes:
            assert left < box.x0 < box.x1 < right
            assert low < box.y0 < box.y1 < high


@STYLES
@pytest.mark.parametrize(("r", "c"), [slow((30, 30)), (10, 40), slow((40, 10)), slow((200, 200))])
def test_errors_of_large_matrices_have_a_map_of_their_own(r, c, style):
    errors = np.random.default_rng(0).random((r, c)) / 10
    errors[2:8, 2:8] = np.nan
    one = panel(r, c, title="CKA", row_label="run a", column_label="run b", errors=errors)
    figure = matrices.matrix(one, style)
    axes, other = maps(figure)
    assert not axes.texts
    assert other.get_title().replace("\n", " ") == "standard error"
    np.testing.assert_array_equal(values(axes), one.matrix)
    np.testing.assert_array_equal(values(other), errors)
    first, second = colour_bars(figure)
    assert (first.vmin, first.vmax) == (0, 1)
    assert (second.vmin, second.vmax) == (0, np.nanmax(errors))
    assert first.cmap != second.cmap
    assert_nothing_is_cropped(figure)
    boxes = [a.get_tightbbox(figure.canvas.get_renderer()) for a in maps(figure)]
    assert not boxes[0].overlaps(boxes[1])
    # Of one size, side by side, so that the names of the rows, or of the columns, hold for both.
    assert axes.get_window_extent().size == pytest.approx(other.get_window_extent().size)
    assert [text.get_text() for text in figure.texts] == ["run a", "run b"]
    assert axes.yaxis.get_tick_params()["labelleft"]
    assert other.xaxis.get_tick_params()["labelbottom"]


def test_missing_errors_are_hatched_in_their_map():
    errors = np.full((30, 30), 0.01)
    errors[5, 5] = np.nan
    figure = matrices.matrix(panel(30, 30, errors=errors))
    other = maps(figure)[1]
    assert other.patch.get_hatch()
    red, green, blue = pixel(figure, other, 5, 5)
    assert red == green == blue


@pytest.mark.slow
def test_networks_keep_their_size_on_a_screen_also_beside_their_errors():
    groups, taps = networks(20, 10)
    errors = np.full((200, 200), 0.01)
    one, both = (
        matrices.matrix(grouped(groups, taps, groups, taps, errors=each), SCREEN)
        for each in (None, errors)
    )
    assert maps(one)[0].get_window_extent().width >= 8 * one.dpi - 1
    assert maps(both)[0].get_window_extent().width >= 6 * both.dpi
    assert both.get_figwidth() <= SCREEN.width


@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_a_map_of_no_errors_has_a_scale(value):
    figure = matrices.matrix(panel(30, 30, errors=np.full((30, 30), value)))
    rendered(figure)
    assert colour_bars(figure)[1].vmax == 1


def test_grids_ignore_errors():
    figure = matrices.grid([panel(13, 13, errors=np.zeros((13, 13)))] * 2)
    assert len(colour_bars(figure)) == 1
    assert len(maps(figure)) == 2


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
    places = zip(axis.get_ticklocs(minor=True), axis.get_ticklabels(minor=True), strict=True)
    return {round(place): label.get_text() for place, label in places}


def test_two_groups_of_different_sizes_are_parted_and_named_once():
    groups = [("a", 10), ("b", 17)]
    taps = [*names("conv", 10), *names("conv", 17)]
    figure = matrices.matrix(grouped(groups, taps, groups, taps, row_label="r", column_label="c"))
    axes = figure.axes[0]
    lines = [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines]
    assert lines == [(0, 9.5), (9.5, 0)]
    for axis in (axes.xaxis, axes.yaxis):
        assert list(axis.get_ticklocs()) == [4.5, 18]
        assert [label.get_text() for label in axis.get_ticklabels()] == ["a", "b"]
        assert shown_minor(axis) == dict(enumerate(taps))
    # Both run along their axis, as they fit.
    assert [axis.get_ticklabels()[0].get_rotation() for axis in (axes.xaxis, axes.yaxis)] == [0, 90]
    assert_nothing_is_cropped(figure)


@pytest.mark.parametrize(("n", "least"), [(20, 20), (50, 50), (100, 40)])
def test_many_groups_are_named_as_far_as_they_fit(n, least):
    groups, taps = networks(n, 10)
    figure = matrices.matrix(grouped(groups, taps, groups, taps), SCREEN)
    axes = figure.axes[0]
    assert_nothing_is_cropped(figure)
    assert len(axes.lines) == 2 * (n - 1)
    assert least <= len(axes.yaxis.get_ticklabels()) <= n
    assert axes.yaxis.get_ticklocs()[0] == 4.5
    assert [axis.get_ticklabels()[0].get_rotation() for axis in (axes.xaxis, axes.yaxis)] == [90, 0]
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
    figure = matrices.matrix(grouped(groups, ["conv1"] * 100, None, names("conv", 5)))
    axes = figure.axes[0]
    assert_nothing_is_cropped(figure)
    assert not shown_minor(axes.yaxis)
    assert ticks(axes.xaxis) == {0: "conv1", 2: "conv3", 4: "conv5"}
    assert len(axes.lines) == 99


def test_a_grid_of_groups_is_not_cropped():
    groups, taps = networks(20, 10)
    panels = [grouped(groups, taps, groups, taps, title=k) for k in "abc"]
    figure = matrices.grid(panels, style=SCREEN)
    assert_nothing_is_cropped(figure)
    drawn = maps(figure)
    assert [len(axes.lines) for axes in drawn] == [38] * 3
    # The names have their own room: the matrices stay as large as without them.
    least = matrices.GRID_INCHES * figure.dpi - 1
    assert all(axes.get_window_extent().height > least for axes in drawn)


def test_a_grid_names_the_members_of_groups_at_its_outer_panels():
    groups, taps = networks(2, 5)
    figure = matrices.grid([grouped(groups, taps, groups, taps)] * 2)
    drawn = maps(figure)
    for axes, named in zip(drawn, (True, False), strict=True):
        assert len(axes.yaxis.get_ticklocs(minor=True)) == 10
        for which in ("major", "minor"):
            assert axes.yaxis.get_tick_params(which=which)["labelleft"] is named
            assert axes.xaxis.get_tick_params(which=which)["labelbottom"] is True


def test_refusals():
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
        matrices.grid([])


@pytest.mark.parametrize("grouped", [False, True])
def test_names_are_written_as_they_are_and_long_ones_leave_room_for_cells(grouped):
    odd = ["$x{$", "\\$\\foo", "_fc", "a/b", "x" * 200]
    groups = [("net@init", 2), ("net@final", 3)] if grouped else None
    one = Panel(np.eye(5), odd, odd, row_groups=groups, column_groups=groups)
    figure = matrices.matrix(one)
    assert_nothing_is_cropped(figure)
    assert maps(figure)[0].get_window_extent().width > 1.5 * figure.dpi
    if not grouped:
        drawn = ["\\$x{\\$", "\\\\$\\foo", "_fc", "a/b", f"{'x' * 20}…{'x' * 20}"]
        assert list(ticks(maps(figure)[0].xaxis).values()) == drawn


def test_matrices_side_by_side_have_one_scale_whatever_their_own_limits():
    """As of HSIC, whose limits are those of a result's values."""
    first, second = panel(limits=(-0.5, 1.0)), panel(limits=(0.0, 3.0), values={(0, 0): 4.0})
    figure = matrices.grid([first, second])
    assert {axes.images[0].get_clim() for axes in maps(figure)} == {(-0.5, 3)}
    (bar,) = colour_bars(figure)
    assert (bar.vmin, bar.vmax, bar.extend) == (-0.5, 3, "max")
    spread = np.ones((3, 4))
    figure = matrices.classes([first, first], first, second, spread)
    *of_values, of_spread = maps(figure)
    assert {axes.images[0].get_clim() for axes in of_values} == {(-0.5, 3)}
    assert of_spread.images[0].get_clim() == (0, 1)
