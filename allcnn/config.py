"""Settings of runs, extractions and comparisons and their defaults; imports nothing heavy."""

import re
from dataclasses import asdict, dataclass, fields
from fnmatch import fnmatchcase
from typing import Any, Literal, Self, get_args

from allcnn import bounds
from allcnn.bounds import shown
from allcnn.errors import ConfigError

Architecture = Literal["all-cnn-c", "plain", "tiny", "width"]
Variant = Literal["v1", "v2"]
Precision = Literal["float32", "bfloat16"]
DType = Literal["float32", "float16"]
"""What extraction keeps: it computes in float32."""

StoredDType = Literal["float64", "float32", "float16"]
"""What stores hold: the activations of others may need float64."""

Kernel = Literal["linear", "rbf", "cosine"]
Pool = Literal["whole", "mean"]
Estimator = Literal["unbiased", "biased", "exact"]
Keep = Literal["activations", "grams"]
Compression = Literal["none", "zstd"]
Unusable = Literal["refuse", "skip"]

DEFAULT_SAMPLES = 2048
"""Examples that are extracted where nothing else is asked for."""

PENALTIES = tuple(float(f"{10 ** (-k / 2):.2g}") for k in range(2, 13))
"""From 0.1, where features of norm 1 are hardly used, to 1e-6, where thousands of them are fit."""

# At most 100 letters: store keys join several names into one, and a file name has 255 bytes.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def check_name(kind: str, name: str) -> str:
    """Return ``name`` if it is safe as one path component, else raise ConfigError."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or ".." in name:
        raise ConfigError(
            f"{kind} {shown(name)} is not a name: use at most 100 letters, digits, '_', '-'"
            " and single dots, beginning with a letter or digit"
        )
    return name


_LATER = ("architecture", "channels", "precision")
"""Fields that runs of version 0.1 lack."""


@dataclass(frozen=True)
class RunConfig:
    """Everything that determines a trained network, its seed included.

    The defaults are for a try on two cores: less than a minute on digits, about half an hour on
    CIFAR-10. The published recipes are in ``allcnn.networks.presets``.

    Attributes:
        dataset: TFDS name, or one of the builders in ``allcnn.datasets``.
        image_size: side of the square images in pixels, 12 to 4096; by default 32, and 16 of
            digits.
        architecture: All-CNN-C as trained by Lange (2021), or a network of Kornblith et al. (2019):
            Plain-(8n + 2), Tiny-10, Width-n.
        depth: n of the 7n + 3 taps of All-CNN-C, or of Plain-(8n + 2); 1 to 170.
        variant: v1 with dropout, v2 without; only All-CNN-C has a v1.
        width: factor on the published numbers of channels, 0.001 to 1000.
        channels: n of Width-n, the channels of each of its layers.
        seed: of initialisation, order of examples, augmentation and dropout; below 2**32.
        epochs: passes over the training split; the schedule's milestones scale with it.
        checkpoint_every: epochs between checkpoints; by default 5, or 1 of fewer than 10 epochs.
        batch_size: examples a step.
        learning_rate: at the start; divided by 10 at 200/350, 250/350 and 300/350 of the epochs.
        weight_decay: factor of the L2 term's gradient; the default trained best, by little, of
            0.001, 0.0005 and 0.0001 in eight epochs of CIFAR-10 at a quarter of the width.
        precision: of the forward and backward pass of training; parameters, batch statistics and
            losses are float32, and so is all evaluation.
        prefix: beginning of the run's name.
    """

    dataset: str = "digits"
    image_size: int = 0
    architecture: Architecture = "all-cnn-c"
    depth: int = 1
    variant: Variant = "v2"
    width: float = 0.25
    channels: int = 0
    seed: int = 0
    epochs: int = 20
    checkpoint_every: int = 0
    batch_size: int = 128
    learning_rate: float = 0.1
    weight_decay: float = 1e-3
    precision: Precision = "float32"
    prefix: str = "allcnn"

    def __post_init__(self) -> None:
        bounds.EPOCHS.check("epochs", self.epochs)
        if self.checkpoint_every == 0:
            object.__setattr__(self, "checkpoint_every", 5 if self.epochs >= 10 else 1)
        if self.image_size == 0 and self.image_size is not False:
            size = 16 if self.dataset == "digits" else 32
            object.__setattr__(self, "image_size", size)
        # Numbers first: the run's name is made of some of them.
        bounds.IMAGE_SIZE.check("image-size", self.image_size)
        bounds.DEPTH.check("depth", self.depth)
        bounds.EPOCHS.check("checkpoint-every", self.checkpoint_every)
        bounds.TRAINING_BATCH.check("batch-size", self.batch_size)
        bounds.SEED.check("seed", self.seed)
        if self.channels != 0:
            bounds.CHANNELS.check("channels", self.channels)
        check_name("data set", self.dataset)
        check_name("prefix", self.prefix)
        _one_of("architecture", self.architecture, get_args(Architecture))
        check_name("run", self.name)
        _one_of("variant", self.variant, get_args(Variant))
        _one_of("precision", self.precision, get_args(Precision))
        bounds.WIDTH.check("width", self.width)
        bounds.LEARNING_RATE.check("learning-rate", self.learning_rate)
        bounds.WEIGHT_DECAY.check("weight-decay", self.weight_decay)
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


def extracted_dtype(stored: StoredDType) -> DType:
    """Return the dtype in which extraction computes what is stored."""
    return "float16" if stored == "float16" else "float32"


@dataclass(frozen=True)
class Extraction:
    """What to extract.

    Attributes:
        run: name of a run in the workspace.
        checkpoint: one of its checkpoints.
        split: of the run's data set.
        n_samples: examples of the one fixed shuffle; None for 2,048, or all of a smaller split.
        batch_size: examples a minibatch, a chunk and a Gram, at least 4.
        dtype: of the stored activations, and of those that Grams are computed from.
        keep: activations, Grams, or both.
        kernel: of the Grams; linear ones, which ``rbf`` keeps as well, serve RBF of any bandwidth.
        pool: ``mean`` averages over space before the Gram.
        compression: of the stored activations.
    """

    run: str
    checkpoint: str
    split: str = "test"
    n_samples: int | None = None
    batch_size: int = 256
    dtype: DType = "float32"
    keep: tuple[Keep, ...] = ("activations",)
    kernel: Kernel = "linear"
    pool: Pool = "whole"
    compression: Compression = "none"

    def __post_init__(self) -> None:
        check_name("split", self.split)
        bounds.MINIBATCH.check("batch-size", self.batch_size)
        if self.n_samples is not None:
            bounds.SAMPLES.check("samples", self.n_samples)
        _one_of("dtype", self.dtype, get_args(DType))
        if not self.keep or not set(self.keep) <= set(get_args(Keep)):
            raise ConfigError(
                f"keep is {','.join(map(str, self.keep))!r}; use activations, grams, or"
                " activations,grams"
            )
        _one_of("kernel", self.kernel, get_args(Kernel))
        _one_of("pool", self.pool, get_args(Pool))
        _one_of("compression", self.compression, get_args(Compression))


@dataclass(frozen=True)
class Selection:
    """Representations by name: a run, a checkpoint and taps, each a name or a shell pattern.

    A tap's name is all that follows the first ``:`` behind the ``@``. It stands for itself whatever
    characters it has; as a pattern it may stand for others, too: in brackets, as in ``[[]``, a
    character is no part of one.
    """

    run: str
    checkpoint: str
    tap: str = "*"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``RUN@CHECKPOINT`` or ``RUN@CHECKPOINT:TAP``; raises ConfigError for other texts."""
        run, _, rest = text.partition("@")
        checkpoint, colon, tap = rest.partition(":")
        if not (run and checkpoint) or bool(colon) != bool(tap) or "@" in checkpoint:
            raise ConfigError(
                f"{text!r} names no network; write RUN@CHECKPOINT, as in a@final, or"
                " RUN@CHECKPOINT:TAP, as in 'a@*:conv[1-9]'"
            )
        return cls(run, checkpoint, tap or "*")

    @property
    def is_network(self) -> bool:
        """Whether this names one run and one checkpoint, without patterns."""
        return not set("*?[") & set(self.run + self.checkpoint)

    def matches(self, run: str, checkpoint: str, tap: str) -> bool:
        """Return whether a representation of these names is selected."""
        parts = ((run, self.run), (checkpoint, self.checkpoint), (tap, self.tap))
        return all(name == each or fnmatchcase(name, each) for name, each in parts)

    def __str__(self) -> str:
        return f"{self.run}@{self.checkpoint}" + (f":{self.tap}" if self.tap != "*" else "")


@dataclass(frozen=True)
class Comparison:
    """What to compare, and how.

    Attributes:
        rows: the representations that are the rows.
        columns: the representations that are the columns.
        kernel: linear, RBF or cosine.
        sigmas: bandwidths of the RBF kernel, as fractions of the median distance; a result each.
        estimator: of HSIC: unbiased or biased, summed over minibatches; exact, of the whole set.
        batch_size: examples a minibatch, at least 4.
        sample_set: name of the stored sample set; None for the largest that all have, of training
            examples only where they have no other.
        pool: ``mean`` averages convolutional taps over space.
        label: compare the examples of this class alone; ``each`` for every class, a result each.
        permutations: how often examples are matched at random, for a baseline.
        unusable: what cannot be compared, as it is unfinished, kept in another way, or left of an
            earlier run of the same name, is refused, or skipped.
    """

    rows: Selection
    columns: Selection
    kernel: Kernel = "linear"
    sigmas: tuple[float, ...] = (0.4,)
    estimator: Estimator = "unbiased"
    batch_size: int = 256
    sample_set: str | None = None
    pool: Pool = "whole"
    label: int | Literal["each"] | None = None
    permutations: int = 0
    unusable: Unusable = "refuse"

    def __post_init__(self) -> None:
        _one_of("kernel", self.kernel, get_args(Kernel))
        _one_of("unusable", self.unusable, get_args(Unusable))
        _one_of("estimator", self.estimator, get_args(Estimator))
        _one_of("pool", self.pool, get_args(Pool))
        for sigma in self.sigmas:
            bounds.SIGMA.check("sigma", sigma)
        if not self.sigmas or len(set(self.sigmas)) < len(self.sigmas):
            raise ConfigError(
                f"sigma is {shown([*self.sigmas])}; name one bandwidth or more, each once"
            )
        bounds.MINIBATCH.check("batch-size", self.batch_size)
        if self.label not in (None, "each"):
            bounds.LABEL.check("label", self.label)
        bounds.PERMUTATIONS.check("permutations", self.permutations)
        if self.permutations and (self.estimator == "exact" or self.label is not None):
            raise ConfigError(
                "permutations shuffle within minibatches of all classes; leave out the label, and"
                " use the unbiased or the biased estimator"
            )

    @property
    def bandwidths(self) -> tuple[float | None, ...]:
        """The fractions that results differ in: ``sigmas``, or None for a kernel without one."""
        return self.sigmas if self.kernel == "rbf" else (None,)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON values, the sides as people write them."""
        return asdict(self) | {
            "rows": str(self.rows),
            "columns": str(self.columns),
            "sigmas": list(self.sigmas),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Rebuild settings; raises ConfigError for what this version does not know.

        What is missing came later, and has its default.
        """
        known = {field.name for field in fields(cls)}
        needed = {"rows", "columns", "sigmas"}
        if not isinstance(values, dict) or not needed <= set(values) <= known:
            raise ConfigError(f"{values!r} are no settings of a comparison")
        try:
            sides = {side: Selection.parse(values[side]) for side in ("rows", "columns")}
            return cls(**values | sides | {"sigmas": tuple(values["sigmas"])})
        except (AttributeError, TypeError) as error:
            raise ConfigError(f"{values!r} are no settings of a comparison ({error})") from error


@dataclass(frozen=True)
class Probing:
    """Which linear classifiers to train, and how.

    Attributes:
        networks: whose taps are probed, one result a network.
        train_set: name of the stored sample set that is trained on; None for the largest of the
            split ``train`` that is stored of a network.
        test_set: the same of the examples that are classified, of the split ``test``.
        pool: ``mean`` averages convolutional taps over space.
        penalties: factors of the l2 term, of which one is chosen for each tap.
    """

    networks: Selection
    train_set: str | None = None
    test_set: str | None = None
    pool: Pool = "whole"
    penalties: tuple[float, ...] = PENALTIES

    def __post_init__(self) -> None:
        _one_of("pool", self.pool, get_args(Pool))
        for name, sample_set in (("train-set", self.train_set), ("test-set", self.test_set)):
            if sample_set is not None:
                check_name(name, sample_set)
        for penalty in self.penalties:
            bounds.PENALTY.check("penalty", penalty)
        if not self.penalties or len(set(self.penalties)) < len(self.penalties):
            raise ConfigError(
                f"penalties are {shown([*self.penalties])}; name one penalty or more, each once"
            )

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON values, the networks as people write them."""
        return asdict(self) | {
            "networks": str(self.networks),
            "penalties": list(self.penalties),
        }


def _one_of(name: str, value: object, choices: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise ConfigError(f"{name} is {shown(value)}; use {' or '.join(choices)}")
