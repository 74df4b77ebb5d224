"""Keep how well linear classifiers do on the taps of a network: one Zarr group a probe."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from store.errors import SchemaError, UnknownProbeError
from store.model.field_checks import as_list, check_choice, check_count, check_text
from store.model.names import check_component
from store.model.schema import RepresentationKey
from store.records import records
from store.records.records import Arrays, Matrix, RecordForm, Sizes

ARRAYS: Final[dict[str, tuple[str, ...]]] = {
    "accuracy": ("tap",),
    "train_accuracy": ("tap",),
    "class_accuracy": ("tap", "class"),
    "penalties": ("tap",),
    "n_features": ("tap",),
}
"""The arrays of numbers in a probe, and their dimensions."""

_SHARES = ("accuracy", "train_accuracy", "class_accuracy")


@dataclass(frozen=True, eq=False)
class ProbeResult:
    """How well a linear classifier does on each tap; arrays are float64, numbers of features int64.

    Attributes:
        name: of the probe, safe as a folder's name.
        taps: the representations of the test examples, in the network's order; all of one
            checkpoint of one run.
        train_set: name of the sample set of the training examples.
        accuracy: (tap,) share of the test examples that are classified rightly, 0 to 1; NaN for a
            tap whose activations are not finite.
        train_accuracy: (tap,) the same of the training examples.
        class_accuracy: (tap, class) the same of each class's test examples; NaN for a class that
            has none.
        penalties: (tap,) chosen factor of the l2 term.
        n_features: (tap,) numbers that a tap has of each example.
        classes: of the training examples, ascending.
        n_train: training examples.
        n_test: test examples.
        pool: ``whole``, or ``mean`` where convolutional taps were averaged over space.
        provenance: JSON values such as versions, sample sets, checkpoint digest and time.
    """

    name: str
    taps: tuple[RepresentationKey, ...]
    train_set: str
    accuracy: Matrix
    train_accuracy: Matrix
    class_accuracy: Matrix
    penalties: Matrix
    n_features: Sizes
    classes: tuple[int, ...]
    n_train: int
    n_test: int
    pool: str = "whole"
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(PROBES.facts_of(self))
        networks = {(key.sample_set, key.run, key.checkpoint) for key in self.taps}
        if len(networks) != 1:
            raise SchemaError(
                f"the taps of probe {self.name}",
                f"are of {len(networks)} networks",
                "want those of one checkpoint of one run, on one sample set",
            )
        for name, values in PROBES.as_stored(self).items():
            if name in _SHARES and np.any((values < 0) | (values > 1)):
                what = f"{name} of probe {self.name}"
                raise SchemaError(what, "has values outside 0 to 1", remedy="give shares")
            object.__setattr__(self, name, values)

    @property
    def standard_errors(self) -> Matrix:
        """The standard error of each accuracy, that of a share of so many test examples."""
        return np.sqrt(self.accuracy * (1 - self.accuracy) / self.n_test)


def _check(facts: Mapping[str, Any]) -> None:
    """Raise SchemaError, KeyError or TypeError for facts of other types or bounds."""
    check_component("probe", facts["name"])
    of_probe = f"of probe {facts['name']}"
    as_list(f"taps {of_probe}", facts["taps"])
    check_text(f"train_set {of_probe}", facts["train_set"])
    for count in ("n_train", "n_test"):
        check_count(f"{count} {of_probe}", facts[count])
    for label in as_list(f"classes {of_probe}", facts["classes"]):
        check_count(f"a class {of_probe}", label, least=0)
    check_choice("pool", facts.get("pool", "whole"), "whole", "mean")
    records.check_provenance(facts)


def _make(facts: Mapping[str, Any], arrays: Arrays) -> ProbeResult:
    given: dict[str, Any] = {**facts, **arrays}
    taps = tuple(map(RepresentationKey.from_text, facts["taps"]))
    return ProbeResult(**given | {"taps": taps, "classes": tuple(map(int, facts["classes"]))})


PROBES: Final = RecordForm(
    kind="probes",
    noun="probe",
    mark="allcnn_probe",
    own=ARRAYS,
    arrays_of=lambda probe: {name: getattr(probe, name) for name in ARRAYS},
    axes={"tap": "taps", "class": "classes"},
    sides=("taps",),
    dimensions=ARRAYS.__getitem__,
    first=(next(iter(ARRAYS)),),
    integers=frozenset({"n_features"}),
    unknown=UnknownProbeError,
    check=_check,
    make=_make,
)
"""How a store keeps probes."""

write_probe, read_probe = PROBES.write, PROBES.read
list_probes, has_probe = PROBES.names, PROBES.has
