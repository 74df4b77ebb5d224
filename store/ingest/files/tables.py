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
import numpy.typing as npt
import pyarrow
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet
from pyarrow import types

from store.ingest.files.arrays import METADATA, ArrayFile, describes_examples, refused

ADVICE: Final = "write one line of numbers an example, or save it with np.save"
_LONGEST_LINE: Final = 2**23
_MOST_CELLS: Final = 2**31
_MOST_COMPRESSED: Final = 2**16
_PLACE: Final = re.compile(r"(?:y(\d{1,6})_x(\d{1,6})_|p(\d{1,6})_)?c(\d{1,6})")
_OWN_METADATA: Final = b"allcnn"


def open_file(path: Path, opened: ExitStack) -> list[ArrayFile]:
    """Read a whole table."""
    table = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_text(path)
    columns = list(zip(table.column_names, table.columns, strict=True))
    if len(columns) == 1:
        return [_as_array(path.stem, columns[0][1])]
    features: list[tuple[str, Any]] = []
    others: list[tuple[str, Any]] = []
    for name, column in columns:
        is_feature = _is_number(column.type) and not describes_examples(name)
        (features if is_feature else others).append((name, column))
    found = [_joined(path.stem, features)] if features else []
    for index, (name, column) in enumerate(others):
        found.append(_as_array(name.strip() or f"column-{index}-without-a-name", column))
    # As ``store query`` writes them into its .npz files too.
    metadata = (table.schema.metadata or {}).get(_OWN_METADATA)
    return found if metadata is None else [*found, _whole(METADATA, np.array(metadata.decode()))]


def _read_parquet(path: Path) -> Any:
    with pyarrow.parquet.ParquetFile(path) as file:
        n_cells = file.metadata.num_rows * file.metadata.num_columns
        if not 0 <= n_cells <= min(_MOST_CELLS, _MOST_COMPRESSED * path.stat().st_size):
            raise ValueError(f"it claims {n_cells} values")
        return file.read()


def _read_text(path: Path) -> Any:
    with path.open("rb") as stream:
        first = stream.readline(_LONGEST_LINE).decode("utf-8-sig")
    delimiter = next((mark for mark in "\t;," if mark in first), " ")
    cells = [cell.strip("\"' \r\n") for cell in first.split(delimiter)]
    headless = any(_is_float(cell) for cell in cells)
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


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_number(kind: Any) -> bool:
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind))


def _is_text(kind: Any) -> bool:
    return bool(types.is_string(kind) or types.is_large_string(kind))


def _whole(name: str, values: npt.NDArray[Any]) -> ArrayFile:
    return ArrayFile(name, values.shape, values.dtype, values.__getitem__)


def _joined(name: str, features: Sequence[tuple[str, Any]]) -> ArrayFile:
    values = np.stack([column.to_numpy() for _, column in features], axis=1)
    return _whole(name, values.reshape(len(values), *_shape([name for name, _ in features])))


def _shape(names: Sequence[str]) -> tuple[int, ...]:
    """Return the shape of an example whose features have names such as ``y0_x0_c12``."""
    places = [found.groups() if (found := _PLACE.fullmatch(name)) else () for name in names]
    known = {tuple(part is not None for part in place) for place in places}
    if len(known) != 1 or known == {()}:
        return (len(names),)
    values = [tuple(int(part) for part in place if part is not None) for place in places]
    axes = [sorted(set(axis)) for axis in zip(*values, strict=True)]
    return tuple(map(len, axes)) if values == list(product(*axes)) else (len(names),)


def _as_array(name: str, column: Any) -> ArrayFile:
    kind = column.type
    if types.is_dictionary(kind):
        return _as_array(name, column.cast(kind.value_type))
    if _is_number(kind):
        return _whole(name, np.asarray(column.to_numpy()))
    if _is_text(kind):
        texts = ["" if text is None else text for text in column.to_pylist()]
        return _whole(name, np.asarray(texts, dtype=str))
    if types.is_fixed_size_list(kind) or types.is_list(kind):
        return _as_rows(name, column)
    return refused(name, (len(column),), f"is of type {str(kind)[:40]}", "write numbers")


def _as_rows(name: str, column: Any) -> ArrayFile:
    """Return a column of lists, as of embeddings, as rows."""
    lengths = pyarrow.compute.unique(pyarrow.compute.list_value_length(column)).to_pylist()
    values = column.combine_chunks().flatten()
    whole = len(lengths) == 1 and len(values) == len(column) * (lengths[0] or 0)
    if not whole or not _is_number(values.type):
        return refused(name, (len(column), 0), "holds lists that differ", "write as many numbers")
    rows = np.asarray(values.to_numpy(zero_copy_only=False))
    return _whole(name, rows.reshape(len(column), lengths[0]))
