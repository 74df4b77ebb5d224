"""Settings: bounds, defaults, names that stay inside the workspace, JSON there and back."""

import dataclasses
import json

import pytest

from allcnn.config import MAX_SEED, Comparison, Extraction, Network, RunConfig, check_name
from allcnn.errors import ConfigError

A, B = Network("a", "final"), Network("b", "init")


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
    with pytest.raises(ConfigError, match=r"^run .* is not a name: use at most 100 letters"):
        check_name("run", name)


def test_a_run_is_named_by_its_settings():
    assert RunConfig().name == "allcnn-d1-v2-s0"
    assert RunConfig(depth=2, variant="v1", seed=3, prefix="x").name == "x-d2-v1-s3"


@pytest.mark.parametrize(
    ("epochs", "every", "wanted"), [(9, 0, 1), (10, 0, 5), (350, 0, 5), (350, 7, 7), (2, 9, 9)]
)
def test_checkpoints_come_every_five_epochs_or_one_of_a_short_run(epochs, every, wanted):
    assert RunConfig(epochs=epochs, checkpoint_every=every).checkpoint_every == wanted


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
        ("width", 0.0, "width is 0.0; use a number above 0"),
        ("width", float("nan"), "width is nan; use a number above 0"),
        ("learning_rate", -0.1, "learning-rate is -0.1; use a number above 0"),
        ("learning_rate", float("inf"), "learning-rate is inf; use a number above 0"),
        ("weight_decay", -1e-9, "weight-decay is -1e-09; use 0 or a positive number"),
        ("weight_decay", float("nan"), "weight-decay is nan; use 0 or a positive number"),
        ("variant", "v3", "variant is 'v3'; use v1 or v2"),
        ("dataset", "../cifar10", "data set '../cifar10' is not a name"),
        ("prefix", "a/b", "prefix 'a/b' is not a name"),
        ("prefix", "a" * 100, "run 'a{100}-d1-v2-s0' is not a name"),
    ],
)
def test_settings_outside_their_range_are_refused(setting, value, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        RunConfig(**{setting: value})


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("image_size", 12),
        ("depth", 1),
        ("epochs", 1),
        ("batch_size", 4),
        ("seed", MAX_SEED),
        ("weight_decay", 0.0),
        ("width", 0.01),
    ],
)
def test_settings_at_their_bounds_are_kept(setting, value):
    assert getattr(RunConfig(**{setting: value}), setting) == value


def test_settings_survive_json():
    config = RunConfig(dataset="cifar10", depth=2, width=0.25, variant="v1", weight_decay=0.0)
    again = RunConfig.from_json(json.loads(json.dumps(config.to_json())))
    assert again == config


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(RunConfig)])
def test_every_setting_is_written_and_told_apart(field):
    config = RunConfig()
    value = getattr(config, field)
    other = {"v2": "v1"}.get(value, f"{value}x") if isinstance(value, str) else value + 1
    changed = dataclasses.replace(config, **{field: other})
    assert changed.to_json()[field] == other
    assert changed != config


def test_settings_of_another_version_name_what_differs():
    values = RunConfig().to_json()
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
    ],
)
def test_extractions_outside_their_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        Extraction("a", "final", **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kernel": "cosine"}, "kernel is 'cosine'; use linear or rbf"),
        ({"estimator": "best"}, "estimator is 'best'; use unbiased or biased"),
        ({"sigma": 0.0}, "sigma is 0.0; use a number above 0"),
        ({"sigma": float("nan")}, "sigma is nan; use a number above 0"),
        ({"batch_size": 3}, "batch-size is 3; use 4 or more"),
    ],
)
def test_comparisons_outside_their_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        Comparison(A, B, **settings)


def test_a_network_is_written_as_it_is_read():
    assert Network.parse("b@init") == B
    assert str(B) == "b@init"


@pytest.mark.parametrize("text", ["", "a", "a@", "@final"])
def test_half_a_network_is_refused(text):
    with pytest.raises(ConfigError, match="names no network; write RUN@CHECKPOINT"):
        Network.parse(text)
