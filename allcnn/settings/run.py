"""Everything that determines a trained network."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self, get_args

from allcnn.definitions import bounds
from allcnn.definitions.fields import check_name, check_settings, setting
from allcnn.errors import ConfigError

Architecture = Literal["all-cnn-c", "plain", "tiny", "width"]
Variant = Literal["v1", "v2"]
Precision = Literal["float32", "bfloat16"]

_LATER = ("architecture", "channels", "precision")
"""Fields that runs of version 0.1 lack."""


@dataclass(frozen=True)
class RunConfig:
    """Everything that determines a trained network, its seed included.

    The defaults are for a try on two cores: less than a minute on digits, about half an hour on
    CIFAR-10. The published recipes are in ``allcnn.networks.presets``.

    What an architecture does not have is left at its default.
    """

    dataset: str = setting(
        "digits",
        "digits, cifar10, cifar100, fashion_mnist, or a data set prepared in TFDS_DATA_DIR",
        names="data set",
        metavar="NAME",
    )
    image_size: int = setting(
        0,
        f"side of the images in pixels, {bounds.IMAGE_SIZE}; 0 for 16 of digits, 32 of others",
        bounds.IMAGE_SIZE,
        or_zero=True,
        metavar="PIXELS",
    )
    architecture: Architecture = setting(
        "all-cnn-c",
        "all-cnn-c, or plain, tiny, width of Kornblith et al. (2019)",
        choices=get_args(Architecture),
    )
    depth: int = setting(
        1, f"n, which gives the network 7n + 3 taps, {bounds.DEPTH}", bounds.DEPTH, metavar="N"
    )
    variant: Variant = setting("v2", "v1 with dropout, v2 without", choices=get_args(Variant))
    width: float = setting(
        0.25,
        f"factor on the published 96 and 192 channels, {bounds.WIDTH}",
        bounds.WIDTH,
        metavar="FACTOR",
    )
    channels: int = setting(
        0,
        "n of the architecture width: channels of each layer",
        bounds.CHANNELS,
        or_zero=True,
        metavar="N",
    )
    seed: int = setting(
        0, "of initialisation, order, augmentation and dropout", bounds.SEED, metavar="N"
    )
    epochs: int = setting(
        20,
        "passes over the training images; the schedule scales with them",
        bounds.EPOCHS,
        metavar="N",
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
    prefix: str = setting("allcnn", "beginning of the runs' names", names="prefix", metavar="NAME")

    def __post_init__(self) -> None:
        check_settings(self)
        if self.checkpoint_every == 0:
            object.__setattr__(self, "checkpoint_every", 5 if self.epochs >= 10 else 1)
        if self.image_size == 0:
            size = 16 if self.dataset == "digits" else 32
            object.__setattr__(self, "image_size", size)
        check_name("run", self.name)
        self._check_architecture()

    def _check_architecture(self) -> None:
        """Refuse settings that the architecture does not have."""
        kind = self.architecture
        if kind != "all-cnn-c" and self.variant != "v2":
            raise ConfigError(f"variant is {self.variant}, and {kind} has no dropout; use v2")
        if kind in ("tiny", "width") and self.depth != 1:
            raise ConfigError(f"depth is {self.depth}, and {kind} has one depth; use 1, or plain")
        if kind == "width":
            bounds.CHANNELS.check("channels", self.channels)
        elif self.channels != 0 or isinstance(self.channels, bool):
            raise ConfigError(f"channels is {self.channels}, and {kind} has its own; use width")

    @property
    def name(self) -> str:
        """The run's name, such as ``allcnn-d1-v2-s0`` or ``allcnn-plain-18-s0``."""
        network = {
            "all-cnn-c": f"d{self.depth}-{self.variant}",
            "plain": f"plain-{8 * self.depth + 2}",
            "tiny": "tiny-10",
            "width": f"width-{self.channels}",
        }
        return f"{self.prefix}-{network[self.architecture]}-s{self.seed}"

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Rebuild settings; raises ConfigError for unknown or missing fields.

        Runs of version 0.1 lack the fields that came later, and have what is their default now.
        """
        known = {field.name for field in fields(cls)}
        values = {name: getattr(cls, name) for name in _LATER} | values
        if set(values) != known:
            odd = ", ".join(sorted(set(values) ^ known))
            raise ConfigError(f"the run's settings do not fit this version: {odd} differ")
        return cls(**values)
