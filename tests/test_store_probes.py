"""Probes: a round trip, never half of one, and nothing that damage or another folder passes for."""

import time
from dataclasses import fields, replace

import numpy as np
import pytest
import zarr

import store
from store import (
    DamagedChunkError,
    InvalidKeyError,
    ProbeResult,
    RepresentationKey,
    SchemaError,
    StoreLocationError,
    UnfinishedError,
    UnknownProbeError,
    has_probe,
    list_probes,
    read_probe,
    write_probe,
)
from store.maintenance.remove import abandoned, remove
from store.maintenance.usage import measure, result_facts
from store.maintenance.verify import verify
from store.records.probes import ARRAYS
from tests.faults import chunk_files, edit_attributes, flip_bit, kill_series, swap


def make_probe(name="net", seed=0, **changes) -> ProbeResult:
    rng = np.random.default_rng(seed)
    taps = [
        RepresentationKey("digits-test-10-01234567", "net-s0", "final", f"c{i}") for i in range(3)
    ]
    class_accuracy = rng.uniform(size=(3, 2))
    class_accuracy[2, 1] = np.nan
    values = {
        "name": name,
        "taps": tuple(taps),
        "train_set": "digits-train-50-89abcdef",
        "accuracy": rng.uniform(size=3),
        "train_accuracy": rng.uniform(size=3),
        "class_accuracy": class_accuracy,
        "penalties": 10.0 ** -rng.integers(1, 6, 3),
        "n_features": np.array([300, 40, 2]),
        "classes": (3, 7),
        "n_train": 50,
        "n_test": 10,
        "pool": "mean",
        "provenance": {"checkpoint_digest": "feedc0de", "job": {"networks": "net-s0@final"}},
    }
    return ProbeResult(**values | changes)


def assert_same(found, wanted):
    for field in fields(ProbeResult):
        left, right = getattr(found, field.name), getattr(wanted, field.name)
        if isinstance(right, np.ndarray):
            assert left.dtype == (np.int64 if field.name == "n_features" else np.float64)
            np.testing.assert_array_equal(left, right)
        else:
            assert left == right


@pytest.fixture
def path(tmp_path):
    return tmp_path / "probes.zarr"


def test_round_trip(path):
    wanted = make_probe()
    write_probe(path, wanted)
    assert_same(read_probe(path, "net"), wanted)


def test_the_standard_error_is_that_of_a_share():
    found = make_probe(accuracy=[0.5, 0.9, 1.0], n_test=100).standard_errors
    np.testing.assert_allclose(found, [0.05, 0.03, 0.0])


def test_listing_is_sorted_and_leaves_out_what_is_hidden(path):
    for name in ("b", "a"):
        write_probe(path, make_probe(name))
    (path / ".c.partial").write_text("{}")
    (path / "odd").mkdir()
    assert list_probes(path) == ["a", "b"]
    assert has_probe(path, "a")
    assert not has_probe(path, "c")


def test_a_store_not_there_has_no_probe(path):
    assert not has_probe(path, "a")
    with pytest.raises(StoreLocationError, match="no store at"):
        list_probes(path)


def test_an_unknown_probe_is_refused(path):
    write_probe(path, make_probe())
    with pytest.raises(UnknownProbeError, match="holds no probe 'other'; compute it first"):
        read_probe(path, "other")


def test_one_under_way_is_unfinished(path):
    write_probe(path, make_probe())
    (path / ".other.partial").write_text("{}")
    with pytest.raises(UnfinishedError, match=r"probe other in .* was not finished"):
        read_probe(path, "other")


@pytest.mark.parametrize("name", ["../x", "", ".net.partial", "a/b", "zarr.json"])
def test_unsafe_names_are_refused(path, name):
    write_probe(path, make_probe())
    for refuse in (
        lambda: make_probe(name),
        lambda: read_probe(path, name),
        lambda: has_probe(path, name),
    ):
        with pytest.raises(InvalidKeyError, match="cannot be a folder's name"):
            refuse()


@pytest.mark.parametrize("field", ARRAYS)
def test_arrays_must_fit_taps_and_classes(field):
    with pytest.raises(SchemaError, match=rf"{field} of probe net has shape \(7, 7\); want \(3"):
        make_probe(**{field: np.zeros((7, 7))})


@pytest.mark.parametrize("field", ["accuracy", "train_accuracy", "class_accuracy"])
@pytest.mark.parametrize("value", [-0.1, 61.3])
def test_accuracies_are_shares(field, value):
    values = getattr(make_probe(), field).copy()
    values[0] = value
    with pytest.raises(SchemaError, match=f"{field} of probe net has values outside 0 to 1"):
        make_probe(**{field: values})


@pytest.mark.parametrize("change", [{"run": "net-s1"}, {"checkpoint": "init"}, {"sample_set": "x"}])
def test_taps_are_of_one_network(change):
    first, second, third = make_probe().taps
    with pytest.raises(SchemaError, match="the taps of probe net are of 2 networks"):
        make_probe(taps=(first, second, replace(third, **change)))


@pytest.mark.parametrize("field", ["n_train", "n_test"])
def test_counts_are_whole_and_above_0(field):
    with pytest.raises(SchemaError, match=f"{field} of probe net is 0; want an integer"):
        make_probe(**{field: 0})


def test_provenance_must_be_json_before_any_work(path):
    with pytest.raises(SchemaError, match="probe net cannot be written: "):
        write_probe(path, make_probe(provenance={"when": object()}))
    assert not path.exists()


def test_a_kill_leaves_the_old_probe_the_new_one_or_none(tmp_path):
    old, new = make_probe(seed=0), make_probe(seed=1)
    write_probe(tmp_path / "old", old)
    seen = set()
    for path in kill_series(lambda path: write_probe(path, new), tmp_path, tmp_path / "old"):
        seen.add(_what_is_there(path, old, new))
        write_probe(path, new)
        assert_same(read_probe(path, "net"), new)
    assert seen == {"old", "none", "new"}


def _what_is_there(path, old, new):
    if not has_probe(path, "net"):
        assert list_probes(path) == []
        with pytest.raises(UnfinishedError, match="was not finished; compute it again"):
            read_probe(path, "net")
        return "none"
    found = read_probe(path, "net")
    which = "old" if np.array_equal(found.accuracy, old.accuracy) else "new"
    assert_same(found, old if which == "old" else new)
    return which


@pytest.mark.parametrize("name", ARRAYS)
def test_damage_is_found(path, name):
    write_probe(path, make_probe())
    flip_bit(chunk_files(path / "net" / name)[0])
    with pytest.raises(DamagedChunkError, match=f"{name} of probe net in .* compute it again"):
        read_probe(path, "net")


def test_exchanged_arrays_are_found(path):
    """Each has a right checksum, and values that could be the other's."""
    write_probe(path, make_probe())
    swap(*(chunk_files(path / "net" / name)[0] for name in ("accuracy", "train_accuracy")))
    with pytest.raises(DamagedChunkError, match=r"accuracy of probe net in .* is not what was wri"):
        read_probe(path, "net")
    assert [each.part for each in _damage(path)] == ["accuracy", "train_accuracy"]


def test_an_array_that_is_gone_is_noticed(path):
    write_probe(path, make_probe())
    edit_attributes(path / "net", lambda found: found["allcnn_digests"].pop("penalties"))
    with pytest.raises(SchemaError, match=r"net is malformed .*penalties.*; compute it again"):
        read_probe(path, "net")


@pytest.mark.parametrize("facts", [{"classes": None}, {"taps": ["a/b"]}, {"odd": 1}, {"n_test": 0}])
def test_malformed_facts_are_noticed(path, facts):
    write_probe(path, make_probe())
    edit_attributes(path / "net", lambda found: found["allcnn_probe"].update(facts))
    with pytest.raises(SchemaError, match="net is malformed"):
        read_probe(path, "net")


def test_facts_that_are_no_object_are_noticed(path):
    write_probe(path, make_probe())
    edit_attributes(path / "net", lambda found: found.update(allcnn_probe=[1]))
    with pytest.raises(SchemaError, match=r"net is malformed .*; compute it again"):
        read_probe(path, "net")


def test_a_renamed_probe_is_noticed(path):
    write_probe(path, make_probe())
    (path / "net").rename(path / "other")
    with pytest.raises(SchemaError, match="holds probe net; rename the folder to that"):
        read_probe(path, "other")


def test_a_store_of_results_is_no_store_of_probes(path):
    zarr.create_group(
        path, attributes={"allcnn_store": {"kind": "similarity", "schema_version": 1}}
    )
    for refuse in (lambda: write_probe(path, make_probe()), lambda: list_probes(path)):
        with pytest.raises(SchemaError, match="is a store of similarity; give a store of probes"):
            refuse()


def test_a_newer_store_of_probes_is_refused(path):
    mark = {"kind": "probes", "schema_version": store.SCHEMA_VERSION + 1}
    zarr.create_group(path, attributes={"allcnn_store": mark})
    with pytest.raises(SchemaError, match="install a newer one"):
        write_probe(path, make_probe())


def test_xarray_reads_it(path):
    xarray = pytest.importorskip("xarray")
    write_probe(path, make_probe())
    with xarray.open_datatree(path, engine="zarr", consolidated=False) as tree:
        found = tree["net"]["class_accuracy"]
        assert found.dims == ("tap", "class")
        value = found.sel(tap="net-s0@final:c1").sel({"class": "7"}).item()
        assert value == make_probe().class_accuracy[1, 1]


@pytest.mark.parametrize("name", ARRAYS)
def test_verification_names_the_damaged_array(path, name):
    write_probe(path, make_probe())
    flip_bit(chunk_files(path / "net" / name)[0])
    (damage,) = _damage(path)
    assert (damage.kind, damage.path, damage.part) == ("probes", "net", name)
    assert str(damage).startswith(f"{name} of probe net is damaged (")


def test_verification_of_what_is_whole_finds_nothing(path):
    write_probe(path, make_probe())
    write_probe(path, make_probe("other"))
    (path / ".third.partial").write_text("{}")
    root, *found = verify(path, "probes")
    assert [each.path for each in found] == ["net", "other"]
    assert not any(each.damage for each in (root, *found))
    assert found[0].n_bytes == 8 * (3 + 3 + 6 + 3 + 3)
    assert [each.path for each in verify(path, "probes", run="net-s1")] == [""]
    assert [each.path for each in verify(path, "probes", run="net-*", result="o*")] == ["", "other"]


@pytest.mark.parametrize("edit", [{"taps": "a"}, {"taps": ["a"]}, {"classes": 3}, {"n_test": 0}])
def test_verification_names_malformed_facts(path, edit):
    write_probe(path, make_probe())
    edit_attributes(path / "net", lambda found: found["allcnn_probe"].update(edit))
    (damage,) = _damage(path)
    assert damage.part == "metadata"
    assert str(damage).startswith("metadata of probe net are damaged (")


@pytest.mark.parametrize("dimension", ["tap", "class"])
def test_verification_finds_names_that_xarray_would_show_wrong(path, dimension):
    write_probe(path, make_probe())
    array = zarr.open_array(path / "net" / dimension, mode="r+")
    array[0] = "another"
    (damage,) = _damage(path)
    assert damage.part == dimension


def test_a_folder_that_is_no_probe_is_reported(path):
    write_probe(path, make_probe())
    (path / "notes").mkdir()
    (path / "notes" / "a.txt").write_text("mine")
    (damage,) = _damage(path)
    assert str(damage) == "probe notes was not written by a store (it holds 'a.txt')"


def _damage(path):
    return [damage for checked in verify(path, "probes") for damage in checked.damage]


def test_what_it_takes_is_measured_and_removed(path):
    write_probe(path, make_probe())
    write_probe(path, make_probe("other"))
    groups = [each for each in measure(path, "probes") if not each.is_file]
    assert [each.path for each in groups] == ["net", "other"]
    n_bytes, keys = result_facts(path, "net", "probes")
    assert n_bytes == 8 * (3 + 3 + 6 + 3 + 3)
    assert tuple(keys) == make_probe().taps
    remove(path, groups[0])
    assert list_probes(path) == ["other"]
    assert not (path / "net").exists()


def test_only_interrupted_writes_are_abandoned(path):
    write_probe(path, make_probe())
    write_probe(path, make_probe("half"))
    (path / "half" / "zarr.json").unlink()
    (path / ".third.partial").write_text("{}")
    found = abandoned(path, measure(path, "probes"), before=time.time() + 60)
    assert sorted(each.path for each in found) == [".third.partial", "half"]
    assert abandoned(path, measure(path, "probes"), before=time.time() - 60) == []


def test_it_is_kept_at_an_address():
    place = "memory://probes/probes.zarr"
    for seed in (0, 1):
        write_probe(place, make_probe(seed=seed))
        assert_same(read_probe(place, "net"), make_probe(seed=seed))
    assert list_probes(place) == ["net"]
