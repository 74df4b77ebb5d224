"""Which tap the folders of a store are of."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

from store.arrays.activations import ACTIVATIONS
from store.arrays.committed import Form
from store.arrays.grams import GRAMS
from store.errors import StoreError
from store.model.names import TAP_DEPTH, shown, tap_name
from store.model.schema import GramKey, RepresentationKey
from store.storage.paths import Place, child_names
from store.zarrfiles.metadata_files import read_attributes

_FORMS: Final[tuple[Form[Any], ...]] = (ACTIVATIONS, GRAMS)


def tap_at(root: Place, path: str) -> str:
    """Return the name of the tap that a folder, or what is in it, is of.

    The metadata have the name where the folder's is cut; where they are damaged, too, it is
    shortened.
    """
    parts = path.split("/")[: TAP_DEPTH + 1]
    name = tap_name(parts[-1])
    if name is not None:
        return name
    folder = "/".join(parts)
    found = (key.tap for key in _keys(root / folder) if key.path == folder)
    return next(found, shown(parts[-1]))


def _keys(folder: Place) -> Iterator[RepresentationKey]:
    """Yield the representations of which a tap's folder has activations or Grams."""
    for group in (folder, *(folder / variant for variant in child_names(folder))):
        for form in _FORMS:
            with suppress(StoreError):
                attributes = read_attributes(group) or {}
                if form.mark in attributes:
                    key = form.from_json(attributes[form.mark]).key
                    yield key.of if isinstance(key, GramKey) else key
