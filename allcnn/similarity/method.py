"""All that fixes a number but the data: a measure, a kernel, pooling, and minibatches."""

import itertools
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Literal, Self, get_args

from allcnn.definitions import bounds
from allcnn.definitions.bounds import shown
from allcnn.definitions.fields import Setting, check_settings, setting, settings_of
from allcnn.definitions.registry import Registry
from allcnn.errors import ConfigError
from allcnn.similarity.kernels import KERNELS, Kernel, Linear
from allcnn.similarity.measures import MEASURES, Cka, Measure

Pool = Literal["whole", "mean"]

POOL_HELP: Final = "mean: average convolutional taps over space first"
MINIBATCH_HELP: Final = "examples per minibatch of the store and of HSIC, at least 4"

OBJECTS: Final[dict[str, Registry[Any]]] = {"measure": MEASURES, "kernel": KERNELS}
"""The objects that a method is made of."""

_DEFAULTS: Final = {"measure": Cka.name, "kernel": Linear.name}


@dataclass(frozen=True)
class Method:
    """Everything that fixes a number but the data."""

    measure: Measure = Cka()
    kernel: Kernel = Linear()
    pool: Pool = setting("whole", POOL_HELP, choices=get_args(Pool))
    batch_size: int = setting(256, MINIBATCH_HELP, bounds.MINIBATCH)

    def __post_init__(self) -> None:
        check_settings(self)

    @staticmethod
    def settings(*others: str) -> dict[str, Setting]:
        """Return the settings of all methods, and of kernels and measures given by name."""
        found = {"measure": MEASURES.setting(Cka), "kernel": KERNELS.setting(Linear)}
        for registry in OBJECTS.values():
            found |= registry.settings()
            for each in others:
                with suppress(ConfigError):  # the name of another kind
                    found |= registry.settings(each)
        return found | settings_of(Method)

    @classmethod
    def several(cls, values: Mapping[str, Any], given: Iterable[str] = ()) -> tuple[Self, ...]:
        """Return the methods that flat settings ask for, one for each value of a list.

        Args:
            values: by name; a setting of which several values may be given may be a list.
            given: names of those that were asked for, see `Registry.make`.

        Raises ConfigError for a setting that is unknown, outside its bounds or without effect.
        """
        names = {kind: values.get(kind, default) for kind, default in _DEFAULTS.items()}
        classes = {kind: OBJECTS[kind].find(name) for kind, name in names.items()}
        own = {n: s for each in classes.values() for n, s in settings_of(each).items()}
        lists = {n: _list(values[n]) for n, each in own.items() if each.several and n in values}
        for name, listed in lists.items():
            own[name].check_list(listed)
        given, methods = tuple(given), []
        for chosen in itertools.product(*lists.values()):
            one = {**values, **dict(zip(lists, chosen, strict=True))}
            made = {k: OBJECTS[k].make(n, one, given) for k, n in names.items()}
            methods.append(cls(**made, **{n: one[n] for n in settings_of(cls) if n in one}))
        return tuple(methods)

    @property
    def is_whole(self) -> bool:
        """Whether all examples are one minibatch."""
        return self.measure.is_whole

    @property
    def minibatch(self) -> int | None:
        """Examples of a minibatch; None where all examples are one."""
        return None if self.is_whole else self.batch_size

    def to_json(self) -> dict[str, Any]:
        """Return the method as flat JSON values."""
        return {
            "measure": self.measure.reference,
            "kernel": self.kernel.reference,
            "pool": self.pool,
            "batch_size": self.batch_size,
            **self.measure.to_json(),
            **self.kernel.to_json(),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any], given: Iterable[str] = ()) -> Self:
        """Return the one method that flat settings ask for; arguments and errors as `several`."""
        found = cls.several(values, given)
        if len(found) > 1:
            raise ConfigError(
                f"settings {shown(dict(values))} ask for {len(found)} methods",
                remedy="give one value of each",
            )
        return found[0]


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
