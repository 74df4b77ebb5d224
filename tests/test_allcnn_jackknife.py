"""CKA through Grams and sums against the float64 oracle, and its errors against their spread."""

import itertools
from typing import NamedTuple

import numpy as np
import pytest

import store
from allcnn.similarity.derived import kernel_of
from allcnn.similarity.gram import gram
from allcnn.similarity.jackknife import convergence, jackknife
from allcnn.similarity.kernels import KERNELS, Rbf
from allcnn.similarity.measures import Cka, PairSums
from allcnn.similarity.median_distance import median_of_grams
from allcnn.similarity.pair_sums import MinibatchSums, minibatch_sums
from tests.oracles import cka64, jackknife64
from tests.sweeps import every

UNBIASED = Cka()
N = 70
UNEVEN = [(0, 32), (32, 64), (64, 70)]


def taps(mean=0.0, seed=0, widths=(30, 300, 9000), common=12):
    """Return representations of the same examples, with part of their signal in common."""
    signal = np.random.default_rng(99).standard_normal((N, common))
    rng = np.random.default_rng(seed)
    return [
        np.float32(
            signal @ rng.standard_normal((common, p)) / 2
            + 3 * rng.standard_normal((N, p))
            + mean * 4 * np.sign(rng.standard_normal(p))
        )
        for p in widths
    ]


def compare(rows, columns=None, *, ranges=UNEVEN, kernel="linear", estimator="unbiased"):
    def kernel_gram(X, start, stop):
        return gram(X[start:stop]).values

    measure = Cka(estimator)

    def grams(Xs, start, stop):
        Ks = [kernel_gram(X, start, stop) for X in Xs]
        packed = [[store.pack(kernel_gram(X, *span)) for span in ranges] for X in Xs]
        medians = [median_of_grams(own) for own in packed]
        return kernel_of(Ks, KERNELS.find(kernel)(), medians, measure)

    parts = [
        minibatch_sums(
            grams(rows, *span), None if columns is None else grams(columns, *span), measure
        )
        for span in ranges
    ]
    return align(MinibatchSums.stack(parts).total())


class Aligned(NamedTuple):
    matrix: np.ndarray
    reasons: dict[tuple[int, int], str]


def align(sums):
    """Return CKA, and why values are NaN."""
    matrix = UNBIASED.finish(sums)
    missing = [(int(i), int(j)) for i, j in np.argwhere(np.isnan(matrix))]
    return Aligned(matrix, {place: UNBIASED.why_undefined(sums, *place) for place in missing})


@pytest.mark.parametrize(
    ("mean", "kernel", "estimator"),
    every(5, itertools.product([0, 10, 1000], ["linear", "rbf"], ["unbiased", "biased"])),
)
def test_cka_agrees_with_float64_whatever_the_mean_of_the_features(mean, kernel, estimator):
    rows, columns = taps(mean, seed=1), taps(mean, seed=2, widths=(50, 8192))
    wanted = cka64(rows, columns, UNEVEN, kernel=kernel, estimator=estimator)
    found = compare(rows, columns, kernel=kernel, estimator=estimator)
    np.testing.assert_allclose(found.matrix, wanted, rtol=0, atol=1e-5)
    assert found.reasons == {}
    own = compare(rows, kernel=kernel, estimator=estimator).matrix
    wanted = cka64(rows, rows, UNEVEN, kernel=kernel, estimator=estimator)
    np.testing.assert_allclose(own, wanted, rtol=0, atol=1e-5)


def test_float16_activations_agree_with_float64():
    rows = [X.astype(np.float16) for X in taps(10)]
    np.testing.assert_allclose(compare(rows).matrix, cka64(rows, rows, UNEVEN), rtol=0, atol=1e-5)


def test_known_answer_of_three_splits_of_four():
    """HSIC of a split with itself is 1/6 and with a crossing one -1/12 (test_allcnn_pair_sums)."""
    splits = np.array([[0, 0, 1, 1], [1, 1, 0, 0], [0, 1, 1, 0]], np.float32)
    found = compare(list(splits[:, :, None]), ranges=[(0, 4)]).matrix
    np.testing.assert_allclose(found, [[1, 1, -0.5], [1, 1, -0.5], [-0.5, -0.5, 1]], atol=1e-6)


def householder(X, seed, reflections=3):
    rng = np.random.default_rng(seed)
    for _ in range(reflections):
        v = rng.standard_normal(X.shape[1]).astype(np.float32)
        v /= np.linalg.norm(v)
        X = X - 2 * np.outer(X @ v, v)
    return X


CHANGES = {
    "neurons permuted": lambda X: X[:, np.random.default_rng(5).permutation(X.shape[1])],
    "rotated": lambda X: householder(X, seed=6),
    "scaled up": lambda X: X * np.float32(1e8),
    "scaled down": lambda X: X * np.float32(1e-8),
    "shifted": lambda X: X + np.linspace(-50, 50, X.shape[1], dtype=np.float32)[None, :],
    "of spatial shape": lambda X: X.reshape(len(X), 5, 2, -1),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_invariance(change, kernel):
    rows, columns = taps(seed=1), taps(seed=2)
    changed = [CHANGES[change](X) for X in columns]
    np.testing.assert_allclose(
        compare(rows, changed, kernel=kernel).matrix,
        compare(rows, columns, kernel=kernel).matrix,
        rtol=0,
        atol=1e-4,
    )


def test_an_anisotropic_scale_is_no_invariance():
    rows = taps(seed=1)
    stretched = [X * np.linspace(0.01, 4, X.shape[1], dtype=np.float32)[None, :] for X in rows]
    assert np.abs(compare(rows, stretched).matrix - compare(rows).matrix).max() > 0.01


def test_self_comparison_is_symmetric_with_a_diagonal_of_exactly_one():
    matrix = compare(taps()).matrix
    np.testing.assert_array_equal(matrix, matrix.T)
    np.testing.assert_array_equal(matrix.diagonal(), 1)


def test_minibatches_weigh_by_their_examples():
    sums = [
        PairSums(np.array([[n * cross]]), np.array([n * row]), np.array([n * column]), n)
        for n, cross, row, column in [(32, 1.0, 2.0, 4.0), (6, -1.0, 8.0, 1.0)]
    ]
    wanted = (32 * 1.0 - 6 * 1.0) / np.sqrt((32 * 2.0 + 6 * 8.0) * (32 * 4.0 + 6 * 1.0))
    assert align(MinibatchSums.stack(sums).total()).matrix.item() == pytest.approx(
        wanted, rel=1e-15
    )


def test_independent_representations_are_negative_about_half_the_time_and_not_clipped():
    values = []
    for seed in range(40):
        X, Y = (taps(seed=2 * seed + s, widths=(20,), common=0) for s in (0, 1))
        values.append(compare(X, Y, ranges=[(0, 16)]).matrix.item())
    assert 8 < sum(value < 0 for value in values) < 32


def test_values_above_one_are_not_clipped():
    sums = PairSums(np.array([[3.0]]), np.array([2.0]), np.array([2.0]), 8)
    assert align(sums).matrix.item() == pytest.approx(1.5)


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_a_constant_representation_is_nan_with_its_reason(kernel):
    rows = taps(widths=(20, 30))
    constant = np.full((32, 40), 0.1, np.float32)
    Ks = [gram(X[:32]).values for X in (rows[0], constant, rows[1])]
    Ls = Ks[:2]
    if kernel == "rbf":
        Ks, Ls = (kernel_of(side, Rbf(1.0), np.full(len(side), 3.0), UNBIASED) for side in (Ks, Ls))
    found = align(minibatch_sums(Ks, Ls, UNBIASED))
    undefined = {(1, 0), (1, 1), (0, 1), (2, 1)}
    assert {(int(i), int(j)) for i, j in np.argwhere(np.isnan(found.matrix))} == undefined
    assert set(found.reasons) == undefined
    assert found.reasons[1, 0] == (
        "the HSIC of row 1 with itself sums to 0; CKA needs a finite sum above 0"
    )
    assert found.reasons[2, 1].startswith("the HSIC of column 1 with itself sums to 0;")
    assert "row 1 with itself sums to 0 and the HSIC of column 1" in found.reasons[1, 1]


@pytest.mark.parametrize("value", [-0.25, 0.0, np.nan, np.inf])
def test_the_reason_gives_the_sum(value):
    sums = PairSums(np.ones((1, 2)), np.array([2.0]), np.array([value, 2.0]), 8)
    found = align(sums)
    assert np.isnan(found.matrix[0, 0])
    assert found.matrix[0, 1] == 0.5
    assert list(found.reasons) == [(0, 0)]
    assert f"column 0 with itself sums to {value:.6g};" in found.reasons[0, 0]


def test_activations_that_are_not_finite_end_in_nan_with_a_reason():
    rows = taps(widths=(20, 30))
    rows[1][40, 3] = np.nan
    found = compare(rows)
    assert found.matrix[0, 0] == 1
    assert set(found.reasons) == {(0, 1), (1, 0), (1, 1)}
    assert "sums to nan" in found.reasons[1, 0]


# Standard errors


def hsic_parts(rows, columns=None, *, sizes=(16, 24, 20, 32)):
    """Return the sums of consecutive minibatches of the given sizes, linear and unbiased."""
    stops = np.cumsum(sizes)
    Ks, Ls = ([] if Xs is None else [shared_gram(X) for X in Xs] for Xs in (rows, columns))

    def cut(Ks, start, stop):
        return np.stack([K[start:stop, start:stop] for K in Ks])

    return MinibatchSums.stack(
        [
            minibatch_sums(cut(Ks, *span), None if columns is None else cut(Ls, *span), UNBIASED)
            for span in zip(stops - sizes, stops, strict=True)
        ]
    )


def shared_gram(X):
    return np.float32(X) @ np.float32(X).T


def related(n, draws, seed, p=6):
    """Return two lists of representations of n new examples, related where of the same index."""
    rng = np.random.default_rng(seed)
    signal = rng.standard_normal((draws, n, p))
    noise = rng.standard_normal((2, draws, n, p))
    return list(signal + noise[0]), list(signal * np.linspace(0.5, 2, p) + noise[1])


def standard_errors64(parts):
    r, c = parts.cross.shape[1:]
    return np.array(
        [
            [
                jackknife64(
                    parts.cross[:, i, j], parts.rows[:, i], parts.columns[:, j], parts.sizes
                )
                for j in range(c)
            ]
            for i in range(r)
        ]
    )


def test_standard_errors_are_those_of_the_paper():
    parts = hsic_parts(*related(92, 3, seed=0))
    found = jackknife(parts, UNBIASED)
    assert found.reason == ""
    np.testing.assert_allclose(found.values, standard_errors64(parts), rtol=1e-10)
    assert (found.values > 0).all()


def test_equal_minibatches_give_the_textbook_jackknife():
    parts = hsic_parts(*related(96, 2, seed=1), sizes=(16,) * 6)
    deleted = np.stack([align(without(parts, j).total()).matrix for j in range(6)])
    wanted = np.sqrt(5 / 6 * np.square(deleted - deleted.mean(axis=0)).sum(axis=0))
    np.testing.assert_allclose(jackknife(parts, UNBIASED).values, wanted, rtol=1e-10)


def without(parts, j):
    return MinibatchSums.stack([parts[i] for i in range(len(parts)) if i != j])


def test_the_order_of_minibatches_does_not_matter():
    parts = hsic_parts(*related(92, 2, seed=2))
    other = MinibatchSums.stack([parts[j] for j in (2, 0, 3, 1)])
    np.testing.assert_allclose(
        jackknife(other, UNBIASED).values, jackknife(parts, UNBIASED).values, rtol=1e-10
    )


def test_a_representation_agrees_with_itself_without_error():
    values = jackknife(hsic_parts(related(92, 3, seed=3)[0]), UNBIASED).values
    np.testing.assert_array_equal(values.diagonal(), 0)
    np.testing.assert_array_equal(values, values.T)


def simulated(sizes, draws=1000, blocks=5):
    """Return CKA and its standard error for many draws of one related pair."""
    values, errors = [], []
    for seed in range(blocks):
        parts = hsic_parts(*related(sum(sizes), draws // blocks, 10 + seed), sizes=sizes)
        values.append(align(parts.total()).matrix.diagonal())
        errors.append(jackknife(parts, UNBIASED).values.diagonal())
    return np.concatenate(values), np.concatenate(errors)


def test_standard_errors_match_the_true_spread():
    values, errors = simulated((24, 24, 16, 24, 16, 24, 20, 24, 20))
    variances = errors**2
    ratio = variances.mean() / values.var()
    # Relative variance of either part: of the spread of n nearly normal draws, and of the mean.
    n, scatter = len(values), variances.std() / variances.mean()
    assert ratio == pytest.approx(1, abs=4 * np.sqrt(2 / n + scatter**2 / n))
    assert np.mean(np.abs(values - values.mean()) > 3 * errors) < 0.03


def test_error_bars_from_two_minibatches_are_often_too_short():
    """Two values have one degree of freedom: a fifth of draws lie beyond 3 of its deviations."""
    values, errors = simulated((24, 24))
    assert np.mean(np.abs(values - values.mean()) > 3 * errors) > 0.05


def test_a_minibatch_with_an_outlier_does_not_drown_the_others():
    rng = np.random.default_rng(0)
    cross, own = rng.uniform(0.5, 1, (4, 1, 1)), rng.uniform(1, 2, (4, 1))
    cross[1], own[1] = 0.9e20, 1e20
    parts = MinibatchSums(cross, own, own, np.array([8, 8, 6, 8]))
    np.testing.assert_allclose(
        jackknife(parts, UNBIASED).values, standard_errors64(parts), rtol=1e-10
    )


def test_a_single_minibatch_has_no_standard_error():
    found = jackknife(hsic_parts(*related(24, 2, seed=4), sizes=(24,)), UNBIASED)
    assert np.isnan(found.values).all()
    assert found.reason == "there is 1 minibatch; standard errors need 2 or more"


def test_no_minibatch_at_all_is_nan_with_the_reason():
    none = MinibatchSums(
        np.zeros((0, 1, 2)), np.zeros((0, 1)), np.zeros((0, 2)), np.zeros(0, np.int64)
    )
    assert np.isnan(align(none.total()).matrix).all()
    found = jackknife(none, UNBIASED)
    assert np.isnan(found.values).all()
    assert found.values.shape == (1, 2)
    assert found.reason == "there are 0 minibatches; standard errors need 2 or more"
    assert convergence(none, UNBIASED).shape == (0, 1, 2)


def test_a_deletion_that_leaves_nothing_is_nan_with_the_reason():
    parts = hsic_parts(related(92, 2, seed=5)[0])
    dead = np.arange(4) != 2
    parts.cross[dead, 1], parts.cross[dead, :, 1] = 0, 0
    parts.rows[dead, 1], parts.columns[dead, 1] = 0, 0
    found = jackknife(parts, UNBIASED)
    np.testing.assert_array_equal(np.isnan(found.values), [[False, True], [True, True]])
    assert found.values[0, 0] == 0
    assert found.reason == (
        "3 of 4 standard errors are missing: without minibatch 2 the HSIC of column 1 with itself"
        " sums to 0; CKA needs a finite sum above 0"
    )


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan])
def test_where_cka_is_not_defined_its_error_is_not_either(value):
    parts = hsic_parts(*related(92, 2, seed=6))
    parts.rows[:, 0] = value
    found = jackknife(parts, UNBIASED)
    np.testing.assert_array_equal(np.isnan(found.values), [[True, True], [False, False]])
    assert found.reason == "2 of 4 standard errors are missing: CKA itself is not defined for 2"


# Convergence


def test_the_convergence_curve_is_cka_of_the_first_minibatches():
    parts = hsic_parts(*related(92, 2, seed=7))
    curve = convergence(parts, UNBIASED)
    for b in range(4):
        first = MinibatchSums.stack([parts[j] for j in range(b + 1)])
        np.testing.assert_array_equal(curve[b], align(first.total()).matrix)
    parts.rows[0, 1] = -1e-3
    assert np.isnan(convergence(parts, UNBIASED)[0, 1]).all()
    assert np.isfinite(convergence(parts, UNBIASED)[1:]).all()
