"""Write again what a store's folders say of themselves, which is known without any data."""

from store.model.schema import SCHEMA_VERSION
from store.storage.paths import Place, check_inside
from store.zarrfiles.layout import STORE_MARK, Kind
from store.zarrfiles.metadata_files import write_folder


def restore_folder(root: Place, kind: Kind, path: str) -> None:
    """Write the metadata of a store's root, or of a folder above representations, again.

    Raises StoreLocationError where a symbolic link leads from the store to somewhere outside.
    """
    folder = root / path if path else root
    check_inside(root, folder)
    mark = {STORE_MARK: {"kind": kind, "schema_version": SCHEMA_VERSION}}
    write_folder(folder, {} if path else mark)
