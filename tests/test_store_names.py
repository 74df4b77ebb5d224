"""Names of taps: any text, and the folders that stand for them."""

import hashlib
import json
import pickle
import re
import secrets
import string
import unicodedata
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import store
from store import (
    ConflictError,
    GramMeta,
    GramWriter,
    InvalidKeyError,
    ProbeResult,
    RepresentationKey,
    RepresentationMeta,
    SchemaError,
    Writer,
)
from store.arrays.tap_folders import tap_at
from store.maintenance.remove import remove
from store.maintenance.usage import measure
from store.maintenance.verify import n_expected, verify
from store.model.names import fits, is_component, is_tap_folder, shown, tap_folder, tap_name
from tests.strategies import (
    NAMES,
    REAL_NAMES,
    batches,
    coordinates,
    make_gram_meta,
    make_grams,
    make_meta,
    make_rows,
    make_similarity,
)

FOLDERS = {
    "conv1": "conv1",
    "layer1.0.conv1": "layer1.0.conv1",
    "0": "0",
    "a" * 200: "a" * 200,
    "x.partial": "x.partial",
    "blocks/0/attn": "_-blocks-2f0-2fattn",
    "_fc": "_-_fc",
    "__x": "_-__x",
    "conv1/Relu:0": "_-conv1-2f-52elu-3a0",
    "params['Dense_0']": "_-params-5b-27-44ense_0-27-5d",
    "zarr.json": "_-zarr-2ejson",
    ".": "_--2e",
    "..": "_--2e-2e",
    "a..b": "_-a-2e-2eb",
    ".claim": "_--2eclaim",
    "-x": "_--2dx",
    "_-x": "_-_-2dx",
    "ü": "_--c3-bc",
    "u\u0308": "_-u-cc-88",
    "层": "_--e5-b1-82",
    " ": "_--20",
    "%2F": "_--252-46",
    "c:\\x": "_-c-3a-5cx",
}
"""Written down once, as stores have them: a change of these would lose what is stored."""


@pytest.mark.parametrize(("name", "folder"), FOLDERS.items())
def test_a_folder_stands_for_a_name(name, folder):
    assert tap_folder(name) == folder
    assert tap_name(folder) == name
    assert shown(folder) == name


def test_a_long_folder_is_cut_and_has_a_digest():
    name = "/ü" * 100
    digest = hashlib.sha256(name.encode()).hexdigest()[:32]
    folder = tap_folder(name)
    assert folder == f"_-{'-2f-c3-bc' * 18}--{digest}"
    assert is_tap_folder(folder)
    assert tap_name(folder) is None
    assert shown(folder) == "/ü" * 18 + "…"


@given(NAMES)
@example("\U0001f642" * 200)
@example("/" * 200)
@example("Ā" * 40)
def test_every_name_has_a_folder_that_is_safe_everywhere(name):
    folder = tap_folder(name)
    assert is_tap_folder(folder)
    assert len(folder.encode()) <= 200
    assert set(folder) <= set(string.ascii_letters + string.digits + "_.-")
    assert folder not in (".", "..", "zarr.json")
    assert ".." not in folder
    assert not folder.startswith((".", "__"))
    if not is_component(name):
        # macOS folds case and normalises, Windows reserves names and drops dots at the end.
        assert folder.startswith("_-")
        assert folder == folder.lower()
        assert "." not in folder


@given(NAMES)
def test_a_folder_gives_its_name_back(name):
    folder = tap_folder(name)
    if tap_name(folder) is None:
        assert len(folder) > 160
        assert folder.endswith(hashlib.sha256(name.encode()).hexdigest()[:32])
        assert name.startswith(shown(folder).removesuffix("…"))
    else:
        assert tap_name(folder) == shown(folder) == name


@given(st.lists(NAMES, min_size=2, max_size=20, unique=True))
@example(["/a", "/A", "/ü", "/u\u0308", "/\u212a", "/k", "/K"])
def test_folders_differ_also_where_case_and_accents_do_not_count(names):
    escaped = [tap_folder(name) for name in names if not is_component(name)]
    folded = {unicodedata.normalize("NFC", folder).casefold() for folder in escaped}
    assert len(folded) == len(escaped)
    assert len({*map(tap_folder, names)}) == len(names)


@pytest.mark.parametrize(
    "name", ["", "a" * 201, "a\n", "\0", "\x1b[31m", "\x7f", "\x85", "\ud800", "\u2028", "\u2029"]
)
@pytest.mark.parametrize("make", [tap_folder, lambda name: RepresentationKey("s", "r", "c", name)])
def test_what_is_no_text_to_read_is_refused(make, name):
    with pytest.raises(InvalidKeyError) as caught:
        make(name)
    assert "tap" in str(caught.value)
    assert "use 1 to 200 characters" in str(caught.value)
    str(caught.value).encode()


@pytest.mark.parametrize("name", [None, 3, b"conv1", ["a"]])
def test_what_is_no_text_is_no_name(name):
    with pytest.raises(InvalidKeyError, match=re.escape(repr(name))):
        RepresentationKey("s", "r", "c", name)


@pytest.mark.parametrize(
    "folder",
    [
        *("", ".", "..", "zarr.json", ".claim", "a/b", "_x", "__", "_-"),
        "_-conv1",  # whose folder is conv1
        "_-A",
        "_--2",
        "_--2F",
        "_--61",  # a letter that needs no escape
        "_--c3",  # no UTF-8
        "_--ed-a0-80",  # a surrogate
        "_--0a",
        "_-a.b",
        "_-a--0123456789abcdef0123456789abcde",
        "_-a--0123456789abcdef0123456789abcdef0",
        "_-A--0123456789abcdef0123456789abcdef",
        "_-a-2f" + "a" * 200,
    ],
)
def test_a_folder_that_no_name_has_is_not_ours(folder):
    assert not is_tap_folder(folder)
    assert tap_name(folder) is None


@given(st.text(alphabet="_-.a2fAF0/", max_size=12))
def test_no_two_folders_stand_for_one_name(folder):
    name = tap_name(folder)
    if name is not None:
        assert is_tap_folder(folder)
        assert tap_folder(name) == folder


@pytest.mark.parametrize("name", REAL_NAMES)
def test_real_names_are_keys(name):
    key = RepresentationKey("digits-test-10-01234567", "net-s0", "final", name)
    assert str(key) == f"net-s0@final:{name}"
    assert key.text == f"digits-test-10-01234567/net-s0/final/{name}"
    assert key.path == f"digits-test-10-01234567/net-s0/final/{tap_folder(name)}"
    assert RepresentationKey.from_text(key.text) == key


@given(NAMES)
def test_a_key_is_read_from_its_text(name):
    key = RepresentationKey("s", "r", "c", name)
    assert RepresentationKey.from_text(key.text) == key
    assert key.path.count("/") == 3


@pytest.mark.parametrize("text", ["a/b/c", "a/b/c/", "a//c/d", "a/b/../c", "", None, "s/r/c/\n"])
def test_a_text_that_is_no_key_is_refused(text):
    with pytest.raises(SchemaError, match="is not the key of a representation"):
        RepresentationKey.from_text(text)


@given(NAMES)
def test_every_name_fits_itself(name):
    assert fits(name, name)
    assert fits(name, "*")


def test_a_text_is_a_pattern_as_well_as_a_name():
    assert fits("layers[0]", "layers[0]")
    assert fits("layers0", "layers[0]")
    assert not fits("layers[1]", "layers[0]")
    assert fits("layers[1]", "layers*")
    # In brackets, a character stands for itself.
    assert fits("layers[0]", "layers[[]0]")
    assert not fits("layers0", "layers[[]0]")
    assert not fits("Conv1", "conv1")


def filled(path, name):
    """Store one representation, and its Grams, of a tap."""
    meta, grams = make_meta(name), make_gram_meta(name)
    with Writer.open(path / "a.zarr", meta, *coordinates(meta)) as writer:
        for rows in batches(meta, make_rows(meta)):
            writer.append(rows)
    with GramWriter.open(path / "g.zarr", grams, *coordinates(grams)) as writer:
        for K in make_grams(grams):
            writer.append(K)
    return meta, grams


@pytest.mark.parametrize("name", ["blocks/0/attn", "layers[0]", "\U0001f642" * 200, ".."])
def test_activations_and_grams_of_any_name_are_written_and_read(tmp_path, name):
    meta, grams = filled(tmp_path, name)
    (tap,), (kept,) = (
        store.open(tmp_path / "a.zarr").find(tap=name),
        store.open_grams(tmp_path / "g.zarr").find(tap=name),
    )
    assert (tap.key, kept.key) == (meta.key, grams.key)
    assert RepresentationMeta.from_json(json.loads(json.dumps(meta.to_json()))) == meta
    assert GramMeta.from_json(json.loads(json.dumps(grams.to_json()))) == grams
    assert store.open(tmp_path / "a.zarr")[meta.key].n_committed == meta.n_samples
    assert store.open_grams(tmp_path / "g.zarr")[grams.key].complete
    assert name in repr(tap)
    assert name in repr(tap.select())
    assert name in repr(kept)
    assert pickle.loads(pickle.dumps(tap)).key == meta.key
    assert pickle.loads(pickle.dumps(kept)).key == grams.key
    assert store.open(tmp_path / "a.zarr").find(tap="x*") == []
    assert store.open_grams(tmp_path / "g.zarr").find(tap="x*") == []


@pytest.mark.parametrize("name", ["blocks/0/attn", "\U0001f642" * 200])
@pytest.mark.parametrize("kind", ["activations", "grams"])
def test_a_look_through_a_store_goes_by_names(tmp_path, name, kind):
    filled(tmp_path, name)
    root = tmp_path / f"{kind[0]}.zarr"
    assert sum(each.is_data for each in verify(root, kind, tap=name)) == 1
    assert sum(each.is_data for each in verify(root, kind, tap="x*")) == 0
    assert n_expected(root, kind) == 1
    assert not any(each.damage for each in verify(root, kind))
    (usage,) = [each for each in measure(root, kind) if not each.is_file]
    assert tap_at(root, usage.path) == name
    remove(root, usage)
    assert [path.name for path in root.iterdir()] == ["zarr.json"]


def test_a_cut_name_is_shortened_where_the_metadata_are_lost(tmp_path):
    name = "\U0001f642" * 200
    meta, _ = filled(tmp_path, name)
    (tmp_path / "a.zarr" / meta.key.path / "zarr.json").write_text("{")
    assert tap_at(tmp_path / "a.zarr", meta.key.path) == "\U0001f642" * 13 + "…"
    damage = [
        str(each)
        for checked in verify(tmp_path / "a.zarr", "activations")
        for each in checked.damage
    ]
    assert [text.partition(" run ")[0] for text in damage] == [
        "metadata of tap " + "\U0001f642" * 13 + "… of"
    ]


@pytest.mark.parametrize("run", ["allcnn-d1-v2-s0", "another"])
def test_other_labels_on_one_sample_set_are_refused_for_any_name(tmp_path, run):
    meta = make_meta("a/b")
    Writer.open(tmp_path, meta, *coordinates(meta)).close()
    other = make_meta("a/c", run=run)
    samples, labels = coordinates(other)
    with pytest.raises(ConflictError, match="has other labels"):
        Writer.open(tmp_path, other, samples, labels + 1)


def test_a_folder_that_holds_another_tap_is_refused(tmp_path):
    meta, _ = filled(tmp_path, "a/b")
    folder = tmp_path / "a.zarr" / meta.key.path
    folder.rename(folder.with_name(tap_folder("a/c")))
    with pytest.raises(SchemaError, match="rename the folder to what it holds"):
        store.open(tmp_path / "a.zarr").find()


def test_a_folder_that_no_name_has_is_reported(tmp_path):
    meta, _ = filled(tmp_path, "a/b")
    folder = tmp_path / "a.zarr" / meta.key.path
    folder.rename(folder.with_name("_-conv1"))
    assert store.open(tmp_path / "a.zarr").find() == []
    found = [
        each for checked in verify(tmp_path / "a.zarr", "activations") for each in checked.damage
    ]
    assert [each.reason for each in found] == ["no key has such a name"]


@pytest.mark.parametrize("name", ["blocks/0/attn", "\U0001f642" * 200])
def test_results_and_probes_are_about_names(tmp_path, name):
    keys = (make_meta(name).key, make_meta("conv1").key)
    one = np.ones((2, 2))
    result = make_similarity("r", keys, keys, one, 8)
    store.write_result(tmp_path / "r.zarr", result)
    assert store.read_result(tmp_path / "r.zarr", "r").rows == keys
    for wanted, found in ((name, 1), ("x*", 0), ("*", 1)):
        looked = [e for e in verify(tmp_path / "r.zarr", "similarity", tap=wanted) if e.is_data]
        assert len(looked) == found
        assert not any(each.damage for each in looked)
    probe = ProbeResult(
        "p", keys, "x-train-8-01234567", one[0], one[0], one, one[0], [3, 3], (0, 1), 8, 8
    )
    store.write_probe(tmp_path / "p.zarr", probe)
    assert store.read_probe(tmp_path / "p.zarr", "p").taps == keys


def test_names_are_kept_at_an_address():
    path = f"memory://bucket/{secrets.token_hex(4)}/taps.zarr"
    names = ["blocks/0/attn", "conv1/Relu:0", "100%", "a#b?c", "\U0001f642" * 200, ".."]
    examples = store.Examples.of("x", "test", 8)
    taps = {name: np.full((8, 2), float(k)) for k, name in enumerate(names)}
    store.write_network(path, taps, run="net", checkpoint="final", examples=examples)
    assert [tap.key.tap for tap in store.open(path).find()] == names
    for name, values in taps.items():
        (tap,) = store.open(path).find(tap=name)
        np.testing.assert_array_equal(tap.read(), values)


def test_a_network_goes_on_with_the_same_names(tmp_path):
    names = list(REAL_NAMES)
    rows = np.random.default_rng(0).standard_normal((8, 2)).astype(np.float32)
    how = {"run": "net", "checkpoint": "final", "digest": "x", "batch_rows": 4, "taps": names}
    how["examples"] = store.Examples.of("x", "test", 8)
    for start in (0, 4):
        writer = store.NetworkWriter(tmp_path, **how)
        assert writer.next_row == start
        writer.append(dict.fromkeys(names, rows[start : start + 4]))
        writer.close()
    found = store.open(tmp_path).find()
    assert [tap.key.tap for tap in found] == names
    assert all(np.array_equal(tap.read(), rows) for tap in found)


@given(st.lists(NAMES, min_size=1, max_size=3, unique=True))
@settings(max_examples=15, deadline=None)
def test_names_come_back_from_wherever_they_are_kept(names):
    with TemporaryDirectory() as folder:
        root = Path(folder) / "a.zarr"
        taps = {name: np.full((4, 1), float(k)) for k, name in enumerate(names)}
        examples = store.Examples.of("x", "test", 4)
        store.write_network(root, taps, run="net", checkpoint="final", examples=examples)
        found = store.open(root).find()
        assert {tap.key.tap: float(tap.read()[0, 0]) for tap in found} == {
            name: float(k) for k, name in enumerate(names)
        }
        for name in names:
            assert {tap.key.tap for tap in store.open(root).find(tap=name)} == {
                each for each in names if fits(each, name)
            }
        assert not any(each.damage for each in verify(root, "activations"))
        for usage in measure(root, "activations"):
            if not usage.is_file:
                remove(root, usage)
        assert [path.name for path in root.iterdir()] == ["zarr.json"]
