"""Remove what a store holds: whole groups, and what kills left behind.

A group's metadata go first. From then on it is no group: nobody reads it, and a writer starts it
afresh, so that a kill in the middle leaves neither a damaged nor an unfinished one.
"""

import errno
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, Final

from store.arrays.activations import ACTIVATIONS
from store.arrays.committed import CommittedReader
from store.arrays.grams import GRAMS
from store.arrays.removed_taps import note_removed
from store.arrays.writer import written
from store.errors import ClaimedError, StoreError
from store.maintenance.usage import DEPTHS, Usage, committed, networks
from store.model.names import is_folder
from store.records.probes import ProbeResult
from store.records.records import has_record
from store.records.registry import FORMS
from store.records.results import are_arrays
from store.storage.claims import claim, is_claimed
from store.storage.paths import Place, entry_names, is_leftover, remove_tree, write_bytes
from store.storage.paths import check_unlinked as check_unlinked
from store.storage.remote_errors import reaching
from store.zarrfiles.layout import NAMED, Kind
from store.zarrfiles.metadata_files import NODE

_ARRAYS: Final = {"activations": ACTIVATIONS.array, "grams": GRAMS.array}

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
"""A full disk has no room for a claim, and is why people remove things."""

_MEMBERS: Final[dict[Kind, set[str]]] = {
    "activations": {NODE, "sample", "label", _ARRAYS["activations"]},
    "grams": {NODE, "sample", "label", _ARRAYS["grams"]},
    "similarity": {NODE, "row", "column"},
    "probes": {NODE, "tap", "class", *(f.name for f in fields(ProbeResult))},
}
"""What a group's folder can hold: a folder with anything else was not written by a store."""


def remove(place: Place, found: Usage) -> None:
    """Remove a group, or a file that a kill left, and the folders that this empties.

    Raises ClaimedError where a living writer holds it, StoreLocationError where a symbolic link
    leads to it, which is never followed, or the disk refuses.
    """
    check_removable(place, found)
    target = place / found.path
    with reaching(place), written(f"cannot remove {target}", "; fix that and run again"):
        if found.is_file:
            target.unlink(missing_ok=True)
            _remove_empty(place, found.names[:-1])
            return
        if target.exists():
            if found.kind not in NAMED:
                with suppress(OSError):  # a full disk
                    note_removed(place.joinpath(*found.names[:3]), found.names[3])
            with _claimed(place, found):
                (target / NODE).unlink(missing_ok=True)
                # Chunks without metadata and without a claim would be taken for a damaged group.
                if found.kind not in NAMED:
                    _remove_chunks(target / _ARRAYS[found.kind])
                remove_tree(target)
        _remove_emptied(place, found.names[:-1])


def _remove_chunks(array: Place) -> None:
    if not array.is_symlink():  # whose target is not what is removed
        remove_tree(array / "c")


def check_removable(place: Place, found: Usage) -> None:
    """Raise the error by which ``remove`` would refuse, and remove nothing."""
    check_unlinked(place, found.names)
    if is_held(place, found):
        raise ClaimedError(
            f"{place / found.group} is being written",
            remedy="wait for that, or stop it, and remove it then",
        )


def is_held(place: Place, found: Usage) -> bool:
    """Return whether a living writer holds the group that this is, or lies in."""
    if found.kind in NAMED or len(found.names) < DEPTHS[found.kind]:
        return False
    return is_claimed(place / found.group / _ARRAYS[found.kind])


def _claimed(place: Place, found: Usage) -> AbstractContextManager[object]:
    """Keep writers out of a group while it is removed."""
    if found.kind in NAMED:
        return nullcontext()
    folder = place / found.path / _ARRAYS[found.kind]
    if folder.is_symlink():
        return nullcontext()  # a claim would be made where it leads to
    try:
        return claim(folder)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        return nullcontext()


Opener = Callable[[Kind, tuple[str, ...]], dict[str, Any] | None]


def abandoned(
    place: Place, found: list[Usage], before: float, opened: Opener | None = None
) -> list[Usage]:
    """Return what no process will finish, of all that ``measure`` found.

    Unfinished and half-made groups, half-removed ones, drafts of results and probes, and files left
    by interrupted writes, unless they changed at ``before`` or later, or a living writer holds
    them. What no store wrote is left alone, and so are the groups of a network of which one is
    damaged. ``opened`` is asked for the groups of a network, as ``committed`` is otherwise.
    """
    opened = opened or partial(committed, place)
    old = [each for each in found if each.changed < before]
    leftovers = [each for each in old if each.is_file and is_leftover(each.names[-1])]
    unfinished = [each for each in found if not each.is_file and each.kind in NAMED]
    unfinished = [each for each in unfinished if _is_draft(place, each)]
    for network, groups in networks([each for each in found if each.kind not in NAMED]):
        unfinished += _unfinished(opened(groups[0].kind, network), groups)
    old_paths = {each.path for each in old}
    wanted = [*leftovers, *(each for each in unfinished if each.path in old_paths)]
    return [each for each in wanted if not is_held(place, each)]


def _unfinished(opened: dict[str, Any] | None, groups: list[Usage]) -> list[Usage]:
    if opened is None:
        return []
    return [
        each
        for each in groups
        if (_is_partial(opened[each.path]) if each.path in opened else _is_ours(each))
    ]


def _is_partial(found: CommittedReader[Any]) -> bool:
    # What a repair took back is damaged, and all behind it is kept.
    return not found.complete and not found.taken_back


def _is_draft(place: Place, found: Usage) -> bool:
    name = found.path
    if name.startswith(".") and name.endswith((".partial", ".replaced")):
        return True
    try:
        return _is_ours(found) and not has_record(place, FORMS[found.kind], name)
    except StoreError:
        return False  # damaged, not unfinished


def _is_ours(found: Usage) -> bool:
    is_named = all(is_folder(name, depth) for depth, name in enumerate(found.names))
    others = found.members - _MEMBERS[found.kind]
    are_known = are_arrays(others) if found.kind == "similarity" else not others
    return are_known and is_named


def _remove_empty(place: Place, names: tuple[str, ...]) -> None:
    """Remove the folders above a file that hold nothing at all."""
    for n in range(len(names), 0, -1):
        folder = place.joinpath(*names[:n])
        if not isinstance(folder, Path) or entry_names(folder):
            return
        folder.rmdir()


def _remove_emptied(place: Place, names: tuple[str, ...]) -> None:
    """Remove the folders above a group that hold nothing but their own metadata."""
    for n in range(len(names), 0, -1):
        folder = place.joinpath(*names[:n])
        if set(entry_names(folder)) - {NODE}:
            return
        metadata = folder / NODE
        content = metadata.read_bytes() if metadata.exists() else None
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
