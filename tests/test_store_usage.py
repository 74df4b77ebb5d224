"""What stores take: every byte once, whatever lies in them."""

import os

import pytest

from store import GramWriter, read_result, write_result
from store.maintenance.usage import Usage, committed, measure, networks, raw_bytes, result_facts
from tests.faults import flip_bit
from tests.networks import A, B, make_taps, write_network
from tests.strategies import coordinates, make_gram_meta, make_grams
from tests.test_store_results import make_result

SAMPLES = "digits-test-66-01234567"


@pytest.fixture
def activations(tmp_path):
    path = tmp_path / "activations.zarr"
    write_network(path, A, make_taps())
    write_network(path, B, make_taps(), n_committed=32)
    return path


def write_grams(path, **changes):
    meta = make_gram_meta(**changes)
    writer = GramWriter.open(path, meta, *coordinates(meta))
    for K in make_grams(meta):
        writer.append(K)
    return meta


def bytes_on_disk(path):
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def groups(found):
    return {each.path: each for each in found if not each.is_file}


def test_every_file_counts_once(activations):
    found = measure(activations, "activations")
    assert sum(each.n_bytes for each in found) == bytes_on_disk(activations)
    n_files = sum(file.is_file() for file in activations.rglob("*"))
    assert sum(each.n_files for each in found) == n_files


def test_a_group_has_what_lies_in_its_folder(activations):
    found = groups(measure(activations, "activations"))
    assert list(found) == [f"{SAMPLES}/{run}/final/{tap}" for run in "ab" for tap in ("one", "two")]
    path = f"{SAMPLES}/a/final/one"
    one = found[path]
    assert one.n_bytes == bytes_on_disk(activations / path)
    assert one.members == {"zarr.json", "activations", "sample", "label"}
    assert (one.names, one.group) == (tuple(path.split("/")), path)
    newest = max(f.stat().st_mtime for f in (activations / path).rglob("*") if f.is_file())
    assert one.changed == newest


def test_files_above_the_groups_stand_alone(activations):
    files = [each.path for each in measure(activations, "activations") if each.is_file]
    folders = ["", f"{SAMPLES}/", *(f"{SAMPLES}/{run}" for run in ("a/", "a/final/", "b/"))]
    assert {f"{folder}zarr.json" for folder in folders} <= set(files)


def test_what_a_kill_left_of_a_file_stands_alone(activations):
    path = f"{SAMPLES}/a/final/one"
    whole = groups(measure(activations, "activations"))[path]
    left = activations / path / "activations/c/0/0/0.1234.partial"
    left.write_bytes(b"abc")
    found = measure(activations, "activations")
    assert groups(found)[path] == whole
    (stray,) = [each for each in found if each.path.endswith(".partial")]
    assert stray.is_file
    assert (stray.n_files, stray.n_bytes, stray.group) == (1, 3, path)


def test_links_are_not_followed(activations, tmp_path):
    before = measure(activations, "activations")
    outside = tmp_path / "outside"
    write_network(outside, A, make_taps())
    (activations / SAMPLES / "linked").symlink_to(outside / SAMPLES / "a")
    os.symlink(activations, activations / "itself")
    assert groups(measure(activations, "activations")) == groups(before)


def test_grams_and_results_are_groups_too(tmp_path):
    meta = write_grams(tmp_path / "grams")
    assert list(groups(measure(tmp_path / "grams", "grams"))) == [meta.key.path]
    write_result(tmp_path / "results", make_result())
    found = groups(measure(tmp_path / "results", "similarity"))
    assert list(found) == [make_result().name]
    assert {"zarr.json", "values", "hsic", "row", "column"} <= found[make_result().name].members


def test_raw_bytes_are_those_of_committed_values(activations):
    whole = committed(activations, "activations", (SAMPLES, "a", "final"))
    assert [raw_bytes(each) for each in whole.values()] == [66 * 3 * 2 * 4] * 2
    partial = committed(activations, "activations", (SAMPLES, "b", "final"))
    assert [raw_bytes(each) for each in partial.values()] == [32 * 3 * 2 * 4] * 2


def test_raw_bytes_of_grams_are_those_of_their_triangles(tmp_path):
    meta = write_grams(tmp_path)
    (grams,) = committed(tmp_path, "grams", meta.key.path.split("/")[:3]).values()
    assert raw_bytes(grams) == len(meta.sizes) * meta.width * 4


def test_a_damaged_group_hides_its_network_and_no_other(activations):
    flip_bit(activations / SAMPLES / "a/final/one/zarr.json", 0)
    assert committed(activations, "activations", (SAMPLES, "a", "final")) is None
    assert len(committed(activations, "activations", (SAMPLES, "b", "final"))) == 2


def test_a_group_in_the_making_is_not_committed(activations):
    (activations / SAMPLES / "a/final/one/zarr.json").unlink()
    found = committed(activations, "activations", (SAMPLES, "a", "final"))
    assert list(found) == [f"{SAMPLES}/a/final/two"]


def test_a_result_tells_its_size_and_what_it_compares(tmp_path):
    result = make_result()
    write_result(tmp_path, result)
    n_bytes, keys = result_facts(tmp_path, result.name)
    assert set(keys) == {*result.rows, *result.columns}
    read = read_result(tmp_path, result.name)
    assert n_bytes == sum(array.nbytes for array in read.arrays.values())


@pytest.mark.parametrize("name", ["nothing", ".draft.partial"])
def test_what_is_no_whole_result_tells_nothing(tmp_path, name):
    write_result(tmp_path, make_result())
    (tmp_path / ".draft.partial").mkdir()
    assert result_facts(tmp_path, name) is None


def test_a_damaged_result_tells_nothing(tmp_path):
    write_result(tmp_path, make_result())
    flip_bit(tmp_path / make_result().name / "zarr.json", 0)
    assert result_facts(tmp_path, make_result().name) is None


def test_a_result_that_a_link_leads_to_elsewhere_tells_nothing(tmp_path):
    write_result(tmp_path / "outside", make_result())
    write_result(tmp_path / "results", make_result("other"))
    name = make_result().name
    (tmp_path / "results" / name).symlink_to(tmp_path / "outside" / name)
    assert result_facts(tmp_path / "outside", name) is not None
    assert result_facts(tmp_path / "results", name) is None


def test_networks_are_groups_of_one_sample_set_run_and_checkpoint(activations):
    found = dict(networks(measure(activations, "activations")))
    assert {key: len(group) for key, group in found.items()} == {
        (SAMPLES, "a", "final"): 2,
        (SAMPLES, "b", "final"): 2,
    }


def test_a_file_is_told_from_a_group_by_having_no_members():
    assert Usage("grams", "zarr.json", frozenset(), 1, 2, 3.0).is_file
