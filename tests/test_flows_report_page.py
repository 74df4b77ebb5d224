"""The report in a browser: its numbers are the stored ones, and everything on it works."""

import csv
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from allcnn.compare.catalogue import exchanged
from allcnn.maintenance.rerun_commands import command_of
from allcnn.settings.comparison import Comparison
from allcnn.settings.selection import Selection
from allcnn.workspace.paths import Workspace
from flows.reporting import write_report
from store import RepresentationKey, SimilarityResult, read_result
from store import write_result as keep_result
from tests.browser import Watched, browsing, find_browser, until, wait_ready
from tests.reports import (
    CHECKPOINTS,
    EVIL,
    SET,
    config,
    digest_of,
    keys,
    write_probe,
    write_result,
    write_run,
)

ONE, TWO = (config(seed).name for seed in (0, 1))
REASON = f"{ONE}@final:conv4 with {TWO}@final:conv5: the median is 0 {EVIL}"
DEEP = (*(f"conv{n}" for n in range(1, 65)), "pooled", "logits")
DESK = {"viewport": {"width": 1280, "height": 900}}


@pytest.fixture(scope="module")
def browser():
    path = find_browser()
    if path is None:
        pytest.skip("there is no Chromium here; install one, or name it in ALLCNN_CHROMIUM")
    with browsing(path) as found:
        yield found


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> Workspace:
    """Return a workspace with a report: two runs, their checkpoints, kernels, classes, a NaN."""
    place = Workspace.at(tmp_path_factory.mktemp("seen"))
    for seed in (0, 1):
        write_run(place, config(seed))
    network = keys(ONE, CHECKPOINTS)
    write_result(place, "over-time", network, network)
    write_result(place, "over-time-rbf", network, network, kernel="rbf", sigma=0.4, **widths(40))
    write_result(place, "class-1", keys(ONE), keys(ONE), label=1)
    cka = np.random.default_rng(3).random((10, 10))
    cka[3, 4] = np.nan
    cka[0, 1], cka[9, 9] = -0.0123456789, 1.0000001
    write_result(place, "seeds", keys(ONE), keys(TWO), values=cka, reasons=((3, 4, REASON),))
    write_result(place, "deep", keys("deep", taps=DEEP), keys("deep", taps=DEEP))
    many = [key for n in range(17) for key in keys(f"many-{n}")]
    write_result(place, "many", many, many, errors=None)
    write_probe(
        place, "probe", keys(ONE, taps=("conv1", "conv2")), accuracy=np.array([0.5, np.nan])
    )
    write_report(place)
    return place


def widths(n: int) -> dict:
    return {"scales_rows": np.arange(n) / 7, "scales_columns": np.arange(n) / 7}


@pytest.fixture
def opened(browser, seen):
    """Yield a function that opens the report; nothing may go wrong in it, or leave it."""
    contexts, pages = [], []

    def open_page(view="", workspace=seen, **how) -> Watched:
        context = browser.new_context(**DESK | how)
        contexts.append(context)
        pages.append(watched := Watched(context.new_page()))
        watched.open(workspace.root / "report/index.html", view)
        return watched

    yield open_page
    complaints = [each for watched in pages for each in watched.complaints]
    requests = [each for watched in pages for each in watched.requests]
    for context in contexts:
        context.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []


def result_of(workspace: Workspace, name: str) -> SimilarityResult:
    return read_result(workspace.similarity, name)


def table_of(page) -> np.ndarray:
    """Return the numbers in the open table of the explorer, the first layer first."""
    rows = page.evaluate(
        """[...document.querySelectorAll('#numbers-body tbody tr')].map((row) =>
          [...row.querySelectorAll('td')].map((cell) => cell.querySelector('data')?.value ?? null))
        """
    )
    numbers = [[np.nan if x is None else float(x) for x in row] for row in reversed(rows)]
    return np.array(numbers)


def open_table(page) -> None:
    page.locator("#numbers > summary").click()
    page.wait_for_selector("#numbers-body table")


def slide(page, side: str, to: str) -> None:
    """Move a slider to a checkpoint, as by arrow keys, and wait until that is drawn."""
    page.evaluate(
        "([id, at]) => { const range = document.getElementById(id); range.value = at;"
        " range.dispatchEvent(new Event('input')); }",
        [f"range-{side}", CHECKPOINTS.index(to)],
    )
    until(
        page,
        "([side, to]) => new URLSearchParams(location.hash.slice(1)).get(`${side}-at`) === to"
        " && !document.getElementById('heat').hasAttribute('aria-busy')",
        [side, to],
    )


def block_of(
    workspace: Workspace, name: str, rows: str, columns: str, values="values"
) -> np.ndarray:
    """Return the stored numbers of two checkpoints."""
    i, j = (slice(10 * at, 10 * at + 10) for at in map(CHECKPOINTS.index, (rows, columns)))
    return getattr(result_of(workspace, name), values)[i, j]


def select(page, name: str, value: str) -> None:
    page.select_option(f"#choose-{name}", value)
    page.wait_for_selector("#heat:not([aria-busy])")


OVER_TIME = f"#rows={ONE}&columns={ONE}"


def test_the_page_opens_on_the_matrix_of_most_layers(opened, tmp_path):
    page = opened().page
    assert page.locator("#shown-title").inner_text() == "17 networks"
    assert page.locator("#whole-fields").is_visible()
    place = Workspace.at(tmp_path)
    write_result(place, "itself", keys(ONE), keys(ONE))
    write_result(place, "two", keys(ONE, ("epoch-0001",)), keys(TWO))
    write_report(place)
    page = opened(workspace=place).page
    assert page.locator("#shown-title").inner_text() == f"{ONE}@epoch-0001 with {TWO}@final"
    assert page.locator("#pair-fields").is_visible()


def test_the_slider_shows_the_stored_matrix_of_each_checkpoint(opened, seen):
    page = opened(OVER_TIME).page
    open_table(page)
    np.testing.assert_array_equal(table_of(page), block_of(seen, "over-time", "final", "final"))
    for rows, columns in (("final", "init"), ("epoch-0002", "init"), ("epoch-0002", "epoch-0001")):
        slide(page, "rows", rows)
        slide(page, "columns", columns)
        np.testing.assert_array_equal(table_of(page), block_of(seen, "over-time", rows, columns))
        assert page.inner_text("#shown-title") == f"{ONE}@{rows} with {ONE}@{columns}"
        assert page.get_attribute("#range-columns", "aria-valuetext") == columns


@pytest.mark.slow
def test_sliders_can_be_moved_by_keys(opened, seen):
    page = opened(OVER_TIME).page
    open_table(page)
    page.focus("#range-columns")
    page.keyboard.press("ArrowLeft")
    until(page, "document.querySelector('#slider-columns output').value.startsWith('epoch-0002')")
    page.wait_for_selector("#heat:not([aria-busy])")
    wanted = block_of(seen, "over-time", "final", "epoch-0002")
    np.testing.assert_array_equal(table_of(page), wanted)


@pytest.mark.slow
def test_both_sides_can_keep_the_same_checkpoint(opened, seen):
    page = opened(OVER_TIME).page
    open_table(page)
    page.check("#together")
    slide(page, "rows", "init")
    np.testing.assert_array_equal(table_of(page), block_of(seen, "over-time", "init", "init"))


@pytest.mark.slow
@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
def test_play_goes_through_the_checkpoints_and_stops(opened, motion):
    page = opened(f"{OVER_TIME}&columns-at=epoch-0001", reduced_motion=motion).page
    page.evaluate(
        """() => { window.went = [];
          const title = document.getElementById('shown-title');
          new MutationObserver(() => window.went.push(title.textContent))
            .observe(title, { childList: true }); }"""
    )
    button = page.locator("#slider-columns button")
    button.focus()
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "true"
    until(page, "document.querySelector('#slider-columns button').textContent === 'Play'")
    steps = [f"{ONE}@final with {ONE}@epoch-0002", f"{ONE}@final"]
    assert page.evaluate("window.went") == steps
    # From the end it begins again; Escape stops it.
    page.keyboard.press("Enter")
    until(page, "window.went.length >= 3")
    page.keyboard.press("Escape")
    assert button.get_attribute("aria-pressed") == "false"
    stopped = page.evaluate("window.went")
    page.wait_for_timeout(900)
    assert page.evaluate("window.went") == stopped
    assert stopped[2] == f"{ONE}@final with {ONE}@init"


def test_kernel_and_class_are_switched(opened, seen):
    page = opened(f"{OVER_TIME}&rows-at=init").page
    open_table(page)
    select(page, "kernel", "RBF 0.4")
    # What can be kept is kept.
    wanted = block_of(seen, "over-time-rbf", "init", "final")
    np.testing.assert_array_equal(table_of(page), wanted)
    select(page, "kernel", "linear")
    assert page.locator("#choose-label option").all_inner_texts()[0] == "all classes"
    select(page, "label", "1")
    # That class is compared at one checkpoint alone.
    np.testing.assert_array_equal(table_of(page), result_of(seen, "class-1").cka)
    assert page.is_disabled("#range-rows")
    assert "class 1: </script><script>" in page.inner_text("#provenance-body")


def test_hovering_tells_the_value_and_its_error_and_layers(opened, seen):
    page = opened(OVER_TIME).page
    value = block_of(seen, "over-time", "final", "final")[2, 7]
    error = block_of(seen, "over-time", "final", "final", "errors")[2, 7]
    page.mouse.move(*middle(page, 2, 7, 10))
    tip = page.locator("#heat .tip")
    tip.wait_for(state="visible")
    assert float(tip.locator("data").get_attribute("value")) == value
    lines = tip.inner_text().split("\n")
    assert lines[0] == f"{value:.4f} ± {error:.2g}".replace("e-05", "e-5")
    assert f"row {ONE}@final:conv3" in lines
    assert f"column {ONE}@final:conv8" in lines
    page.mouse.move(0, 0)
    tip.wait_for(state="hidden")


def middle(page, i: int, j: int, n_rows: int) -> tuple[float, float]:
    """Return where the middle of a cell is on the screen."""
    page.locator("#heat").scroll_into_view_if_needed()
    box = page.locator("#heat .chart").bounding_box()
    x, y, _, height = grid_of(page)
    cell = height / n_rows
    return box["x"] + x + (j + 0.5) * cell, box["y"] + y + height - (i + 0.5) * cell


def grid_of(page) -> list[float]:
    """Return where the cells are in the chart: left, top, width and height."""
    return page.evaluate(
        "(() => { const chart = echarts.getInstanceByDom(document.querySelector('#heat .chart'));"
        " const grid = chart.getModel().getComponent('grid').coordinateSystem.getRect();"
        " return [grid.x, grid.y, grid.width, grid.height]; })()"
    )


@pytest.mark.slow
def test_a_click_shows_both_layers(opened, seen):
    page = opened(f"{OVER_TIME}&columns-at=epoch-0002&kernel=RBF 0.4").page
    page.mouse.click(*middle(page, 0, 9, 10))
    result = result_of(seen, "over-time-rbf")
    found = page.inner_text("#cell-body")
    exact = [
        float(x)
        for x in page.locator("#cell-body data").evaluate_all(
            "(all) => all.map((each) => each.value)"
        )
    ]
    # The value; then of the first layer of the final network, and of the logits after 2 epochs.
    values = [result.cka[30, 29], result.sums("rows")[30], result.parts["scales_rows"][30]]
    values += [result.sums("columns")[29], result.parts["scales_columns"][29]]
    assert exact == values
    assert repr(float(result.errors[30, 29])) in found
    assert "1 of 10" in found
    assert "10 of 10" in found
    accuracies = re.findall(r"test accuracy\s+([\d.]+) %", found)
    rows = page.evaluate("report.facts.runs[0].curves.test_accuracy")
    assert [float(each) for each in accuracies] == [round(100 * rows[at], 1) for at in (2, 1)]
    assert "50.0 % ± 6.3 (probe)" in found
    # It stays chosen when the slider moves.
    slide(page, "columns", "init")
    exact = page.locator("#cell-body data").first.get_attribute("value")
    assert float(exact) == result.cka[30, 9]


@pytest.mark.slow
def test_cells_are_reached_by_keyboard(opened, seen):
    page = opened(OVER_TIME).page
    result = result_of(seen, "over-time")
    page.focus("#choose-label")
    # Past the sliders, as Tab goes.
    for _ in range(8):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "heat":
            break
    assert page.evaluate("document.activeElement.id") == "heat"
    for key in ("ArrowUp", "ArrowUp", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    told = page.inner_text("#heat-said")
    assert told.startswith(f"row conv2, column conv2: {result.cka[31, 31]:.4f} ± ")
    page.keyboard.press("End")
    page.keyboard.press("PageUp")
    assert page.inner_text("#heat-said").startswith("row logits, column logits: ")
    page.keyboard.press("Enter")
    exact = float(page.locator("#cell-body data").first.get_attribute("value"))
    assert exact == result.cka[39, 39]


@pytest.mark.slow
def test_what_is_not_defined_tells_its_reason(opened):
    page = opened(f"#rows={ONE}&columns={TWO}").page
    page.mouse.click(*middle(page, 3, 4, 10))
    for place in ("#heat .tip", "#cell-body"):
        text = page.inner_text(place)
        assert "not defined" in text
        assert "conv4 with" in text
        assert "<script>alert(1)</script>" in text
    open_table(page)
    assert np.argwhere(np.isnan(table_of(page))).tolist() == [[3, 4]]


@pytest.mark.slow
def test_values_beyond_the_scale_are_shown_as_they_are(opened, seen):
    page = opened(f"#rows={ONE}&columns={TWO}").page
    open_table(page)
    np.testing.assert_array_equal(table_of(page), result_of(seen, "seeds").cka)
    page.check("#all-digits")
    texts = page.locator("#numbers-body tbody tr:last-child td").all_inner_texts()
    assert texts == [repr(float(x)) for x in result_of(seen, "seeds").cka[0]]


def test_the_csv_has_the_stored_numbers(opened, seen, tmp_path):
    page = opened(f"#rows={ONE}&columns={TWO}").page
    with page.expect_download() as download:
        page.click("#get-csv")
    assert download.value.suggested_filename.endswith(".csv")
    download.value.save_as(tmp_path / "it.csv")
    with (tmp_path / "it.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    result = result_of(seen, "seeds")
    numbers = {
        name: np.array([float(line[name] or "nan") for line in lines]).reshape(10, 10)
        for name in ("cka", "standard_error")
    }
    np.testing.assert_array_equal(numbers["cka"], result.cka)
    np.testing.assert_array_equal(numbers["standard_error"], result.errors)
    assert {line["minibatches"] for line in lines} == {"4"}
    assert (lines[1]["row"], lines[1]["column"]) == (f"{ONE}@final:conv1", f"{TWO}@final:conv2")


@pytest.mark.slow
def test_names_of_layers_are_shown_as_they_are(opened, tmp_path):
    taps = ("blocks/0/attn", "a,b", 'say "x"', "</script><b>{b|c}&amp;", "=1+1")
    place = Workspace.at(tmp_path / "named")
    write_result(place, "named", keys("net", taps=taps), keys("net", taps=taps))
    write_report(place)
    page = opened("", workspace=place).page
    with page.expect_download() as download:
        page.click("#get-csv")
    download.value.save_as(tmp_path / "it.csv")
    with (tmp_path / "it.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["column"] for line in lines[:5]] == [f"net@final:{tap}" for tap in taps]
    page.click("#numbers summary")
    heads = page.locator("#numbers-body thead th").all_inner_texts()
    assert heads[-5:] == list(taps)


def both_ways(tmp_path) -> tuple[Workspace, Workspace]:
    """Return reports on one result, and on the same that was stored the other way round."""
    one, other = (Workspace.at(tmp_path / name) for name in ("one", "other"))
    cka = np.random.default_rng(3).random((10, 4))
    cka[3, 2] = np.nan
    how = {"kernel": "rbf", "sigma": 0.4, "values": cka, "reasons": ((3, 2, REASON),)}
    how |= {"scales_rows": np.arange(10) / 7, "scales_columns": np.arange(4) / 3}
    few = keys(TWO, taps=("conv1", "conv2", "conv3", "logits"))
    result = write_result(one, "seeds", keys(ONE), few, **how)
    turned = exchanged(result)
    job = Comparison(Selection(TWO, "*"), Selection(ONE, "*")).to_json()
    digests = result.provenance["checkpoint_digests"]
    digests = {"rows": digests["columns"], "columns": digests["rows"]}
    told = turned.provenance | {"checkpoint_digests": digests, "job": job}
    keep_result(other.similarity, replace(turned, provenance=told))
    for place in (one, other):
        write_report(place)
    return one, other


@pytest.mark.slow
def test_what_is_stored_one_way_is_shown_the_other(opened, tmp_path):
    """Nothing but the one line that says so tells it from what is stored that way."""
    found = []
    for place in both_ways(tmp_path):
        page = opened(f"#rows={TWO}&columns={ONE}", workspace=place).page
        open_table(page)
        tips = []
        for cell in ((1, 7), (2, 3)):
            page.mouse.click(*middle(page, *cell, 4))
            tips.append([page.inner_text(f"#{at}") for at in ("heat", "cell-body")])
        files = []
        for kind in ("csv", "png"):
            with page.expect_download() as download:
                page.click(f"#get-{kind}")
            files.append((download.value.suggested_filename, download.value.path().read_bytes()))
        command = page.inner_text("#command").replace(str(place.root), "")
        said = [page.inner_text(f"#{at}") for at in ("shown-title", "shown-method")]
        told = page.inner_text("#provenance-body dl").split("\n")
        found.append((table_of(page), [tips, files, command, said], told))
    (numbers, shown, told), (wanted, as_stored, plain) = found
    np.testing.assert_array_equal(numbers, wanted)
    assert numbers.shape == (4, 10)
    assert shown == as_stored
    assert f"row {TWO}@final:conv2" in shown[0][0][0]
    assert "not defined" in shown[0][1][0]
    assert REASON in shown[0][1][1]
    assert shown[2].startswith(f"allcnn matrix '{TWO}@*' '{ONE}@*' ")
    line = ["shown", "with its rows and columns exchanged"]
    assert [each for each in told if each not in line] == plain
    assert set(line) < set(told)


@pytest.mark.slow
def test_choosing_the_columns_for_the_rows_exchanges_them(opened, seen):
    page = opened(f"#rows={ONE}&columns={TWO}").page
    open_table(page)
    select(page, "rows", TWO)
    assert page.inner_text("#shown-title") == f"{TWO}@final with {ONE}@final"
    np.testing.assert_array_equal(table_of(page), result_of(seen, "seeds").cka.T)
    assert "exchanged" in page.inner_text("#provenance-body")
    page.reload()
    wait_ready(page)
    assert page.inner_text("#shown-title") == f"{TWO}@final with {ONE}@final"


@pytest.mark.slow
@pytest.mark.parametrize("changed", [False, True])
def test_what_is_stored_as_it_is_shown_comes_first_unless_it_is_outdated(
    opened, seen, tmp_path, changed
):
    place = copied(seen, tmp_path)
    of = {"rows": {f"{TWO}@final": "sha256:older" if changed else digest_of(TWO, "final")}}
    write_result(place, "back", keys(TWO), keys(ONE), provenance={"checkpoint_digests": of})
    write_report(place)
    page = opened(f"#rows={TWO}&columns={ONE}", workspace=place).page
    open_table(page)
    found, turned = result_of(place, "back").cka, result_of(place, "seeds").cka.T
    np.testing.assert_array_equal(table_of(page), turned if changed else found)
    assert page.is_visible("#from-field") is changed
    if changed:
        select(page, "from", "back")
        np.testing.assert_array_equal(table_of(page), found)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_picture_shows_the_colours_of_the_numbers_on_white(opened, seen, tmp_path, scheme):
    page = opened("#matrix=deep", color_scheme=scheme).page
    with page.expect_download() as download:
        page.click("#get-png")
    download.value.save_as(tmp_path / "it.png")
    with Image.open(tmp_path / "it.png") as picture:
        dots = np.asarray(picture.convert("RGB"))
    assert dots.shape[1] == 1800
    assert dots[0, 0].tolist() == [255, 255, 255]
    wanted = colours_at(page, result_of(seen, "deep").cka)
    assert np.isin(packed(wanted), packed(dots)).all()


def picture(page) -> bytes:
    """Return the picture of what is shown, as it is downloaded."""
    with page.expect_download() as download:
        page.click("#get-png")
    return download.value.path().read_bytes()


@pytest.mark.slow
def test_every_picture_is_drawn_afresh(opened, seen):
    """Pictures of one page share a chart: nothing of one, its size included, is in the next."""
    page = opened("#matrix=deep").page
    first = picture(page)
    page.evaluate("location.hash = '#matrix=seeds'")
    until(page, "document.getElementById('shown-title').textContent.includes(' with ')")
    page.wait_for_selector("#heat:not([aria-busy])")
    assert picture(page) == picture(opened("#matrix=seeds").page) != first


def colours_at(page, values: np.ndarray) -> np.ndarray:
    """Return the colours that stand for values, as the page's own table has them."""
    colours = page.evaluate("(all) => all.map(report.colours.at)", values.ravel().tolist())
    return np.array(colours).reshape(*values.shape, 3)


def packed(colours: np.ndarray) -> np.ndarray:
    return colours.astype(int) @ [65536, 256, 1]


@pytest.mark.slow
def test_the_command_is_shown_and_copied(opened, seen):
    watched = opened(OVER_TIME, permissions=["clipboard-read", "clipboard-write"])
    page = watched.page
    job = Comparison(Selection(ONE, "*"), Selection(ONE, "*"))
    assert page.inner_text("#command") == command_of(seen, job).line
    page.click("#copy-command")
    until(page, "document.getElementById('copied').textContent !== ''")
    assert page.inner_text("#copied") == "Copied."
    assert page.evaluate("navigator.clipboard.readText()") == command_of(seen, job).line


@pytest.mark.slow
def test_the_provenance_of_the_numbers_is_told(opened):
    page = opened(f"#rows={ONE}&columns={TWO}").page
    told = page.inner_text("#provenance-body")
    for fact in (
        "seeds",
        f"{SET}, 64 examples",
        "unbiased, minibatches of 16",
        "2026-02-01T08:00:00+00:00",
        "allcnn-cka 0.1.0, numpy 2.3",
        "kept Grams of 10 representations",
        digest_of(ONE, "final"),
        digest_of(TWO, "final"),
    ):
        assert fact in told


def test_a_view_has_an_address(opened):
    page = opened(OVER_TIME).page
    select(page, "kernel", "RBF 0.4")
    slide(page, "columns", "epoch-0001")
    address, title = page.evaluate("location.hash"), page.inner_text("#shown-title")
    page.reload()
    wait_ready(page)
    assert page.evaluate("location.hash") == address
    assert page.inner_text("#shown-title") == title
    assert page.input_value("#choose-kernel") == "RBF 0.4"
    assert page.input_value("#range-columns") == "1"


@pytest.mark.slow
@pytest.mark.parametrize(
    "view",
    [
        "#rows=nobody&columns=<script>&kernel=%00&rows-at=../..&set[]=1&together=no",
        "#matrix=../../../etc/passwd",
        "#%E0%A4%A",
        "#matrix=__proto__&constructor=1",
    ],
)
def test_an_address_that_means_nothing_shows_what_is_there(opened, view):
    watched = opened(view)
    assert watched.page.inner_text("#shown-title") != ""
    assert not [url for url in watched.requests if "etc" in url or "proto" in url.split("#")[0]]


@pytest.mark.slow
def test_a_whole_result_is_shown_from_the_list_and_its_networks_alone(opened, seen):
    page = opened().page
    page.fill("#filter-results", "17 networks")
    assert page.locator("#results-table tbody tr:visible").count() == 1
    page.click("#result-many a")
    until(page, "document.getElementById('shown-title').textContent === '17 networks'")
    assert "#matrix=many" in page.url
    assert page.evaluate("document.activeElement.id") == "heat"
    assert page.evaluate(drawn_cells()) == 170 * 170
    page.mouse.click(*middle(page, 25, 169, 170))
    page.click("text=Show these two networks alone")
    until(page, "document.getElementById('shown-title').textContent.includes(' with ')")
    assert page.inner_text("#shown-title") == "many-2@final with many-16@final"
    open_table(page)
    np.testing.assert_array_equal(table_of(page), result_of(seen, "many").cka[20:30, 160:])


def drawn_cells() -> str:
    return (
        "echarts.getInstanceByDom(document.querySelector('#heat .chart'))"
        ".getOption().series[0].data.length"
    )


@pytest.mark.slow
def test_a_network_of_66_layers_is_shown(opened, seen):
    page = opened("#rows=deep").page
    assert page.evaluate(drawn_cells()) == 66 * 66
    cka = result_of(seen, "deep").cka
    # The first layer is at the bottom left, and each cell has the colour of its number.
    dots, (x, y, _, height) = screenshot(page), grid_of(page)
    middles = (np.arange(66) + 0.5) * height / 66
    found = dots[np.ix_((y + height - middles).astype(int), (x + middles).astype(int))]
    assert np.abs(found - colours_at(page, cka)).max() <= 1  # as colours are rounded
    open_table(page)
    np.testing.assert_array_equal(table_of(page), cka)
    page.mouse.move(*middle(page, 65, 64, 66))
    tip = page.locator("#heat .tip p").all_inner_texts()
    assert tip[2] == "standard errors from 4 minibatches, likely too small"
    assert tip[3:] == ["row deep@final:logits", "column deep@final:pooled"]


@pytest.mark.slow
def test_only_what_is_looked_at_is_loaded(opened):
    watched = opened(OVER_TIME)
    loaded = [url.rpartition("/")[2] for url in watched.requests if "/data/" in url]
    assert loaded == ["over-time.js"]


@pytest.mark.slow
def test_runs_are_sorted_and_tell_their_settings(opened):
    page = opened().page
    names = page.locator("#runs tbody summary")
    assert names.all_inner_texts() == [ONE, TWO]
    page.click("#runs th:nth-child(1) button")
    page.click("#runs th:nth-child(1) button")
    assert names.all_inner_texts() == [TWO, ONE]
    assert page.get_attribute("#runs th:nth-child(1)", "aria-sort") == "descending"
    names.first.click()
    told = page.inner_text("#runs tbody tr:first-child dl")
    assert "learning rate\n0.1" in told
    assert EVIL[:30] in told


def test_curves_are_drawn_of_the_runs_that_are_chosen(opened, seen):
    page = opened().page
    series = (
        "echarts.getInstanceByDom(document.querySelector('#curves-body .chart')).getOption()"
        ".series.map((each) => [each.name, each.data.map((point) => point[1])])"
    )
    drawn = dict(page.evaluate(series))
    assert len(drawn) == 2 * 4
    facts = page.evaluate("report.facts.runs[1].curves")
    assert drawn[f"{TWO}, test accuracy"] == facts["test_accuracy"]
    page.locator(f"#curves-body label:has-text('{ONE}') input").uncheck()
    assert {name.split(",")[0] for name in dict(page.evaluate(series))} == {TWO}
    page.locator("#curves-body summary").click()
    page.wait_for_selector("#curves-body table")
    shown = page.locator("#curves-body tbody tr:first-child data").evaluate_all(
        "(all) => all.map((each) => Number(each.value))"
    )
    names = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")
    assert shown == [facts[name][0] for name in names]


def test_probes_are_drawn_with_their_errors(opened):
    page = opened().page
    page.locator("#probes-body summary").click()
    page.wait_for_selector("#probes-body table")
    rows = page.locator("#probes-body tbody tr").all_inner_texts()
    assert rows[0].split("\t")[:5] == ["conv1", f"{ONE}@final", "0.5000", "0.0625", "1.0000"]
    assert rows[1].split("\t")[2:4] == 2 * ["\N{EN DASH}"]
    assert rows[0].split("\t")[-1].startswith(f"allcnn probe {ONE}@final --train-set digits-")
    series = page.evaluate(
        "echarts.getInstanceByDom(document.querySelector('#probes-body .chart')).getOption()"
        ".series.map((each) => each.data)"
    )
    assert series == [[[1, 0.5], [2, None]], [[1, 0.5, 0.0625]]]
    axis = page.evaluate(
        "echarts.getInstanceByDom(document.querySelector('#probes-body .chart')).getOption().yAxis"
    )
    assert (axis[0]["min"], axis[0]["max"]) == (0.43, 0.57)


@pytest.mark.slow
def test_probes_of_some_layers_stand_at_their_places_in_the_network(opened, tmp_path):
    place = Workspace.at(tmp_path)
    write_run(place, config(0))
    some = keys(ONE, taps=("conv3", "logits"))
    write_probe(place, "some", some, accuracy=np.array([0.5, 0.75]))
    write_report(place)
    page = opened(workspace=place).page
    line, errors = page.evaluate(
        "echarts.getInstanceByDom(document.querySelector('#probes-body .chart')).getOption()"
        ".series.map((each) => each.data.map(([layer]) => layer))"
    )
    assert line == errors == [3, 10]


CUT = """(name) => {
  const chart = echarts.getInstanceByDom(document.querySelector(`#${name}-body .chart`));
  const [width, height] = [chart.getWidth(), chart.getHeight()];
  return chart.getZr().storage.getDisplayList().flatMap((shape) => {
    if (!shape.style.text) return [];
    const box = shape.getBoundingRect().clone();
    // Its height is measured by a letter that fonts may lack.
    const size = parseFloat(/([0-9.]+)px/.exec(shape.style.font)[1]);
    box.y += (box.height - size) / 2;
    box.height = size;
    if (shape.transform) box.applyTransform(shape.transform);
    const inside = box.x >= 0 && box.y >= 0;
    if (inside && box.x + box.width <= width && box.y + box.height <= height) return [];
    return [shape.style.text];
  });
}"""
"""Returns the texts of a chart that do not lie within it whole."""


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 1280])
def test_no_text_of_a_chart_is_cut(opened, tmp_path, width):
    place = Workspace.at(tmp_path)
    write_run(place, config(0))
    history = place.run_folder(ONE) / "history.json"
    rows = json.loads(history.read_text())["epochs"]
    rows[0]["train_loss"] = 123456.7
    history.write_text(json.dumps(rows))
    accuracy = np.linspace(0.9912, 0.9998, 10)
    write_probe(place, "fine", keys(ONE), accuracy=accuracy, n_test=100_000)
    write_report(place)
    page = opened(workspace=place, viewport={"width": width, "height": 740}).page
    assert page.evaluate(CUT, "probes") == []
    assert page.evaluate(CUT, "curves") == []


@pytest.mark.slow
@pytest.mark.parametrize("view", [OVER_TIME, "#matrix=many", f"#rows={ONE}&columns={TWO}"])
def test_the_page_fits_a_phone(opened, view):
    page = opened(view, viewport={"width": 360, "height": 740}, has_touch=True).page
    page.tap("#provenance > summary")
    page.tap("#runs tbody summary >> nth=0")
    open_table(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.slow
def test_charts_follow_the_dark_and_back(opened):
    page = opened(OVER_TIME, color_scheme="light").page
    colour = (
        "['#heat', '#curves-body', '#probes-body'].map((place) => echarts.getInstanceByDom("
        "document.querySelector(`${place} .chart`)).getOption().xAxis[0].axisLabel.color)"
    )
    light, ground = (
        page.evaluate(colour),
        page.evaluate("getComputedStyle(document.body).backgroundColor"),
    )
    page.emulate_media(color_scheme="dark")
    until(page, "getComputedStyle(document.body).backgroundColor !== 'rgb(251, 251, 250)'")
    page.wait_for_timeout(100)
    dark = page.evaluate(colour)
    assert light == ["#5b646e"] * 3
    assert dark == ["#a1abb5"] * 3
    page.emulate_media(color_scheme="light")
    until(page, "(was) => getComputedStyle(document.body).backgroundColor === was", ground)
    page.wait_for_timeout(100)
    assert page.evaluate(colour) == light


def test_nothing_may_be_fetched_from_elsewhere(opened):
    watched = opened()
    blocked = watched.page.evaluate(
        """() => new Promise((resolve) => {
          const seen = new Map();
          document.addEventListener('securitypolicyviolation', (event) => {
            seen.set(event.effectiveDirective, event.blockedURI);
            if (seen.size === 3) resolve([...seen.keys()].sort());
          });
          setTimeout(() => resolve([...seen.keys()]), 5000);
          new Image().src = 'http://example.invalid/picture.png';
          fetch('http://example.invalid/fetched').catch(() => null);
          const frame = document.createElement('iframe');
          frame.src = 'http://example.invalid/frame';
          document.body.append(frame);
        })"""
    )
    assert blocked == ["connect-src", "frame-src", "img-src"]
    assert all("Content Security Policy" in each for each in watched.complaints)
    # Playwright tells of what was blocked, too.
    elsewhere = {url for url in watched.requests if "example.invalid" in url}
    assert {watched.failed[url] for url in elsewhere} <= {"csp"}
    watched.complaints.clear()
    watched.requests[:] = [url for url in watched.requests if url not in elsewhere]


def copied(workspace: Workspace, to: Path, *without: str) -> Workspace:
    shutil.copytree(workspace.root, to / "copy")
    for name in without:
        shutil.rmtree(to / "copy" / name)
    found = Workspace.at(to / "copy")
    write_report(found)
    return found


@pytest.mark.slow
def test_a_workspace_with_runs_alone_has_a_page(opened, seen, tmp_path):
    page = opened(workspace=copied(seen, tmp_path, "similarity.zarr", "probes.zarr")).page
    assert "Nothing is compared yet." in page.inner_text("#matrices")
    assert "There are no probes yet" in page.inner_text("#probes")
    assert page.locator("#curves-body canvas").count() == 1


@pytest.mark.slow
def test_a_workspace_with_results_alone_has_a_page(opened, seen, tmp_path):
    place = copied(seen, tmp_path, "runs", "probes.zarr")
    page = opened(OVER_TIME, workspace=place).page
    assert "There are no runs yet." in page.inner_text("#runs")
    page.mouse.click(*middle(page, 0, 0, 10))
    told = page.inner_text("#cell-body")
    assert "1 of the 10 compared here" in told
    assert "test accuracy" not in told


@pytest.mark.slow
def test_a_workspace_with_a_run_that_has_not_learnt_yet_has_a_page(opened, tmp_path):
    place = Workspace.at(tmp_path)
    write_run(place, config(0), ("init",))
    (place.run_folder(ONE) / "history.json").unlink()
    write_report(place)
    page = opened(workspace=place).page
    assert "No run has finished an epoch yet." in page.inner_text("#curves")
    assert "0 of 3" in page.inner_text("#runs")


def test_numbers_that_are_gone_are_told(opened, seen, tmp_path):
    place = copied(seen, tmp_path)
    (place.root / "report/data/seeds.js").unlink()
    watched = opened(f"#rows={ONE}&columns={TWO}", workspace=place)
    assert watched.page.inner_text("#shown-warning") == (
        "data/seeds.js cannot be read; write the report again"
    )
    assert watched.page.inner_text("#shown-title") == ""
    assert any("ERR_FILE_NOT_FOUND" in each for each in watched.complaints)
    watched.complaints.clear()


@pytest.mark.slow
def test_a_network_trained_again_is_marked(opened, seen, tmp_path):
    place = copied(seen, tmp_path)
    write_result(
        place,
        "older",
        keys(ONE),
        keys(ONE),
        label=2,
        provenance={"checkpoint_digests": {"rows": {f"{ONE}@final": "sha256:older"}}},
    )
    write_report(place)
    page = opened("#matrix=older", workspace=place).page
    assert page.inner_text("#shown-warning") == f"Outdated: {ONE}@final trained again since."
    assert "trained again since" in page.inner_text("#result-older")


@pytest.mark.slow
def test_a_probe_of_a_network_trained_again_is_marked_beside_its_layer(opened, seen, tmp_path):
    place = copied(seen, tmp_path)
    write_probe(place, "before", keys(ONE, taps=("conv1", "conv2")), digest="sha256:older")
    write_report(place)
    page = opened(OVER_TIME, workspace=place).page
    page.mouse.click(*middle(page, 0, 0, 10))
    found = page.inner_text("#cell-body")
    assert "50.0 % ± 6.3 (before, outdated: trained again since)" in found
    assert "50.0 % ± 6.3 (probe)" in found


@pytest.mark.slow
def test_a_matrix_of_very_many_cells_is_shown(opened, tmp_path):
    place = Workspace.at(tmp_path)
    taps = [RepresentationKey(SET, "long", f"epoch-{n:04d}", "conv1") for n in range(300)]
    # Neighbours are alike, so that it does not matter how a cell of two dots is sampled.
    cka = np.add.outer(np.arange(300), 2 * np.arange(300)) / 900
    result = write_result(place, "long", taps, taps, values=cka)
    write_report(place)
    page = opened("#matrix=long", workspace=place).page
    page.mouse.move(*middle(page, 299, 150, 300))
    value = float(page.locator("#heat .tip data").get_attribute("value"))
    assert value == result.cka[299, 150]
    page.locator("#numbers > summary").click()
    page.wait_for_selector("text=numbers: download them as CSV")
    # Drawn as one picture, as there are too many for an object a cell.
    page.mouse.move(0, 0)
    dots, (x, y, _, height) = screenshot(page), grid_of(page)
    at = np.arange(10, 300, 40)
    middles = (at + 0.5) * height / 300
    found = dots[np.ix_((y + height - middles).astype(int), (x + middles).astype(int))]
    assert np.abs(found - colours_at(page, cka[np.ix_(at, at)])).max() <= 8


def screenshot(page) -> np.ndarray:
    """Return the dots of the heat map, a row a line of them."""
    png = page.locator("#heat .chart").screenshot()
    with Image.open(io.BytesIO(png)) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)
