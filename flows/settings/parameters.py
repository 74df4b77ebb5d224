"""Parameters of the flows: pydantic models with bounds, refused before a flow run exists."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Final, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

from allcnn.cluster.spec import PATTERN, THREADS, ClusterSpec
from allcnn.definitions import bounds
from allcnn.definitions.fields import Setting, but, only, settings_of
from allcnn.errors import ConfigError
from allcnn.networks.architectures import AllCnnC, presets
from allcnn.networks.architectures.convolutional import DEPTH
from allcnn.settings.comparison import Comparison
from allcnn.settings.extraction import Extraction, Keep
from allcnn.settings.probing import Probing
from allcnn.settings.run import RunConfig
from allcnn.settings.selection import Selection
from allcnn.similarity.method import OBJECTS, Method
from allcnn.workspace.paths import Workspace
from flows.settings.help import HELP
from flows.settings.ineffective import check_effective
from flows.settings.nightly_plan import Busy, Nightly
from flows.settings.pipeline_plan import Pipeline, each_of

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
Depth = Annotated[int, Field(ge=DEPTH.least, le=DEPTH.most)]
Seed = Annotated[int, Field(ge=bounds.SEED.least, le=bounds.SEED.most)]
Pattern = Annotated[str, Field(pattern=_PATTERN)]

_FORMER: Final = {"sigmas": "sigma"}
"""Names that settings had in earlier versions."""

M = TypeVar("M", bound=BaseModel)


def takes(
    settings: Iterable[Setting], names: Mapping[str, str] = {}, **defaults: Any
) -> Callable[[type[M]], type[M]]:
    """Add a field for each of some settings to a model of parameters.

    Args:
        settings: what is given.
        names: of fields, where they are other ones than the settings'.
        defaults: of this flow, where they are other ones.
    """
    fields: dict[str, Any] = {
        names.get(s.name, s.name): _field(s, defaults.get(s.name, s.default)) for s in settings
    }

    def add(model: type[M]) -> type[M]:
        made = create_model(
            model.__name__, __base__=model, __module__=model.__module__, __doc__=model.__doc__,
            **fields,
        )  # fmt: skip
        return made

    return add


def _field(setting: Setting, default: Any) -> tuple[Any, Any]:
    """Return a setting as pydantic has it: its type, and its default with bounds and help."""
    kind: Any = setting.kind
    how: dict[str, Any] = {"description": setting.help}
    if setting.bounds is not None:
        least = 0 if setting.or_zero else setting.bounds.least
        kind = Annotated[kind, Field(ge=least, le=setting.bounds.most)]
    elif setting.choices:
        kind = Literal[setting.choices]
    elif setting.name in OBJECTS:
        # For servers; here the registry refuses other names, in a sentence of ours.
        names = "|".join([*OBJECTS[setting.name].names, r"[\w.]+:\w+"])
        how["json_schema_extra"] = {"pattern": f"^({names})$"}
    elif setting.names:
        how["pattern"] = _NAME
    if setting.several:
        kind = Distinct[kind]
        default = default if isinstance(default, list) else [default]
    elif default is None:
        kind = kind | None
    return kind, Field(default, **how)


def _refuse_others(schema: dict[str, Any]) -> None:
    """Let a server refuse names that are no settings, unless objects of other packages are named.

    These bring settings of their own.
    """
    properties = schema["properties"]
    kinds = [*OBJECTS] if all(kind in properties for kind in OBJECTS) else []
    kinds += ["architecture"] if "architecture" in properties else []
    if kinds:
        foreign = [{"required": [k], "properties": {k: {"pattern": ":"}}} for k in kinds]
        former = [name for name, now in _FORMER.items() if now in properties]
        schema |= {"if": {"anyOf": foreign}}
        schema |= {"else": {"propertyNames": {"enum": [*properties, *former]}}}
    else:
        schema["additionalProperties"] = False


class Parameters(BaseModel):
    """What every flow needs: where everything is kept."""

    model_config = ConfigDict(extra="allow", frozen=True, json_schema_extra=_refuse_others)

    workspace: str = Field("workspace", min_length=1, description=HELP["workspace"])

    @abstractmethod
    def job(self) -> object:
        """Return the settings as the work takes them; raises ConfigError."""

    @model_validator(mode="before")
    @classmethod
    def _check_names(cls, values: Any) -> Any:
        """Refuse names that are no settings; what was called otherwise before is renamed."""
        if not isinstance(values, dict):
            return values
        values = {_FORMER.get(name, name): value for name, value in values.items()}
        objects = [str(values[kind]) for kind in OBJECTS if kind in values]
        known = set(cls.model_fields)
        if OBJECTS.keys() <= known:
            known |= Method.settings(*objects).keys() - Method.settings().keys()
        if "architecture" in known:
            others = RunConfig.settings(str(values.get("architecture", AllCnnC.name)))
            known |= others.keys() - RunConfig.settings().keys()
        if odd := [name for name in values if name not in known]:
            raise ConfigError(
                f"{odd[0]!r} is no setting of this flow",
                remedy=f"use {', '.join(cls.model_fields)}",
            )
        return values

    def methods(self) -> tuple[Method, ...]:
        """Return the methods that are asked for."""
        values = self.model_dump()
        if "minibatch" in values:  # beside that of training
            values["batch_size"] = values["minibatch"]
        known = Method.settings(*(str(values[kind]) for kind in OBJECTS))
        mine = {name: value for name, value in values.items() if name in known}
        return Method.several(mine, self._given() & mine.keys())

    def _given(self) -> set[str]:
        """Return what is set: forms of web pages send every setting, most with their defaults."""
        fields, settings = type(self).model_fields, self.model_dump()
        return {
            name
            for name in self.model_fields_set
            if name not in fields or settings[name] != fields[name].default
        }

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        """Refuse what no single field's bounds can, such as a network that is named twice."""
        self.check()
        check_effective(self._given(), self.model_dump())
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


@takes(but(RunConfig.settings(), "depth", "seed"))
class Recipe(Parameters):
    """Settings of training, but for depth and seed."""

    def recipe(self, preset: Mapping[str, Any] = {}) -> dict[str, Any]:
        """Return the settings of runs; raises ConfigError for those without effect."""
        others = {name: x for name, x in preset.items() if name not in self.model_fields_set}
        return RunConfig.chosen(self.model_dump(), self._given(), others)


@takes([RunConfig.settings()[name] for name in ("depth", "seed")])
class TrainParameters(Recipe):
    """One network."""

    preset: str | None = Field(None, pattern=_NAME, description=HELP["preset"])

    def job(self) -> RunConfig:
        """Return the settings of the run; those that are given come before a preset's."""
        preset = {} if self.preset is None else presets.preset(self.preset)
        return RunConfig.of(**self.recipe(preset))

    @property
    def title(self) -> str:
        """The run."""
        return self.job().name


@takes(settings_of(Extraction).values())
class ExtractParameters(Parameters):
    """One checkpoint of a run, or all of them."""

    run: str = Field(pattern=_NAME, description="name of a run in the workspace")
    checkpoint: str = Field("final", pattern=_NAME, description=HELP["checkpoint"])
    keep: Distinct[Keep] = Field(list(Extraction.keep), description=HELP["keep"])

    def job(self) -> Extraction:
        """Return what is extracted."""
        how = self.model_dump(exclude={"workspace", "keep"})
        return Extraction(**how, keep=tuple(self.keep))

    @property
    def title(self) -> str:
        """The network."""
        return f"{self.run}@{self.checkpoint}"


@takes([*Method.settings().values(), *settings_of(Comparison).values()])
class Comparing(OnCluster):
    """How representations are compared."""

    label: (
        Annotated[int, Field(ge=bounds.LABEL.least, le=bounds.LABEL.most)] | Literal["each"] | None
    ) = Field(Comparison.label, description=HELP["label_or_each"])
    errors: bool = Field(False, description=HELP["errors"])

    def comparison(self, rows: Selection, columns: Selection) -> Comparison:
        """Return what is compared, and how."""
        how = self.model_dump(include={*settings_of(Comparison), "label"})
        return Comparison(rows, columns, self.methods(), **how)


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


@takes(only(Method, "pool"))
class ProbeParameters(Parameters):
    """Networks whose taps are probed by linear classifiers."""

    networks: str = Field(pattern=_PATTERN, description=HELP["pattern"])
    train_set: str | None = Field(None, pattern=_NAME, description=HELP["train_set"])
    test_set: str | None = Field(None, pattern=_NAME, description=HELP["test_set"])
    penalties: Distinct[
        Annotated[float, Field(ge=bounds.PENALTY.least, le=bounds.PENALTY.most)]
    ] = Field(list(Probing.penalties), description=HELP["penalties"])

    def job(self) -> Probing:
        """Return what is probed, and how."""
        how = self.model_dump(include={"train_set", "test_set", "pool"})
        return Probing(Selection.parse(self.networks), **how, penalties=tuple(self.penalties))

    @property
    def title(self) -> str:
        """The pattern."""
        return self.networks


_STORED = only(Extraction, "n_samples", "batch_size", "dtype")
_HOW = but(Method.settings(), "batch_size")
_MINIBATCH = {"batch_size": "minibatch"}


@takes([*_STORED, *_HOW], _MINIBATCH)
class PipelineParameters(Recipe, OnCluster):
    """Networks of several depths and seeds, all compared with each other."""

    depths: Distinct[Depth] = Field([1, 2], description="depths of the networks")
    seeds: Distinct[Seed] = Field([0, 1], description="seeds of the networks")

    def _given(self) -> set[str]:
        given = super()._given()
        return given | {"depth"} if "depths" in given else given

    def job(self) -> Pipeline:
        """Return what the pipeline does."""
        runs = each_of(self.recipe(), depth=self.depths, seed=self.seeds)
        how = self.model_dump(include={"n_samples", "dtype"})
        return Pipeline(runs, methods=self.methods(), **how)

    @property
    def title(self) -> str:
        """The networks, by the first and the last one's name."""
        runs = self.job().runs
        return " to ".join(dict.fromkeys((runs[0].name, runs[-1].name)))


class ReportParameters(Parameters):
    """The workspace that is reported on."""

    def job(self) -> None:
        """Return nothing: there is nothing to choose."""


@takes([*only(Extraction, "split"), *_STORED, *_HOW], _MINIBATCH)
class NightlyParameters(OnCluster):
    """What is kept up to date, and how."""

    networks: str = Field(str(Nightly.networks), pattern=_NETWORKS, description=HELP["networks"])
    keep: Distinct[Keep] = Field(list(Nightly.extraction.keep), description=HELP["keep"])
    matrices: Distinct[Pattern] = Field(
        [str(each) for each in Nightly.matrices], description=HELP["matrices"]
    )
    share: Annotated[float, Field(ge=bounds.SHARE.least, le=bounds.SHARE.most)] = Field(
        Nightly.share, description=HELP["share"]
    )
    repair: bool = Field(Nightly.repair, description=HELP["repair"])
    busy: Busy = Field(Nightly.busy, description=HELP["busy"])

    def job(self) -> Nightly:
        """Return what a nightly run does."""
        names = {"split", "n_samples", "dtype", "keep", "share", "repair", "busy"}
        matrices = [Selection.parse(each) for each in self.matrices]
        how = self.model_dump(include=names)
        return Nightly.of(Selection.parse(self.networks), matrices, self.methods(), **how)
