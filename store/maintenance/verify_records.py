"""Verify the results of comparisons and of probes, array after array."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from store.arrays.committed import ArrayForm
from store.errors import SchemaError, StoreError, StoreLocationError
from store.maintenance.damage import FOLDER, METADATA, Checked, Damage, reason_of
from store.maintenance.expected_metadata import TEXT, NoMetadataError, check_array, check_group
from store.maintenance.usage import FORMS
from store.model.names import fits
from store.records.records import DIGESTS, RecordForm, read_values
from store.storage.paths import Place, check_inside, child_names, walk_files
from store.zarrfiles.layout import Kind
from store.zarrfiles.metadata_files import read_array, read_attributes

Form = RecordForm[Any]


def examine_records(
    place: Place, kind: Kind, patterns: tuple[str, ...], record: str
) -> Iterator[Checked]:
    """Verify the records about a representation that fits, and those that name none."""
    form = FORMS[kind]
    for name in filter(lambda each: fits(each, record), child_names(place)):
        part = METADATA
        try:
            attributes = _attributes(place, form, name)
        except StoreError as error:
            reason = reason_of(error)
            if isinstance(error, NoMetadataError):
                files = [path for path, *_ in walk_files(place / name)]
                if not files:
                    continue
                if not any(path.split("/")[0] in form.first for path in files):
                    part, reason = FOLDER, f"it holds {files[0]!r}"
            yield Checked.damaged(kind, name, part, reason, is_data=True)
            continue
        if _fits(form, attributes, patterns):
            yield _examined(place, form, name, attributes)


def _attributes(place: Place, form: Form, name: str) -> dict[str, Any]:
    """Return the attributes of a record; raises StoreError where they are damaged."""
    check_group(place / name, form.mark, DIGESTS)
    check_inside(place, place / name)
    attributes = read_attributes(place / name) or {}
    for key in (form.mark, DIGESTS):
        if not isinstance(attributes.get(key), dict):
            raise SchemaError(f"it has no attribute {key!r}")
    return attributes


def _fits(form: Form, attributes: Mapping[str, Any], patterns: tuple[str, ...]) -> bool:
    sides = [attributes[form.mark].get(side) for side in form.sides]
    # A damaged side may be anything but a list of texts.
    lists = [s for s in sides if isinstance(s, list) and all(type(key) is str for key in s)]
    keys = [key for side in lists for key in side]
    return not keys or any(all(map(fits, key.split("/", 3), patterns)) for key in keys)


def _examined(place: Place, form: Form, name: str, attributes: Mapping[str, Any]) -> Checked:
    folder, arrays = place / name, {}
    facts = attributes[form.mark]
    try:
        labels = form.labels(facts)
    except (StoreError, KeyError, TypeError, AttributeError) as error:
        reason = f"it is malformed ({reason_of(error)})"
        return Checked.damaged(form.kind, name, METADATA, reason, is_data=True)
    problems: dict[str, str] = {}
    for array in filter(form.has_array, attributes[DIGESTS]):
        with _noting(problems, array):
            _check_form(folder / array, form, labels)
            arrays[array] = form.read_numbers(folder, array, attributes[DIGESTS][array])
    for dimension, names in labels.items():
        with _noting(problems, dimension):
            _check_names(folder / dimension, names)
    if not problems:
        with _noting(problems, METADATA):
            form.rebuilt(folder, facts, arrays)
    damage = [Damage(form.kind, name, part, why) for part, why in problems.items()]
    n_bytes = sum(values.nbytes for values in arrays.values())
    return Checked(form.kind, name, tuple(damage), n_bytes, is_data=True)


@contextmanager
def _noting(problems: dict[str, str], part: str) -> Iterator[None]:
    try:
        yield
    except StoreLocationError:
        raise
    except StoreError as error:
        problems[part] = reason_of(error)


def _check_form(folder: Place, form: Form, labels: Mapping[str, list[str]]) -> None:
    """Raise SchemaError for the metadata of an array of numbers."""
    node, dimensions = read_array(folder), form.dimensions(folder.name)
    # The digest covers the number of minibatches.
    sizes = zip(dimensions, node.shape if node else (), strict=False)
    lengths = {dimension: len(names) for dimension, names in labels.items()}
    shape = tuple(lengths.get(dimension, size) for dimension, size in sizes)
    _check_array(folder, shape, form.dtype_of(folder.name), dimensions)


def _check_array(
    folder: Place, shape: tuple[int, ...], dtype: np.dtype[Any], dimensions: tuple[str, ...]
) -> None:
    chunks = tuple(max(1, size) for size in shape)
    check_array(folder, ArrayForm(shape, chunks, dtype, dimensions, {}))


def _check_names(folder: Place, wanted: list[str]) -> None:
    """Raise SchemaError for the names along a dimension, which xarray shows."""
    _check_array(folder, (len(wanted),), TEXT, (folder.name,))
    found = [str(name) for name in read_values(folder, TEXT, folder.name)]
    if found != wanted:
        raise SchemaError(f"they are {found}, not {wanted}")
