"""What the stores of a workspace hold: collected for the commands that list and show it."""

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from allcnn.config import Selection
from allcnn.errors import ConfigError, RunError
from allcnn.workspace import Workspace
from store import (
    Grams,
    GramStore,
    QueryError,
    Representation,
    RepresentationKey,
    Store,
    has_store,
    list_results,
    open_grams,
)
from store import open as open_store
from store.place import Place, walk_files
from store.query import parse_where
from store.results import RESULT
from store.schema import SampleSet

_FLOAT32_BYTES = 4
_ITEM_BYTES = {"int64": 8, "float64": 8}
"""Bytes of a value in the arrays of a result."""


@dataclass(frozen=True)
class Stored:
    """Activations, or Grams of one kind, of one run and checkpoint on one sample set.

    ``n_committed`` is that of the tap with the fewest, of ``n`` rows, or of minibatches;
    ``raw_bytes`` counts what is committed, before compression; ``stored_bytes`` all files.
    """

    run: str
    checkpoint: str
    sample_set: str
    kind: str
    taps: tuple[str, ...]
    n_committed: int
    n: int
    raw_bytes: int
    stored_bytes: int
    created_at: str
    complete: bool
    attributes: dict[str, Any]


@dataclass(frozen=True)
class StoredResult:
    """A result of a comparison, without its values."""

    name: str
    sample_set: str
    n_rows: int
    n_columns: int
    networks: tuple[str, ...]
    kernel: str
    sigma: float | None
    pool: str
    estimator: str
    label: int | None
    raw_bytes: int
    stored_bytes: int
    created_at: str


@dataclass(frozen=True)
class Listing:
    """All that is stored, or what of it was asked for."""

    activations: tuple[Stored, ...]
    grams: tuple[Stored, ...]
    results: tuple[StoredResult, ...]


@dataclass(frozen=True)
class StoredTap:
    """How the activations of one tap are stored; ``rows_digest`` stands for its committed rows."""

    tap: str
    shape: tuple[int, ...]
    dtype: str
    chunks: tuple[int, ...]
    codecs: tuple[str, ...]
    n_committed: int
    n: int
    raw_bytes: int
    stored_bytes: int
    rows_digest: str
    complete: bool


@dataclass(frozen=True)
class Network:
    """One checkpoint of one run on one sample set: its taps and the Grams that are kept of it."""

    run: str
    checkpoint: str
    sample_set: SampleSet
    checkpoint_digests: tuple[str, ...]
    created_by: tuple[str, ...]
    created_at: str
    attributes: dict[str, Any]
    taps: tuple[StoredTap, ...]
    grams: tuple[Stored, ...]


def list_stores(
    workspace: Workspace, pattern: Selection | None = None, where: Sequence[str] = ()
) -> Listing:
    """Collect what fits a pattern and comparisons such as ``epoch>=5``; RunError for nothing.

    Of results those are listed that compare what fits.
    """
    taps, grams = find(workspace, pattern, where)
    listing = Listing(
        tuple(_stored(group) for group in _networks(taps)),
        tuple(_stored(group) for group in _networks(grams)),
        tuple(_results(workspace, pattern, {*_keys(taps, grams)} if where else None)),
    )
    if not (listing.activations or listing.grams or listing.results):
        raise RunError(_nothing(workspace, pattern, where))
    return listing


def describe_networks(
    workspace: Workspace, pattern: Selection, sample_set: str | None = None
) -> list[Network]:
    """Collect what is known of the networks that fit a pattern; RunError for none."""
    taps, grams = find(workspace, pattern, (), sample_set)
    kept = {key: list(group) for key, group in groupby(grams, _network)}
    networks = dict.fromkeys([*map(_network, taps), *kept])
    found = {key: list(group) for key, group in groupby(taps, _network)}
    if not networks:
        raise RunError(_nothing(workspace, pattern, ()))
    return [_describe(found.get(key, []), kept.get(key, [])) for key in sorted(networks)]


def find(
    workspace: Workspace,
    pattern: Selection | None,
    where: Sequence[str],
    sample_set: str | None = None,
) -> tuple[list[Representation], list[Grams]]:
    """Open the activations and the kept Grams that fit, sorted."""
    filters = _filters(pattern, where, sample_set)
    stores: list[Store | GramStore] = []
    if has_store(workspace.activations):
        stores.append(open_store(workspace.activations))
    if has_store(workspace.grams):
        stores.append(open_grams(workspace.grams))
    found: list[Representation | Grams] = []
    refusals = []
    for each in stores:
        try:
            found += each.find(**filters)
        except QueryError as error:  # a name that only the other store may know
            refusals.append(error)
    if refusals and len(refusals) == len(stores):
        raise refusals[0]
    return (
        [one for one in found if isinstance(one, Representation)],
        [one for one in found if isinstance(one, Grams)],
    )


def rows_digest(tap: Representation) -> str:
    """Return one digest of all that is committed, from the digests of its minibatches."""
    lines = "".join(f"{c.start} {c.stop} {c.digest}\n" for c in tap.commits)
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()[:12]}"


def stored_bytes(place: Place) -> int:
    """Return how many bytes the files in a folder have."""
    return sum(n_bytes for _, n_bytes, _ in walk_files(place))


def raw_bytes(one: Representation | Grams) -> int:
    """Return how many bytes the committed part has, uncompressed and without checksums."""
    if isinstance(one, Grams):
        return one.n_committed * one.meta.width * _FLOAT32_BYTES
    return one.n_committed * math.prod(one.meta.shape) * np.dtype(one.meta.dtype).itemsize


def _filters(
    pattern: Selection | None, where: Sequence[str], sample_set: str | None
) -> dict[str, Any]:
    filters: dict[str, Any] = {}
    for text in where:
        name, value = parse_where(text)
        if name in filters:
            raise ConfigError(f"where compares {name} twice; join the values, as in seed=0,1")
        filters[name] = value
    named = {} if sample_set is None else {"sample_set": sample_set}
    if pattern:
        named |= {"run": pattern.run, "checkpoint": pattern.checkpoint, "tap": pattern.tap}
    for name, value in named.items():
        if name in filters and value != "*":
            raise ConfigError(f"{name} is in the pattern and in --where; leave one out")
        filters.setdefault(name, value)
    return filters


def _key(one: Representation | Grams) -> RepresentationKey:
    return one.key.of if isinstance(one, Grams) else one.key


def _network(one: Representation | Grams) -> tuple[str, str, str]:
    key = _key(one)
    return key.sample_set, key.run, key.checkpoint


def _kind(one: Representation | Grams) -> tuple[str, ...]:
    kind = one.key.variant if isinstance(one, Grams) else one.meta.dtype
    return (*_network(one), kind)


def _keys(*found: Iterable[Representation | Grams]) -> list[RepresentationKey]:
    return [_key(one) for each in found for one in each]


def _networks(found: Sequence[Representation | Grams]) -> list[list[Representation | Grams]]:
    """Group by network and kind, in the order of the network."""
    groups: dict[tuple[str, ...], list[Representation | Grams]] = {}
    for one in found:
        groups.setdefault(_kind(one), []).append(one)
    return list(groups.values())


def _stored(group: Sequence[Representation | Grams]) -> Stored:
    sample_set, run, checkpoint, kind = _kind(group[0])
    return Stored(
        run=run,
        checkpoint=checkpoint,
        sample_set=sample_set,
        kind=kind,
        taps=tuple(key.tap for key in _keys(group)),
        n_committed=min(one.n_committed for one in group),
        n=group[0].meta.length,
        raw_bytes=sum(map(raw_bytes, group)),
        stored_bytes=sum(stored_bytes(one.place) for one in group),
        created_at=max(one.meta.created_at for one in group),
        complete=all(one.complete for one in group),
        attributes=dict(group[0].meta.attributes),
    )


def _describe(taps: list[Representation], grams: list[Grams]) -> Network:
    both: list[Representation | Grams] = [*taps, *grams]
    key = _key(both[0])
    digests = [tap.meta.checkpoint_digest for tap in taps]
    digests += [each.key.checkpoint_digest for each in grams]
    return Network(
        run=key.run,
        checkpoint=key.checkpoint,
        sample_set=both[0].meta.sample_set,
        checkpoint_digests=tuple(dict.fromkeys(digests)),
        created_by=tuple(dict.fromkeys(one.meta.created_by for one in both)),
        created_at=max(one.meta.created_at for one in both),
        attributes=dict(both[0].meta.attributes),
        taps=tuple(map(_describe_tap, taps)),
        grams=tuple(_stored(group) for group in _networks(grams)),
    )


def _describe_tap(tap: Representation) -> StoredTap:
    array = _metadata(tap.place / "activations")
    return StoredTap(
        tap=tap.key.tap,
        shape=tap.meta.shape,
        dtype=tap.meta.dtype,
        chunks=tuple(array["chunk_grid"]["configuration"]["chunk_shape"]),
        codecs=tuple(codec["name"] for codec in array["codecs"]),
        n_committed=tap.n_committed,
        n=tap.meta.length,
        raw_bytes=raw_bytes(tap),
        stored_bytes=stored_bytes(tap.place),
        rows_digest=rows_digest(tap),
        complete=tap.complete,
    )


def _results(
    workspace: Workspace, pattern: Selection | None, among: set[RepresentationKey] | None
) -> Iterable[StoredResult]:
    place = workspace.similarity
    for name in list_results(place) if has_store(place) else []:
        record = _metadata(place / name)["attributes"][RESULT]
        keys = [RepresentationKey.from_path(path) for path in record["rows"] + record["columns"]]
        if among is not None and among.isdisjoint(keys):
            continue
        if pattern is None or any(pattern.matches(k.run, k.checkpoint, k.tap) for k in keys):
            yield _result(place / name, record, keys)


def _result(place: Place, record: dict[str, Any], keys: list[RepresentationKey]) -> StoredResult:
    names = ("name", "kernel", "sigma", "estimator")
    return StoredResult(
        **{name: record[name] for name in names},
        sample_set=keys[0].sample_set,
        n_rows=len(record["rows"]),
        n_columns=len(record["columns"]),
        networks=tuple(dict.fromkeys(f"{key.run}@{key.checkpoint}" for key in keys)),
        pool=record.get("pool", "whole"),
        label=record.get("label"),
        raw_bytes=sum(map(_array_bytes, place.iterdir())),
        stored_bytes=stored_bytes(place),
        created_at=record["provenance"].get("created_at", ""),
    )


def _array_bytes(place: Place) -> int:
    array = _metadata(place) if place.is_dir() else {}
    n_values: int = math.prod(array.get("shape", ()))
    return n_values * _ITEM_BYTES.get(str(array.get("data_type")), 0)


def _metadata(place: Place) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((place / "zarr.json").read_bytes())
    return found


def _nothing(workspace: Workspace, pattern: Selection | None, where: Sequence[str]) -> str:
    asked = " and ".join([*([str(pattern)] if pattern else []), *where])
    if not asked:
        return f"nothing is extracted yet in {workspace.root}; run 'allcnn extract RUN'"
    return f"nothing in {workspace.root} fits {asked}; 'allcnn store ls' shows what there is"
