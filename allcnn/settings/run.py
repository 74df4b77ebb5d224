"""Everything that determines a trained network."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self, get_args

from allcnn.definitions import bounds
from allcnn.definitions.bounds import shown
from allcnn.definitions.fields import (
    Setting,
    check_known,
    check_name,
    check_settings,
    json_of,
    setting,
    settings_of,
)
from allcnn.errors import ConfigError
from allcnn.networks.architectures import ARCHITECTURES, AllCnnC, Architecture
from allcnn.networks.network import Precision


@dataclass(frozen=True)
class RunConfig:
    """Everything that determines a trained network, its seed included.

    The defaults are for a try on two cores: less than a minute on digits, about half an hour on
    CIFAR-10. The published recipes are in ``allcnn.networks.architectures.presets``.

    Settings of the architecture stand beside its own in options and JSON.
    """

    dataset: str = setting(
        "digits",
        "digits, cifar10, cifar100, fashion_mnist, or a data set prepared in TFDS_DATA_DIR",
        names="data set",
    )
    image_size: int = setting(
        0,
        f"side of the images in pixels, {bounds.IMAGE_SIZE}; 0 for 16 of digits, 32 of others",
        bounds.IMAGE_SIZE,
        or_zero=True,
        metavar="PIXELS",
    )
    architecture: Architecture = AllCnnC()
    seed: int = setting(0, "of initialisation, order, augmentation and dropout", bounds.SEED)
    epochs: int = setting(
        20, "passes over the training images; the schedule scales with them", bounds.EPOCHS
    )
    checkpoint_every: int = setting(
        0,
        "epochs between checkpoints; 0 for 5, or for 1 of fewer than 10 epochs",
        bounds.EPOCHS,
        or_zero=True,
        metavar="EPOCHS",
    )
    batch_size: int = setting(
        128, "images per training step, at least 4", bounds.TRAINING_BATCH, metavar="IMAGES"
    )
    learning_rate: float = setting(
        0.1, "at the start, above 0", bounds.LEARNING_RATE, metavar="RATE"
    )
    weight_decay: float = setting(
        1e-3, "factor of the L2 term's gradient, 0 or more", bounds.WEIGHT_DECAY, metavar="FACTOR"
    )
    precision: Precision = setting(
        "float32",
        "of training's convolutions; parameters and evaluation are float32",
        choices=get_args(Precision),
    )
    prefix: str = setting("allcnn", "beginning of the runs' names", names="prefix")

    def __post_init__(self) -> None:
        check_settings(self)
        if self.checkpoint_every == 0:
            object.__setattr__(self, "checkpoint_every", 5 if self.epochs >= 10 else 1)
        if self.image_size == 0:
            size = 16 if self.dataset == "digits" else 32
            object.__setattr__(self, "image_size", size)
        check_name("run", self.name)

    @staticmethod
    def settings(*others: str) -> dict[str, Setting]:
        """Return the settings of all runs, and those of architectures given by name."""
        chosen = {"architecture": ARCHITECTURES.setting(AllCnnC)}
        return chosen | ARCHITECTURES.settings(*others) | settings_of(RunConfig)

    @classmethod
    def of(cls, given: Iterable[str] = (), /, **values: Any) -> Self:
        """Return a run of flat settings, those of its architecture among them.

        Args:
            given: names of those that were asked for, see `Registry.make`.
            values: by name; those of other architectures are ignored unless they are given.

        Raises ConfigError for a setting that is unknown, outside its bounds or without effect.
        """
        name = values.get("architecture", AllCnnC.name)
        check_known("a run", values, {*cls.settings(name)})
        made = ARCHITECTURES.make(name, values, given)
        own = settings_of(cls)
        return cls(architecture=made, **{n: value for n, value in values.items() if n in own})

    @classmethod
    def chosen(
        cls, values: Mapping[str, Any], given: Iterable[str], preset: Mapping[str, Any] = {}
    ) -> dict[str, Any]:
        """Return the settings of a run among those of options or a form, most of them defaults.

        A default of one architecture is no value for another that has a setting of that name.

        Args:
            values: by name.
            given: names of those that were asked for, see `of`.
            preset: values that replace others.
        """
        values, given = {**values, **preset}, {*given}
        own = {"architecture", *settings_of(cls)}
        known = cls.settings(str(values["architecture"])).keys() & (own | given | preset.keys())
        found = {name: value for name, value in values.items() if name in known}
        cls.of(given, **found)
        return found

    def but(self, **changes: Any) -> Self:
        """Return a run with other settings, of its architecture too."""
        return type(self).of(**self.to_json() | changes)

    @property
    def name(self) -> str:
        """The run's name, such as ``allcnn-d1-v2-s0`` or ``allcnn-plain-18-s0``."""
        return f"{self.prefix}-{self.architecture.label}-s{self.seed}"

    def to_json(self) -> dict[str, Any]:
        """Return the settings as flat JSON values."""
        of = self.architecture
        return {"architecture": of.reference} | of.to_json() | json_of(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Rebuild settings; raises ConfigError for unknown or missing fields.

        Runs of earlier versions lack later settings, and hold defaults of other architectures.
        """
        if not isinstance(values, dict):
            raise ConfigError("the run's settings", f"are {shown(values)}", "want names and values")
        name = values.get("architecture", AllCnnC.name)
        own = settings_of(ARCHITECTURES.find(name))
        kept = {n: v for n, v in values.items() if n in own or _FORMER.get(n, ...) != v}
        known = {"architecture", *own, *settings_of(cls)}
        missing = known - _LATER - set(kept)
        if odd := ", ".join(sorted(missing | set(kept) - known)):
            raise ConfigError(f"the run's settings do not fit this version: {odd} differ")
        return cls.of(**kept)


_LATER: Final = {"architecture", "channels", "precision"}
"""Settings that runs of version 0.1 lack."""

_FORMER: Final = {"depth": 1, "variant": "v2", "channels": 0}
"""Values in runs of earlier versions whose architecture has no such setting."""
