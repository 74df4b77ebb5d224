"""Checks of the fields of metadata; each raises SchemaError for values that cannot be stored."""

import re
import reprlib
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from store.errors import SchemaError
from store.model.strict_json import as_read

MOST_COUNT: Final = 2**53
"""Beyond it, floats no longer count exactly, nor do programs that read JSON numbers as floats."""

_CONTROLS: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

_SHORT: Final = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 150

shown: Final[Callable[[object], str]] = _SHORT.repr
"""Return a value as an error shows it: the beginning and end of a long or deep one."""

_RESERVED: Final = frozenset(
    "sample_set run checkpoint tap dataset split n_samples dtype complete tap_index".split()
)
"""Names that a query would look for elsewhere."""


def _unfit(name: str, value: object, wanted: str) -> SchemaError:
    return SchemaError(name, f"is {shown(value)}", wanted)


def check_choice(name: str, value: object, *choices: str) -> None:
    """Require one of some texts."""
    if not isinstance(value, str) or value not in choices:
        raise _unfit(name, value, f"use {' or '.join(map(repr, choices))}")


def check_count(name: str, value: object, least: int = 1, most: int = MOST_COUNT) -> None:
    """Require an integer from ``least`` to ``most``."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        bounds = f"of at least {least}" if most == MOST_COUNT else f"from {least} to {most}"
        raise _unfit(name, value, f"want an integer {bounds}")


def check_shape(name: str, value: object) -> None:
    """Require a tuple of positive integers."""
    if not isinstance(value, tuple) or not value:
        raise _unfit(name, value, "want a tuple of integers")
    for size in value:
        check_count(name, size)


def check_text(name: str, value: object, most: int = 1000) -> None:
    """Require a text of 1 to ``most`` letters, without control characters and lone surrogates."""
    if not isinstance(value, str) or not value:
        raise _unfit(name, value, "want a text that is not empty")
    if len(value) > most or _CONTROLS.search(value):
        raise _unfit(name, value, f"want at most {most} letters, and no controls")


def check_utc(name: str, value: object) -> None:
    """Require a time in UTC by ISO 8601."""
    try:
        offset = datetime.fromisoformat(value).utcoffset() if isinstance(value, str) else None
    except ValueError:
        offset = None
    if offset != timedelta(0):
        raise _unfit(name, value, "want ISO 8601 in UTC, with its offset")


def check_attributes(attributes: object) -> None:
    """Require names with texts, finite numbers or truth values."""
    if not isinstance(attributes, Mapping):
        raise SchemaError(
            "attributes", f"are {shown(attributes)}", "want names with texts or numbers"
        )
    for name, value in attributes.items():
        if not isinstance(name, str) or not name.isidentifier() or "__" in name:
            advice = "use letters, digits and single '_'"
            raise SchemaError("attribute", f"{shown(name)} is no name", advice)
        what = f"attribute {name}"
        if name in _RESERVED:
            raise SchemaError(
                f"attribute {name!r}", "would hide what is stored anyway", "rename it"
            )
        if not isinstance(value, int | float | str):
            raise _unfit(what, value, "want a text or a number")
        try:
            as_read(value)
        except ValueError as error:
            wanted = "want a text or a finite number"
            raise SchemaError(what, f"cannot be stored ({error})", wanted) from error


def check_ranges(ranges: object, n_samples: int) -> None:
    """Require minibatches, as pairs of rows, that follow one another over all samples."""
    wanted = f"want a tuple of pairs that follow one another from 0 to {n_samples}"
    if not isinstance(ranges, tuple):
        raise SchemaError("ranges", f"are {shown(ranges)}", wanted)
    row = 0
    for pair in ranges:
        if not isinstance(pair, tuple) or len(pair) != 2 or pair[0] != row:
            raise SchemaError("ranges", f"have {shown(pair)} where row {row} comes next", wanted)
        check_count("start of a range", pair[0], least=0)
        check_count("stop of a range", pair[1], least=row + 1)
        row = pair[1]
    if row != n_samples:
        raise SchemaError("ranges", f"end at row {row}", wanted)


def as_list(name: str, value: object) -> list[Any]:
    """Return what JSON has as a list."""
    if not isinstance(value, list):
        raise _unfit(name, value, "want a list")
    return value
