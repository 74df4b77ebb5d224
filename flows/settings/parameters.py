"""Parameters of the flows: pydantic models with bounds, refused before a flow run exists."""

from abc import abstractmethod
from itertools import product
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from allcnn import bounds
from allcnn.bounds import Bounds
from allcnn.cluster.spec import PATTERN, THREADS, ClusterSpec
from allcnn.config import (
    Architecture,
    Comparison,
    Compression,
    DType,
    Estimator,
    Extraction,
    Keep,
    Kernel,
    Pool,
    Precision,
    Probing,
    RunConfig,
    Selection,
    Unusable,
    Variant,
)
from allcnn.networks import presets
from allcnn.workspace.paths import Workspace
from flows.cli.ineffective import check_effective
from flows.cli.options import HELP
from flows.settings.nightly_plan import Busy, Nightly
from flows.settings.pipeline_plan import Pipeline

# As ``allcnn.config.check_name``: no two dots in a row.
_PLAIN = r"[A-Za-z0-9](\.?[A-Za-z0-9_-])*\.?"
_NAME = f"^{_PLAIN}$"
_NETWORK = f"^{_PLAIN}@{_PLAIN}$"
# Names with shell patterns, as ``allcnn.config.Selection`` reads them; taps have any name.
_GLOB = r"[A-Za-z0-9_.*?\[\]!-]+"
_PATTERN = f"^{_GLOB}@{_GLOB}(:.+)?$"
_NETWORKS = f"^{_GLOB}@{_GLOB}$"

T = TypeVar("T")
Distinct = Annotated[list[T], Field(min_length=1, json_schema_extra={"uniqueItems": True})]


def _within(limits: Bounds, least: float | None = None) -> Any:
    """Return the bounds of a setting as pydantic has them."""
    return Field(ge=limits.least if least is None else least, le=limits.most)


Depth = Annotated[int, _within(bounds.DEPTH)]
Seed = Annotated[int, _within(bounds.SEED)]
ImageSize = Annotated[int, _within(bounds.IMAGE_SIZE, least=0)]
Width = Annotated[float, _within(bounds.WIDTH)]
Channels = Annotated[int, _within(bounds.CHANNELS, least=0)]
Epochs = Annotated[int, _within(bounds.EPOCHS)]
CheckpointEvery = Annotated[int, _within(bounds.EPOCHS, least=0)]
TrainingBatch = Annotated[int, _within(bounds.TRAINING_BATCH)]
LearningRate = Annotated[float, _within(bounds.LEARNING_RATE)]
WeightDecay = Annotated[float, _within(bounds.WEIGHT_DECAY)]
Samples = Annotated[int, _within(bounds.SAMPLES)]
Minibatch = Annotated[int, _within(bounds.MINIBATCH)]
Label = Annotated[int, _within(bounds.LABEL)]
Permutations = Annotated[int, _within(bounds.PERMUTATIONS)]
Share = Annotated[float, _within(bounds.SHARE)]
Pattern = Annotated[str, Field(pattern=_PATTERN)]
Sigmas = Annotated[
    Distinct[Annotated[float, _within(bounds.SIGMA)]], Field(description=HELP["sigmas"])
]
Penalties = Annotated[
    Distinct[Annotated[float, _within(bounds.PENALTY)]], Field(description=HELP["penalties"])
]


class Parameters(BaseModel):
    """What every flow needs: where everything is kept."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    workspace: str = Field("workspace", min_length=1, description=HELP["workspace"])

    @abstractmethod
    def job(self) -> object:
        """Return the settings as the work takes them; raises ConfigError."""

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        """Refuse what no single field's bounds can, such as a network that is named twice."""
        self.check()
        # Forms of web pages send every setting, most of them with their defaults.
        fields, settings = type(self).model_fields, self.model_dump()
        check_effective(
            [name for name in self.model_fields_set if settings[name] != fields[name].default],
            settings,
        )
        return self

    def check(self) -> None:
        """Raise ConfigError for settings that do not go together."""
        self.job()

    @property
    def title(self) -> str:
        """What a run with these settings is about, as a part of its name."""
        return PurePosixPath(self.workspace).name

    def place(self) -> Workspace:
        """Return the workspace, a folder in the flow run's working directory unless absolute."""
        return Workspace.at(self.workspace)


class OnCluster(Parameters):
    """Settings of flows whose tasks Dask schedules."""

    cluster: str = Field(str(THREADS), pattern=PATTERN, description=HELP["cluster"])

    def spec(self) -> ClusterSpec:
        """Return where tasks run."""
        return ClusterSpec.parse(self.cluster)

    def check(self) -> None:
        """Raise ConfigError for settings that do not go together, or for no cluster."""
        super().check()
        self.spec()


class Recipe(Parameters):
    """Settings of training, but for depth and seed."""

    dataset: str = Field(RunConfig.dataset, pattern=_NAME, description=HELP["dataset"])
    image_size: ImageSize = Field(RunConfig.image_size, description=HELP["image_size"])
    architecture: Architecture = Field(RunConfig.architecture, description=HELP["architecture"])
    variant: Variant = Field(RunConfig.variant, description=HELP["variant"])
    width: Width = Field(RunConfig.width, description=HELP["width"])
    channels: Channels = Field(RunConfig.channels, description=HELP["channels"])
    epochs: Epochs = Field(RunConfig.epochs, description=HELP["epochs"])
    checkpoint_every: CheckpointEvery = Field(
        RunConfig.checkpoint_every, description=HELP["checkpoint_every"]
    )
    batch_size: TrainingBatch = Field(RunConfig.batch_size, description=HELP["batch_size"])
    learning_rate: LearningRate = Field(RunConfig.learning_rate, description=HELP["learning_rate"])
    weight_decay: WeightDecay = Field(RunConfig.weight_decay, description=HELP["weight_decay"])
    precision: Precision = Field(RunConfig.precision, description=HELP["precision"])
    prefix: str = Field(RunConfig.prefix, pattern=_NAME, description=HELP["prefix"])

    def recipe(self) -> RunConfig:
        """Return the settings as those of a run of default depth and seed."""
        return RunConfig(**self.model_dump(include=set(Recipe.model_fields) - {"workspace"}))


class TrainParameters(Recipe):
    """One network."""

    preset: str | None = Field(None, pattern=_NAME, description=HELP["preset"])
    depth: Depth = Field(RunConfig.depth, description=HELP["depth"])
    seed: Seed = Field(RunConfig.seed, description=HELP["seed"])

    def job(self) -> RunConfig:
        """Return the settings of the run; those that are given come before a preset's."""
        settings = self.model_dump(exclude={"workspace", "preset"})
        if self.preset is not None:
            others = presets.preset(self.preset).items()
            settings |= {name: x for name, x in others if name not in self.model_fields_set}
        return RunConfig(**settings)

    @property
    def title(self) -> str:
        """The run."""
        return self.job().name


class ExtractParameters(Parameters):
    """One checkpoint of a run, or all of them."""

    run: str = Field(pattern=_NAME, description="name of a run in the workspace")
    checkpoint: str = Field("final", pattern=_NAME, description=HELP["checkpoint"])
    split: str = Field(Extraction.split, pattern=_NAME, description=HELP["split"])
    n_samples: Samples | None = Field(Extraction.n_samples, description=HELP["n_samples"])
    batch_size: Minibatch = Field(Extraction.batch_size, description=HELP["minibatch"])
    dtype: DType = Field(Extraction.dtype, description=HELP["dtype"])
    keep: Distinct[Keep] = Field(list(Extraction.keep), description=HELP["keep"])
    kernel: Kernel = Field(Extraction.kernel, description=HELP["gram_kernel"])
    pool: Pool = Field(Extraction.pool, description=HELP["pool"])
    compression: Compression = Field(Extraction.compression, description=HELP["compression"])

    def job(self) -> Extraction:
        """Return what is extracted."""
        how = self.model_dump(exclude={"workspace", "keep"})
        return Extraction(**how, keep=tuple(self.keep))

    @property
    def title(self) -> str:
        """The network."""
        return f"{self.run}@{self.checkpoint}"


class Comparing(OnCluster):
    """How representations are compared."""

    kernel: Kernel = Field(Comparison.kernel, description=HELP["kernel"])
    sigmas: Sigmas = list(Comparison.sigmas)
    estimator: Estimator = Field(Comparison.estimator, description=HELP["estimator"])
    pool: Pool = Field(Comparison.pool, description=HELP["pool"])
    batch_size: Minibatch = Field(Comparison.batch_size, description=HELP["minibatch"])
    sample_set: str | None = Field(None, pattern=_NAME, description=HELP["sample_set"])
    label: Label | Literal["each"] | None = Field(
        Comparison.label, description=HELP["label_or_each"]
    )
    permutations: Permutations = Field(Comparison.permutations, description=HELP["permutations"])
    unusable: Unusable = Field(Comparison.unusable, description=HELP["unusable"])
    errors: bool = Field(False, description=HELP["errors"])

    def comparison(self, rows: Selection, columns: Selection) -> Comparison:
        """Return what is compared, and how."""
        others = {"workspace", "cluster", "errors"}
        how = self.model_dump(include=set(Comparing.model_fields) - others)
        return Comparison(rows, columns, **how | {"sigmas": tuple(self.sigmas)})


class CompareParameters(Comparing):
    """Two networks, each RUN@CHECKPOINT, and how they are compared."""

    rows: str = Field(pattern=_NETWORK, description="network of the rows: RUN@CHECKPOINT")
    columns: str = Field(pattern=_NETWORK, description="network of the columns: RUN@CHECKPOINT")

    def job(self) -> Comparison:
        """Return the comparison of the two networks."""
        return self.comparison(Selection.parse(self.rows), Selection.parse(self.columns))

    @property
    def title(self) -> str:
        """Both networks."""
        return f"{self.rows}-{self.columns}"


class MatrixParameters(Comparing):
    """All representations that fit a pattern, against themselves or against another pattern's."""

    rows: str = Field(pattern=_PATTERN, description=HELP["pattern"])
    columns: str | None = Field(
        None, pattern=_PATTERN, description="pattern of the columns; by default that of the rows"
    )

    def job(self) -> Comparison:
        """Return the comparison of all that fit."""
        rows = Selection.parse(self.rows)
        return self.comparison(rows, Selection.parse(self.columns or self.rows))

    @property
    def title(self) -> str:
        """The patterns."""
        return "-".join(dict.fromkeys((self.rows, self.columns or self.rows)))


class ProbeParameters(Parameters):
    """Networks whose taps are probed by linear classifiers."""

    networks: str = Field(pattern=_PATTERN, description=HELP["pattern"])
    train_set: str | None = Field(None, pattern=_NAME, description=HELP["train_set"])
    test_set: str | None = Field(None, pattern=_NAME, description=HELP["test_set"])
    pool: Pool = Field(Probing.pool, description=HELP["pool"])
    penalties: Penalties = list(Probing.penalties)

    def job(self) -> Probing:
        """Return what is probed, and how."""
        how = self.model_dump(include={"train_set", "test_set", "pool"})
        return Probing(Selection.parse(self.networks), **how, penalties=tuple(self.penalties))

    @property
    def title(self) -> str:
        """The pattern."""
        return self.networks


class PipelineParameters(Recipe, OnCluster):
    """Networks of several depths and seeds, all compared with each other."""

    depths: Distinct[Depth] = Field([1, 2], description="depths of the networks")
    seeds: Distinct[Seed] = Field([0, 1], description="seeds of the networks")
    n_samples: Samples | None = Field(Extraction.n_samples, description=HELP["n_samples"])
    minibatch: Minibatch = Field(Extraction.batch_size, description=HELP["minibatch"])
    dtype: DType = Field(Extraction.dtype, description=HELP["dtype"])
    kernel: Kernel = Field(Comparison.kernel, description=HELP["kernel"])
    sigmas: Sigmas = list(Comparison.sigmas)
    estimator: Estimator = Field(Comparison.estimator, description=HELP["estimator"])
    pool: Pool = Field(Comparison.pool, description=HELP["pool"])

    def job(self) -> Pipeline:
        """Return what the pipeline does."""
        how = {"n_samples", "minibatch", "dtype", "kernel", "estimator", "pool"}
        networks = tuple(product(self.depths, self.seeds))
        settings = self.model_dump(include=how) | {"sigmas": tuple(self.sigmas)}
        return Pipeline(self.recipe(), networks, **settings)

    @property
    def title(self) -> str:
        """The networks."""
        depths, seeds = (",".join(map(str, each)) for each in (self.depths, self.seeds))
        return f"{self.prefix}-d{depths}-s{seeds}"


class ReportParameters(Parameters):
    """The workspace that is reported on."""

    def job(self) -> None:
        """Return nothing: there is nothing to choose."""


class NightlyParameters(OnCluster):
    """What is kept up to date, and how."""

    networks: str = Field(str(Nightly.networks), pattern=_NETWORKS, description=HELP["networks"])
    split: str = Field(Extraction.split, pattern=_NAME, description=HELP["split"])
    n_samples: Samples | None = Field(Extraction.n_samples, description=HELP["n_samples"])
    minibatch: Minibatch = Field(Extraction.batch_size, description=HELP["minibatch"])
    dtype: DType = Field(Extraction.dtype, description=HELP["dtype"])
    keep: Distinct[Keep] = Field(list(Nightly.extraction.keep), description=HELP["keep"])
    matrices: Distinct[Pattern] = Field(
        [str(each) for each in Nightly.matrices], description=HELP["matrices"]
    )
    kernel: Kernel = Field(Comparison.kernel, description=HELP["kernel"])
    sigmas: Sigmas = list(Comparison.sigmas)
    estimator: Estimator = Field(Comparison.estimator, description=HELP["estimator"])
    pool: Pool = Field(Comparison.pool, description=HELP["pool"])
    share: Share = Field(Nightly.share, description=HELP["share"])
    repair: bool = Field(Nightly.repair, description=HELP["repair"])
    busy: Busy = Field(Nightly.busy, description=HELP["busy"])

    def job(self) -> Nightly:
        """Return what a night does."""
        settings = self.model_dump(exclude={"workspace", "cluster", "networks", "matrices"})
        matrices = [Selection.parse(each) for each in self.matrices]
        return Nightly.of(Selection.parse(self.networks), matrices, **settings)
