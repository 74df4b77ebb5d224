"""Find by names, with filters such as ``tap="conv*", epoch__ge=5``."""

import operator
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np

from store.errors import QueryError
from store.model.names import fits, is_component, tap_name
from store.model.schema import GramMeta, RepresentationMeta
from store.storage.paths import Place

Scalar = str | int | float | bool
Wanted = Scalar | Collection[Scalar] | None
"""One value to compare with, several of which any will do, or None for no filter."""

TAP: Final = "tap"
LEVELS: Final = ("sample_set", "run", "checkpoint", TAP)
"""The names that are folders, from the root downwards."""

_TEXT, _NUMBER, _TRUTH = "text", "number", "truth value"
_KINDS: Final = dict.fromkeys((*LEVELS, "dataset", "split", "dtype"), _TEXT) | {
    "n_samples": _NUMBER,
    "complete": _TRUTH,
}
"""Names that everything stored has, and the kind of their values."""

_ORDERS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "ge": operator.ge,
    "gt": operator.gt,
    "le": operator.le,
    "lt": operator.lt,
}
_SIGNS: Final = {">=": "__ge", ">": "__gt", "<=": "__le", "<": "__lt", "!=": "__ne"}
_WHERE = re.compile(r"\s*([A-Za-z_]\w*)\s*(>=|<=|!=|==|=|>|<)\s*([^\s=<>].*?)\s*")
_DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def facts(meta: RepresentationMeta | GramMeta, complete: bool) -> dict[str, Scalar]:
    """Return what can be asked for by name: the key, the sample set, and free attributes."""
    found = {**meta.attributes, **{name: getattr(meta.of, name) for name in LEVELS}}
    found |= {name: getattr(meta.sample_set, name) for name in ("dataset", "split", "n_samples")}
    found |= {"complete": complete, "dtype": meta.dtype}
    if isinstance(meta, RepresentationMeta):
        return found
    return found | {name: getattr(meta.key, name) for name in ("kernel", "pool", "batch_size")}


@dataclass(frozen=True)
class Condition:
    """One comparison of a name with one value, or with several of which any will do.

    ``order`` is ``ge``, ``gt``, ``le``, ``lt``, ``ne``, or ``eq``: of texts, a name or a pattern.
    All values are of one ``kind``, which is None where there are none.
    """

    name: str
    order: str
    values: Collection[Scalar]
    kind: str | None

    def compares(self, value: Scalar) -> bool:
        """Return whether a value is of the kind that this compares with."""
        return self.kind in (None, _kind(value))

    def holds(self, found: Mapping[str, Scalar]) -> bool:
        """Return whether what is found fits; what lacks the name, or is of another kind, never."""
        value = found.get(self.name)
        if value is None or not self.compares(value):
            return False
        if self.order in _ORDERS:
            return bool(_ORDERS[self.order](value, *self.values))
        if isinstance(value, str):
            among = any(fits(value, str(pattern)) for pattern in self.values)
        else:
            among = value in self.values
        return among == (self.order == "eq")


@dataclass(frozen=True)
class Query:
    """Conditions that must all hold; errors write them ``in_signs`` for a shell: ``epoch>=5``."""

    conditions: tuple[Condition, ...] = ()
    in_signs: bool = False

    @classmethod
    def parse(cls, filters: Mapping[str, Wanted], *, in_signs: bool = False) -> Self:
        """Read keyword arguments; raises QueryError for values that cannot be compared."""
        given = {name: wanted for name, wanted in filters.items() if wanted is not None}
        read = (_condition(name, wanted, in_signs) for name, wanted in given.items())
        return cls(tuple(read), in_signs)

    def admits(self, level: str, folder: str) -> bool:
        """Return whether a folder can hold what fits, so that no other is opened."""
        name = tap_name(folder) if level == TAP else folder
        # Where a folder's name is cut, the metadata have the tap's.
        return name is None or all(
            c.holds({level: name}) for c in self.conditions if c.name == level
        )

    def exact(self, level: str) -> str | None:
        """Return the name of the one folder that can fit; None where several may, or taps."""
        for condition in self.conditions:
            if condition.name == level != TAP and condition.order == "eq":
                names = [*map(str, condition.values)]
                if len(names) == 1 and is_component(names[0]) and not set("*?[") & set(names[0]):
                    return names[0]
        return None

    def matches(self, found: Mapping[str, Scalar]) -> bool:
        """Return whether all conditions hold."""
        return all(condition.holds(found) for condition in self.conditions)

    def unsure(self, stored: Iterable[Mapping[str, Scalar]]) -> "Query":
        """Return the conditions on names that none of these has, or has of another kind alone."""
        left = [c for c in self.conditions if c.name not in _KINDS]
        for found in stored:
            left = [c for c in left if c.name not in found or not c.compares(found[c.name])]
        return Query(tuple(left), self.in_signs)

    def check(self, place: Place, stored: Collection[Mapping[str, Scalar]]) -> None:
        """Raise QueryError for a name, or a kind of value, that nothing in the store has."""
        for condition in self.unsure(stored).conditions if stored else ():
            values = [found[condition.name] for found in stored if condition.name in found]
            if values:
                raise _unlike(condition, _kind(values[0]), f" (such as {values[0]!r}) in {place}")
            known = sorted({name for found in stored for name in found})
            raise QueryError(
                f"nothing in {place} has the name {condition.name!r}",
                remedy=f"use one of {', '.join(known)}, {_COMPARING[self.in_signs]}",
            )


_COMPARING: Final = {
    False: "and __ge, __gt, __le, __lt or __ne after it to compare",
    True: "as in NAME=VALUE or NAME>=VALUE",
}


def parse_where(text: str) -> tuple[str, Wanted]:
    """Read a comparison such as ``epoch>=5`` or ``seed=0,1`` as a filter of ``find``.

    Numbers, true and false are taken for what they are, but for names that are always texts, and
    in quotation marks. Raises QueryError for other texts.
    """
    found = _WHERE.fullmatch(text)
    if not found:
        raise QueryError(
            f"{text!r} compares nothing",
            remedy="write NAME=VALUE, with =, !=, >=, >, <= or <, as in 'epoch>=5', 'tap=conv*' or"
            " 'seed=0,1'",
        )
    name, sign, written = found.groups()
    words = [written] if _is_quoted(written) else [word.strip() for word in written.split(",")]
    values = [_value(word, _KINDS.get(name)) for word in words]
    return name + _SIGNS.get(sign, ""), values[0] if len(values) == 1 else values


def _is_quoted(text: str) -> bool:
    return len(text) > 1 and text[0] == text[-1] and text[0] in "'\""


def _value(word: str, kind: str | None) -> Scalar:
    if _is_quoted(word):
        return word[1:-1]
    if kind == _TEXT:
        return word
    if word.lower() in ("true", "false"):
        return word.lower() == "true"
    if not _DECIMAL.fullmatch(word):
        return word
    return int(word) if word.lstrip("+-").isdigit() else float(word)


def _condition(given: str, wanted: Wanted, in_signs: bool) -> Condition:
    name, _, order = given.rpartition("__")
    if not name or order not in (*_ORDERS, "ne"):
        name, order = given, "eq"
    elif in_signs:
        given = name + next(sign for sign, end in _SIGNS.items() if end == f"__{order}")
    values = _values(given, wanted)
    kinds = {_kind(value) for value in values} if not isinstance(values, range) else {_NUMBER}
    if len(kinds) > 1:
        raise QueryError(given, f"is a {' and a '.join(sorted(kinds))}", "give values of one kind")
    condition = Condition(name, order, values, kinds.pop() if kinds else None)
    if order in _ORDERS and (len(values) != 1 or condition.kind == _TRUTH):
        raise QueryError(given, f"is {wanted!r}", "give one number or one text to compare with")
    if condition.kind not in (None, kind := _KINDS.get(name, condition.kind)):
        raise _unlike(condition, str(kind), "")
    return condition


def _values(given: str, wanted: Any) -> Collection[Scalar]:
    if isinstance(wanted, range):
        return wanted
    several = isinstance(wanted, list | tuple | set | frozenset | np.ndarray)
    given_values = wanted if several else (wanted,)
    values = tuple(v.item() if isinstance(v, np.generic) else v for v in given_values)
    if not all(isinstance(value, str | int | float) for value in values):
        advice = "give a text, a number, True or False, or a list of them"
        raise QueryError(given, f"is {wanted!r}", advice)
    return values


def _kind(value: Scalar) -> str:
    if isinstance(value, str):
        return _TEXT
    return _TRUTH if isinstance(value, bool) else _NUMBER


def _unlike(condition: Condition, kind: str, where: str) -> QueryError:
    some = next(iter(condition.values))
    return QueryError(
        f"{condition.name} is a {kind}{where}, and was compared with the {condition.kind} {some!r}",
        remedy=f"compare it with a {kind}",
    )
