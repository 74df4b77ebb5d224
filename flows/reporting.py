"""The report on a workspace: a folder with a page that opens from the disk, and its pictures."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from allcnn import figures
from allcnn.config import Comparison, Selection
from allcnn.errors import AllcnnError, ConfigError, RunError
from allcnn.progress import Report, silent
from allcnn.provenance import now
from allcnn.repair.results import command_of
from allcnn.runs import Run, list_runs
from allcnn.workspace import Workspace
from flows.upkeep.ledger import Ledger
from flows.upkeep.survey import digest_now
from store import SimilarityResult, StoreError, has_store, list_results, read_result
from store.place import (
    Place,
    entry_names,
    is_file,
    make_folder,
    read_bytes,
    write_bytes,
)

CURVES: Final = "nightly-curves"
"""The picture of the learning curves of all runs."""

_CURVES_PNG: Final = f"{CURVES}.png"

_PAGE = "index.html"


@dataclass(frozen=True)
class Shown:
    """A result, as the page shows it."""

    name: str
    title: str
    method: str
    picture: str
    facts: dict[str, str]
    outdated: str


def check_there(workspace: Workspace) -> None:
    """Raise RunError for a workspace with nothing in it, as one of a mistyped name."""
    stores = (workspace.activations, workspace.grams, workspace.similarity)
    if not (workspace.runs() or any(map(has_store, stores))):
        raise RunError(
            f"{workspace.root} holds no runs and no stores; train a network first with 'allcnn"
            " train', or name another --workspace"
        )


def draw_missing(
    workspace: Workspace, results: Iterable[SimilarityResult], report: Report = silent
) -> list[Place]:
    """Draw the results that have no picture; return the pictures drawn."""
    wanted = [r for r in results if not is_file(workspace.figures / f"{r.name}.png")]
    drawn = []
    for done, result in enumerate(wanted, start=1):
        drawn.append(figures.draw_comparison(workspace, result))
        report(done, len(wanted), f"drawing {result.name}")
    return drawn


def draw_curves(workspace: Workspace) -> Place | None:
    """Draw the learning curves of all runs that have any; return the picture."""
    runs = [run.run for run in _runs(workspace) if run.epochs_done]
    return figures.draw_learning_curves(workspace, runs, CURVES) if runs else None


def write_report(workspace: Workspace) -> Place:
    """Write the report on all runs and results; return its page.

    Pictures are copied, so that the folder can be sent around. Results that cannot be read are
    named on the page. Raises RunError for a workspace with nothing in it.
    """
    check_there(workspace)
    folder = workspace.root / "report"
    make_folder(folder / "figures")
    results, unreadable = _results(workspace)
    today = _Today(workspace)
    shown = [_shown(workspace, result, today) for result in results]
    _copy_pictures(workspace, folder / "figures", [*(each.picture for each in shown), _CURVES_PNG])
    ledger, _ = Ledger.read(workspace)
    page = _template().render(
        workspace=str(workspace.root),
        made_at=now(),
        runs=_runs(workspace),
        curves=_CURVES_PNG if is_file(folder / "figures" / _CURVES_PNG) else "",
        results=[each for each in shown if not each.outdated],
        outdated=[each for each in shown if each.outdated],
        unreadable=unreadable,
        nights=list(reversed(ledger.nights))[:14],
    )
    write_bytes(folder / _PAGE, page.encode())
    return folder / _PAGE


def _copy_pictures(workspace: Workspace, folder: Place, names: Sequence[str]) -> None:
    """Copy pictures, and remove those of results that are there no more."""
    for name in names:
        if is_file(workspace.figures / name):
            write_bytes(folder / name, read_bytes(workspace.figures / name))
    for name in {*entry_names(folder)} - set(names):
        if name.endswith(".png"):
            (folder / name).unlink(missing_ok=True)


def results_of(workspace: Workspace) -> list[SimilarityResult]:
    """Return all results that can be read, the newest first."""
    return _results(workspace)[0]


def _results(workspace: Workspace) -> tuple[list[SimilarityResult], list[str]]:
    """Return the results that can be read, the newest first, and why others cannot."""
    if not has_store(workspace.similarity):
        return [], []
    found, unreadable = [], []
    for name in list_results(workspace.similarity):
        try:
            found.append(read_result(workspace.similarity, name))
        except StoreError as error:
            unreadable.append(str(error))
    found.sort(key=lambda result: str(result.provenance.get("created_at", "")), reverse=True)
    return found, unreadable


def _runs(workspace: Workspace) -> list[Run]:
    return [run for run in list_runs(workspace, "*") if isinstance(run, Run)]


class _Today:
    """The digests of checkpoints as they are now, each looked up once."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._found: dict[str, str | None] = {}

    def is_other(self, network: str, digest: str) -> bool:
        """Return whether a checkpoint has another digest; without it, nothing tells."""
        if network not in self._found:
            try:
                self._found[network] = digest_now(self._workspace, Selection.parse(network))
            except (AllcnnError, StoreError, OSError):
                self._found[network] = None
        return self._found[network] not in (None, digest)


def _shown(workspace: Workspace, result: SimilarityResult, today: _Today) -> Shown:
    rows, columns = (figures.side(keys) for keys in (result.rows, result.columns))
    title = rows.label if result.rows == result.columns else f"{rows.label} with {columns.label}"
    return Shown(
        result.name,
        title,
        figures.method(result),
        f"{result.name}.png",
        dict(_facts(workspace, result)),
        _outdated(result, today),
    )


def _facts(workspace: Workspace, result: SimilarityResult) -> Iterator[tuple[str, str]]:
    provenance = result.provenance
    yield "on", f"{result.rows[0].sample_set}, {result.n_examples:,} examples"
    yield "computed at", str(provenance.get("created_at", "not known"))
    versions = provenance.get("versions")
    if isinstance(versions, dict):
        yield "by", ", ".join(f"{name} {version}" for name, version in versions.items())
    yield "stored as", result.name
    try:
        job = Comparison.from_json(provenance["job"])
        yield "computed by", command_of(workspace, job)
    except (KeyError, ConfigError):
        pass  # of an earlier version
    n_undefined = len(result.reasons)
    if n_undefined:
        yield "not defined", f"{n_undefined} values, such as: {result.reasons[0][2]}"


def _outdated(result: SimilarityResult, today: _Today) -> str:
    """Return in words why a result is of other networks than those of today; empty if it is not."""
    digests: Mapping[str, Any] = result.provenance.get("checkpoint_digests") or {}
    networks = {name: digest for side in digests.values() for name, digest in side.items()}
    changed = [name for name, digest in networks.items() if today.is_other(name, digest)]
    if not changed:
        return ""
    return f"{', '.join(_few(changed))}: trained again since"


def _few(names: Sequence[str]) -> list[str]:
    return [*names[:4], *(["…"] if len(names) > 4 else [])]


@cache
def _template() -> Any:
    loader = PackageLoader("flows", "templates")
    # What runs and results are called comes from elsewhere.
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    return environment.get_template("report.html.j2")
