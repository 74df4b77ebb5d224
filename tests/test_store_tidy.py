"""Removing from stores: killed at any moment it leaves what nobody mistakes for data."""

import errno
import json
import os
import re
import shutil
import time
import uuid
from pathlib import Path

import numpy as np
import pytest

import store
from store import GramWriter, StoreLocationError, Writer, write_result
from store.arrays.tap_folders import REMOVED
from store.errors import ClaimedError
from store.maintenance.remove import abandoned, is_held, remove
from store.maintenance.usage import measure
from store.maintenance.verify import verify
from store.storage.paths import as_place, walk_files
from tests.commands import contents
from tests.faults import Killed, kill_series, killed_before
from tests.networks import A, B, make_taps, write_network
from tests.strategies import batches, coordinates, make_gram_meta, make_grams, make_meta, make_rows
from tests.sweeps import slow
from tests.test_store_results import make_result

SAMPLES = "digits-test-66-01234567"
ONE = f"{SAMPLES}/a/final/one"
B_TAPS = ["b@final:one", "b@final:two"]
FUTURE = time.time() + 1e6


@pytest.fixture
def activations(tmp_path):
    """Return a store of two networks, the second of them unfinished."""
    path = tmp_path / "activations.zarr"
    write_network(path, A, make_taps())
    write_network(path, B, make_taps(), n_committed=32)
    return path


def group(path, name, kind="activations"):
    (found,) = [each for each in measure(path, kind) if each.path == name]
    return found


def contents_of_groups(path):
    return {each.path for each in measure(path, "activations") if not each.is_file}


def folders(root):
    return {str(p.relative_to(root)) for p in root.rglob("*") if p.is_dir()}


def noted(metadata, *taps):
    """Return a network's metadata once these taps are noted in them as removed."""
    node = json.loads(metadata)
    return node | {"attributes": node["attributes"] | {REMOVED: list(taps)}}


def abandoned_paths(path, before=FUTURE, kind="activations"):
    return [each.path for each in abandoned(path, measure(path, kind), before)]


def test_a_group_goes_and_nothing_else(activations):
    before = contents(activations)
    remove(activations, group(activations, ONE))
    after = contents(activations)
    network = f"{ONE.rpartition('/')[0]}/zarr.json"
    assert json.loads(after.pop(network)) == noted(before.pop(network), "one")
    assert after == {k: v for k, v in before.items() if not k.startswith(f"{ONE}/")}
    assert [str(key) for key in store.open(activations).keys()] == ["a@final:two", *B_TAPS]


def test_emptied_folders_go_too(activations):
    for run in "ab":
        for tap in ("one", "two"):
            remove(activations, group(activations, f"{SAMPLES}/{run}/final/{tap}"))
            assert (activations / SAMPLES / run).exists() == (tap == "one")
    assert contents(activations).keys() == {"zarr.json"}
    assert folders(activations) == set()
    assert store.open(activations).keys() == []


def test_a_folder_that_holds_something_else_stays(activations):
    note = activations / SAMPLES / "a" / "note.txt"
    note.write_text("mine")
    for tap in ("one", "two"):
        remove(activations, group(activations, f"{SAMPLES}/a/final/{tap}"))
    assert note.read_text() == "mine"
    assert not (activations / SAMPLES / "a" / "final").exists()


def test_a_group_that_comes_while_its_folder_is_removed_is_kept(activations, monkeypatch):
    remove(activations, group(activations, ONE))
    folder = activations / SAMPLES / "a" / "final"
    metadata = (folder / "zarr.json").read_bytes()
    rmdir = os.rmdir

    def late(path, **how):
        if Path(path) == folder:
            (folder / "three").mkdir()
        rmdir(path, **how)

    monkeypatch.setattr(os, "rmdir", late)
    remove(activations, group(activations, f"{SAMPLES}/a/final/two"))
    assert [path.name for path in folder.iterdir() if path.is_dir()] == ["three"]
    assert json.loads((folder / "zarr.json").read_bytes()) == noted(metadata, "one", "two")


def test_grams_and_results_go_alike(tmp_path):
    meta = make_gram_meta()
    GramWriter.open(tmp_path / "grams", meta, *coordinates(meta))
    remove(tmp_path / "grams", group(tmp_path / "grams", meta.key.path, "grams"))
    assert contents(tmp_path / "grams").keys() == {"zarr.json"}
    write_result(tmp_path / "results", make_result())
    result = group(tmp_path / "results", make_result().name, "similarity")
    remove(tmp_path / "results", result)
    assert contents(tmp_path / "results").keys() == {"zarr.json"}
    assert store.list_results(tmp_path / "results") == []


def test_groups_at_an_address_go_alike():
    place = as_place(f"memory://{uuid.uuid4()}/activations.zarr")
    for side, n in ((A, 5), (B, 2)):
        for tap in ("one", "two"):
            meta = make_meta(tap, n_samples=66, batch_rows=16, run=side.run)
            with Writer.open(place, meta, *coordinates(meta)) as writer:
                assert abandoned_paths(place)[-1:] != [meta.key.path]
                for rows in batches(meta, make_rows(meta))[:n]:
                    writer.append(rows)
    found = measure(place, "activations")
    assert sum(each.n_bytes for each in found) == sum(size for _, size, _ in walk_files(place))
    assert abandoned_paths(place) == [f"{SAMPLES}/b/final/{tap}" for tap in ("one", "two")]
    assert abandoned_paths(place, before=0.0) == []
    remove(place, group(place, ONE))
    assert [str(key) for key in store.open(place).keys()] == ["a@final:two", *B_TAPS]
    assert (place / SAMPLES / "a" / "final" / "zarr.json").exists()
    remove(place, group(place, f"{SAMPLES}/a/final/two"))
    assert not any(path.startswith(f"{SAMPLES}/a/") for path, *_ in walk_files(place))
    assert [str(key) for key in store.open(place).keys()] == B_TAPS


def test_removing_again_changes_nothing(activations):
    found = group(activations, ONE)
    remove(activations, found)
    before = contents(activations)
    remove(activations, found)
    assert contents(activations) == before


def test_a_file_that_a_kill_left_goes_alone(activations):
    before = contents(activations)
    path = f"{ONE}/zarr.1234.partial"
    (activations / path).write_bytes(b"abc")
    remove(activations, group(activations, path))
    assert contents(activations) == before


def test_folders_that_held_only_what_a_kill_left_go_too(activations):
    before = contents(activations), folders(activations)
    path = f"{ONE}/activations/c/9/0/0/0.1234.partial"
    (activations / path).parent.mkdir(parents=True)
    (activations / path).write_bytes(b"abc")
    remove(activations, group(activations, path))
    assert (contents(activations), folders(activations)) == before


@pytest.mark.slow
def test_a_kill_leaves_no_group_that_is_damaged_or_unfinished(activations, tmp_path):
    found = group(activations, ONE)
    rest = [key for key in store.open(activations).keys() if key.path != ONE]
    n_left = 0
    for path in kill_series(lambda path: remove(path, found), tmp_path / "killed", activations):
        taps = store.open(path).find()
        assert [tap.key for tap in taps if tap.key.path != ONE] == rest
        for tap in taps:
            tap.read(0, tap.n_committed)
        if ONE in contents_of_groups(path):
            is_whole = ONE in [tap.key.path for tap in taps]
            n_left += not is_whole
            assert is_whole != (ONE in abandoned_paths(path))
            remove(path, group(path, ONE))
        assert ONE not in contents_of_groups(path)
    assert n_left > 5


class Listing:
    """Entries of a folder in an order of ours, as ``os.scandir`` gives them in the disk's."""

    def __init__(self, entries):
        self._entries = iter(entries)

    def __iter__(self):
        return self

    def __next__(self):
        return next(self._entries)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.mark.parametrize("reverse", [False, slow(True)])
def test_a_kill_leaves_nothing_that_is_damaged_in_whatever_order_files_go(
    activations, tmp_path, monkeypatch, reverse
):
    def in_order(path, scandir=os.scandir):
        with scandir(path) as entries:
            return Listing(sorted(entries, key=lambda entry: entry.name, reverse=reverse))

    monkeypatch.setattr(os, "scandir", in_order)
    found, n_states = group(activations, ONE), 0
    for path in kill_series(lambda path: remove(path, found), tmp_path / "killed", activations):
        n_states += 1
        assert [each for one in verify(path, "activations") for each in one.damage] == []
    assert n_states > 5


@pytest.mark.slow
def test_what_a_kill_left_of_a_removal_can_be_written_afresh(activations, tmp_path):
    meta = store.open(activations).find(run="a")[0].meta
    for path in kill_series(
        lambda path: remove(path, group(path, ONE)), tmp_path / "killed", activations
    ):
        if meta.key in store.open(path).keys():
            continue  # killed before anything went
        write_network(path, A, {"one": make_taps(seed=5)["one"]})
        np.testing.assert_array_equal(
            store.open(path)[meta.key].read(0, 66), make_taps(seed=5)["one"]
        )
        assert contents(path).keys() == contents(activations).keys()


def test_what_a_living_writer_holds_stays(tmp_path):
    meta = make_meta()
    writer = Writer.open(tmp_path, meta, *coordinates(meta))
    before = contents(tmp_path)
    found = group(tmp_path, meta.key.path)
    assert is_held(tmp_path, found)
    with pytest.raises(ClaimedError, match=r"conv1 is being written; wait for that, or stop it"):
        remove(tmp_path, found)
    assert abandoned_paths(tmp_path) == []
    assert contents(tmp_path) == before
    for rows in batches(meta, make_rows(meta)):
        writer.append(rows)
    writer.close()
    assert not is_held(tmp_path, found)
    remove(tmp_path, group(tmp_path, meta.key.path))
    assert contents(tmp_path).keys() == {"zarr.json"}


def test_what_a_living_writer_is_just_writing_is_no_leftover(tmp_path):
    meta = make_meta()
    with Writer.open(tmp_path, meta, *coordinates(meta)):
        (tmp_path / meta.key.path / "zarr.1234.partial").write_bytes(b"{")
        assert abandoned_paths(tmp_path) == []
    assert f"{meta.key.path}/zarr.1234.partial" in abandoned_paths(tmp_path)


@pytest.mark.parametrize("linked", [SAMPLES, f"{SAMPLES}/a", f"{SAMPLES}/a/final", ONE])
def test_links_are_not_followed(activations, tmp_path, linked):
    found = group(activations, ONE)
    outside = tmp_path / "outside"
    shutil.move(activations / linked, outside)
    (activations / linked).symlink_to(outside)
    before = contents(outside)
    with pytest.raises(StoreLocationError, match=r"is a symbolic link, which no store makes"):
        remove(activations, found)
    assert contents(outside) == before


def test_a_linked_chunk_goes_without_what_it_points_to(activations, tmp_path):
    chunk, outside = activations / ONE / "activations/c/0/0/0", tmp_path / "outside"
    shutil.move(chunk, outside)
    chunk.symlink_to(outside)
    remove(activations, group(activations, ONE))
    assert outside.exists()
    assert not (activations / ONE).exists()


def test_a_linked_array_goes_without_what_it_points_to(activations, tmp_path):
    array, outside = activations / ONE / "activations", tmp_path / "outside"
    found = group(activations, ONE)
    shutil.move(array, outside)
    array.symlink_to(outside)
    before = contents(outside)
    remove(activations, found)
    assert contents(outside) == before
    assert not (activations / ONE).exists()


def test_writers_are_kept_out_while_a_group_is_removed(activations, monkeypatch):
    meta = store.open(activations).find()[0].meta
    tried = []

    def try_to_write(folder):
        with pytest.raises(ClaimedError, match="is being written by another writer"):
            Writer.open(activations, meta, *coordinates(meta))
        tried.append(folder)
        shutil.rmtree(folder)

    monkeypatch.setattr("store.maintenance.remove.remove_tree", try_to_write)
    remove(activations, group(activations, ONE))
    assert tried == [activations / ONE / "activations" / "c", activations / ONE]
    Writer.open(activations, meta, *coordinates(meta)).close()


def test_a_disk_without_room_for_a_claim_can_be_freed(activations, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("store.maintenance.remove.claim", full)
    remove(activations, group(activations, ONE))
    assert not (activations / ONE).exists()


def test_unfinished_groups_are_abandoned_and_whole_ones_are_not(activations):
    assert abandoned_paths(activations) == [f"{SAMPLES}/b/final/{tap}" for tap in ("one", "two")]


def test_what_changed_since_is_not_abandoned(activations):
    newest = max(each.changed for each in measure(activations, "activations"))
    assert abandoned_paths(activations, before=newest - 3600) == []
    path = f"{SAMPLES}/b/final/one"
    old = newest - 7200
    for file in (activations / path).rglob("*"):
        os.utime(file, (old, old))
    assert abandoned_paths(activations, before=newest - 3600) == [path]


@pytest.mark.slow
def test_groups_that_a_kill_left_half_made_are_abandoned(tmp_path):
    meta = make_meta(n_samples=4)
    seen = set()
    for path in kill_series(
        lambda path: Writer.open(path, meta, *coordinates(meta)), tmp_path / "k", tmp_path / "none"
    ):
        if not store.has_store(path):
            continue
        if measure(path, "activations"):
            seen |= set(abandoned_paths(path))
        for each in abandoned(path, measure(path, "activations"), FUTURE):
            remove(path, each)
        assert [name for name in contents(path) if not name.endswith("zarr.json")] == []
    assert meta.key.path in seen


def test_what_no_store_wrote_is_never_abandoned(activations):
    for folder in (f"{SAMPLES}/a/final/plots", f"{SAMPLES}/a/final/one-backup", "my/own/old/files"):
        (activations / folder).mkdir(parents=True)
        (activations / folder / "figure.png").write_bytes(b"png")
    (activations / "note.txt").write_text("mine")
    (activations / SAMPLES / "a/final/.hidden").mkdir()
    (activations / SAMPLES / "a/final/.hidden/zarr.json").write_text("{}")
    assert abandoned_paths(activations) == [f"{SAMPLES}/b/final/{tap}" for tap in ("one", "two")]


def test_nothing_of_a_damaged_network_is_abandoned(activations):
    (activations / SAMPLES / "b/final/one/zarr.json").write_text("{")
    assert abandoned_paths(activations) == []


def test_unfinished_grams_are_abandoned(tmp_path):
    meta = make_gram_meta(sizes=(300,) * 9)
    writer = GramWriter.open(tmp_path, meta, *coordinates(meta))
    for K in make_grams(meta)[:7]:
        writer.append(K)
    writer.close()
    assert abandoned_paths(tmp_path, kind="grams") == [meta.key.path]


@pytest.mark.slow
def test_drafts_of_results_are_abandoned_and_results_are_not(tmp_path):
    initial = tmp_path / "initial"
    write_result(initial, make_result("whole"))
    seen = set()
    for path in kill_series(
        lambda path: write_result(path, make_result("whole", seed=1)), tmp_path / "k", initial
    ):
        found = abandoned(path, measure(path, "similarity"), FUTURE)
        names = store.list_results(path)
        assert not {each.path for each in found} & set(names)
        seen |= {each.path for each in found if not each.is_file}
        for each in found:
            remove(path, each)
        assert store.list_results(path) == names
        assert {name.split("/")[0] for name in contents(path)} == {"zarr.json", *names}
    names = {re.sub(r"\d+-\w{8}", "*", name) for name in seen}
    assert names == {".whole.*.partial", ".whole.*.replaced"}


def test_a_result_half_removed_is_abandoned(tmp_path):
    write_result(tmp_path, make_result())
    found = group(tmp_path, make_result().name, "similarity")
    with pytest.raises(Killed), killed_before(3):
        remove(tmp_path, found)
    assert store.list_results(tmp_path) == []
    assert abandoned_paths(tmp_path, kind="similarity") == [make_result().name]
    write_result(tmp_path, make_result())
    np.testing.assert_array_equal(
        store.read_result(tmp_path, make_result().name).values, make_result().values
    )
