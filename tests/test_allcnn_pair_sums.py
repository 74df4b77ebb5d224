"""HSIC against its definition, and the sums of minibatches against whole float64 sums."""

import functools

import jax
import numpy as np
import pytest

from allcnn.similarity.measures import Cka, PairSums
from allcnn.similarity.pair_sums import (
    MinibatchSums,
    group_sums,
    merged,
    minibatch_sums,
    permuted_sums,
    split_minibatches,
    zero_sums,
)
from tests.oracles import ORACLES, biased_hsic_by_trace, hsic_by_definition, song_hsic
from tests.sweeps import slow

UNBIASED, BIASED = Cka("unbiased"), Cka("biased")
MEASURES = pytest.mark.parametrize("measure", [UNBIASED, BIASED], ids=lambda m: m.estimator)


def hsic(K, L, measure):
    """Return HSIC of two Grams."""
    return minibatch_sums([K], [L], measure).cross.item() / len(K)


def symmetric(n, seed):
    K = np.random.default_rng(seed).standard_normal((n, n))
    return (K + K.T).astype(np.float32)


def grams(m, n, seed=0, p=30):
    X = np.random.default_rng(seed).standard_normal((m, n, p)).astype(np.float32)
    X[:, :, :5] = X[:1, :, :5]  # something in common
    return np.maximum(X, 0) @ np.maximum(X, 0).transpose(0, 2, 1)


def assert_sums_equal(found, wanted, rtol):
    scale = np.sqrt(wanted.rows[:, None] * wanted.columns[None, :])
    np.testing.assert_allclose(found.cross / scale, wanted.cross / scale, rtol=0, atol=rtol)
    np.testing.assert_allclose(found.rows, wanted.rows, rtol=rtol)
    np.testing.assert_allclose(found.columns, wanted.columns, rtol=rtol)
    assert found.n_examples == wanted.n_examples


# Definition


@pytest.mark.parametrize("n", [4, 6, 7])
def test_unbiased_hsic_is_the_mean_over_tuples(n):
    K, L = symmetric(n, 1), symmetric(n, 2)
    wanted = hsic_by_definition(K, L)
    assert hsic(K, L, UNBIASED) == pytest.approx(wanted, rel=1e-4, abs=1e-5)
    assert song_hsic(K, L) == pytest.approx(wanted, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("n", [2, 3, 7, 40])
def test_biased_hsic_is_the_trace(n):
    K, L = symmetric(n, 1), symmetric(n, 2)
    assert hsic(K, L, BIASED) == pytest.approx(biased_hsic_by_trace(K, L), rel=1e-4, abs=1e-5)


# Known answers


def split_gram(*ones):
    """Return the linear Gram of one feature that is 1 for two of four examples, else 0."""
    x = np.isin(np.arange(4), ones).astype(np.float32)
    return np.outer(x, x)


@pytest.mark.parametrize(
    ("L", "unbiased", "biased"),
    [
        # K has one pair {2, 3}: K̃ sums to 2, its rows to (0, 0, 1, 1). Hx is ±1/2.
        # Itself: tr = 2, 2·2/(3·2) = 2/3, 2/2·|(0,0,1,1)|² = 2; (2 + 2/3 - 2)/4. (4·1/4)²/9.
        (split_gram(2, 3), 1 / 6, 1 / 9),
        # The complement is the same split of the examples: tr = 0, 2/3, 0.
        (split_gram(0, 1), 1 / 6, 1 / 9),
        # The crossing split shares one example: tr = 0, 2/3, 2/2·1. Hx and Hy are orthogonal.
        (split_gram(1, 2), -1 / 12, 0),
        # A constant feature.
        (np.ones((4, 4), np.float32), 0, 0),
    ],
)
def test_known_answers_of_splits_of_four(L, unbiased, biased):
    K = split_gram(2, 3)
    assert hsic(K, L, UNBIASED) == pytest.approx(unbiased, abs=1e-7)
    assert hsic(K, L, BIASED) == pytest.approx(biased, abs=1e-7)


# Invariance


@MEASURES
def test_a_constant_added_to_a_gram_changes_nothing(measure):
    Ks = grams(3, 32)
    assert_sums_equal(
        minibatch_sums(Ks + np.float32(1024), None, measure),
        minibatch_sums(np.float32(Ks + np.float32(1024)) - np.float32(1024), None, measure),
        rtol=1e-6,
    )


def test_unbiased_hsic_ignores_the_diagonal_and_biased_does_not():
    K, L = grams(2, 12)
    shifted = K + 3 * np.eye(12, dtype=np.float32)
    assert hsic(shifted, L, UNBIASED) == pytest.approx(hsic(K, L, UNBIASED), rel=1e-5)
    assert hsic(shifted, L, BIASED) > 1.01 * hsic(K, L, BIASED)


@pytest.mark.parametrize("scale", [1e-30, 1e8, 1e30])
def test_grams_of_any_scale_neither_overflow_nor_vanish(scale):
    Ks = grams(4, 32)
    plain, scaled = (
        minibatch_sums(Ks, None, UNBIASED),
        minibatch_sums(Ks * np.float32(scale), Ks, UNBIASED),
    )
    np.testing.assert_allclose(scaled.cross / np.float32(scale), plain.cross, rtol=1e-5)
    np.testing.assert_allclose(scaled.rows / np.float64(scale) ** 2, plain.rows, rtol=1e-5)
    np.testing.assert_allclose(scaled.columns, plain.columns, rtol=1e-5)


def test_a_constant_gram_adds_exactly_nothing():
    flat = np.full((32, 32), 0.3, np.float32)
    for measure in (UNBIASED, BIASED):
        sums = minibatch_sums([flat, np.zeros_like(flat)], grams(2, 32), measure)
        assert not sums.cross.any()
        assert not sums.rows.any()


@pytest.mark.parametrize("n", [4, 33, slow(256)])
def test_a_representation_alive_for_one_example_adds_exactly_nothing(n):
    """Shifted by that example, all other rows are alike: a_i + a_j, which U-centring makes 0."""
    x = np.full((n, 1), np.float32(0.7))
    x[0] = 0
    assert abs(song_hsic(x @ x.T, x @ x.T)) < 1e-14
    assert not minibatch_sums([x @ x.T], grams(2, n), UNBIASED).cross.any()
    assert minibatch_sums([x @ x.T], grams(2, n), BIASED).cross.all()
    assert not group_sums([x @ x.T], None, UNBIASED).cross.any()


def test_a_faint_signal_beside_a_large_diagonal_is_kept():
    K = grams(1, 32)[0]
    faint = np.eye(32, dtype=np.float32) + np.float32(1e-30) * K
    wanted = minibatch_sums([K], None, UNBIASED).cross
    np.testing.assert_allclose(
        minibatch_sums([faint], None, UNBIASED).cross, 1e-60 * wanted, rtol=1e-4
    )


# Equivalence


@MEASURES
@pytest.mark.parametrize("n", [4, 33, slow(256)])
def test_sums_are_n_times_the_oracle(measure, n):
    Ks, Ls, oracle = grams(3, n, seed=1), grams(2, n, seed=2), ORACLES[measure.estimator]
    wanted = PairSums(
        np.array([[n * oracle(K, L) for L in Ls] for K in Ks]),
        np.array([n * oracle(K, K) for K in Ks]),
        np.array([n * oracle(L, L) for L in Ls]),
        n,
    )
    assert_sums_equal(minibatch_sums(Ks, Ls, measure), wanted, rtol=1e-5)


@MEASURES
def test_a_list_with_itself_equals_the_same_list_twice(measure):
    Ks = grams(4, 40)
    own = minibatch_sums(Ks, None, measure)
    assert_sums_equal(own, minibatch_sums(Ks, Ks.copy(), measure), rtol=1e-6)
    np.testing.assert_array_equal(own.cross, own.cross.T)
    np.testing.assert_array_equal(own.cross.diagonal(), own.rows)
    np.testing.assert_array_equal(own.rows, own.columns)


def test_two_different_lists_of_one_length_are_not_mirrored():
    Ks, Ls = grams(3, 24, seed=1), grams(3, 24, seed=2)
    cross = minibatch_sums(Ks, Ls, UNBIASED).cross
    assert np.abs(cross - cross.T).max() > 0.01 * np.abs(cross).max()
    np.testing.assert_allclose(minibatch_sums(Ls, Ks, UNBIASED).cross, cross.T, rtol=1e-5)


def test_a_list_of_grams_equals_a_stack():
    Ks = grams(3, 24)
    found, wanted = minibatch_sums(list(Ks), None, UNBIASED), minibatch_sums(Ks, None, UNBIASED)
    np.testing.assert_array_equal(found.cross, wanted.cross)


@MEASURES
def test_jitted_equals_eager(measure):
    Ks, Ls = grams(3, 24, seed=1), grams(2, 24, seed=2)
    sums = minibatch_sums(Ks, Ls, measure)
    with jax.disable_jit():
        assert_sums_equal(minibatch_sums(Ks, Ls, measure), sums, rtol=1e-6)


def test_merging_is_associative_and_reduces_in_order():
    parts = [
        minibatch_sums(grams(2, n, seed=n), grams(3, n, seed=n + 1), UNBIASED) for n in (32, 32, 6)
    ]
    a, b, c = parts
    whole = MinibatchSums.stack(parts).total()
    assert_sums_equal(merged(a, merged(b, c)), merged(merged(a, b), c), rtol=1e-14)
    np.testing.assert_array_equal(whole.cross, a.cross + b.cross + c.cross)
    assert whole.n_examples == 70
    assert whole.cross.dtype == np.float64
    np.testing.assert_array_equal(merged(zero_sums(2, 3), a).cross, a.cross)


def test_one_compilation_serves_every_minibatch_of_one_size(caplog):
    with jax.log_compiles():
        minibatch_sums(grams(2, 9), None, UNBIASED)
        assert "_pair_products" in caplog.text
        caplog.clear()
        minibatch_sums(grams(2, 9, seed=1), None, UNBIASED)
        assert "_pair_products" not in caplog.text


def test_parts_keep_minibatches_apart_and_add_up_in_order():
    sums = [
        minibatch_sums(grams(2, n, seed=n), grams(3, n, seed=n + 1), UNBIASED) for n in (8, 8, 6)
    ]
    parts = MinibatchSums.stack(sums)
    assert len(parts) == 3
    assert parts.cross.shape == (3, 2, 3)
    np.testing.assert_array_equal(parts.sizes, [8, 8, 6])
    assert_same_sums(parts[1], sums[1])
    assert_same_sums(parts.total(), functools.reduce(merged, sums))
    joined = MinibatchSums.concatenate(
        [MinibatchSums.stack(sums[:1]), MinibatchSums.stack(sums[1:])]
    )
    assert_same_sums(joined.total(), parts.total())
    np.testing.assert_array_equal(joined.rows, parts.rows)
    np.testing.assert_array_equal(joined.columns, parts.columns)


def assert_same_sums(found, wanted):
    assert_sums_equal(found, wanted, rtol=0)
    np.testing.assert_array_equal(found.cross, wanted.cross)


# Groups of rows


@MEASURES
@pytest.mark.parametrize("g", [4, slow(17), 40])
def test_a_group_is_a_minibatch_of_its_rows(measure, g):
    Ks, Ls, oracle = grams(3, g, seed=1), grams(2, g, seed=2), ORACLES[measure.estimator]
    found = group_sums(Ks, Ls, measure)
    assert_sums_equal(found, minibatch_sums(Ks, Ls, measure), rtol=1e-5)
    wanted = g * np.array([[oracle(K, L) for L in Ls] for K in Ks])
    scale = np.sqrt(found.rows[:, None] * found.columns[None, :])
    np.testing.assert_allclose(found.cross / scale, wanted / scale, rtol=0, atol=1e-12)
    assert found.n_examples == g


@MEASURES
def test_groups_of_a_list_with_itself(measure):
    Ks = grams(3, 31)
    own, twice = group_sums(Ks, None, measure), group_sums(Ks, Ks, measure)
    assert_sums_equal(own, twice, rtol=1e-12)
    np.testing.assert_array_equal(own.cross, own.cross.T)
    np.testing.assert_array_equal(own.cross.diagonal(), own.rows)


@MEASURES
def test_what_examples_of_a_group_have_in_common_does_not_count(measure):
    Ks = np.float64(grams(3, 31))
    wanted = group_sums(Ks, None, measure)
    assert_sums_equal(group_sums(Ks + 1e8, None, measure), wanted, rtol=1e-5)
    assert not group_sums(0 * Ks + 1e8 / 3, None, measure).cross.any()


# Permutations


@MEASURES
@pytest.mark.parametrize("own", [True, False])
def test_permuted_sums_are_those_of_reordered_grams(measure, own):
    Ks = grams(3, 30, seed=1)
    Ls = Ks if own else grams(2, 30, seed=2)
    orders = np.stack([np.random.default_rng(s).permutation(30) for s in range(4)])
    found = permuted_sums(Ks, None if own else Ls, orders, measure)
    assert found.dtype == np.float64
    for order, values in zip(orders, found, strict=True):
        wanted = minibatch_sums(Ks, Ls[:, order][:, :, order], measure)
        scale = np.sqrt(wanted.rows[:, None] * wanted.columns[None, :])
        np.testing.assert_allclose(values / scale, wanted.cross / scale, rtol=0, atol=1e-6)


def test_the_identity_permutes_nothing_whatever_the_scale():
    Ks, Ls = grams(3, 24) * np.float32(1e30), grams(2, 24, seed=1) * np.float32(1e-30)
    found = permuted_sums(Ks, Ls, np.arange(24)[None], UNBIASED)
    np.testing.assert_allclose(found[0], minibatch_sums(Ks, Ls, UNBIASED).cross, rtol=1e-4)


# Independence


def test_unbiased_hsic_of_independent_data_is_negative_half_the_time_and_zero_on_average():
    draws = [
        minibatch_sums(own_kernel(2 * s), own_kernel(2 * s + 1), UNBIASED).cross for s in range(200)
    ]
    values = np.concatenate(draws).ravel()
    assert 0.3 < np.mean(values < 0) < 0.8
    assert abs(values.mean()) < 4 * values.std() / np.sqrt(len(values))


def test_unbiased_hsic_is_unbiased():
    """For linear kernels the true value is |cov(X, Y)|², here |A|²."""
    draws, n = 1000, 8
    A = np.array([[0.5, 0, 0.3], [0, -0.4, 0]], np.float32)
    rng = np.random.default_rng(5)
    X = rng.standard_normal((draws, n, 2)).astype(np.float32)
    Y = X @ A + rng.standard_normal((draws, n, 3)).astype(np.float32)
    Ks, Ls = X @ X.transpose(0, 2, 1), Y @ Y.transpose(0, 2, 1)
    values = minibatch_sums(Ks, Ls, UNBIASED).cross.diagonal() / n
    error = values.std() / np.sqrt(draws)
    assert abs(values.mean() - np.square(A).sum()) < 4 * error
    biased = minibatch_sums(Ks, Ls, BIASED).cross.diagonal() / n
    assert abs(biased.mean() - np.square(A).sum()) > 4 * error


def own_kernel(seed, n=12):
    X = np.random.default_rng(seed).standard_normal((1, n, 3)).astype(np.float32)
    return X @ X.transpose(0, 2, 1)


# Minibatches


@pytest.mark.parametrize(
    ("n", "batch_size", "wanted"),
    [
        (8, 4, [(0, 4), (4, 8)]),
        (10, 4, [(0, 4), (4, 10)]),
        (12, 8, [(0, 8), (8, 12)]),
        (11, 8, [(0, 11)]),
        (4, 256, [(0, 4)]),
        (1028, 256, [(0, 256), (256, 512), (512, 768), (768, 1024), (1024, 1028)]),
        (1027, 256, [(0, 256), (256, 512), (512, 768), (768, 1027)]),
    ],
)
def test_split_minibatches(n, batch_size, wanted):
    assert split_minibatches(n, batch_size) == wanted


@pytest.mark.parametrize("batch_size", [4, 5, 7, 16])
def test_every_example_is_used_exactly_once(batch_size):
    for n in range(4, 60):
        ranges = split_minibatches(n, batch_size)
        assert [row for start, stop in ranges for row in range(start, stop)] == list(range(n))
        assert all(stop - start >= 4 for start, stop in ranges)


# Refusals


def test_refusals():
    three = symmetric(3, 0)
    with pytest.raises(ValueError, match="minibatch has 3 examples; unbiased HSIC needs 4"):
        minibatch_sums([three], None, UNBIASED)
    with pytest.raises(ValueError, match="minibatch has 1 examples; biased HSIC needs 2"):
        minibatch_sums([three[:1, :1]], None, BIASED)
    with pytest.raises(ValueError, match="group has 3 examples; unbiased HSIC needs 4"):
        group_sums(grams(2, 3), None, UNBIASED)
    for orders in (np.zeros((1, 9), int), np.arange(8)[None], np.arange(9)):
        with pytest.raises(ValueError, match="do not reorder 9 examples"):
            permuted_sums(grams(2, 9), None, orders, UNBIASED)
    with pytest.raises(ValueError, match=r"shapes \(5, 5\) and \(6, 6\)"):
        minibatch_sums(grams(2, 5), grams(2, 6), UNBIASED)
    with pytest.raises(
        ValueError, match="estimator is 'debiased'; use unbiased or biased or exact"
    ):
        Cka("debiased")
    with pytest.raises(ValueError, match="there are 3 examples; unbiased HSIC needs 4"):
        split_minibatches(3, 8)
    with pytest.raises(ValueError, match="there are 2 examples a minibatch"):
        split_minibatches(100, 2)
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(1, 3\) do not merge"):
        merged(zero_sums(2, 3), zero_sums(1, 3))
    with pytest.raises(ValueError, match="no sums to merge"):
        MinibatchSums.stack([])
    with pytest.raises(ValueError, match="no sums to merge"):
        MinibatchSums.concatenate([])
