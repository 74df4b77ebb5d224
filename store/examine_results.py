"""Look the results of comparisons through for damage, array after array."""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, Final

import numpy as np
import zarr

from store.committed import ArrayForm
from store.damage import FOLDER, METADATA, Checked, Damage, reason_of
from store.errors import DamagedChunkError, SchemaError, StoreError
from store.nodes import NODE, SEAL, read_array, read_attributes
from store.place import Place, check_inside, child_names, walk_files, zarr_store
from store.prescribed import TEXT, array_problem, chunk_problem, group_problem, read_node
from store.records import DIGESTS, read_numbers
from store.results import ARRAYS, RESULT, RESULTS
from store.schema import RepresentationKey

_KNOWN: Final = frozenset({RESULT, DIGESTS, SEAL})
_SIDES: Final = {"row": "rows", "column": "columns"}


def examine_results(
    place: Place, patterns: tuple[str, ...], result: str = "*"
) -> Iterator[Checked]:
    """Look through the results of which a representation fits, and those that do not say."""
    for name in filter(lambda each: fnmatchcase(each, result), child_names(place)):
        attributes = _attributes(place, name)
        if isinstance(attributes, Damage):
            yield Checked("similarity", name, (attributes,), is_data=True)
        elif attributes is not None and _fits(attributes, patterns):
            yield _examined(place, name, attributes)


def _attributes(place: Place, name: str) -> dict[str, Any] | Damage | None:
    """Return the attributes of a result, what is wrong with it, or None where nothing is."""
    node, files = read_node(place / name), [path for path, *_ in walk_files(place / name)]
    if node is None and not any(path.startswith("cka/") for path in files):
        return Damage("similarity", name, FOLDER, f"it holds {files[0]!r}") if files else None
    problem = group_problem(node, _KNOWN) if isinstance(node, dict) else node or f"it has no {NODE}"
    if problem is None:
        try:
            check_inside(place, place / name)
            return _complete(read_attributes(place / name) or {})
        except StoreError as error:
            problem = reason_of(error)
    return Damage("similarity", name, METADATA, problem)


def _complete(attributes: dict[str, Any]) -> dict[str, Any]:
    for name in (RESULT, DIGESTS):
        if not isinstance(attributes.get(name), dict):
            raise SchemaError(f"it has no attribute {name!r}")
    return attributes


def _fits(attributes: Mapping[str, Any], patterns: tuple[str, ...]) -> bool:
    keys = [*_keys(attributes, "rows"), *_keys(attributes, "columns")]
    fitting = (all(map(fnmatchcase, key.split("/"), patterns)) for key in keys)
    return not keys or any(fitting)


def _keys(attributes: Mapping[str, Any], side: str) -> list[str]:
    """Return the paths of the representations of a side, none where these are no list of texts."""
    found = attributes[RESULT].get(side)
    return found if isinstance(found, list) and all(type(key) is str for key in found) else []


def _examined(place: Place, name: str, attributes: Mapping[str, Any]) -> Checked:
    folder, arrays = place / name, {}
    problems: dict[str, str | None] = {}
    for array in filter(attributes[DIGESTS].__contains__, ARRAYS):
        problems[array] = _form_problem(folder / array, attributes)
        if problems[array] is None:
            try:
                arrays[array] = read_numbers(folder, RESULTS, array, attributes[DIGESTS][array])
            except DamagedChunkError as error:
                problems[array] = reason_of(error)
    try:
        for dimension, side in _SIDES.items():
            problems[dimension] = _names_problem(folder / dimension, _keys(attributes, side))
        if not any(problems.values()):
            RESULTS.rebuild(folder, name, attributes[RESULT], arrays)
    except StoreError as error:
        problems[METADATA] = reason_of(error)
    damage = [Damage("similarity", name, part, why) for part, why in problems.items() if why]
    n_bytes = sum(values.nbytes for values in arrays.values())
    return Checked("similarity", name, tuple(damage), n_bytes, is_data=True)


def _form_problem(folder: Place, attributes: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the metadata of an array of numbers."""
    lengths = {dimension: len(_keys(attributes, side)) for dimension, side in _SIDES.items()}
    dimensions = ARRAYS[folder.name]
    try:
        node = read_array(folder)
    except SchemaError as error:
        return reason_of(error)
    sizes = zip(dimensions, node.shape if node else (), strict=False)
    # How many minibatches there are, the digest says.
    shape = tuple(lengths.get(dimension, size) for dimension, size in sizes)
    return _array_problem(folder, shape, RESULTS.dtype_of(folder.name), dimensions)


def _array_problem(
    folder: Place, shape: tuple[int, ...], dtype: np.dtype[Any], dimensions: tuple[str, ...]
) -> str | None:
    chunks = tuple(max(1, size) for size in shape)
    form = ArrayForm(shape, chunks, dtype, dimensions, {})
    return array_problem(folder, form) or chunk_problem(folder, form)


def _names_problem(folder: Place, keys: list[str]) -> str | None:
    """Return what is wrong with the names of the rows or columns, which xarray shows."""
    wanted = [str(RepresentationKey.from_path(key)) for key in keys]
    problem = _array_problem(folder, (len(keys),), TEXT, (folder.name,))
    if problem:
        return problem
    try:
        array = zarr.open_array(zarr_store(folder, read_only=True), mode="r", zarr_format=3)
        found = [str(name) for name in np.asarray(array[:])]
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        return reason_of(error)
    return None if found == wanted else f"they are {found}, not {wanted}"
