"""Keys, sample sets, metadata and commit records."""

import json
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store import Commit, InvalidKeyError, RepresentationKey, RepresentationMeta, SchemaError
from store.model.names import is_component
from store.model.schema import SampleSet
from tests.strategies import make_meta, metas

UNSAFE = "|.|..|a/b|/etc|a..b|.hidden|-x|a b|a\n|é|a\\b|zarr.json".split("|")


@pytest.mark.parametrize("name", [*UNSAFE, "x" * 201, None, 3])
@pytest.mark.parametrize("component", ["sample_set", "run", "checkpoint"])
def test_unsafe_names_are_refused(component, name):
    parts = {"sample_set": "s", "run": "r", "checkpoint": "c", "tap": "t"} | {component: name}
    with pytest.raises(InvalidKeyError, match=re.escape(f"{name!r} cannot be a folder's name")):
        RepresentationKey(**parts)


@given(st.text())
def test_a_safe_component_stays_where_it_is_put(name):
    if is_component(name):
        assert not set(name) & set("/\\\0\n")
        assert name[0] not in ".-"


def test_key_prints_for_people_and_paths():
    key = RepresentationKey("digits-test-10-01234567", "net-s0", "epoch-0005", "conv1")
    assert str(key) == "net-s0@epoch-0005:conv1"
    assert key.path == "digits-test-10-01234567/net-s0/epoch-0005/conv1"
    assert RepresentationKey.from_text(key.path) == key


def test_sample_set_is_named_after_what_it_is():
    assert make_meta().sample_set.name == "digits-test-10-01234567"


@given(metas)
def test_metadata_survive_json(meta):
    assert RepresentationMeta.from_json(json.loads(json.dumps(meta.to_json()))) == meta


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tap_index", -1), ("tap_index", True), ("batch_rows", 0), ("batch_rows", 2.0),
        ("shape", ()), ("shape", (1, 0)), ("shape", (1, 2, 3, 4)), ("shape", [3]),
        ("dtype", "bfloat16"), ("created_by", ""), ("checkpoint_digest", ""),
        ("created_at", "2026-01-31T12:00:00"), ("created_at", "2026-01-31T12:00:00+01:00"),
        ("created_at", "yesterday"), ("n_taps", 0), ("n_taps", 2.0),
    ],
)  # fmt: skip
def test_metadata_out_of_range_are_refused(field, value):
    with pytest.raises(SchemaError, match=field):
        make_meta(**{field: value})


def test_key_must_name_its_sample_set():
    meta = make_meta()
    with pytest.raises(SchemaError, match="names another sample set than digits-test-10-01234567"):
        replace(meta, key=replace(meta.key, sample_set="digits-test-10-76543210"))


@pytest.mark.parametrize(
    "change",
    [
        {"key": "a/b"}, {"key": ["a"]}, {"sample_set": None}, {"sample_set": {}}, {"shape": "abc"},
        {"shape": None}, {"surplus": 1}, {"dtype": None}, {"created_at": 5},
    ],
)  # fmt: skip
def test_malformed_stored_metadata_are_refused(change):
    with pytest.raises(SchemaError):
        RepresentationMeta.from_json(make_meta().to_json() | change)


def test_unsafe_stored_names_are_malformed_metadata():
    values = make_meta().sample_set.to_json() | {"dataset": "../x"}
    with pytest.raises(SchemaError, match=r"malformed: data set '\.\./x'"):
        SampleSet.from_json(values)


@pytest.mark.parametrize(
    "record",
    [
        {"start": 0, "stop": 4},
        {"start": 4, "stop": 4, "digest": "crc32c:00000000"},
        {"start": -1, "stop": 4, "digest": "crc32c:00000000"},
        {"start": 0, "stop": 4, "digest": "md5:00000000"},
        {"start": 0, "stop": 4, "digest": None},
        None,
    ],
)
def test_malformed_commit_records_are_refused(record):
    with pytest.raises(SchemaError):
        Commit.from_json(record)
