"""Comparisons: the float64 answer from the same stored rows, whoever schedules the minibatches."""

import json
import logging
import shutil
import threading
import time
import weakref
from dataclasses import replace

import numpy as np
import pytest
import zarr

import store
from allcnn import cluster, compare, extract, figures, hsic, kernels
from allcnn.compare import Operand
from allcnn.config import Comparison, Extraction, Network
from allcnn.errors import ComparisonError
from allcnn.hsic import HsicSums
from allcnn.workspace import Workspace
from store import DamagedChunkError, SchemaError, Writer
from store.reader import Representation
from tests.faults import chunk_files, flip_bit
from tests.oracles import cka64, median_distance64
from tests.strategies import batches, coordinates, make_meta

N = 66
FINAL, INIT, DEEP = (
    Network("small-d1-v2-s0", "final"),
    Network("small-d1-v2-s0", "init"),
    Network("small-d2-v2-s0", "final"),
)
RANGES = [*((start, start + 8) for start in range(0, 56, 8)), (56, 66)]
"""Minibatches of 8, where chunks hold 16 rows; the last two rows join the minibatch before."""

KERNELS = ("linear", "rbf")
ESTIMATORS = ("unbiased", "biased")
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


def job(rows=FINAL, columns=FINAL, **how):
    return Comparison(rows, columns, **{"batch_size": 8} | how)


def arrays(path, side):
    taps = store.open(path).find(run=side.run, checkpoint=side.checkpoint)
    return [tap.read(0, tap.meta.n_samples) for tap in taps]


def write_network(path, side, taps, *, batch_rows=16, n_committed=None, **changes):
    """Store arrays as the taps of a network, all rows or the first minibatches of them."""
    for index, (tap, values) in enumerate(taps.items()):
        meta = make_meta(
            tap,
            n_samples=len(values),
            batch_rows=batch_rows,
            shape=values.shape[1:],
            dtype=str(values.dtype),
            run=side.run,
            checkpoint=side.checkpoint,
            tap_index=index,
            **changes,
        )
        writer = Writer.open(path, meta, *coordinates(meta))
        for rows in batches(meta, values)[: n_committed and n_committed // batch_rows]:
            writer.append(rows)


A, B = Network("a", "final"), Network("b", "final")


def make_taps(seed=0, n=N, names=("one", "two"), dtype=np.float32):
    rng = np.random.default_rng(seed)
    return {name: np.maximum(rng.standard_normal((n, 3, 2)), 0).astype(dtype) for name in names}


@pytest.fixture
def small(tmp_path):
    """Return a workspace of two networks of two small taps."""
    workspace = Workspace.at(tmp_path)
    for seed, side in enumerate((A, B)):
        write_network(workspace.activations, side, make_taps(seed))
    return workspace


@pytest.mark.parametrize("columns", [FINAL, DEEP], ids=["self", "cross"])
@pytest.mark.parametrize(("kernel", "estimator"), WAYS)
def test_cka_is_the_oracles(extracted, kernel, estimator, columns):
    result = compare.compare(extracted, job(columns=columns, kernel=kernel, estimator=estimator))
    wanted = cka64(
        arrays(extracted.activations, FINAL),
        arrays(extracted.activations, columns),
        RANGES,
        kernel=kernel,
        estimator=estimator,
    )
    assert result.cka.shape == (10, 10 if columns is FINAL else 17)
    np.testing.assert_allclose(result.cka, wanted, atol=1e-5, rtol=0)


def test_bandwidths_are_a_fraction_of_the_oracles_median(extracted):
    result = compare.compare(extracted, job(columns=DEEP, kernel="rbf", sigma=0.4))
    for found, side in ((result.bandwidths_rows, FINAL), (result.bandwidths_columns, DEEP)):
        wanted = [0.4 * median_distance64(X) for X in arrays(extracted.activations, side)]
        np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_small_minibatches_do_not_slow_the_bandwidths(small, monkeypatch):
    read, reads = Representation.read, []
    monkeypatch.setattr(
        Representation, "read", lambda self, *rows: reads.append(rows) or read(self, *rows)
    )
    compare.compare(small, job(A, A, kernel="rbf", batch_size=4))
    # Of each tap: its reference row, all rows for their distances, 16 minibatches.
    assert len(reads) == 2 * (1 + 1 + 16)


def test_a_result_says_what_it_is(extracted):
    result = compare.compare(extracted, job(columns=DEEP))
    taps = {
        side: store.open(extracted.activations).find(run=side.run, checkpoint=side.checkpoint)
        for side in (FINAL, DEEP)
    }
    assert [key.tap for key in result.rows] == [tap.key.tap for tap in taps[FINAL]]
    assert [key.tap for key in result.columns] == [tap.key.tap for tap in taps[DEEP]]
    assert (result.n_examples, result.batch_size, result.sigma) == (N, 8, None)
    assert result.provenance["checkpoint_digests"] == {
        "rows": taps[FINAL][0].meta.checkpoint_digest,
        "columns": taps[DEEP][0].meta.checkpoint_digest,
    }
    kept = store.read_result(extracted.similarity, result.name)
    np.testing.assert_array_equal(kept.cka, result.cka)
    assert kept.provenance == result.provenance


@pytest.mark.parametrize(("kernel", "estimator"), WAYS)
def test_a_network_is_like_itself(extracted, kernel, estimator):
    result = compare.compare(extracted, job(kernel=kernel, estimator=estimator))
    np.testing.assert_allclose(result.cka.diagonal(), 1, atol=1e-5)
    np.testing.assert_array_equal(result.cka, result.cka.T)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("other", [INIT, DEEP], ids=str)
def test_two_networks_have_no_symmetric_matrix(extracted, kernel, other):
    here = compare.compare(extracted, job(FINAL, other, kernel=kernel)).cka
    there = compare.compare(extracted, job(other, FINAL, kernel=kernel)).cka
    assert np.abs(here[:10, :10] - here[:10, :10].T).max() > 0.05
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


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("transform", [permuted, rotated, scaled])
def test_cka_does_not_see(tmp_path, extracted, kernel, transform):
    workspace, rng = Workspace.at(tmp_path), np.random.default_rng(0)
    taps = store.open(extracted.activations).find(run=FINAL.run, checkpoint=FINAL.checkpoint)
    values = {tap.key.tap: tap.read(0, N) for tap in taps}
    changed = {name: transform(X, rng) for name, X in values.items()}
    assert all(not np.allclose(values[name], changed[name]) for name in values)
    write_network(workspace.activations, A, values)
    write_network(workspace.activations, B, changed)
    alike = compare.compare(workspace, job(A, A, kernel=kernel)).cka
    np.testing.assert_allclose(
        compare.compare(workspace, job(A, B, kernel=kernel)).cka, alike, atol=1e-4, rtol=0
    )
    np.testing.assert_allclose(
        compare.compare(workspace, job(B, B, kernel=kernel)).cka, alike, atol=1e-4, rtol=0
    )


def test_float16_is_compared_as_its_values(tmp_path):
    workspace = Workspace.at(tmp_path)
    write_network(workspace.activations, A, make_taps(0, dtype=np.float16))
    write_network(workspace.activations, B, make_taps(1))
    result = compare.compare(workspace, job(A, B))
    wanted = cka64(*(arrays(workspace.activations, side) for side in (A, B)), RANGES)
    np.testing.assert_allclose(result.cka, wanted, atol=1e-5, rtol=0)


SUMS = ("cka", "hsic", "hsic_rows", "hsic_columns")


def assert_same_bits(first, second):
    for name in SUMS:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


@pytest.mark.parametrize("columns", [FINAL, DEEP], ids=["self", "cross"])
def test_dask_is_a_plain_loop(extracted, columns):
    result = compare.compare(extracted, job(columns=columns))
    rows, others = ([Operand(key, None) for key in keys] for keys in (result.rows, result.columns))
    sums = HsicSums.reduce(
        [
            compare.minibatch_sums(
                str(extracted.activations),
                rows,
                None if columns is FINAL else others,
                start,
                stop,
                "unbiased",
            )
            for start, stop in RANGES
        ]
    )
    np.testing.assert_array_equal(result.hsic, sums.cross)
    np.testing.assert_array_equal(result.hsic_rows, sums.rows)
    np.testing.assert_array_equal(result.hsic_columns, sums.columns)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_threads_and_their_order_do_not_change_a_bit(extracted, tmp_path, monkeypatch, n_threads):
    first = compare.compare(extracted, job(columns=DEEP, kernel="rbf"))
    fresh = Workspace.at(tmp_path)
    fresh.activations.symlink_to(extracted.activations)
    monkeypatch.setattr(cluster, "_THREADS", n_threads)
    grams = compare._grams

    def slowed(opened, operands, start, stop):
        time.sleep(0.05 * (start % 16 == 0))  # the order of finishing is another one
        return grams(opened, operands, start, stop)

    monkeypatch.setattr(compare, "_grams", slowed)
    assert_same_bits(first, compare.compare(fresh, job(columns=DEEP, kernel="rbf")))


@pytest.fixture
def n_computed(monkeypatch):
    """Return a list that grows with every minibatch whose HSIC is computed."""
    calls, minibatch_hsic = [], hsic.minibatch_hsic

    def counted(*arguments):
        calls.append(len(arguments))
        return minibatch_hsic(*arguments)

    monkeypatch.setattr(hsic, "minibatch_hsic", counted)
    return calls


def test_a_known_result_is_read(small, n_computed):
    told = []
    first = compare.compare(small, job(A, B, kernel="rbf"))
    assert len(n_computed) == len(RANGES)
    again = compare.compare(small, job(A, B, kernel="rbf"), lambda *step: told.append(step))
    assert len(n_computed) == len(RANGES)
    assert told == [(1, 1, "a@final with b@final: already computed")]
    assert again.name == first.name
    assert_same_bits(first, again)
    assert store.list_results(small.similarity) == [first.name]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"kernel": "rbf"}),
        ({"kernel": "rbf"}, {"kernel": "rbf", "sigma": 0.8}),
        ({"kernel": "rbf"}, {"kernel": "rbf", "sigma": 0.4000000001}),
        ({}, {"estimator": "biased"}),
        ({}, {"batch_size": 16}),
        ({}, {"rows": B, "columns": A}),
        ({}, {"columns": A}),
    ],
)
def test_another_comparison_is_computed(small, n_computed, before, after):
    results = []
    for how in (before, after):
        n_computed.clear()
        results.append(compare.compare(small, job(**{"rows": A, "columns": B} | how)))
        assert len(n_computed) == (4 if "batch_size" in how else len(RANGES))
    assert results[0].name != results[1].name
    assert set(store.list_results(small.similarity)) == {result.name for result in results}


def test_sigma_means_nothing_to_the_linear_kernel(small, n_computed):
    names = {compare.compare(small, job(A, B, sigma=sigma)).name for sigma in (0.4, 0.8)}
    assert len(names) == 1
    assert len(n_computed) == len(RANGES)


@pytest.mark.parametrize("change", [{"checkpoint_digest": "retrained"}, {"dtype": np.float16}])
def test_other_activations_of_the_same_name_are_computed(small, n_computed, change):
    first = compare.compare(small, job(A, B))
    shutil.rmtree(small.activations)
    how = dict(change)
    dtype = how.pop("dtype", np.float32)
    write_network(small.activations, A, make_taps(0))
    write_network(small.activations, B, make_taps(1, dtype=dtype), **how)
    second = compare.compare(small, job(A, B))
    assert first.name != second.name
    assert len(n_computed) == 2 * len(RANGES)


def test_chunks_of_another_size_give_the_same_bits(small, tmp_path):
    other = Workspace.at(tmp_path / "other")
    other.root.mkdir()
    for seed, side in enumerate((A, B)):
        write_network(other.activations, side, make_taps(seed), batch_rows=5)
    for kernel in KERNELS:
        results = [compare.compare(place, job(A, B, kernel=kernel)) for place in (small, other)]
        assert results[0].name == results[1].name
        assert_same_bits(*results)


def flip_a_bit_of(result):
    flip_bit(chunk_files(result / "cka")[0])


def lose_digests_of(result):
    del zarr.open_group(result, mode="r+").attrs["allcnn_digests"]


@pytest.mark.parametrize("damage", [flip_a_bit_of, lose_digests_of])
def test_a_damaged_result_is_computed_again(small, n_computed, damage):
    first = compare.compare(small, job(A, B))
    damage(small.similarity / first.name)
    again = compare.compare(small, job(A, B))
    assert len(n_computed) == 2 * len(RANGES)
    assert_same_bits(first, again)
    assert_same_bits(first, store.read_result(small.similarity, first.name))


def test_names_of_results_are_always_folders(tmp_path):
    workspace = Workspace.at(tmp_path)
    long, longer = Network(180 * "a", "final"), Network(181 * "a", "final")
    for seed, side in enumerate((long, longer)):
        write_network(workspace.activations, side, make_taps(seed))
    names = {
        compare.compare(workspace, job(*sides, kernel="rbf", sigma=1e7)).name
        for sides in ((long, longer), (longer, long))
    }
    assert set(store.list_results(workspace.similarity)) == names
    assert len(names) == 2


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_damaged_chunk_is_named(small, kernel):
    chunk = small.activations / "digits-test-66-01234567/b/final/two/activations"
    flip_bit(chunk_files(chunk)[2])
    records, handler = [], logging.Handler()
    handler.emit = records.append
    logging.getLogger("distributed").addHandler(handler)
    try:
        with pytest.raises(DamagedChunkError, match=r"rows 32 to 47 of tap two of run b, .* again"):
            compare.compare(small, job(A, B, kernel=kernel))
    finally:
        logging.getLogger("distributed").removeHandler(handler)
    assert [record.getMessage() for record in records] == []
    assert not small.similarity.exists()


def test_the_first_failure_ends_a_comparison(tmp_path, monkeypatch):
    workspace = Workspace.at(tmp_path)
    write_network(workspace.activations, A, make_taps(n=240))
    chunk = workspace.activations / "digits-test-240-01234567/a/final/one/activations"
    flip_bit(chunk_files(chunk)[0])
    done, gram = [], compare._gram

    def slow(*arguments):
        X = gram(*arguments)
        time.sleep(0.1)
        done.append(arguments)
        return X

    monkeypatch.setattr(compare, "_gram", slow)
    with pytest.raises(DamagedChunkError, match="rows 0 to 15 of tap one"):
        compare.compare(workspace, job(A, A))
    assert len(done) < 30  # of 60


def test_one_tap_is_held_a_thread(small, monkeypatch):
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
    compare.compare(small, job(A, B))
    assert 1 <= most[0] <= 2
    assert alive[0] == 0


def test_one_thread_computes_at_a_time(small, monkeypatch):
    monkeypatch.setattr(cluster, "_THREADS", 4)
    inside = threading.Semaphore(1)

    def alone(function):
        def guarded(*arguments):
            assert inside.acquire(blocking=False)
            try:
                time.sleep(0.002)
                return function(*arguments)
            finally:
                inside.release()

        return guarded

    for module, name in ((kernels, "gram"), (kernels, "median_distance"), (hsic, "minibatch_hsic")):
        monkeypatch.setattr(module, name, alone(getattr(module, name)))
    compare.compare(small, job(A, B, kernel="rbf"))


def test_progress_ends_with_all_minibatches(small):
    told = []
    compare.compare(small, job(A, B), lambda *step: told.append(step))
    assert told == [(done, len(RANGES), "a@final with b@final") for done in range(1, 9)]


def with_dead_tap(value):
    taps = make_taps()
    constant = np.full_like(taps["one"], value)
    return {"one": taps["one"], "dead": constant, "two": taps["two"]}


@pytest.mark.parametrize("value", [0, 1, 0.1], ids=str)
@pytest.mark.parametrize(("kernel", "estimator"), WAYS)
def test_a_constant_tap_has_no_cka_and_a_reason(tmp_path, kernel, estimator, value):
    workspace = Workspace.at(tmp_path)
    write_network(workspace.activations, A, with_dead_tap(value))
    write_network(workspace.activations, B, make_taps(1))
    result = compare.compare(workspace, job(A, B, kernel=kernel, estimator=estimator))
    assert np.isnan(result.cka).tolist() == [2 * [False], 2 * [True], 2 * [False]]
    assert [(i, j) for i, j, _ in result.reasons] == [(1, 0), (1, 1)]
    wanted = {
        "linear": "a@final:dead with b@final:one: the HSIC of row 1 with itself sums to 0;",
        "rbf": "the median distance between examples of a@final:dead is 0",
    }[kernel]
    assert result.reasons[0][2].startswith(wanted)
    kept = store.read_result(workspace.similarity, result.name)
    assert kept.reasons == result.reasons
    values = json.loads(json.dumps(figures.matrix_json(result), allow_nan=False))
    assert values["matrix"][1] == [None, None]
    assert values["reasons"] == [list(reason) for reason in result.reasons]
    np.testing.assert_allclose(
        np.delete(result.cka, 1, 0),
        cka64(
            list(make_taps().values()),
            list(make_taps(1).values()),
            RANGES,
            kernel=kernel,
            estimator=estimator,
        ),
        atol=1e-5,
        rtol=0,
    )


@pytest.mark.parametrize("columns", [A, B], ids=["self", "cross"])
def test_a_mostly_dead_tap_has_no_bandwidth(tmp_path, columns):
    """More than half of the distances are 0, and so is their median."""
    workspace, dead = Workspace.at(tmp_path), np.zeros((N, 3), np.float32)
    dead[:9] = np.random.default_rng(0).standard_normal((9, 3))
    write_network(workspace.activations, A, make_taps() | {"sparse": dead})
    write_network(workspace.activations, B, make_taps(1) | {"sparse": dead})
    result = compare.compare(workspace, job(A, columns, kernel="rbf"))
    assert result.bandwidths_rows[2] == 0
    assert np.isnan(result.cka).tolist() == [2 * [False] + [True]] * 2 + [3 * [True]]
    why = {(i, j): text for i, j, text in result.reasons}
    assert why[2, 0] == "the median distance between examples of a@final:sparse is 0"
    assert why[0, 2] == f"the median distance between examples of {columns}:sparse is 0"


@pytest.mark.parametrize("kernel", KERNELS)
def test_activations_that_are_not_finite_have_a_reason(tmp_path, kernel):
    workspace = Workspace.at(tmp_path)
    taps = make_taps()
    taps["one"][3] = np.nan
    write_network(workspace.activations, A, taps)
    result = compare.compare(workspace, job(A, A, kernel=kernel))
    assert np.isnan(result.cka).tolist() == [[True, True], [True, False]]
    assert all("a@final:one" in text for _, _, text in result.reasons)


def narrowed(taps, n):
    return {name: X[:n] for name, X in taps.items()}


def test_the_largest_common_sample_set_is_compared(small):
    for n in (20, 40):
        write_network(small.activations, A, narrowed(make_taps(0), n))
        write_network(small.activations, B, narrowed(make_taps(1), n))
    write_network(small.activations, A, make_taps(0, n=80))
    assert compare.compare(small, job(A, B)).n_examples == 66
    assert compare.compare(small, job(A, A)).n_examples == 80
    chosen = job(A, B, sample_set="digits-test-20-01234567")
    assert compare.compare(small, chosen).n_examples == 20


def test_a_sample_set_counts_only_where_it_is_whole(small):
    write_network(small.activations, A, make_taps(0, n=80))
    write_network(small.activations, B, make_taps(1, n=80), n_committed=64)
    assert compare.compare(small, job(A, B)).n_examples == 66
    with pytest.raises(ComparisonError, match="of b@final on digits-test-80-01234567 are unfini"):
        compare.compare(small, job(A, B, sample_set="digits-test-80-01234567"))


def test_different_sample_sets_are_refused_naming_both(tmp_path):
    workspace = Workspace.at(tmp_path)
    write_network(workspace.activations, A, make_taps(n=66))
    write_network(workspace.activations, B, make_taps(n=80))
    named = (
        r"a@final is stored on digits-test-66-01234567, b@final on digits-test-80-01234567{};"
        r" only representations of the same sample set compare: extract both alike"
    )
    with pytest.raises(ComparisonError, match=named.format("")):
        compare.compare(workspace, job(A, B))
    asked = ", and digits-test-66-01234567 was asked for"
    with pytest.raises(ComparisonError, match=named.format(asked)):
        compare.compare(workspace, job(A, B, sample_set="digits-test-66-01234567"))


def test_examples_of_another_digest_are_another_sample_set(small):
    shutil.rmtree(small.activations / "digits-test-66-01234567" / "b")
    meta = make_meta(n_samples=N)
    other = replace(meta.sample_set, digest="ffffffffffffffff")
    key = replace(meta.key, sample_set=other.name, run="b", tap="one")
    values = make_taps()["one"]
    meta = replace(meta, sample_set=other, key=key, shape=(3, 2), batch_rows=N)
    Writer.open(small.activations, meta, *coordinates(meta)).append(values)
    with pytest.raises(ComparisonError, match=r"on digits-test-66-01234567, b@final on .*-ffff"):
        compare.compare(small, job(A, B))


def test_an_absent_network_says_what_to_run(small):
    message = (
        r"holds no activations of c@init; run 'allcnn extract c --checkpoint init --workspace .*'$"
    )
    for sides in ((A, Network("c", "init")), (Network("c", "init"), A)):
        with pytest.raises(ComparisonError, match=message):
            compare.compare(small, job(*sides))


def test_an_unfinished_extraction_says_what_to_run(tmp_path):
    workspace = Workspace.at(tmp_path)
    write_network(workspace.activations, A, make_taps(dtype=np.float16), n_committed=32)
    message = (
        r"the activations of a@final on digits-test-66-01234567 are unfinished in .*;"
        r" run 'allcnn extract a --checkpoint final --split test --samples 66 --batch-size 16"
        r" --dtype float16 --workspace .*'$"
    )
    with pytest.raises(ComparisonError, match=message):
        compare.compare(workspace, job(A, A))
    assert not workspace.similarity.exists()


def test_one_unfinished_tap_is_enough(small):
    taps = make_taps()
    write_network(small.activations, Network("c", "final"), {"one": taps["one"]})
    meta = make_meta("two", n_samples=N, batch_rows=16, shape=(3, 2), run="c", tap_index=1)
    Writer.open(small.activations, meta, *coordinates(meta))
    with pytest.raises(ComparisonError, match=r"activations of c@final on .* are unfinished"):
        compare.compare(small, job(A, Network("c", "final")))


def test_names_that_leave_the_store_find_nothing(small):
    with pytest.raises(ComparisonError, match=r"holds no activations of \.\./a@final"):
        compare.compare(small, job(A, Network("../a", "final")))


def test_no_store_is_said(tmp_path):
    message = rf"nothing is extracted yet in {tmp_path}; run 'allcnn extract {FINAL.run} "
    with pytest.raises(ComparisonError, match=message):
        compare.compare(Workspace.at(tmp_path), job())


def test_a_newer_store_is_said(small):
    mark = {"kind": "activations", "schema_version": 99}
    zarr.open_group(small.activations, mode="r+").attrs["allcnn_store"] = mark
    with pytest.raises(SchemaError, match="has schema version 99, and this package reads up to 1"):
        compare.compare(small, job(A, B))
