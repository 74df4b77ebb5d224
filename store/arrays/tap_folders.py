"""Folders of taps: which tap one is of, and which were removed from a network on purpose."""

from contextlib import suppress
from typing import Any, Final

from store.errors import StoreError
from store.model.names import TAP_DEPTH, is_tap_folder, shown, tap_name
from store.model.schema import GramKey, GramMeta, RepresentationMeta
from store.storage.paths import Place, child_names
from store.zarrfiles.layout import GRAM_META, META
from store.zarrfiles.metadata_files import read_attributes, write_folder

REMOVED: Final = "allcnn_removed"
"""Attribute of the folder of a network: names of folders of taps."""

_METADATA: Final = {META: RepresentationMeta.from_json, GRAM_META: GramMeta.from_json}


def tap_at(root: Place, path: str) -> str:
    """Return the name of the tap that a folder, or what is in it, is of.

    The metadata have the name where the folder's is cut; where they are damaged, too, it is
    shortened.
    """
    parts = path.split("/")[: TAP_DEPTH + 1]
    name, folder = tap_name(parts[-1]), root.joinpath(*parts)
    if name is not None:
        return name
    for group in (folder, *(folder / variant for variant in child_names(folder))):
        attributes = _attributes(group) or {}
        for mark, from_json in _METADATA.items():
            with suppress(StoreError):
                key = from_json(attributes.get(mark)).key
                of = key.of if isinstance(key, GramKey) else key
                if of.path == "/".join(parts):
                    return of.tap
    return shown(parts[-1])


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
