"""Grams and distances against explicit float64 differences, on both backends."""

import weakref

import numpy as np
import pytest
from scipy.spatial.distance import squareform

from allcnn import kernels
from tests.oracles import linear_gram64, median_distance64, rbf_gram64, squared_distances64

BACKENDS = {"blas": kernels.BLAS, "xla": kernels.XLA}


@pytest.fixture(params=sorted(BACKENDS))
def backend(request, monkeypatch):
    monkeypatch.setattr(kernels, "backend", lambda: BACKENDS[request.param])


def activations(n=40, shape=(5, 5, 400), mean=0.0, dtype=np.float32, seed=0):
    """Rows with a few strong directions; wider than one tile of columns by default."""
    rng = np.random.default_rng(seed)
    p = int(np.prod(shape))
    X = rng.standard_normal((n, 8)) @ rng.standard_normal((8, p)) + rng.standard_normal((n, p))
    return (X + mean * 3).astype(dtype).reshape(n, *shape)


def centred(K):
    K = np.float64(K)
    return K - K.mean(0)[None, :] - K.mean(1)[:, None] + K.mean()


def relative_error(found, wanted):
    return np.abs(found - wanted).max() / np.abs(wanted).max()


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("mean", [0, 10, 1000])
def test_linear_gram_is_the_gram_of_the_definition_once_centred(mean, dtype):
    X = activations(mean=mean, dtype=dtype)
    K = kernels.gram(X)
    assert K.dtype == np.float32
    np.testing.assert_array_equal(K, K.T)
    # 1e-5: float32 sums of 1e4 products, each rounded to 6e-8.
    assert relative_error(centred(K), centred(linear_gram64(X))) < 1e-5


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("mean", [0, 10, 1000])
def test_rbf_gram_is_that_of_explicit_differences(mean):
    X = activations(mean=mean)
    sigma = 0.4 * median_distance64(X)
    K = kernels.gram(X, sigma)
    np.testing.assert_array_equal(K.diagonal(), 1)
    np.testing.assert_allclose(K, rbf_gram64(X, sigma), atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_both_backends_agree(dtype):
    A, B = (activations(seed=s, dtype=dtype).reshape(40, -1) for s in (0, 1))
    for b in (A, B):
        products = [way.products(A, b, A[3]) for way in BACKENDS.values()]
        assert relative_error(*products) < 1e-6
    np.testing.assert_allclose(*(way.norms(A, A[3]) for way in BACKENDS.values()), rtol=1e-5)


def test_cpu_uses_blas_and_accelerators_xla(monkeypatch):
    monkeypatch.setattr(kernels.jax, "default_backend", lambda: "cpu")
    assert kernels.backend() is kernels.BLAS
    monkeypatch.setattr(kernels.jax, "default_backend", lambda: "gpu")
    assert kernels.backend() is kernels.XLA


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


def test_values_that_are_not_finite_stay_visible():
    X = activations(shape=(20,))
    X[3, 4], X[5, 6] = np.nan, np.inf
    assert np.isnan(kernels.gram(X)[3]).all()
    assert not np.isfinite(kernels.gram(X)[5, 5])
    assert np.isnan(kernels.median_distance(lambda start, stop: X[start:stop], 40, 16))


def test_refusals():
    with pytest.raises(ValueError, match=r"bandwidth is 0\.0; use a finite distance above 0"):
        kernels.gram(activations(n=4), 0.0)
    with pytest.raises(ValueError, match="bandwidth is nan"):
        kernels.gram(activations(n=4), float("nan"))
    with pytest.raises(ValueError, match="no rows"):
        kernels.gram(np.zeros((0, 3), np.float32))
    with pytest.raises(ValueError, match="median distance of 1 examples in blocks of 8"):
        kernels.median_distance(lambda start, stop: np.zeros((1, 3), np.float32), 1, 8)
