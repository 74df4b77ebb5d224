"""Finding by names: patterns, comparisons, and refusals instead of silently finding nothing."""

import operator
import shutil
from fnmatch import fnmatchcase

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store import GramWriter, QueryError, SchemaError, StoreError, Writer, open_grams
from store import open as open_store
from store.arrays.committed import CommittedReader
from store.arrays.query import Query, facts, parse_where
from tests.faults import flip_bit
from tests.strategies import coordinates, make_gram_meta, make_meta

NETWORKS = {
    "net-s0": {"depth": 1, "seed": 0, "variant": "v2", "width": 0.25},
    "net-s1": {"depth": 2, "seed": 1, "variant": "v1", "width": 1.0},
    "other": {"optimiser": "adam", "epoch": 7},
}
EPOCHS = {"init": 0, "epoch-0005": 5, "final": 10}


def metas():
    for run, attributes in NETWORKS.items():
        for checkpoint, epoch in EPOCHS.items():
            for index, tap in enumerate(["conv1", "conv2", "logits"]):
                changes = {"run": run, "checkpoint": checkpoint, "tap_index": index}
                yield make_meta(tap, **changes, attributes={"epoch": epoch} | attributes)


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    path = tmp_path_factory.mktemp("query") / "a.zarr"
    for meta in metas():
        Writer.open(path, meta, *coordinates(meta)).close()
    return open_store(path)


def test_what_cannot_be_opened_is_told_or_raised_and_hides_nothing(filled, tmp_path):
    shutil.copytree(filled.path, tmp_path / "a.zarr")
    kept = open_store(tmp_path / "a.zarr")
    broken, *others = kept.find()
    flip_bit(broken.place / "zarr.json")
    copy = broken.place.with_name("copy")
    shutil.copytree(others[0].place, copy)
    scan = kept.scan()
    assert named(scan.found) == named(others)
    assert set(scan.unreadable) == {broken.key.path, f"{broken.key.path.rpartition('/')[0]}/copy"}
    with pytest.raises(SchemaError, match="rename the folder to what it holds"):
        kept.find(tap="copy")
    # What the names of folders rule out is not looked at.
    assert kept.scan(tap=others[0].key.tap).unreadable == {}
    assert kept.find(tap=others[0].key.tap)


def test_a_name_that_what_is_unreadable_may_have_is_not_refused(filled, tmp_path):
    shutil.copytree(filled.path, tmp_path / "a.zarr")
    kept = open_store(tmp_path / "a.zarr")
    for tap in kept.find(run="other"):
        flip_bit(tap.place / "zarr.json")
    assert kept.scan(optimiser="adam").found == []
    assert len(kept.scan(optimiser="adam").unreadable) == 9
    with pytest.raises(StoreError, match=r"unreadable|damaged|sealed|malformed"):
        kept.find(optimiser="adam")


@pytest.fixture
def opened(monkeypatch):
    """Return the paths of the groups that are opened."""
    seen, original = [], CommittedReader.at.__func__

    def spy(cls, root, path):
        seen.append(path)
        return original(cls, root, path)

    monkeypatch.setattr(CommittedReader, "at", classmethod(spy))
    return seen


def named(found):
    return {str(one.key) for one in found}


FILTERS = {
    "nothing": ({}, lambda f: True),
    "none": ({"run": None, "epoch": None}, lambda f: True),
    "exact": ({"run": "net-s0", "checkpoint": "final"}, lambda f: f["tail"] == "net-s0@final"),
    "pattern": ({"tap": "conv*"}, lambda f: f["tap"].startswith("conv")),
    "range of letters": ({"tap": "conv[2-9]"}, lambda f: f["tap"] == "conv2"),
    "at least": ({"epoch__ge": 5}, lambda f: f["epoch"] >= 5),
    "above": ({"epoch__gt": 5}, lambda f: f["epoch"] > 5),
    "between": ({"epoch__gt": 0, "epoch__lt": 10}, lambda f: 0 < f["epoch"] < 10),
    "at most": ({"width__le": 0.5}, lambda f: f.get("width", 9) <= 0.5),
    "integer for float": ({"width": 1}, lambda f: f.get("width") == 1.0),
    "NumPy's numbers": ({"seed": np.int64(1)}, lambda f: f.get("seed") == 1),
    "several": ({"seed": [0, 1]}, lambda f: "seed" in f),
    "a range": ({"epoch": range(1, 10**12)}, lambda f: f["epoch"] >= 1),
    "an array": ({"epoch": np.array([0, 10])}, lambda f: f["epoch"] in (0, 10)),
    "a set of patterns": ({"tap": {"*1", "log*"}}, lambda f: f["tap"] != "conv2"),
    "none of them": ({"tap__ne": ("conv*",)}, lambda f: f["tap"] == "logits"),
    "other than": ({"seed__ne": 0}, lambda f: f.get("seed", 0) != 0),
    "order of texts": ({"checkpoint__ge": "f"}, lambda f: f["checkpoint"] in ("final", "init")),
    "an attribute of few": ({"optimiser": "a*"}, lambda f: "optimiser" in f),
    "unfinished": ({"complete": False, "tap": "logits"}, lambda f: f["tap"] == "logits"),
    "finished": ({"complete": True}, lambda f: False),
    "sample set": ({"dataset": "digits", "split": "t*", "n_samples": 10}, lambda f: True),
    "no such run": ({"run": "net", "epoch": 5}, lambda f: False),
    "none of nothing": ({"run": []}, lambda f: False),
}


@pytest.mark.parametrize(("filters", "fits"), FILTERS.values(), ids=FILTERS)
def test_filters(filled, filters, fits):
    wanted = set()
    for meta in metas():
        more = {"tail": f"{meta.key.run}@{meta.key.checkpoint}"}
        if fits(facts(meta, False) | more):
            wanted.add(str(meta.key))
    assert named(filled.find(**filters)) == wanted


def test_the_first_three_names_may_be_positions(filled):
    found = filled.find("net-s0", "final", filled.find()[0].key.sample_set)
    assert named(found) == {f"net-s0@final:{tap}" for tap in ("conv1", "conv2", "logits")}


@pytest.mark.parametrize(
    ("filters", "sentence"),
    [
        (
            {"epoc": 5},
            r"nothing in .* has the name 'epoc'; use one of checkpoint, complete, .*epoch",
        ),
        ({"epoch__gte": 5}, r"has the name 'epoch__gte'; .* and __ge, __gt, __le, __lt or __ne"),
        ({"epoc": 5, "run": "no-such-run"}, "nothing in .* has the name 'epoc'"),
        ({"kernel": "linear"}, "has the name 'kernel'"),
        (
            {"epoch": "5"},
            r"epoch is a number \(such as \d+\) in .*, and was compared with the text '5'",
        ),
        ({"epoch__ge": "5"}, "epoch is a number .* compare it with a number"),
        ({"variant": 2}, r"variant is a text \(such as 'v\d'\) .* with the number 2"),
        ({"run": 0}, "run is a text, and was compared with the number 0; compare it with a text"),
        ({"complete": 1}, "complete is a truth value, and was compared with the number 1"),
        ({"n_samples": True}, "n_samples is a number, and was compared with the truth value True"),
        ({"seed": [0, "1"]}, "seed is a number and a text; give values of one kind"),
        ({"epoch__ge": [1, 2]}, "give one number or one text to compare with"),
        ({"complete__ge": True}, "give one number or one text to compare with"),
        ({"tap": b"conv1"}, "tap is b'conv1'; give a text, a number, True or False, or a list"),
        ({"tap": slice(3)}, "give a text, a number, True or False, or a list"),
    ],
)
def test_what_could_only_find_nothing_by_mistake_is_refused(filled, filters, sentence):
    with pytest.raises(QueryError, match=sentence):
        filled.find(**filters)


def test_an_attribute_of_other_runs_is_no_mistake(filled):
    assert filled.find(run="net-s0", optimiser="adam") == []


def test_values_of_another_kind_elsewhere_do_not_fit(tmp_path):
    for tap, depth in (("a", 3), ("b", "deep")):
        meta = make_meta(tap, attributes={"depth": depth})
        Writer.open(tmp_path / "a.zarr", meta, *coordinates(meta)).close()
    opened = open_store(tmp_path / "a.zarr")
    assert [one.key.tap for one in opened.find(depth__ge=1)] == ["a"]
    assert [one.key.tap for one in opened.find(depth="d*")] == ["b"]


@pytest.mark.parametrize("name", sorted(facts(make_meta(), True)))
def test_no_attribute_hides_what_is_stored_anyway(name):
    with pytest.raises(SchemaError, match=f"attribute '{name}' would hide"):
        make_meta(attributes={name: "elsewhere"})


def test_names_of_grams_go_before_attributes():
    meta = make_gram_meta(attributes={"kernel": 3, "depth": 1})
    assert (facts(meta, True)["kernel"], facts(meta, True)["depth"]) == ("linear", 1)


def test_an_empty_store_has_nothing_to_say(tmp_path):
    meta = make_meta()
    Writer.open(tmp_path / "a.zarr", meta, *coordinates(meta)).close()
    empty = open_store(tmp_path / "a.zarr")
    for file in (tmp_path / "a.zarr" / meta.key.path).glob("zarr.json"):
        file.unlink()
    assert empty.find(epoc=5) == []


@pytest.mark.parametrize("wanted", ["net-s1", "*1"])
def test_only_folders_that_fit_are_opened(filled, opened, wanted):
    assert len(filled.find(run=wanted, checkpoint="final", tap="conv?", epoch__ge=5)) == 2
    assert [path.split("/")[1:] for path in opened] == [
        ["net-s1", "final", "conv1"],
        ["net-s1", "final", "conv2"],
    ]


def test_grams_are_found_alike(tmp_path):
    for kernel, tap in (("linear", "conv1"), ("cosine", "conv1"), ("linear", "conv2")):
        meta = make_gram_meta(tap, kernel=kernel, attributes={"epoch": 3})
        GramWriter.open(tmp_path / "g.zarr", meta, *coordinates(meta)).close()
    opened = open_grams(tmp_path / "g.zarr")
    assert len(opened.find(epoch__ge=3)) == 3
    assert len(opened.find(tap="conv1", pool="whole", batch_size=4, dtype="float32")) == 2
    (found,) = opened.find(tap="conv*", kernel="cosine")
    assert (found.key.kernel, found.key.of.tap) == ("cosine", "conv1")
    with pytest.raises(QueryError, match="has the name 'kernels'; use one of batch_size, "):
        opened.find(kernels="linear")


numbers = st.integers(-3, 3) | st.floats(allow_nan=False)


@given(numbers, st.sampled_from(["eq", "ne", "ge", "gt", "le", "lt"]), numbers)
def test_numbers_compare_as_python_compares_them(value, order, wanted):
    name = "x" if order == "eq" else f"x__{order}"
    query = Query.parse({name: wanted})
    assert query.matches({"x": value}) == getattr(operator, order)(value, wanted)
    assert not query.matches({"y": value})
    assert not query.matches({"x": str(value)})


letters = st.text("ab*?", max_size=4)


@given(letters, letters, letters)
def test_texts_are_patterns(value, first, second):
    fits = fnmatchcase(value, first) or fnmatchcase(value, second)
    assert Query.parse({"x": [first, second]}).matches({"x": value}) == fits
    assert Query.parse({"x__ne": [first, second]}).matches({"x": value}) == (not fits)
    assert Query.parse({"run": [first, second]}).admits("run", value) == fits


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("epoch>=5", ("epoch__ge", 5)),
        (" epoch > -5 ", ("epoch__gt", -5)),
        ("width<=0.25", ("width__le", 0.25)),
        ("width<1e-3", ("width__lt", 0.001)),
        ("depth!=1", ("depth__ne", 1)),
        ("tap=conv*", ("tap", "conv*")),
        ("tap==conv1", ("tap", "conv1")),
        ("seed=0, 1,2", ("seed", [0, 1, 2])),
        ("run=5", ("run", "5")),
        ("complete=true", ("complete", True)),
        ("commit='123'", ("commit", "123")),
        ('note="a,b>=c"', ("note", "a,b>=c")),
        ("note=nan", ("note", "nan")),
        ("checkpoint>=epoch-0005", ("checkpoint__ge", "epoch-0005")),
    ],
)
def test_comparisons_are_read_from_text(text, wanted):
    found = parse_where(text)
    assert found == wanted
    assert type(found[1]) is type(wanted[1])


@pytest.mark.parametrize("text", ["", "epoch", "epoch>=", "=5", "5>epoch", "a b=3"])
def test_texts_that_compare_nothing_are_refused(text):
    with pytest.raises(QueryError, match="compares nothing; write NAME=VALUE"):
        parse_where(text)
