"""What plots of learning, convergence, baselines and identified layers show."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from allcnn.drawing.curves import (
    baseline_plot,
    choose_pairs,
    convergence_curves,
    identification_bars,
    learning_curves,
)
from tests.drawn import assert_nothing_is_cropped, names, rendered, ticks
from tests.sweeps import slow


def history(n=5, loss=1.0):
    epochs = list(range(n))
    return {
        "epoch": epochs,
        "train_loss": [loss / (k + 1) for k in epochs],
        "test_loss": [loss / (k + 1) + 0.1 for k in epochs],
        "train_accuracy": [0.5 + k / 20 for k in epochs],
        "test_accuracy": [0.4 + k / 20 for k in epochs],
    }


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
    assert ticks(axes.xaxis)[5] == "5"
    (top,) = axes.child_axes
    examples = {1: "256", 2: "512", 3: "768", 4: "1,024", 5: "1,033"}
    assert ticks(top.xaxis) == {k: examples[k] for k in ticks(axes.xaxis)}


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
    assert ticks(axes.xaxis) == {0: "a", 1: "b", 2: "c, d"}
    low, high = axes.get_ylim()
    assert low < -0.4
    assert high > 1


@pytest.mark.parametrize(("r", "c"), [(1, 1), slow((10, 10)), (10, 17), slow((100, 100))])
def test_a_baseline_of_any_size_is_not_cropped(r, c):
    rng = np.random.default_rng(0)
    labels = (names("allcnn-d1-v2-s0@final:conv", r), names("allcnn-d1-v2-s1@final:conv", c))
    figure = baseline_plot(rng.random((r, c)), rng.random((5, r, c)), *labels, title="t " * 60)
    assert_nothing_is_cropped(figure)
    assert len(figure.axes[0].xaxis.get_ticklabels()) == min(r, 40)
    nothing = baseline_plot(np.full((2, 3), np.nan), np.full((1, 2, 3), np.nan), "ab", "abc")
    rendered(nothing)


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


@pytest.mark.parametrize(("n", "layers"), [(1, 2), slow((4, 9)), (9, 66)])
def test_bars_of_any_number_are_not_cropped(n, layers):
    shares = {f"RBF {k / 10}": np.full(layers, k / 10) for k in range(n)}
    figure = identification_bars(shares, names("conv", layers), "t " * 60)
    assert_nothing_is_cropped(figure)


def test_refusals():
    with pytest.raises(ValueError, match="no histories to draw"):
        learning_curves({})
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


ODD = ["$x{$", "\\$\\foo", "_fc", "a/b", "x" * 200]


def test_names_are_written_as_they_are_and_long_ones_leave_room_for_curves():
    curves = np.random.default_rng(0).random((3, 5, 5))
    figure = convergence_curves(curves, ODD, ODD, np.array([4, 4, 4]))
    drawn = [text.get_text() for text in figure.legends[0].get_texts()]
    # Matplotlib takes a dollar behind a backslash for a dollar.
    assert drawn == ["\\$x{\\$", "\\\\$\\foo", "_fc", "a/b", f"{'x' * 20}…{'x' * 20}"]
    assert_nothing_is_cropped(figure)
    shares = {"linear": np.linspace(0, 1, 5)}
    assert_nothing_is_cropped(identification_bars(shares, ODD))
    baseline = np.zeros((2, 5, 5))
    assert_nothing_is_cropped(baseline_plot(curves[0], baseline, ODD, ODD))
