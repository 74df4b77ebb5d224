"""Stored results that answer a comparison: exactly what is asked, and never anything else."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

import store
from allcnn.compare import catalogue, compare
from allcnn.compare.catalogue import Catalogue
from allcnn.drawing import figure_files
from allcnn.settings.selection import Selection
from allcnn.workspace.paths import WHOLE, Workspace
from tests.networks import (
    ALL,
    A,
    B,
    C,
    assert_same_bits,
    compare_one,
    job,
    make_taps,
    write_network,
)


def write(workspace, side, seed, **changes):
    n = changes.pop("n", 66)
    taps = make_taps(seed, n=n, names=changes.pop("names", ("one", "two")))
    write_network(workspace.activations, side, taps, labels=np.arange(n) % 2, **changes)


@pytest.fixture
def three(tmp_path):
    """Return a workspace of three networks, one of which has a tap more."""
    workspace = Workspace.at(tmp_path / "three")
    write(workspace, A, 0)
    write(workspace, B, 1)
    write(workspace, C, 2, names=("one", "two", "three"))
    return workspace


def forget(workspace):
    """Remove all activations and Grams: what is left are results."""
    for place in (workspace.activations, workspace.grams):
        shutil.rmtree(place, ignore_errors=True)


def kept(workspace, rows=A, columns=B, **how):
    """Return the stored result of a comparison, or None."""
    found = Catalogue(workspace).results(job(rows, columns, **how))
    assert found is None or len(found) == 1
    return found and found[0]


def test_a_result_is_found_as_it_was_written_also_after_all_else_is_gone(three):
    result = compare_one(three, A, B)
    for _ in range(2):
        found = kept(three)
        assert found.name == result.name
        assert (found.rows, found.columns) == (result.rows, result.columns)
        assert_same_bits(found, result)
        forget(three)


def test_a_workspace_without_results_has_none(tmp_path, three):
    assert kept(Workspace.at(tmp_path / "nowhere")) is None
    assert kept(three) is None


def test_a_result_of_another_kind_is_no_answer(three):
    compare_one(three, A, B)
    for how in (
        {"kernel": "rbf"},
        {"kernel": "cosine"},
        {"estimator": "biased"},
        {"estimator": "exact"},
        {"batch_size": 16},
        {"pool": "mean"},
        {"label": 0},
    ):
        assert kept(three, **how) is None, how
        wanted = compare_one(three, A, B, **how)
        assert kept(three, **how).name == wanted.name
    assert kept(three, sample_set="digits-test-99-01234567") is None


def test_a_result_of_another_bandwidth_is_no_answer(three):
    compare(three, job(A, B, kernel="rbf", sigma=(0.2, 0.4)))
    assert kept(three, kernel="rbf", sigma=(0.8,)) is None
    found = Catalogue(three).results(job(A, B, kernel="rbf", sigma=(0.4, 0.2)))
    assert [result.method["sigma"] for result in found] == [0.4, 0.2]
    assert Catalogue(three).results(job(A, B, kernel="rbf", sigma=(0.4, 0.8))) is None


def test_the_exact_estimate_has_no_minibatches(three):
    result = compare_one(three, A, B, estimator="exact")
    assert kept(three, estimator="exact", batch_size=32).name == result.name


def test_a_block_of_all_pairs_is_what_comparing_the_two_gives(three):
    whole = compare_one(three, ALL, ALL)
    alone = compare_one(three, B, C)
    shutil.rmtree(three.similarity / alone.name)
    forget(three)
    found = kept(three, B, C)
    assert found.name == whole.name
    assert (found.rows, found.columns) == (alone.rows, alone.columns)
    for name in ("values", "hsic", "errors", "hsic_minibatches", "hsic_columns_minibatches"):
        np.testing.assert_allclose(found.arrays[name], alone.arrays[name], rtol=1e-6)
    parts = figure_files.parts_of(found)
    assert parts.cross.shape == (8, 2, 3)
    ratio = parts.total().cross / np.sqrt(np.outer(parts.total().rows, parts.total().columns))
    np.testing.assert_allclose(found.cka, ratio, rtol=1e-12)


def test_rows_and_columns_may_be_exchanged(three):
    result = compare_one(three, C, A)
    found = kept(three, A, C)
    assert (found.rows, found.columns) == (result.columns, result.rows)
    np.testing.assert_array_equal(found.cka, result.cka.T)
    np.testing.assert_array_equal(found.sums("rows"), result.sums("columns"))
    np.testing.assert_array_equal(found.sums("minibatches")[3], result.sums("minibatches")[3].T)
    np.testing.assert_array_equal(
        found.sums("columns_minibatches"), result.sums("rows_minibatches")
    )
    own = compare_one(three, A, C)
    np.testing.assert_allclose(found.cka, own.cka, rtol=1e-6)
    assert kept(three, A, C).name == own.name  # the one that was asked for, where there is one


def test_reasons_go_with_their_entries(three):
    result = compare_one(three, A, C)
    result = replace(result, reasons=((0, 2, "third"), (1, 0, "first")))
    part = catalogue.block_of(result, [1], [0, 2])
    assert part.reasons == ((0, 0, "first"),)
    assert catalogue.exchanged(result).reasons == ((2, 0, "third"), (0, 1, "first"))
    np.testing.assert_array_equal(part.cka, result.cka[[1]][:, [0, 2]])


def test_a_result_of_some_taps_is_no_answer_for_all(three):
    some = replace(A, tap="on*")
    compare_one(three, some, B)
    assert kept(three, A, B) is None
    assert [key.tap for key in kept(three, some, B).rows] == ["one"]
    compare_one(three, A, B)
    found = kept(three, replace(A, tap="tw*"), B)
    assert [key.tap for key in found.rows] == ["two"]
    assert kept(three, replace(A, tap="none"), B) is None


def test_a_pattern_stands_for_all_that_is_stored_now(three):
    whole = compare_one(three, ALL, ALL)
    assert kept(three, ALL, ALL).name == whole.name
    some = Selection("[ab]", "final")
    found = kept(three, some, some)
    assert {key.run for key in found.rows} == {"a", "b"}
    write(three, Selection("d", "final"), 5)
    assert kept(three, ALL, ALL) is None  # of d it says nothing
    assert kept(three, some, some).name == whole.name
    forget(three)
    assert kept(three, ALL, ALL).name == whole.name


@pytest.mark.parametrize("gone", [False, True], ids=["stored", "gone"])
def test_each_side_has_all_that_its_pattern_stands_for(three, gone):
    some = Selection("[ab]", "final")
    compare_one(three, A, B)
    if gone:
        forget(three)
    assert kept(three, some, B) is None
    assert kept(three, A, some) is None
    assert kept(three, some, some) is None


def test_what_has_most_on_both_sides_answers_first(three):
    some = Selection("[ab]", "final")
    whole = compare_one(three, some, some)
    few = compare_one(three, some, B)
    forget(three)
    assert few.provenance["created_at"] >= whole.provenance["created_at"]
    assert kept(three, some, some).name == whole.name


def test_without_what_is_stored_a_pattern_stands_for_the_most(three):
    some = Selection("[ab]", "final")
    whole = compare_one(three, ALL, ALL)
    few = compare_one(three, some, some)
    forget(three)
    assert kept(three, ALL, ALL).name == whole.name
    assert few.provenance["created_at"] >= whole.provenance["created_at"]


def test_the_largest_sample_set_answers_unless_one_is_named(three):
    small = compare_one(three, A, B)
    for seed, side in enumerate((A, B)):
        write(three, side, seed, n=96)
    large = compare_one(three, A, B, sample_set="digits-test-96-01234567")
    assert kept(three).name == large.name
    named = kept(three, sample_set=small.rows[0].sample_set)
    assert named.name == small.name


def test_results_on_training_examples_answer_last(three):
    for seed, side in enumerate((A, B)):
        write(three, side, seed, n=96, split="train")
    trained = compare_one(three, A, B, sample_set="digits-train-96-01234567")
    assert kept(three).name == trained.name
    tested = compare_one(three, A, B)
    assert kept(three).name == tested.name != trained.name


def test_what_was_stored_anew_is_not_answered_by_the_old(three):
    old = compare_one(three, A, B)
    shutil.rmtree(three.activations / "digits-test-66-01234567" / "a")
    shutil.rmtree(three.grams)
    write(three, A, 9, checkpoint_digest="5eed", created_at="2026-03-01T12:00:00+00:00")
    assert kept(three) is None
    new = compare_one(three, A, B)
    assert kept(three).name == new.name != old.name


def test_other_activations_under_the_same_digest_are_not_answered(three):
    compare_one(three, A, B)
    shutil.rmtree(three.activations / "digits-test-66-01234567" / "a")
    shutil.rmtree(three.grams)
    write(three, A, 9)
    assert kept(three) is None


def test_nor_are_they_where_the_checkpoint_is_there(three):
    folder = three.checkpoints_folder("a") / "final"
    folder.mkdir(parents=True)
    digests = {"digests": {"variables": "feedc0de"}}
    (folder / WHOLE).write_text(json.dumps({"custom_metadata": digests}))
    result = compare_one(three, A, B)
    assert kept(three).name == result.name
    shutil.rmtree(three.activations / "digits-test-66-01234567" / "a")
    shutil.rmtree(three.grams)
    assert kept(three).name == result.name
    write(three, A, 9)
    assert kept(three) is None


def test_where_nothing_tells_the_newest_answers(three):
    old = compare_one(three, A, B)
    shutil.rmtree(three.activations / "digits-test-66-01234567" / "a")
    shutil.rmtree(three.grams)
    write(three, A, 9, checkpoint_digest="5eed")
    new = compare_one(three, A, B)
    later = new.provenance | {"created_at": "2027-01-01T00:00:00+00:00"}
    store.write_result(three.similarity, replace(new, provenance=later))
    forget(three)
    assert kept(three).name == new.name
    latest = old.provenance | {"created_at": "2028-01-01T00:00:00+00:00"}
    store.write_result(three.similarity, replace(old, provenance=latest))
    assert kept(three).name == old.name


def test_a_damaged_result_is_passed_over(three):
    older = compare_one(three, ALL, ALL)
    newer = compare_one(three, A, B)
    forget(three)
    (three.similarity / newer.name / "values" / "c" / "0" / "0").write_bytes(b"damaged")
    assert kept(three).name == older.name
    shutil.rmtree(three.similarity / older.name)
    assert kept(three) is None
    (three.similarity / newer.name / "zarr.json").write_text("{}")
    assert kept(three) is None


def test_a_result_that_tells_no_comparison_is_passed_over(three):
    result = compare_one(three, A, B)
    provenance = {name: x for name, x in result.provenance.items() if name != "job"}
    store.write_result(three.similarity, replace(result, provenance=provenance))
    assert kept(three) is None


def test_a_result_of_nothing_is_passed_over(three):
    result = compare_one(three, A, B)
    none, empty = np.zeros(0), np.zeros((0, 0))
    arrays = {"values": empty, "hsic": empty, "hsic_rows": none, "hsic_columns": none}
    nothing = result.with_arrays(arrays, name="nothing", rows=(), columns=())
    store.write_result(three.similarity, nothing)
    assert kept(three).name == result.name


def labels(workspace, *sides, **how):
    asked = job(*sides, **how)
    return Catalogue(workspace).labels(asked, asked.method)


def test_classes_are_found_one_by_one(three):
    assert labels(three, A, A) == []
    compare(three, job(A, A, label="each"))
    compare(three, job(A, B, label=1))
    assert labels(three, A, A) == [0, 1]
    assert labels(three, A, B) == [1]
    assert labels(three, A, A, estimator="biased") == []
    assert kept(three, A, A, label=1).label == 1
    assert kept(three, A, A) is None


def test_several_blocks_of_a_result_read_it_once(three, monkeypatch):
    compare_one(three, ALL, ALL)
    reads = []
    read = store.read_result
    monkeypatch.setattr(store, "read_result", lambda *a: reads.append(a) or read(*a))
    catalogue = Catalogue(three)
    for rows in (A, B, C):
        assert catalogue.results(job(rows, C))
    assert len(reads) == 1
