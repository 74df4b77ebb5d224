"""Verify one representation, or its Grams, a minibatch at a time."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from store.arrays.committed import ArrayForm, CommittedReader, parse
from store.arrays.grams import BOUNDS, FIRST_MEDIAN_DISTANCE, MEDIAN_DISTANCE, UNIT, Grams
from store.arrays.reader import Representation, n_missing_taps
from store.errors import DamagedChunkError, SchemaError, StoreError, StoreLocationError
from store.maintenance.damage import METADATA, Checked, Damage, Unfinished, reason_of
from store.maintenance.expected_metadata import check_array, check_group
from store.maintenance.usage import STORES
from store.model.schema import Commit
from store.storage.claims import is_claimed
from store.storage.paths import Place, check_inside, child_names
from store.zarrfiles.layout import COMMITS, COORDINATES, LATER, SOURCE, Kind
from store.zarrfiles.metadata_files import NODE, SEAL, read_attributes

COORDINATE_ARRAYS: Final[Mapping[str, np.dtype[Any]]] = {
    "sample": np.dtype("<i8"),
    "label": np.dtype("<i4"),
}


def examine(root: Place, kind: Kind, path: str) -> Checked:
    """Compare all contents of a group with its metadata, and these with their seal."""
    try:
        reader = opened(root, kind, path)
    except StoreError as error:
        return Checked.damaged(kind, path, METADATA, reason_of(error), is_data=True)
    at_work, units = is_claimed(reader.place / reader.form.array), reader.form.units
    found = [*_coordinates(reader), *_blocks(reader)]
    how_far = f"{reader.n_committed} of {reader.meta.length} {units}"
    if at_work:
        is_unfinished = not reader.complete
        how_far += ", and its writer is at work"
    else:
        is_unfinished = len(reader.missing) > len(reader.taken_back)
        reason = "their repair was interrupted"
        found += [_damage(reader, units, reason, *pair) for pair in reader.taken_back]
    unfinished = (Unfinished(kind, path, how_far),) if is_unfinished else ()
    length = sum(block.stop - block.start for block in (*reader.commits, *reader.kept))
    n_bytes, n_missing = length * reader.row_bytes, _n_missing_taps(reader)
    return Checked(kind, path, tuple(found), n_bytes, True, unfinished, n_missing)


def _n_missing_taps(reader: CommittedReader[Any]) -> int:
    """Return how many taps of a network have no folder, as far as one of them knows."""
    if isinstance(reader, Representation):
        return n_missing_taps([reader])
    # Grams from activations may be wanted for some taps alone.
    if not isinstance(reader, Grams) or reader.rows_digest is not None:
        return 0
    network = reader.place.parent.parent
    # A folder that has lost its metadata is damaged, not missing.
    there = sum(reader.place.name in child_names(network / tap) for tap in child_names(network))
    return max(0, (reader.meta.n_taps or 0) - there)


def opened(root: Place, kind: Kind, path: str) -> CommittedReader[Any]:
    """Return a reader of a group; raises StoreError where its metadata are damaged."""
    check_inside(root, root / path / NODE)
    reader_of = STORES[kind].reader
    form = reader_of.form
    of_grams = {MEDIAN_DISTANCE, FIRST_MEDIAN_DISTANCE, BOUNDS, UNIT} if kind == "grams" else set()
    check_group(root / path, form.mark, COORDINATES, COMMITS, LATER, SOURCE, *of_grams)
    attributes = read_attributes(root / path) or {}
    stored = parse(form, attributes, path)
    if stored is None:
        raise SchemaError(f"it has no attribute {form.mark!r}")
    reader: CommittedReader[Any] = reader_of(root, *stored)
    if isinstance(reader, Grams):
        _ = reader.median_distance, reader.bounds  # raises for other values than numbers
    # The first version had neither attributes of networks nor seals.
    if SEAL not in attributes and "attributes" in attributes[form.mark]:
        raise SchemaError("it has lost its seal")
    return reader


def _coordinates(reader: CommittedReader[Any]) -> Iterator[Damage]:
    n = reader.meta.sample_set.n_samples
    for name, dtype in COORDINATE_ARRAYS.items():
        try:
            form = ArrayForm((n,), (n,), dtype, ("sample",), {})
            check_array(reader.place / name, form, chunks=False)
            _ = reader.samples if name == "sample" else reader.labels
        except SchemaError as error:
            yield _damage(reader, METADATA, reason_of(error))
        except (DamagedChunkError, StoreLocationError) as error:
            if isinstance(error, StoreLocationError) and not isinstance(reader.place, Path):
                raise
            yield _damage(reader, f"{name}s", reason_of(error))


def _blocks(reader: CommittedReader[Any]) -> Iterator[Damage]:
    form, folder = reader.form.array_form(reader.meta), reader.place / reader.form.array
    try:
        check_array(folder, form, chunks=False)
    except SchemaError as error:
        yield _damage(reader, METADATA, reason_of(error))
        return
    blocks = (*reader.commits, *reader.kept)
    checked = ((block, _check(reader, block)) for block in blocks)
    damage = [
        _damage(reader, reader.form.units, error.reason, block.start, block.stop)
        for block, error in checked
        if error is not None
    ]
    # Others may have written an array again in other chunks; but if no chunk can be read, it is
    # their size that was changed.
    if damage and len(damage) == len(blocks):
        try:
            check_array(folder, form)
        except SchemaError as error:
            damage = [_damage(reader, METADATA, reason_of(error))]
    yield from damage


def _check(reader: CommittedReader[Any], block: Commit) -> StoreError | None:
    try:
        return reader.check(block)
    except StoreLocationError as error:
        if not isinstance(reader.place, Path):
            raise
        return error  # a symbolic link that leads outside


def _damage(reader: CommittedReader[Any], part: str, reason: str, *rows: int) -> Damage:
    return Damage(reader.form.kind, reader.meta.key.path, part, reason, *rows)
