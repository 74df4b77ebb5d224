"""Write again what a store's folders say of themselves, where that is known without any data."""

from store.model.schema import SCHEMA_VERSION
from store.storage.paths import Place, check_inside
from store.zarrfiles.layout import STORE_MARK, Kind
from store.zarrfiles.metadata_files import write_folder


def mend_folder(root: Place, kind: Kind, path: str) -> None:
    """Write the metadata of a store's root, or of a folder above representations, again.

    Raises StoreLocationError where a symbolic link leads from the store to somewhere outside.
    """
    folder = root / path if path else root
    check_inside(root, folder)
    mark = {"kind": kind, "schema_version": SCHEMA_VERSION}
    attributes = {} if path else {STORE_MARK: mark}
    write_folder(folder, attributes)
