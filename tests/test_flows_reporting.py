"""What a report's folder holds: the facts, the numbers and the charting library, and no more."""

import fnmatch
import hashlib
import json
import re
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest

from allcnn.errors import RunError, WorkspaceError
from allcnn.workspace.nightly_ledger import Ledger
from allcnn.workspace.paths import Workspace
from flows.reporting import page, write_report
from tests.commands import contents
from tests.faults import chunk_files
from tests.reports import (
    CHECKPOINTS,
    EVIL,
    config,
    digest_of,
    keys,
    write_probe,
    write_result,
    write_run,
)

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "flows/reporting"
RUN = config(0).name
TAPS = ("conv1", "conv2")


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    return Workspace.at(tmp_path)


def facts_of(workspace: Workspace) -> dict:
    """Return the facts that stand in a page, read as a browser finds them."""
    text = (workspace.root / "report/index.html").read_text()
    (found,) = re.findall(r'<script type="application/json" id="facts">(.*?)</script>', text)
    return json.loads(found)


def numbers_of(workspace: Workspace, name: str) -> dict:
    text = (workspace.root / "report/data" / f"{name}.js").read_text()
    found = re.fullmatch(r'reportNumbers\("(.*?)",(\{.*\})\);\n', text)
    assert found[1] == name
    return json.loads(found[2])


def result_on(workspace: Workspace, name: str, **changes):
    rows = keys(RUN, CHECKPOINTS, TAPS)
    return write_result(workspace, name, rows, keys(RUN, ("final",), TAPS), **changes)


TOLD = {
    "outdated": [],
    "shape": (10, 10),
    "label": "",
    "n_layers": 20,
    "n_examples": 64,
    "created_at": "2026-02-01",
}


@pytest.mark.parametrize(
    "less",
    [
        {"created_at": "2026-01-31"},
        {"n_examples": 63, "created_at": "2027"},
        {"n_layers": 10, "n_examples": 10_000},
        {"label": "3", "n_layers": 200},
        {"shape": (300, 300), "n_layers": 300},
        {"outdated": ["a@final"], "shape": (40, 40), "n_layers": 40},
    ],
)
def test_the_page_opens_on_the_most_informative_result(less):
    results = [TOLD | {"name": "more"}, TOLD | less | {"name": "less"}]
    for order in (results, results[::-1]):
        assert page.most_informative(order) == "more"
    assert page.most_informative([]) == ""


def test_layers_count_once_however_often_they_are_compared(place):
    network, other = keys(RUN, taps=TAPS), keys("b", taps=TAPS)
    write_result(place, "itself", network, network)
    write_result(place, "two", network, other)
    write_report(place)
    facts = facts_of(place)
    assert {each["name"]: each["n_layers"] for each in facts["results"]} == {"itself": 2, "two": 4}
    assert facts["opens_on"] == "two"


def test_the_numbers_have_all_their_digits(place):
    result = result_on(place, "one", scales_rows=np.arange(8) / 3)
    write_report(place)
    found = numbers_of(place, "one")
    for name in ("values", "errors", "scales_rows"):
        np.testing.assert_array_equal(found[name], result.arrays[name])
    for side in ("rows", "columns"):
        np.testing.assert_array_equal(found[f"sums_{side}"], result.sums(side))
    assert found["scales_columns"] is None
    assert found["digests"][f"{RUN}@init"] == digest_of(RUN, "init")


def test_what_is_not_a_number_is_null_with_its_reason(place):
    cka = np.full((8, 2), 0.5)
    cka[3, 1] = np.nan
    result_on(place, "one", values=cka, reasons=((3, 1, "all is 0"),), errors=None)
    write_report(place)
    found = numbers_of(place, "one")
    assert found["values"] == [[0.5, None if i == 3 else 0.5] for i in range(8)]
    assert found["reasons"] == [[3, 1, "all is 0"]]
    assert found["errors"] is None


def test_the_facts_tell_of_runs_and_results_and_hold_no_matrix(place):
    write_run(place, config(0))
    result_on(place, "one", kernel="rbf", sigma=0.4, label=1)
    write_report(place)
    facts = facts_of(place)
    (run,) = facts["runs"]
    assert run["settings"]["epochs"] == 3
    assert len(run["curves"]["test_accuracy"]) == 3
    assert run["taps"][-1] == "logits"
    (result,) = facts["results"]
    assert (result["kernel"], result["label"], result["shape"]) == ("RBF 0.4", "1", [8, 2])
    assert result["estimator"] == "unbiased, minibatches of 16"
    assert result["command"].startswith(f"allcnn matrix '{RUN}@*' '{RUN}@*' --kernel linear")
    assert result["outdated"] == []
    networks = [[*facts["networks"][n], facts["taps"][t]] for n, t in facts["sides"][0]]
    assert networks == [[RUN, each, list(TAPS)] for each in CHECKPOINTS]
    assert "values" not in result


def test_sides_that_matrices_share_are_told_once(place):
    for name in ("one", "two", "three"):
        result_on(place, name)
    write_report(place)
    assert len(facts_of(place)["sides"]) == 2
    assert len(facts_of(place)["taps"]) == 1


def test_the_newest_come_first_and_the_outdated_last(place):
    write_run(place, config(0))
    of_today = {"rows": {f"{RUN}@final": digest_of(RUN, "final")}}
    of_another = {"rows": {f"{RUN}@final": "sha256:another"}}
    for name, day, digests in (
        ("a", 1, of_today),
        ("b", 2, of_today),
        ("c", 3, of_another),
        ("d", 4, {}),
    ):
        how = {"created_at": f"2026-01-0{day}T00:00:00+00:00", "checkpoint_digests": digests}
        result_on(place, name, provenance=how)
    write_report(place)
    found = {each["name"]: each["outdated"] for each in facts_of(place)["results"]}
    assert list(found.items()) == [("d", []), ("b", []), ("a", []), ("c", [f"{RUN}@final"])]
    text = (place.root / "report/index.html").read_text()
    assert text.count("trained again since") == 1


def test_a_report_that_changes_nothing_writes_the_page_alone(place):
    result_on(place, "one")
    write_report(place)
    before = {path: path.stat().st_mtime_ns for path in (place.root / "report").rglob("*.*")}
    write_report(place)
    after = {path: path.stat().st_mtime_ns for path in (place.root / "report").rglob("*.*")}
    assert {path.name for path in after if before[path] != after[path]} == {"index.html"}


def test_only_what_an_earlier_report_wrote_goes(place):
    for name in ("one", "two", "three", "four"):
        result_on(place, name)
    folder = place.root / "report"
    write_report(place)
    mine = {"data/notes.js": "mine", "assets/mine.png": "mine", "figures/one.png": "mine"}
    mine |= {"data/four.js": "changed since"}
    for name, text in mine.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    (folder / "data/three.js").unlink()
    (folder / "data/three.js").symlink_to(folder / "data/one.js")
    for name in ("two", "three", "four"):
        shutil.rmtree(place.similarity / name)
    before = set(contents(folder))
    write_report(place)
    assert before - set(contents(folder)) == {"data/two.js"}
    assert all((folder / name).read_text() == text for name, text in mine.items())
    assert (folder / "data/three.js").is_symlink()


LISTS = [
    "{",
    "[]",
    '{"../keep.txt": "DIGEST", "data/../../keep.txt": "DIGEST", "data/..": "DIGEST"}',
    '{"/ROOT/keep.txt": "DIGEST", "keep.txt": "DIGEST", "data": "DIGEST", "": "DIGEST"}',
    '{"data/sub/keep.txt": "DIGEST", "data/keep.txt": 7}',
]


@pytest.mark.parametrize("text", LISTS)
def test_a_list_from_elsewhere_removes_nothing_else(place, text):
    result_on(place, "one")
    write_report(place)
    folder = place.root / "report"
    (folder / "data/sub").mkdir()
    keep = [folder / name / "keep.txt" for name in ("..", ".", "data", "data/sub")]
    for file in keep:
        file.write_text("keep")
    digest = f"sha256:{hashlib.sha256(b'keep').hexdigest()}"
    written = text.replace("DIGEST", digest).replace("/ROOT", str(place.root))
    (folder / "written.json").write_text(written)
    write_report(place)
    assert all(file.read_text() == "keep" for file in keep)
    assert "data/one.js" in json.loads((folder / "written.json").read_text())


@pytest.mark.parametrize("linked", ["report", "report/data", "report/assets"])
def test_nothing_is_written_or_removed_through_a_link(place, tmp_path_factory, linked):
    result_on(place, "one")
    outside = tmp_path_factory.mktemp("outside")
    for name in ("index.html", "one.js", "mine.js", "mine.css", "mine.txt", "mine.png"):
        (outside / name).write_text("mine")
    link = place.root / linked
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(outside)
    message = rf"{link} leads by a symbolic link to {outside}, out of {place.root}; delete the link"
    with pytest.raises(WorkspaceError, match=message):
        write_report(place)
    assert {text for text in contents(outside).values()} == {b"mine"}
    assert len(contents(outside)) == 6


def test_a_link_to_pictures_is_left_alone(place, tmp_path_factory):
    """Versions before removed what is in ``report/figures``."""
    result_on(place, "one")
    outside = tmp_path_factory.mktemp("outside")
    (outside / "mine.png").write_text("mine")
    write_report(place)
    (place.root / "report/figures").symlink_to(outside)
    write_report(place)
    assert (outside / "mine.png").exists()
    assert (place.root / "report/figures").is_symlink()


def test_another_page_is_not_replaced(place):
    result_on(place, "one")
    (place.root / "report").mkdir()
    page = place.root / "report/index.html"
    page.write_text("<title>Report on my cats</title>".replace("Report on", "About"))
    with pytest.raises(WorkspaceError, match=r"index.html is no report of ours"):
        write_report(place)
    assert "cats" in page.read_text()


@pytest.mark.parametrize("store", ["similarity", "probes"])
@pytest.mark.parametrize(
    "injure",
    [
        lambda folder: (folder / "zarr.json").unlink(),
        lambda folder: (folder / "zarr.json").write_text("{"),
        lambda folder: edit(folder, '"group"', '"grotp"'),
        lambda folder: edit(folder, '"allcnn_result"', '"allcnn_sesult"'),
        lambda folder: edit(folder, '"allcnn_digests"', '"allcnn_eigests"'),
        lambda folder: edit(folder, '"n_', '"o_'),
        lambda folder: chunk_files(numbers(folder))[0].unlink(),
        lambda folder: shutil.rmtree(numbers(folder)),
    ],
)
def test_each_damaged_result_and_probe_is_named(place, store, injure):
    result_on(place, "one")
    result_on(place, "two")
    write_probe(place, "one", keys(RUN, taps=TAPS), accuracy=np.array([0.5, 0.75]))
    folder = place.root / f"{store}.zarr" / "one"
    injure(folder)
    write_report(place)
    facts = facts_of(place)
    assert [each["name"] for each in facts["results"]] == ["one", "two"][store == "similarity" :]
    assert len(facts["probes"]) == (store == "similarity")
    (reason,) = facts["unreadable"]
    noun = "result" if store == "similarity" else "probe"
    assert f"{noun} one" in reason or f"{store}.zarr/one" in reason
    assert "; " in reason


def edit(folder: Path, old: str, new: str) -> None:
    file = folder / "zarr.json"
    file.write_text(file.read_text().replace("allcnn_probe", "allcnn_result").replace(old, new))


def numbers(folder: Path) -> Path:
    return folder / ("values" if (folder / "values").exists() else "accuracy")


def test_what_cannot_be_read_is_named_and_hides_nothing(place):
    write_run(place, config(0))
    write_run(place, config(1))
    (place.run_folder(config(1).name) / "history.json").write_text("{")
    result_on(place, "one")
    shutil.copytree(place.similarity / "one", place.similarity / "copy")
    write_result(place, "empty", [], keys(RUN))
    write_report(place)
    facts = facts_of(place)
    assert [each["run"] for each in facts["runs"]] == [RUN]
    (unreadable,) = facts["unreadable_runs"]
    assert unreadable["run"] == config(1).name
    assert "is no JSON" in unreadable["reason"]
    assert "holds result one; rename the folder" in facts["unreadable"][0]
    assert "result empty in" in facts["unreadable"][1]
    assert "compares nothing; delete it" in facts["unreadable"][1]
    assert not (place.root / "report/data/copy.js").exists()


def test_names_from_elsewhere_end_no_script(place):
    write_run(place, config(0), class_names=(EVIL,))
    provenance = {"versions": {EVIL: EVIL}}
    result_on(place, "one", reasons=((0, 0, EVIL),), provenance=provenance)
    write_report(place)
    page_text = (place.root / "report/index.html").read_text()
    data = (place.root / "report/data/one.js").read_text()
    for text in (page_text, data):
        assert "alert" in text
        assert EVIL[:9] + "<script>a" not in text
        assert "<b>" not in text
    assert "\u2028" not in data
    assert facts_of(place)["runs"][0]["class_names"] == [EVIL]
    assert numbers_of(place, "one")["reasons"] == [[0, 0, EVIL]]


def test_nights_are_told(place):
    write_run(place, config(0))
    verified = {"n_units": 3, "n_all": 9, "damage": []}
    lists = {name: [1, 2] for name in ("added", "again", "moved", "skipped", "failed")}
    times = {"began_at": "2026-03-01T01:00+00:00", "ended_at": "2026-03-01T02:00+00:00"}
    ledger = Ledger(nights=[times | lists | {"verified": verified, "n_unchanged": 7}])
    ledger.write(place)
    write_report(place)
    text = (place.root / "report/index.html").read_text()
    assert "2026-03-01T01:00" in text
    assert "3 of 9" in text


def test_probes_are_told_with_their_numbers(place):
    write_run(place, config(0))
    write_report(place)
    assert facts_of(place)["probes"] == []  # there is no store of them yet
    accuracy = np.array([0.5, np.nan])
    write_probe(place, "probe", keys(RUN, taps=TAPS), accuracy=accuracy)
    shutil.copytree(place.probes / "probe", place.probes / "worse")
    write_report(place)
    (found,) = facts_of(place)["probes"]
    assert found["network"] == f"{RUN}@final"
    assert found["accuracy"] == [0.5, None]
    assert found["standard_errors"] == [0.0625, None]
    assert not found["outdated"]
    assert found["command"].startswith(f"allcnn probe {RUN}@final --train-set digits-train-1000-")
    (unreadable,) = facts_of(place)["unreadable"]
    assert "holds probe probe" in unreadable


def test_probes_alone_are_told_too(place):
    write_probe(place, "probe", keys(RUN, taps=TAPS), accuracy=np.array([0.5, 0.75]))
    write_report(place)
    (found,) = facts_of(place)["probes"]
    assert found["accuracy"] == [0.5, 0.75]


def test_a_probe_of_a_network_that_was_trained_again_is_marked(place):
    write_run(place, config(0))
    write_probe(place, "probe", keys(RUN, taps=TAPS), digest="sha256:of-before")
    write_report(place)
    (found,) = facts_of(place)["probes"]
    assert found["outdated"]


def test_a_report_tells_how_far_it_is(place):
    result_on(place, "one")
    result_on(place, "two")
    told = []
    write_report(place, lambda *step: told.append(step))
    assert told == [(1, 2, "reading one"), (2, 2, "reading two")]


def test_a_workspace_with_nothing_in_it_is_refused(place):
    with pytest.raises(RunError, match="holds no runs and no stores; train a network first"):
        write_report(place)
    assert not (place.root / "report").exists()


def test_the_charting_library_is_the_one_that_was_published():
    about = (PACKAGE / "vendor/echarts/README.md").read_text()
    library = (PACKAGE / "vendor/echarts/echarts.min.js").read_bytes()
    assert hashlib.sha256(library).hexdigest() in about
    (version,) = re.findall(r"^# Apache ECharts ([\d.]+)$", about, re.MULTILINE)
    assert f'version="{version}"'.encode() in library
    assert b"Apache License" in (PACKAGE / "vendor/echarts/LICENSE").read_bytes()


def test_an_installed_package_has_all_files_of_the_page():
    package_data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = package_data["package-data"]["flows.reporting"]
    files = [path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    others = [str(path.relative_to(PACKAGE)) for path in files if path.suffix != ".py"]
    assert len(others) > 20
    missing = [n for n in others if not any(fnmatch.fnmatch(n, each) for each in patterns)]
    assert missing == []


def test_all_scripts_are_on_the_page():
    assert {path.stem for path in (PACKAGE / "assets").glob("*.js")} == {*page.SCRIPTS}
