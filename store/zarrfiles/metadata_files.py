"""Read and write Zarr's metadata files: opening a node by Zarr itself costs ten times as much."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import google_crc32c

from store.errors import DamagedChunkError, SchemaError, unreadable
from store.model.strict_json import parse
from store.storage.paths import Place, read_bytes, write_json
from store.storage.remote_errors import reaching

NODE: Final = "zarr.json"
SEAL: Final = "allcnn_seal"
"""Attribute of a group: a digest of its other attributes of ours."""

PREFIX: Final = "allcnn_"
"""Attributes that begin so are ours."""

MISSING: Final = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
"""Errors of reading a file where there is none."""


@dataclass(frozen=True)
class ArrayNode:
    """How Zarr's metadata say that an array is stored."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: str
    codecs: tuple[Mapping[str, Any], ...]
    chunk_keys: Mapping[str, Any]
    dimensions: tuple[str | None, ...]

    @property
    def codec_names(self) -> tuple[str, ...]:
        """Names of the codecs, the outermost last."""
        return tuple(str(codec["name"]) for codec in self.codecs)


def read_attributes(folder: Place) -> dict[str, Any] | None:
    """Return the attributes of a group, or None where there is no group.

    Raises SchemaError for metadata that are no JSON of Zarr v3, and DamagedChunkError where
    attributes of ours are not those that were sealed.
    """
    node = _read(folder)
    if node is None or node.get("node_type") != "group":
        return None
    attributes = node.get("attributes", {})
    if not isinstance(attributes, dict):
        raise _unreadable(folder, "its attributes are no JSON object")
    stored = attributes.get(SEAL)
    if stored is not None and stored != seal(attributes):
        reason = f"digest {seal(attributes)}, sealed {stored}"
        remedy = unreadable("that folder", "write")
        raise DamagedChunkError.of(f"the metadata of {folder}", reason, remedy)
    return attributes


def write_folder(folder: Place, attributes: Mapping[str, Any] | None = None) -> None:
    """Write the metadata of a root, or of a folder above groups, as Zarr does: without a seal."""
    node = {"attributes": dict(attributes or {}), "zarr_format": 3, "node_type": "group"}
    write_json(folder / NODE, node)


def write_attributes(folder: Place, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Write a group's metadata, whole or not at all; return its attributes with their seal."""
    sealed = dict(attributes) | {SEAL: seal(attributes)}
    write_json(folder / NODE, {"zarr_format": 3, "node_type": "group", "attributes": sealed})
    return sealed


def seal(attributes: Mapping[str, Any]) -> str:
    """Return the digest of the attributes of ours: others may add their own."""
    ours = {k: v for k, v in attributes.items() if k.startswith(PREFIX) and k != SEAL}
    text = json.dumps(ours, sort_keys=True, separators=(",", ":"))
    return f"crc32c:{google_crc32c.value(text.encode('ascii')):08x}"


def read_array(folder: Place) -> ArrayNode | None:
    """Return how an array is stored, or None where there is no array.

    Raises SchemaError for metadata that are no JSON of Zarr v3.
    """
    node = _read(folder)
    if node is None or node.get("node_type") != "array":
        return None
    try:
        return ArrayNode(
            shape=_sizes(node["shape"], 0),
            chunks=_sizes(node["chunk_grid"]["configuration"]["chunk_shape"], 1),
            dtype=str(node["data_type"]),
            # A codec that is no object, or has no name, raises here.
            codecs=tuple({**codec, "name": codec["name"]} for codec in node["codecs"]),
            chunk_keys=node["chunk_key_encoding"],
            dimensions=tuple(node.get("dimension_names") or [None] * len(node["shape"])),
        )
    except (KeyError, TypeError) as error:
        raise _unreadable(folder, f"{error!r} in its metadata") from error


def _sizes(values: Any, least: int) -> tuple[int, ...]:
    # Zarr divides by the sizes of chunks, and counts on finding as many as axes.
    if not all(type(size) is int and size >= least for size in values):
        raise TypeError(f"{values!r} for sizes")
    return tuple(values)


def _read(folder: Place) -> dict[str, Any] | None:
    content = None
    with reaching(folder / NODE), suppress(*MISSING):
        content = read_bytes(folder / NODE)
    if content is None:
        return None
    try:
        # Other programs write attributes such as a fill value of NaN.
        node = parse(content, constants=True)
    except ValueError as error:
        raise _unreadable(folder, str(error)) from error
    if not isinstance(node, dict) or node.get("zarr_format") != 3:
        raise _unreadable(folder, "they are not those of Zarr v3")
    return node


def _unreadable(folder: Place, reason: str) -> SchemaError:
    found = f"has unreadable metadata ({reason})"
    return SchemaError(str(folder), found, remedy=unreadable("that folder", "write"))
