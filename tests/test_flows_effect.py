"""Settings that others leave without effect are refused, on the command line and of flows."""

import click
import pytest

from allcnn.errors import ConfigError
from allcnn.similarity.method import Method
from allcnn.workspace.paths import Workspace
from flows.cli.commands import Command
from flows.cli.main import main
from flows.settings.parameters import (
    CompareParameters,
    ExtractParameters,
    MatrixParameters,
    NightlyParameters,
    PipelineParameters,
)
from flows.settings.shared import check_effective
from tests.commands import run

PAIR = ["a@final", "b@final"]
SIGMA = (
    "sigma has no effect: kernel is linear, which has no sigma; leave it out, or use the kernel rbf"
)
EXACT = "estimator is exact, which has no minibatches; leave it out, or use unbiased or biased"
STORED = "keep is activations, and activations are stored as they are; leave it out, or keep grams"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["compare", *PAIR, "--sigma", "0.4"], SIGMA),
        (["matrix", "*@*", "--sigma", "0.2,0.8"], SIGMA),
        (["matrix", "*@*", "--kernel", "cosine", "--sigma", "0.2"], "kernel is cosine, which has"),
        (["identify", "*@*", "--sigma", "0.2"], SIGMA),
        (["pipeline", "--sigma", "0.2"], SIGMA),
        (["nightly", "--sigma", "0.2"], SIGMA),
        (["figure", "matrix", "a@final", "--sigma", "0.2"], SIGMA),
        (["figure", "invariance", "a@final", "--sigma", "0.2"], SIGMA),
        (
            ["compare", *PAIR, "--estimator", "exact", "--batch-size", "64"],
            f"batch-size has no effect: {EXACT}",
        ),
        (["compare", *PAIR, "--estimator", "exact", "--errors"], f"errors has no effect: {EXACT}"),
        (
            ["matrix", "*@*", "--estimator", "exact", "--convergence"],
            f"convergence has no effect: {EXACT}",
        ),
        (["identify", "*@*", "--estimator", "exact", "--batch-size", "64"], EXACT),
        (["figure", "depths", "a@final", "--estimator", "exact", "--batch-size", "64"], EXACT),
        (["figure", "matrix", "a@final", "--estimator", "exact", "--errors"], EXACT),
        (["extract", "a", "--kernel", "rbf"], f"kernel has no effect: {STORED}"),
        (["extract", "a", "--pool", "mean"], f"pool has no effect: {STORED}"),
        (["extract", "a", "--keep", "grams", "--compression", "zstd"], "keep is grams, which are"),
        (["store", "gc", "--what", "orphaned", "--older-than", "1"], "what is orphaned, and only"),
        (["store", "gc", "--what", "abandoned", "--keep-activations", "*@*"], "what is abandoned"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_option_without_effect_is_refused_before_any_work(tmp_path, words, sentence):
    result = run(*words, workspace=Workspace.at(tmp_path))
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        ["figure", "layers", "*@*", "--sigma", "0.2"],
        ["pipeline", "--estimator", "exact", "--minibatch", "64", "--batch-size", "2"],
        ["extract", "a", "--keep", "activations,grams", "--kernel", "rbf", "--compression", "zstd"],
        ["nightly", "--keep", "activations", "--kernel", "rbf", "--pool", "mean", "--share", "9"],
    ],
    ids=" ".join,
)
def test_an_option_with_an_effect_is_not(tmp_path, words):
    assert "no effect" not in run(*words, workspace=Workspace.at(tmp_path)).output


def commands(group: click.Group):
    for command in group.commands.values():
        yield from commands(command) if isinstance(command, click.Group) else [command]


def test_every_command_with_such_options_asks_the_one_rule():
    names = {"sigma", "kernel", "estimator", "errors", "convergence", "keep", "older_than"}
    having = [each for each in commands(main) if names & {option.name for option in each.params}]
    assert len(having) > 10
    assert [each.name for each in having if not isinstance(each, Command)] == []


PAIRED = {"rows": "a@final", "columns": "b@final"}


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        (CompareParameters, PAIRED | {"sigma": [0.2]}),
        (CompareParameters, PAIRED | {"estimator": "exact", "batch_size": 64}),
        (CompareParameters, PAIRED | {"estimator": "exact", "errors": True}),
        (MatrixParameters, {"rows": "*@*", "sigma": [0.2]}),
        (PipelineParameters, {"sigma": [0.2]}),
        (NightlyParameters, {"sigma": [0.2]}),
        (ExtractParameters, {"run": "a", "kernel": "rbf"}),
        (ExtractParameters, {"run": "a", "keep": ["grams"], "compression": "zstd"}),
    ],
)
def test_so_is_a_setting_of_a_flow(model, settings):
    with pytest.raises(ValueError, match="has no effect: "):
        model(**settings)


def test_a_form_that_sends_all_its_defaults_is_not():
    for model, needed in ((CompareParameters, PAIRED), (ExtractParameters, {"run": "a"})):
        defaults = {
            name: field.default
            for name, field in model.model_fields.items()
            if not field.is_required()
        }
        assert model(**needed | defaults).job() == model(**needed).job()


def test_the_error_is_a_wrong_setting():
    with pytest.raises(ConfigError, match="kernel is linear"):
        Method.several({"sigma": 0.2, "kernel": "linear"}, ["sigma"])
    with pytest.raises(ConfigError, match="estimator is exact"):
        check_effective(["errors"], {"errors": True, "estimator": "exact"})
