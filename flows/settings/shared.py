"""What commands and flows share: the flows, settings that belong to no dataclass, and a check.

It refuses settings that have no effect beside others.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple

from allcnn.commands import DEFAULT_ROOT
from allcnn.definitions.fields import Setting, only
from allcnn.errors import ConfigError
from allcnn.settings.extraction import Extraction
from allcnn.settings.run import RunConfig
from allcnn.similarity.measures import Cka

FLOWS: Final = ("train", "extract", "compare", "matrix", "probe", "pipeline", "report", "nightly")
"""Names of flows: of the module, of the function in it, and of the deployment."""

WORKSPACE: Final = Setting(
    "workspace",
    DEFAULT_ROOT,
    "folder or address (s3://...) of runs, stores, results and figures",
    metavar="FOLDER",
)
PRESET: Final = Setting(
    "preset",
    None,
    "a published network with its recipe of 350 epochs of CIFAR-10: d1-v2, plain-18, tiny-10,"
    " width-64",
    names="preset",
)
ERRORS: Final = Setting("errors", False, "show standard errors (jackknife over minibatches)")

MINIBATCH: Final = replace(*only(Extraction, "batch_size"), name="minibatch")
"""Beside the minibatches of training."""

_DEPTH, _SEED = only(RunConfig.settings(), "depth", "seed")
DEPTHS: Final = replace(
    _DEPTH, name="depths", default=(1, 2), help="depths of the networks", option="depth"
)
SEEDS: Final = replace(_SEED, name="seeds", default=(0, 1), help="seeds of the networks")


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
