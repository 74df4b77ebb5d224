"""A reader of stores that follows docs/layout.md and nothing else: Python's standard library only.

`python -I -S tests/plain_reader.py FOLDER` prints as JSON what a folder of three stores holds,
every checksum, digest and seal verified. It is written to be read beside the page, not to be fast.
"""

import hashlib
import json
import math
import re
import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

VERSIONS = (1, 2, 3, 4)
FORMATS = {"float16": "e", "float32": "f", "float64": "d", "int32": "i", "int64": "q"}
KEPT = "abcdefghijklmnopqrstuvwxyz0123456789_"
DEPTHS = {"activations": 4, "grams": 5, "similarity": 1}

Decoder = Callable[[bytes], bytes]


class DamageError(Exception):
    """Something is not what was written."""


def read_activations(root: Path, path: str, decoders: Mapping[str, Decoder]) -> dict[str, Any]:
    """Return the committed rows of one representation, with their samples and labels."""
    attributes = group_attributes(root / path)
    meta, commits = attributes["allcnn_representation"], attributes["allcnn_commits"]
    rows = read_committed(root / path / "activations", commits, decoders)
    shape = [len_of(commits), *meta["shape"]]
    return {
        "shape": shape,
        "complete": shape[0] == meta["sample_set"]["n_samples"],
        "values": unpacked(rows, meta["dtype"]),
        **read_coordinates(root / path, attributes["allcnn_coordinates"], decoders),
    }


def read_grams(root: Path, path: str, decoders: Mapping[str, Decoder]) -> dict[str, Any]:
    """Return the committed Gram of each minibatch as a list of rows."""
    attributes = group_attributes(root / path)
    meta, commits = attributes["allcnn_grams"], attributes["allcnn_commits"]
    sizes = [stop - start for start, stop in meta["ranges"]]
    width = triangle(max(sizes))
    dtype = meta.get("precision", "float32")
    values = unpacked(read_committed(root / path / "grams", commits, decoders), dtype)
    return {
        "grams": [
            square(values[i * width : i * width + triangle(n)], n)
            for i, n in enumerate(sizes[: len_of(commits)])
        ],
        # "nan" and "inf" are texts, since JSON has neither.
        "median_distance": attributes.get("allcnn_median"),
        **read_coordinates(root / path, attributes["allcnn_coordinates"], decoders),
    }


def read_result(root: Path, path: str, decoders: Mapping[str, Decoder]) -> dict[str, Any]:
    """Return the record of a result, and its arrays as flat lists."""
    attributes = group_attributes(root / path)
    arrays = {}
    for name, digest in attributes["allcnn_digests"].items():
        node, content = read_array(root / path / name, decoders)
        check(f"{path}/{name}", digest, content)
        arrays[name] = unpacked(content, node["data_type"])
    return {"record": attributes["allcnn_result"], "arrays": arrays}


READERS = {"activations": read_activations, "grams": read_grams, "similarity": read_result}
MARKS = {
    "activations": "allcnn_representation",
    "grams": "allcnn_grams",
    "similarity": "allcnn_result",
}


def read_store(root: Path, kind: str, decoders: Mapping[str, Decoder]) -> dict[str, Any]:
    """Return everything that a store holds, by its names."""
    mark = group_attributes(root)["allcnn_store"]
    if mark["kind"] != kind or mark["schema_version"] not in VERSIONS:
        raise ValueError(f"{root} is {mark}")
    found = {}
    for path in paths(root, DEPTHS[kind]):
        attributes = group_attributes(root / path)
        if MARKS[kind] in attributes:
            name = name_of(attributes[MARKS[kind]], path)
            found[name] = READERS[kind](root, path, decoders)
    return found


def name_of(record: Mapping[str, Any], path: str) -> str:
    """Return what a group is called: sample set, run, checkpoint and tap, or its own name."""
    key = record["name"] if "name" in record else record["key"]
    text = key["of"] if isinstance(key, dict) else key
    *above, tap = text.split("/", 3)
    folders = [*above, folder_of(tap)] if above else [tap]
    variant = path.split("/")[len(folders) :]
    if path != "/".join([*folders, *variant]):
        raise DamageError(f"{path} holds {text}")
    return "/".join([text, *variant])


def folder_of(tap: str) -> str:
    """Return the name of a tap's folder."""
    plain = re.fullmatch("[A-Za-z0-9][A-Za-z0-9_.-]{0,199}", tap)
    if plain and ".." not in tap and tap != "zarr.json":
        return tap
    letters = [
        "".join(chr(b) if chr(b) in KEPT else f"-{b:02x}" for b in letter.encode())
        for letter in tap
    ]
    if len("".join(letters)) <= 198:
        return "_-" + "".join(letters)
    while len("".join(letters)) > 164:
        letters.pop()
    return f"_-{''.join(letters)}--{hashlib.sha256(tap.encode()).hexdigest()[:32]}"


def paths(folder: Path, depth: int) -> Iterator[str]:
    """Return the paths of the groups at a depth, those names left out that no key can have."""
    for child in sorted(folder.iterdir()):
        if child.is_dir() and child.name[0] in KEPT + "ABCDEFGHIJKLMNOPQRSTUVWXYZ":
            if depth == 1:
                yield child.name
            else:
                yield from (f"{child.name}/{path}" for path in paths(child, depth - 1))


def group_attributes(folder: Path) -> dict[str, Any]:
    """Return the attributes of a group whose seal, if it has one, is right; none of no group."""
    if not (folder / "zarr.json").exists():
        return {}
    node = json.loads((folder / "zarr.json").read_bytes())
    if (node["zarr_format"], node["node_type"]) != (3, "group"):
        raise ValueError(f"{folder} is no group")
    attributes: dict[str, Any] = node.get("attributes", {})
    if "allcnn_seal" in attributes:
        check(f"metadata of {folder}", attributes["allcnn_seal"], sealed_text(attributes))
    return attributes


def sealed_text(attributes: Mapping[str, Any]) -> bytes:
    """Return the text that a group's seal is the digest of."""
    ours = {k: v for k, v in attributes.items() if k.startswith("allcnn_") and k != "allcnn_seal"}
    return json.dumps(ours, sort_keys=True, separators=(",", ":")).encode("ascii")


def read_coordinates(
    group: Path, digests: Mapping[str, str], decoders: Mapping[str, Decoder]
) -> dict[str, list[int]]:
    found = {}
    for name in ("sample", "label"):
        node, content = read_array(group / name, decoders)
        check(f"{group}/{name}", digests[name], content)
        found[f"{name}s"] = unpacked(content, node["data_type"])
    return found


def read_committed(
    array: Path, commits: list[dict[str, Any]], decoders: Mapping[str, Decoder]
) -> bytes:
    """Return the bytes of the committed part, the digest of each commit verified."""
    n = len_of(commits)
    node, content = read_array(array, decoders, n)
    row_bytes = math.prod(node["shape"][1:]) * size_of(node["data_type"])
    for commit in commits:
        block = content[commit["start"] * row_bytes : commit["stop"] * row_bytes]
        check(f"{array}, {commit}", commit["digest"], block)
    return content


def read_array(
    folder: Path, decoders: Mapping[str, Decoder], length: int | None = None
) -> tuple[dict[str, Any], bytes]:
    """Return an array's metadata and its values in C order, or those of its first ``length``."""
    node = json.loads((folder / "zarr.json").read_bytes())
    shape = [node["shape"][0] if length is None else length, *node["shape"][1:]]
    chunk = node["chunk_grid"]["configuration"]["chunk_shape"]
    size = size_of(node["data_type"])
    content = bytearray(math.prod(shape) * size)
    for index in product(*(range(-(-n // c)) for n, c in zip(shape, chunk, strict=True))):
        file = folder.joinpath("c", *map(str, index))
        if not file.exists() and node["fill_value"] == 0:
            continue
        values = decoded(file, node["codecs"], decoders)
        if len(values) != math.prod(chunk) * size:
            raise DamageError(f"{file} has {len(values)} bytes")
        copy_chunk(values, chunk, index, content, shape, size)
    return node, bytes(content)


def copy_chunk(
    values: bytes,
    chunk: list[int],
    index: tuple[int, ...],
    into: bytearray,
    shape: list[int],
    size: int,
) -> None:
    """Copy what of a chunk lies inside of the array, a run of the last axis at a time."""
    first = [i * c for i, c in zip(index, chunk, strict=True)]
    inside = [min(c, n - f) for c, n, f in zip(chunk, shape, first, strict=True)]
    run = inside[-1] * size
    for position in product(*map(range, inside[:-1])):
        source = flat([*position, 0], chunk) * size
        target = flat([f + p for f, p in zip(first, [*position, 0], strict=True)], shape) * size
        into[target : target + run] = values[source : source + run]


def flat(position: list[int], shape: list[int]) -> int:
    place = 0
    for p, n in zip(position, shape, strict=True):
        place = place * n + p
    return place


def decoded(file: Path, codecs: list[dict[str, Any]], decoders: Mapping[str, Decoder]) -> bytes:
    """Undo the codecs of a chunk, the last one first."""
    if not file.exists():
        raise DamageError(f"{file} is missing")
    content = file.read_bytes()
    for codec in reversed(codecs):
        if codec["name"] == "crc32c":
            content, stored = content[:-4], content[-4:]
            if crc32c(content).to_bytes(4, "little") != stored:
                raise DamageError(f"{file} has a wrong checksum")
        elif codec["name"] == "bytes":
            if codec.get("configuration", {"endian": "little"}) != {"endian": "little"}:
                raise ValueError(f"{file} is {codec}")
        else:
            content = decoders[codec["name"]](content)
    return content


def check(what: str, digest: str, content: bytes) -> None:
    if digest != f"crc32c:{crc32c(content):08x}":
        raise DamageError(f"{what}: not what was written")


def crc32c(content: bytes) -> int:
    """Return the CRC-32C: Castagnoli's polynomial, reflected, all ones before and after."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _table_entry(value: int) -> int:
    for _ in range(8):
        value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
    return value


_TABLE = [_table_entry(value) for value in range(256)]


def unpacked(content: bytes, data_type: str) -> list[Any]:
    return list(
        struct.unpack(f"<{len(content) // size_of(data_type)}{FORMATS[data_type]}", content)
    )


def size_of(data_type: str) -> int:
    return struct.calcsize(f"<{FORMATS[data_type]}")


def len_of(commits: list[dict[str, Any]]) -> int:
    return commits[-1]["stop"] if commits else 0


def triangle(n: int) -> int:
    return n * (n + 1) // 2


def square(packed: list[float], n: int) -> list[list[float]]:
    """Return a symmetric matrix from its upper triangle, which is stored row after row."""
    values, K = iter(packed), [[0.0] * n for _ in range(n)]
    for i in range(n):
        for j in range(i, n):
            K[i][j] = K[j][i] = next(values)
    return K


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    stores = {kind: read_store(folder / f"{kind}.zarr", kind, {}) for kind in DEPTHS}
    sys.stdout.write(json.dumps(stores))
