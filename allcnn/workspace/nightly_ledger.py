"""What one night tells the next: what is under way, what had its turn, what was shown last."""

from dataclasses import asdict, dataclass, field
from typing import Any, Self

from allcnn.errors import WorkspaceError
from allcnn.workspace.paths import Workspace, read_json, write_json
from store.model.field_checks import check_count, check_utc
from store.model.names import check_component
from store.storage.paths import Place, is_file, make_folder, read_bytes, write_bytes

_SCHEMA_VERSION = 1

_MOST_NIGHTS = 60

_NAMED = ("results", "verified", "curves")


@dataclass
class Ledger:
    """The memory of the nights of a workspace.

    Attributes:
        pending: pieces of storing that were begun and not finished, as JSON.
        results: by comparison, the name of the result that it had when a night last looked.
        verified: by what was verified, when it was last.
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
        """Return what is remembered, and a sentence where that is lost: a night needs none of it.

        A ledger of a newer version counts as lost, too, and is kept aside.
        """
        path = _path(workspace)
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
            aside = folder(workspace) / "ledger.unusable.json"
            write_bytes(aside, read_bytes(path))
            told = f"{path} is not to be used ({error}) and kept as {aside.name}"
            return cls(), f"{told}, so that this night began anew"

    def write(self, workspace: Workspace) -> None:
        """Keep it, whole or as it was; raises WorkspaceError where that is not possible."""
        make_folder(folder(workspace))
        self.nights = self.nights[-_MOST_NIGHTS:]
        write_json(_path(workspace), {"schema_version": _SCHEMA_VERSION} | asdict(self))


def folder(workspace: Workspace) -> Place:
    """Return where nights keep what they remember, and hold the workspace against others."""
    return workspace.own("nightly")


def _check(ledger: Ledger) -> None:
    """Raise TypeError or ValueError where a memory has not what nights write into it."""
    for name, kind in (("pending", list), ("nights", list), *((name, dict) for name in _NAMED)):
        if not isinstance(getattr(ledger, name), kind):
            raise TypeError(f"{name} is no {kind.__name__}")
    if not all(isinstance(each, dict) for each in ledger.pending):
        raise TypeError("pending names no pieces of work")
    for result in ledger.results.values():
        check_component("result", result)
    for verified_at in ledger.verified.values():
        check_utc("verified", verified_at)
    for n_epochs in ledger.curves.values():
        check_count("curves", n_epochs, least=0)
    for night in ledger.nights:
        _check_night(night)


def _check_night(night: Any) -> None:
    """Raise TypeError, KeyError or ValueError for what is no summary that a page can show."""
    check_utc("began_at", night["began_at"])
    if night["ended_at"] != "":
        check_utc("ended_at", night["ended_at"])
    check_count("n_unchanged", night["n_unchanged"], least=0)
    verified = night["verified"]
    for name in ("n_units", "n_all"):
        check_count(name, verified[name], least=0)
    lists = [night[name] for name in ("added", "again", "moved", "skipped", "failed")]
    if not all(isinstance(each, list) for each in (*lists, verified["damage"])):
        raise TypeError("a night lists nothing")


def _path(workspace: Workspace) -> Place:
    return folder(workspace) / "ledger.json"
