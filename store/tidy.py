"""Remove what a store holds: whole groups, and what kills left behind.

A group's metadata go first. From then on it is no group: nobody reads it, and a writer starts it
afresh, so that a kill in the middle leaves neither a damaged nor an unfinished one.
"""

from dataclasses import fields
from pathlib import Path
from typing import Final

from store.activations import ACTIVATIONS
from store.claim import is_claimed
from store.errors import ClaimedError, StoreError, StoreLocationError
from store.grams import GRAMS
from store.layout import Kind, is_leftover
from store.place import Place, is_remote, remove_tree
from store.results import SimilarityResult, has_result
from store.schema import is_component
from store.usage import DEPTHS, Usage, committed, networks

_METADATA: Final = "zarr.json"

_MEMBERS: Final[dict[Kind, set[str]]] = {
    "activations": {_METADATA, "sample", "label", ACTIVATIONS.array},
    "grams": {_METADATA, "sample", "label", GRAMS.array},
    "similarity": {_METADATA, "row", "column", *(f.name for f in fields(SimilarityResult))},
}
"""What a group's folder can hold: a folder with anything else was not written by a store."""


def remove(place: Place, found: Usage) -> None:
    """Remove a group, or a file that a kill left, and the folders that this empties.

    Raises ClaimedError where a living writer holds it, StoreLocationError where a symbolic link
    leads to it, which is never followed, or the disk refuses.
    """
    check_removable(place, found)
    target = place / found.path
    try:
        if found.is_file:
            target.unlink(missing_ok=True)
            _remove_empty(place, found.names[:-1])
        else:
            (target / _METADATA).unlink(missing_ok=True)
            if target.exists():
                remove_tree(target)
            _remove_emptied(place, found.names[:-1])
    except OSError as error:
        raise StoreLocationError(
            f"cannot remove {target}: {error.strerror or error}; mend it and run again, which"
            " removes what is left"
        ) from error


def check_removable(place: Place, found: Usage) -> None:
    """Raise the error by which ``remove`` would refuse, and remove nothing."""
    for n in range(1, len(found.names) + 1):
        step = place.joinpath(*found.names[:n])
        if step.is_symlink():
            raise StoreLocationError(
                f"{step} is a symbolic link, which no store makes; remove the link itself, and"
                " what it points to if that is wanted"
            )
    if is_held(place, found):
        raise ClaimedError(
            f"{place / found.group} is being written; wait for that, or stop it, and remove it then"
        )


def is_held(place: Place, found: Usage) -> bool:
    """Return whether a living writer holds the group that this is, or lies in."""
    is_inside = len(found.names) >= DEPTHS[found.kind]
    return found.kind != "similarity" and is_inside and is_claimed(place / found.group)


def abandoned(place: Place, found: list[Usage], before: float) -> list[Usage]:
    """Return what nobody goes on with, of all that ``measure`` found.

    Unfinished and half-made groups, half-removed ones, drafts of results and what kills left of
    single files, unless they changed at ``before`` or later, or a living writer holds them. What
    no store wrote is left alone, and so are the groups of a network of which one is damaged.
    """
    old = [each for each in found if each.changed < before]
    leftovers = [each for each in old if each.is_file and is_leftover(each.names[-1])]
    unfinished = [each for each in found if not each.is_file and each.kind == "similarity"]
    unfinished = [each for each in unfinished if _is_draft(place, each)]
    for network, groups in networks([each for each in found if each.kind != "similarity"]):
        unfinished += _unfinished(place, network, groups)
    old_paths = {each.path for each in old}
    wanted = [*leftovers, *(each for each in unfinished if each.path in old_paths)]
    return [each for each in wanted if not is_held(place, each)]


def _unfinished(place: Place, network: tuple[str, ...], groups: list[Usage]) -> list[Usage]:
    opened = committed(place, groups[0].kind, network)
    if opened is None:
        return []
    return [
        each
        for each in groups
        if (not opened[each.path].complete if each.path in opened else _is_ours(each))
    ]


def _is_draft(place: Place, found: Usage) -> bool:
    name = found.path
    if name.startswith(".") and name.endswith((".partial", ".replaced")):
        return True
    try:
        return _is_ours(found) and not has_result(place, name)
    except StoreError:
        return False  # damaged, not unfinished


def _is_ours(found: Usage) -> bool:
    return found.members <= _MEMBERS[found.kind] and all(map(is_component, found.names))


def _remove_empty(place: Place, names: tuple[str, ...]) -> None:
    for n in range(len(names), 0, -1):
        folder = place.joinpath(*names[:n])
        if is_remote(folder) or any(folder.iterdir()):
            return
        folder.rmdir()


def _remove_emptied(place: Place, names: tuple[str, ...]) -> None:
    """Remove the folders above a group that hold nothing but their own metadata."""
    for n in range(len(names), 0, -1):
        folder = place.joinpath(*names[:n])
        if not folder.exists():
            continue
        if {child.name for child in folder.iterdir()} - {_METADATA}:
            return
        metadata = folder / _METADATA
        content = metadata.read_bytes() if metadata.exists() else None
        metadata.unlink(missing_ok=True)
        if is_remote(folder):
            continue  # there are no folders, only names that begin alike
        try:
            Path(folder).rmdir()
        except OSError:
            # A writer has made a group there in the meantime.
            if content is not None:
                metadata.write_bytes(content)
            return
