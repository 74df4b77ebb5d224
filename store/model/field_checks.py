"""What the fields of metadata may hold: whatever else they do is a SchemaError."""

import math
import re
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np

from store.errors import SchemaError
from store.model.strict_json import as_read

MOST_COUNT: Final = 2**53
"""Beyond it, floats and the programs that read JSON as such no longer count."""

_CONTROLS: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

_SHORT: Final = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 150

shown: Final[Callable[[object], str]] = _SHORT.repr
"""Return a value as an error shows it: of what is long or deep, its beginning and end."""

_RESERVED: Final = frozenset(
    "sample_set run checkpoint tap dataset split n_samples dtype complete tap_index".split()
)
"""Names that a query would look for elsewhere."""


def as_python(attributes: object) -> object:
    """Return NumPy's numbers as Python's, which alone become JSON."""
    if not isinstance(attributes, Mapping):
        return attributes
    return {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in attributes.items()
    }


def check_ranges(ranges: object, n_samples: int) -> None:
    """Raise SchemaError unless these are minibatches that follow one another over all samples."""
    wanted = f"want a tuple of pairs that follow one another from 0 to {n_samples}"
    if not isinstance(ranges, tuple):
        raise SchemaError(f"ranges are {ranges!r}; {wanted}")
    row = 0
    for pair in ranges:
        if not isinstance(pair, tuple) or len(pair) != 2 or pair[0] != row:
            raise SchemaError(f"ranges have {pair!r} where row {row} comes next; {wanted}")
        check_count("start of a range", pair[0], least=0)
        check_count("stop of a range", pair[1], least=row + 1)
        row = pair[1]
    if row != n_samples:
        raise SchemaError(f"ranges end at row {row}; {wanted}")


def check_attributes(attributes: object) -> None:
    """Raise SchemaError unless these are names with texts, finite numbers or truth values."""
    if not isinstance(attributes, Mapping):
        raise SchemaError(f"attributes are {shown(attributes)}; want names with texts or numbers")
    for name, value in attributes.items():
        if not isinstance(name, str) or not name.isidentifier() or "__" in name:
            raise SchemaError(
                f"attribute {shown(name)} is no name; use letters, digits and single '_'"
            )
        if name in _RESERVED:
            raise SchemaError(f"attribute {name!r} would hide what is stored anyway; rename it")
        if not isinstance(value, int | float | str):
            raise SchemaError(f"attribute {name} is {shown(value)}; want a text or a number")
        try:
            as_read(value)
        except ValueError as error:
            raise SchemaError(
                f"attribute {name} cannot be stored ({error}); want a text or a finite number"
            ) from error


def check_n_taps(n_taps: object, tap_index: int) -> None:
    """Raise SchemaError unless this is unknown, or more than the position of a tap."""
    if n_taps is not None:
        check_count("n_taps", n_taps, least=tap_index + 1)


def check_choice(name: str, value: object, *choices: str) -> None:
    """Raise SchemaError unless a value is one of some texts."""
    if not isinstance(value, str) or value not in choices:
        raise SchemaError(f"{name} is {shown(value)}; use {' or '.join(map(repr, choices))}")


def check_count(name: str, value: object, least: int = 1) -> None:
    """Raise SchemaError unless a value is an integer, and large enough."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= MOST_COUNT:
        raise SchemaError(f"{name} is {shown(value)}; want an integer of at least {least}")


def check_place(name: str, value: object, length: int) -> None:
    """Raise SchemaError unless a value is a place in a list of this length."""
    check_count(name, value, least=0)
    if isinstance(value, int) and value >= length:
        raise SchemaError(f"{name} is {value}; want one of {length}, from 0")


def check_positive(name: str, value: object) -> None:
    """Raise SchemaError unless a value is a finite number above 0."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and 0 < value < math.inf):  # type: ignore[operator]  # of numbers alone
        raise SchemaError(f"{name} is {shown(value)}; want a number above 0")


def check_shape(name: str, value: object) -> None:
    """Raise SchemaError unless a value is a tuple of positive integers."""
    if not isinstance(value, tuple) or not value:
        raise SchemaError(f"{name} is {shown(value)}; want a tuple of integers")
    for size in value:
        check_count(name, size)


def check_text(name: str, value: object, most: int = 1000) -> None:
    """Raise SchemaError unless a value is a text of 1 to so many letters, no controls among them.

    Nor half a surrogate pair, which no file and no terminal takes.
    """
    if not isinstance(value, str) or not value:
        raise SchemaError(f"{name} is {shown(value)}; want a text that is not empty")
    if len(value) > most or _CONTROLS.search(value):
        raise SchemaError(f"{name} is {shown(value)}; want at most {most} letters, and no controls")


def check_utc(name: str, value: object) -> None:
    """Raise SchemaError unless a value is a time in UTC by ISO 8601."""
    try:
        offset = datetime.fromisoformat(value).utcoffset() if isinstance(value, str) else None
    except ValueError:
        offset = None
    if offset != timedelta(0):
        raise SchemaError(f"{name} is {shown(value)}; want ISO 8601 in UTC, with its offset")


def exact_fields(cls: type[Any], values: object, since_2: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return a dataclass's stored fields, later ones of which may be absent; or SchemaError."""
    wanted = [each.name for each in fields(cls)]
    if not isinstance(values, Mapping) or {*values, *since_2} != set(wanted):
        found = sorted(map(str, values)) if isinstance(values, Mapping) else values
        raise SchemaError(
            f"stored {cls.__name__} is malformed: found {found!r}, want the fields"
            f" {', '.join(wanted)}; write it again"
        )
    return dict(values)


def as_list(name: str, value: object) -> list[Any]:
    """Return what JSON has as a list; raises SchemaError for anything else."""
    if not isinstance(value, list):
        raise SchemaError(f"{name} is {shown(value)}; want a list")
    return value


def as_tuple(name: str, value: object) -> tuple[int, ...]:
    """Return what JSON has as a list; raises SchemaError for anything else."""
    return tuple(as_list(name, value))
