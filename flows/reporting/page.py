"""The report's folder: the page, what it looks and works by, and a file of numbers a result."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from allcnn.progress import Report, silent
from allcnn.provenance import now
from allcnn.similarity.method import Method
from allcnn.workspace.nightly_ledger import Ledger
from allcnn.workspace.paths import Workspace
from allcnn.workspace.snapshot import Snapshot
from flows.reporting import facts, found
from flows.reporting.folder import Folder
from flows.reporting.script import numbers_script, to_script
from flows.reporting.sides import Sides
from store.storage.paths import Place

_MOST_NIGHTS = 14

_MOST_CELLS = 40_000
"""Of the matrix that the page opens on: larger ones are a blur, and take long to read."""

SCRIPTS = (
    "facts",
    "dom",
    "colours",
    "hash",
    "numbers",
    "blocks",
    "layout",
    "heatmap",
    "pointer",
    "layers",
    "slider",
    "downloads",
    "explorer",
    "lines",
    "curves",
    "probes",
    "tables",
    "main",
)
"""Our own scripts, each after those that it needs."""


def write_report(workspace: Workspace, report: Report = silent) -> Place:
    """Write the report on all runs, results and probes; return its page.

    What cannot be read is named on the page. Files that are as they were are left alone; only what
    an earlier report listed as its own is removed. Raises RunError for a workspace with nothing in
    it, WorkspaceError where a link leads out of it.
    """
    workspace = Snapshot.of(workspace)
    found.check_there(workspace)
    folder = Folder(workspace)
    told = _facts(workspace, folder, report)
    for name, content in _assets():
        folder.write(f"assets/{name}", content)
    page = _template().render(told, facts=Markup(to_script(told)), scripts=SCRIPTS)
    return folder.publish(page.encode())


def _facts(workspace: Workspace, folder: Folder, report: Report) -> dict[str, Any]:
    """Write the numbers of all results; return all else that the page tells."""
    runs, unreadable_runs = facts.runs(workspace)
    sides = Sides()
    results, unreadable = _results(workspace, folder, sides, report)
    probes = list(found.probes(workspace))
    ledger, _ = Ledger.read(workspace)
    return {
        "workspace": str(workspace.root),
        "made_at": now(),
        "runs": runs,
        "unreadable_runs": unreadable_runs,
        "results": results,
        "preferred": _preferred(),
        "opens_on": most_informative(results),
        "unreadable": [*unreadable, *(each for each in probes if isinstance(each, str))],
        "probes": [facts.probe(workspace, each) for each in probes if not isinstance(each, str)],
        "nights": list(reversed(ledger.nights))[:_MOST_NIGHTS],
    } | sides.to_json()


def _preferred() -> dict[str, str]:
    """Return what the page shows where results in several ways are stored."""
    usual = Method()
    return {
        "measure": usual.measure.title,
        "kernel": usual.kernel.title,
        "pool": usual.pool,
        "label": "",
    }


def _results(
    workspace: Workspace, folder: Folder, sides: Sides, report: Report
) -> tuple[list[dict[str, Any]], list[str]]:
    """Write the numbers of each result in turn, as all of them need not fit into memory."""
    names = found.result_names(workspace)
    told, unreadable = [], []
    for done, name in enumerate(names, start=1):
        result = found.result_of(workspace, name)
        if isinstance(result, str):
            unreadable.append(result)
        else:
            told.append(facts.result(workspace, result, sides))
            folder.write(f"data/{name}.js", numbers_script(result))
        report(done, len(names), f"reading {name}")
    # The newest first, after those that are of today's networks.
    told.sort(key=lambda each: each["created_at"], reverse=True)
    told.sort(key=lambda each: bool(each["outdated"]))
    return told, unreadable


def most_informative(results: Sequence[Mapping[str, Any]]) -> str:
    """Return the name of the result that the page opens on; empty where there is none.

    Of today's networks and all classes, the one of most layers that can still be looked at as a
    whole, then that of most examples, then the newest.
    """

    def rank(told: Mapping[str, Any]) -> tuple[Any, ...]:
        rows, columns = told["shape"]
        return (
            not told["outdated"],
            rows * columns <= _MOST_CELLS,
            told["label"] == "",
            told["n_layers"],
            told["n_examples"],
            told["created_at"],
        )

    return max(results, key=rank)["name"] if results else ""


def _assets() -> Iterator[tuple[str, bytes]]:
    package = files("flows.reporting")
    for name in ("report.css", *(f"{script}.js" for script in SCRIPTS)):
        yield name, (package / "assets" / name).read_bytes()
    vendored = package / "vendor" / "echarts"
    yield "echarts.min.js", (vendored / "echarts.min.js").read_bytes()
    for name in ("LICENSE", "NOTICE", "LICENSE-d3"):
        yield f"echarts.{name}.txt", (vendored / name).read_bytes()


@cache
def _template() -> Any:
    loader = PackageLoader("flows.reporting", "templates")
    # What runs and results are called comes from elsewhere.
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    return environment.get_template("index.html.j2")
