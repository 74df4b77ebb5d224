"""Grams, distances and pooling against explicit float64 differences, on every backend."""

import weakref

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import squareform

from allcnn import kernels
from tests.oracles import (
    activations,
    centred,
    cka64,
    cosine_gram64,
    linear_gram64,
    mean_pooled64,
    median_distance64,
    rbf_gram64,
    relative_error,
    song_hsic,
    squared_distances64,
)
from tests.test_allcnn_products import BACKENDS

DTYPES = [np.float16, np.float32, np.float64]
GRAMS64 = {"linear": linear_gram64, "cosine": cosine_gram64}


# XLA's differs from the symmetric one in the product alone: test_allcnn_products compares them.
@pytest.fixture(params=["blas", "symmetric"])
def backend(request, monkeypatch):
    monkeypatch.setattr(kernels, "backend", lambda: BACKENDS[request.param])


def related(X, seed):
    """Return representations with half of their signal in common with X."""
    return (X + activations(X.shape[0], X.shape[1:], seed=seed)).astype(np.float32)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(
    ("mean", "dtype"),
    [
        (0, np.float32),
        (1, np.float32),
        (10, np.float32),
        (1000, np.float32),
        (10, np.float16),
        (1000, np.float64),
    ],
)
@pytest.mark.parametrize("kernel", ["linear", "cosine"])
def test_gram_is_the_gram_of_the_definition_once_centred(kernel, mean, dtype):
    X = activations(mean=mean, dtype=dtype)
    K = kernels.gram(X, kernel)
    assert K.dtype == np.float32
    np.testing.assert_array_equal(K, K.T)
    # 1e-5: float32 sums of 2e4 products, each rounded to 6e-8.
    assert relative_error(centred(K), centred(GRAMS64[kernel](X))) < 1e-5


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("kernel", ["linear", "cosine"])
def test_a_float64_difference_is_taken_before_it_is_narrowed(kernel):
    X = activations(mean=1e6, dtype=np.float64)  # 3e6 ± 3 has 4 bits of spread in float32
    K = kernels.gram(X, kernel)
    assert relative_error(centred(K), centred(GRAMS64[kernel](X))) < 1e-5


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("kernel", ["linear", "cosine", "rbf"])
@pytest.mark.parametrize("mean", [0, 10, 1000])
def test_cka_of_grams_is_within_1e4_of_float64(kernel, mean):
    check_cka(kernel, mean, "whole")


@pytest.mark.parametrize("kernel", ["linear", "cosine", "rbf"])
@pytest.mark.parametrize("mean", [0, 10, 1000])
def test_cka_of_pooled_features_is_within_1e4_of_float64(kernel, mean):
    check_cka(kernel, mean, "mean")


def check_cka(kernel, mean, pool):
    X = activations(mean=mean)
    Y = related(X, seed=3)

    def gram(Z):
        Z = kernels.pooled(Z, pool)
        if kernel != "rbf":
            return kernels.gram(Z, kernel)
        median = kernels.median_distance(lambda start, stop: Z[start:stop], len(Z), 16)
        return kernels.rbf(kernels.gram(Z), 0.4 * median)

    K, L = gram(X), gram(Y)
    found = song_hsic(K, L) / np.sqrt(song_hsic(K, K) * song_hsic(L, L))
    wanted = cka64([X], [Y], [(0, len(X))], kernel=kernel, pool=pool).item()
    assert 0.1 < wanted < 0.95
    assert found == pytest.approx(wanted, abs=1e-4)


@pytest.mark.usefixtures("backend")
def test_cosine_rows_of_zeros_stay_zero_whatever_the_first_row_is():
    X = activations(n=20)
    for zeros in ([0], [3, 4], [0, 3]):
        X[zeros] = 0
        K = kernels.gram(X, "cosine")
        assert relative_error(centred(K), centred(cosine_gram64(X))) < 1e-5
    np.testing.assert_array_equal(kernels.gram(np.zeros_like(X), "cosine"), 0)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("first", [1e-6, 1.0, 1e6])
def test_cosine_ignores_the_lengths_of_rows(first):
    X = activations(n=20)
    lengths = np.geomspace(1e-8, 1e8, 20, dtype=np.float32)
    lengths[0] = first
    K = kernels.gram(X * lengths[:, None, None, None], "cosine")
    assert relative_error(centred(K), centred(cosine_gram64(X))) < 1e-5


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("mean", [0, 10, 1000])
def test_rbf_gram_is_that_of_explicit_differences(mean):
    Xs = [activations(mean=mean, seed=s) for s in (0, 1)]
    sigmas = [0.4 * median_distance64(Xs[0]), 0.2 * median_distance64(Xs[1])]
    Ks = np.stack([kernels.gram(X) for X in Xs])
    Ls = kernels.rbf(Ks, np.array(sigmas))
    assert Ls.dtype == np.float32
    for X, sigma, K, L in zip(Xs, sigmas, Ks, Ls, strict=True):
        np.testing.assert_array_equal(L, L.T)
        np.testing.assert_array_equal(L.diagonal(), 1)
        np.testing.assert_allclose(L, rbf_gram64(X, sigma), atol=1e-5)
        np.testing.assert_array_equal(kernels.rbf(K, sigma), L)


def test_rbf_broadcasts_its_bandwidths():
    Ks = np.stack([kernels.gram(activations(shape=(9,), seed=s)) for s in (0, 1)])
    pairs = kernels.rbf(Ks[:, None], np.array([1.0, 2.0, 3.0]))
    assert pairs.shape == (2, 3, 40, 40)
    np.testing.assert_array_equal(pairs[1, 2], kernels.rbf(Ks[1], 3.0))
    np.testing.assert_array_equal(kernels.rbf(Ks, 3.0), pairs[:, 2])


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("kernel", ["linear", "cosine"])
@pytest.mark.parametrize("mean", [0, 10, 1000])
def test_tiles_of_one_reference_are_those_of_the_whole(kernel, mean):
    X = activations(mean=mean)
    reference = kernels.mean_row(X[:16])
    spans = [slice(0, 17), slice(17, 40)]
    K = np.block(
        [[kernels.cross_gram(X[a], X[b], reference, kernel) for b in spans] for a in spans]
    )
    assert relative_error(centred(K), centred(GRAMS64[kernel](X))) < 1e-5
    own = kernels.cross_gram(X, X, reference, kernel)
    np.testing.assert_array_equal(own, own.T)
    # As large as the spread: a Gram that is nearly centred, so that HSIC loses no digits.
    assert np.abs(own).max() < 4 * np.abs(centred(own)).max()


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("mean", [0, 1000])
def test_cross_rbf_is_that_of_explicit_differences_for_each_bandwidth(mean):
    X = activations(mean=mean)
    sigmas = [fraction * median_distance64(X) for fraction in (0.2, 0.4, 0.8)]
    found = kernels.cross_rbf(X[:16], X[16:], kernels.mean_row(X[:9]), sigmas)
    assert found.shape == (3, 16, 24)
    for L, sigma in zip(found, sigmas, strict=True):
        np.testing.assert_allclose(L, rbf_gram64(X, sigma)[:16, 16:], atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mean", [0, 10, 1000])
@pytest.mark.parametrize("shape", [(5, 5, 40), (7, 11), (32, 32, 3)])
def test_pooling_averages_over_space_as_float64_does(shape, mean, dtype):
    X = activations(n=30, shape=shape, mean=mean, dtype=dtype)
    found = kernels.pooled(X, "mean")
    assert found.dtype == np.float64
    assert found.shape == (30, shape[-1])
    # Means of differences of about 10, each rounded to 6e-7.
    np.testing.assert_allclose(found, mean_pooled64(X), rtol=0, atol=2e-6)


@pytest.mark.parametrize("mean", [0, 10, 1000])
def test_pooling_on_a_device_is_as_accurate(mean, monkeypatch):
    monkeypatch.setattr(kernels, "backend", lambda: BACKENDS["symmetric"])
    X = activations(n=30, shape=(32, 32, 3), mean=mean)
    found = kernels.pooled(jnp.asarray(X), "mean")
    np.testing.assert_allclose(found, mean_pooled64(X), rtol=0, atol=2e-6)


def test_pooling_leaves_alone_what_has_no_space_or_is_wanted_whole():
    X = activations(n=4, shape=(3, 3, 2))
    assert kernels.pooled(X, "whole") is X
    logits = activations(n=4, shape=(10,))
    assert kernels.pooled(logits, "mean") is logits


@pytest.mark.parametrize("dtype", DTYPES)
def test_mean_row_is_the_mean_and_of_equal_rows_the_row(dtype):
    X = activations(n=30, shape=(6, 50), mean=10, dtype=dtype)
    found = kernels.mean_row(X)
    assert found.dtype == (np.float64 if dtype == np.float64 else np.float32)
    np.testing.assert_allclose(found, np.float64(X).mean(0).ravel(), rtol=1e-6)
    equal = np.full((7, 5), 0.1, dtype)
    np.testing.assert_array_equal(kernels.mean_row(equal), equal[0])


def test_jax_arrays_are_taken():
    X = activations(n=10, shape=(3, 20))
    np.testing.assert_array_equal(kernels.gram(jnp.asarray(X)), kernels.gram(X))
    np.testing.assert_array_equal(
        kernels.pooled(jnp.asarray(X)[:, None], "mean"), kernels.pooled(X[:, None], "mean")
    )


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("mean", [0, 1000])
def test_cross_squared_distances(mean):
    X = activations(mean=mean, shape=(9000,))
    wanted = squareform(squared_distances64(X))
    np.testing.assert_allclose(
        kernels.cross_squared_distances(X[:25], X[25:]), wanted[:25, 25:], rtol=1e-5
    )
    own = kernels.cross_squared_distances(X, X, X[7])
    np.testing.assert_allclose(own, wanted, atol=1e-5 * wanted.max())


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("mean", [0, 1000])
@pytest.mark.parametrize("block_rows", [1, 16, 40, 64])
def test_median_distance_for_any_tiling(block_rows, mean):
    X = activations(n=45, mean=mean, shape=(3, 300))
    found = kernels.median_distance(lambda start, stop: X[start:stop], 40, block_rows)
    assert found == pytest.approx(median_distance64(X[:40]), rel=1e-5)


def test_median_distance_holds_two_blocks_and_reads_only_the_first_n():
    X = activations(n=64, shape=(10,))
    alive, most, read = weakref.WeakSet(), [], set()

    class Block(np.ndarray):
        __hash__ = object.__hash__

    def read_block(start, stop):
        block = X[start:stop].copy().view(Block)
        alive.add(block)
        most.append(len(alive))
        read.update(range(start, stop))
        return block

    kernels.median_distance(read_block, 50, 8)
    assert max(most) == 2
    assert read == set(range(50))


@pytest.mark.usefixtures("backend")
def test_median_distance_of_a_constant_representation_is_zero():
    X = np.full((20, 6, 6), 0.1, np.float32)
    assert kernels.median_distance(lambda start, stop: X[start:stop], 20, 8) == 0.0


@pytest.mark.usefixtures("backend")
def test_median_distance_of_a_mostly_dead_layer_is_zero_though_its_first_example_is_alive():
    X = np.tile(activations(n=1, shape=(9000,), seed=4), (40, 1))
    X[:5] = activations(n=5, shape=(9000,))
    assert median_distance64(X) == 0.0
    assert kernels.median_distance(lambda start, stop: X[start:stop], 40, 16) == 0.0


def test_median_distance_survives_an_outlier_as_first_example():
    X = activations(n=40, shape=(300,))
    X[0] *= 1e4
    found = kernels.median_distance(lambda start, stop: X[start:stop], 40, 16)
    assert found == pytest.approx(median_distance64(X), rel=1e-4)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("kernel", ["linear", "cosine"])
def test_values_that_are_not_finite_stay_visible(kernel):
    X = activations(shape=(20,))
    X[3, 4], X[5, 6] = np.nan, np.inf
    K = kernels.gram(X, kernel)
    assert np.isnan(K[3]).all()
    assert not np.isfinite(K[5, 5])
    assert np.isfinite(K[6, 7])
    assert np.isnan(kernels.median_distance(lambda start, stop: X[start:stop], 40, 16))


def test_refusals():
    K = kernels.gram(activations(n=4))
    with pytest.raises(ValueError, match=r"bandwidth is 0\.0; use a finite distance above 0"):
        kernels.rbf(K, 0.0)
    with pytest.raises(ValueError, match="bandwidth is nan"):
        kernels.rbf(K[None], np.array([1.0, np.nan]))
    with pytest.raises(ValueError, match="bandwidth is inf"):
        kernels.cross_rbf(K, K, K[0], [np.inf])
    with pytest.raises(ValueError, match="kernel is 'rbf'; use linear or cosine"):
        kernels.gram(K, "rbf")
    with pytest.raises(ValueError, match="kernel is 'rbf'; use linear or cosine"):
        kernels.cross_gram(K, K, K[0], "rbf")
    with pytest.raises(ValueError, match="pooling is 'max'; use whole or mean"):
        kernels.pooled(K, "max")
    with pytest.raises(ValueError, match="no rows"):
        kernels.gram(np.zeros((0, 3), np.float32))
    with pytest.raises(ValueError, match="median distance of 1 examples in blocks of 8"):
        kernels.median_distance(lambda start, stop: np.zeros((1, 3), np.float32), 1, 8)
