"""Settings of comparisons."""

from dataclasses import dataclass
from typing import Any, Final, Literal, Self, get_args

from allcnn.definitions import bounds
from allcnn.definitions.bounds import shown
from allcnn.definitions.fields import check_known, check_settings, json_of, setting, settings_of
from allcnn.errors import ConfigError
from allcnn.settings.selection import Selection, selecting
from allcnn.similarity.method import OBJECTS, Method

Unusable = Literal["refuse", "skip"]

FORMER: Final = {"sigmas": "sigma"}
"""Names that settings had in results of earlier versions."""


@dataclass(frozen=True)
class Comparison:
    """What to compare, and how.

    Attributes:
        methods: a result each; they differ in their kernel's settings alone.
    """

    rows: Selection = selecting()
    columns: Selection = selecting("pattern of the columns; by default that of the rows")
    methods: tuple[Method, ...] = (Method(),)
    sample_set: str | None = setting(
        None,
        "name of a stored sample set [default: the largest that both sides have, rather of test"
        " than of training examples]",
        names="sample set",
    )
    label: int | Literal["each"] | None = setting(
        None,
        "compare the examples of this class alone",
        bounds.LABEL,
        each="compare the examples of every class, a matrix each",
    )
    permutations: int = setting(
        0, "match examples at random so many times, for a baseline", bounds.PERMUTATIONS
    )
    unusable: Unusable = setting(
        "refuse",
        "networks that cannot be compared, being unfinished, kept in another way, or left of an"
        " earlier run of the same name: refuse, or skip them",
        choices=get_args(Unusable),
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if not self.methods or len(set(self.methods)) < len(self.methods):
            found = [each.kernel.title for each in self.methods]
            raise ConfigError("methods", f"are {shown(found)}", "name one or more, each once")
        if self.permutations and (self.method.is_whole or self.label is not None):
            raise ConfigError(
                "permutations",
                "shuffle within minibatches of all classes",
                remedy="leave out the label, and use an estimator that has minibatches",
            )

    @property
    def method(self) -> Method:
        """The first of the methods, which share all but settings of their kernels."""
        return self.methods[0]

    def to_json(self) -> dict[str, Any]:
        """Return the settings as flat JSON values, the sides as people write them."""
        flat = [each.to_json() for each in self.methods]
        several = {n for n, s in settings_of(self.method.kernel).items() if s.several}
        return json_of(self) | flat[0] | {n: [each[n] for each in flat] for n in several}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Rebuild settings; raises ConfigError for what this version does not know.

        What is missing came later, and has its default.
        """
        if not isinstance(values, dict) or not {"rows", "columns"} <= set(values):
            raise ConfigError(f"{shown(values)} are no settings of a comparison")
        values = {FORMER.get(name, name): value for name, value in values.items()}
        try:
            own = settings_of(cls)
            objects = [str(values[kind]) for kind in OBJECTS if kind in values]
            check_known("a comparison", values, own.keys() | Method.settings(*objects))
            mine = {name: each.value(values[name]) for name, each in own.items() if name in values}
            return cls(methods=Method.several(values), **mine)
        except (AttributeError, TypeError) as error:
            raise ConfigError(
                f"{shown(values)} are no settings of a comparison ({error})"
            ) from error
