"""Parameters of the flows: pydantic models with bounds, refused before a flow run exists."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

from allcnn.cluster.spec import CLUSTER, THREADS, ClusterSpec
from allcnn.definitions.fields import NAME, Setting, but, only
from allcnn.errors import ConfigError
from allcnn.networks.architectures import AllCnnC, presets
from allcnn.settings.comparison import FORMER, Comparison
from allcnn.settings.extraction import Extraction
from allcnn.settings.probing import Probing
from allcnn.settings.run import RunConfig
from allcnn.settings.selection import NETWORK
from allcnn.similarity.method import OBJECTS, Method
from allcnn.workspace.paths import Workspace
from flows.settings import nightly_plan
from flows.settings.nightly_plan import Nightly
from flows.settings.pipeline_plan import Pipeline, each_of
from flows.settings.shared import (
    DEPTHS,
    ERRORS,
    MINIBATCH,
    PRESET,
    SEEDS,
    WORKSPACE,
    check_effective,
)

M = TypeVar("M", bound=BaseModel)


def takes(settings: Iterable[Setting]) -> Callable[[type[M]], type[M]]:
    """Add a field for each of some settings to a model of parameters."""
    fields: dict[str, Any] = {each.name: _field(each) for each in settings}

    def add(model: type[M]) -> type[M]:
        name, module, doc = model.__name__, model.__module__, model.__doc__
        return create_model(name, __base__=model, __module__=module, __doc__=doc, **fields)

    return add


def _field(setting: Setting) -> tuple[Any, Any]:
    """Return a setting as pydantic has it: its type, and its default with bounds and help."""
    kind: Any = setting.kind
    how: dict[str, Any] = {"description": setting.help}
    default = setting.to_json(setting.default)
    if setting.bounds is not None:
        least = 0 if setting.or_zero else setting.bounds.least
        kind = Annotated[kind, Field(ge=least, le=setting.bounds.most)]
    elif setting.choices:
        kind = Literal[setting.choices]
    elif setting.name in OBJECTS:
        # For servers; here the registry refuses other names, in a sentence of ours.
        names = "|".join(OBJECTS[setting.name].names)
        how["json_schema_extra"] = {"pattern": rf"^({names}|[\w.]+:\w+)$"}
    elif pattern := setting.pattern or (NAME if setting.names else ""):
        kind = Annotated[kind, Field(pattern=pattern)]
    if setting.each:
        kind = kind | Literal["each"]
        how["description"] += f"; each: {setting.each}"
    if setting.several or setting.is_list:
        kind = Annotated[list[kind], Field(min_length=1, json_schema_extra={"uniqueItems": True})]
        default = default if isinstance(default, list) else [default]
    elif default is None:
        kind = kind | None
    return kind, Field(... if setting.default is MISSING else default, **how)


def _refuse_others(schema: dict[str, Any]) -> None:
    """Let a server refuse names that are no settings, unless objects of other packages are named.

    These bring settings of their own.
    """
    properties = schema["properties"]
    kinds = [*OBJECTS] if all(kind in properties for kind in OBJECTS) else []
    kinds += ["architecture"] if "architecture" in properties else []
    if kinds:
        foreign = [{"required": [k], "properties": {k: {"pattern": ":"}}} for k in kinds]
        former = [name for name, now in FORMER.items() if now in properties]
        schema |= {"if": {"anyOf": foreign}}
        schema |= {"else": {"propertyNames": {"enum": [*properties, *former]}}}
    else:
        schema["additionalProperties"] = False


class Parameters(BaseModel):
    """What every flow needs: where everything is kept."""

    model_config = ConfigDict(extra="allow", frozen=True, json_schema_extra=_refuse_others)

    workspace: str = Field(WORKSPACE.default, min_length=1, description=WORKSPACE.help)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Return a field that `takes` added."""

    @abstractmethod
    def job(self) -> object:
        """Return the settings as the work takes them; raises ConfigError."""

    @model_validator(mode="before")
    @classmethod
    def _check_names(cls, values: Any) -> Any:
        """Refuse names that are no settings; what was called otherwise before is renamed."""
        if not isinstance(values, dict):
            return values
        values = {FORMER.get(name, name): value for name, value in values.items()}
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

    def values(self, settings: Iterable[Setting], **changes: Any) -> dict[str, Any]:
        """Return what is given of some settings, as their values."""
        given = self.model_dump() | changes
        return {each.name: each.value(given[each.name]) for each in settings}

    def methods(self) -> tuple[Method, ...]:
        """Return the methods that are asked for."""
        values = self.model_dump()
        if "minibatch" in values:  # beside that of training
            values["batch_size"] = values["minibatch"]
        known = Method.settings(*(str(values[kind]) for kind in OBJECTS))
        mine = {name: value for name, value in values.items() if name in known}
        return Method.several(mine, self._given() & mine.keys())

    def _given(self) -> set[str]:
        """Return the names that are set, as forms of web pages send every setting."""
        fields, settings = type(self).model_fields, self.model_dump()
        return {
            name
            for name in self.model_fields_set
            if name not in fields or settings[name] != fields[name].default
        }

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        """Refuse settings that do not go together, such as a network that is named twice."""
        self.job()
        self.spec()
        check_effective(self._given(), self.model_dump())
        return self

    @property
    def title(self) -> str:
        """The part of a flow run's name that says what it is about."""
        return PurePosixPath(self.workspace).name

    def spec(self) -> ClusterSpec:
        """Return where tasks run."""
        return ClusterSpec.parse(self.cluster) if "cluster" in type(self).model_fields else THREADS

    def place(self) -> Workspace:
        """Return the workspace, a folder in the flow run's working directory unless absolute."""
        return Workspace.at(self.workspace)


@takes(but(RunConfig.settings(), "depth", "seed"))
class TrainingParameters(Parameters):
    """Settings of training, but for depth and seed."""

    def recipe(self, preset: Mapping[str, Any] = {}) -> dict[str, Any]:
        """Return the settings of runs; raises ConfigError for those without effect."""
        others = {name: x for name, x in preset.items() if name not in self.model_fields_set}
        return RunConfig.chosen(self.model_dump(), self._given(), others)


@takes([*only(RunConfig.settings(), "depth", "seed"), PRESET])
class TrainParameters(TrainingParameters):
    """One network."""

    def job(self) -> RunConfig:
        """Return the settings of the run; those that are given come before a preset's."""
        preset = {} if self.preset is None else presets.preset(self.preset)
        return RunConfig.of(**self.recipe(preset))

    @property
    def title(self) -> str:
        """The run."""
        return self.job().name


@takes(but(Extraction))
class ExtractParameters(Parameters):
    """One checkpoint of a run, or all of them."""

    def job(self) -> Extraction:
        """Return what is extracted."""
        return Extraction(**self.values(but(Extraction)))


_ROWS, _COLUMNS = only(Comparison, "rows", "columns")


@takes([CLUSTER, *Method.settings().values(), *but(Comparison, "rows", "columns"), ERRORS])
class Comparing(Parameters):
    """How representations are compared."""

    def job(self) -> Comparison:
        """Return what is compared, and how."""
        how = self.values(but(Comparison), columns=self.columns or self.rows)
        return Comparison(methods=self.methods(), **how)

    @property
    def title(self) -> str:
        """Both sides."""
        return "-".join(dict.fromkeys((self.rows, self.columns or self.rows)))


@takes(
    replace(side, pattern=NETWORK, help=f"network of the {side.name}: RUN@CHECKPOINT")
    for side in (_ROWS, _COLUMNS)
)
class CompareParameters(Comparing):
    """Two networks, each RUN@CHECKPOINT, and how they are compared."""


@takes([_ROWS, replace(_COLUMNS, default=None)])
class MatrixParameters(Comparing):
    """All representations that fit a pattern, against themselves or against another pattern's."""


@takes(but(Probing))
class ProbeParameters(Parameters):
    """Networks whose taps are probed by linear classifiers."""

    def job(self) -> Probing:
        """Return what is probed, and how."""
        return Probing(**self.values(but(Probing)))


_HOW = but(Method.settings(), "batch_size")


@takes([CLUSTER, DEPTHS, SEEDS, *only(Extraction, "n_samples", "dtype"), MINIBATCH, *_HOW])
class PipelineParameters(TrainingParameters):
    """Networks of several depths and seeds, all compared with each other."""

    def _given(self) -> set[str]:
        given = super()._given()
        return given | {"depth"} if "depths" in given else given

    def job(self) -> Pipeline:
        """Return what the pipeline does."""
        runs = each_of(self.recipe(), depth=self.depths, seed=self.seeds)
        return Pipeline(runs, self.n_samples, self.dtype, self.methods())

    @property
    def title(self) -> str:
        """The networks, by the first and the last one's name."""
        runs = self.job().runs
        return " to ".join(dict.fromkeys((runs[0].name, runs[-1].name)))


class ReportParameters(Parameters):
    """The workspace that is reported on."""

    def job(self) -> None:
        """Return nothing: there is nothing to choose."""


@takes([CLUSTER, *nightly_plan.SETTINGS, MINIBATCH, *_HOW])
class NightlyParameters(Parameters):
    """What is kept up to date, and how."""

    def job(self) -> Nightly:
        """Return what a nightly run does."""
        return Nightly.of(self.methods(), **self.values(nightly_plan.SETTINGS))
