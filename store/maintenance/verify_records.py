"""Look the results of comparisons and of probes through for damage, array after array."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import zarr

from store.arrays.committed import ArrayForm
from store.errors import DamagedChunkError, SchemaError, StoreError
from store.maintenance.damage import FOLDER, METADATA, Checked, Damage, reason_of
from store.maintenance.expected_metadata import (
    TEXT,
    array_problem,
    chunk_problem,
    group_problem,
    read_node,
)
from store.model.names import fits
from store.records.records import DIGESTS, RecordForm, has_array, read_numbers, rebuilt
from store.records.registry import FORMS
from store.storage.exhaustion import pass_on
from store.storage.paths import Place, check_inside, child_names, walk_files, zarr_store
from store.zarrfiles.layout import Kind
from store.zarrfiles.metadata_files import NODE, SEAL, read_array, read_attributes

Form = RecordForm[Any]


def examine_records(
    place: Place, kind: Kind, patterns: tuple[str, ...], record: str = "*"
) -> Iterator[Checked]:
    """Look through the records about a representation that fits, and those that do not say."""
    form = FORMS[kind]
    for name in filter(lambda each: fits(each, record), child_names(place)):
        attributes = _attributes(place, form, name)
        if isinstance(attributes, Damage):
            yield Checked(kind, name, (attributes,), is_data=True)
        elif attributes is not None and _fits(form, attributes, patterns):
            yield _examined(place, form, name, attributes)


def _attributes(place: Place, form: Form, name: str) -> dict[str, Any] | Damage | None:
    """Return the attributes of a record, what is wrong with it, or None where nothing is."""
    node, files = read_node(place / name), [path for path, *_ in walk_files(place / name)]
    if node is None and not any(path.split("/")[0] in form.first for path in files):
        return Damage(form.kind, name, FOLDER, f"it holds {files[0]!r}") if files else None
    known = frozenset({form.mark, DIGESTS, SEAL})
    problem = group_problem(node, known) if isinstance(node, dict) else node or f"it has no {NODE}"
    if problem is None:
        try:
            check_inside(place, place / name)
            return _complete(form, read_attributes(place / name) or {})
        except StoreError as error:
            problem = reason_of(error)
    return Damage(form.kind, name, METADATA, problem)


def _complete(form: Form, attributes: dict[str, Any]) -> dict[str, Any]:
    for name in (form.mark, DIGESTS):
        if not isinstance(attributes.get(name), dict):
            raise SchemaError(f"it has no attribute {name!r}")
    return attributes


def _fits(form: Form, attributes: Mapping[str, Any], patterns: tuple[str, ...]) -> bool:
    keys = [key for side in form.sides for key in _keys(attributes[form.mark].get(side))]
    fitting = (all(map(fits, key.split("/", 3), patterns)) for key in keys)
    return not keys or any(fitting)


def _keys(found: object) -> list[str]:
    """Return the paths of the representations of a side, none where these are no list of texts."""
    return found if isinstance(found, list) and all(type(key) is str for key in found) else []


def _examined(place: Place, form: Form, name: str, attributes: Mapping[str, Any]) -> Checked:
    folder, arrays = place / name, {}
    facts = attributes[form.mark]
    try:
        labels = form.labels(facts)
    except (StoreError, KeyError, TypeError, AttributeError) as error:
        malformed = Damage(form.kind, name, METADATA, f"it is malformed ({reason_of(error)})")
        return Checked(form.kind, name, (malformed,), is_data=True)
    problems: dict[str, str | None] = {}
    for array in filter(partial(has_array, form), attributes[DIGESTS]):
        problems[array] = _form_problem(folder / array, form, labels)
        if problems[array] is None:
            try:
                arrays[array] = read_numbers(folder, form, array, attributes[DIGESTS][array])
            except DamagedChunkError as error:
                problems[array] = reason_of(error)
    try:
        for dimension, names in labels.items():
            problems[dimension] = _names_problem(folder / dimension, names)
        if not any(problems.values()):
            rebuilt(folder, form, facts, arrays)
    except StoreError as error:
        problems[METADATA] = reason_of(error)
    damage = [Damage(form.kind, name, part, why) for part, why in problems.items() if why]
    n_bytes = sum(values.nbytes for values in arrays.values())
    return Checked(form.kind, name, tuple(damage), n_bytes, is_data=True)


def _form_problem(folder: Place, form: Form, labels: Mapping[str, list[str]]) -> str | None:
    """Return what is wrong with the metadata of an array of numbers."""
    lengths = {dimension: len(names) for dimension, names in labels.items()}
    dimensions = form.dimensions(folder.name)
    try:
        node = read_array(folder)
    except SchemaError as error:
        return reason_of(error)
    sizes = zip(dimensions, node.shape if node else (), strict=False)
    # How many minibatches there are, the digest says.
    shape = tuple(lengths.get(dimension, size) for dimension, size in sizes)
    return _array_problem(folder, shape, form.dtype_of(folder.name), dimensions)


def _array_problem(
    folder: Place, shape: tuple[int, ...], dtype: np.dtype[Any], dimensions: tuple[str, ...]
) -> str | None:
    chunks = tuple(max(1, size) for size in shape)
    form = ArrayForm(shape, chunks, dtype, dimensions, {})
    return array_problem(folder, form) or chunk_problem(folder, form)


def _names_problem(folder: Place, wanted: list[str]) -> str | None:
    """Return what is wrong with the names along a dimension, which xarray shows."""
    problem = _array_problem(folder, (len(wanted),), TEXT, (folder.name,))
    if problem:
        return problem
    try:
        array = zarr.open_array(zarr_store(folder, read_only=True), mode="r", zarr_format=3)
        found = [str(name) for name in np.asarray(array[:])]
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        pass_on(error)
        return reason_of(error)
    return None if found == wanted else f"they are {found}, not {wanted}"
