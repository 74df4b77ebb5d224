"""CKA of arrays, through Grams and sums, against the float64 oracle and its invariances."""

import numpy as np
import pytest

from allcnn.cka import cka
from allcnn.hsic import HsicSums, minibatch_hsic
from allcnn.kernels import gram, median_distance
from tests.oracles import cka64

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
    def bandwidth(X):
        if kernel == "linear":
            return None
        return 0.4 * median_distance(lambda start, stop: X[start:stop], len(X), 32)

    def grams(Xs, start, stop):
        return [gram(X[start:stop], bandwidth(X)) for X in Xs]

    parts = [
        minibatch_hsic(
            grams(rows, *span), None if columns is None else grams(columns, *span), estimator
        )
        for span in ranges
    ]
    return cka(HsicSums.reduce(parts))


@pytest.mark.parametrize("estimator", ["unbiased", "biased"])
@pytest.mark.parametrize("kernel", ["linear", "rbf"])
@pytest.mark.parametrize("mean", [0, 10, 1000])
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
    """HSIC of a split with itself is 1/6 and with a crossing one -1/12 (test_allcnn_hsic)."""
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
        HsicSums(np.array([[n * cross]]), np.array([n * row]), np.array([n * column]), n)
        for n, cross, row, column in [(32, 1.0, 2.0, 4.0), (6, -1.0, 8.0, 1.0)]
    ]
    wanted = (32 * 1.0 - 6 * 1.0) / np.sqrt((32 * 2.0 + 6 * 8.0) * (32 * 4.0 + 6 * 1.0))
    assert cka(HsicSums.reduce(sums)).matrix.item() == pytest.approx(wanted, rel=1e-15)


def test_independent_representations_are_negative_about_half_the_time_and_not_clipped():
    values = []
    for seed in range(40):
        X, Y = (taps(seed=2 * seed + s, widths=(20,), common=0) for s in (0, 1))
        values.append(compare(X, Y, ranges=[(0, 16)]).matrix.item())
    assert 8 < sum(value < 0 for value in values) < 32


def test_values_above_one_are_not_clipped():
    sums = HsicSums(np.array([[3.0]]), np.array([2.0]), np.array([2.0]), 8)
    assert cka(sums).matrix.item() == pytest.approx(1.5)


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_a_constant_representation_is_nan_with_its_reason(kernel):
    rows = taps(widths=(20, 30))
    bandwidth = None if kernel == "linear" else 3.0
    constant = np.full((32, 40), 0.1, np.float32)
    Ks = [gram(X[:32], bandwidth) for X in (rows[0], constant, rows[1])]
    found = cka(minibatch_hsic(Ks, Ks[:2]))
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
    sums = HsicSums(np.ones((1, 2)), np.array([2.0]), np.array([value, 2.0]), 8)
    found = cka(sums)
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
