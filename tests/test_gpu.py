"""The numerical checks once more, on an accelerator: as accurate there as on the CPU."""

import jax
import numpy as np
import pytest

from allcnn.similarity import arrays, gram, gram_backends, pair_sums
from allcnn.similarity.derived import kernel_of
from allcnn.similarity.kernels import Rbf
from allcnn.similarity.measures import Cka
from tests.oracles import (
    ORACLES,
    activations,
    centred,
    cka64,
    cosine_gram64,
    linear_gram64,
    mean_pooled64,
    median_distance64,
    rbf_gram64,
    relative_error,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        jax.default_backend() == "cpu", reason="JAX finds no accelerator: it runs on the CPU"
    ),
]

MEANS = [0, 10, 1000]
RANGES = [(0, 32), (32, 64), (64, 70)]


def network(mean, seed):
    """Return layers of one network, of the examples that all networks share."""
    common = activations(70, (30,), seed=99)
    return [
        np.float32(
            activations(70, shape, mean, seed=seed + i)
            + (common @ activations(30, shape, seed=seed + i).reshape(30, -1)).reshape(70, *shape)
        )
        for i, shape in enumerate([(8, 8, 300), (4, 4, 60), (10,)])
    ]


def align(sums):
    return sums.cross / np.sqrt(sums.rows[:, None] * sums.columns[None, :])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("mean", MEANS)
def test_grams(mean, dtype):
    X = activations(mean=mean, dtype=dtype)
    for kernel, gram64 in (("linear", linear_gram64), ("cosine", cosine_gram64)):
        K = gram.gram(X, kernel).values
        np.testing.assert_array_equal(K, K.T)
        assert relative_error(centred(K), centred(gram64(X))) < 1e-5
    median = median_distance64(X)
    (L,) = kernel_of([gram.gram(X).values], Rbf(0.4), [median], Cka("biased")).values + 1
    # Float16 values lie on a grid: sums of their squares round half to even, time after time.
    atol = 1e-4 if dtype == np.float16 else 1e-5
    np.testing.assert_allclose(L, rbf_gram64(X, 0.4 * median), atol=atol)


# 98,304 columns, as conv1 has: where a float32 sum is longest, and TF32 would be off by 1e-3.
def test_the_gram_of_a_wide_layer_agrees_with_blas():
    A = np.maximum(activations(64, (32 * 32 * 96,)), 0)
    found, wanted = (
        centred(way.gram(A, gram_backends.FAR))
        for way in (gram_backends.backend(), gram_backends.BLAS)
    )
    assert relative_error(found, wanted) < 1e-5


def test_an_array_on_the_device_has_the_same_gram():
    X = activations()
    np.testing.assert_array_equal(gram.gram(jax.device_put(X)).values, gram.gram(X).values)


@pytest.mark.parametrize("mean", MEANS)
def test_pooling(mean):
    X = activations(mean=mean)
    np.testing.assert_allclose(gram.pooled(X, "mean"), mean_pooled64(X), rtol=0, atol=2e-6)


@pytest.mark.parametrize("estimator", ["unbiased", "biased"])
def test_hsic(estimator):
    Ks, Ls = (
        np.stack([gram.gram(activations(shape=(60,), seed=s)).values for s in seeds])
        for seeds in ((0, 1), (2, 3, 4))
    )
    found = pair_sums.minibatch_sums(Ks, Ls, Cka(estimator))
    scale = np.sqrt(found.rows[:, None] * found.columns[None, :])
    wanted = 40 * np.array([[ORACLES[estimator](K, L) for L in Ls] for K in Ks])
    np.testing.assert_allclose(found.cross / scale, wanted / scale, rtol=0, atol=1e-5)


@pytest.mark.parametrize("estimator", ["unbiased", "biased", "exact"])
@pytest.mark.parametrize("kernel", ["linear", "rbf", "cosine"])
@pytest.mark.parametrize("mean", MEANS)
def test_cka_of_two_networks(mean, kernel, estimator):
    rows, columns = network(mean, 10), network(mean, 20)
    found = arrays.cka_matrix(rows, columns, kernel=kernel, estimator=estimator, batch_size=32)
    wanted = cka64(rows, columns, RANGES, kernel=kernel, estimator=estimator)
    np.testing.assert_allclose(found.values, wanted, rtol=0, atol=1e-4)
