"""What results of comparisons and probes are: looked up for the commands that list them."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from allcnn.settings.selection import Selection
from store import RepresentationKey, StoreError, has_store
from store.maintenance.damage import METADATA, Damage, reason_of
from store.maintenance.usage import array_bytes, result_facts
from store.records.records import DIGESTS, check_facts, has_record
from store.records.registry import FORMS
from store.records.results import method_of
from store.storage.paths import Place, child_names, walk_files
from store.storage.remote_errors import each
from store.zarrfiles.layout import Kind
from store.zarrfiles.metadata_files import read_attributes

T = TypeVar("T")


@dataclass(frozen=True)
class StoredResult:
    """A result of a comparison, without its values."""

    name: str
    sample_set: str
    n_rows: int
    n_columns: int
    networks: tuple[str, ...]
    method: dict[str, Any]
    label: int | None
    raw_bytes: int
    stored_bytes: int
    created_at: str


@dataclass(frozen=True)
class StoredProbe:
    """A probe of one network, without its values; ``sample_set`` is what it was tested on."""

    name: str
    run: str
    checkpoint: str
    train_set: str
    sample_set: str
    taps: tuple[str, ...]
    pool: str
    raw_bytes: int
    stored_bytes: int
    created_at: str


def find_results(
    place: Place, pattern: Selection | None, among: Collection[RepresentationKey] | None
) -> Iterator[StoredResult | Damage]:
    """Look up the results that compare what a pattern names, and something among these keys."""
    yield from _find(place, "similarity", _stored_result, pattern, among)


def find_probes(
    place: Place, pattern: Selection | None, among: Collection[RepresentationKey] | None
) -> Iterator[StoredProbe | Damage]:
    """Look up the probes of what a pattern names, tested on something among these keys."""
    yield from _find(place, "probes", _stored_probe, pattern, among)


_Facts = dict[str, Any]


def _find(
    place: Place,
    kind: Kind,
    make: Callable[[_Facts, list[RepresentationKey], _Facts], T],
    pattern: Selection | None,
    among: Collection[RepresentationKey] | None,
) -> Iterator[T | Damage]:
    if not has_store(place):
        return

    def looked_up(name: str) -> T | Damage | None:
        keys = _subjects(place, kind, name)
        if keys is None or isinstance(keys, Damage):
            return keys
        fits = pattern is None or any(pattern.matches(k.run, k.checkpoint, k.tap) for k in keys)
        if not fits or (among is not None and not any(key in among for key in keys)):
            return None
        try:
            attributes = read_attributes(place / name) or {}
            record = check_facts(place / name, FORMS[kind], attributes[FORMS[kind].mark])
            return make(record, keys, _state(place / name, attributes, record))
        except (KeyError, TypeError, IndexError, StoreError):
            return _malformed(kind, name)

    yield from filter(None, each(place, looked_up, child_names(place)))


def _stored_result(record: _Facts, keys: list[RepresentationKey], state: _Facts) -> StoredResult:
    """Sum up a whole result from its metadata and the keys that it compares."""
    return StoredResult(
        name=record["name"],
        **state,
        sample_set=keys[0].sample_set,
        n_rows=len(record["rows"]),
        n_columns=len(record["columns"]),
        networks=tuple(dict.fromkeys(f"{key.run}@{key.checkpoint}" for key in keys)),
        method=method_of(record),
        label=record.get("label"),
    )


def _stored_probe(record: _Facts, keys: list[RepresentationKey], state: _Facts) -> StoredProbe:
    """Sum up a whole probe from its metadata and the taps that it is of."""
    return StoredProbe(
        **{name: record[name] for name in ("name", "train_set", "pool")} | state,
        run=keys[0].run,
        checkpoint=keys[0].checkpoint,
        sample_set=keys[0].sample_set,
        taps=tuple(key.tap for key in keys),
    )


def _state(place: Place, attributes: _Facts, record: _Facts) -> _Facts:
    """Return the size and the age of a record."""
    return {
        "raw_bytes": sum(array_bytes(place / name) for name in attributes[DIGESTS]),
        "stored_bytes": sum(n_bytes for _, n_bytes, _ in walk_files(place)),
        "created_at": record.get("provenance", {}).get("created_at", ""),
    }


def _subjects(place: Place, kind: Kind, name: str) -> list[RepresentationKey] | Damage | None:
    """Return what a record is about, what is wrong with it, or None while it is being written."""
    try:
        if not has_record(place, FORMS[kind], name):
            return None
    except StoreError as error:
        return Damage(kind, name, METADATA, reason_of(error))
    facts = result_facts(place, name, kind)
    return facts[1] if facts else _malformed(kind, name)


def _malformed(kind: Kind, name: str) -> Damage:
    return Damage(kind, name, METADATA, "it is malformed")
