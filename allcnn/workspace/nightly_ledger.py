"""What the nightly run remembers: work under way, when parts were verified, what was shown."""

from dataclasses import asdict, dataclass, field
from typing import Any, Self

from allcnn.errors import WorkspaceError
from allcnn.workspace.paths import Workspace, read_json, write_json
from store.model.field_checks import check_count, check_utc
from store.model.names import check_component
from store.storage.paths import Place, is_file, make_folder, read_bytes, write_bytes

_SCHEMA_VERSION = 1

_MOST_NIGHTS = 60


@dataclass
class Ledger:
    """The memory of the nightly runs of a workspace.

    Attributes:
        pending: pieces of storing that were begun and not finished, as JSON.
        results: by comparison, the name of its result at the last nightly run.
        verified: by part of the workspace, when it was last verified.
        curves: by run, the epochs that the learning curves were drawn with.
        nights: summaries, the last one last.
    """

    pending: list[dict[str, Any]] = field(default_factory=list)
    results: dict[str, str] = field(default_factory=dict)
    verified: dict[str, str] = field(default_factory=dict)
    curves: dict[str, int] = field(default_factory=dict)
    nights: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def read(cls, workspace: Workspace) -> tuple[Self, str]:
        """Return the ledger, and a sentence where it is lost: a nightly run works without it.

        A ledger of a newer version counts as lost, too, and is kept aside.
        """
        path = ledger_folder(workspace) / "ledger.json"
        if not is_file(path):
            return cls(), ""
        try:
            values = read_json(path)
            if values.pop("schema_version") != _SCHEMA_VERSION:
                raise ValueError("it is of another version")
            ledger = cls(**values)
            _check(ledger)
            return ledger, ""
        except (WorkspaceError, AttributeError, KeyError, TypeError, ValueError) as error:
            aside = ledger_folder(workspace) / "ledger.unusable.json"
            write_bytes(aside, read_bytes(path))
            found = f"{path} cannot be used ({error}) and is kept as {aside.name}"
            return cls(), f"{found}; this nightly run began without it"

    def write(self, workspace: Workspace) -> None:
        """Write it, whole or not at all; raises WorkspaceError where that is not possible."""
        make_folder(ledger_folder(workspace))
        self.nights = self.nights[-_MOST_NIGHTS:]
        values = {"schema_version": _SCHEMA_VERSION} | asdict(self)
        write_json(ledger_folder(workspace) / "ledger.json", values)


def ledger_folder(workspace: Workspace) -> Place:
    """Return the folder of the ledger, by which a nightly run also claims the workspace."""
    return workspace.own("nightly")


def _check(ledger: Ledger) -> None:
    """Raise TypeError, KeyError or ValueError for values that no nightly run writes."""
    for name, empty in asdict(Ledger()).items():
        if type(getattr(ledger, name)) is not type(empty):
            raise TypeError(f"{name} is no {type(empty).__name__}")
    if not all(isinstance(each, dict) for each in ledger.pending):
        raise TypeError("pending names no pieces of work")
    for result in ledger.results.values():
        check_component("result", result)
    for verified_at in ledger.verified.values():
        check_utc("verified", verified_at)
    for n_epochs in ledger.curves.values():
        check_count("curves", n_epochs, least=0)
    for night in ledger.nights:
        check_utc("began_at", night["began_at"])
        if night["ended_at"] != "":
            check_utc("ended_at", night["ended_at"])
        verified = night["verified"]
        for n in (night["n_unchanged"], verified["n_units"], verified["n_all"]):
            check_count("a count of a night", n, least=0)
        lists = [night[name] for name in ("added", "again", "moved", "skipped", "failed")]
        if not all(isinstance(each, list) for each in (*lists, verified["damage"])):
            raise TypeError("a night lists nothing")
