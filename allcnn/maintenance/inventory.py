"""List what the stores of a workspace hold, and how many bytes it takes; and remove it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, Final, Literal

from allcnn.errors import WorkspaceError
from allcnn.settings.selection import EVERYTHING, Selection
from allcnn.workspace.paths import Snapshot, Workspace
from store import RepresentationKey, has_store
from store.arrays.tap_folders import tap_at
from store.maintenance.remove import check_removable, remove
from store.maintenance.usage import (
    Usage,
    committed,
    linked_folders,
    measure,
    networks,
    raw_bytes,
    result_facts,
)
from store.model.names import TAP_DEPTH, fits
from store.storage.paths import Place, check_unlinked
from store.zarrfiles.layout import NAMED, Kind, open_root

KINDS: Final[tuple[Kind, ...]] = ("activations", "grams", "similarity", "probes")

NETWORK_KINDS: Final[tuple[Literal["activations", "grams"], ...]] = ("activations", "grams")
"""Stores whose groups belong to one network each."""


@dataclass(frozen=True)
class Inventory:
    """The contents of the stores of a workspace, from one walk over each."""

    workspace: Workspace
    found: Mapping[Kind, Sequence[Usage]]

    def select(self, kind: Kind, side: Selection, sample_set: str | None = None) -> list[Usage]:
        """Return the groups that a selection, and a pattern of sample sets, name, whole or not.

        A result or probe is named by what it is about; one that is not whole by the widest
        selection alone, and drafts by none.
        """
        groups = [e for e in self.found[kind] if not e.is_file and not e.path.startswith(".")]
        if side == EVERYTHING and sample_set is None:
            return groups
        return [each for each in groups if self._names(side, sample_set, each)]

    def opened(self, kind: Kind, network: tuple[str, ...]) -> dict[str, Any] | None:
        """Return the groups of a network by their paths, or None where one is damaged."""
        place = self.workspace.store(kind)
        opening = partial(committed, place, kind, network)
        return self.workspace.once(("groups", kind, network), opening)

    def facts(self, found: Usage) -> tuple[int, list[RepresentationKey]] | None:
        """Return the bytes of a record's arrays and what it is about; None if it is not whole."""
        place = self.workspace.store(found.kind)
        looking = partial(result_facts, place, found.path, found.kind)
        return self.workspace.once(("facts", found.kind, found.path), looking)

    def _names(self, side: Selection, sample_set: str | None, found: Usage) -> bool:
        sets = sample_set or "*"
        if found.kind not in NAMED:
            name, run, checkpoint, _ = found.names[:4]
            tap = tap_at(self.workspace.store(found.kind), found.path)
            return fnmatchcase(name, sets) and side.matches(run, checkpoint, tap)
        facts = self.facts(found)
        return facts is not None and any(
            side.matches(key.run, key.checkpoint, key.tap) and fnmatchcase(key.sample_set, sets)
            for key in facts[1]
        )


@dataclass(frozen=True)
class Removal:
    """Something that can go; why, where it was not named; and what that rests on."""

    found: Usage
    reason: str = ""
    note: str = ""


def take_inventory(workspace: Workspace, kinds: Sequence[Kind] = KINDS) -> Inventory:
    """Measure stores of a workspace; one that is not there holds nothing.

    Raises WorkspaceError for a link to what is not there, such as a disk that is not mounted, and
    SchemaError for a folder of others, in which nothing is ours to judge.
    """
    found: dict[Kind, list[Usage]] = {}
    for kind in kinds:
        place = workspace.store(kind)
        check_mounted(place)
        found[kind] = []
        if has_store(place):
            open_root(place, kind)
            found[kind] = measure(place, kind)
    return Inventory(Snapshot(workspace.root), found)


def check_mounted(place: Place) -> None:
    """Raise WorkspaceError for a link to what is not there, such as a disk."""
    if place.is_symlink() and not place.exists():
        remedy = "mount that disk, or remove the link"
        raise WorkspaceError(f"{place} is a link to what is not there", remedy=remedy)


def check_links(
    workspace: Workspace, kinds: Sequence[Kind], side: Selection, sample_set: str | None
) -> None:
    """Raise StoreLocationError for a symbolic link that stands where a selection points.

    Its target is not in the inventory, and would seem not to be stored.
    """
    wanted = (sample_set or "*", side.run, side.checkpoint, side.tap)
    for kind in kinds:
        place = workspace.store(kind)
        for path in linked_folders(place, kind):
            names = path.split("/")
            taps = [tap_at(place, path)] if len(names) > TAP_DEPTH else []
            if kind in NAMED or all(map(fits, [*names[:TAP_DEPTH], *taps], wanted)):
                check_unlinked(place, names)


def usage(inventory: Inventory, side: Selection = EVERYTHING) -> list[dict[str, Any]]:
    """Return what the stores take, by networks and records, of what a selection names.

    An entry has its ``store`` and names: sample set, run and checkpoint, or result, or probe; the
    rest has none. ``groups`` counts taps, or kinds of Grams of them; ``raw_bytes`` are those of
    committed values in memory, None where they cannot be opened; ``stored_bytes`` of the files.
    """
    entries: list[dict[str, Any]] = []
    for kind in KINDS:
        found = inventory.select(kind, side)
        if kind in NAMED:
            for each in found:
                names = {"probe" if kind == "probes" else "result": each.path}
                facts = inventory.facts(each)
                entries.append(_entry(kind, names, 1, facts and facts[0], each.n_bytes))
            continue
        for network, groups in networks(found):
            opened = inventory.opened(kind, network)
            raw = None
            if opened is not None:
                raw = sum(raw_bytes(opened[each.path]) for each in groups if each.path in opened)
            names = dict(zip(("sample_set", "run", "checkpoint"), network, strict=True))
            entries.append(_entry(kind, names, len(groups), raw, sum(e.n_bytes for e in groups)))
    if side == EVERYTHING:
        # The rest is in no group: metadata of folders above, and files of interrupted writes.
        for kind in KINDS:
            rest = sum(each.n_bytes for each in inventory.found[kind])
            rest -= sum(entry["stored_bytes"] for entry in entries if entry["store"] == kind)
            if rest:
                entries.append(_entry(kind, {}, 0, 0, rest))
    return entries


def _entry(
    kind: Kind, names: dict[str, str], n_groups: int, n_raw: int | None, n_bytes: int
) -> dict[str, Any]:
    sizes = {"groups": n_groups, "raw_bytes": n_raw, "stored_bytes": n_bytes}
    return {"store": kind, **names, **sizes}


def discard(workspace: Workspace, found: Sequence[Usage]) -> None:
    """Remove all of it; or nothing where a living writer or a link is in the way of any.

    Raises ClaimedError or StoreLocationError.
    """
    for each in found:
        check_removable(workspace.store(each.kind), each)
    for each in found:
        remove(workspace.store(each.kind), each)
