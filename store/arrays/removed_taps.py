"""Which taps of a network were removed on purpose: noted beside the others by their folders."""

from typing import Any, Final

from store.errors import StoreError
from store.model.names import is_tap_folder
from store.storage.paths import Place, child_names
from store.zarrfiles.metadata_files import read_attributes, write_folder

REMOVED: Final = "allcnn_removed"
"""Attribute of the folder of a network: names of folders of taps."""


def removed_taps(network: Place) -> set[str]:
    """Return the folders that were removed from a network's and are not there again."""
    return _noted(_attributes(network)) - set(child_names(network, is_tap_folder))


def note_removed(network: Place, tap: str, is_removed: bool = True) -> None:
    """Note that a tap is removed on purpose, or no longer is; nothing without readable metadata."""
    attributes = _attributes(network)
    noted = _noted(attributes)
    left = noted | {tap} if is_removed else noted - {tap}
    if attributes is not None and left != noted:
        others = {name: value for name, value in attributes.items() if name != REMOVED}
        write_folder(network, others | ({REMOVED: sorted(left)} if left else {}))


def _attributes(network: Place) -> dict[str, Any] | None:
    try:
        return read_attributes(network)
    except StoreError:  # damaged, which verification reports
        return None


def _noted(attributes: dict[str, Any] | None) -> set[str]:
    found = (attributes or {}).get(REMOVED)
    return {name for name in found if isinstance(name, str)} if isinstance(found, list) else set()
