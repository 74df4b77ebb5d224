"""What results of comparisons are: looked up for the commands that list them."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from allcnn.config import Selection
from store import RepresentationKey, StoreError, has_result, has_store
from store.damage import METADATA, Damage, reason_of
from store.nodes import read_attributes
from store.place import Place, child_names, walk_files
from store.reach import each
from store.records import DIGESTS
from store.results import RESULT
from store.usage import array_bytes, result_facts


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
    batch_size: int
    label: int | None
    raw_bytes: int
    stored_bytes: int
    created_at: str


def find_results(
    place: Place, pattern: Selection | None, among: Collection[RepresentationKey] | None
) -> Iterator[StoredResult | Damage]:
    """Look up the results that compare what a pattern names, and something among these keys."""
    if not has_store(place):
        return

    def looked_up(name: str) -> StoredResult | Damage | None:
        keys = _compared(place, name)
        if keys is None or isinstance(keys, Damage):
            return keys
        fits = pattern is None or any(pattern.matches(k.run, k.checkpoint, k.tap) for k in keys)
        if not fits or (among is not None and not any(key in among for key in keys)):
            return None
        try:
            return _stored_result(place / name, keys)
        except (KeyError, TypeError, IndexError):
            return _malformed(name)

    yield from filter(None, each(place, looked_up, child_names(place)))


def _stored_result(place: Place, keys: list[RepresentationKey]) -> StoredResult:
    """Sum up a whole result from its metadata and the keys that it compares."""
    attributes = read_attributes(place) or {}
    record = attributes[RESULT]
    names = ("name", "kernel", "sigma", "estimator", "batch_size")
    return StoredResult(
        **{name: record[name] for name in names},
        sample_set=keys[0].sample_set,
        n_rows=len(record["rows"]),
        n_columns=len(record["columns"]),
        networks=tuple(dict.fromkeys(f"{key.run}@{key.checkpoint}" for key in keys)),
        pool=record.get("pool", "whole"),
        label=record.get("label"),
        raw_bytes=sum(array_bytes(place / name) for name in attributes[DIGESTS]),
        stored_bytes=sum(n_bytes for _, n_bytes, _ in walk_files(place)),
        created_at=record.get("provenance", {}).get("created_at", ""),
    )


def _compared(place: Place, name: str) -> list[RepresentationKey] | Damage | None:
    """Return what a result compares, what is wrong with it, or None while it is being written."""
    try:
        if not has_result(place, name):
            return None
    except StoreError as error:
        return Damage("similarity", name, METADATA, reason_of(error))
    facts = result_facts(place, name)
    return facts[1] if facts else _malformed(name)


def _malformed(name: str) -> Damage:
    return Damage("similarity", name, METADATA, "it is malformed")
