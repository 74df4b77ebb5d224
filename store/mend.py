"""Write again what a store's folders say of themselves, where that is known without any data."""

from store.layout import STORE_MARK, Kind
from store.nodes import write_folder
from store.place import Place, check_inside
from store.schema import SCHEMA_VERSION


def mend_folder(root: Place, kind: Kind, path: str) -> None:
    """Write the metadata of a store's root, or of a folder above representations, again.

    Raises StoreLocationError where a symbolic link leads from the store to somewhere outside.
    """
    folder = root / path if path else root
    check_inside(root, folder)
    mark = {"kind": kind, "schema_version": SCHEMA_VERSION}
    attributes = {} if path else {STORE_MARK: mark}
    write_folder(folder, attributes)
