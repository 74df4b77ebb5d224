"""Refuse settings that have no effect beside others."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, NamedTuple

from allcnn.errors import ConfigError
from allcnn.similarity.measures import Cka


class _Rule(NamedTuple):
    """The settings ``of`` only have an effect where ``holds`` is true of the setting ``beside``.

    ``why`` is formatted with the value of ``beside``; beside ``unless`` the same names mean
    something else.
    """

    of: frozenset[str]
    beside: str
    holds: Callable[[Any], bool]
    why: str
    unless: str = ""


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
        unless="estimator",  # of a nightly run, which compares as well
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


def check_effective(given: Collection[str], settings: Mapping[str, Any]) -> None:
    """Raise ConfigError for a setting that is given, and that others leave without any effect."""
    for rule in _RULES:
        if rule.beside not in settings or rule.unless in settings:
            continue
        found = settings[rule.beside]
        without = rule.of & set(given)
        if without and not rule.holds(found):
            value = found if isinstance(found, str) else ",".join(found)
            name = min(without).replace("_", "-")
            raise ConfigError(f"{name} has no effect: {rule.why.format(value)}")
