"""One definition of a setting, from which options, forms, stored JSON and checks follow."""

import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Final

from allcnn.definitions.bounds import Bounds, shown
from allcnn.errors import ConfigError

# At most 100 letters: store keys join several names into one, and a file name has 255 bytes.
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_KEY: Final = "setting"


@dataclass(frozen=True)
class Setting:
    """A setting of a dataclass, whose field has its default.

    Attributes:
        name: the field's.
        default: None where nothing need be given; ``REQUIRED`` where something must.
        help: a noun phrase with its unit.
        bounds: the numbers that it may be.
        choices: the texts that it may be.
        names: what it names, as in "data set", where it becomes a part of paths.
        or_zero: whether 0 stands for a default that depends on other settings.
        several: whether a list asks for one object for each of its values.
        metavar: the option's placeholder.
        option: the option's name, where it is another one.
    """

    name: str
    default: Any
    help: str
    bounds: Bounds | None = None
    choices: tuple[str, ...] = ()
    names: str = ""
    or_zero: bool = False
    several: bool = False
    metavar: str = ""
    option: str = ""

    @property
    def kind(self) -> type:
        """The type of its values."""
        if self.bounds is not None:
            return int if self.bounds.whole else float
        return type(self.default) if isinstance(self.default, bool | int | float) else str

    @property
    def flag(self) -> str:
        """The name by which people give it, without dashes before it."""
        return self.option or self.name.replace("_", "-")

    def check(self, value: object) -> None:
        """Raise ConfigError for a value that it may not be."""
        if value is None and self.default is None:
            return
        if self.bounds is not None:
            if not (self.or_zero and value == 0 and not isinstance(value, bool)):
                self.bounds.check(self.flag, value)
        elif self.choices:
            one_of(self.flag, value, self.choices)
        elif self.names:
            check_name(self.names, value)
        elif not _is_of(self.kind, value):
            raise ConfigError(self.flag, f"is {shown(value)}", f"use {_KINDS[self.kind]}")


_KINDS: Final = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def _is_of(kind: type, value: object) -> bool:
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, kind) or (kind is float and isinstance(value, int))


REQUIRED: Final = object()
"""Default of a setting that must be given."""


def setting(
    default: Any = REQUIRED, help: str = "", bounds: Bounds | None = None, **more: Any
) -> Any:
    """Return a field of a dataclass that is a setting; keywords are those of ``Setting``."""
    known = {"help": help, "bounds": bounds, **more}
    if default is REQUIRED:
        return field(metadata={_KEY: known})
    return field(default=default, metadata={_KEY: known})


def settings_of(of: Any) -> dict[str, Setting]:
    """Return the settings of a dataclass, by their names."""
    return {
        f.name: Setting(f.name, REQUIRED if f.default is MISSING else f.default, **f.metadata[_KEY])
        for f in fields(of)
        if _KEY in f.metadata
    }


def only(of: Any, *names: str) -> list[Setting]:
    """Return some settings of a class, in the order of their names here."""
    found = settings_of(of)
    return [found[name] for name in names]


def but(settings: Mapping[str, Setting], *names: str) -> list[Setting]:
    """Return all settings but some."""
    return [each for name, each in settings.items() if name not in names]


def check_settings(of: Any) -> None:
    """Raise ConfigError for the first setting of an object whose value it may not be."""
    for each in settings_of(of).values():
        each.check(getattr(of, each.name))


def check_known(what: str, values: Mapping[str, Any], known: set[str]) -> None:
    """Raise ConfigError for settings that this version does not know."""
    if odd := sorted(set(values) - known):
        raise ConfigError(
            f"{what} has no setting {' or '.join(odd)}", remedy=f"use {_listed(known)}"
        )


def one_of(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise ConfigError for a text that is none of the choices."""
    if not isinstance(value, str) or value not in choices:
        raise ConfigError(name, f"is {shown(value)}", f"use {' or '.join(choices)}")


def check_name(kind: str, name: object) -> str:
    """Return ``name`` if it is safe as one path component, else raise ConfigError."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or ".." in name:
        raise ConfigError(
            f"{kind} {shown(name)}",
            "is not a name",
            "use at most 100 letters, digits, '_', '-' and single dots, beginning with a letter or"
            " digit",
        )
    return name


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names))
