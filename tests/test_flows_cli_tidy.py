"""``allcnn store du``, ``rm`` and ``gc``: what they show, ask, remove and refuse."""

import json
import re
import shutil

import pytest

import store
from allcnn.workspace.paths import Workspace
from flows.views.listing import size
from store.maintenance.usage import measure
from tests.commands import contents, run, succeed
from tests.networks import A, B, C, compare_one, make_taps, write_network

SAMPLES = "digits-test-66-01234567"


@pytest.fixture(scope="module")
def untouched(tmp_path_factory):
    """Return two compared networks, of which the checkpoint of ``a`` alone is here."""
    place = Workspace.at(tmp_path_factory.mktemp("tidy") / "workspace")
    write_network(place.activations, A, make_taps())
    write_network(place.activations, B, make_taps(seed=1))
    compare_one(place, A, B)
    (place.checkpoints_folder("a") / "final").mkdir(parents=True)
    (place.run_folder("a") / "config.json").write_text("{}")
    return place


@pytest.fixture
def workspace(untouched, tmp_path):
    """Return a copy of it, to write into."""
    shutil.copytree(untouched.root, tmp_path / "workspace")
    return Workspace.at(tmp_path / "workspace")


def fail(*arguments: object, workspace: Workspace, status: int = 1) -> str:
    before = contents(workspace.root)
    result = run("store", *arguments, workspace=workspace)
    assert result.exit_code == status, result.output
    assert len(result.stderr.splitlines()) == 1
    assert contents(workspace.root) == before
    return result.stderr


@pytest.fixture(autouse=True)
def checkpoints(monkeypatch):
    """Let folders pass for the checkpoints of what these tests store."""

    def digest(place, run, name):
        return "feedc0de" if (place.checkpoints_folder(run) / name).exists() else None

    def stored_samples(place, names):
        return store.open(place.activations).find(sample_set=names[0])[0].meta.sample_set

    monkeypatch.setattr("allcnn.maintenance.garbage.readable_digest", digest)
    monkeypatch.setattr("allcnn.maintenance.garbage.current_samples", stored_samples)


def runs(workspace: Workspace) -> set[str]:
    return {key.run for key in store.open(workspace.activations).keys()}


def columns(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line]


def stored(workspace: Workspace, kind: str) -> int:
    folder = workspace.root / f"{kind}.zarr"
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def test_du_has_a_line_for_each_checkpoint_and_store(untouched):
    lines = columns(succeed("store", "du", workspace=untouched))
    assert lines[0] == "run@checkpoint sample set store groups raw stored".split()
    assert [line[:4] for line in lines[1:5]] == [
        ["a@final", SAMPLES, "activations", "2"],
        ["a@final", SAMPLES, "Grams", "2"],
        ["b@final", SAMPLES, "activations", "2"],
        ["b@final", SAMPLES, "Grams", "2"],
    ]
    assert [line[:2] for line in lines[6:]] == [
        ["activations", "4"],
        ["Grams", "4"],
        ["results", "1"],
        ["probes", "0"],
        ["all", "9"],
    ]


@pytest.mark.parametrize(
    ("by", "of"), [("run", ["a", "a", "b", "b"]), ("sample-set", [SAMPLES] * 2)]
)
def test_du_adds_up_by_what_is_asked_for(untouched, by, of):
    lines = columns(succeed("store", "du", "--by", by, workspace=untouched))
    assert [line[0] for line in lines[1 : 1 + len(of)]] == of


def test_du_by_store_has_the_totals_alone(untouched):
    lines = columns(succeed("store", "du", "--by", "store", workspace=untouched))
    kinds = ["activations", "Grams", "results", "probes"]
    assert [line[0] for line in lines] == ["store", *kinds, "all"]


def test_du_of_a_pattern_leaves_out_the_rest(untouched):
    lines = columns(succeed("store", "du", "a@*:one", workspace=untouched))
    assert [line[0] for line in lines[1:3]] == ["a@final"] * 2
    assert lines[-1][:2] == ["all", "3"]


def test_du_takes_a_run_for_all_its_checkpoints_and_rm_and_gc_do_not(untouched):
    out = succeed("store", "du", "a", workspace=untouched)
    assert out == succeed("store", "du", "a@*", workspace=untouched)
    for command in ("rm", "gc"):
        assert "'a' names no network" in fail(command, "a", "--yes", workspace=untouched, status=2)


def test_du_tells_scripts_all_bytes(untouched):
    told = json.loads(succeed("store", "du", "--json", workspace=untouched))
    kinds = ("activations", "grams", "similarity")
    assert [told["by_store"][k]["stored_bytes"] for k in kinds] == [
        stored(untouched, kind) for kind in kinds
    ]
    assert told["all"]["stored_bytes"] == sum(stored(untouched, kind) for kind in kinds)
    assert told["by_store"]["activations"]["raw_bytes"] == 2 * 2 * 66 * 3 * 2 * 4
    assert [entry["run"] for entry in told["by_run"]] == ["a", "b"]
    assert sum(e["stored_bytes"] for e in told["entries"]) == told["all"]["stored_bytes"]
    (by,) = told["by_sample_set"]
    assert (by["sample_set"], by["groups"]) == (SAMPLES, 8)
    assert [(e["run"], e["checkpoint"]) for e in told["by_checkpoint"]] == [
        ("a", "final"),
        ("b", "final"),
    ]


def test_sizes_are_written_as_everywhere(untouched, workspace):
    told = json.loads(succeed("store", "du", "--json", workspace=untouched))["by_store"]
    activations = [size(told["activations"][name]) for name in ("raw_bytes", "stored_bytes")]
    (line,) = [
        line
        for line in succeed("store", "du", "--by", "store", workspace=untouched).splitlines()
        if line.startswith("activations")
    ]
    assert re.split("  +", line)[2:] == activations
    out = succeed("store", "rm", "*@*", "--what", "activations", "--dry-run", workspace=workspace)
    table, total = out.split("\n\n")
    items = json.loads(
        succeed(
            "store", "rm", "a@*", "--what", "activations", "--yes", "--json", workspace=workspace
        )
    )
    assert table.splitlines()[0].split()[-1] == "size"
    assert table.splitlines()[1].endswith(f"  {size(items['bytes'])}")
    assert re.fullmatch(r"\d+ files, [\d.]+ kB in all\n", total)


def test_du_of_what_cannot_be_opened_says_so(workspace):
    (workspace.activations / SAMPLES / "a/final/one/zarr.json").write_text("{")
    lines = columns(succeed("store", "du", workspace=workspace))
    assert lines[1][:5] == ["a@final", SAMPLES, "activations", "2", "unreadable"]


@pytest.mark.parametrize("command", [["du"], ["rm", "x@*", "--yes"]])
def test_where_nothing_fits_it_says_so(untouched, tmp_path, command):
    error = fail(*command, workspace=Workspace.at(tmp_path))
    assert (
        f"nothing is extracted yet in {tmp_path}; train a network first with `allcnn train" in error
    )
    error = fail(command[0], "x@*", workspace=untouched)
    lists = f"`allcnn store ls --workspace {untouched.root}` lists what is stored"
    assert error == f"Error: nothing in {untouched.root} fits x@*; {lists}\n"


@pytest.mark.parametrize("exists", [True, False])
def test_gc_of_a_workspace_without_stores_says_so(tmp_path, exists):
    place = Workspace.at(tmp_path if exists else tmp_path / "typo")
    error = fail("gc", "--yes", workspace=place)
    assert error.startswith(f"Error: nothing is extracted yet in {place.root}; train")


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--sample-set", "nope"], "a@* and --sample-set nope;"),
        (["--what", "grams", "--sample-set", "x*"], "a@* and --sample-set x* and --what grams;"),
    ],
)
def test_rm_names_the_options_that_nothing_fits(untouched, options, wanted):
    assert f" fits {wanted}" in fail("rm", "a@*", *options, workspace=untouched)


def test_rm_takes_a_pattern_of_sample_sets(workspace):
    succeed("store", "rm", "a@*", "--sample-set", "digits-*-66-*", "--yes", workspace=workspace)
    assert runs(workspace) == {"b"}


def test_rm_shows_what_would_go_and_refuses_without_a_terminal(workspace):
    before = contents(workspace.root)
    result = run("store", "rm", "a@*", workspace=workspace)
    assert result.exit_code == 2
    assert "there is no terminal to ask on; add --yes" in result.stderr
    lines = columns(result.stdout)
    assert [line[:4] for line in lines[1:3]] == [
        ["activations", "a@final", SAMPLES, "2"],
        ["Grams", "a@final", SAMPLES, "2"],
    ]
    assert lines[3][1] == "files,"
    assert contents(workspace.root) == before


def test_rm_removes_what_fits(workspace):
    out = succeed("store", "rm", "a@*", "--yes", workspace=workspace)
    assert out.splitlines()[-1].startswith("removed ")
    assert runs(workspace) == {"b"}
    assert {g.key.of.run for g in store.open_grams(workspace.grams).find()} == {"b"}
    assert len(store.list_results(workspace.similarity)) == 1
    assert not (workspace.activations / SAMPLES / "a").exists()


@pytest.mark.parametrize(("what", "gone"), [("activations", 0), ("grams", 1), ("results", 2)])
def test_rm_removes_the_kinds_that_are_asked_for(workspace, what, gone):
    succeed("store", "rm", "a@*", "--what", what, "--yes", workspace=workspace)
    left = [
        "a" in runs(workspace),
        bool(store.open_grams(workspace.grams).find(run="a")),
        bool(store.list_results(workspace.similarity)),
    ]
    assert left == [index != gone for index in range(3)]


def test_rm_of_a_tap_or_a_sample_set_leaves_the_others(workspace):
    succeed("store", "rm", "*@*:one", "--yes", "--sample-set", SAMPLES, workspace=workspace)
    assert {key.tap for key in store.open(workspace.activations).keys()} == {"two"}
    error = fail("rm", "*@*", "--yes", "--sample-set", "other", workspace=workspace)
    assert " fits *@* and --sample-set other; " in error


def test_rm_removes_what_is_damaged_or_unfinished_too(workspace):
    (workspace.activations / SAMPLES / "a/final/one/zarr.json").write_text("{")
    (workspace.activations / SAMPLES / "a/final/two/zarr.json").unlink()
    succeed("store", "rm", "a@*", "--yes", "--what", "activations", workspace=workspace)
    assert runs(workspace) == {"b"}


@pytest.mark.usefixtures("terminal")
def test_rm_asks(workspace):
    before = contents(workspace.root)
    result = run("store", "rm", "a@*", workspace=workspace, answer="n\n")
    assert result.exit_code == 1
    assert "Remove all of this?" in result.stderr
    assert contents(workspace.root) == before
    succeed("store", "rm", "a@*", workspace=workspace, answer="y\n")
    assert runs(workspace) == {"b"}


@pytest.mark.usefixtures("terminal")
def test_what_changes_while_it_is_asked_stays(workspace, monkeypatch):
    def meanwhile(*_: object, **__: object) -> None:
        (workspace.activations / SAMPLES / "a/final/one/activations/c/9").mkdir()
        (workspace.activations / SAMPLES / "a/final/one/activations/c/9/0").write_text("new")

    monkeypatch.setattr("flows.views.removal.click.confirm", meanwhile)
    succeed("store", "rm", "a@*", "--what", "activations", workspace=workspace)
    taps = [key.tap for key in store.open(workspace.activations).keys() if key.run == "a"]
    assert taps == ["one"]


def test_a_dry_run_removes_nothing(workspace):
    before = contents(workspace.root)
    for command in (["rm", "a@*"], ["gc"]):
        succeed("store", *command, "--dry-run", workspace=workspace)
        told = json.loads(succeed("store", *command, "--dry-run", "--json", workspace=workspace))
        assert told["removed"] is False
        assert len(told["items"]) > 1
    assert contents(workspace.root) == before


def test_json_asks_nothing(workspace):
    for command in (["rm", "a@*"], ["gc"]):
        error = fail(*command, "--json", workspace=workspace, status=2)
        assert "--json shows nothing to decide on; add --yes or --dry-run" in error


def test_json_tells_what_went(workspace):
    before = {each.path: each for each in measure(workspace.activations, "activations")}
    told = json.loads(
        succeed(
            "store", "rm", "a@*", "--what", "activations", "--yes", "--json", workspace=workspace
        )
    )
    assert told["removed"] is True
    paths = [item["path"] for item in told["items"]]
    assert paths == [f"{SAMPLES}/a/final/{tap}" for tap in ("one", "two")]
    assert [item["bytes"] for item in told["items"]] == [before[path].n_bytes for path in paths]
    assert told["bytes"] == sum(before[path].n_bytes for path in paths)


def test_gc_says_what_it_would_free_and_what_is_lost(workspace):
    write_network(workspace.activations, C, make_taps(), n_committed=16)
    out = succeed("store", "gc", "--older-than", "0", "--dry-run", workspace=workspace)
    lines = columns(out)
    assert lines[1][:4] == ["activations", "c@final", SAMPLES, "2"]
    assert lines[1][-2:] == ["abandoned", "partial"]
    assert lines[2][:4] == ["activations", "a@final", SAMPLES, "2"]
    assert "superseded  kept: linear and rbf Grams, minibatches of 8" in out
    assert "until they are extracted again" in out
    (note,) = [line for line in out.splitlines() if "stay though" in line]
    assert re.match(r"[\d.]+ k?B of activations stay though", note)
    assert (
        "stay though their Grams are kept, since the checkpoints or the examples that they are of"
        " are not here, or those Grams are damaged" in out
    )
    assert "(b@final)." in out


def test_gc_frees_what_nobody_needs(workspace):
    write_network(workspace.activations, C, make_taps(), n_committed=16)
    succeed("store", "gc", "--yes", workspace=workspace)
    assert runs(workspace) == {"b", "c"}  # the partial write is of today
    succeed("store", "gc", "--yes", "--older-than", "0", workspace=workspace)
    assert runs(workspace) == {"b"}
    assert len(store.open_grams(workspace.grams).find()) == 4
    out = succeed("store", "gc", "--older-than", "0", workspace=workspace)
    assert out.splitlines()[0] == "nothing to remove"


def test_gc_keeps_what_is_asked_for(workspace):
    out = succeed("store", "gc", "--keep-activations", "a@*", workspace=workspace)
    assert out.splitlines()[0] == "nothing to remove"
    out = succeed("store", "gc", "--what", "abandoned,orphaned", workspace=workspace)
    assert out == "nothing to remove\n"
    out = succeed("store", "gc", "b@*", workspace=workspace)
    assert out.splitlines()[0] == "nothing to remove"


BAD = {
    "no network": (["rm", "a", "--yes"], "'a' names no network; write RUN@CHECKPOINT"),
    "rm of a kind": (["rm", "a@*", "--what", "runs"], "what is 'runs'; use activations, grams"),
    "gc of a kind": (["gc", "--what", "all"], "what is 'all'; use superseded, abandoned, orphaned"),
    "gc pattern": (["gc", "--keep-activations", "a"], "'a' names no network"),
}


@pytest.mark.parametrize(("arguments", "sentence"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_sentence(untouched, arguments, sentence):
    assert sentence in fail(*arguments, workspace=untouched, status=2)


def test_what_a_living_writer_holds_is_refused_and_nothing_else_goes(workspace):
    tap = store.open(workspace.activations).find(run="a")[1]
    with store.Writer.open(workspace.activations, tap.meta, tap.samples, tap.labels):
        error = fail("rm", "a@*", "--yes", workspace=workspace)
        assert f"{SAMPLES}/a/final/two is being written; wait for that, or stop it" in error
        before = contents(workspace.root)
        succeed("store", "gc", "--older-than", "0", "--yes", workspace=workspace)
        assert contents(workspace.root) == before
    succeed("store", "rm", "a@*", "--yes", workspace=workspace)
    assert runs(workspace) == {"b"}


def test_rm_of_what_a_link_stands_for_says_so(workspace, tmp_path):
    folder = workspace.activations / SAMPLES / "a"
    shutil.move(folder, tmp_path / "outside")
    folder.symlink_to(tmp_path / "outside")
    error = fail("rm", "a@final", "--yes", workspace=workspace)
    assert f"{folder} is a symbolic link, which no store makes; delete the link itself" in error
    succeed("store", "rm", "b@final", "--yes", workspace=workspace)
    assert (tmp_path / "outside" / "final" / "one" / "zarr.json").exists()


@pytest.mark.parametrize("days", ["nan"])
def test_days_are_a_number(workspace: Workspace, days: str) -> None:
    assert "older-than" in fail("gc", "--older-than", days, workspace=workspace, status=2)
