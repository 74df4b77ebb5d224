"""The metadata that groups and arrays must have, checked to the last word.

Reading needs less, and takes arrays that others wrote again in other chunks. No flipped bit may
pass, such as one in a dimension's name, which xarray would show.
"""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import numpy as np

from store.arrays.committed import ArrayForm
from store.errors import SchemaError
from store.model.schema import SCHEMA_VERSION
from store.model.strict_json import parse
from store.storage.paths import Place, check_inside
from store.zarrfiles.chunk_files import CHUNK_KEYS, CODECS
from store.zarrfiles.layout import STORE_MARK, Kind
from store.zarrfiles.metadata_files import MISSING, NODE, PREFIX, SEAL, write_folder

DIGEST: Final = re.compile(r"crc32c:[0-9a-f]{8}")
TEXT: Final = np.dtypes.StringDType()

_GROUP: Final = {"zarr_format": 3, "node_type": "group"}
_GROUP_FIELDS: Final = {*_GROUP, "attributes", "consolidated_metadata"}
_MAY_LACK: Final[dict[str, Any]] = {"attributes": {}, "storage_transformers": []}
_ZSTD: Final = {"name": "zstd", "configuration": {"level": 1, "checksum": False}}
_CHAINS: Final = (CODECS, (CODECS[0], _ZSTD, CODECS[1]))
_UTF8: Final = {"name": "vlen-utf8", "configuration": {}}
_TEXT_CHAINS: Final = (
    (_UTF8, CODECS[1]),
    # As earlier versions wrote them.
    (_UTF8, {"name": "zstd", "configuration": {"level": 0, "checksum": False}}),
)


def restore_folder(root: Place, kind: Kind, path: str) -> None:
    """Write the metadata of a store's root, or of a folder above representations, again.

    Raises StoreLocationError where a symbolic link leads from the store to somewhere outside.
    """
    check_inside(root, root / path)
    mark = {STORE_MARK: {"kind": kind, "schema_version": SCHEMA_VERSION}}
    write_folder(root / path, {} if path else mark)


class NoMetadataError(SchemaError):
    """A folder has no file of metadata."""


def read_node(folder: Place) -> dict[str, Any]:
    """Return the metadata of a Zarr node.

    Raises SchemaError where they are unreadable, NoMetadataError where they are missing.
    """
    try:
        node = parse((folder / NODE).read_bytes(), constants=True)
    except MISSING as error:
        raise NoMetadataError(f"it has no {NODE}") from error
    except ValueError as error:
        raise SchemaError(f"its {NODE} is unreadable: {error}") from error
    if not isinstance(node, dict):
        raise SchemaError(f"its {NODE} is no JSON object")
    return node


def check_group(folder: Place, *known: str) -> None:
    """Raise SchemaError for a group's metadata, apart from the values of its attributes.

    ``known`` are names of attributes that we write there, besides the seal: no other may look like
    ours.
    """
    node = read_node(folder)
    for name, wanted in _GROUP.items():
        if node.get(name) != wanted:
            raise SchemaError(f"its {name} is {node.get(name)!r}, not {wanted!r}")
    if odd := sorted(set(node) - _GROUP_FIELDS):
        raise SchemaError(f"{odd[0]!r} is no field of a group")
    attributes = node.get("attributes", {})
    if not isinstance(attributes, dict):
        raise SchemaError("its attributes are no JSON object")
    # A seal under another name than its own would not be looked at.
    for name in sorted(attributes.keys() - {SEAL, *known}):
        value = attributes[name]
        is_digest = isinstance(value, str) and DIGEST.fullmatch(value)
        if is_digest or name.startswith(PREFIX):
            raise SchemaError(f"no store wrote its attribute {name!r}")


def check_array(folder: Place, form: ArrayForm, *, chunks: bool = True) -> None:
    """Raise SchemaError for an array's metadata, sizes of ``chunks`` included or not."""
    try:
        _check_node(read_node(folder), form, chunks)
    except SchemaError as error:
        raise SchemaError(f"array {folder.name!r}: {error.finding}") from error


def _check_node(node: Mapping[str, Any], form: ArrayForm, chunks: bool) -> None:
    wanted = _prescribed(form)
    odd = sorted((set(node) ^ {*wanted, "chunk_grid", "codecs"}) - set(_MAY_LACK))
    if odd:
        raise SchemaError(f"{odd[0]!r} is {'unknown' if odd[0] in node else 'missing'}")
    for field, value in wanted.items():
        found = node.get(field, _MAY_LACK.get(field))
        ours = found
        if field == "attributes" and isinstance(found, dict):  # others may add their own
            ours = {key: each for key, each in found.items() if key in value}
        if not _same(ours, value):
            raise SchemaError(f"{field} is {found!r}, not {value!r}")
    chains = _TEXT_CHAINS if form.dtype == TEXT else _CHAINS
    if not any(_same(node["codecs"], chain) for chain in chains):
        raise SchemaError(f"no store of ours has the codecs {node['codecs']!r}")
    grid, n_axes = node["chunk_grid"], len(form.shape)
    sizes: Any = None
    with suppress(KeyError, TypeError):
        sizes = grid["configuration"]["chunk_shape"]
    are_sizes = isinstance(sizes, list) and all(type(n) is int and n > 0 for n in sizes)
    is_regular = grid == {"name": "regular", "configuration": {"chunk_shape": sizes}}
    if not (is_regular and are_sizes and len(sizes) == n_axes):
        raise SchemaError(f"chunk_grid is {grid!r}, not a regular one of {n_axes} axes")
    if chunks and sizes != list(form.chunks):
        raise SchemaError(f"chunks are {sizes}, not {list(form.chunks)}")


def _prescribed(form: ArrayForm) -> dict[str, Any]:
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(form.shape),
        "data_type": "string" if form.dtype == TEXT else form.dtype.name,
        "chunk_key_encoding": CHUNK_KEYS,
        "fill_value": {"f": "NaN", "i": 0, "T": ""}[form.dtype.kind],
        "dimension_names": list(form.dimensions),
        "attributes": dict(form.attributes),
        "storage_transformers": [],
    }


def _same(found: object, wanted: object) -> bool:
    # For Python true is 1, and 10.0 is 10; in JSON they are not what was written.
    return json.dumps(found, sort_keys=True) == json.dumps(wanted, sort_keys=True)
