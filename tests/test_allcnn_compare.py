"""Comparisons: the float64 answer from the same stored rows, whoever computes which part of it."""

import errno
import json
import logging
import os
import shutil
import threading
import time
import weakref

import numpy as np
import pytest
import zarr

import store
from allcnn import extract, machine_memory
from allcnn.cluster import backends as start
from allcnn.cluster import cluster as cluster_run
from allcnn.compare import compare, compute, describe, tasks, tile_tasks
from allcnn.compare.tasks import Operand, Way
from allcnn.errors import ComparisonError
from allcnn.settings.extraction import Extraction
from allcnn.settings.selection import Selection
from allcnn.similarity import gram as kernels
from allcnn.similarity import median_distance, pair_sums, tiled_hsic
from allcnn.similarity.pair_sums import MinibatchSums
from allcnn.workspace.paths import Workspace
from store import DamagedChunkError, Grams, StoreLocationError
from store.arrays.reader import Representation
from tests.counting import calls_of
from tests.faults import chunk_files, flip_bit
from tests.networks import (
    ALL,
    RANGES,
    A,
    B,
    C,
    N,
    assert_same_bits,
    compare_one,
    job,
    make_taps,
    methods,
    write_network,
)
from tests.oracles import (
    ORACLES,
    cka64,
    cosine_gram64,
    linear_gram64,
    median_distance64,
    rbf_gram64,
    song_hsic,
)
from tests.refusals import refusing
from tests.sweeps import every, slow

FINAL, INIT, DEEP = (
    Selection("small-d1-v2-s0", "final"),
    Selection("small-d1-v2-s0", "init"),
    Selection("small-d2-v2-s0", "final"),
)
KERNELS = ("linear", "rbf", "cosine")
ESTIMATORS = ("unbiased", "biased", "exact")
WAYS = [(kernel, estimator) for kernel in KERNELS for estimator in ESTIMATORS]


@pytest.fixture(scope="module")
def extracted(trained, tmp_path_factory):
    """Return a workspace of three extracted networks, whose results tests may share."""
    workspace = Workspace.at(tmp_path_factory.mktemp("extracted"))
    (workspace.root / "runs").symlink_to(trained.root / "runs")
    for side in (FINAL, INIT, DEEP):
        extract.extract(
            workspace, Extraction(side.run, side.checkpoint, n_samples=N, batch_size=16)
        )
    return workspace


def arrays(path, side):
    taps = store.open(path).find(run=side.run, checkpoint=side.checkpoint)
    return [tap.read(0, tap.meta.n_samples) for tap in taps]


@pytest.fixture
def small(tmp_path):
    """Return a workspace of two networks of two small taps."""
    return make_small(tmp_path / "small")


def make_small(root, **how):
    workspace = Workspace.at(root)
    workspace.root.mkdir()
    for seed, side in enumerate((A, B)):
        write_network(workspace.activations, side, make_taps(seed), **how)
    return workspace


def test_where_the_result_cannot_be_kept_nothing_is_computed(small, monkeypatch):
    connections = calls_of(monkeypatch, cluster_run, "started")
    with refusing(0, errno.EROFS, small.similarity), pytest.raises(StoreLocationError) as error:
        compare(small, job(A, B))
    assert str(small.similarity) in str(error.value)
    assert os.strerror(errno.EROFS) in str(error.value)
    compare(small, job(A, B))
    (known,) = small.similarity.glob("[!.]*/zarr.json")
    with refusing(0, errno.EROFS, small.similarity):
        compare(small, job(A, B))  # which is known
        with pytest.raises(StoreLocationError, match="use a workspace of your own"):
            compare(small, job(A, B, kernel="cosine"))
    assert len(connections) == 1
    assert [*small.similarity.glob("[!.]*/zarr.json")] == [known]


def test_sums_that_do_not_fit_are_refused_before_any_work(small, monkeypatch):
    monkeypatch.setattr(machine_memory, "host_bytes", lambda: 500)
    with pytest.raises(ComparisonError) as error:
        compare(small, job(A, B, permutations=2))
    # Two copies of 8 minibatches, and two permutations, of 2 x 2 float64 each.
    assert 8 * 4 * (2 * 8 + 2) > 500
    assert "over 8 minibatches takes at least 576 bytes of memory" in str(error.value)
    assert not store.has_store(small.grams)
    monkeypatch.setattr(machine_memory, "host_bytes", lambda: 8 * 4 * (2 * 8 + 2))
    compare(small, job(A, B, permutations=2))


# Oracles


@pytest.mark.parametrize(
    ("kernel", "estimator", "columns"),
    [(*way, DEEP) for way in WAYS] + every(4, [(*way, FINAL) for way in WAYS]),
)
def test_cka_is_the_oracles(extracted, kernel, estimator, columns):
    result = compare_one(extracted, FINAL, columns, kernel=kernel, estimator=estimator)
    sides = [arrays(extracted.activations, side) for side in (FINAL, columns)]
    wanted = cka64(*sides, RANGES, kernel=kernel, estimator=estimator)
    assert result.cka.shape == (10, 10 if columns is FINAL else 17)
    np.testing.assert_allclose(result.cka, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("kernel", "estimator"), [(kernel, "unbiased") for kernel in KERNELS] + [("rbf", "exact")]
)
def test_cka_of_pooled_taps_is_the_oracles(extracted, kernel, estimator):
    how = {"kernel": kernel, "estimator": estimator, "pool": "mean"}
    result = compare_one(extracted, FINAL, DEEP, **how)
    sides = [arrays(extracted.activations, side) for side in (FINAL, DEEP)]
    np.testing.assert_allclose(result.cka, cka64(*sides, RANGES, **how), atol=1e-5, rtol=0)
    assert result.pool == "mean"
    whole = compare_one(extracted, FINAL, DEEP, **how | {"pool": "whole"})
    assert np.abs(whole.cka - result.cka).max() > 0.05


@pytest.mark.parametrize("estimator", ["unbiased", "exact"])
def test_bandwidths_are_a_fraction_of_the_oracles_median(extracted, estimator):
    how = {"kernel": "rbf", "sigma": (0.2, 0.4), "estimator": estimator}
    results = compare(extracted, job(FINAL, DEEP, **how))
    for sigma, result in zip((0.2, 0.4), results, strict=True):
        found = (result.parts["scales_rows"], result.parts["scales_columns"])
        for bandwidths, side in zip(found, (FINAL, DEEP), strict=True):
            stops = np.cumsum(result.sizes)
            ranges = list(zip([0, *stops[:-1]], stops, strict=True))
            Xs = arrays(extracted.activations, side)
            wanted = [sigma * median_distance64(X, ranges) for X in Xs]
            np.testing.assert_allclose(bandwidths, wanted, rtol=1e-5)


@pytest.mark.parametrize("estimator", ["unbiased", "exact"])
def test_many_bandwidths_cost_one_reading_and_change_no_bit(
    small, tmp_path, monkeypatch, estimator
):
    alone = Workspace.at(shutil.copytree(small.root, tmp_path / "alone"))
    how = {"kernel": "rbf", "estimator": estimator}
    owner = Representation if estimator == "exact" else Grams
    monkeypatch.setattr(tile_tasks, "_reference", tile_tasks._reference.__wrapped__)  # and no cache
    for workspace in (small, alone):
        compare_one(workspace, A, B)  # which keeps the Grams
    reads = calls_of(monkeypatch, owner, "read")
    together = compare(small, job(A, B, sigma=(0.2, 0.4, 0.8), **how))
    n_reads = len(reads)
    assert [result.method["sigma"] for result in together] == [0.2, 0.4, 0.8]
    for sigma, result in zip((0.2, 0.4, 0.8), together, strict=True):
        reads.clear()
        single = compare_one(alone, A, B, sigma=(sigma,), **how)
        assert len(reads) == n_reads
        assert single.name == result.name
        assert_same_bits(single, result)
    assert not np.array_equal(together[0].cka, together[1].cka)


def test_a_result_says_what_it_is(extracted):
    result = compare_one(extracted, FINAL, DEEP)
    taps = {
        side: store.open(extracted.activations).find(run=side.run, checkpoint=side.checkpoint)
        for side in (FINAL, DEEP)
    }
    assert [key.tap for key in result.rows] == [tap.key.tap for tap in taps[FINAL]]
    assert [key.tap for key in result.columns] == [tap.key.tap for tap in taps[DEEP]]
    assert (result.n_examples, result.batch_size, "sigma" in result.method) == (N, 8, False)
    assert (result.pool, result.label, result.n_skipped) == ("whole", None, 0)
    assert result.sizes.tolist() == [stop - start for start, stop in RANGES]
    assert result.provenance["checkpoint_digests"] == {
        "rows": {str(FINAL): taps[FINAL][0].meta.checkpoint_digest},
        "columns": {str(DEEP): taps[DEEP][0].meta.checkpoint_digest},
    }
    kept = store.read_result(extracted.similarity, result.name)
    assert_same_bits(kept, result)
    assert kept.provenance == result.provenance


@pytest.mark.parametrize(("kernel", "estimator"), WAYS)
def test_a_network_is_like_itself(extracted, kernel, estimator):
    result = compare_one(extracted, FINAL, FINAL, kernel=kernel, estimator=estimator)
    np.testing.assert_allclose(result.cka.diagonal(), 1, atol=1e-5)
    np.testing.assert_array_equal(result.cka, result.cka.T)


@pytest.mark.parametrize(("kernel", "estimator"), [*WAYS[::3], ("linear", "exact")])
@pytest.mark.parametrize("other", [slow(INIT), DEEP], ids=str)
def test_two_networks_have_no_symmetric_matrix(extracted, kernel, estimator, other):
    how = {"kernel": kernel, "estimator": estimator}
    here = compare_one(extracted, FINAL, other, **how).cka
    there = compare_one(extracted, other, FINAL, **how).cka
    assert np.abs(here[:10, :10] - here[:10, :10].T).max() > 0.05
    # Each is off by some float32 roundings of sums of 8 by 8 products.
    np.testing.assert_allclose(here, there.T, atol=1e-5, rtol=0)


def permuted(X, rng):
    return X.reshape(len(X), -1)[:, rng.permutation(X[0].size)].reshape(X.shape)


def rotated(X, rng):
    """Reflect at three hyperplanes one after the other, which is orthogonal, in float32."""
    flat = X.reshape(len(X), -1)
    for _ in range(3):
        v = rng.standard_normal((flat.shape[1], 1)).astype(np.float32)
        v /= np.linalg.norm(v)
        flat = flat - 2 * (flat @ v) @ v.T
    return flat.reshape(X.shape)


def scaled(X, rng):
    return X * np.float32(rng.uniform(0.01, 100))


@pytest.fixture(scope="module")
def transformed(extracted, tmp_path_factory):
    """Return a workspace of a network and of what each transformation makes of its taps."""
    workspace, rng = Workspace.at(tmp_path_factory.mktemp("transformed")), np.random.default_rng(0)
    taps = store.open(extracted.activations).find(run=FINAL.run, checkpoint=FINAL.checkpoint)
    values = {tap.key.tap: tap.read(0, N) for tap in taps}
    write_network(workspace.activations, A, values)
    for run, transform in zip("bcd", (permuted, rotated, scaled), strict=True):
        changed = {name: transform(X, rng) for name, X in values.items()}
        assert all(not np.allclose(values[name], changed[name]) for name in values)
        write_network(workspace.activations, Selection(run, "final"), changed)
    return workspace


@pytest.mark.parametrize("kernel", KERNELS)
def test_cka_does_not_see_permutations_rotations_and_scales(transformed, kernel):
    whole = compare_one(transformed, ALL, ALL, kernel=kernel).cka
    blocks = whole.reshape(4, 10, 4, 10).swapaxes(1, 2)
    for n in range(1, 4):
        np.testing.assert_allclose(blocks[0, n], blocks[0, 0], atol=1e-4, rtol=0)
        np.testing.assert_allclose(blocks[n, n], blocks[0, 0], atol=1e-4, rtol=0)


@pytest.mark.parametrize(("kernel", "estimator"), [*WAYS[::3], ("rbf", "exact")])
def test_float16_is_compared_as_its_values(tmp_path, kernel, estimator):
    workspace = Workspace.at(tmp_path)
    write_network(workspace.activations, A, make_taps(0, dtype=np.float16))
    write_network(workspace.activations, B, make_taps(1))
    how = {"kernel": kernel, "estimator": estimator}
    sides = [[X.astype(np.float32) for X in arrays(workspace.activations, s)] for s in (A, B)]
    result = compare_one(workspace, A, B, **how)
    np.testing.assert_allclose(result.cka, cka64(*sides, RANGES, **how), atol=1e-5, rtol=0)


# The exact estimator


@pytest.mark.parametrize(
    ("kernel", "tile_rows"),
    [*(("linear", rows) for rows in (4, 13, 33, N)), ("rbf", 13), ("cosine", 7)],
)
def test_exact_is_brute_force_from_tiles_of_any_size(small, monkeypatch, kernel, tile_rows):
    row_bytes = 3 * 2 * 4
    monkeypatch.setattr(compute, "_TILE_BYTES", tile_rows * row_bytes)
    monkeypatch.setattr(median_distance, "BLOCK_ROWS", tile_rows)
    n_rows = []
    read = Representation.read
    monkeypatch.setattr(
        Representation,
        "read",
        lambda self, start, stop: n_rows.append(stop - start) or read(self, start, stop),
    )
    result = compare_one(small, A, B, kernel=kernel, estimator="exact")
    # A sample is read by whole chunks.
    assert max(n_rows) == (max(tile_rows, 16) if kernel == "rbf" else tile_rows)
    sides = [list(make_taps(seed).values()) for seed in (0, 1)]
    wanted = cka64(*sides, RANGES, kernel=kernel, estimator="exact")
    np.testing.assert_allclose(result.cka, wanted, atol=1e-5, rtol=0)
    assert (result.n_examples, result.batch_size) == (N, N)


@pytest.mark.parametrize(
    ("constant", "value"), [("_TILE_ROWS", 7), ("_BLOCK_BYTES", 16 * 4 * 7**2)]
)
def test_every_bound_bounds_the_tiles(small, monkeypatch, constant, value):
    """Four representations of one bandwidth, each with a tile twice in float64."""
    monkeypatch.setattr(compute, constant, value)
    tiles = calls_of(monkeypatch, tiled_hsic, "tile_sums")
    compare_one(small, A, B, estimator="exact")
    sizes = {K.shape[1:] for K, *_ in tiles}
    assert max(sizes) == (7, 7)
    # Ten spans of 66 rows, and their pairs.
    assert len(tiles) == 10 * 11 // 2


def test_exact_does_not_see_the_minibatch_size(small):
    first, second = (
        compare_one(small, A, B, estimator="exact", batch_size=batch_size) for batch_size in (8, 16)
    )
    assert first.name == second.name


def test_exact_needs_no_grams_and_keeps_none(small):
    result = compare_one(small, A, B, estimator="exact", kernel="rbf")
    assert not small.grams.exists()
    assert result.sources == (4, 0)


# One pass, pair by pair, blocks


@pytest.fixture
def three(small):
    """Return a workspace of three networks of two small taps."""
    write_network(small.activations, C, make_taps(2))
    return small


BLOCKS = [slice(0, 2), slice(2, 4), slice(4, 6)]


# What XLA's float32 product rounds to depends on how many matrices it multiplies at once. Sums of
# 100 products err by at most 100 halves of eps, and by some of them where signs are mixed.
ROUNDING = {"unbiased": 1e-6, "biased": 1e-6, "exact": 1e-12}


@pytest.mark.parametrize(("kernel", "estimator"), every(4, WAYS))
def test_one_pass_is_pair_by_pair(three, kernel, estimator):
    how = {"kernel": kernel, "estimator": estimator}
    whole = compare_one(three, ALL, ALL, **how)
    assert [str(key) for key in whole.rows] == [
        f"{run}@final:{tap}" for run in "abc" for tap in ("one", "two")
    ]
    close = {"rtol": 0, "atol": ROUNDING[estimator]}
    for rows, i in zip((A, B), BLOCKS, strict=False):
        for columns, j in zip((A, C), BLOCKS[::2], strict=True):
            pair = compare_one(three, rows, columns, **how)
            np.testing.assert_allclose(whole.cka[i, j], pair.cka, **close)
            np.testing.assert_allclose(whole.errors[i, j], pair.errors, **close)


@pytest.mark.parametrize(
    ("sides", "block"), [((ALL, ALL), 2), slow(((ALL, ALL), 4)), ((ALL, C), 1)], ids=str
)
def test_blocks_of_representations_are_one_pass(three, tmp_path, monkeypatch, sides, block):
    how = {"kernel": "rbf", "permutations": 3}
    blockwise = Workspace.at(shutil.copytree(three.root, tmp_path / "blockwise"))
    wanted = compare(three, job(*sides, **how))
    added = calls_of(monkeypatch, tasks, "_add_minibatch")
    # Both sides of a block, as Grams, kernels and features, of the largest minibatch.
    monkeypatch.setattr(compute, "_BLOCK_BYTES", block * 2 * 3 * 4 * 10**2)
    found = compare(blockwise, job(*sides, **how))
    assert max(len(grams) for _, sides, *_ in added for grams in sides) == block
    for one, other in zip(wanted, found, strict=True):
        assert one.name == other.name
        np.testing.assert_array_equal(one.sizes, other.sizes)
        for name in ("values", "baseline", "errors"):
            assert_close(one.arrays[name], other.arrays[name], ROUNDING["unbiased"])
        scale = np.sqrt(np.outer(one.sums("rows"), one.sums("columns")))
        assert_close(one.sums() / scale, other.sums() / scale, ROUNDING["unbiased"])


def assert_close(found, wanted, atol):
    np.testing.assert_allclose(found, wanted, rtol=0, atol=atol)


def test_blocks_keep_a_list_with_itself_symmetric(three, monkeypatch):
    monkeypatch.setattr(compute, "_BLOCK_BYTES", 2 * 2 * 3 * 4 * 10**2)
    result = compare_one(three, ALL, ALL)
    np.testing.assert_array_equal(result.cka, result.cka.T)
    np.testing.assert_array_equal(result.cka.diagonal(), 1)
    np.testing.assert_array_equal(result.sums("rows"), result.sums("columns"))
    np.testing.assert_array_equal(result.sums().diagonal(), result.sums("rows"))


@pytest.mark.parametrize("estimator", ["unbiased", slow("biased"), "exact"])
@pytest.mark.parametrize("kernel", ["rbf"])
def test_columns_against_rows_are_rows_against_columns(three, kernel, estimator):
    how = {"kernel": kernel, "estimator": estimator}
    here, there = compare_one(three, ALL, C, **how), compare_one(three, C, ALL, **how)
    assert_close(here.cka, there.cka.T, ROUNDING[estimator])
    np.testing.assert_allclose(here.sums("rows"), there.sums("columns"), rtol=1e-6)


# Classes


LABELS = np.random.default_rng(0).integers(0, 3, N)
"""Of classes 0, 1 and 2, and a class 7 of four rows in a minibatch and one in another."""
LABELS[[16, 20, 25, 31, 40]] = 7
CLASSES = (0, 1, 2, 7)
SIXTEENS = [(0, 16), (16, 32), (32, 48), (48, 66)]


@pytest.fixture
def labelled(tmp_path):
    return make_small(tmp_path / "labelled", labels=LABELS)


def class_cka64(label, kernel, estimator, ranges):
    """Return CKA over the rows of a class in each range that has four, and how many have not."""
    whole = [list(make_taps(seed).values()) for seed in (0, 1)]
    groups = [start + np.flatnonzero(LABELS[start:stop] == label) for start, stop in ranges]
    used = [rows for rows in groups if len(rows) >= 4]
    measure = ORACLES.get(estimator, song_hsic)

    def grams(X):
        sigma = 0.4 * median_distance64(X, None if estimator == "exact" else ranges)
        gram = {
            "linear": linear_gram64,
            "cosine": cosine_gram64,
            "rbf": lambda rows: rbf_gram64(rows, sigma),
        }[kernel]
        return [gram(X[rows]) for rows in used]

    def summed(Ks, Ls):
        return sum(len(K) * measure(K, L) for K, L in zip(Ks, Ls, strict=True))

    rows, columns = ([grams(X) for X in side] for side in whole)
    wanted = [[summed(K, L) / np.sqrt(summed(K, K) * summed(L, L)) for L in columns] for K in rows]
    return np.array(wanted), len(groups) - len(used)


@pytest.mark.parametrize(
    ("kernel", "estimator", "label"),
    every(4, [(*way, 1) for way in WAYS])
    + every(3, [(kernel, "unbiased", 7) for kernel in KERNELS]),
)
def test_a_class_is_the_oracles_of_its_rows(labelled, kernel, estimator, label):
    how = {"kernel": kernel, "estimator": estimator, "batch_size": 16, "label": label}
    ranges = [(0, N)] if estimator == "exact" else SIXTEENS
    wanted, n_skipped = class_cka64(label, kernel, estimator, ranges)
    result = compare_one(labelled, A, B, **how)
    np.testing.assert_allclose(result.cka, wanted, atol=1e-5, rtol=0)
    assert (result.label, result.n_skipped) == (label, n_skipped)
    counts = [np.sum(LABELS[start:stop] == label) for start, stop in ranges]
    assert result.sizes.tolist() == [count for count in counts if count >= 4]
    assert result.n_examples == sum(count for count in counts if count >= 4)


def test_some_classes_are_skipped_in_some_minibatches():
    skipped = [class_cka64(label, "linear", "unbiased", SIXTEENS)[1] for label in CLASSES]
    assert skipped[-1] == 3
    assert 0 in skipped


@pytest.mark.parametrize("tile_rows", [4, 7])
@pytest.mark.parametrize("kernel", KERNELS)
def test_exact_of_a_class_comes_from_tiles_too(labelled, monkeypatch, kernel, tile_rows):
    monkeypatch.setattr(compute, "_TILE_ROWS", tile_rows)
    tiles = calls_of(monkeypatch, tiled_hsic, "tile_sums")
    result = compare_one(labelled, A, B, kernel=kernel, estimator="exact", label=1)
    assert len(tiles) > 1
    assert max(K.shape[1:] for K, *_ in tiles) == (tile_rows, tile_rows)
    wanted, _ = class_cka64(1, kernel, "exact", [(0, N)])
    np.testing.assert_allclose(result.cka, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("estimator", ["unbiased", slow("biased"), "exact"])
def test_each_class_is_what_it_is_alone(labelled, tmp_path, estimator):
    alone = Workspace.at(shutil.copytree(labelled.root, tmp_path / "alone"))
    how = {"kernel": "rbf", "sigma": (0.4, 0.8), "estimator": estimator, "batch_size": 16}
    results = compare(labelled, job(A, B, label="each", **how))
    order = [(sigma, label) for sigma in (0.4, 0.8) for label in CLASSES]
    assert [(result.method["sigma"], result.label) for result in results] == order
    for label in CLASSES:
        singles = compare(alone, job(A, B, label=label, **how))
        for single, result in zip(singles, [r for r in results if r.label == label], strict=True):
            assert single.name == result.name
            assert_same_bits(single, result)


def test_all_classes_come_from_one_reading(labelled, tmp_path, monkeypatch):
    whole = Workspace.at(shutil.copytree(labelled.root, tmp_path / "whole"))
    reads = calls_of(monkeypatch, Grams, "read")
    compare_one(whole, A, B, batch_size=16)
    n_reads = len(reads)
    reads.clear()
    compare(labelled, job(A, B, batch_size=16, label="each"))
    assert len(reads) == n_reads > 0


def test_all_classes_come_from_one_reading_with_exact_too(labelled, monkeypatch):
    monkeypatch.setattr(tile_tasks, "_reference", tile_tasks._reference.__wrapped__)  # and no cache
    reads = calls_of(monkeypatch, Representation, "read")
    compare(labelled, job(A, B, label="each", estimator="exact"))
    # Of each of four taps, its reference row and five chunks of 16 rows.
    assert len(reads) == 4 * (1 + 5)


def test_classes_share_a_reading_as_far_as_a_tile_of_the_whole_would_hold(labelled, monkeypatch):
    monkeypatch.setattr(compute, "_TILE_ROWS", 20)
    held, blocks = [], tile_tasks._blocks

    def watched(*arguments):
        found = blocks(*arguments)
        held.append(sum(map(len, found.values())))
        return found

    monkeypatch.setattr(tile_tasks, "_blocks", watched)
    results = compare(labelled, job(A, B, label="each", estimator="exact"))
    assert max(held) <= 2 * 20
    assert len(held) < 4 * len(CLASSES)
    for result in results:
        wanted, _ = class_cka64(result.label, "linear", "exact", [(0, N)])
        np.testing.assert_allclose(result.cka, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("kernel", "estimator"), every(5, [w for w in WAYS if w[1] != "exact"]))
def test_a_class_is_what_its_selected_rows_are(labelled, kernel, estimator):
    """One minibatch of all rows, so that the class is a sample set of its own."""
    chosen = LABELS == 1
    for seed, side in enumerate((A, B)):
        rows = {name: X[chosen] for name, X in make_taps(seed).items()}
        write_network(labelled.activations, side, rows)
    n = int(chosen.sum())
    how = {"kernel": kernel, "estimator": estimator, "batch_size": N}
    part = compare_one(
        labelled, A, B, label=1, sample_set="digits-test-66-01234567", sigma=(0.4,), **how
    )
    if kernel == "rbf":  # its median distance is that of all rows
        assert part.n_examples == n
        return
    selected = compare_one(labelled, A, B, sample_set=f"digits-test-{n}-01234567", **how)
    # Another row is the reference, and a sub-Gram is centred in another order.
    np.testing.assert_allclose(part.cka, selected.cka, atol=1e-5, rtol=0)
    np.testing.assert_allclose(part.sums(), selected.sums(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("estimator", ["unbiased", "exact"])
@pytest.mark.parametrize("label", [3, 11])
def test_an_absent_label_names_those_there(labelled, estimator, label):
    message = (
        rf"^no example of digits-test-66-01234567 has label {label}; its labels are 0, 1, 2, 7$"
    )
    with pytest.raises(ComparisonError, match=message):
        compare(labelled, job(A, B, label=label, estimator=estimator))
    assert not labelled.similarity.exists()


def test_a_class_that_is_always_skipped_has_a_reason(labelled):
    result = compare_one(labelled, A, B, label=7, batch_size=4)
    assert np.isnan(result.cka).all()
    assert np.isnan(result.errors).all()
    assert result.n_skipped == 16
    assert result.n_examples == 0
    message = (
        "no minibatch has 4 examples of label 7; use larger minibatches, or the exact estimator"
    )
    assert result.reasons == tuple((i, j, message) for i in range(2) for j in range(2))
    assert_same_bits(result, store.read_result(labelled.similarity, result.name))


def test_exact_of_a_class_of_three_is_refused(tmp_path):
    labels = np.zeros(N, int)
    labels[[1, 30, 60]] = 5
    workspace = make_small(tmp_path / "labelled", labels=labels)
    message = "digits-test-66-01234567 has 3 examples of label 5; HSIC needs 4 or more"
    with pytest.raises(ComparisonError, match=message):
        compare(workspace, job(A, B, label=5, estimator="exact"))


# Standard errors and the baseline


def jackknife_by_deletion(result):
    """Return standard errors from CKA of all minibatches but one (Busing et al. 1999)."""
    cross, sizes = result.sums("minibatches"), result.sizes
    rows, columns = result.sums("rows_minibatches"), result.sums("columns_minibatches")

    def ratio(kept):
        own = np.outer(rows[kept].sum(0), columns[kept].sum(0))
        return cross[kept].sum(0) / np.sqrt(own)

    everything = np.arange(len(sizes))
    theta = ratio(everything)
    h = sizes.sum() / sizes
    deleted = np.array([ratio(everything[everything != j]) for j in everything])
    pseudo = h[:, None, None] * theta - (h[:, None, None] - 1) * deleted
    centre = len(sizes) * theta - np.sum((1 - 1 / h)[:, None, None] * deleted, axis=0)
    return np.sqrt(np.mean((pseudo - centre) ** 2 / (h - 1)[:, None, None], axis=0))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("columns", [FINAL, DEEP], ids=["self", "cross"])
def test_standard_errors_are_those_of_the_stored_minibatches(extracted, kernel, columns):
    result = compare_one(extracted, FINAL, columns, kernel=kernel)
    wanted = jackknife_by_deletion(result)
    # The difference of nearly equal ratios; on the diagonal of self both are 0.
    np.testing.assert_allclose(result.errors, wanted, rtol=1e-9, atol=1e-12)
    assert result.errors_reason == ""
    np.testing.assert_allclose(result.sums("minibatches").sum(0), result.sums(), rtol=1e-12)
    np.testing.assert_allclose(
        result.sums("rows_minibatches").sum(0), result.sums("rows"), rtol=1e-12
    )


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"batch_size": 64}, "there is 1 minibatch; standard errors need 2 or more"),
        (
            {"estimator": "exact"},
            "exact HSIC has a single batch; the jackknife needs minibatches",
        ),
    ],
)
def test_a_single_batch_has_no_standard_error_and_says_why(small, how, reason):
    result = compare_one(small, A, B, **how)
    assert not np.isnan(result.cka).any()
    assert np.isnan(result.errors).all()
    assert result.errors_reason == reason
    kept = store.read_result(small.similarity, result.name)
    assert kept.errors_reason == reason


def test_the_baseline_of_the_unbiased_estimator_is_zero(three):
    """A U-centred Gram sums to 0, and so does the mean over all orders of its products."""
    p = 60
    result = compare_one(three, ALL, ALL, permutations=p)
    assert result.baseline.shape == (p, 6, 6)
    error = result.baseline.std(axis=0, ddof=1) / np.sqrt(p)
    # 21 different entries: one in some thousands of seeds would be beyond 4.5.
    assert (np.abs(result.baseline.mean(axis=0)) < 4.5 * error).all()
    spread = result.baseline.std(axis=0)
    assert (spread > 0).all()
    biased = compare_one(three, ALL, ALL, permutations=p, estimator="biased")
    assert (biased.baseline.mean(axis=0) > 0.1).all()


def test_the_baseline_is_of_shuffled_examples(small):
    """Each minibatch's columns are shuffled within it, and the sums divided as CKA's are."""
    result = compare_one(small, A, B, permutations=2)
    rows, columns = (list(make_taps(seed).values()) for seed in (0, 1))
    for p in range(2):
        orders = [
            start + tasks._permutations(b, stop - start, 2)[p]
            for b, (start, stop) in enumerate(RANGES)
        ]
        order = np.concatenate(orders)
        assert sorted(order) == list(range(N))
        wanted = cka64(rows, [X[order] for X in columns], RANGES)
        np.testing.assert_allclose(result.baseline[p], wanted, atol=1e-5, rtol=0)
    assert not np.array_equal(result.baseline[0], result.baseline[1])


def test_the_baseline_is_the_same_every_time(small, tmp_path):
    again = Workspace.at(shutil.copytree(small.root, tmp_path / "again"))
    how = {"permutations": 3, "kernel": "rbf"}
    first = compare_one(small, A, B, **how)
    assert_same_bits(first, compare_one(again, A, B, **how))
    plain = compare_one(small, A, B, kernel="rbf")
    assert plain.baseline is None
    np.testing.assert_array_equal(plain.cka, first.cka)


# Scheduling


@pytest.mark.parametrize("columns", [A, B], ids=["self", "cross"])
def test_dask_is_a_plain_loop(small, tmp_path, columns):
    result = compare_one(small, A, columns, kernel="rbf", permutations=2)
    grams = str(tmp_path / "grams.zarr")
    sides = []
    for keys in (result.rows, result.columns):
        side = []
        for key in keys:
            gram = store.GramKey(key, "linear", "whole", 8, "float32", "feedc0de")
            tasks.keep_grams(str(small.activations), grams, gram)
            side.append(Operand(gram, store.open_grams(grams)[gram].median_distance))
        sides.append(side)
    way = Way(methods(kernel="rbf", batch_size=8), None, 2)
    rows, others = sides[0], None if columns is A else sides[1]
    (part,) = tasks.pair_parts(grams, rows, others, (0, len(RANGES)), way)
    total = part.sums.total()
    np.testing.assert_array_equal(result.sums("minibatches"), part.sums.cross)
    np.testing.assert_array_equal(result.sums(), total.cross)
    np.testing.assert_array_equal(result.sums("rows"), total.rows)
    np.testing.assert_array_equal(result.sums("columns"), total.columns)
    halves = [
        tasks.pair_parts(grams, rows, others, span, way)[0] for span in ((0, 3), (3, len(RANGES)))
    ]
    both = MinibatchSums.concatenate([half.sums for half in halves])
    np.testing.assert_array_equal(both.cross, part.sums.cross)


@pytest.mark.parametrize(
    ("n_threads", "estimator"), [slow((1, "unbiased")), (2, "unbiased"), (2, "exact")]
)
def test_threads_and_their_order_do_not_change_a_bit(
    extracted, tmp_path, monkeypatch, n_threads, estimator
):
    how = {"kernel": "rbf", "estimator": estimator}
    monkeypatch.setattr(compute, "_TILE_ROWS", 16)
    first, fresh = (Workspace.at(tmp_path / name) for name in ("first", "fresh"))
    for workspace in (first, fresh):
        workspace.root.mkdir()
        workspace.activations.symlink_to(extracted.activations)
    wanted = compare_one(first, FINAL, DEEP, **how)
    monkeypatch.setattr(start, "_THREADS", n_threads)
    lock, n_reads = threading.Lock(), [0]
    read = Representation.read

    def slowed(self, start, stop):
        with lock:
            n_reads[0] += 1
            late = n_reads[0] % 5 == 0
        time.sleep(0.01 * late)  # the order of finishing is another one
        return read(self, start, stop)

    monkeypatch.setattr(Representation, "read", slowed)
    again = compare_one(fresh, FINAL, DEEP, **how)
    assert n_reads[0] > 20
    assert_same_bits(wanted, again)


def test_the_order_of_pairs_does_not_change_a_bit(three, tmp_path, monkeypatch):
    again = Workspace.at(shutil.copytree(three.root, tmp_path / "again"))
    monkeypatch.setattr(compute, "_BLOCK_BYTES", 2 * 2 * 3 * 4 * 10**2)
    first = compare_one(three, ALL, ALL, permutations=2)
    read, lock, left = Grams.read, threading.Lock(), [4]

    def slowed(self, *minibatches):
        with lock:
            left[0] -= 1
            late = left[0] >= 0
        time.sleep(0.1 * late)
        return read(self, *minibatches)

    monkeypatch.setattr(Grams, "read", slowed)
    assert_same_bits(first, compare_one(again, ALL, ALL, permutations=2))
    assert left[0] < 0


@pytest.mark.parametrize("estimator", ["unbiased", "exact"])
def test_the_first_failure_ends_a_comparison(tmp_path, monkeypatch, estimator):
    workspace = Workspace.at(tmp_path)
    write_network(workspace.activations, A, make_taps(n=240, names=map(str, range(20))))
    chunk = workspace.activations / "digits-test-240-01234567/a/final/0/activations"
    flip_bit(chunk_files(chunk)[0])
    monkeypatch.setattr(compute, "_TILE_ROWS", 16)
    done, read = [], Representation.read

    def slowed(self, start, stop):
        rows = read(self, start, stop)
        time.sleep(0.01)
        done.append(start)
        return rows

    monkeypatch.setattr(Representation, "read", slowed)
    with pytest.raises(DamagedChunkError, match="rows 0 to 15 of tap 0 of run a"):
        compare(workspace, job(A, A, estimator=estimator, batch_size=16))
    assert len(done) < 20 * 15 / 2


def test_one_minibatch_of_activations_is_held_a_thread(small, monkeypatch):
    read, lock, alive, most = Representation.read, threading.Lock(), [0], [0]

    def forget():
        with lock:
            alive[0] -= 1

    def watched(self, start, stop):
        X = read(self, start, stop)
        with lock:
            alive[0] += 1
            most[0] = max(most[0], alive[0])
        weakref.finalize(X, forget)
        return X

    monkeypatch.setattr(Representation, "read", watched)
    compare(small, job(A, B))
    assert 1 <= most[0] <= 2
    assert alive[0] == 0


@pytest.mark.parametrize(
    "how",
    [
        {"kernel": "rbf", "permutations": 1},
        {"label": "each", "batch_size": N},
        {"kernel": "rbf", "estimator": "exact"},
    ],
    ids=["whole", "classes", "exact"],
)
def test_one_thread_computes_at_a_time(small, monkeypatch, how):
    monkeypatch.setattr(start, "_THREADS", 4)
    monkeypatch.setattr(compute, "_TILE_ROWS", 16)
    inside, n_calls = threading.Semaphore(1), []

    def alone(function):
        def guarded(*arguments, **options):
            assert inside.acquire(blocking=False)
            try:
                time.sleep(0.002)
                n_calls.append(function)
                return function(*arguments, **options)
            finally:
                inside.release()

        return guarded

    for module, name in [
        *((kernels, name) for name in ("gram", "cross_gram")),
        *((tasks, name) for name in ("kernel_of", "wide_kernel_of")),
        (tile_tasks, "tile_kernel"),
        *((pair_sums, name) for name in ("minibatch_sums", "group_sums", "permuted_sums")),
        (tiled_hsic, "tile_sums"),
    ]:
        monkeypatch.setattr(module, name, alone(getattr(module, name)))
    compare(small, job(A, B, **how))
    assert n_calls


def test_progress_counts_grams_then_pairs(small):
    told = []
    compare(small, job(A, B), lambda *step: told.append(step))
    detail = "a@final with b@final"
    grams = [(done, 4, f"{detail}: Grams") for done in range(1, 5)]
    assert told[:4] == grams
    last = told[4:]
    assert [step[0] for step in last] == list(range(1, len(last) + 1))
    assert {step[1:] for step in last} == {(len(last), f"{detail}: pairs")}


def test_small_minibatches_do_not_reread_their_chunk(small, monkeypatch):
    reads = calls_of(monkeypatch, Representation, "read")
    compare(small, job(A, A, kernel="rbf", batch_size=4))
    # Of each tap: its five chunks, the last with the one before, as its two rows need the four
    # before them; two blocks of rows for their distances.
    assert len(reads) <= 2 * (5 + 2)


# Known results


@pytest.fixture
def n_computed(monkeypatch):
    """Return a list that grows with every minibatch whose HSIC is computed."""
    return calls_of(monkeypatch, pair_sums, "minibatch_sums")


def test_a_known_result_is_read(small, n_computed):
    told = []
    first = compare_one(small, A, B, kernel="rbf")
    assert len(n_computed) == len(RANGES)
    (again,) = compare(small, job(A, B, kernel="rbf"), lambda *step: told.append(step))
    assert len(n_computed) == len(RANGES)
    assert told == [(1, 1, "a@final with b@final: already computed")]
    assert again.name == first.name
    assert_same_bits(first, again)
    assert store.list_results(small.similarity) == [first.name]


def test_another_comparison_is_computed(small):
    """Whatever else is known."""
    settings = [
        {},
        {"kernel": "rbf"},
        {"kernel": "cosine"},
        {"kernel": "rbf", "sigma": (0.8,)},
        {"kernel": "rbf", "sigma": (0.4000000001,)},
        {"estimator": "biased"},
        {"estimator": "exact"},
        {"batch_size": 16},
        {"pool": "mean"},
        {"batch_size": N},
        {"batch_size": N, "label": 3},
        {"batch_size": N, "label": 2},
        {"permutations": 2},
        {"permutations": 1},
        {"rows": B, "columns": A},
        {"columns": A},
        {"columns": Selection("b", "final", "one")},
    ]
    names = set()
    for how in settings:
        told = []
        asked = job(**{"rows": A, "columns": B} | how)
        (result,) = compare(small, asked, lambda *step, told=told: told.append(step))
        assert "already computed" not in told[-1][-1], how
        names.add(result.name)
    assert len(names) == len(settings)
    assert set(store.list_results(small.similarity)) == names


@pytest.mark.parametrize("kernel", ["linear", "cosine"])
def test_sigma_means_nothing_to_kernels_without_it(small, n_computed, kernel):
    names = {compare_one(small, A, B, kernel=kernel, sigma=s).name for s in ((0.4,), (0.8, 0.1))}
    assert len(names) == 1
    assert len(n_computed) == len(RANGES)


def test_spellings_of_the_same_networks_share_what_is_kept(small, monkeypatch):
    compare_one(small, A, B)
    grams = calls_of(monkeypatch, kernels, "gram")
    compare_one(small, Selection("[a]", "fin*"), B)
    assert grams == []


@pytest.mark.parametrize("change", [{"checkpoint_digest": "retrained"}, {"dtype": np.float16}])
def test_other_activations_of_the_same_name_are_computed(small, n_computed, change):
    first = compare_one(small, A, B)
    shutil.rmtree(small.activations)
    how = dict(change)
    dtype = how.pop("dtype", np.float32)
    write_network(small.activations, A, make_taps(0))
    write_network(small.activations, B, make_taps(3, dtype=dtype), **how)
    second = compare_one(small, A, B)
    assert first.name != second.name
    assert len(n_computed) == 2 * len(RANGES)
    assert second.sources == (2, 2)  # the Grams of a are kept, those of b are another's
    sides = [[X.astype(np.float32) for X in arrays(small.activations, s)] for s in (A, B)]
    np.testing.assert_allclose(second.cka, cka64(*sides, RANGES), atol=1e-5, rtol=0)


def test_chunks_of_another_size_give_the_same_bits(small, tmp_path):
    other = make_small(tmp_path / "other", batch_rows=5)
    for kernel, estimator in (*WAYS[::3], ("linear", "exact")):
        results = [
            compare_one(place, A, B, kernel=kernel, estimator=estimator) for place in (small, other)
        ]
        assert results[0].name == results[1].name
        assert_same_bits(*results)


def flip_a_bit_of(result):
    flip_bit(chunk_files(result / "values")[0])


def lose_digests_of(result):
    del zarr.open_group(result, mode="r+").attrs["allcnn_digests"]


@pytest.mark.parametrize("damage", [flip_a_bit_of, lose_digests_of])
def test_a_damaged_result_is_computed_again(small, n_computed, damage):
    first = compare_one(small, A, B)
    damage(small.similarity / first.name)
    again = compare_one(small, A, B)
    assert len(n_computed) == 2 * len(RANGES)
    assert_same_bits(first, again)
    assert_same_bits(first, store.read_result(small.similarity, first.name))


def test_names_of_results_are_always_folders(tmp_path):
    workspace = Workspace.at(tmp_path)
    long, longer = Selection(180 * "a", "final"), Selection(181 * "a", "final")
    for seed, side in enumerate((long, longer)):
        write_network(workspace.activations, side, make_taps(seed))
    sides = [(long, longer), (longer, long), (Selection("*", "*"), Selection("[!b]*", "f?nal"))]
    names = {
        compare_one(workspace, *pair, kernel="rbf", sigma=(1e7,), pool="mean").name
        for pair in sides
    }
    assert set(store.list_results(workspace.similarity)) == names
    assert len(names) == 3


# Damage


@pytest.mark.parametrize("estimator", ["unbiased", "exact"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_damaged_chunk_is_named(small, kernel, estimator):
    chunk = small.activations / "digits-test-66-01234567/b/final/two/activations"
    flip_bit(chunk_files(chunk)[2])
    records, handler = [], logging.Handler()
    handler.emit = records.append
    logging.getLogger("distributed").addHandler(handler)
    try:
        with pytest.raises(DamagedChunkError, match=r"rows 32 to 47 of tap two of run b, .* again"):
            compare(small, job(A, B, kernel=kernel, estimator=estimator))
    finally:
        logging.getLogger("distributed").removeHandler(handler)
    assert [record.getMessage() for record in records] == []
    assert store.list_results(small.similarity) == []


@pytest.mark.parametrize("how", [{"kernel": "rbf"}, {"estimator": "biased"}, {"label": "each"}])
def test_a_damaged_gram_is_named(small, how):
    known = compare_one(small, A, B)
    (damaged,) = [
        grams for grams in store.open_grams(small.grams).find(run="b") if grams.key.of.tap == "two"
    ]
    folder = small.grams / damaged.key.path
    (array,) = [
        path
        for path in folder.iterdir()
        if (path / "c").exists() and path.name not in ("sample", "label")
    ]
    flip_bit(chunk_files(array)[0], 400)
    with pytest.raises(DamagedChunkError, match=r"two.*b.*restore .* again"):
        compare(small, job(A, B, **how))
    assert store.list_results(small.similarity) == [known.name]


# Constant, dead and not finite


def with_dead_tap(value):
    taps = make_taps()
    constant = np.full_like(taps["one"], value)
    return {"one": taps["one"], "dead": constant, "two": taps["two"]}


@pytest.mark.parametrize(
    ("kernel", "estimator", "value"),
    every(
        4,
        [(*way, 0.1) for way in WAYS]
        + [(kernel, "unbiased", value) for kernel in KERNELS for value in (0, 1)],
    ),
)
def test_a_constant_tap_has_no_cka_and_a_reason(tmp_path, kernel, estimator, value):
    workspace = Workspace.at(tmp_path)
    write_network(workspace.activations, A, with_dead_tap(value))
    write_network(workspace.activations, B, make_taps(1))
    result = compare_one(workspace, A, B, kernel=kernel, estimator=estimator)
    assert np.isnan(result.cka).tolist() == [2 * [False], 2 * [True], 2 * [False]]
    assert [(i, j) for i, j, _ in result.reasons] == [(1, 0), (1, 1)]
    if kernel == "rbf":
        wanted = "all examples of a@final:dead are equal: no distance scales the RBF kernel"
    else:
        wanted = "a@final:dead with b@final:one: the HSIC of row 1 with itself sums to 0;"
    assert result.reasons[0][2].startswith(wanted)
    kept = store.read_result(workspace.similarity, result.name)
    assert kept.reasons == result.reasons
    values = json.loads(json.dumps(describe.matrix_json(result), allow_nan=False))
    assert values["matrix"][1] == [None, None]
    assert values["reasons"] == [list(reason) for reason in result.reasons]
    sides = [list(make_taps(seed).values()) for seed in (0, 1)]
    np.testing.assert_allclose(
        np.delete(result.cka, 1, 0),
        cka64(*sides, RANGES, kernel=kernel, estimator=estimator),
        atol=1e-5,
        rtol=0,
    )


@pytest.mark.parametrize("estimator", ["unbiased", "exact"])
@pytest.mark.parametrize("columns", [A, B], ids=["self", "cross"])
def test_a_mostly_dead_tap_has_the_bandwidth_of_its_live_rows(tmp_path, columns, estimator):
    """More than half of the distances are 0; they do not count."""
    workspace, dead = Workspace.at(tmp_path), np.zeros((N, 3), np.float32)
    dead[:9] = np.random.default_rng(0).standard_normal((9, 3))
    write_network(workspace.activations, A, make_taps() | {"sparse": dead})
    write_network(workspace.activations, B, make_taps(1) | {"sparse": dead})
    result = compare_one(workspace, A, columns, kernel="rbf", estimator=estimator)
    ranges = None if estimator == "exact" else RANGES
    wanted = 0.4 * median_distance64(dead, ranges)
    assert result.parts["scales_rows"][2] == pytest.approx(wanted, rel=1e-5)
    first = [*make_taps().values(), dead]
    second = first if columns is A else [*make_taps(1).values(), dead]
    wanted = cka64(first, second, RANGES, kernel="rbf", estimator=estimator)
    np.testing.assert_allclose(result.cka, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kernel", ["linear", "cosine"])
def test_a_mostly_dead_tap_is_the_oracles(tmp_path, kernel):
    """Its rows of zeros have no direction, which the cosine kernel leaves at zero."""
    workspace, dead = Workspace.at(tmp_path), np.zeros((N, 3), np.float32)
    dead[::6] = np.random.default_rng(0).standard_normal((11, 3))
    taps = make_taps() | {"sparse": dead}
    write_network(workspace.activations, A, taps)
    result = compare_one(workspace, A, A, kernel=kernel)
    wanted = cka64(list(taps.values()), list(taps.values()), RANGES, kernel=kernel)
    np.testing.assert_allclose(result.cka, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("kernel", "estimator"), [*WAYS[::3], ("linear", "exact")])
def test_activations_that_are_not_finite_have_a_reason(tmp_path, kernel, estimator):
    workspace = Workspace.at(tmp_path)
    taps = make_taps()
    taps["one"][3] = np.nan
    write_network(workspace.activations, A, taps)
    result = compare_one(workspace, A, A, kernel=kernel, estimator=estimator)
    assert np.isnan(result.cka).tolist() == [[True, True], [True, False]]
    assert all("a@final:one" in text for _, _, text in result.reasons)
    known = compare_one(workspace, A, A, kernel=kernel, estimator=estimator)
    assert_same_bits(result, known)
