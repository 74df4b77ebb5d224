"""Which tap the folders of a store are of."""

from contextlib import suppress
from typing import Any, Final

from store.arrays.activations import ACTIVATIONS
from store.arrays.committed import Form
from store.arrays.grams import GRAMS
from store.errors import StoreError
from store.model.names import TAP_DEPTH, shown, tap_name
from store.model.schema import GramKey
from store.storage.paths import Place, child_names
from store.zarrfiles.metadata_files import read_attributes

_FORMS: Final[tuple[Form[Any], ...]] = (ACTIVATIONS, GRAMS)


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
        for form in _FORMS:
            with suppress(StoreError):
                key = form.from_json((read_attributes(group) or {}).get(form.mark)).key
                of = key.of if isinstance(key, GramKey) else key
                if of.path == "/".join(parts):
                    return str(of.tap)
    return shown(parts[-1])
