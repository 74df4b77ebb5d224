"""What a nightly run did: counts, then what was added, stored again, damaged, skipped."""

from dataclasses import asdict, dataclass, field
from typing import Any

from flows.maintenance.earlier_results import Moved
from flows.maintenance.rotating_verification import Verified
from flows.maintenance.stale_networks import Skipped
from flows.views.listing import size

_MOST_LINES = 40
"""Lines of one kind: a summary is read in the morning."""


@dataclass
class NightlySummary:
    """One nightly run; times are ISO 8601 in UTC.

    Attributes:
        ended_at: empty for one that is under way, or was killed.
        added: networks that were stored for the first time.
        again: networks that were stored again, since their checkpoint had become another.
        n_present: networks that were stored as they should be.
        n_superseded: results that went, as newer ones have all their numbers.
        skipped: what was left as it is, and why.
        failed: what went wrong, and is tried again the next time.
    """

    began_at: str
    ended_at: str = ""
    added: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)
    n_present: int = 0
    moved: list[Moved] = field(default_factory=list)
    n_superseded: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    failed: list[Skipped] = field(default_factory=list)
    verified: Verified = field(default_factory=Verified)
    notes: list[str] = field(default_factory=list)

    @property
    def changed(self) -> list[Moved]:
        """The matrices that are not what they were."""
        return [each for each in self.moved if each.change != "unchanged"]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values; of matrices those that changed."""
        values = asdict(self)
        values["moved"] = [asdict(each) for each in self.changed]
        values["verified"]["damage"] = list(map(str, self.verified.damage))
        return values | {"n_unchanged": len(self.moved) - len(self.changed)}


def headline(summary: NightlySummary) -> str:
    """Return a nightly run in one line."""
    verified, n_changed = summary.verified, len(summary.changed)
    counts = [
        f"{counted(len(summary.added), 'network')} added",
        f"{len(summary.again)} stored again",
        f"{summary.n_present} as they were",
        f"{counted(n_changed, 'matrix', 'matrices')} changed",
        f"{len(summary.moved) - n_changed} as they were",
        f"{verified.n_units} of {counted(verified.n_all, 'piece')} verified",
        f"{len(verified.damage)} damaged",
        f"{len(summary.skipped)} skipped",
        f"{len(summary.failed)} failed",
    ]
    return ", ".join(counts)


def counted(n: int, one: str, several: str = "") -> str:
    """Return a number of things."""
    return f"{n} {one if n == 1 else several or one + 's'}"


def markdown(summary: NightlySummary) -> str:
    """Return the summary as an artifact or a report shows it."""
    return _rendered(summary, "**{}**", "### {}\n", "- ", _MOST_LINES)


def text(summary: NightlySummary) -> str:
    """Return the summary for a terminal."""
    return _rendered(summary, "{}", "{}:", "  ")


def _rendered(
    summary: NightlySummary, head: str, title: str, indent: str, most: int | None = None
) -> str:
    found = {
        "Failed, and tried again the next time": list(map(_why, summary.failed)),
        "Damaged": summary.verified.said,
        "Added": summary.added,
        "Stored again, as their checkpoints are others now": summary.again,
        "Matrices that changed": list(map(_change, summary.changed)),
        "Skipped": list(map(_why, summary.skipped)),
        "Notes": _notes(summary),
    }
    parts = [head.format(headline(summary))]
    for name, lines in found.items():
        shown = lines[:most]
        if n_more := len(lines) - len(shown):
            shown.append(f"… and {n_more} more")
        if shown:
            parts.append("\n".join([title.format(name), *(indent + line for line in shown)]))
    return "\n\n".join(parts)


def _why(each: Skipped) -> str:
    return f"{each.what}: {each.reason}"


def _change(each: Moved) -> str:
    if each.change == "new":
        return f"{each.networks}: new, {counted(each.n_added, 'representation')}"
    line = f"{each.networks}: {each.change}"
    if each.n_added:
        line += f" by {counted(each.n_added, 'representation')}"
    if each.n_redefined:
        line += f"; {counted(each.n_redefined, 'value')} became defined or undefined"
    if each.largest is None:
        return f"{line}; no number in common with what was there before"
    if each.largest == 0:
        return f"{line}; what was there before did not move"
    line += f"; its values moved by at most {each.largest:.2g}, by {each.mean:.2g} on average"
    return f"{line} (furthest {each.where})" if each.where else line


def _notes(summary: NightlySummary) -> list[str]:
    verified, notes = summary.verified, list(summary.notes)
    if verified.n_units:
        notes.append(f"{size(verified.n_bytes)} were read to verify them")
    if verified.n_repaired:
        notes.append(f"{counted(verified.n_repaired, 'piece')} of damage repaired")
    if summary.n_superseded:
        notes.append(
            f"{counted(summary.n_superseded, 'older result')} removed, as newer ones have all their"
            " numbers"
        )
    return notes
