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

from allcnn.errors import RunError
from allcnn.workspace import Workspace
from flows.reporting import page, write_report
from flows.upkeep.ledger import Ledger
from tests.commands import contents
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
    result = result_on(place, "one", bandwidths_rows=np.arange(8) / 3)
    write_report(place)
    found = numbers_of(place, "one")
    for name in ("cka", "standard_errors", "hsic_rows", "hsic_columns", "bandwidths_rows"):
        np.testing.assert_array_equal(found[name], getattr(result, name))
    assert found["bandwidths_columns"] is None
    assert found["digests"][f"{RUN}@init"] == digest_of(RUN, "init")


def test_what_is_not_a_number_is_null_with_its_reason(place):
    cka = np.full((8, 2), 0.5)
    cka[3, 1] = np.nan
    result_on(place, "one", cka=cka, reasons=((3, 1, "all is 0"),), standard_errors=None)
    write_report(place)
    found = numbers_of(place, "one")
    assert found["cka"] == [[0.5, None if i == 3 else 0.5] for i in range(8)]
    assert found["reasons"] == [[3, 1, "all is 0"]]
    assert found["standard_errors"] is None


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
    assert "cka" not in result


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
        how = {"created_at": f"2026-01-0{day}", "checkpoint_digests": digests}
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


def test_the_numbers_of_results_that_went_go(place):
    result_on(place, "one")
    result_on(place, "two")
    write_report(place)
    (place.root / "report/data/notes").write_text("mine")
    (place.root / "report/figures").mkdir()
    (place.root / "report/figures/one.png").write_text("of an earlier version")
    shutil.rmtree(place.similarity / "two")
    write_report(place)
    left = contents(place.root / "report")
    assert {name for name in left if name.startswith(("data", "figures"))} == {
        "data/one.js",
        "data/notes",
    }


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
    times = {"began_at": "2026-03-01T01:00", "ended_at": "2026-03-01T02:00"}
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
