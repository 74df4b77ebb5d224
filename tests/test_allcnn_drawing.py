"""What the published figures show, read back from their axes, for pages and for columns."""

import functools
import itertools
import shutil

import matplotlib
import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer
from PIL import Image

from allcnn.drawing import curves, matrices
from allcnn.drawing.accuracy import Accuracies, correspondence_bars, depths, probe_curves
from allcnn.drawing.canvas import save
from allcnn.drawing.film import FRAMES_A_SECOND, HELD, film, has_ffmpeg, save_film
from allcnn.drawing.panel import Panel, by_number
from allcnn.drawing.style import COLUMN, PAGE
from tests.drawn import colour_bars, maps, ticks, values
from tests.sweeps import slow, sweep

STYLES = pytest.mark.parametrize("style", [PAGE, COLUMN], ids=["page", "column"])
TITLE = "linear CKA, unbiased, 10,000 examples in minibatches of 256"
RUN = "allcnn-plain-66-s0@final"


def names(n):
    return [*(f"conv{k + 1}" for k in range(n - 1)), "logits"]


def panel(r=10, c=None, title=TITLE, seed=0, errors=False, **changes):
    rng = np.random.default_rng(seed)
    c = r if c is None else c
    matrix = rng.random((r, c))
    spread = rng.random((r, c)) / 20 if errors else None
    values = {"row_label": RUN, "column_label": RUN, "errors": spread} | changes
    return Panel(matrix, names(r), names(c), title, **values)


def accuracies(n, seed=0):
    accuracy = np.linspace(0.4, 0.93, n)
    return Accuracies(names(n), accuracy, np.full(n, 0.01 * (seed + 1)))


def history(n):
    epochs = list(range(1, n + 1))
    rows = {
        "epoch": epochs,
        "train_loss": [2 / k for k in epochs],
        "test_loss": [3 / k for k in epochs],
    }
    return rows | {
        "train_accuracy": [1 - 0.5 / k for k in epochs],
        "test_accuracy": [1 - 0.6 / k for k in epochs],
    }


def some_classes(n, style, n_classes=10):
    panels = [panel(n, title=f"class {k}", seed=k) for k in range(n_classes)]
    mean, whole = panel(n, title="mean of classes"), panel(n, title="all classes together")
    return matrices.classes(panels, mean, whole, np.full((n, n), 0.03), TITLE, style)


def convergence(n, style):
    values = np.random.default_rng(0).random((40, n, n))
    return curves.convergence_curves(
        values, names(n), names(n), np.full(40, 256), values[0] / 10, is_self=True, style=style
    )


FIGURES = {
    "matrix": lambda n, style: matrices.matrix(panel(n), style),
    "not square": lambda n, style: matrices.matrix(panel(n, 17), style),
    "with errors": lambda n, style: matrices.matrix(panel(n, errors=True), style),
    "errors": lambda n, style: matrices.errors(panel(n, errors=True), style),
    "stages": lambda n, style: matrices.grid(
        [panel(n, title=f"epoch {k} (98.1%)", seed=k) for k in range(6)], TITLE, style
    ),
    "seeds": lambda n, style: matrices.mean_and_spread(
        panel(n, title="mean of 90 ordered pairs"), np.full((n, n), 0.04), TITLE, style
    ),
    "classes": some_classes,
    "depths": lambda n, style: depths(
        [(panel(m, title=f"plain-{m}"), accuracies(m)) for m in (10, 18, 34, n)], TITLE, style
    ),
    "probes": lambda n, style: probe_curves(
        {RUN: accuracies(n), "b": accuracies(18)}, TITLE, style
    ),
    "layers": lambda n, style: correspondence_bars(
        {"linear CKA": 0.9, "RBF 0.4 CKA": 1.0}, {"linear CKA": 0.993}, 1 / n, source="a book",
        title=TITLE, style=style,
    ),
    "curves": lambda n, style: curves.learning_curves(
        {f"allcnn-d1-v2-s{k}": history(n) for k in range(4)}, TITLE, style
    ),
    "convergence": convergence,
    "film": lambda n, style: film(
        [panel(n, title="epoch 5 · test accuracy 90.1%")], TITLE, style
    ).figure,
}  # fmt: skip


@functools.cache
def drawn(name, n, style):
    """Return a figure that several tests look at: drawing ten classes takes seconds."""
    before = dict(matplotlib.rcParams)
    figure = FIGURES[name](n, style)
    figure.canvas.draw()
    assert dict(matplotlib.rcParams) == before
    return figure


def forms(names):
    """Parametrise by name, number of layers and style, which are always both tried of one figure.

    Columns have less room, so that others are always drawn for them.
    """
    cases = list(itertools.product(names, (10, 66), (PAGE, COLUMN)))
    chosen = sweep(cases, lambda case: case[0] == "matrix" or case[1:] == (10, COLUMN))
    ids = [f"{name}-{n}-{'page' if style is PAGE else 'column'}" for name, n, style in cases]
    return pytest.mark.parametrize(("name", "n", "style"), chosen, ids=ids)


def texts(figure):
    """Return all words that a figure shows."""
    found = [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    for axes in [*figure.axes, *(child for one in figure.axes for child in one.child_axes)]:
        found += [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
        for axis in (axes.xaxis, axes.yaxis):
            # Names that are not shown are no labels.
            labels = axis.get_ticklabels()
            inside = zip(axis.get_ticklocs() if labels else [], labels, strict=True)
            low, high = sorted(axis.get_view_interval())
            found += [label for place, label in inside if low <= place <= high]
    return [text for text in found if text.get_text().strip() and text.get_visible()]


@forms(FIGURES)
def test_nothing_is_cut_off_or_too_small_to_be_read(name, n, style):
    figure = drawn(name, n, style)
    canvas = figure.bbox
    for text in texts(figure):
        box = text.get_window_extent()
        where = f"{text.get_text()!r} of {name}"
        assert box.x0 >= -1, where
        assert box.y0 >= -1, where
        assert box.x1 <= canvas.x1 + 1, where
        assert box.y1 <= canvas.y1 + 1, where
        assert text.get_fontsize() >= (6 if style is COLUMN else 5), where
    if style is COLUMN:
        assert figure.get_figwidth() == pytest.approx(3.3)
    else:
        assert figure.get_figwidth() <= PAGE.width + 0.5


@forms(["matrix", "stages", "classes", "depths", "seeds", "not square"])
def test_cells_are_square_with_layer_1_at_the_bottom_left(name, n, style):
    for axes in maps(drawn(name, n, style)):
        (x, y) = axes.transData.transform((1, 1)) - axes.transData.transform((0, 0))
        assert x == pytest.approx(y, rel=1e-3)
        assert x > 0
        assert axes.get_xlim()[0] == axes.get_ylim()[0] == -0.5
        assert axes.images[0].origin == "lower"


@forms(["matrix", "stages", "classes", "depths", "seeds", "film"])
def test_names_do_not_overlap_and_have_the_first_and_the_last(name, n, style):
    figure = drawn(name, n, style)
    for axes in maps(figure):
        size = axes.images[0].get_array().shape[0]
        labels = axes.yaxis.get_ticklabels()
        if axes.yaxis.get_tick_params()["labelleft"]:
            assert {0: "conv1", size - 1: "logits"}.items() <= ticks(axes.yaxis).items()
            boxes = [label.get_window_extent() for label in labels]
            assert all(a.y1 <= b.y0 + 1 for a, b in itertools.pairwise(boxes))
    titles = [axes.title.get_window_extent() for axes in maps(figure)]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(titles, 2))


@STYLES
def test_numbers_stand_in_cells_where_they_fit(style):
    shown = [text.get_text() for text in matrices.matrix(panel(10), style).axes[0].texts]
    assert shown == [f"{value:.2f}" for value in panel(10).matrix.ravel()]
    assert not matrices.matrix(panel(40), style).axes[0].texts


def test_errors_stand_below_numbers_on_a_page_and_in_a_map_of_their_own_in_a_column():
    one = panel(10, errors=True)
    (axes,) = maps(matrices.matrix(one, PAGE))
    assert f"±{one.errors[0, 0]:.3f}" in [text.get_text() for text in axes.texts]
    first, second = maps(matrices.matrix(one, COLUMN))
    np.testing.assert_array_equal(values(first), one.matrix)
    np.testing.assert_array_equal(values(second), one.errors)
    assert second.get_position().y1 < first.get_position().y0
    beside = matrices.matrix(panel(66, errors=True), PAGE)
    assert [axes.get_title() for axes in maps(beside)][1] == "standard error"


@STYLES
def test_what_is_not_defined_is_hatched(style):
    matrix = panel(10).matrix.copy()
    matrix[2, 3] = np.nan
    (axes,) = maps(matrices.matrix(Panel(matrix, names(10), names(10)), style))
    assert axes.patch.get_hatch()
    assert np.isnan(values(axes)[2, 3])
    assert len(axes.texts) == 99


def test_layers_are_numbered_from_1_in_each_network():
    groups = [("a", 3), ("b", 2)]
    one = Panel(np.zeros((5, 3)), list("abcde"), list("xyz"), row_groups=groups)
    assert by_number(one).rows == ["L1", "L2", "L3", "L1", "L2"]
    assert by_number(one).columns == ["L1", "L2", "L3"]
    axes = matrices.matrix(by_number(panel(66)), COLUMN).axes[0]
    assert {0: "L1", 65: "L66"}.items() <= ticks(axes.xaxis).items()


def test_numbers_of_layers_are_upright_where_they_fit():
    upright, turned = (
        matrices.matrix(each, COLUMN).axes[0].xaxis.get_ticklabels()[0].get_rotation()
        for each in (by_number(panel(10)), panel(10))
    )
    assert (upright, turned) == (0, 90)


@STYLES
def test_matrices_of_a_grid_share_one_bar_and_the_names_at_its_edge(style):
    panels = [panel(10, title=f"epoch {k}", seed=k) for k in range(5)]
    figure = matrices.grid(panels, "a run", style)
    drawn = maps(figure)
    for axes, one in zip(drawn, panels, strict=True):
        np.testing.assert_array_equal(values(axes), one.matrix)
        assert axes.get_title() == one.title
        assert axes.images[0].get_clim() == (0, 1)
    left = [axes.yaxis.get_tick_params()["labelleft"] for axes in drawn]
    assert left == [True, False, False, True, False]
    below = [axes.xaxis.get_tick_params()["labelbottom"] for axes in drawn]
    assert below == [False, False, False, True, True]
    assert [(bar.vmin, bar.vmax) for bar in colour_bars(figure)] == [(0, 1)]
    shown = [text.get_text() for text in figure.texts]
    assert shown.count(RUN) == 2  # what the rows are, and the columns
    assert "a run" in shown


@STYLES
def test_spread_has_colours_and_a_scale_of_its_own(style):
    spread = np.random.default_rng(1).random((10, 10)) / 30
    figure = matrices.mean_and_spread(panel(10, title="mean"), spread, "", style)
    first, second = maps(figure)
    np.testing.assert_array_equal(values(first), panel(10).matrix)
    np.testing.assert_array_equal(values(second), spread)
    of_mean, of_spread = colour_bars(figure)
    assert (of_mean.vmin, of_mean.vmax) == (0, 1)
    assert (of_spread.vmin, of_spread.vmax) == (0, spread.max())
    assert of_mean.cmap.name == "magma"
    assert of_spread.cmap.name == "cividis"


@STYLES
@pytest.mark.parametrize("n_classes", [1, slow(2), 10])
def test_classes_have_a_matrix_each_then_mean_whole_and_spread(style, n_classes):
    figure = drawn("classes", 10, style) if n_classes == 10 else some_classes(10, style, n_classes)
    titles = [axes.get_title().replace("\n", " ") for axes in maps(figure)]
    assert titles == [
        *(f"class {k}" for k in range(n_classes)),
        "mean of classes",
        "all classes together",
        "standard deviation",
    ]
    *others, spread = maps(figure)
    assert {axes.images[0].get_cmap().name for axes in others} == {"magma"}
    assert {axes.images[0].get_clim() for axes in others} == {(0, 1)}
    assert spread.images[0].get_cmap().name == "cividis"
    assert [bar.ax.get_ylabel() for bar in colour_bars(figure)] == ["CKA", "standard deviation"]
    # The summary stands in a line of its own.
    lows = [round(axes.get_position().y0, 3) for axes in others]
    assert spread.get_position().y0 == pytest.approx(lows[-1], abs=1e-3)
    assert min(lows[:n_classes]) > lows[-1]


@STYLES
def test_accuracies_stand_below_the_columns_they_are_of(style):
    sizes = (10, 18, 66)
    probes = [accuracies(10), None, accuracies(66)]
    shown = [(panel(n, title=f"plain-{n}"), probe) for n, probe in zip(sizes, probes, strict=True)]
    figure = depths(shown, TITLE, style)
    figure.canvas.draw()
    above = maps(figure)
    below = [axes for axes in figure.axes if not axes.images and not hasattr(axes, "_colorbar")]
    assert len(above) == len(below) == 3
    for matrix, curve, n, probe in zip(above, below, sizes, probes, strict=True):
        assert curve.get_xlim() == matrix.get_xlim() == (-0.5, n - 0.5)
        for place in (0, n - 1):
            x = matrix.transData.transform((place, 0))[0]
            assert curve.transData.transform((place, 0))[0] == pytest.approx(x, abs=0.5)
        assert matrix.get_window_extent().y0 > curve.get_window_extent().y1
        lines = [c for c in curve.containers if isinstance(c, ErrorbarContainer)]
        assert len(lines) == (probe is not None)
        if probe is not None:
            np.testing.assert_allclose(lines[0].lines[0].get_ydata(), 100 * probe.accuracy)
        else:
            assert [text.get_text() for text in curve.texts] == ["no probes"]
    assert len({curve.get_ylim() for curve in below}) == 1
    heights = [axes.get_window_extent().height for axes in above]
    assert np.ptp(heights) < 1  # matrices of one size, whatever their cells


def test_networks_without_any_probes_have_matrices_alone():
    figure = depths([(panel(10), None), (panel(17), None)], "", PAGE)
    assert len(figure.axes) == 3
    assert all(axes.xaxis.get_tick_params()["labelbottom"] for axes in maps(figure))


def test_probes_of_other_layers_than_the_matrix_are_refused():
    with pytest.raises(ValueError, match="are of 9 layers, its matrix of 10"):
        depths([(panel(10), accuracies(9))])
    with pytest.raises(ValueError, match=r"errors have shape \(2,\), there are 3 layers"):
        Accuracies(names(3), np.zeros(3), np.zeros(2))


def test_probes_are_a_line_a_network_with_their_errors():
    networks = {"a@final": accuracies(10), "b@final": accuracies(10, seed=1)}
    figure = probe_curves(networks, "probes", PAGE)
    (axes,) = figure.axes
    for container, probe in zip(axes.containers, networks.values(), strict=True):
        np.testing.assert_allclose(container.lines[0].get_ydata(), 100 * probe.accuracy)
        np.testing.assert_array_equal(container.lines[0].get_xdata(), range(10))
        for k, (low, high) in enumerate(s[:, 1] for s in container.lines[2][0].get_segments()):
            middle, error = 100 * probe.accuracy[k], 100 * probe.errors[k]
            assert (low, high) == (pytest.approx(middle - error), pytest.approx(middle + error))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(networks)
    assert ticks(axes.xaxis)[9] == "logits"
    assert "Layer" not in axes.get_xlabel()


def test_layers_of_unlike_networks_are_numbered():
    (axes,) = probe_curves({"a": accuracies(10), "b": accuracies(18)}).axes
    assert ticks(axes.xaxis)[0] == "1"
    assert ticks(axes.xaxis)[17] == "18"
    assert axes.get_xlabel() == "Layer"


def test_ours_stand_beside_the_published_with_chance_as_a_line():
    found = {"linear CKA": 0.5, "another CKA": 1.0, "linear HSIC": 0.25}
    published = {"linear CKA": 0.993, "linear HSIC": 0.222, "PWCCA": 0.111}
    figure = correspondence_bars(found, published, 0.125, source="a book", title="t")
    (axes,) = figure.axes
    ours, theirs = axes.containers
    assert [bar.get_height() for bar in ours] == [50, 100, 25]
    assert [bar.get_height() for bar in theirs] == [pytest.approx(99.3), pytest.approx(22.2)]
    for k, other in ((0, 0), (2, 1)):
        right = ours[k].get_x() + ours[k].get_width()
        assert right == pytest.approx(k)
        assert theirs[other].get_x() == pytest.approx(k)
    assert [text.get_text() for text in axes.texts] == ["50.0", "100.0", "25.0", "99.3", "22.2"]
    assert list(axes.lines[0].get_ydata()) == [12.5, 12.5]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["here", "published: a book", "chance"]
    assert list(ticks(axes.xaxis).values()) == ["linear\nCKA", "another\nCKA", "linear\nHSIC"]
    (alone,) = correspondence_bars(found, {}, 0.1, source="").axes[0].containers
    assert [bar.get_x() + bar.get_width() / 2 for bar in alone] == pytest.approx(range(len(found)))


def test_curves_of_learning_stand_above_one_another_in_a_column():
    page, column = (curves.learning_curves({"a": history(5)}, "", s) for s in (PAGE, COLUMN))
    for figure, is_column in ((page, False), (column, True)):
        figure.canvas.draw()
        loss, accuracy = (axes.get_window_extent() for axes in figure.axes)
        assert (loss.y0 > accuracy.y1) == is_column
        assert (loss.x1 < accuracy.x0) == (not is_column)


# film


def frames(k=7, n=6):
    made = []
    for epoch in range(k):
        matrix = np.full((n, n), epoch / k)
        np.fill_diagonal(matrix, 1)
        if epoch == 0:
            matrix[0, 1] = np.nan
        title = f"epoch {5 * epoch} · test accuracy {0.3 + epoch / 10:.1%}" if epoch else "epoch 0"
        made.append(Panel(matrix, names(n), names(n), title, "a@final", "a"))
    return made


def places(figure):
    figure.canvas.draw()
    return [axes.get_window_extent().bounds for axes in figure.axes]


@STYLES
def test_only_colours_and_words_change_between_frames(style):
    panels = frames()
    made = film(panels, TITLE, style)
    before, size = places(made.figure), tuple(made.figure.get_size_inches())
    for k, one in enumerate(panels):
        made.show(k)
        assert places(made.figure) == before
        np.testing.assert_array_equal(values(made.figure.axes[0]), one.matrix)
        assert made.figure.axes[0].get_title() == one.title
        box = made.figure.axes[0].title.get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= made.figure.bbox.x1
    assert tuple(made.figure.get_size_inches()) == size
    assert len(colour_bars(made.figure)) == 1


def test_a_gif_has_a_frame_a_matrix_and_holds_the_last(tmp_path):
    panels = frames()
    path = save_film(film(panels, "a run"), tmp_path / "deep" / "film.gif")
    with Image.open(path) as picture:
        assert picture.n_frames == len(panels)
        times, middles = [], []
        for k in range(picture.n_frames):
            picture.seek(k)
            times.append(picture.info["duration"])
            pixels = np.asarray(picture.convert("RGB")) / 255
            middles.append(pixels)
    assert times[0] == pytest.approx(1000 / FRAMES_A_SECOND, abs=10)
    assert times[:-1] == [times[0]] * (len(panels) - 1)
    assert times[-1] == HELD * times[0]
    # The colour of a cell off the diagonal, clear of any line, in each frame.
    made = film(panels, "a run")
    made.figure.canvas.draw()
    x, y = made.figure.axes[0].transData.transform((3, 1)).astype(int)
    magma = matplotlib.colormaps["magma"]
    for k, pixels in enumerate(middles):
        np.testing.assert_allclose(pixels[len(pixels) - y, x], magma(k / 7)[:3], atol=0.03)


def test_the_same_film_gives_the_same_bytes(tmp_path):
    first, second = (save_film(film(frames(), "a run"), tmp_path / f"{name}.gif") for name in "ab")
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes().startswith(b"GIF89a")
    assert first.stat().st_size < 60_000


def test_a_film_of_one_frame_is_a_film(tmp_path):
    path = save_film(film(frames(1)), tmp_path / "one.gif")
    with Image.open(path) as picture:
        assert picture.n_frames == 1


@pytest.mark.skipif(not has_ffmpeg(), reason="ffmpeg, which writes MP4, is not installed")
def test_an_mp4_is_written_where_ffmpeg_is(tmp_path):
    path = save_film(film(frames(), "a run"), tmp_path / "film.mp4")
    assert path.read_bytes()[4:8] == b"ftyp"


def test_without_ffmpeg_a_film_is_no_mp4(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match=r"film.mp4 needs ffmpeg, which is not installed"):
        save_film(film(frames(2)), tmp_path / "film.mp4")
    with pytest.raises(ValueError, match=r"film.png is no film; use a name in .gif or .mp4"):
        save_film(film(frames(2)), tmp_path / "film.png")
    assert not list(tmp_path.iterdir())


def test_frames_of_several_sizes_are_no_film():
    with pytest.raises(ValueError, match="differ in their names"):
        film([panel(3), panel(4)])


# files


@pytest.mark.parametrize("name", ["depths", "layers", slow("classes"), slow("seeds")])
def test_the_same_figure_gives_the_same_bytes(tmp_path, name):
    for k in "ab":
        figure = FIGURES[name](10, COLUMN)
        for suffix in ("png", "pdf", "svg"):
            save(figure, tmp_path / f"{k}.{suffix}", COLUMN.dpi)
    for suffix in ("png", "pdf", "svg"):
        first, second = ((tmp_path / f"{k}.{suffix}").read_bytes() for k in "ab")
        assert first == second, suffix


@pytest.mark.parametrize(("style", "dots"), [(PAGE, 150), (COLUMN, 300)])
def test_a_bitmap_for_print_has_more_dots(tmp_path, style, dots):
    figure = matrices.matrix(panel(10), style)
    path = save(figure, tmp_path / "a.png", style.dpi)
    with Image.open(path) as picture:
        assert picture.width == pytest.approx(dots * figure.get_figwidth(), abs=1)


def test_drawing_asks_for_no_display_and_sets_nothing_global(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    before = dict(matplotlib.rcParams)
    matrices.matrix(panel(3), COLUMN)
    assert dict(matplotlib.rcParams) == before
    for name in FIGURES:
        drawn(name, 10, COLUMN)  # which looks at the settings, too


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="no panels to draw"):
        matrices.grid([])
    with pytest.raises(ValueError, match="no panels to draw"):
        matrices.classes([], panel(3), panel(3), np.zeros((3, 3)))
    with pytest.raises(ValueError, match="no panels to show"):
        film([])
    with pytest.raises(ValueError, match="no networks to draw"):
        depths([])
    with pytest.raises(ValueError, match="no probes to draw"):
        probe_curves({})
    with pytest.raises(ValueError, match="no shares to draw"):
        correspondence_bars({}, {}, 0.1, source="")
    with pytest.raises(ValueError, match="has no standard errors to draw"):
        matrices.errors(panel(3))
