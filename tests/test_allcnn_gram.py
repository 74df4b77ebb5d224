"""Grams, kernels of them and pooling against explicit float64 sums, on every backend."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import squareform

import store
from allcnn.similarity import gram as kernels
from allcnn.similarity import gram_error, median_distance
from allcnn.similarity.derived import kernel_of, tile_kernel, wide_kernel_of
from allcnn.similarity.kernels import Rbf
from allcnn.similarity.measures import Cka
from tests.oracles import (
    activations,
    biased_hsic_by_trace,
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
from tests.sweeps import every
from tests.test_allcnn_gram_backends import BACKENDS

DTYPES = [np.float16, np.float32, np.float64]
GRAMS64 = {"linear": linear_gram64, "cosine": cosine_gram64}
MEANS = list(itertools.product(["linear", "cosine", "rbf"], [0, 10, 1000]))


# XLA's differs from the symmetric one in the product alone (test_allcnn_gram_backends).
@pytest.fixture(params=["blas", "symmetric"])
def backend(request, monkeypatch):
    monkeypatch.setattr(kernels, "backend", lambda: BACKENDS[request.param])


def related(X, seed):
    """Return representations with half of their signal in common with X."""
    return (X + activations(X.shape[0], X.shape[1:], seed=seed)).astype(np.float32)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(
    ("kernel", "mean", "dtype"),
    every(
        5,
        [
            (kernel, *how)
            for kernel in ("linear", "cosine")
            for how in (
                (0, np.float32),
                (1, np.float32),
                (10, np.float32),
                (1000, np.float32),
                (10, np.float16),
                (1000, np.float64),
            )
        ],
    ),
)
def test_gram_is_the_gram_of_the_definition_once_centred(kernel, mean, dtype):
    X = activations(mean=mean, dtype=dtype)
    K, bound, unit = kernels.gram(X, kernel)
    assert (K.dtype == np.float64, unit) == (kernel == "cosine" and mean >= 10, 0)
    assert 0 < bound < gram_error.LIMIT
    np.testing.assert_array_equal(K, K.T)
    # 1e-5: float32 sums of 2e4 products, each rounded to 6e-8.
    assert relative_error(centred(K), centred(GRAMS64[kernel](X))) < 1e-5


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("kernel", ["linear", "cosine"])
def test_a_float64_difference_is_taken_before_it_is_narrowed(kernel):
    X = activations(mean=1e6, dtype=np.float64)  # 3e6 ± 3 has 4 bits of spread in float32
    K = kernels.gram(X, kernel).values
    assert relative_error(centred(K), centred(GRAMS64[kernel](X))) < 1e-5


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(("kernel", "mean"), every(4, MEANS))
def test_cka_of_grams_is_within_1e4_of_float64(kernel, mean):
    check_cka(kernel, mean, "whole")


@pytest.mark.parametrize(("kernel", "mean"), every(4, MEANS))
def test_cka_of_pooled_features_is_within_1e4_of_float64(kernel, mean):
    check_cka(kernel, mean, "mean")


def check_cka(kernel, mean, pool):
    X = activations(mean=mean)
    Y = related(X, seed=3)

    def gram(Z):
        Z = kernels.pooled(Z, pool)
        if kernel != "rbf":
            return kernels.gram(Z, kernel).values
        K = kernels.gram(Z).values
        return unscaled(rbf([K], [0.4 * median_distance.median_of_grams([store.pack(K)])]))[0]

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
        K = kernels.gram(X, "cosine").values
        assert relative_error(centred(K), centred(cosine_gram64(X))) < 1e-5
    dead = kernels.gram(np.zeros_like(X), "cosine").values
    assert dead.dtype == np.float32
    np.testing.assert_array_equal(dead, 0)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("first", [1e-6, 1.0, 1e6])
def test_cosine_ignores_the_lengths_of_rows(first):
    X = activations(n=20)
    lengths = np.geomspace(1e-8, 1e8, 20, dtype=np.float32)
    lengths[0] = first
    K = kernels.gram(X * lengths[:, None, None, None], "cosine").values
    assert relative_error(centred(K), centred(cosine_gram64(X))) < 1e-5


def rbf(Ks, bandwidths, estimator="unbiased"):
    return kernel_of(Ks, Rbf(1.0), bandwidths, Cka(estimator))


def unscaled(found):
    return np.ldexp(np.float64(found.values), found.exponents[:, None, None])


def off_diagonal(K):
    return K[~np.eye(len(K), dtype=bool)]


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(
    ("mean", "fraction"), every(4, itertools.product([0, 10, 1000], [0.05, 0.4, 1000]))
)
def test_rbf_gram_is_that_of_explicit_differences_but_for_a_constant(mean, fraction):
    Xs = [activations(mean=mean, seed=s) for s in (0, 1)]
    sigmas = [fraction * median_distance64(Xs[0]), 2 * fraction * median_distance64(Xs[1])]
    Ls = unscaled(rbf([kernels.gram(X).values for X in Xs], sigmas))
    for X, sigma, L in zip(Xs, sigmas, Ls, strict=True):
        np.testing.assert_array_equal(L, L.T)
        wanted = off_diagonal(np.longdouble(rbf_gram64(X, sigma)))
        # In double precision exp of nearly 0 has lost what expm1 keeps.
        if fraction == 1000:
            wanted = off_diagonal(np.expm1(-squareform(squared_distances64(X)) / (2 * sigma**2)))
        found = off_diagonal(L)
        nearest = wanted.argmax()
        assert found[nearest] == 0
        spread = np.ptp(wanted)
        np.testing.assert_allclose(found / spread, (wanted - wanted[nearest]) / spread, atol=1e-4)


def test_rbf_for_the_biased_estimator_counts_the_diagonal():
    X = activations()
    sigma = 0.4 * median_distance64(X)
    L = unscaled(rbf([kernels.gram(X).values], [sigma], "biased"))[0]
    np.testing.assert_allclose(L + 1, rbf_gram64(X, sigma), atol=1e-5)


@pytest.mark.parametrize("estimator", ["unbiased", "biased"])
def test_rbf_takes_float64_grams_among_others(estimator):
    X = activations(shape=(50,))
    Ks = [kernels.gram(X).values, np.float64(kernels.gram(X).values), kernels.gram(2 * X).values]
    sigma = 0.4 * median_distance64(X)
    # What is centred already is so again: HSIC of both is the same.
    L = unscaled(rbf(Ks, [sigma, sigma, 2 * sigma], estimator))
    oracle = {"unbiased": song_hsic, "biased": biased_hsic_by_trace}[estimator]
    wanted = oracle(L[0], L[0])
    for found in (oracle(L[1], L[1]), oracle(L[0], L[1]), oracle(L[2], L[0])):
        assert found == pytest.approx(wanted, rel=1e-5)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(
    ("kernel", "mean"), every(5, itertools.product(["linear", "cosine"], [0, 10, 1000]))
)
def test_tiles_of_one_reference_are_those_of_the_whole(kernel, mean):
    X = activations(mean=mean)
    common = kernels.reference(X[:16], kernel)
    spans = [slice(0, 17), slice(17, 40)]
    tiles = [[kernels.cross_gram(X[a], X[b], common, kernel).values for b in spans] for a in spans]
    K = np.block(tiles)
    assert relative_error(centred(K), centred(GRAMS64[kernel](X))) < 1e-5
    own = kernels.cross_gram(X, X, common, kernel).values
    np.testing.assert_array_equal(own, own.T)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("mean", [0, 1000])
def test_squared_distances_of_tiles(mean):
    X = activations(mean=mean, shape=(9000,))
    wanted = squareform(squared_distances64(X))
    common = kernels.reference(X[:16])
    found = kernels.cross_gram(X[:25], X[25:], common).squared_distances()
    np.testing.assert_allclose(found, wanted[:25, 25:], rtol=1e-5)
    own = kernels.cross_gram(X, X, common).squared_distances()
    np.testing.assert_allclose(own, wanted, atol=1e-5 * wanted.max())
    np.testing.assert_array_equal(own.diagonal(), 0)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("mean", [0, 1000])
def test_rbf_of_a_tile_is_that_of_explicit_differences_for_each_bandwidth(mean):
    X = activations(mean=mean)
    median = median_distance64(X)
    sigmas = [fraction * median for fraction in (0.2, 0.4, 0.8)]
    common = kernels.reference(X[:9])
    tile = kernels.cross_gram(X[:16], X[16:], common)
    for sigma in sigmas:
        L = tile_kernel(tile, Rbf(sigma / median), median, common)
        assert L.shape == (16, 24)
        constant = np.exp(-common.usual / sigma**2 / 2)
        np.testing.assert_allclose(L + constant, rbf_gram64(X, sigma)[:16, 16:], atol=1e-5)
    wide = 1000 * median
    L = tile_kernel(kernels.cross_gram(X, X, common), Rbf(1000.0), median, common)
    # A flat kernel is 1 - d²/(2 sigma²), whose centred Gram is the linear one, over sigma².
    assert relative_error(centred(L), centred(linear_gram64(X)) / wide**2) < 1e-4


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


@pytest.mark.parametrize("kernel", ["linear", "cosine"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_reference_lies_among_the_rows_that_lie_together(dtype, kernel):
    X = activations(n=30, shape=(6, 50), mean=10, dtype=dtype)
    wanted = kernels.reference(X[10:], kernel).row
    X[:10] = -X[:10]
    found = kernels.reference(X, kernel).row
    rows = np.float64(X.reshape(30, -1))
    if kernel == "cosine":
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    spread = np.linalg.norm(rows[10:] - rows[10:].mean(0), axis=1).max()
    assert np.linalg.norm(found - rows[10:].mean(0)) < spread
    assert np.linalg.norm(wanted - rows[10:].mean(0)) < spread
    equal = np.full((7, 5), 0.1, dtype)
    np.testing.assert_array_equal(kernels.reference(equal).row, np.float64(equal[0]))


def test_jax_arrays_are_taken():
    X = activations(n=10, shape=(3, 20))
    np.testing.assert_array_equal(kernels.gram(jnp.asarray(X)).values, kernels.gram(X).values)
    np.testing.assert_array_equal(
        kernels.pooled(jnp.asarray(X)[:, None], "mean"), kernels.pooled(X[:, None], "mean")
    )


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("kernel", ["linear", "cosine"])
def test_values_that_are_not_finite_stay_visible(kernel):
    X = activations(shape=(20,))
    X[3, 4], X[5, 6] = np.nan, np.inf
    K, bound, _ = kernels.gram(X, kernel)
    assert np.isnan(K[3]).all()
    assert not np.isfinite(K[5, 5])
    assert not np.isfinite(bound)


def test_a_dead_layer_stays_in_float32():
    K, bound, unit = kernels.gram(np.full((20, 6, 6), 0.1, np.float32))
    assert (K.dtype, bound, unit) == (np.float32, 0.0, None)
    np.testing.assert_array_equal(K, 0)


@pytest.mark.parametrize("size", [3e4, 1e6])
@pytest.mark.parametrize("kernel", ["linear", "cosine"])
def test_a_gram_of_rows_far_from_the_others_is_float64(kernel, size):
    X = activations(shape=(60,))
    X[:: 8 if kernel == "linear" else 1, 3] += size
    K, bound, _ = kernels.gram(X, kernel)
    assert K.dtype == np.float64
    assert bound < gram_error.LIMIT
    assert relative_error(centred(K), centred(GRAMS64[kernel](X))) < 1e-12


def test_rows_that_one_row_spoils_are_shifted_by_their_mean_not_by_it():
    X = activations(mean=1000, shape=(60,))
    X[0] = 0
    distances = gram_error.squared_distances(kernels.gram(X).values)
    np.testing.assert_allclose(distances, squareform(squared_distances64(X)), rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-200, 1e-60, 1e60, 1e200])
def test_rows_of_any_size_have_a_unit_that_all_minibatches_share(scale):
    X = activations(shape=(60,), dtype=np.float64)
    K, _, unit = kernels.gram(X * scale)
    assert abs(scale * 2.0**-unit) < 1
    other = kernels.gram(3 * X * scale, unit=unit)
    assert other.unit == unit
    np.testing.assert_allclose(other.values, 9 * K, rtol=1e-10, atol=1e-12 * np.abs(K).max())
    ratio = centred(linear_gram64(X)) / centred(K)
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-8)


@pytest.mark.parametrize("median", [None, 0.0, np.nan, np.inf])
def test_a_representation_without_a_median_distance_counts_as_constant(median):
    X = activations(n=8, shape=(20,))
    K, common = kernels.gram(X).values, kernels.reference(X)
    other = median_distance64(X)
    found = unscaled(rbf([K, K], [median, other]))
    assert not found[0].any()
    np.testing.assert_array_equal(found[1], unscaled(rbf([K], [other]))[0])
    for wide in (np.float64(K), K):
        (found,) = wide_kernel_of([wide], Rbf(), [median], Cka())
        assert not found.any()
    assert not tile_kernel(kernels.cross_gram(X, X, common), Rbf(), median, common).any()


def test_refusals():
    X = activations(n=4)
    K = kernels.gram(X).values
    common = kernels.reference(K)
    with pytest.raises(ValueError, match="kernel is 'rbf'; use linear or cosine"):
        kernels.gram(K, "rbf")
    with pytest.raises(ValueError, match="kernel is 'rbf'; use linear or cosine"):
        kernels.cross_gram(K, K, common, "rbf")
    with pytest.raises(ValueError, match="pooling is 'max'; use whole or mean"):
        kernels.pooled(K, "max")
    with pytest.raises(ValueError, match="no rows"):
        kernels.gram(np.zeros((0, 3), np.float32))
