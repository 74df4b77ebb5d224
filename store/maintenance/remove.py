"""Remove groups of a store, and files left by interrupted writes.

A group's metadata are removed first. From then on it is no group: no reader opens it, and a writer
starts again, so that a kill in the middle leaves neither a damaged nor an unfinished one.
"""

import errno
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

from store.arrays.committed import CommittedReader
from store.arrays.tap_folders import note_removed
from store.errors import ClaimedError, StoreError
from store.maintenance.usage import DEPTHS, FORMS, STORES, Usage, committed, networks
from store.model.names import is_folder
from store.records.results import are_arrays
from store.storage.claims import claim, is_claimed
from store.storage.paths import (
    Place,
    check_unlinked,
    entry_names,
    is_leftover,
    remove_tree,
    write_bytes,
)
from store.zarrfiles.layout import NAMED, Kind, writing
from store.zarrfiles.metadata_files import NODE

_ARRAYS: Final = {kind: store.reader.form.array for kind, store in STORES.items()}

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
"""A full disk has no room for a claim, and is why people remove things."""

_MEMBERS: Final[dict[Kind, set[str]]] = {
    **{kind: {NODE, "sample", "label", array} for kind, array in _ARRAYS.items()},
    "similarity": {NODE, *FORMS["similarity"].axes},
    "probes": {NODE, *FORMS["probes"].axes, *FORMS["probes"].own},
}
"""Possible members of a group's folder: one with any other was not written by a store."""


def remove(place: Place, found: Usage) -> None:
    """Remove a group, or a file of an interrupted write, and the folders that this empties.

    Raises ClaimedError where a living writer holds it, StoreLocationError where a symbolic link
    leads to it, which is never followed, or the disk refuses.
    """
    check_removable(place, found)
    target = place / found.path
    with writing(place, f"cannot remove {target}", "; fix that and run again"):
        if found.is_file:
            target.unlink(missing_ok=True)
        elif found.kind in NAMED:
            remove_record(place, found.path)
        elif target.exists():
            array = target / _ARRAYS[found.kind]
            with _claimed(array):
                with suppress(OSError):  # a full disk
                    note_removed(place.joinpath(*found.names[:3]), found.names[3])
                (target / NODE).unlink(missing_ok=True)
                # Chunks without metadata and without a claim would be taken for a damaged group.
                if not array.is_symlink():  # whose target is not to be removed
                    remove_tree(array / "c")
                remove_tree(target)
        _remove_emptied(place, found)


def remove_record(place: Place, name: str) -> None:
    """Remove a result or a probe; raises StoreLocationError as ``remove`` does."""
    check_unlinked(place, [name])
    target = place / name
    with writing(place, f"cannot remove {target}", "; fix that and run again"):
        (target / NODE).unlink(missing_ok=True)
        remove_tree(target)


def check_removable(place: Place, found: Usage) -> None:
    """Raise the error by which ``remove`` would refuse, and remove nothing."""
    check_unlinked(place, found.names)
    if is_held(place, found):
        remedy = "wait for that, or stop it, and remove it then"
        raise ClaimedError(f"{place / found.group} is being written", remedy=remedy)


def is_held(place: Place, found: Usage) -> bool:
    """Return whether a living writer holds the group that this is, or lies in."""
    if found.kind in NAMED or len(found.names) < DEPTHS[found.kind]:
        return False
    return is_claimed(place / found.group / _ARRAYS[found.kind])


def _claimed(folder: Place) -> AbstractContextManager[object]:
    """Keep writers out of a group while it is removed."""
    try:
        # In a linked folder a claim would be made where the link leads.
        return nullcontext() if folder.is_symlink() else claim(folder)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        return nullcontext()


Opener = Callable[[Kind, tuple[str, ...]], dict[str, Any] | None]


def abandoned(
    place: Place, found: list[Usage], before: float, opened: Opener | None = None
) -> list[Usage]:
    """Return the abandoned groups and files among those found by ``measure``.

    Unfinished and half-made groups, half-removed ones, drafts of results and probes, and files left
    by interrupted writes, unless they changed at ``before`` or later, or a living writer holds
    them. Foreign files are left alone, and so are all groups of a network with a damaged one.
    ``opened`` returns the groups of a network, as ``committed`` does otherwise.
    """
    opened = opened or partial(committed, place)
    old = [each for each in found if each.changed < before]
    leftovers = [each for each in old if each.is_file and is_leftover(each.names[-1])]
    unfinished = [each for each in found if not each.is_file and each.kind in NAMED]
    unfinished = [each for each in unfinished if _is_draft(place, each)]
    for network, groups in networks([each for each in found if each.kind not in NAMED]):
        readers = opened(groups[0].kind, network)
        if readers is not None:
            unfinished += [each for each in groups if _is_unfinished(each, readers.get(each.path))]
    old_paths = {each.path for each in old}
    wanted = [*leftovers, *(each for each in unfinished if each.path in old_paths)]
    return [each for each in wanted if not is_held(place, each)]


def _is_unfinished(found: Usage, reader: CommittedReader[Any] | None) -> bool:
    if reader is None:
        return _is_ours(found)
    # Blocks that a repair took back are damaged, and all behind them are kept.
    return not reader.complete and not reader.taken_back


def _is_draft(place: Place, found: Usage) -> bool:
    if found.path.startswith(".") and found.path.endswith((".partial", ".replaced")):
        return True
    try:
        return _is_ours(found) and not FORMS[found.kind].has(place, found.path)
    except StoreError:
        return False  # damaged, not unfinished


def _is_ours(found: Usage) -> bool:
    is_named = all(is_folder(name, depth) for depth, name in enumerate(found.names))
    others = found.members - _MEMBERS[found.kind]
    are_known = are_arrays(others) if found.kind == "similarity" else not others
    return are_known and is_named


def _remove_emptied(place: Place, found: Usage) -> None:
    """Remove empty folders above a file, or those above a group that hold only metadata."""
    for n in range(len(found.names) - 1, 0, -1):
        folder = place.joinpath(*found.names[:n])
        if set(entry_names(folder)) - (set() if found.is_file else {NODE}):
            return
        metadata = folder / NODE
        content = metadata.read_bytes() if metadata.exists() else None
        if content is not None:
            metadata.unlink(missing_ok=True)
        if not _vanishes(folder):
            # A writer has made a group there in the meantime.
            if content is not None:
                write_bytes(metadata, content)
            return


def _vanishes(folder: Place) -> bool:
    """Remove an empty folder; return whether it was one."""
    if not isinstance(folder, Path):
        # At an address there are no folders, only names that begin alike.
        return not entry_names(folder)
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
