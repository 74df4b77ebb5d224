"""Settings that have no effect beside others: they are refused, where they were ignored before."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from allcnn.errors import ConfigError
from allcnn.similarity.measures import Cka

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class _Rule:
    """Settings that only have an effect where something holds, and what to say where it does not.

    Attributes:
        of: names of the settings, of options and of flow parameters.
        beside: the setting that decides, where a command has it.
        holds: whether the settings have an effect.
        why: a sentence's second half, formatted with what was found of ``beside``.
        unless: a setting beside which those of the same name mean something else.
    """

    of: frozenset[str]
    beside: str
    holds: Callable[[Any], bool]
    why: str
    unless: str = ""

    def applies(self, settings: Settings) -> bool:
        """Return whether these settings leave those of the rule without effect."""
        there = self.beside in settings and self.unless not in settings
        return there and not self.holds(settings[self.beside])


_RULES: Final = (
    _Rule(
        frozenset({"batch_size", "errors", "convergence"}),
        "estimator",
        lambda estimator: not Cka(estimator).is_whole,
        "estimator is {}, which has no minibatches; leave it out, or use unbiased or biased",
        unless="minibatch",  # of a pipeline, whose batches are those of training
    ),
    _Rule(
        frozenset({"kernel", "pool"}),
        "keep",
        lambda keep: "grams" in keep,
        "keep is {}, and activations are stored as they are; leave it out, or keep grams as well",
        unless="estimator",  # of a night, which compares as well
    ),
    _Rule(
        frozenset({"compression"}),
        "keep",
        lambda keep: "activations" in keep,
        "keep is {}, which are never compressed; leave it out, or keep activations as well",
    ),
    _Rule(
        frozenset({"older_than"}),
        "what",
        lambda what: "abandoned" in what,
        "what is {}, and only what is abandoned has an age; leave it out, or name abandoned",
    ),
    _Rule(
        frozenset({"keep_activations"}),
        "what",
        lambda what: "superseded" in what,
        "what is {}, which removes no whole activations; leave it out, or name superseded",
    ),
)


def check_effective(given: Collection[str], settings: Settings) -> None:
    """Raise ConfigError for a setting that is given, and that others leave without any effect."""
    for rule in _RULES:
        if rule.applies(settings):
            found = settings[rule.beside]
            said = found if isinstance(found, str) else ",".join(found)
            for name in sorted(rule.of & set(given)):
                raise ConfigError(
                    f"{name.replace('_', '-')} has no effect: {rule.why.format(said)}"
                )
