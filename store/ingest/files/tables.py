"""Tables of one line an example: .csv, .tsv, .txt and .parquet.

The columns of numbers are one array, called like the file; those of texts, and those whose names
describe examples, such as label, are each one of their own. Columns such as ``y0_x0_c12``, as
``store query`` writes them, give rows of the shape (h, w, c).
"""

import re
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet

from store.ingest.files.arrays import MOST_ARRAYS, ArrayFile, Listed, Refused, check_form, reading
from store.ingest.files.names import describes_examples

ADVICE: Final = "write one line of numbers an example, or save it with np.save"
METADATA: Final = "metadata"
_LONGEST_LINE: Final = 2**23
_MOST_CELLS: Final = 2**31
_MOST_COMPRESSED: Final = 2**16
_PLACE: Final = re.compile(r"(?:y(\d{1,6})_x(\d{1,6})_|p(\d{1,6})_)?c(\d{1,6})")
_OWN_METADATA: Final = b"allcnn"


def open_file(path: Path, opened: ExitStack) -> list[Listed]:
    """Read a whole table."""
    with reading(str(path), ADVICE):
        is_parquet = path.suffix.lower() == ".parquet"
        table = _read_parquet(path) if is_parquet else _read_text(path)
        return _arrays(path, table)


def _read_parquet(path: Path) -> Any:
    with pyarrow.parquet.ParquetFile(path) as file:
        facts = file.metadata
        n_cells = facts.num_rows * facts.num_columns
        if not 0 <= n_cells <= min(_MOST_CELLS, _MOST_COMPRESSED * path.stat().st_size):
            raise ValueError(f"it claims {n_cells} values")
        return file.read()


def _read_text(path: Path) -> Any:
    with path.open("rb") as stream:
        first = stream.readline(_LONGEST_LINE).decode("utf-8-sig")
    delimiter = next((mark for mark in "\t;," if mark in first), " ")
    cells = [cell.strip("\"' \r\n") for cell in first.split(delimiter)]
    headless = any(_is_number(cell) for cell in cells)
    table = _parse(path, delimiter, headless)
    if table.num_columns == 1 and not headless and _is_text(table.column(0).type):
        # A list of texts has no header unless the first says what the others are.
        return table if describes_examples(cells[0]) else _parse(path, delimiter, headless=True)
    return table


def _parse(path: Path, delimiter: str, headless: bool) -> Any:
    return pyarrow.csv.read_csv(
        path,
        pyarrow.csv.ReadOptions(autogenerate_column_names=headless, block_size=2 * _LONGEST_LINE),
        pyarrow.csv.ParseOptions(delimiter=delimiter),
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _arrays(path: Path, table: Any) -> list[Listed]:
    pairs = list(zip(table.column_names, table.columns, strict=True))
    if len(pairs) == 1:
        return [Listed(path.stem, _column(str(path), pairs[0][1]))]
    features = [(name, column) for name, column in pairs if _is_feature(name, column)]
    others = [(name, column) for name, column in pairs if not _is_feature(name, column)]
    if len(others) > MOST_ARRAYS:
        raise ValueError(f"it has {len(others)} columns of texts")
    found = [Listed(path.stem, _joined(path, features))] if features else []
    for index, (name, column) in enumerate(others):
        called = name.strip() or f"column-{index}-without-a-name"
        found.append(Listed(called, _column(f"{path}:{called}", column)))
    return found + _own_metadata(table)


def _is_feature(name: str, column: Any) -> bool:
    return _is_number_type(column.type) and not describes_examples(name)


def _is_number_type(kind: Any) -> bool:
    types = pyarrow.types
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind))


def _is_text(kind: Any) -> bool:
    return bool(pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind))


def _joined(path: Path, features: Sequence[tuple[str, Any]]) -> ArrayFile:
    values = np.stack([column.to_numpy() for _, column in features], axis=1)
    check_form(str(path), values.shape, values.dtype)
    return values.reshape(len(values), *_shape([name for name, _ in features]))


def _shape(names: Sequence[str]) -> tuple[int, ...]:
    """Return the shape of an example whose features have names such as ``y0_x0_c12``."""
    places = [found.groups() if (found := _PLACE.fullmatch(name)) else () for name in names]
    known = {tuple(part is not None for part in place) for place in places}
    if len(known) != 1 or known == {()}:
        return (len(names),)
    values = [tuple(int(part) for part in place if part is not None) for place in places]
    *space, channels = (sorted({value[axis] for value in values}) for axis in range(len(values[0])))
    whole = values == list(product(*space, channels))
    return (*map(len, space), len(channels)) if whole else (len(names),)


def _column(source: str, column: Any) -> ArrayFile:
    kind = column.type
    if pyarrow.types.is_dictionary(kind):
        return _column(source, column.cast(kind.value_type))
    if _is_number_type(kind):
        return np.asarray(column.to_numpy())
    if _is_text(kind):
        return np.asarray(["" if text is None else text for text in column.to_pylist()], dtype=str)
    if pyarrow.types.is_fixed_size_list(kind) or pyarrow.types.is_list(kind):
        return _lists(source, column)
    return Refused((len(column),), source, f"is of type {str(kind)[:40]}; write numbers")


def _lists(source: str, column: Any) -> ArrayFile:
    """Return a column of lists, as of embeddings, as rows."""
    lengths = pyarrow.compute.unique(pyarrow.compute.list_value_length(column)).to_pylist()
    values = column.combine_chunks().flatten()
    whole = len(lengths) == 1 and len(values) == len(column) * (lengths[0] or 0)
    if not whole or not _is_number_type(values.type):
        return Refused((len(column), 0), source, "holds lists that differ; write as many numbers")
    return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(len(column), lengths[0])


def _own_metadata(table: Any) -> list[Listed]:
    """Return what ``store query`` wrote of the layer, as in its .npz files."""
    text = (table.schema.metadata or {}).get(_OWN_METADATA)
    return [] if text is None else [Listed(METADATA, np.array(text.decode()))]
