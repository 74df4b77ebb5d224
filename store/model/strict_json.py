"""Read JSON from elsewhere, and refuse what Python's own reader lets through."""

import json
from collections.abc import Sequence
from typing import Any, Final, NoReturn

_DEEPEST: Final = 64
"""Python fails at a depth of a thousand, wherever the values are used; none of ours has ten."""

_MOST_DIGITS: Final = 20
"""Digits of whole numbers, which have 64 bits elsewhere."""


def parse(content: bytes | str, *, constants: bool = False) -> Any:
    """Return the values of a JSON text; raises ValueError, with half a sentence, for any other.

    Refused as well: names that an object has twice, whole numbers of more than 64 bits and floats
    that are infinite, lone surrogates, and values that nest deeper than 64. NaN and infinities are
    no JSON; ``constants`` lets them pass, for metadata that other programs write with them.
    """
    text = content.decode() if isinstance(content, bytes) else content
    try:
        values = json.loads(
            text,
            object_pairs_hook=_named_once,
            parse_int=_whole,
            parse_float=_finite,
            parse_constant=float if constants else _refuse_constant,
        )
    except RecursionError:
        raise ValueError("its values nest too deep") from None
    level, depth = [values], 0
    while level := [each for one in level for each in _parts(one) if isinstance(each, dict | list)]:
        depth += 1
        if depth == _DEEPEST:
            raise ValueError("its values nest too deep")
    if "\\ud" in text or "\\uD" in text:
        try:
            json.dumps(values, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("a text in it has half a surrogate pair") from None
    return values


def as_read(values: object, *, constants: bool = False) -> Any:
    """Return values as they will be read; ValueError or TypeError for what cannot be read again."""
    return parse(json.dumps(values), constants=constants)


def _named_once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {twice[:60]!r} stands in it twice")
    return found


def _whole(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"a number in it has {len(text)} digits")
    return int(text)


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"the number {text[:60]} in it is too large")
    return number


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} stands in it, which is no JSON")


def _parts(value: object) -> Sequence[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else ()
