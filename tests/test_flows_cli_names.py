"""Taps of any name on the command line: imported, listed, compared, drawn, verified, removed."""

import glob
import json
import re
from pathlib import Path

import numpy as np
import pytest
import xarray
from click.testing import CliRunner

import store
from allcnn.workspace.paths import Workspace
from flows.cli.main import main
from flows.figures.style import speaking_name
from flows.settings import texts
from store.model.names import fits, tap_folder
from tests.commands import run, succeed
from tests.faults import flip_bit
from tests.oracles import cka64
from tests.strategies import REAL_NAMES

N = 16
HOSTILE = (
    *("*", "?", "[a]", "a", "A", "[!a]", "[", "a:b@c", "@", ":", ","),
    *("a,b", "'a'", '"a"', " a ", "a=b", ">=5", "-v", "--help", "$x{$", "\\$\\foo", "</script>"),
    *("../../x", "/etc/passwd", "C:\\x", "con", "a.partial", ".claim", "..", "%2F", "_-a"),
    *("e\u0301", "é", "层", "\U0001f642" * 200, "/" * 200, "/" * 199 + "x", "\u202egpj", "a\xa0b"),
)
NAMES = (*REAL_NAMES, *HOSTILE)
TAPS = {
    name: np.random.default_rng(k).standard_normal((N, 3)).astype(np.float32)
    for k, name in enumerate(NAMES)
}
SOME = ("blocks/0/attn", "conv1/Relu:0", "layers[0].attn", "Schicht_ü", "a" * 150, "/" * 200)


def imported(folder: Path, taps: dict[str, np.ndarray] = TAPS) -> Workspace:
    """Return a workspace with a network that was imported from a file."""
    np.savez(folder / "acts.npz", **taps)
    workspace = Workspace.at(folder / "workspace")
    how = ["--run", "net", "--dataset", "x", "--split", "test", "--minibatch", 4]
    succeed("store", "import", folder / "acts.npz", *how, workspace=workspace)
    return workspace


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return a workspace with all these taps, to read."""
    return imported(tmp_path_factory.mktemp("names"))


@pytest.fixture
def some(tmp_path: Path) -> Workspace:
    """Return a workspace with some of them, to change."""
    return imported(tmp_path, {name: TAPS[name] for name in SOME})


def stored(workspace: Workspace) -> list[str]:
    return [tap.key.tap for tap in store.open(workspace.activations).find()]


def test_all_are_stored_in_order_with_their_values(place: Workspace) -> None:
    found = store.open(place.activations).find()
    assert [tap.key.tap for tap in found] == list(NAMES)
    for tap in found:
        np.testing.assert_array_equal(tap.read(), TAPS[tap.key.tap])


def test_nothing_is_written_outside_of_the_store(place: Workspace) -> None:
    assert {path.name for path in Path(place.root).iterdir()} >= {"activations.zarr"}
    (network,) = Path(place.activations).glob("*/net/final")
    folders = [path.name for path in network.iterdir() if path.is_dir()]
    assert sorted(folders) == sorted(map(tap_folder, NAMES))


def test_the_same_again_changes_nothing(some: Workspace) -> None:
    before = {p: p.stat().st_mtime_ns for p in Path(some.root).rglob("*") if p.is_file()}
    imported(Path(some.root).parent, {name: TAPS[name] for name in SOME})
    assert {p: p.stat().st_mtime_ns for p in Path(some.root).rglob("*") if p.is_file()} == before


def test_tables_and_json_have_the_names(place: Workspace) -> None:
    assert "net@final" in succeed("store", "ls", workspace=place)
    (listed,) = json.loads(succeed("store", "ls", "--json", workspace=place))["activations"]
    assert listed["taps"] == list(NAMES)
    assert (listed["n_missing_taps"], listed["complete"]) == (0, True)
    shown = succeed("store", "show", "net@final", workspace=place)
    (network,) = json.loads(succeed("store", "show", "net", "--json", workspace=place))["networks"]
    assert [tap["tap"] for tap in network["taps"]] == list(NAMES)
    for name in NAMES:
        assert f"\n{name}  " in shown
        if tap_folder(name) != name:
            assert tap_folder(name) not in shown


def test_letters_that_a_terminal_lacks_are_spelled_out(place: Workspace) -> None:
    arguments = ["store", "show", "net@final:[层é]", "--workspace", str(place.root)]
    result = CliRunner(charset="latin-1").invoke(main, arguments)
    assert result.exit_code == 0, result.exception
    assert "\né  " in result.stdout
    assert "\n\\u5c42  " in result.stdout


@pytest.mark.parametrize("name", NAMES)
def test_a_name_selects_its_tap_and_a_pattern_what_fits(place: Workspace, name: str) -> None:
    opened = store.open(place.activations)
    found = [tap.key.tap for tap in opened.find(tap=name)]
    assert found == [each for each in NAMES if fits(each, name)]
    assert name in found
    # In brackets a character is no part of a pattern.
    assert [tap.key.tap for tap in opened.find(tap=glob.escape(name))] == [name]


@pytest.mark.parametrize("name", SOME)
def test_a_tap_is_queried_by_its_name(place: Workspace, tmp_path: Path, name: str) -> None:
    out = succeed(
        "store", "query", f"net@final:{name}", "--to", tmp_path / "a.npz", workspace=place
    )
    assert f"net@final:{name} on x-test-16-" in out
    with np.load(tmp_path / "a.npz") as found:
        np.testing.assert_array_equal(found["values"], TAPS[name])
        assert json.loads(str(found["metadata"]))["key"].endswith(f"/net/final/{name}")


def test_a_query_prefers_a_name_to_a_pattern(place: Workspace, tmp_path: Path) -> None:
    for name in ("[a]", "*", "?"):
        to = ("--to", tmp_path / "a.npz", "--overwrite")
        succeed("store", "query", f"net@final:{name}", *to, workspace=place)
        with np.load(tmp_path / "a.npz") as found:
            np.testing.assert_array_equal(found["values"], TAPS[name])


@pytest.mark.parametrize("name", [" a ", "a,b", "'a'", ">=5", "a=b"])
def test_a_comparison_has_names_in_quotation_marks(place: Workspace, name: str) -> None:
    where = ("--where", f'tap="{name}"')
    (found,) = json.loads(succeed("store", "ls", *where, "--json", workspace=place))["activations"]
    assert found["taps"] == [name]


def test_matrices_have_names_in_tables_json_and_figures(some: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "matrix.json"
    options = ("--batch-size", 4, "--json", path, "--convergence")
    succeed("matrix", "net@final", *options, workspace=some)
    found = json.loads(path.read_text())
    assert found["rows"] == list(SOME)
    rows = [TAPS[name] for name in SOME]
    wanted = cka64(rows, rows, [(i, i + 4) for i in range(0, N, 4)])
    np.testing.assert_allclose(np.array(found["matrix"], float), wanted, atol=1e-4)
    (name,) = store.list_results(some.similarity)
    assert [key.tap for key in store.read_result(some.similarity, name).rows] == list(SOME)
    with xarray.open_datatree(some.similarity, engine="zarr", consolidated=False) as tree:
        assert tree[name]["row"].values.tolist() == [f"net@final:{each}" for each in SOME]
    again = succeed("figure", "matrix", "net@final", "--batch-size", 4, workspace=some)
    assert Path(again.strip()).stat().st_size
    succeed("report", workspace=some)
    (page,) = Path(some.root).glob("report/index.html")
    assert json.dumps("Schicht_ü") in page.read_text()


@pytest.mark.parametrize("name", ["layers[0].attn", "conv1/Relu:0", "/" * 200])
def test_one_tap_is_compared_by_its_name(some: Workspace, tmp_path: Path, name: str) -> None:
    path = tmp_path / "matrix.json"
    options = ("--batch-size", 4, "--json", path)
    out = succeed("compare", f"net@final:{name}", "net@final:Schicht*", *options, workspace=some)
    assert name in out or len(name) == 200
    found = json.loads(path.read_text())
    assert (found["rows"], found["columns"]) == ([name], ["Schicht_ü"])


def test_letters_that_no_font_has_and_mathematics_are_drawn_as_they_are(place: Workspace) -> None:
    for side in ("net@final:层", "net@final:$x{$", "net@final:\\$\\foo"):
        succeed("matrix", side, "--batch-size", 4, "--convergence", workspace=place)


def test_figures_of_other_names_are_other_files() -> None:
    names = {speaking_name("matrix", f"net_final_{name}") for name in NAMES}
    assert len(names) == len(NAMES)
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]{1,200}", name) for name in names)


def test_xarray_sees_the_names(some: Workspace) -> None:
    for tap in store.open(some.activations).find():
        assert tap.select().to_xarray().name == tap.key.tap
    with xarray.open_datatree(some.activations, engine="zarr", consolidated=False) as tree:
        arrays = [node["activations"] for node in tree.leaves]
        found = {array.attrs.get("long_name") for array in arrays}
    assert found == {name for name in SOME if tap_folder(name) != name} | {None}


def test_damage_is_told_of_names(some: Workspace) -> None:
    assert "no damage" in succeed("store", "verify", workspace=some)
    for name in ("blocks/0/attn", "/" * 200):
        (folder,) = Path(some.activations).glob(f"*/net/final/{glob.escape(tap_folder(name))}")
        flip_bit(folder / "activations/c/0/0", 0)
    result = run("store", "verify", workspace=some)
    assert result.exit_code == 1
    assert "of tap blocks/0/attn of run net, checkpoint final" in result.stdout
    cut = re.search(r"of tap (/+)… of run net", result.stdout)
    assert cut
    assert len(cut[1]) > 50
    # The pattern is of names, also of the one whose folder is cut.
    assert "blocks" not in run("store", "verify", "net@final:/*", workspace=some).stdout
    assert "no damage" in succeed("store", "verify", "net@final:[!b/]*", workspace=some)


def test_a_result_of_what_is_damaged_is_told_by_name(some: Workspace) -> None:
    succeed("matrix", "net@final", "--batch-size", 4, workspace=some)
    (name,) = store.list_results(some.similarity)
    (folder,) = Path(some.activations).glob("*/net/final/_-blocks*")
    flip_bit(folder / "activations/c/0/0", 0)
    flip_bit(Path(some.similarity) / name / "values/c/0/0", 0)
    out = run("store", "verify", "--repair", workspace=some).stdout
    assert re.search(
        r"net@final:blocks/0/attn on x-test-16-\w+ is damaged, and is a source of it", out
    )


def test_names_with_commas_are_left_out_by_name() -> None:
    assert {"a,b", "a", "b"} <= set(texts.taps("a,b"))
    assert {"conv1", "logits"} <= set(texts.taps("conv1, logits"))


@pytest.mark.parametrize("name", SOME)
def test_a_tap_is_removed_by_its_name(some: Workspace, name: str) -> None:
    side = f"net@final:{name}"
    items = json.loads(succeed("store", "rm", side, "--dry-run", "--json", workspace=some))["items"]
    assert [item["path"].rpartition("/")[2] for item in items] == [tap_folder(name)]
    succeed("store", "rm", side, "--yes", workspace=some)
    assert stored(some) == [each for each in SOME if each != name]
    assert "taps are missing: 1" in succeed("store", "verify", workspace=some)


def test_all_are_removed_and_nothing_is_left(some: Workspace) -> None:
    assert "6" in succeed("store", "du", workspace=some)
    assert "nothing to remove" in succeed("store", "gc", "--yes", workspace=some)
    succeed("store", "rm", "net@*", "--yes", workspace=some)
    assert [path.name for path in Path(some.activations).iterdir()] == ["zarr.json"]


def test_what_a_kill_left_of_any_name_is_collected(some: Workspace) -> None:
    for name in SOME:
        (node,) = Path(some.activations).glob(
            f"*/net/final/{glob.escape(tap_folder(name))}/zarr.json"
        )
        node.unlink()
    succeed("store", "gc", "--what", "abandoned", "--older-than", 0, "--yes", workspace=some)
    assert [path.name for path in Path(some.activations).iterdir()] == ["zarr.json"]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("", "'' cannot be the name of a tap; use 1 to 200 characters"),
        ("a" * 201, "cannot be the name of a tap; use 1 to 200 characters"),
        ("a\nb", r"'a\nb' cannot be the name of a tap; use 1 to 200 characters"),
        ("\x1b[31m", r"'\x1b[31m' cannot be the name of a tap; use 1 to 200 characters"),
    ],
)
def test_what_is_no_name_is_refused_in_one_sentence(
    tmp_path: Path, name: str, sentence: str
) -> None:
    np.savez(tmp_path / "a.npz", **{name: TAPS["a"]})
    how = ["--run", "net", "--dataset", "x", "--split", "test"]
    workspace = Workspace.at(tmp_path / "workspace")
    result = run("store", "import", tmp_path / "a.npz", *how, workspace=workspace)
    assert result.exit_code == 1
    assert sentence in result.stderr
    assert not Path(workspace.root).exists()
