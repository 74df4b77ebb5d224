"""What a workspace's stores hold, by name, and removing it."""

import shutil
import uuid

import pytest

from allcnn.errors import WorkspaceError
from allcnn.maintenance.inventory import check_links, discard, take_inventory, usage
from allcnn.settings.selection import EVERYTHING, Selection
from allcnn.workspace.paths import Workspace
from store import SchemaError, StoreLocationError, write_result
from store.storage.paths import as_place, walk_files
from tests.networks import A, B, compare_one, make_taps, write_network
from tests.test_store_results import make_result

SAMPLES = "digits-test-66-01234567"


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Return a workspace of two networks, their Grams and a result."""
    place = Workspace.at(tmp_path_factory.mktemp("compared"))
    write_network(place.activations, A, make_taps())
    write_network(place.activations, B, make_taps(seed=1))
    compare_one(place, A, B)
    return place


@pytest.fixture
def workspace(compared, tmp_path):
    """Return a copy of it, to write into."""
    return Workspace.at(shutil.copytree(compared.root, tmp_path, dirs_exist_ok=True))


def paths(inventory, kind, side, sample_set=None):
    return [each.path for each in inventory.select(kind, side, sample_set)]


def bytes_on_disk(path):
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def test_a_pattern_selects_groups_of_every_store(workspace):
    inventory = take_inventory(workspace)
    assert paths(inventory, "activations", Selection("a", "*")) == [
        f"{SAMPLES}/a/final/one",
        f"{SAMPLES}/a/final/two",
    ]
    assert paths(inventory, "activations", Selection("*", "*", "o*")) == [
        f"{SAMPLES}/a/final/one",
        f"{SAMPLES}/b/final/one",
    ]
    assert paths(inventory, "activations", Selection("*", "init")) == []
    grams = paths(inventory, "grams", Selection("b", "final", "two"))
    assert [path.rsplit("/", 1)[0] for path in grams] == [f"{SAMPLES}/b/final/two"]


def test_a_sample_set_narrows_a_selection(workspace):
    inventory = take_inventory(workspace)
    assert paths(inventory, "activations", A, "another") == []
    assert len(paths(inventory, "activations", A, SAMPLES)) == 2
    assert len(paths(inventory, "similarity", A, SAMPLES)) == 1
    assert paths(inventory, "similarity", A, "another") == []


def test_results_are_selected_by_what_they_compare(workspace):
    write_result(workspace.similarity, make_result("seeds"))
    inventory = take_inventory(workspace)
    assert paths(inventory, "similarity", Selection("net-s1", "*")) == ["seeds"]
    assert len(paths(inventory, "similarity", B)) == 1
    assert len(paths(inventory, "similarity", EVERYTHING)) == 2
    assert paths(inventory, "similarity", Selection("c", "*")) == []


def test_a_damaged_result_is_named_by_the_widest_selection_alone(workspace):
    (path,) = paths(take_inventory(workspace), "similarity", A)
    (workspace.similarity / path / "zarr.json").write_text("{")
    inventory = take_inventory(workspace)
    assert paths(inventory, "similarity", A) == []
    assert paths(inventory, "similarity", EVERYTHING) == [path]


def test_usage_adds_up_to_what_is_on_the_disk(workspace):
    entries = usage(take_inventory(workspace))
    for kind in ("activations", "grams", "similarity"):
        stored = sum(entry["stored_bytes"] for entry in entries if entry["store"] == kind)
        assert stored == bytes_on_disk(workspace.root / f"{kind}.zarr")


def test_usage_tells_networks_and_results_apart(workspace):
    entries = {(each["store"], each.get("run")): each for each in usage(take_inventory(workspace))}
    assert entries["activations", "a"]["groups"] == 2
    assert entries["activations", "a"]["raw_bytes"] == 2 * 66 * 3 * 2 * 4
    # Padded to the widest, of 10 rows.
    assert entries["grams", "a"]["raw_bytes"] == 2 * 8 * 55 * 4
    (result,) = [entry for entry in usage(take_inventory(workspace)) if "result" in entry]
    assert result["raw_bytes"] < result["stored_bytes"]
    assert entries["activations", None]["groups"] == 0


def test_usage_of_a_selection_leaves_out_the_rest(workspace):
    entries = usage(take_inventory(workspace), A)
    networks = [(each["run"], each["checkpoint"]) for each in entries if "run" in each]
    assert networks == [("a", "final")] * 2
    assert all("run" in entry or "result" in entry for entry in entries)


def test_usage_of_what_is_damaged_has_no_raw_bytes(workspace):
    (workspace.activations / SAMPLES / "a/final/one/zarr.json").write_text("{")
    entries = {(each["store"], each.get("run")): each for each in usage(take_inventory(workspace))}
    damaged = entries["activations", "a"]
    assert damaged["raw_bytes"] is None
    assert damaged["stored_bytes"] == bytes_on_disk(
        workspace.activations / SAMPLES / "a/final"
    ) - len((workspace.activations / SAMPLES / "a/final/zarr.json").read_bytes())
    assert entries["activations", "b"]["raw_bytes"] == 2 * 66 * 3 * 2 * 4


def test_a_workspace_without_stores_holds_nothing(tmp_path):
    inventory = take_inventory(Workspace.at(tmp_path / "none"))
    assert usage(inventory) == []
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("kind", ["activations", "grams", "similarity"])
def test_a_folder_of_others_is_not_judged(workspace, kind):
    shutil.rmtree(workspace.root / f"{kind}.zarr")
    (workspace.root / f"{kind}.zarr").mkdir()
    (workspace.root / f"{kind}.zarr" / "mine.txt").write_text("mine")
    with pytest.raises(SchemaError, match=rf"{kind}.zarr is no Zarr v3 group; give the folder of"):
        take_inventory(workspace)


def test_discarding_removes_what_was_selected(workspace):
    inventory = take_inventory(workspace)
    found = [each for kind in ("activations", "grams") for each in inventory.select(kind, A)]
    discard(workspace, found)
    left = take_inventory(workspace)
    assert {path.split("/")[1] for path in paths(left, "activations", EVERYTHING)} == {"b"}
    assert {path.split("/")[1] for path in paths(left, "grams", EVERYTHING)} == {"b"}
    assert len(paths(left, "similarity", EVERYTHING)) == 1


def test_discarding_removes_nothing_where_anything_is_in_the_way(workspace, tmp_path):
    found = take_inventory(workspace).select("activations", EVERYTHING)
    folder, outside = workspace.activations / SAMPLES / "b", tmp_path / "outside"
    shutil.move(folder, outside)
    folder.symlink_to(outside)
    with pytest.raises(StoreLocationError, match="b is a symbolic link, which no store makes"):
        discard(workspace, found)
    assert len(paths(take_inventory(workspace), "activations", A)) == 2


def test_a_store_on_a_disk_that_is_not_mounted_is_not_empty(workspace, tmp_path):
    shutil.move(workspace.grams, tmp_path / "disk")
    workspace.grams.symlink_to(tmp_path / "unmounted")
    with pytest.raises(WorkspaceError, match=r"grams.zarr is a link to what is not there; mount"):
        take_inventory(workspace)
    workspace.grams.unlink()
    workspace.grams.symlink_to(tmp_path / "disk")
    assert len(paths(take_inventory(workspace), "grams", EVERYTHING)) == 4


def test_stores_at_an_address_are_measured_and_freed_alike():
    place = Workspace(as_place(f"memory://{uuid.uuid4()}/workspace"))
    assert usage(take_inventory(place)) == []
    write_network(place.activations, A, make_taps())
    write_network(place.activations, B, make_taps(seed=1))
    compare_one(place, A, B)
    entries = usage(take_inventory(place))
    for kind in ("activations", "grams", "similarity"):
        stored = sum(entry["stored_bytes"] for entry in entries if entry["store"] == kind)
        assert stored == sum(n for _, n, _ in walk_files(place.root / f"{kind}.zarr"))
    check_links(place, ("activations",), A, None)
    discard(place, take_inventory(place).select("activations", A))
    left = take_inventory(place).select("activations", EVERYTHING)
    assert [each.path for each in left] == [f"{SAMPLES}/b/final/{tap}" for tap in ("one", "two")]


def test_a_link_in_the_way_of_a_selection_is_no_empty_folder(workspace, tmp_path):
    folder = workspace.activations / SAMPLES / "a" / "final"
    shutil.move(folder, tmp_path / "outside")
    folder.symlink_to(tmp_path / "outside")
    for side in (A, Selection("*", "*"), Selection("a", "*", "one")):
        with pytest.raises(StoreLocationError, match="final is a symbolic link"):
            check_links(workspace, ("activations", "grams"), side, None)
    check_links(workspace, ("grams",), A, None)
    check_links(workspace, ("activations",), B, None)
    check_links(workspace, ("activations",), A, "another")
