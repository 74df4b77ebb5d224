"""Results: a round trip, and never half of one."""

import errno
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace

import numpy as np
import pytest
import zarr

import store
from store import (
    DamagedChunkError,
    InvalidKeyError,
    RepresentationKey,
    SchemaError,
    SimilarityResult,
    StoreLocationError,
    UnfinishedError,
    UnknownResultError,
    has_result,
    list_results,
    read_result,
    write_result,
)
from tests.faults import chunk_files, edit_attributes, flip_bit, kill_series
from tests.strategies import make_similarity


def make_result(name="seeds", seed=0, **changes) -> SimilarityResult:
    rng = np.random.default_rng(seed)
    rows = [
        RepresentationKey("digits-test-10-01234567", "net-s0", "final", f"c{i}") for i in range(3)
    ]
    columns = [replace(key, run="net-s1") for key in rows[:2]]
    cka = rng.standard_normal((3, 2))
    cka[1, 0] = np.nan
    values = {
        "name": name,
        "rows": tuple(rows),
        "columns": tuple(columns),
        "values": cka,
        "hsic": rng.standard_normal((3, 2)),
        "hsic_rows": rng.standard_normal(3),
        "hsic_columns": rng.standard_normal(2),
        "n_examples": 10,
        "kernel": "rbf",
        "sigma": 0.4,
        "estimator": "unbiased",
        "batch_size": 4,
        "scales_rows": rng.standard_normal(3),
        "scales_columns": rng.standard_normal(2),
        "reasons": ((1, 0, "the self-HSIC of c1 is not positive"),),
        "provenance": {"allcnn": "0.1.0", "checkpoints": {"net-s0@final": "feedc0de"}},
    }
    return make_similarity(**values | changes)


def make_linear(seed=0) -> SimilarityResult:
    changes = {"kernel": "linear", "sigma": None, "scales_rows": None}
    return make_result(seed=seed, scales_columns=None, **changes)


NEW = {
    "errors": (3, 2),
    "minibatch_sizes": (4,),
    "hsic_minibatches": (4, 3, 2),
    "hsic_rows_minibatches": (4, 3),
    "hsic_columns_minibatches": (4, 2),
    "baseline": (5, 3, 2),
}
"""Arrays that results have had since standard errors are computed."""


def make_full(seed=0, **changes) -> SimilarityResult:
    rng = np.random.default_rng(seed)
    values = {name: rng.standard_normal(shape) for name, shape in NEW.items()} | {
        "errors_reason": "of a single minibatch no error can be told",
        "minibatch_sizes": np.array([4, 4, 4, 6]),
        "pool": "mean",
        "label": 3,
        "n_skipped": 2,
        "sources": (1, 4),
    }
    return make_result(seed=seed, **values | changes)


def assert_same(found, wanted):
    for field in fields(SimilarityResult):
        left, right = getattr(found, field.name), getattr(wanted, field.name)
        if field.name not in ("values", "errors", "parts"):
            assert left == right
    assert list(found.arrays) == list(wanted.arrays)
    for name, right in wanted.arrays.items():
        assert found.arrays[name].dtype == (np.int64 if name == "minibatch_sizes" else np.float64)
        np.testing.assert_array_equal(found.arrays[name], right)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "similarity.zarr"


@pytest.mark.parametrize(
    "wanted", [make_result(), make_linear(), make_full()], ids=["rbf", "linear", "full"]
)
def test_round_trip(path, wanted):
    write_result(path, wanted)
    assert_same(read_result(path, "seeds"), wanted)


def test_an_empty_matrix_survives(path):
    empty = np.zeros((0, 2))
    wanted = make_result(
        rows=(), values=empty, hsic=empty, hsic_rows=empty[:, 0], scales_rows=None, reasons=()
    )
    write_result(path, wanted)
    assert_same(read_result(path, "seeds"), wanted)


def test_listing_is_sorted(path):
    for name in ("b", "a"):
        write_result(path, make_result(name))
    assert list_results(path) == ["a", "b"]
    assert has_result(path, "a")
    assert not has_result(path, "c")


def test_a_store_not_there_has_no_result(path):
    assert not has_result(path, "a")
    with pytest.raises(StoreLocationError, match="no store at"):
        list_results(path)


def test_an_unknown_result_is_refused(path):
    write_result(path, make_result())
    with pytest.raises(UnknownResultError, match="holds no result 'depths'; compute it first"):
        read_result(path, "depths")


@pytest.mark.parametrize("name", ["../x", "", ".seeds.partial", "a/b"])
def test_unsafe_names_are_refused(path, name):
    write_result(path, make_result())
    for refuse in (
        lambda: make_result(name),
        lambda: read_result(path, name),
        lambda: has_result(path, name),
    ):
        with pytest.raises(InvalidKeyError, match="cannot be a folder's name"):
            refuse()


@pytest.mark.parametrize("field", ["values", "hsic", "hsic_rows", "hsic_columns", "scales_rows"])
def test_arrays_must_fit_their_keys(field):
    with pytest.raises(SchemaError, match=f"{field} of result seeds has shape \\(1,\\); want"):
        make_result(**{field: np.zeros(1)})


@pytest.mark.parametrize("field", NEW)
def test_newer_arrays_must_fit_as_well(field):
    with pytest.raises(SchemaError, match=f"{field} of result seeds has shape \\(7, 7\\); want"):
        make_full(**{field: np.zeros((7, 7))})


@pytest.mark.parametrize("field", [name for name in NEW if name.startswith("hsic")])
def test_all_sums_have_the_same_minibatches(field):
    with pytest.raises(SchemaError, match=rf"{field} .* has shape \(3.*; want \(4"):
        make_full(**{field: np.zeros((3, *NEW[field][1:]))})


def test_sources_are_two_counts():
    with pytest.raises(SchemaError, match=r"sources of result seeds are \(1,\); want two counts"):
        make_result(sources=(1,))


def test_what_was_not_computed_has_defaults(path):
    write_result(path, make_result())
    found = read_result(path, "seeds")
    assert [found.arrays.get(name) for name in NEW] == [None] * len(NEW)
    assert (found.errors, found.sizes, found.baseline, found.sums("minibatches")) == (None,) * 4
    assert (found.errors_reason, found.pool, found.label) == ("", "whole", None)
    assert (found.n_skipped, found.sources) == (0, (0, 0))


def test_results_of_schema_3_open(path):
    write_result(path, make_full())
    make_older(path / "seeds")
    assert_same(read_result(path, "seeds"), make_full())


def test_results_without_standard_errors_open(path):
    write_result(path, make_full())
    make_older(path / "seeds", forgotten=NEW)
    assert_same(read_result(path, "seeds"), make_result())


FORMER = {
    "values": "cka",
    "errors": "standard_errors",
    "scales_rows": "bandwidths_rows",
    "scales_columns": "bandwidths_columns",
}
"""What arrays were called until schema 3."""


def make_older(folder, forgotten=()):
    """Write a result as schema 3 has it; without what results of 0.1 lack, where that is named."""
    for name in forgotten:
        shutil.rmtree(folder / name)
    for name, former in FORMER.items():
        if (folder / name).exists():
            (folder / name).rename(folder / former)

    def older(attributes):
        facts = attributes["allcnn_result"]
        method = facts.pop("method")
        facts["standard_errors_reason"] = facts.pop("errors_reason")
        facts |= {"sigma": None} | {
            name: value for name, value in method.items() if name in SETTINGS
        }
        for name in ADDED if forgotten else ():
            del facts[name]
        attributes["allcnn_digests"] = {
            FORMER.get(name, name): digest
            for name, digest in attributes["allcnn_digests"].items()
            if name not in forgotten
        }

    edit_attributes(folder, older)


SETTINGS = ("kernel", "sigma", "estimator", "batch_size", "pool")
ADDED = ("standard_errors_reason", "pool", "label", "n_skipped", "sources")
"""Facts that results have had since standard errors are computed."""


def test_malformed_sources_are_noticed(path):
    write_result(path, make_result())
    none = {"sources": None}
    edit_attributes(path / "seeds", lambda attributes: attributes["allcnn_result"].update(none))
    with pytest.raises(SchemaError, match="is malformed"):
        read_result(path, "seeds")


def test_provenance_must_be_json_before_any_work(path):
    with pytest.raises(SchemaError, match=r"result seeds cannot be written: .* not JSON serializ"):
        write_result(path, make_result(provenance={"when": object()}))
    assert not path.exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"provenance": {"size": 10**30}},
        {"provenance": {"by": "\udcff"}},
        {"provenance": {"created_at": 3}},
        {"provenance": {"versions": {"jax": 1}}},
        {"kernel": ""},
        {"sigma": float("inf")},
        {"pool": "max"},
        {"label": -1},
        {"reasons": ((3, 0, "there are three rows"),)},
    ],
    ids=repr,
)
def test_what_could_not_be_read_replaces_nothing(path, changes):
    write_result(path, make_result())
    with pytest.raises(SchemaError, match="result seeds cannot be written: "):
        write_result(path, make_result(seed=1, **changes))
    assert_same(read_result(path, "seeds"), make_result())


def test_replacing(path):
    write_result(path, make_result(seed=0))
    write_result(path, make_result(seed=1))
    assert_same(read_result(path, "seeds"), make_result(seed=1))
    assert sorted(p.name for p in path.iterdir()) == ["seeds", "zarr.json"]


def test_writers_of_the_same_result_do_not_disturb_each_other_nor_a_reader(path):
    wanted = [make_linear(seed) for seed in (0, 1)]
    write_result(path, wanted[0])
    with ThreadPoolExecutor(2) as threads:
        writers = [threads.submit(_write_often, path, result) for result in wanted]
        n_read = 0
        while not all(writer.done() for writer in writers):
            found = read_result(path, "seeds")
            assert_same(found, wanted[not np.array_equal(found.sums(), wanted[0].sums())])
            n_read += 1
    for writer in writers:
        writer.result()
    assert n_read > 5
    assert sorted(p.name for p in path.iterdir()) == ["seeds", "zarr.json"]


def test_a_draft_that_another_writer_took_for_a_leftover_is_made_again(path, monkeypatch):
    original, taken = os.open, []

    def late(name, *arguments, **options):
        if not taken and os.path.basename(name).startswith(".seeds."):
            taken.append(name)
            os.rmdir(name)
        return original(name, *arguments, **options)

    monkeypatch.setattr(store.records.records.os, "open", late)
    write_result(path, make_result())
    assert len(taken) == 1
    assert_same(read_result(path, "seeds"), make_result())


def _write_often(path, result):
    for _ in range(30):
        write_result(path, result)


def test_a_disk_that_refuses_keeps_the_old_result_and_no_draft(path, monkeypatch):
    write_result(path, make_result())

    def full(*_):
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr("store.records.records.write_attributes", full)
    with pytest.raises(OSError, match="no space"):
        write_result(path, make_result(seed=1))
    assert_same(read_result(path, "seeds"), make_result())
    assert sorted(p.name for p in path.iterdir()) == ["seeds", "zarr.json"]


def test_a_draft_of_another_result_is_no_draft_of_this(path):
    write_result(path, make_result("b"))
    (path / ".a.b.12-0123abcd.partial").mkdir()
    with pytest.raises(UnknownResultError):
        read_result(path, "a")
    with pytest.raises(UnfinishedError):
        read_result(path, "a.b")


def test_a_kill_leaves_the_old_result_the_new_one_or_none(tmp_path):
    old, new = make_linear(seed=0), make_linear(seed=1)
    write_result(tmp_path / "old", old)
    seen = set()
    for path in kill_series(lambda path: write_result(path, new), tmp_path, tmp_path / "old"):
        seen.add(_what_is_there(path, old, new))
        write_result(path, new)
        assert_same(read_result(path, "seeds"), new)
    assert seen == {"old", "none", "new"}


def _what_is_there(path, old, new):
    if not has_result(path, "seeds"):
        assert list_results(path) == []
        with pytest.raises(UnfinishedError, match="was not finished; compute it again"):
            read_result(path, "seeds")
        return "none"
    found = read_result(path, "seeds")
    which = "old" if np.array_equal(found.sums(), old.sums()) else "new"
    assert_same(found, old if which == "old" else new)
    return which


def test_a_kill_of_the_first_writing_leaves_none(tmp_path):
    wanted = make_linear()
    for path in kill_series(lambda path: write_result(path, wanted), tmp_path, tmp_path / "none"):
        if (path / "zarr.json").exists():
            assert list_results(path) == []
        write_result(path, wanted)
        assert_same(read_result(path, "seeds"), wanted)


def test_a_group_without_its_mark_is_unfinished(path):
    write_result(path, make_result())
    zarr.open_group(path / "seeds", mode="r+").attrs.put({})
    assert list_results(path) == []
    with pytest.raises(UnfinishedError, match=r"result seeds in .* was not finished"):
        read_result(path, "seeds")


@pytest.mark.parametrize("name", ["values", "hsic", "hsic_rows", "scales_columns", *NEW])
def test_damage_is_found(path, name):
    write_result(path, make_full())
    flip_bit(chunk_files(path / "seeds" / name)[0])
    with pytest.raises(DamagedChunkError, match=f"{name} of result seeds in .* compute it again"):
        read_result(path, "seeds")


def test_a_missing_chunk_is_found(path):
    write_result(path, make_result())
    chunk_files(path / "seeds" / "hsic")[0].unlink()
    with pytest.raises(
        DamagedChunkError, match=r"hsic of result seeds in .* is not what was written"
    ):
        read_result(path, "seeds")


def test_a_renamed_result_is_noticed(path):
    write_result(path, make_result())
    (path / "seeds").rename(path / "depths")
    with pytest.raises(SchemaError, match="holds result seeds; rename the folder to that"):
        read_result(path, "depths")


def test_xarray_reads_it(path):
    xarray = pytest.importorskip("xarray")
    write_result(path, make_result())
    with xarray.open_datatree(path, engine="zarr", consolidated=False) as tree:
        cka = tree["seeds"]["values"]
        assert cka.dims == ("row", "column")
        assert list(cka.coords["row"].values) == [
            "net-s0@final:c0",
            "net-s0@final:c1",
            "net-s0@final:c2",
        ]
        value = cka.sel(row="net-s0@final:c2", column="net-s1@final:c1").item()
        assert value == make_result().values[2, 1]


def test_xarray_names_the_newer_dimensions(path):
    xarray = pytest.importorskip("xarray")
    write_result(path, make_full())
    with xarray.open_datatree(path, engine="zarr", consolidated=False) as tree:
        assert {name: tree["seeds"][name].dims for name in NEW} == {
            "errors": ("row", "column"),
            "minibatch_sizes": ("minibatch",),
            "hsic_minibatches": ("minibatch", "row", "column"),
            "hsic_rows_minibatches": ("minibatch", "row"),
            "hsic_columns_minibatches": ("minibatch", "column"),
            "baseline": ("permutation", "row", "column"),
        }


def test_a_newer_store_of_results_is_refused(path):
    mark = {"kind": "similarity", "schema_version": store.SCHEMA_VERSION + 1}
    zarr.create_group(path, attributes={"allcnn_store": mark})
    with pytest.raises(SchemaError, match="install a newer one"):
        write_result(path, make_result())
