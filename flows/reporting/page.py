"""Write the report's folder: the page, its assets, and a file of numbers for each result."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from allcnn.compare.describe import errors_caution, nested
from allcnn.errors import WorkspaceError
from allcnn.progress import Report, silent
from allcnn.provenance import now
from allcnn.similarity.method import Method
from allcnn.workspace.nightly_ledger import Ledger
from allcnn.workspace.paths import Snapshot, Workspace, read_json, write_json
from flows.reporting import facts
from store import SimilarityResult
from store.storage.paths import Place, is_file, make_folder, read_bytes, write_bytes
from store.storage.remote_errors import reaching

PAGE: Final = "index.html"
_FOLDERS: Final = ("assets", "data")
_LIST: Final = "written.json"
_OURS: Final = b"<title>Report on "
"""Stands in every page of ours, also in those of versions that listed nothing."""

_MOST_NIGHTS = 14

_MOST_CELLS = 40_000
"""Cells of the matrix that the page opens on: larger ones are a blur, and take long to read."""

SCRIPTS = (
    *("facts", "dom", "colours", "hash", "numbers", "blocks", "layout", "heatmap", "pointer"),
    *("layers", "slider", "downloads", "explorer", "lines", "curves", "probes", "tables", "main"),
)
"""Our own scripts, each after those that it needs."""

_ESCAPED = {ord(c): f"\\u{ord(c):04x}" for c in "<>&"}
"""No name may end the script that it stands in."""


class Folder:
    """Writes the page's files; ``publish`` then writes the page, and removes files left over.

    Raises WorkspaceError where a link leads out of the workspace, or another page is in the way.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._place = workspace.own("report")
        for name in _FOLDERS:
            make_folder(workspace.own("report", name))
        page = self._place / PAGE
        if is_file(page) and _OURS not in read_bytes(page):
            raise WorkspaceError(
                f"{page} is no report of ours, and would be replaced", remedy="move it away"
            )
        self._before = _read_list(self._place / _LIST)
        self._now: dict[str, str] = {}

    def write(self, name: str, content: bytes) -> None:
        """Write a file unless it holds that already: a nightly run changes little."""
        self._now[name] = _digest(content)
        if _content(self._place / name) != content:
            write_bytes(self._place / name, content)

    def publish(self, page: bytes) -> Place:
        """Write the page, last, so that its files are there when it is opened; return it.

        Files that an earlier report listed and this one did not write are removed.
        """
        write_bytes(self._place / PAGE, page)
        for name, digest in self._before.items():
            if name not in self._now:
                self._remove(name, digest)
        if self._now != self._before:
            write_json(self._place / _LIST, self._now)
        return self._place / PAGE

    def _remove(self, name: str, digest: str) -> None:
        # Whatever the list says: a file in one of our folders that is still as it was written.
        file, parts = self._place / name, PurePosixPath(name).parts
        ours = len(parts) == 2 and parts[0] in _FOLDERS and parts[1] != ".."
        if ours and not file.is_symlink() and _digest(_content(file) or b"") == digest:
            file.unlink(missing_ok=True)


def _read_list(file: Place) -> dict[str, str]:
    """Return what an earlier report listed; of a list that cannot be read, nothing is removed."""
    with suppress(WorkspaceError, FileNotFoundError):
        found = read_json(file)
        if isinstance(found, dict):
            return {name: digest for name, digest in found.items() if isinstance(digest, str)}
    return {}


def _content(file: Place) -> bytes | None:
    with reaching(file), suppress(FileNotFoundError, IsADirectoryError):
        return read_bytes(file)
    return None


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def write_report(workspace: Workspace, report: Report = silent) -> Place:
    """Write the report on all runs, results and probes; return its page.

    The page names what cannot be read. Unchanged files are left alone, and only files that an
    earlier report listed as its own are removed. Raises RunError for a workspace with nothing in
    it, WorkspaceError where a link leads out of it.
    """
    workspace = Snapshot.of(workspace)
    facts.check_there(workspace)
    folder = Folder(workspace)
    shown = _facts(workspace, folder, report)
    for name, content in _assets():
        folder.write(f"assets/{name}", content)
    page = _template().render(shown, facts=Markup(to_script(shown)), scripts=SCRIPTS)
    return folder.publish(page.encode())


def _facts(workspace: Workspace, folder: Folder, report: Report) -> dict[str, Any]:
    """Write the numbers of all results; return the other facts for the page."""
    runs, unreadable_runs = facts.runs(workspace)
    sides = facts.Sides()
    results, unreadable = _results(workspace, folder, sides, report)
    probes = []
    for each in facts.records(workspace, "probes"):
        if isinstance(each, str):
            unreadable.append(each)
        else:
            probes.append(facts.probe(workspace, each))
    ledger, _ = Ledger.read(workspace)
    usual = Method()
    # Shown where results in several ways are stored.
    preferred = {"measure": usual.measure.title, "kernel": usual.kernel.title}
    preferred |= {"pool": usual.pool, "label": ""}
    return {
        "workspace": str(workspace.root),
        "made_at": now(),
        "runs": runs,
        "unreadable_runs": unreadable_runs,
        "results": results,
        "preferred": preferred,
        "opens_on": most_informative(results),
        "unreadable": unreadable,
        "probes": probes,
        "nights": list(reversed(ledger.nights))[:_MOST_NIGHTS],
    } | sides.to_json()


def _results(
    workspace: Workspace, folder: Folder, sides: facts.Sides, report: Report
) -> tuple[list[dict[str, Any]], list[str]]:
    """Write the numbers of each result in turn, as all of them need not fit into memory."""
    results, unreadable = [], []
    for result in facts.records(workspace, "similarity", report):
        if isinstance(result, str):
            unreadable.append(result)
        elif not (result.rows and result.columns):
            place = workspace.similarity
            unreadable.append(f"result {result.name} in {place} compares nothing; delete it")
        else:
            results.append(facts.result(workspace, result, sides))
            folder.write(f"data/{result.name}.js", numbers_script(result))
    # The newest first, but outdated ones last.
    results.sort(key=lambda each: each["created_at"], reverse=True)
    results.sort(key=lambda each: bool(each["outdated"]))
    return results, unreadable


def most_informative(results: Sequence[Mapping[str, Any]]) -> str:
    """Return the name of the result that the page opens on; empty where there is none.

    Results of current networks and of all classes come first, then that with the most layers that
    can still be viewed as a whole, then that of most examples, then the newest.
    """

    def rank(result: Mapping[str, Any]) -> tuple[Any, ...]:
        rows, columns = result["shape"]
        return (
            not result["outdated"],
            rows * columns <= _MOST_CELLS,
            result["label"] == "",
            result["n_layers"],
            result["n_examples"],
            result["created_at"],
        )

    return max(results, key=rank)["name"] if results else ""


def to_script(values: object) -> str:
    """Return JSON that is safe inside a script: ASCII, and without letters that HTML reads."""
    text = json.dumps(values, allow_nan=False, separators=(",", ":"))
    return text.translate(_ESCAPED)


def numbers_script(result: SimilarityResult) -> bytes:
    """Return the script that passes the numbers of a result to the page, with all their digits."""
    sums, parts = result.sums, result.parts
    arrays = {
        "values": result.values,
        "errors": result.errors,
        "sums_rows": sums("rows"),
        "sums_columns": sums("columns"),
        "scales_rows": parts.get("scales_rows"),
        "scales_columns": parts.get("scales_columns"),
    }
    values = {name: nested(array) for name, array in arrays.items()} | {
        "reasons": result.reasons,
        "errors_reason": result.errors_reason,
        "n_minibatches": result.n_minibatches,
        "errors_caution": errors_caution(result),
        "digests": facts.digests_of(result),
    }
    return f"reportNumbers({to_script(result.name)},{to_script(values)});\n".encode()


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
    # Names of runs and results come from elsewhere.
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    return environment.get_template("index.html.j2")
