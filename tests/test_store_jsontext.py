"""JSON from elsewhere: what is read is what JSON can say, and what Python can use."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.model.strict_json import parse

SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False)
FINITE = SCALARS.filter(lambda value: not isinstance(value, float) or abs(value) < float("inf"))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
VALUES = st.recursive(
    FINITE | TEXTS,
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(TEXTS, parts, max_size=3),
    max_leaves=8,
)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(VALUES, st.booleans())
def test_what_json_can_say_is_read(values, as_ascii):
    text = json.dumps(values, ensure_ascii=as_ascii)
    assert parse(text) == values
    assert parse(text.encode()) == values


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        ("[1", "Expecting ',' delimiter"),
        (b"\xff", "can't decode byte 0xff"),
        ("[" * 10**5, "nest too deep"),
        ("[" * 500 + "]" * 500, "nest too deep"),
        ('{"a":' * 65 + "1" + "}" * 65, "nest too deep"),
        ('{"a": 1, "b": 2, "a": 3}', "the name 'a' stands in it twice"),
        ("[NaN]", "NaN stands in it"),
        ("-Infinity", "-Infinity stands in it"),
        ("1e400", "the number 1e400 in it is too large"),
        ("1" + "0" * 400, "a number in it has 401 digits"),
        ("1" + "0" * 5000, "a number in it has 5001 digits"),
        (r'"\udcff"', "half a surrogate pair"),
        (r'{"\uD800": 1}', "half a surrogate pair"),
    ],
)
def test_what_would_fail_later_is_refused(text, reason):
    with pytest.raises(ValueError, match=reason):
        parse(text)


def test_whole_surrogate_pairs_are_letters():
    assert parse(r'"\ud83d\udca5"') == "\U0001f4a5"


def test_constants_pass_where_other_programs_write_them():
    assert parse('{"fill": Infinity}', constants=True) == {"fill": float("inf")}
