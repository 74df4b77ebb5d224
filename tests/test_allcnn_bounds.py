"""Bounds of settings: the same for options, forms of flows and records."""

import json
from contextlib import suppress
from dataclasses import fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allcnn.definitions import bounds
from allcnn.definitions.bounds import Bounds
from allcnn.errors import AllcnnError, ConfigError
from allcnn.networks.architectures import convolutional, width_n
from allcnn.settings.comparison import Comparison
from allcnn.settings.extraction import Extraction
from allcnn.settings.probing import Probing
from allcnn.settings.run import RunConfig
from allcnn.settings.selection import Selection
from allcnn.similarity.method import Method
from flows.settings.nightly_plan import Nightly
from flows.settings.parameters import (
    ExtractParameters,
    MatrixParameters,
    NightlyParameters,
    PipelineParameters,
    ProbeParameters,
    TrainParameters,
)

ALL = [
    *(each for each in vars(bounds).values() if isinstance(each, Bounds)),
    *(convolutional.DEPTH, convolutional.WIDTH, width_n.CHANNELS),
]
MODELS = [
    TrainParameters,
    ExtractParameters,
    MatrixParameters,
    ProbeParameters,
    PipelineParameters,
    NightlyParameters,
]

HOSTILE = st.one_of(
    st.sampled_from([10**20, 10**60, 10**5000, -1, 0, 1e308, 1e-320, float("nan"), float("inf")]),
    st.sampled_from(["", " ", "\U0001f4a5", "\udcff", "x" * 10**5, "../x", "-", "[", "{", "\0"]),
    st.sampled_from([None, True, [], {}, [[]], {"a": 1}, ("grams",), Selection("*", "*")]),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
)


@pytest.mark.parametrize("limits", ALL, ids=str)
def test_both_ends_are_allowed_and_nothing_beyond(limits):
    limits.check("x", limits.least)
    limits.check("x", limits.most)
    step = 1 if limits.whole else max(abs(limits.least), 1e-300)
    for value in (limits.least - step, limits.most + max(step, limits.most)):
        with pytest.raises(ConfigError, match=r"^x is .*; use "):
            limits.check("x", value)


@pytest.mark.parametrize("value", [True, None, "1", [], float("nan"), float("inf"), 10**400])
@pytest.mark.parametrize("limits", ALL, ids=str)
def test_what_is_no_number_is_refused(limits, value):
    with pytest.raises(ConfigError, match=r"^x is .*; use "):
        limits.check("x", value)


def numbers_of(kind):
    return [each.name for each in fields(kind) if each.type in (int, float, "int", "float")]


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.data())
def test_settings_take_no_value_that_fails_later(data):
    """Whatever one of them is, it is refused by a sentence, or the settings are usable."""
    side = Selection("a", "b")
    known = {
        RunConfig: {},
        Extraction: {"run": "a", "checkpoint": "b"},
        Comparison: {"rows": side, "columns": side},
        Probing: {"networks": side},
        Nightly: {},
    }
    kind = data.draw(st.sampled_from(list(known)))
    numbers = [each.name for each in fields(kind) if each.type in (int, float, "int", "float")]
    name = data.draw(st.sampled_from(numbers or ["pool"]))
    made = None
    with suppress(AllcnnError):
        made = kind(**known[kind] | {name: data.draw(HOSTILE)})
    assert repr(made)


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.data())
def test_flat_settings_of_runs_and_methods_take_no_value_that_fails_later(data):
    kind = data.draw(st.sampled_from([RunConfig, Method]))
    of = {"architecture": "width"} if kind is RunConfig else {"kernel": "rbf"}
    values = of | {data.draw(st.sampled_from(list(kind.settings()))): data.draw(HOSTILE)}
    made = None
    with suppress(AllcnnError):
        made = RunConfig.of(**values) if kind is RunConfig else Method.from_json(values)
    if made is not None:
        assert type(made).from_json(json.loads(json.dumps(made.to_json()))) == made
    if isinstance(made, RunConfig):
        assert len(made.name) <= 100


@pytest.mark.parametrize("model", MODELS)
def test_every_number_of_a_form_has_both_ends(model):
    """So that the form of a web page refuses what the work would."""

    def unbounded(schema, name):
        if "anyOf" in schema:
            return [each for part in schema["anyOf"] for each in unbounded(part, name)]
        if schema.get("type") == "array":
            return unbounded(schema["items"], name)
        if schema.get("type") in ("integer", "number"):
            return [] if {"minimum", "maximum"} <= set(schema) else [name]
        return []

    properties = model.model_json_schema()["properties"]
    assert [each for name, one in properties.items() for each in unbounded(one, name)] == []
