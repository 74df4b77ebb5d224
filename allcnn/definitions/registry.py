"""Objects that vary (architectures, kernels, measures), found by name or as ``module:object``."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from importlib import import_module
from inspect import isabstract
from typing import Any, ClassVar, Final, Generic, TypeVar

from allcnn.definitions.bounds import shown
from allcnn.definitions.fields import Setting, check_settings, settings_of
from allcnn.errors import ConfigError, in_one_line

_PLACE: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


class Varying:
    """Base of what varies; a subclass is a frozen dataclass whose fields are its settings."""

    name: ClassVar[str]
    """Its name in options, results and metadata."""

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def reference(self) -> str:
        """The name by which it is found again: its own, or of others ``module:object``."""
        kind = type(self)
        is_own = kind.__module__.partition(".")[0] == __name__.partition(".")[0]
        return kind.name if is_own else f"{kind.__module__}:{kind.__name__}"

    def to_json(self) -> dict[str, Any]:
        """Return its settings as JSON values."""
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]


V = TypeVar("V", bound=Varying)


class Registry(Generic[V]):
    """The objects of one kind: this package's by name, any other as ``module:object``."""

    def __init__(self, kind: str, base: type[V], own: Iterable[type[V]]) -> None:
        self.kind = kind
        self._base = base
        self._own = {each.name: each for each in own}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of this package's own."""
        return tuple(self._own)

    def find(self, name: object) -> type[V]:
        """Return the class of a name; raises ConfigError for one that is unknown, saying why."""
        if isinstance(name, str) and name in self._own:
            return self._own[name]
        if not isinstance(name, str) or not _PLACE.fullmatch(name):
            raise ConfigError(
                self.kind, f"is {shown(name)}", f"use {', '.join(self._own)} or MODULE:OBJECT"
            )
        found = imported(self.kind, name)
        # Hashable, as programs are compiled for each.
        derived = isinstance(found, type) and issubclass(found, self._base) and is_dataclass(found)
        if not derived or isabstract(found) or found.__hash__ is None:
            raise ConfigError(
                self.kind,
                f"is {name}, which is no {self._base.__name__}",
                remedy=f"name a frozen dataclass that derives from {self._base.__module__}"
                f".{self._base.__name__}",
            )
        known: type[V] = found
        return known

    def setting(self, default: type[V]) -> Setting:
        """Return the setting that names one of them."""
        kinds = f"{', '.join(self._own)}, or MODULE:OBJECT"
        return Setting(self.kind, default.name, kinds, metavar="NAME")

    def settings(self, *others: str) -> dict[str, Setting]:
        """Return the settings of all of this package's own, and of others by name.

        Where two have a setting of one name, it is described by the first.
        """
        found: dict[str, Setting] = {}
        for each in (*self._own.values(), *map(self.find, others)):
            found = settings_of(each) | found
        return found

    def make(self, name: object, values: Mapping[str, Any], given: Iterable[str] = ()) -> V:
        """Return an object with those of some settings that are its own.

        Args:
            name: of the object.
            values: settings by name, of this object and of others.
            given: names of those that were asked for; raises ConfigError for a setting of another
                object of this kind among them, which would have no effect.
        """
        found = self.find(name)
        own = settings_of(found)
        known = self.settings()
        for each in given:
            if each in known and each not in own:
                flag = known[each].flag
                having = [n for n, kind in self._own.items() if each in settings_of(kind)]
                raise ConfigError(
                    f"{flag} has no effect: {self.kind} is {name}, which has no {flag}",
                    remedy=f"leave it out, or use the {self.kind} {' or '.join(having)}",
                )
        return found(**{each: values[each] for each in own if each in values})


def imported(setting: str, name: str) -> Any:
    """Return what ``module:object`` names; raises ConfigError where that cannot be imported."""
    module, _, attribute = name.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (Exception, SystemExit) as error:  # whatever its module does
        reason = in_one_line(error) or type(error).__name__
        raise ConfigError(
            setting,
            f"is {name}, which cannot be imported ({reason})",
            remedy="check the module's name, and that its folder is on PYTHONPATH",
        ) from error
