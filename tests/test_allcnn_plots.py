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
from allcnn.plots import Panel, heatmap, heatmap_grid, learning_curves, save

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
    every = [*figure.axes, *(child for axes in figure.axes for child in axes.child_axes)]
    (bar,) = [axes._colorbar for axes in every if hasattr(axes, "_colorbar")]
    return bar


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
    with pytest.raises(ValueError, match="no panels to draw"):
        heatmap_grid([])
    with pytest.raises(ValueError, match="no histories to draw"):
        learning_curves({})
    with pytest.raises(ValueError, match=r"a\.jpg is no picture; use a name in \.png, "):
        plots.save(heatmap(panel()), tmp_path / "a.jpg")
    assert not list(tmp_path.iterdir())
