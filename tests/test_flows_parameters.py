"""The flows' parameters: their defaults, their bounds, and the schema that a server enforces."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jsonschema
import pydantic
import pytest

from allcnn.definitions.bounds import Bounds
from allcnn.definitions.fields import setting
from allcnn.settings.comparison import Comparison
from allcnn.settings.extraction import Extraction
from allcnn.settings.probing import Probing
from allcnn.settings.run import RunConfig
from allcnn.settings.selection import Selection
from allcnn.similarity.kernels import Kernel, Pairs
from flows.settings.parameters import (
    CompareParameters,
    ExtractParameters,
    MatrixParameters,
    NightlyParameters,
    PipelineParameters,
    ProbeParameters,
    TrainParameters,
)
from flows.settings.pipeline_plan import Pipeline, each_of
from tests.networks import comparison, methods
from tests.strategies import REAL_NAMES

PAIR = {"rows": "a@init", "columns": "b@final"}
SIDES = (Selection("a", "init"), Selection("b", "final"))

TRAINING = {
    "dataset": "cifar10",
    "image_size": 24,
    "variant": "v1",
    "width": 0.5,
    "epochs": 7,
    "checkpoint_every": 3,
    "batch_size": 64,
    "learning_rate": 0.01,
    "weight_decay": 0.0,
    "prefix": "other",
}
EXTRACTING = {"split": "train", "n_samples": 100, "batch_size": 50, "dtype": "float16"}
EXTRACTING |= {"keep": ["activations", "grams"], "kernel": "rbf", "pool": "mean"}
COMPARING = {"kernel": "rbf", "sigma": [0.2, 0.8], "estimator": "biased", "batch_size": 50}
COMPARING |= {"pool": "mean", "label": 3, "permutations": 0}


def test_defaults_are_those_of_the_settings():
    assert TrainParameters().job() == RunConfig.of()
    assert ExtractParameters(run="a").job() == Extraction("a", "final")
    assert CompareParameters(**PAIR).job() == Comparison(
        Selection("a", "init"), Selection("b", "final")
    )
    assert PipelineParameters().job() == Pipeline(each_of({}, depth=(1, 2), seed=(0, 1)))


def test_every_setting_of_training_arrives():
    settings = TRAINING | {"depth": 2, "seed": 5}
    assert TrainParameters(**settings).job() == RunConfig.of(**settings)


def test_every_setting_of_an_extraction_arrives():
    job = ExtractParameters(run="a", checkpoint="init", **EXTRACTING).job()
    assert job == Extraction("a", "init", **EXTRACTING | {"keep": ("activations", "grams")})


def test_every_setting_of_a_comparison_arrives():
    how = COMPARING | {"sample_set": "digits-test-100"}
    assert CompareParameters(**PAIR, **how).job() == comparison(*SIDES, **how)


def test_settings_under_their_former_names_arrive():
    how = {"kernel": "rbf", "sigmas": [0.2, 0.8]}
    assert CompareParameters(**PAIR, **how).job() == comparison(
        *SIDES, kernel="rbf", sigma=(0.2, 0.8)
    )
    jsonschema.validate(PAIR | how, CompareParameters.model_json_schema())


@dataclass(frozen=True)
class Power(Kernel):
    """A power of the linear kernel, which a user adds."""

    name: ClassVar[str] = "power"
    exponent: int = setting(2, "exponent", Bounds(1, 9))

    def transform(self, pairs: Pairs) -> Any:
        """Return the power."""
        return pairs.products**self.exponent


def test_settings_of_another_packages_kernel_arrive():
    how = {"kernel": f"{__name__}:Power", "exponent": 3}
    assert CompareParameters(**PAIR, **how).job() == comparison(*SIDES, **how)
    jsonschema.validate(PAIR | how, CompareParameters.model_json_schema())
    with pytest.raises(pydantic.ValidationError, match="'power' is no setting of this flow"):
        CompareParameters(**PAIR, **how, power=1)


@pytest.mark.parametrize("tap", REAL_NAMES)
def test_a_tap_of_any_name_is_a_parameter(tap):
    assert MatrixParameters(rows=f"a@final:{tap}").job().rows == Selection("a", "final", tap)


def test_a_matrix_compares_patterns():
    rows, columns = Selection("a-*", "final"), Selection("*", "epoch-000?", "conv[1-9]")
    wide = MatrixParameters(rows=str(rows), columns=str(columns), **COMPARING).job()
    assert wide == comparison(rows, columns, **COMPARING)
    assert MatrixParameters(rows=str(rows)).job() == Comparison(rows, rows)


def test_every_setting_of_a_probe_arrives():
    how = {"train_set": "digits-train-100", "test_set": "digits-test-100", "pool": "mean"}
    networks = Selection("a-*", "epoch-000?", "conv[1-9]")
    job = ProbeParameters(networks=str(networks), **how, penalties=[0.1, 1e-3]).job()
    assert job == Probing(networks, **how, penalties=(0.1, 1e-3))
    assert ProbeParameters(networks="a@final").job() == Probing(Selection("a", "final"))


def test_every_setting_of_a_pipeline_arrives():
    how = {"kernel": "rbf", "pool": "mean", "estimator": "biased", "sigma": [0.2]}
    stored = {"n_samples": 100, "dtype": "float16"}
    of = {"depths": [3, 1], "seeds": [4, 7]}
    job = PipelineParameters(**TRAINING, **how, **stored, **of, minibatch=50).job()
    networks = ((3, 4), (3, 7), (1, 4), (1, 7))
    wanted = methods(**how, batch_size=50)
    runs = tuple(RunConfig.of(**TRAINING, depth=d, seed=s) for d, s in networks)
    assert job == Pipeline(runs, **stored, methods=wanted)


def test_a_relative_workspace_lies_in_the_working_directory(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert TrainParameters().place().root == tmp_path / "workspace"
    assert TrainParameters(workspace="/elsewhere").place().root == Path("/elsewhere")


# Each is refused by Python and, from its schema alone, by a server.
WRONG = [
    (TrainParameters, {"depth": 0}, "depth\n.*greater than or equal to 1"),
    (TrainParameters, {"seed": -1}, "seed\n.*greater than or equal to 0"),
    (TrainParameters, {"seed": 2**32}, "seed\n.*less than or equal to 4294967295"),
    (TrainParameters, {"width": 0}, "width\n.*greater than or equal to 0.001"),
    (TrainParameters, {"width": 1001}, "width\n.*less than or equal to 1000"),
    (TrainParameters, {"image_size": -1}, "image_size\n.*greater than or equal to 0"),
    (TrainParameters, {"epochs": 0}, "epochs\n.*greater than or equal to 1"),
    (TrainParameters, {"checkpoint_every": -1}, "checkpoint_every\n.*greater than or equal to 0"),
    (TrainParameters, {"batch_size": 3}, "batch_size\n.*greater than or equal to 4"),
    (TrainParameters, {"learning_rate": 0}, "learning_rate\n.*greater than or equal to 0.0"),
    (TrainParameters, {"weight_decay": -1}, "weight_decay\n.*greater than or equal to 0"),
    (TrainParameters, {"variant": "v3"}, "variant\n.*'v1' or 'v2'"),
    (TrainParameters, {"dataset": "../x"}, "dataset\n.*match pattern"),
    (TrainParameters, {"prefix": "a..b"}, "prefix\n.*match pattern"),
    (TrainParameters, {"workspace": ""}, "workspace\n.*at least 1 character"),
    (TrainParameters, {"depths": [1]}, "'depths' is no setting of this flow"),
    (ExtractParameters, {}, "run\n.*required"),
    (ExtractParameters, {"run": "a/b"}, "run\n.*match pattern"),
    (ExtractParameters, {"run": "a", "checkpoint": ""}, "checkpoint\n.*match pattern"),
    (ExtractParameters, {"run": "a", "n_samples": 3}, "n_samples\n.*greater than or equal to 4"),
    (ExtractParameters, {"run": "a", "batch_size": 3}, "batch_size\n.*greater than or equal to 4"),
    (ExtractParameters, {"run": "a", "dtype": "int8"}, "dtype\n.*'float32' or 'float16'"),
    (ExtractParameters, {"run": "a", "depth": 1}, "'depth' is no setting of this flow"),
    (CompareParameters, PAIR | {"rows": "a"}, "rows\n.*match pattern"),
    (CompareParameters, PAIR | {"columns": "a@b@c"}, "columns\n.*match pattern"),
    (CompareParameters, PAIR | {"batch_size": 3}, "batch_size\n.*greater than or equal to 4"),
    (CompareParameters, PAIR | {"sigma": [0]}, "sigma.0\n.*greater than or equal to 0.0"),
    (CompareParameters, PAIR | {"sigma": []}, "sigma\n.*at least 1 item"),
    (CompareParameters, PAIR | {"kernel": "cosy"}, "kernel is 'cosy'; use linear, rbf, cosine or"),
    (CompareParameters, PAIR | {"measure": "cca"}, "measure is 'cca'; use cka, hsic or MODULE:"),
    (CompareParameters, PAIR | {"estimator": "mean"}, "estimator\n.*'biased' or 'exact'"),
    (CompareParameters, PAIR | {"pool": "max"}, "pool\n.*'whole' or 'mean'"),
    (CompareParameters, PAIR | {"label": -1}, "label.*\n.*greater than or equal to 0"),
    (CompareParameters, PAIR | {"label": "all"}, "label.*\n.*'each'"),
    (CompareParameters, PAIR | {"permutations": -1}, "permutations\n.*greater than or equal to 0"),
    (CompareParameters, PAIR | {"rows": "a*@final"}, "rows\n.*match pattern"),
    (MatrixParameters, {"rows": "a*"}, "rows\n.*match pattern"),
    (MatrixParameters, {"rows": "../a@final"}, "rows\n.*match pattern"),
    (MatrixParameters, {"rows": "a@final:"}, "rows\n.*match pattern"),
    (ExtractParameters, {"run": "a", "keep": []}, "keep\n.*at least 1 item"),
    (ExtractParameters, {"run": "a", "keep": ["all"]}, "keep.0\n.*'activations' or 'grams'"),
    (CompareParameters, PAIR | {"sample_set": "a/b"}, "sample_set\n.*match pattern"),
    (CompareParameters, PAIR | {"n_samples": 64}, "'n_samples' is no setting of this"),
    (MatrixParameters, {"rows": "a@b", "x": 1}, "'x' is no setting of this flow; use workspace,"),
    (ProbeParameters, {}, "networks\n.*required"),
    (ProbeParameters, {"networks": "a*"}, "networks\n.*match pattern"),
    (ProbeParameters, {"networks": "a@b", "train_set": "a/b"}, "train_set\n.*match pattern"),
    (ProbeParameters, {"networks": "a@b", "pool": "max"}, "pool\n.*'whole' or 'mean'"),
    (
        ProbeParameters,
        {"networks": "a@b", "penalties": [0]},
        "penalties.0\n.*greater than or equal to 0.0",
    ),
    (ProbeParameters, {"networks": "a@b", "penalties": []}, "penalties\n.*at least 1 item"),
    (PipelineParameters, {"depths": [1, 0]}, "depths.1\n.*greater than or equal to 1"),
    (PipelineParameters, {"seeds": []}, "seeds\n.*at least 1 item"),
    (PipelineParameters, {"seeds": [2, 2]}, "-d1-v2-s2, allcnn-d1-v2-s2, .*each once"),
    (PipelineParameters, {"minibatch": 3}, "minibatch\n.*greater than or equal to 4"),
    (PipelineParameters, {"depth": 1}, "'depth' is no setting of this flow"),
    (PipelineParameters, {"batch_sizes": 1}, "'batch_sizes' is no setting of this flow"),
    (NightlyParameters, {"batch_size": 8}, "'batch_size' is no setting of this flow"),
]


@pytest.mark.parametrize(("model", "settings", "message"), WRONG)
def test_a_wrong_setting_is_refused(model, settings, message):
    with pytest.raises(pydantic.ValidationError, match=message):
        model(**settings)


@pytest.mark.parametrize(("model", "settings", "message"), WRONG)
def test_a_wrong_setting_does_not_fit_the_schema(model, settings, message):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(settings, model.model_json_schema())


@pytest.mark.parametrize("name", ["learning_rate", "weight_decay"])
def test_infinity_is_refused(name):
    with pytest.raises(pydantic.ValidationError, match=f"{name}\n.*less than or equal to"):
        TrainParameters(**{name: float("inf")})


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        (TrainParameters, TRAINING | {"depth": 2, "seed": 5}),
        (ExtractParameters, EXTRACTING | {"run": "a.b_c-1", "checkpoint": "epoch-0001"}),
        (ExtractParameters, {"run": "a", "n_samples": None}),
        (CompareParameters, PAIR | COMPARING | {"sample_set": None}),
        (CompareParameters, PAIR | {"label": "each", "errors": True}),
        (MatrixParameters, {"rows": "a-*@*:conv[1-9]", "permutations": 20}),
        (ProbeParameters, {"networks": "a-*@*:conv[1-9]", "penalties": [0.1], "train_set": None}),
        (PipelineParameters, TRAINING | {"depths": [2], "seeds": [0, 1], "n_samples": None}),
    ],
)
def test_right_settings_fit_the_schema(model, settings):
    jsonschema.validate(settings, model.model_json_schema())
    assert model(**settings).model_dump(include=set(settings)) == settings


def test_every_field_is_described():
    models = (TrainParameters, ExtractParameters, CompareParameters, MatrixParameters)
    for model in (*models, PipelineParameters):
        assert all(field.description for field in model.model_fields.values())


def test_what_excludes_each_other_is_refused():
    with pytest.raises(pydantic.ValidationError, match="permutations shuffle within minibatches"):
        CompareParameters(**PAIR, permutations=5, estimator="exact")
