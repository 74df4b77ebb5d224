"""Look one representation, or its Grams, through for damage, a minibatch at a time."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

from store.arrays.committed import ArrayForm, CommittedReader, parse
from store.arrays.grams import BOUNDS, FIRST_MEDIAN_DISTANCE, MEDIAN_DISTANCE, UNIT, Grams
from store.arrays.reader import Representation, n_missing_taps
from store.errors import DamagedChunkError, StoreError, StoreLocationError
from store.maintenance.damage import METADATA, Checked, Damage, Unfinished, reason_of
from store.maintenance.expected_metadata import (
    array_problem,
    chunk_problem,
    group_problem,
    read_node,
)
from store.model.schema import Commit
from store.storage.claims import is_claimed
from store.storage.paths import Place, check_inside, child_names, is_remote
from store.zarrfiles.layout import COMMITS, COORDINATES, LATER, SOURCE, Kind
from store.zarrfiles.metadata_files import NODE, SEAL, read_attributes

READERS: Final[dict[Kind, type[CommittedReader[Any]]]] = {
    "activations": Representation,
    "grams": Grams,
}
COORDINATE_ARRAYS: Final[Mapping[str, np.dtype[Any]]] = {
    "sample": np.dtype("<i8"),
    "label": np.dtype("<i4"),
}


def examine(root: Place, kind: Kind, path: str) -> Checked:
    """Compare all that a group holds with its metadata, and these with their seal."""
    reader = opened(root, kind, path)
    if isinstance(reader, str):
        return Checked(kind, path, (Damage(kind, path, METADATA, reader),), is_data=True)
    at_work = is_claimed(reader.place / reader.form.array)
    damage = (*_coordinates(reader), *_blocks(reader))
    if not at_work:
        damage += tuple(_taken_back(reader))
    is_unfinished = not reader.complete if at_work else len(reader.missing) > len(reader.taken_back)
    how_far = _how_far(reader) + (", and its writer is at work" if at_work else "")
    unfinished = (Unfinished(kind, path, how_far),) if is_unfinished else ()
    n_missing = _n_missing_taps(reader)
    n_bytes = _n_bytes(reader)
    return Checked(kind, path, damage, n_bytes, True, unfinished, n_missing)


def _n_missing_taps(reader: CommittedReader[Any]) -> int:
    """Return how many taps of a network have no folder, as far as one of them knows."""
    if isinstance(reader, Representation):
        return n_missing_taps([reader])
    # Those that come from activations may be wanted of some taps alone.
    if not isinstance(reader, Grams) or reader.rows_digest is not None:
        return 0
    network = reader.place.parent.parent
    # A folder that has lost its metadata is damaged, not missing.
    there = sum(reader.place.name in child_names(network / tap) for tap in child_names(network))
    return max(0, (reader.meta.n_taps or 0) - there)


def _how_far(reader: CommittedReader[Any]) -> str:
    return f"{reader.n_committed} of {reader.meta.length} {reader.form.units}"


def opened(root: Place, kind: Kind, path: str) -> CommittedReader[Any] | str:
    """Return a reader of a group, or what is wrong with its metadata."""
    form = READERS[kind].form
    try:
        check_inside(root, root / path / NODE)
    except StoreError as error:
        return reason_of(error)
    node = read_node(root / path)
    of_grams = {MEDIAN_DISTANCE, FIRST_MEDIAN_DISTANCE, BOUNDS, UNIT} if kind == "grams" else set()
    known = frozenset({form.mark, COORDINATES, COMMITS, LATER, SEAL, SOURCE, *of_grams})
    if not isinstance(node, dict):
        return node or f"it has no {NODE}"
    problem = group_problem(node, known)
    if problem:
        return problem
    try:
        attributes = read_attributes(root / path) or {}
        stored = parse(form, attributes, path)
        if stored is None:
            return f"it has no attribute {form.mark!r}"
        reader = READERS[kind](root, *stored, attributes)
        if isinstance(reader, Grams):
            _ = reader.median_distance, reader.bounds  # raises for what is no number
    except StoreError as error:
        return reason_of(error)
    # The first version had neither attributes of networks nor seals.
    lost = SEAL not in attributes and "attributes" in attributes[form.mark]
    return "it has lost its seal" if lost else reader


def _coordinates(reader: CommittedReader[Any]) -> Iterator[Damage]:
    n = reader.meta.sample_set.n_samples
    for name, dtype in COORDINATE_ARRAYS.items():
        form = ArrayForm((n,), (n,), dtype, ("sample",), {})
        problem = array_problem(reader.place / name, form)
        if problem:
            yield _damage(reader, METADATA, problem)
            continue
        try:
            _ = reader.samples if name == "sample" else reader.labels
        except (DamagedChunkError, StoreLocationError) as error:
            if isinstance(error, StoreLocationError) and is_remote(reader.place):
                raise
            yield _damage(reader, f"{name}s", reason_of(error))


def _blocks(reader: CommittedReader[Any]) -> Iterator[Damage]:
    form = reader.form.array_form(reader.meta)
    folder = reader.place / reader.form.array
    problem = array_problem(folder, form)
    if problem:
        yield _damage(reader, METADATA, problem)
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
    other = chunk_problem(folder, form) if len(damage) == len(blocks) else None
    yield from [_damage(reader, METADATA, other)] if damage and other else damage


def _taken_back(reader: CommittedReader[Any]) -> Iterator[Damage]:
    for start, stop in reader.taken_back:
        reason = "their repair was interrupted"
        yield _damage(reader, reader.form.units, reason, start, stop)


def _check(reader: CommittedReader[Any], block: Commit) -> StoreError | None:
    try:
        return reader.check(block)
    except StoreLocationError as error:
        if is_remote(reader.place):
            raise
        return error  # a symbolic link that leads outside


def _damage(
    reader: CommittedReader[Any],
    part: str,
    reason: str,
    start: int | None = None,
    stop: int | None = None,
) -> Damage:
    return Damage(reader.form.kind, reader.meta.key.path, part, reason, start, stop)


def _n_bytes(reader: CommittedReader[Any]) -> int:
    form = reader.form.array_form(reader.meta)
    length = sum(block.stop - block.start for block in (*reader.commits, *reader.kept))
    return length * int(np.prod(form.shape[1:])) * form.dtype.itemsize
