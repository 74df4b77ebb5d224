"""Settings: bounds, defaults, names that stay inside the workspace, JSON there and back."""

import glob
import json
from typing import get_args

import pytest
from hypothesis import given

import store
from allcnn.definitions.bounds import PERMUTATIONS, SEED
from allcnn.definitions.fields import check_name
from allcnn.errors import ConfigError
from allcnn.networks.architectures import AllCnnC
from allcnn.settings.comparison import Comparison
from allcnn.settings.extraction import DType, Extraction, StoredDType, extracted_dtype
from allcnn.settings.run import RunConfig
from allcnn.settings.selection import Selection
from allcnn.similarity.kernels import Rbf
from allcnn.similarity.measures import Cka
from allcnn.similarity.method import Method
from tests.strategies import NAMES

A, B = Selection("a", "final"), Selection("b", "init")
RBF = {"kernel": "rbf"}


@pytest.mark.parametrize("name", ["a", "7", "allcnn-d1-v2-s0", "epoch-0005", "v1.2_x", "a" * 100])
def test_names_are_kept(name):
    assert check_name("run", name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "/etc",
        "a/b",
        "a\\b",
        "a..b",
        ".hidden",
        "-rf",
        "a b",
        "a\n",
        "a\x00",
        "é",
        "a@final",
        "~",
        "a" * 101,
    ],
)
def test_names_that_could_leave_the_workspace_are_refused(name):
    with pytest.raises(ConfigError, match=r"^run .* is not a name; use at most 100 letters"):
        check_name("run", name)


def test_a_run_is_named_by_its_settings():
    assert RunConfig.of().name == "allcnn-d1-v2-s0"
    assert RunConfig.of(depth=2, variant="v1", seed=3, prefix="x").name == "x-d2-v1-s3"


def test_defaults_are_a_try_and_images_as_large_as_the_data_set_has_them():
    config = RunConfig.of()
    assert (config.dataset, config.image_size, config.epochs) == ("digits", 16, 20)
    assert config.architecture == AllCnnC(width=0.25)
    for name in ("cifar10", "fashion_mnist"):
        assert RunConfig.of(dataset=name).image_size == 32
    assert RunConfig.of(image_size=12).image_size == 12


@pytest.mark.parametrize(
    ("epochs", "every", "wanted"), [(9, 0, 1), (10, 0, 5), (350, 0, 5), (350, 7, 7), (2, 9, 9)]
)
def test_checkpoints_come_every_five_epochs_or_one_of_a_short_run(epochs, every, wanted):
    assert RunConfig.of(epochs=epochs, checkpoint_every=every).checkpoint_every == wanted


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("image_size", 11, "image-size is 11; use 12 or more"),
        ("depth", 0, "depth is 0; use 1 or more"),
        ("epochs", 0, "epochs is 0; use 1 or more"),
        ("epochs", 2.5, "epochs is 2.5; use a whole number of 1 or more"),
        ("epochs", "5", "epochs is '5'; use a whole number of 1 or more"),
        ("depth", True, "depth is True; use a whole number of 1 or more"),
        ("checkpoint_every", -1, "checkpoint-every is -1; use 1 or more"),
        ("batch_size", 3, "batch-size is 3; use 4 or more"),
        ("seed", -1, "seed is -1; use 0 or more"),
        ("seed", 2**32, "seed is 4294967296; use 4294967295 or less"),
        ("width", 0.0, "width is 0.0; use a number from 0.001 to 1000"),
        ("width", float("nan"), "width is nan; use a number from 0.001 to 1000"),
        ("learning_rate", -0.1, "learning-rate is -0.1; use a number from 1e-09 to 1e.38"),
        ("learning_rate", float("inf"), "learning-rate is inf; use a number from 1e-09 to"),
        ("weight_decay", -1e-9, "weight-decay is -1e-09; use a number from 0 to"),
        ("weight_decay", float("nan"), "weight-decay is nan; use a number from 0 to"),
        ("variant", "v3", "variant is 'v3'; use v1 or v2"),
        ("dataset", "../cifar10", "data set '../cifar10' is not a name"),
        ("prefix", "a/b", "prefix 'a/b' is not a name"),
        ("prefix", "a" * 100, "run 'a{100}-d1-v2-s0' is not a name"),
    ],
)
def test_settings_outside_their_range_are_refused(setting, value, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        RunConfig.of(**{setting: value})


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("image_size", 12),
        ("depth", 1),
        ("epochs", 1),
        ("batch_size", 4),
        ("seed", SEED.most),
        ("weight_decay", 0.0),
        ("width", 0.01),
    ],
)
def test_settings_at_their_bounds_are_kept(setting, value):
    assert RunConfig.of(**{setting: value}).to_json()[setting] == value


def test_settings_survive_json():
    config = RunConfig.of(dataset="cifar10", depth=2, width=0.25, variant="v1", weight_decay=0.0)
    again = RunConfig.from_json(json.loads(json.dumps(config.to_json())))
    assert again == config


@pytest.mark.parametrize("field", RunConfig.settings())
def test_every_setting_is_written_and_told_apart(field):
    # Only Width-n has channels of its own.
    config = (
        RunConfig.of(architecture="width", channels=8) if field == "channels" else RunConfig.of()
    )
    value = config.to_json()[field]
    others = {"v2": "v1", "all-cnn-c": "plain", "float32": "bfloat16"}
    other = others.get(value, f"{value}x") if isinstance(value, str) else value + 1
    changed = config.but(**{field: other})
    assert changed.to_json()[field] == other
    assert changed != config


def test_settings_of_another_version_name_what_differs():
    values = RunConfig.of().to_json()
    del values["depth"]
    with pytest.raises(ConfigError, match="do not fit this version: colour, depth differ"):
        RunConfig.from_json(values | {"colour": 1})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split": "../test"}, "split '../test' is not a name"),
        ({"batch_size": 3}, "batch-size is 3; use 4 or more"),
        ({"n_samples": 3}, "samples is 3; use 4 or more"),
        ({"dtype": "bfloat16"}, "dtype is 'bfloat16'; use float32 or float16"),
        ({"keep": ()}, r"keep is \[\]; name one value or more, each once"),
        ({"keep": ("gram",)}, "keep is 'gram'; use activations or grams"),
        ({"keep": ("grams", "x")}, "keep is 'x'; use activations or grams"),
        ({"kernel": "poly"}, "kernel is 'poly'; use linear, rbf, cosine or MODULE:OBJECT"),
        ({"pool": "max"}, "pool is 'max'; use whole or mean"),
    ],
)
def test_extractions_outside_their_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        Extraction("a", "final", **settings)


def comparison(**flat):
    """Return a comparison of A with B from flat settings, those of its methods among them."""
    how = {name: flat.pop(name) for name in Method.settings() if name in flat}
    return Comparison(A, B, Method.several(how, how), **flat)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kernel": "poly"}, "kernel is 'poly'; use linear, rbf, cosine or MODULE:OBJECT"),
        ({"measure": "mean"}, "measure is 'mean'; use cka, hsic or MODULE:OBJECT"),
        ({"estimator": "best"}, "estimator is 'best'; use unbiased or biased or exact"),
        ({"pool": "max"}, "pool is 'max'; use whole or mean"),
        (RBF | {"sigma": (0.0,)}, "sigma is 0.0; use a number from 1e-09 to"),
        (RBF | {"sigma": (0.4, float("nan"))}, "sigma is nan; use a number from 1e-09 to"),
        (RBF | {"sigma": ()}, r"sigma is \[\]; name one value or more, each once"),
        ({"sigma": 0.4}, "sigma has no effect: kernel is linear, which has no sigma; leave it out"),
        (RBF | {"sigma": (0.4, 0.2, 0.4)}, r"sigma is \[0.4, 0.2, 0.4\]; name one value or more"),
        ({"batch_size": 3}, "batch-size is 3; use 4 or more"),
        ({"label": -1}, "label is -1; use 0 or more"),
        ({"label": "all"}, "label is 'all'; use a whole number of 0 or more"),
        ({"label": True}, "label is True; use a whole number of 0 or more"),
        ({"permutations": -1}, "permutations is -1; use 0 or more"),
        (
            {"permutations": PERMUTATIONS.most + 1},
            "permutations is 1001; use 1000 or less",
        ),
        ({"permutations": 1, "estimator": "exact"}, "permutations shuffle within minibatches of"),
        ({"permutations": 1, "label": 0}, "permutations shuffle .*; leave out the label, and use"),
        ({"permutations": 1, "label": "each"}, "permutations shuffle within minibatches of all"),
    ],
)
def test_comparisons_outside_their_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        comparison(**settings)


@pytest.mark.parametrize(
    "how",
    [
        {"label": 0},
        {"label": "each", "estimator": "exact"},
        {"permutations": PERMUTATIONS.most, "estimator": "biased"},
        {"sigma": [0.2, 0.4, 0.8], "kernel": "rbf"},
        {"measure": "hsic", "kernel": "cosine", "pool": "mean", "batch_size": 4},
        {"measure": "tests.plugins.rsa:Rsa", "kernel": "tests.plugins.distance:Distance"},
    ],
)
def test_comparisons_at_their_bounds_are_kept_and_survive_json(how):
    made = comparison(**how)
    values = made.to_json()
    assert {name: values[name] for name in how} == how
    assert Comparison.from_json(json.loads(json.dumps(values))) == made


def test_a_comparison_has_a_method_for_each_value_of_a_list():
    made = comparison(kernel="rbf", sigma=[0.2, 0.4], estimator="biased", batch_size=16)
    wanted = [Method(Cka("biased"), Rbf(sigma), batch_size=16) for sigma in (0.2, 0.4)]
    assert made.methods == tuple(wanted)
    assert made.method == wanted[0]
    for methods in ((), (wanted[0], wanted[0])):
        with pytest.raises(ConfigError, match=r"^methods are \[.*\]; name one or more, each once"):
            Comparison(A, B, methods)


def test_settings_that_other_kernels_have_count_only_where_they_are_asked_for():
    flat = {"kernel": "linear", "sigma": [0.2, 0.4]}
    assert Method.several(flat) == (Method(),)
    with pytest.raises(ConfigError, match="sigma has no effect: kernel is linear"):
        Method.several(flat, ["sigma"])


def test_comparisons_of_earlier_versions_are_read_and_unknown_settings_refused():
    values = comparison(kernel="rbf", sigma=[0.2, 0.4]).to_json()
    former = values | {"sigmas": values["sigma"]}
    del former["sigma"], former["measure"]
    assert Comparison.from_json(former) == Comparison.from_json(values)
    with pytest.raises(ConfigError, match=r"^a comparison has no setting colour; use "):
        Comparison.from_json(values | {"colour": 1})
    for odd in ({}, [], {"rows": "a@final", "columns": 3}, values | {"sigma": "x"}):
        with pytest.raises(ConfigError):
            Comparison.from_json(odd)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("b@init", B),
        ("a@*:conv[1-9]", Selection("a", "*", "conv[1-9]")),
        ("*@final", Selection("*", "final")),
        ("a@final:conv1/Relu:0", Selection("a", "final", "conv1/Relu:0")),
        ("a@final:x@y", Selection("a", "final", "x@y")),
        ("a@final: ", Selection("a", "final", " ")),
    ],
)
def test_a_selection_is_written_as_it_is_read(text, wanted):
    assert Selection.parse(text) == wanted
    assert str(wanted) == text


@given(NAMES)
def test_a_tap_of_any_name_is_selected_by_it(name):
    side = Selection.parse(f"a@final:{name}")
    assert side.tap == name
    assert side.matches("a", "final", name)
    assert Selection.parse(str(side)) == side
    alone = Selection("a", "final", glob.escape(name))
    assert alone.matches("a", "final", name)
    assert not alone.matches("a", "final", f"{name}0")


def test_all_taps_need_no_name():
    assert Selection.parse("a@final:*") == A
    assert str(Selection("a", "final", "*")) == "a@final"


@pytest.mark.parametrize(
    "text", ["", "a", "a@", "@final", "@", "a:conv1", "a@final:", "a@:conv1", "a@b@c", "a@b@c:d"]
)
def test_half_a_selection_is_refused(text):
    with pytest.raises(ConfigError, match="names no network; write RUN@CHECKPOINT"):
        Selection.parse(text)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a@final", True),
        ("a@final:conv*", True),
        ("a*@final", False),
        ("a@epoch-000?", False),
        ("[ab]@final", False),
    ],
)
def test_a_network_is_a_selection_without_patterns_of_it(text, wanted):
    assert Selection.parse(text).is_network == wanted


@pytest.mark.parametrize(
    ("text", "fits", "does_not"),
    [
        ("a@final", ("a", "final", "conv1"), ("ab", "final", "conv1")),
        ("a*@final", ("ab", "final", "conv1"), ("ba", "final", "conv1")),
        ("*@*:conv[1-9]", ("a", "init", "conv9"), ("a", "init", "conv10")),
        ("*@epoch-*:logits", ("a", "epoch-0005", "logits"), ("a", "final", "logits")),
        ("a@final:conv1", ("a", "final", "conv1"), ("a", "final", "CONV1")),
    ],
)
def test_a_selection_fits_names_by_shell_patterns(text, fits, does_not):
    selection = Selection.parse(text)
    assert selection.matches(*fits)
    assert not selection.matches(*does_not)


def test_the_settings_know_what_stores_hold():
    assert get_args(StoredDType) == get_args(store.DType)
    assert set(get_args(DType)) < set(get_args(StoredDType))
    assert {*map(extracted_dtype, get_args(StoredDType))} == {*get_args(DType)}
