"""List what the stores of a workspace hold, and how many bytes it takes; and remove it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, Final, Literal

from allcnn.errors import WorkspaceError
from allcnn.settings.selection import Selection
from allcnn.workspace.paths import Workspace
from allcnn.workspace.snapshot import Snapshot
from store import RepresentationKey, has_store
from store.arrays.tap_names import tap_at
from store.maintenance.remove import check_removable, check_unlinked, remove
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
from store.storage.paths import Place, as_place
from store.zarrfiles.layout import NAMED, Kind, open_root

KINDS: Final[tuple[Kind, ...]] = ("activations", "grams", "similarity", "probes")

NETWORK_KINDS: Final[tuple[Literal["activations", "grams"], ...]] = ("activations", "grams")
"""Stores whose groups belong to one network each."""

EVERYTHING: Final = Selection("*", "*")


@dataclass(frozen=True)
class Inventory:
    """The contents of the stores of a workspace, from one walk over each."""

    workspace: Workspace
    found: Mapping[Kind, Sequence[Usage]]

    def select(self, kind: Kind, side: Selection, sample_set: str | None = None) -> list[Usage]:
        """Return the groups that a selection, and a pattern of sample sets, name, whole or not.

        Of results and probes, those about something that it names; one that is not whole is named
        by the widest selection alone, and drafts by none.
        """
        groups = [each for each in self.found[kind] if not each.is_file]
        groups = [each for each in groups if not each.path.startswith(".")]
        if side == EVERYTHING and sample_set is None:
            return groups
        return [each for each in groups if self._names(side, sample_set, each)]

    def opened(self, kind: Kind, network: tuple[str, ...]) -> dict[str, Any] | None:
        """Return the groups of a network by their paths, or None where one is damaged."""
        place = place_of(self.workspace, kind)
        opening = partial(committed, place, kind, network)
        return self.workspace.once(("groups", kind, network), opening)

    def facts(self, found: Usage) -> tuple[int, list[RepresentationKey]] | None:
        """Return the bytes of a record's arrays and what it is about; None if it is not whole."""
        place = place_of(self.workspace, found.kind)
        looking = partial(result_facts, place, found.path, found.kind)
        return self.workspace.once(("facts", found.kind, found.path), looking)

    def _names(self, side: Selection, sample_set: str | None, found: Usage) -> bool:
        sets = sample_set or "*"
        if found.kind not in NAMED:
            return fnmatchcase(found.names[0], sets) and is_of(self.workspace, found, side)
        facts = self.facts(found)
        return facts is not None and any(
            side.matches(key.run, key.checkpoint, key.tap) and fnmatchcase(key.sample_set, sets)
            for key in facts[1]
        )


def is_of(workspace: Workspace, found: Usage, side: Selection) -> bool:
    """Return whether a group of activations or Grams is of what a selection names."""
    run, checkpoint, _ = found.names[1:4]
    return side.matches(run, checkpoint, tap_at(place_of(workspace, found.kind), found.path))


@dataclass(frozen=True)
class Entry:
    """The space that a network, a record, or all that belongs to none, takes in one store.

    Attributes:
        kind: of the store.
        names: sample set, run and checkpoint; that of a result or probe; nothing for what belongs
            to none.
        n_groups: taps, or kinds of Grams of them; 1 for a record.
        raw_bytes: of what counts, as it is in memory; None where some of it cannot be opened.
        stored_bytes: of the files.
    """

    kind: Kind
    names: tuple[str, ...]
    n_groups: int
    raw_bytes: int | None
    stored_bytes: int


@dataclass(frozen=True)
class Removal:
    """Something that can go; why, where it was not named; and what that rests on."""

    found: Usage
    reason: str = ""
    note: str = ""


def place_of(workspace: Workspace, kind: Kind) -> Place:
    """Return where a store of the workspace is."""
    places = {
        "activations": workspace.activations,
        "grams": workspace.grams,
        "similarity": workspace.similarity,
        "probes": workspace.probes,
    }
    return as_place(places[kind])


def take_inventory(workspace: Workspace, kinds: Sequence[Kind] = KINDS) -> Inventory:
    """Measure stores of a workspace; one that is not there holds nothing.

    Raises WorkspaceError for a link to what is not there, such as a disk that is not mounted, and
    SchemaError for a folder of others, in which nothing is ours to judge.
    """
    found: dict[Kind, list[Usage]] = {}
    for kind in kinds:
        place = place_of(workspace, kind)
        if place.is_symlink() and not place.exists():
            raise WorkspaceError(
                f"{place} is a link to what is not there",
                remedy="mount that disk, or remove the link",
            )
        found[kind] = []
        if has_store(place):
            open_root(place, kind)
            found[kind] = measure(place, kind)
    return Inventory(Snapshot(workspace.root), found)


def check_links(
    workspace: Workspace, kinds: Sequence[Kind], side: Selection, sample_set: str | None
) -> None:
    """Raise StoreLocationError for a symbolic link that stands where a selection points.

    What it leads to is not in the inventory, and would seem not to be stored.
    """
    wanted = (sample_set or "*", side.run, side.checkpoint, side.tap)
    for kind in kinds:
        place = place_of(workspace, kind)
        for path in linked_folders(place, kind):
            names = path.split("/")
            parts = [*names[:TAP_DEPTH], *[tap_at(place, path)] * (len(names) > TAP_DEPTH)]
            if kind in NAMED or all(map(fits, parts, wanted)):
                check_unlinked(place, names)


def usage(inventory: Inventory, side: Selection = EVERYTHING) -> list[Entry]:
    """Return what the stores take, by networks and results, of what a selection names."""
    entries = [*_networks(inventory, side), *_results(inventory, side)]
    return [*entries, *_rest(inventory, entries)] if side == EVERYTHING else entries


def discard(workspace: Workspace, found: Sequence[Usage]) -> None:
    """Remove what was found; nothing at all where a living writer or a link is in the way of any.

    Raises ClaimedError or StoreLocationError.
    """
    for each in found:
        check_removable(place_of(workspace, each.kind), each)
    for each in found:
        remove(place_of(workspace, each.kind), each)


def _networks(inventory: Inventory, side: Selection) -> Iterator[Entry]:
    for kind in NETWORK_KINDS:
        for names, groups in networks(inventory.select(kind, side)):
            opened = inventory.opened(kind, names)
            raw = None
            if opened is not None:
                raw = sum(raw_bytes(opened[each.path]) for each in groups if each.path in opened)
            yield Entry(kind, names, len(groups), raw, sum(each.n_bytes for each in groups))


def _results(inventory: Inventory, side: Selection) -> Iterator[Entry]:
    for kind in NAMED:
        for each in inventory.select(kind, side):
            facts = inventory.facts(each)
            yield Entry(kind, each.names, 1, facts and facts[0], each.n_bytes)


def _rest(inventory: Inventory, entries: list[Entry]) -> Iterator[Entry]:
    """Yield what is in no group: metadata of the folders above them, and what kills left."""
    for kind in KINDS:
        everything = sum(each.n_bytes for each in inventory.found[kind])
        listed = sum(entry.stored_bytes for entry in entries if entry.kind == kind)
        if everything > listed:
            yield Entry(kind, (), 0, 0, everything - listed)
