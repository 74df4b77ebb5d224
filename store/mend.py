"""Write again what a store's folders say of themselves, where that is known without any data."""

from store.layout import STORE_MARK, Kind
from store.nodes import NODE
from store.place import Place, write_json
from store.schema import SCHEMA_VERSION


def mend_folder(root: Place, kind: Kind, path: str) -> None:
    """Write the metadata of a store's root, or of a folder above representations, again."""
    mark = {"kind": kind, "schema_version": SCHEMA_VERSION}
    attributes = {} if path else {STORE_MARK: mark}
    # As Zarr writes them: folders of groups have no seal.
    node = {"attributes": attributes, "zarr_format": 3, "node_type": "group"}
    write_json(root / path / NODE if path else root / NODE, node)
