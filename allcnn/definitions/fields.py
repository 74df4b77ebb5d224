"""One definition of a setting, from which options, forms, stored JSON and checks follow."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import partial
from typing import Any, Final

from allcnn.definitions.bounds import Bounds, shown
from allcnn.errors import ConfigError

PLAIN: Final = r"[A-Za-z0-9](\.?[A-Za-z0-9_-])*\.?"
"""A name that is safe as one path component, as a regular expression; no two dots in a row."""

NAME: Final = f"^{PLAIN}$"

_KEY: Final = "setting"


@dataclass(frozen=True)
class Setting:
    """A setting of a dataclass, whose field has its default.

    Attributes:
        name: the field's.
        default: MISSING where it must be given, None where nothing need be; a tuple for a list of
            distinct values.
        help: a noun phrase with its unit.
        bounds: the numbers that it may be.
        choices: the texts that it may be.
        names: the thing that it names, as in "data set", where it becomes a part of paths.
        pattern: a regular expression for texts, which forms check.
        read: makes a value of a text, and raises ConfigError.
        or_zero: whether 0 stands for a default that depends on other settings.
        each: help of the word ``each``, where that may stand in place of a value.
        several: whether a list asks for an object for each value.
        metavar: the option's placeholder, where ``placeholder`` says too little.
        option: the option's name, where it is another one.
    """

    name: str
    default: Any = MISSING
    help: str = ""
    bounds: Bounds | None = None
    choices: tuple[str, ...] = ()
    names: str = ""
    pattern: str = ""
    read: Callable[[str], Any] | None = None
    or_zero: bool = False
    each: str = ""
    several: bool = False
    metavar: str = ""
    option: str = ""

    @property
    def kind(self) -> type:
        """The type of its values, as forms have them."""
        if self.bounds is not None:
            return int if self.bounds.whole else float
        return type(self.default) if isinstance(self.default, bool | int | float) else str

    @property
    def is_list(self) -> bool:
        """Whether its value is a list of values."""
        return isinstance(self.default, tuple)

    @property
    def flag(self) -> str:
        """The name by which people give it, without dashes before it."""
        return self.option or self.name.replace("_", "-")

    @property
    def placeholder(self) -> str:
        """What stands for its value in help; empty where its type or its choices say it."""
        if self.metavar or self.bounds is None:
            return self.metavar or ("NAME" if self.names else "")
        return "LIST" if self.is_list or self.several else "N" if self.bounds.whole else ""

    def check(self, value: object) -> None:
        """Raise ConfigError for a value that it may not be."""
        if self.is_list:
            if value != self.default:
                self.check_list(value)
        elif not (value is None and self.default is None) and not (self.each and value == "each"):
            self._check_one(value)

    def check_list(self, values: Any) -> None:
        """Raise ConfigError unless these are one value or more, each once."""
        is_list = isinstance(values, list | tuple)
        for each in values if is_list else ():
            self._check_one(each)
        if not is_list or not values or len(set(values)) < len(values):
            found = shown(self.to_json(values))
            raise ConfigError(self.flag, f"is {found}", "name one value or more, each once")

    def _check_one(self, value: object) -> None:
        if self.bounds is not None:
            if not (self.or_zero and value == 0 and not isinstance(value, bool)):
                self.bounds.check(self.flag, value)
        elif self.names:
            check_name(self.names, value)
        elif self.choices or self.read is None:
            kinds = int | float if self.kind is float else self.kind
            is_kind = isinstance(value, kinds) and isinstance(value, bool) == (self.kind is bool)
            if not is_kind or (self.choices and value not in self.choices):
                wanted = " or ".join(self.choices) or _KINDS[self.kind]
                raise ConfigError(self.flag, f"is {shown(value)}", f"use {wanted}")

    def value(self, given: Any) -> Any:
        """Return the value of what a form or a command gives, such as the object of a text."""
        if isinstance(given, list | tuple):
            return tuple(map(self.value, given))
        return given if self.read is None else self.read(given)

    def to_json(self, value: Any) -> Any:
        """Return a value as it is stored."""
        if isinstance(value, tuple):
            return [*map(self.to_json, value)]
        return str(value) if self.read and value is not None else value


_KINDS: Final = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def setting(
    default: Any = MISSING, help: str = "", bounds: Bounds | None = None, **more: Any
) -> Any:
    """Return a field of a dataclass that is a setting; keywords are those of ``Setting``."""
    known = partial(Setting, default=default, help=help, bounds=bounds, **more)
    return field(default=default, metadata={_KEY: known})


def settings_of(of: Any) -> dict[str, Setting]:
    """Return the settings of a dataclass, by their names."""
    return {f.name: f.metadata[_KEY](f.name) for f in fields(of) if _KEY in f.metadata}


def only(of: Any, *names: str) -> list[Setting]:
    """Return some settings of a class or a mapping, in the order of their names here."""
    found = of if isinstance(of, Mapping) else settings_of(of)
    return [found[name] for name in names]


def but(of: Any, *names: str) -> list[Setting]:
    """Return all settings of a class or a mapping but some."""
    found = of if isinstance(of, Mapping) else settings_of(of)
    return [each for name, each in found.items() if name not in names]


def check_settings(of: Any) -> None:
    """Raise ConfigError for the first setting of an object whose value it may not be."""
    for name, each in settings_of(of).items():
        each.check(getattr(of, name))


def json_of(of: Any) -> dict[str, Any]:
    """Return the settings of an object as JSON values."""
    return {name: each.to_json(getattr(of, name)) for name, each in settings_of(of).items()}


def check_known(what: str, values: Mapping[str, Any], known: Collection[str]) -> None:
    """Raise ConfigError for settings that this version does not know."""
    if odd := sorted(set(values) - set(known)):
        raise ConfigError(
            f"{what} has no setting {' or '.join(odd)}", remedy=f"use {', '.join(sorted(known))}"
        )


def check_name(kind: str, name: object) -> str:
    """Return ``name`` if it is safe as one path component, else raise ConfigError."""
    # At most 100 letters: store keys join several names into one, and a file name has 255 bytes.
    if not isinstance(name, str) or len(name) > 100 or not re.fullmatch(PLAIN, name):
        raise ConfigError(
            f"{kind} {shown(name)}",
            "is not a name",
            "use at most 100 letters, digits, '_', '-' and single dots, beginning with a letter or"
            " digit",
        )
    return name
