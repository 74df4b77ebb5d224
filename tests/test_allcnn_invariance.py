"""Copies of representations that CKA must not tell apart, and one that it must."""

import numpy as np
import pytest

from allcnn.similarity import invariance
from allcnn.similarity.invariance import check_invariance
from allcnn.similarity.kernels import KERNELS
from allcnn.similarity.method import Method
from tests.oracles import cka64

N = 96
MINIBATCHES = Method(batch_size=32)


def representations(n=N):
    """Return layers as a network has them: positive, the last ones of few neurons."""
    rng = np.random.default_rng(0)
    first = np.maximum(rng.standard_normal((n, 5, 4, 6)), 0).astype(np.float32)
    second = np.maximum(first @ rng.standard_normal((6, 8)), 0).astype(np.float32)
    return [first, second, second.mean((1, 2)) + 30]


@pytest.mark.parametrize("kernel", KERNELS.names)
@pytest.mark.parametrize("pool", ["whole", "mean"])
def test_order_scale_and_rotation_leave_cka_as_it_is_and_stretching_does_not(kernel, pool):
    method = Method(kernel=KERNELS.find(kernel)(), pool=pool, batch_size=32)
    plain, checks = check_invariance(representations(), method)
    np.testing.assert_allclose(np.diag(plain), 1, atol=1e-6)
    assert [name for name, check in checks.items() if not check.keeps] == [invariance.CONTROL]
    assert len(checks) == 4
    for check in checks.values():
        if check.keeps:
            assert check.deviation < 1e-4
            np.testing.assert_allclose(check.values, plain, atol=1e-4)
        else:
            assert check.deviation > 0.1
        assert check.deviation == np.abs(check.values - plain).max()


def test_values_are_those_of_the_copies_as_arrays():
    layers = representations()
    ranges = [(start, start + 32) for start in range(0, N, 32)]
    plain, checks = check_invariance(layers, MINIBATCHES)
    np.testing.assert_allclose(plain, cka64(layers, layers, ranges), atol=1e-5)
    stretched = []
    for k, X in enumerate(layers):
        of = invariance._Flat(X, "whole")
        move = invariance._maps(of, (0, k))["stretched"]
        stretched.append(of[:] @ move(np.eye(of.shape[1], dtype=np.float32)))
    wanted = cka64(layers, stretched, ranges)
    np.testing.assert_allclose(checks["stretched"].values, wanted, atol=1e-4)


def test_float64_far_from_zero_is_transformed_in_float64():
    far = [X.astype(np.float64) + 1e8 for X in representations(64)[:2]]
    _, checks = check_invariance(far, MINIBATCHES)
    assert max(check.deviation for check in checks.values() if check.keeps) < 1e-4


def test_masked_representations_are_refused():
    masked = np.ma.masked_equal(representations(32)[0], 0)
    with pytest.raises(ValueError, match="has masked values"):
        check_invariance([masked], MINIBATCHES)


@pytest.mark.parametrize("p", [3, 40, 400])
def test_a_rotation_keeps_all_distances_and_mixes_neurons(p):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((64, p)).astype(np.float32)
    of = invariance._Flat(X, "whole")
    rotate = invariance._maps(of, 1)["rotated"]
    Y = rotate(X)
    np.testing.assert_allclose(Y @ Y.T, X @ X.T, atol=1e-4 * p)
    # The matrix itself, of its rows for unit vectors.
    Q = rotate(np.eye(p, dtype=np.float32)).astype(np.float64)
    np.testing.assert_allclose(Q @ Q.T, np.eye(p), atol=1e-5)
    assert np.abs(Q).max(axis=1).min() < 0.999  # no mere permutation
    energy = np.square(X @ Q - X).sum() / np.square(X).sum()
    assert energy > 0.5


def test_the_control_can_be_undone():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((64, 20)).astype(np.float32)
    stretch = invariance._maps(invariance._Flat(X, "whole"), 1)["stretched"]
    M = stretch(np.eye(20, dtype=np.float32)).astype(np.float64)
    assert np.linalg.cond(M) < 1e12
    assert np.abs(M @ M.T - np.eye(20)).max() > 1


def test_examples_are_read_a_minibatch_at_a_time():
    class Watched:
        def __init__(self, X):
            self.X, self.most = X, 0
            self.shape, self.dtype = X.shape, X.dtype

        def __getitem__(self, rows):
            self.most = max(self.most, rows.stop - rows.start)
            return self.X[rows]

    layers = [Watched(X) for X in representations()]
    check_invariance(layers, MINIBATCHES)
    assert {one.most for one in layers} == {32}


def test_a_layer_that_is_dead_stays_undefined():
    layers = [*representations(), np.zeros((N, 7), np.float32)]
    plain, checks = check_invariance(layers, MINIBATCHES)
    assert np.isnan(plain[3]).all()
    assert all(np.isnan(check.values[3]).all() for check in checks.values())
    assert all(check.deviation < 1e-4 for check in checks.values() if check.keeps)
    _, nothing = check_invariance(layers[3:], MINIBATCHES)
    assert np.isnan(nothing["rotated"].deviation)


def test_halves_are_widened():
    layers = [X.astype(np.float16) for X in representations()]
    _, checks = check_invariance(layers, MINIBATCHES)
    assert all(check.deviation < 1e-4 for check in checks.values() if check.keeps)
