"""What arrays in files are for: each rule, its line, and what no rule lets through."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store import ArrayError
from store.ingest.files.arrays import ArrayFile, refused
from store.ingest.files.roles import as_classes, as_indices, assign

N = 6
FC = np.random.default_rng(0).standard_normal((N, 3))
CONV = np.random.default_rng(1).standard_normal((N, 2, 2, 3))


def found(file="a.npz", **arrays):
    """Return arrays as if they had been found in a file; names may have ``__`` for a slash."""
    named = {name.replace("__", "/"): array for name, array in arrays.items()}
    return [in_file(file, name, array) for name, array in named.items()]


def in_file(file, name, array):
    if not isinstance(array, ArrayFile):
        array = ArrayFile(name, array.shape, array.dtype, array.__getitem__)
    return replace(array, name=name, file=Path(file), source=f"{file}:{name}")


def objects(*shape):
    return refused("", shape, "holds Python objects", "save numbers")


CLASSES = np.array([0, 2, 1, 1, 0, 2])
TEXTS = np.array(["cat", "dog", "owl"])[CLASSES]
LABELS = {
    "integers": (CLASSES, None),
    "(n, 1)": (CLASSES[:, None], r"a\.npz:labels \(6, 1\) int64 is taken as the labels"),
    "(1, n)": (CLASSES[None], r"a\.npz:labels \(1, 6\) int64 is taken as the labels"),
    "one-hot": (np.eye(3)[CLASSES], r"\(6, 3\) float64 is taken as the labels \(one-hot\)"),
    "one-hot truths": (np.eye(3, dtype=bool)[CLASSES], r"the labels \(one-hot\)"),
    "floats": (CLASSES.astype("f2"), None),
    "texts": (TEXTS, r"the labels \('cat' = 0, 'dog' = 1, 'owl' = 2\)"),
    "texts (n, 1)": (TEXTS[:, None], r"the labels \('cat' = 0, 'dog' = 1, 'owl' = 2\)"),
    "bytes": (np.char.encode(TEXTS), r"the labels \('cat' = 0, 'dog' = 1, 'owl' = 2\)"),
}


@pytest.mark.parametrize(("labels", "message"), LABELS.values(), ids=LABELS)
def test_labels_become_classes_whatever_their_form(labels, message):
    roles = assign(found(fc=FC, labels=labels))
    assert list(roles.taps) == ["fc"]
    np.testing.assert_array_equal(roles.labels, CLASSES)
    assert len(roles.notes) == (message is not None)
    assert message is None or re.search(message, roles.notes[0])


def test_truths_are_two_classes():
    classes, message = as_classes("x", CLASSES == 1)
    np.testing.assert_array_equal(classes, [0, 0, 1, 1, 0, 0])
    assert message == "false = 0, true = 1"


NO_CLASSES = {
    "fractions": (CLASSES + 0.5, r"has 0\.5 in row 0; want one integer"),
    "nan": (np.where(CLASSES == 1, np.nan, 0), r"has nan in row 2"),
    "soft": (np.full((N, 3), 1 / 3), r"of shape \(6, 3\) is not one-hot in row 0"),
    "two hot": (np.ones((N, 3), int), "of shape .* is not one-hot in row 0"),
    "three axes": (np.zeros((N, 3, 3), int), r"is int64 of shape \(6, 3, 3\); want"),
    "scalar": (np.array(3), r"is int64 of shape \(\); want"),
    "text rows": (np.full((N, 2), "x"), r"is <U1 of shape \(6, 2\); want"),
    "complex": (CLASSES * 1j, "is of type complex128; want"),
    "dates": (CLASSES.astype("M8[s]"), "is of type datetime64"),
    "latin": (np.full(N, b"\xff"), "holds texts that are not UTF-8"),
    "objects": (objects(N), "holds Python objects"),
}


@pytest.mark.parametrize(("labels", "message"), NO_CLASSES.values(), ids=NO_CLASSES)
def test_labels_that_are_no_classes_are_refused_and_no_layer(labels, message):
    with pytest.raises(ArrayError, match=rf"^a\.npz:labels {message}"):
        assign(found(fc=FC, labels=labels))


@pytest.mark.parametrize("name", ["Label", "LABELS", "test__labels", "test.label"])
def test_labels_are_known_in_any_group_and_case(name):
    roles = assign(found(fc=FC, **{name: CLASSES[:, None]}))
    np.testing.assert_array_equal(roles.labels, CLASSES)


@pytest.mark.parametrize("name", ["samples", "sample"])
@pytest.mark.parametrize("values", [CLASSES, CLASSES[:, None], CLASSES[None], CLASSES.astype("f8")])
def test_samples_become_indices(name, values):
    roles = assign(found(fc=FC, **{name: values}))
    np.testing.assert_array_equal(roles.samples, CLASSES)
    assert roles.samples.dtype.kind == "i"
    assert list(roles.taps) == ["fc"]


@pytest.mark.parametrize("values", [FC, TEXTS, CONV, CLASSES == 1], ids=["2", "U", "4", "bool"])
def test_samples_of_other_forms_are_refused(values):
    with pytest.raises(ArrayError, match=r"^a\.npz:samples is .* want one integer a row"):
        assign(found(fc=FC, samples=values))


LEFT_OUT = {
    "epoch": (np.array(3), "it is a single value"),
    "note": (np.array("mine"), "it holds texts or dates"),
    "paths": (TEXTS, "which describes examples"),
    "ids": (CLASSES[:, None], "which describes examples; --labels a.npz:ids takes it as classes"),
    "targets": (np.eye(3)[CLASSES], "which describes examples; --labels a.npz:targets"),
    "y": (FC, "which describes examples"),
    "when": (CLASSES.astype("M8[s]"), "it holds texts or dates"),
    "confidence": (FC[:, 0], "it has one axis, and a layer two or more; --labels a.npz:confidence"),
    "truth": (CLASSES[:, None], "it has one column of integers, as labels and indices have"),
    "right": (CLASSES[:, None] == 1, "it has one column of integers"),
    "mean": (FC[:1], "it has one row, and a layer has one an example"),
    "files": (objects(N), "which describes examples"),
    "meta": (objects(), "it holds Python objects"),
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_is_no_layer_is_left_out_with_a_line(name):
    array, message = LEFT_OUT[name]
    roles = assign(found(fc=FC, **{name: array}))
    assert list(roles.taps) == ["fc"]
    assert (roles.labels, roles.samples) == (None, None)
    (note,) = roles.notes
    assert note.startswith(f"left out a.npz:{name} {array.shape}")
    assert message in note


@pytest.mark.parametrize("name", ["y", "targets", "confidence", "truth"])
def test_what_is_left_out_may_be_chosen(name):
    array = LEFT_OUT[name][0]
    roles = assign(found(fc=FC, **{name: array}), [f"layer={name}", "fc"])
    assert list(roles.taps) == ["layer", "fc"]
    np.testing.assert_array_equal(roles.taps["layer"].read_all(), array)


def test_taps_choose_rename_and_order():
    arrays = found(a=FC, b=CONV, c=FC, labels=CLASSES, targets=CLASSES)
    roles = assign(arrays, ["b", "first=a"])
    assert {name: each.name for name, each in roles.taps.items()} == {"b": "b", "first": "a"}
    assert list(roles.taps) == ["b", "first"]
    assert roles.labels is not None
    assert roles.notes == [
        "left out a.npz:c (6, 3) float64, which --tap does not name",
        "left out a.npz:targets (6,) int64, which --tap does not name",
    ]


def test_one_array_may_be_two_taps_and_names_may_have_equals_signs():
    arrays = [*found(a=FC), in_file("a.npz", "b=c", CONV)]
    assert list(assign(arrays, ["a", "again=a", "b=c", "d=b=c"]).taps) == ["a", "again", "b=c", "d"]


def test_sources_choose_among_arrays_of_one_name():
    arrays = found("x/a.npz", fc=FC) + found("y/a.npz", fc=FC + 1)
    message = (
        r"^there are two arrays 'fc'; name all layers, as in (--tap fc-1=x/a.npz:fc --tap"
        r" fc-2=y/a.npz:fc), or leave one out, as in --skip (y/a.npz:fc)$"
    )
    with pytest.raises(ArrayError, match=message) as caught:
        assign(arrays)
    advice = re.search(message, str(caught.value))
    taps = assign(arrays, [word for word in advice[1].split() if word != "--tap"]).taps
    assert [each.source for each in taps.values()] == ["x/a.npz:fc", "y/a.npz:fc"]
    assert [each.source for each in assign(arrays, skip=[advice[2]]).taps.values()] == [
        "x/a.npz:fc"
    ]


WRONG = {
    "unknown": (["d"], [], r"tap is 'd', and there is no array 'd' among a, b, labels; write NAME"),
    "unknown old": (["x=d"], [], r"tap is 'x=d', and there is no array 'd' among"),
    "empty": ([""], [], "tap is '', and there is no array ''"),
    "no new": (["=a"], [], "tap is '=a'; write NAME or NEW=NAME"),
    "no old": (["a="], [], "tap is 'a=', and"),
    "twice": (["a", "a=b"], [], "tap is 'a=b', and names 'a' twice; give each layer one name"),
    "labels": (["a", "labels"], [], r"without being a layer; .*--tap layer=l"),
    "skip": ([], ["z*"], r"skip is 'z\*', and fits none of a, b, labels"),
    "skipped": (["a"], ["a"], "there is no array 'a' among b, labels"),
    "all": ([], ["?"], r"no activations among a, b, labels; .*left out a\.npz:a, as --"),
}  # fmt: skip


@pytest.mark.parametrize(("taps", "skip", "message"), WRONG.values(), ids=WRONG)
def test_choices_that_fit_nothing_are_refused(taps, skip, message):
    with pytest.raises(ArrayError, match=message):
        assign(found(a=FC, b=CONV, labels=CLASSES), taps, skip)


def test_skipped_arrays_are_never_read():
    arrays = found(a=FC, labels=objects(N), b=objects(N, 3))
    roles = assign(arrays, skip=["label*", "b"])
    assert (list(roles.taps), roles.labels) == (["a"], None)
    assert roles.notes == [f"left out a.npz:{x}, as --skip says" for x in ("labels", "b")]


def test_what_could_be_a_layer_but_cannot_be_read_is_refused_with_what_leaves_it_out():
    arrays = found(a=FC, b=objects(N, 3))
    with pytest.raises(
        ArrayError, match=r"^a.npz:b holds Python objects; save numbers; --skip b leaves"
    ):
        assign(arrays)
    assert list(assign(arrays, skip=["b"]).taps) == ["a"]
    with pytest.raises(ArrayError, match="holds Python objects"):
        assign(arrays, ["b"])


def test_other_numbers_of_rows_are_refused_with_what_leaves_them_out():
    arrays = found(w=FC[:4], a=FC, b=CONV)
    message = (
        r"^w has the shape \(4, 3\), and 2 of 3 arrays have 6 rows; want one row an example, or"
        r" leave it out with --skip w$"
    )
    with pytest.raises(ArrayError, match=message):
        assign(arrays)
    assert list(assign(arrays, skip=["w"]).taps) == ["a", "b"]


def test_labels_given_elsewhere_are_not_read():
    roles = assign(found(fc=FC, labels=FC), known=["labels"])
    assert roles.notes == ["left out a.npz:labels (6, 3) float64, as --labels is given"]


def test_labels_of_several_files_agree():
    both = found("a.npz", a=FC, labels=CLASSES) + found("b.npz", b=FC, labels=CLASSES[:, None])
    np.testing.assert_array_equal(assign(both).labels, CLASSES)
    odd = found("a.npz", a=FC, labels=CLASSES) + found("b.npz", b=FC, labels=CLASSES[::-1])
    with pytest.raises(ArrayError, match=r"^b\.npz:labels differs from the labels of another file"):
        assign(odd)


METADATA = {
    "ours": (json.dumps({"key": "x-test-6-abc/run/final/conv1"}), "conv1"),
    "no key": (json.dumps({"keys": 1}), "values"),
    "no text": (json.dumps({"key": ["conv1"]}), "values"),
    "no object": ("[1]", "values"),
    "no JSON": ("conv1", "values"),
    "a path": (json.dumps({"key": "../../etc/passwd"}), "values"),
    "deep": ("[" * 10_000, "values"),
}


@pytest.mark.parametrize(("text", "name"), METADATA.values(), ids=METADATA)
def test_layers_that_query_wrote_have_their_names(text, name):
    roles = assign(found(values=FC, samples=CLASSES, metadata=np.array(text)))
    assert list(roles.taps) == [name]


def test_nothing_and_no_layer_are_refused():
    with pytest.raises(ArrayError, match=r"^there are no activations among; give arrays of two"):
        assign([])
    message = (
        r"^there are no activations among a, labels; .* \(left out a\.npz:a \(6,\) float64: it"
    )
    with pytest.raises(ArrayError, match=message):
        assign(found(a=FC[:, 0], labels=CLASSES))


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from(["labels", "samples", "targets", "x", "ids"]),
    st.sampled_from(["i1", "u8", "f2", "f8", "?", "c8", "U3", "S2", "M8[s]", "V3"]),
    st.lists(st.integers(0, 7), max_size=5),
    st.integers(0, 2**32),
)
def test_whatever_lies_beside_a_layer_is_said_or_refused(name, dtype, shape, seed):
    raw = np.random.default_rng(seed).integers(0, 3, shape)
    array = raw.astype("V3") if dtype == "V3" else raw.astype(dtype)
    try:
        roles = assign(found(fc=FC, **{name: array}))
    except ArrayError:
        return
    assert "fc" in roles.taps
    assert name not in roles.taps or (name == "x" and array.ndim > 1 and len(array) == N)
    silent = name in roles.taps or (name in ("labels", "samples") and array.ndim == 1)
    assert silent or roles.notes


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1), st.sampled_from(["i8", "f8", "O"]))
def test_indices_keep_their_values(values, dtype):
    if dtype == "O":
        with pytest.raises(ArrayError):
            as_indices("x", np.array(values, object))
        return
    np.testing.assert_array_equal(as_indices("x", np.array(values, dtype)), values)
