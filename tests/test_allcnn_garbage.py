"""What can go: never what cannot be made again, and never what somebody is at."""

import shutil
import time

import numpy as np
import pytest

from allcnn.errors import WorkspaceError
from allcnn.extract import extract
from allcnn.maintenance.garbage import current_samples, find_garbage, readable_digest
from allcnn.maintenance.inventory import discard, take_inventory
from allcnn.settings.extraction import Extraction
from allcnn.settings.selection import EVERYTHING, Selection
from allcnn.workspace.paths import Workspace
from store import GramWriter, Writer, list_results, open_grams, write_result
from store import open as open_store
from tests.faults import chunk_files, flip_bit, write_again
from tests.networks import A, B, C, assert_same_bits, compare_one, make_taps, write_network
from tests.test_store_results import make_result

SAMPLES = "digits-test-66-01234567"
FUTURE = time.time() + 1e6
REASONS = ("superseded", "abandoned", "orphaned")


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Return two compared networks, of which the checkpoint of ``a`` alone is here."""
    place = Workspace.at(tmp_path_factory.mktemp("compared") / "workspace")
    write_network(place.activations, A, make_taps())
    write_network(place.activations, B, make_taps(seed=1))
    compare_one(place, A, B)
    add_run(place, "a")
    return place


@pytest.fixture
def workspace(compared, tmp_path, digests):
    """Return a copy of them, to write into."""
    return Workspace.at(shutil.copytree(compared.root, tmp_path / "workspace"))


@pytest.fixture
def digests(monkeypatch):
    """Let folders pass for checkpoints, which have the digest of what these tests store."""
    digests = {"a@final": "feedc0de", "b@final": "feedc0de"}

    def digest(place, run, name):
        there = (place.checkpoints_folder(run) / name).exists()
        return digests.get(f"{run}@{name}") if there else None

    monkeypatch.setattr("allcnn.maintenance.garbage.readable_digest", digest)
    monkeypatch.setattr("allcnn.maintenance.garbage.current_samples", stored_samples)
    return digests


def stored_samples(workspace, names):
    return open_store(workspace.activations).find(sample_set=names[0])[0].meta.sample_set


def add_run(workspace, run, checkpoint="final"):
    (workspace.checkpoints_folder(run) / checkpoint).mkdir(parents=True)
    (workspace.run_folder(run) / "config.json").write_text("{}")


def find(workspace, *reasons, side=EVERYTHING, spared=(), before=FUTURE):
    return find_garbage(
        take_inventory(workspace), reasons or REASONS, side, spared=spared, before=before
    )


def removable(workspace, *reasons, **how):
    return [each.found.path for each in find(workspace, *reasons, **how).removable]


def taps(run):
    return [f"{SAMPLES}/{run}/final/{tap}" for tap in ("one", "two")]


def remove_grams(workspace, run, tap):
    shutil.rmtree(workspace.grams / SAMPLES / run / "final" / tap)


def test_activations_whose_grams_are_kept_are_superseded(workspace):
    removable = find(workspace).removable
    assert [(each.reason, each.found.kind) for each in removable] == [
        ("superseded", "activations")
    ] * 2
    assert [each.found.path for each in removable] == taps("a")
    assert {each.note for each in removable} == {"kept: linear and rbf Grams, minibatches of 8"}


def test_what_cannot_be_extracted_again_stays(workspace):
    assert [each.path for each in find(workspace).irreplaceable] == taps("b")
    add_run(workspace, "b", "epoch-0001")
    assert [each.path for each in find(workspace).irreplaceable] == taps("b")
    (workspace.checkpoints_folder("b") / "final").mkdir()
    found = find(workspace)
    assert found.irreplaceable == ()
    assert [each.found.path for each in found.removable] == [*taps("a"), *taps("b")]


def test_what_another_checkpoint_of_that_name_gave_stays(workspace, digests):
    digests["a@final"] = "another"
    found = find(workspace)
    assert found.removable == ()
    assert [each.path for each in found.irreplaceable] == [*taps("a"), *taps("b")]


def test_activations_of_examples_that_are_not_here_stay(workspace, monkeypatch):
    monkeypatch.setattr("allcnn.maintenance.garbage.current_samples", lambda *_: None)
    found = find(workspace)
    assert found.removable == ()
    assert [each.path for each in found.irreplaceable] == [*taps("a"), *taps("b")]


def test_data_are_loaded_once_for_all_networks(workspace, monkeypatch):
    (workspace.checkpoints_folder("b") / "final").mkdir(parents=True)
    asked = []

    def load(place, names):
        asked.append(names)
        return stored_samples(place, names)

    monkeypatch.setattr("allcnn.maintenance.garbage.current_samples", load)
    assert removable(workspace) == [*taps("a"), *taps("b")]
    assert len(asked) == 1


def test_activations_of_which_a_gram_is_damaged_stay(workspace):
    flip_bit(chunk_files(open_grams(workspace.grams).find(run="a")[0].place / "grams")[0])
    found = find(workspace)
    assert found.removable == ()
    assert [each.path for each in found.irreplaceable] == [*taps("a"), *taps("b")]


def test_samples_are_those_that_the_data_set_gives(trained, tmp_path):
    place = Workspace.at(shutil.copytree(trained.root, tmp_path / "w"))
    name = "small-d1-v2-s0"
    sample_set = extract(place, Extraction(name, "final", n_samples=32, batch_size=32))
    (wanted,) = {tap.meta.sample_set for tap in open_store(place.activations).find()}
    assert current_samples(place, (sample_set, name, "final")) == wanted
    assert current_samples(place, (f"{sample_set[:-8]}01234567", name, "final")) is None
    assert current_samples(place, (sample_set, "imported", "final")) is None


def test_digests_are_those_of_checkpoints_that_can_be_read(trained, tmp_path):
    place = Workspace.at(shutil.copytree(trained.root, tmp_path / "w"))
    name = "small-d1-v2-s0"
    job = Extraction(name, "final", n_samples=32, batch_size=32)
    extract(place, job)
    (digest,) = {tap.meta.checkpoint_digest for tap in open_store(place.activations).find()}
    assert readable_digest(place, name, "final") == digest
    assert readable_digest(place, name, "init") not in (digest, None)
    assert readable_digest(place, name, "epoch-0009") is None
    assert readable_digest(place, "x" * 150, "final") is None
    shutil.rmtree(place.checkpoints_folder(name) / "final" / "variables")
    assert readable_digest(place, name, "final") is None


def test_comparing_goes_on_without_superseded_activations(workspace):
    before = compare_one(workspace, A, B)
    discard(workspace, [each.found for each in find(workspace).removable])
    assert {key.run for key in open_store(workspace.activations).keys()} == {"b"}
    shutil.rmtree(workspace.similarity)
    assert_same_bits(compare_one(workspace, A, B), before)


def test_grams_of_all_taps_are_wanted(workspace):
    remove_grams(workspace, "a", "one")
    assert removable(workspace) == []


def test_grams_of_one_kind_are_wanted_of_all_taps(workspace):
    remove_grams(workspace, "a", "one")
    only = Selection("a", "final", "one")
    compare_one(workspace, only, only, pool="mean")
    assert len(open_grams(workspace.grams).find(run="a")) == 2
    assert removable(workspace) == []
    compare_one(workspace, A, A, pool="mean")
    assert removable(workspace) == taps("a")
    assert (
        find(workspace).removable[0].note == "kept: linear and rbf pooled Grams, minibatches of 8"
    )


def test_grams_with_a_median_distance_serve_rbf_too(workspace):
    compare_one(workspace, A, A, kernel="rbf")
    (note,) = {each.note for each in find(workspace).removable}
    assert note == "kept: linear and rbf Grams, minibatches of 8"


@pytest.mark.parametrize("change", [{"checkpoint_digest": "other"}, {"dtype": np.float16}])
def test_grams_of_another_checkpoint_or_dtype_are_not_those_of_the_activations(workspace, change):
    shutil.rmtree(workspace.activations)
    values = make_taps(dtype=change.pop("dtype", np.float32))
    write_network(workspace.activations, A, values, **change)
    assert removable(workspace) == []


def test_unfinished_grams_supersede_nothing(workspace):
    grams = open_grams(workspace.grams).find(run="a")[0]
    coordinates = grams.samples, grams.labels
    remove_grams(workspace, "a", grams.key.of.tap)
    GramWriter.open(workspace.grams, grams.meta, *coordinates)
    assert "superseded" not in {each.reason for each in find(workspace).removable}


def test_a_pattern_narrows_what_is_superseded(workspace):
    assert removable(workspace, side=B) == []
    assert removable(workspace, side=Selection("a", "*", "two")) == taps("a")[1:]
    assert (
        removable(workspace, spared=[Selection("b", "*"), Selection("*", "*", "one")])
        == (taps("a")[1:])
    )


def test_reasons_are_looked_for_where_they_are_asked_for(workspace):
    write_network(workspace.activations, C, make_taps(), n_committed=16)
    write_result(workspace.similarity, make_result("seeds"))
    assert removable(workspace) == ["seeds", *taps("c"), *taps("a")]
    assert removable(workspace, "superseded") == taps("a")
    assert removable(workspace, "abandoned") == taps("c")
    assert removable(workspace, "orphaned") == ["seeds"]


def test_partial_writes_are_abandoned_once_they_are_old(workspace):
    write_network(workspace.activations, C, make_taps(), n_committed=16)
    assert removable(workspace, "abandoned", before=time.time() - 60) == []
    assert removable(workspace, "abandoned", side=Selection("c", "*", "one")) == taps("c")[:1]
    assert removable(workspace, "abandoned", side=A) == []


def test_what_kills_left_of_files_belongs_to_no_pattern(workspace):
    (workspace.activations / "zarr.1234.partial").write_text("{")
    assert removable(workspace, "abandoned") == ["zarr.1234.partial"]
    assert removable(workspace, "abandoned", side=A) == []


def test_what_is_unfinished_and_superseded_counts_once(workspace):
    shutil.rmtree(workspace.activations)
    write_network(workspace.activations, A, make_taps(), n_committed=16)
    found = find(workspace).removable
    assert [each.found.path for each in found] == taps("a")
    assert {each.reason for each in found} == {"abandoned"}
    assert removable(workspace, "superseded") == taps("a")


def test_results_of_vanished_runs_are_orphaned(workspace):
    assert removable(workspace, "orphaned") == []
    shutil.rmtree(workspace.activations)
    assert removable(workspace, "orphaned") == []  # its Grams are here
    shutil.rmtree(workspace.grams)
    (orphan,) = find(workspace, "orphaned").removable
    assert (orphan.found.kind, orphan.note) == ("similarity", "gone: b")
    add_run(workspace, "b")
    assert removable(workspace, "orphaned") == []


def test_a_pattern_narrows_what_is_orphaned(workspace):
    write_result(workspace.similarity, make_result("seeds"))
    assert removable(workspace, "orphaned", side=Selection("net-s0", "*")) == ["seeds"]
    assert removable(workspace, "orphaned", side=A) == []


def test_imported_activations_are_a_run_and_damaged_ones_too(workspace):
    for path in (workspace.activations / SAMPLES / "b").rglob("zarr.json"):
        path.write_text("{")
    shutil.rmtree(workspace.grams)
    assert removable(workspace, "orphaned") == []


def test_runs_on_a_disk_that_is_not_mounted_are_not_gone(workspace, tmp_path):
    shutil.rmtree(workspace.root / "runs")
    (workspace.root / "runs").symlink_to(tmp_path / "unmounted")
    with pytest.raises(WorkspaceError, match=r"runs is a link to what is not there; mount"):
        find(workspace)


def test_a_run_is_not_gone_where_the_disk_of_its_checkpoint_is_not_mounted(workspace, tmp_path):
    shutil.rmtree(workspace.grams)
    checkpoint = workspace.activations / SAMPLES / "b" / "final"
    shutil.rmtree(checkpoint)
    checkpoint.symlink_to(tmp_path / "unmounted")
    assert removable(workspace, "orphaned") == []


def test_drafts_are_results_of_no_pattern(workspace):
    (workspace.similarity / ".x.partial").mkdir()
    (workspace.similarity / ".x.partial" / "zarr.json").write_text("{}")
    found = take_inventory(workspace).select("similarity", EVERYTHING)
    assert [each.path for each in found] == list_results(workspace.similarity)
    assert removable(workspace, "abandoned") == [".x.partial"]


def test_a_damaged_result_is_left_alone(workspace):
    write_result(workspace.similarity, make_result("seeds"))
    (workspace.similarity / "seeds/zarr.json").write_text("{")
    assert removable(workspace, "orphaned", "abandoned") == []


def test_activations_whose_grams_are_of_earlier_rows_are_kept(workspace):
    """The digest of a checkpoint does not tell all that another program's rows depend on."""
    assert removable(workspace) == taps("a")
    for tap in open_store(workspace.activations).find(run="a"):
        with Writer.open(workspace.activations, tap.meta, tap.samples, tap.labels) as writer:
            write_again(writer, 0, tap.read(0, 16) + 1)
    assert removable(workspace) == []
