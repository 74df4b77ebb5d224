"""Which taps of a network were removed on purpose: noted beside the others by their folders."""

from collections.abc import Iterator
from typing import Any, Final

from store.errors import StoreError
from store.model.names import is_tap_folder
from store.storage.paths import Place, child_names
from store.zarrfiles.metadata_files import read_attributes, write_folder

REMOVED: Final = "allcnn_removed"
"""Attribute of the folder of a network: names of folders of taps."""


def removed_taps(network: Place) -> set[str]:
    """Return the folders that were removed from a network's and are not there again."""
    return set(_noted(_attributes(network))) - set(child_names(network, is_tap_folder))


def note_removed(network: Place, tap: str) -> None:
    """Note that a tap is removed on purpose; nothing where the folder tells of no others."""
    attributes = _attributes(network)
    noted = {*_noted(attributes), tap}
    if attributes is not None and noted != {*_noted(attributes)}:
        write_folder(network, attributes | {REMOVED: sorted(noted)})


def note_made(network: Place, tap: str) -> None:
    """Take back that a tap was removed, now that it is written again."""
    attributes = _attributes(network)
    noted = {*_noted(attributes)}
    if attributes is not None and tap in noted:
        others = {name: value for name, value in attributes.items() if name != REMOVED}
        left = sorted(noted - {tap})
        write_folder(network, others | ({REMOVED: left} if left else {}))


def _attributes(network: Place) -> dict[str, Any] | None:
    try:
        return read_attributes(network)
    except StoreError:  # damaged, which verification tells
        return None


def _noted(attributes: dict[str, Any] | None) -> Iterator[str]:
    found = (attributes or {}).get(REMOVED)
    yield from (name for name in found if isinstance(name, str)) if isinstance(found, list) else ()
