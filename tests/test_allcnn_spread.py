"""Mean and spread of matrices, against loops over pairs."""

import itertools
import math

import numpy as np
import pytest

from allcnn.similarity.layer_identification import between_networks, spread


def by_loops(values):
    """Return mean and standard deviation of the numbers that are defined, one after the other."""
    there = [float(x) for x in values if not math.isnan(x)]
    mean = sum(there) / len(there) if there else math.nan
    if len(there) < 2:
        return mean, math.nan
    return mean, math.sqrt(sum((x - mean) ** 2 for x in there) / (len(there) - 1))


def test_a_pair_of_different_networks_counts_once():
    rng = np.random.default_rng(0)
    networks, taps = ["a", "b", "c", "d"], ["one", "two", "three"]
    order = rng.permutation(12)
    names = [(network, tap) for network in networks for tap in taps]
    matrix = rng.random((12, 12))
    matrix[3, 7] = np.nan
    # Rows of several networks may stand between one another, taps in their order.
    order = sorted(range(12), key=lambda k: (k % 3, networks.index(names[k][0])))
    shuffled = matrix[np.ix_(order, order)]
    found = between_networks(shuffled, [names[k][0] for k in order], [names[k][1] for k in order])
    assert found.n == 6
    for i, j in itertools.product(range(3), range(3)):
        pairs = [
            by_loops([matrix[3 * a + i, 3 * b + j], matrix[3 * b + i, 3 * a + j]])[0]
            for a, b in itertools.combinations(range(4), 2)
        ]
        mean, deviation = by_loops(pairs)
        assert found.mean[i, j] == pytest.approx(mean, rel=1e-12)
        assert found.deviation[i, j] == pytest.approx(deviation, rel=1e-12)


def test_what_is_not_defined_counts_as_not_there():
    a, b, c = np.ones((2, 2)), np.full((2, 2), 3.0), np.full((2, 2), np.nan)
    b[0, 1] = np.nan
    a[1, 1] = np.nan
    b[1, 1] = np.nan
    found = spread([a, b, c])
    np.testing.assert_array_equal(found.mean, [[2, 1], [2, np.nan]])
    root = math.sqrt(2)
    np.testing.assert_allclose(found.deviation, [[root, np.nan], [root, np.nan]], rtol=1e-15)


def test_one_matrix_has_no_spread():
    found = spread([np.eye(2)])
    np.testing.assert_array_equal(found.mean, np.eye(2))
    assert np.isnan(found.deviation).all()


def test_two_networks_have_a_symmetric_mean_and_no_spread():
    rng = np.random.default_rng(1)
    half = rng.random((6, 6))
    similar = half + half.T
    found = between_networks(similar, ["a"] * 3 + ["b"] * 3, ["one", "two", "three"] * 2)
    assert found.n == 1
    for i, j in itertools.product(range(3), range(3)):
        assert found.mean[i, j] == pytest.approx((similar[i, 3 + j] + similar[j, 3 + i]) / 2)
    assert np.isnan(found.deviation).all()


def test_unlike_networks_have_no_mean():
    with pytest.raises(ValueError, match="give networks of one architecture"):
        between_networks(np.eye(3), ["a", "a", "b"], ["one", "two", "one"])
    with pytest.raises(ValueError, match="there are 1 networks"):
        between_networks(np.eye(2), ["a", "a"], ["one", "two"])
    with pytest.raises(ValueError, match="no matrices to average"):
        spread([])
