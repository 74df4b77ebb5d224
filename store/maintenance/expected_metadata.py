"""What the metadata of groups and arrays must say, checked to the last word.

Reading needs less, and takes arrays that others wrote again in other chunks. No flipped bit may
pass: that of a dimension's name, say, which xarray would show.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from store.arrays.committed import ArrayForm
from store.model.strict_json import parse
from store.storage.paths import Place
from store.zarrfiles.chunk_files import CHUNK_KEYS, CODECS
from store.zarrfiles.metadata_files import MISSING, NODE, PREFIX

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


def read_node(folder: Place) -> dict[str, Any] | str | None:
    """Return the metadata of a Zarr node, why they are unreadable, or None where there are none."""
    try:
        node = parse((folder / NODE).read_bytes(), constants=True)
    except MISSING:
        return None
    except ValueError as error:
        return f"its {NODE} is unreadable: {error}"
    return node if isinstance(node, dict) else f"its {NODE} is no JSON object"


def group_problem(node: Mapping[str, Any], known: frozenset[str]) -> str | None:
    """Return what is wrong with a group's metadata, beside the values of its attributes.

    ``known`` are names of attributes that we write there: no other may look like ours.
    """
    for name, wanted in _GROUP.items():
        if node.get(name) != wanted:
            return f"its {name} is {node.get(name)!r}, not {wanted!r}"
    odd = sorted(set(node) - _GROUP_FIELDS)
    if odd:
        return f"{odd[0]!r} is no field of a group"
    attributes = node.get("attributes", {})
    if not isinstance(attributes, dict):
        return "its attributes are no JSON object"
    # A seal under another name than its own would not be looked at.
    odd = sorted(
        name
        for name, value in attributes.items()
        if name not in known and (name.startswith(PREFIX) or _is_digest(value))
    )
    return f"no store wrote its attribute {odd[0]!r}" if odd else None


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and DIGEST.fullmatch(value) is not None


def array_problem(folder: Place, form: ArrayForm) -> str | None:
    """Return what is wrong with an array's metadata, beside the sizes of its chunks."""
    node, name = read_node(folder), folder.name
    if not isinstance(node, dict):
        reason = f"it has no {NODE}" if node is None else node
        return f"array {name!r}: {reason}"
    wanted = _prescribed(form)
    odd = sorted((set(node) ^ {*wanted, "chunk_grid", "codecs"}) - set(_MAY_LACK))
    if odd:
        return f"array {name!r}: {odd[0]!r} is {'unknown' if odd[0] in node else 'missing'}"
    for field, value in wanted.items():
        found = node.get(field, _MAY_LACK.get(field))
        if not _agree(field, found, value):
            return f"array {name!r}: {field} is {found!r}, not {value!r}"
    chains = _TEXT_CHAINS if form.dtype == TEXT else _CHAINS
    if not any(_same(node["codecs"], chain) for chain in chains):
        return f"array {name!r}: no store of ours has the codecs {node['codecs']!r}"
    return _grid_problem(node["chunk_grid"], name, len(form.shape))


def chunk_problem(folder: Place, form: ArrayForm) -> str | None:
    """Return how an array's chunks differ from its form where no more is wrong with it."""
    node = read_node(folder)
    assert isinstance(node, dict)
    found, wanted = node["chunk_grid"]["configuration"]["chunk_shape"], list(form.chunks)
    return None if found == wanted else f"array {folder.name!r}: chunks are {found}, not {wanted}"


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


def _agree(field: str, found: object, wanted: Any) -> bool:
    if field == "attributes" and isinstance(found, dict):
        # Others may add their own.
        return all(found.get(name) == value for name, value in wanted.items())
    return _same(found, wanted)


def _same(found: object, wanted: object) -> bool:
    # For Python true is 1, and 10.0 is 10; in JSON they are not what was written.
    return json.dumps(found, sort_keys=True) == json.dumps(wanted, sort_keys=True)


def _grid_problem(grid: Any, name: str, n_axes: int) -> str | None:
    try:
        sizes = grid["configuration"]["chunk_shape"]
        regular = grid == {"name": "regular", "configuration": {"chunk_shape": sizes}}
    except (KeyError, TypeError):
        sizes, regular = None, False
    if regular and isinstance(sizes, list) and len(sizes) == n_axes:
        if all(type(size) is int and size > 0 for size in sizes):
            return None
    return f"array {name!r}: chunk_grid is {grid!r}, not a regular one of {n_axes} axes"
