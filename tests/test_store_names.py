"""Names of taps: any text, and the folders that stand for them."""

import hashlib
import re
import string
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from store import InvalidKeyError, RepresentationKey, SchemaError
from store.names import fits, is_component, is_tap_folder, shown, tap_folder, tap_name
from tests.strategies import NAMES, REAL_NAMES

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


@pytest.mark.parametrize("name", ["", "a" * 201, "a\n", "\0", "\x1b[31m", "\x7f", "\x85", "\ud800"])
@pytest.mark.parametrize("make", [tap_folder, lambda name: RepresentationKey("s", "r", "c", name)])
def test_what_is_no_text_to_read_is_refused(make, name):
    with pytest.raises(InvalidKeyError) as caught:
        make(name)
    assert "tap" in str(caught.value)
    assert "use 1 to 200 characters" in str(caught.value)
    str(caught.value).encode()


@pytest.mark.parametrize("name", ["\u2028", "\u2029"])
def test_separators_of_lines_are_refused(name):
    with pytest.raises(InvalidKeyError, match="use 1 to 200 characters"):
        tap_folder(name)


@pytest.mark.parametrize("name", [None, 3, b"conv1", ["a"]])
def test_what_is_no_text_is_no_name(name):
    with pytest.raises(InvalidKeyError, match=re.escape(repr(name))):
        RepresentationKey("s", "r", "c", name)


@pytest.mark.parametrize(
    "folder",
    [
        "",
        ".",
        "..",
        "zarr.json",
        ".claim",
        "a/b",
        "_x",
        "__",
        "_-",
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
