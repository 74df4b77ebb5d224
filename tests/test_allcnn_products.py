"""All ways to multiply shifted rows agree, and the one for the device is chosen in one place."""

import numpy as np
import pytest

from allcnn import kernels, products
from tests.oracles import activations, centred, linear_gram64, relative_error

BACKENDS = {"blas": products.BLAS, "symmetric": products.SYMMETRIC, "xla": products.XLA}


@pytest.fixture(params=["linear", "cosine"])
def weights(request):
    return lambda A, origin: kernels._weights(A, origin, request.param)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_products_of_all_ways_agree(dtype, weights):
    A, B = (activations(seed=s, dtype=dtype).reshape(40, -1) for s in (0, 1))
    origin = products.in_precision_of(A, A[3])
    u, v = weights(A, origin), weights(B, origin)
    for b, w in ((A, u), (B, v)):
        blas, *others = (way.products(A, b, origin, u, w) for way in BACKENDS.values())
        for other in others:
            # sqrt(2e4) roundings of 6e-8 at random, twice.
            assert relative_error(other, blas) < 2e-6


@pytest.mark.parametrize("mean", [0, 1000])
def test_grams_of_all_ways_agree_and_are_exactly_symmetric(mean, weights):
    A = activations(mean=mean).reshape(40, -1)
    blas, *others = (way.gram(A, A[3], weights(A, A[3])) for way in BACKENDS.values())
    np.testing.assert_array_equal(blas, blas.T)
    for other in others:
        np.testing.assert_array_equal(other, other.T)
        # BLAS need not shift: only what is centred is the same.
        assert relative_error(centred(other), centred(blas)) < 1e-5


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_norms_and_moments_of_all_ways_are_those_of_float64(dtype):
    A = activations(mean=1000, dtype=dtype).reshape(40, -1)
    x, o = np.float64(A), np.float64(A[3])
    for way in BACKENDS.values():
        # Float16 values lie on a grid: sums of their squares round half to even, time after time.
        rtol = 1e-5 if dtype == np.float16 else 1e-6
        np.testing.assert_allclose(way.norms(A, A[3]), ((x - o) ** 2).sum(1), rtol=rtol)
        squared, excess = way.moments(A, A[3])
        np.testing.assert_allclose(squared, (x**2).sum(1), rtol=rtol)
        lengths = np.linalg.norm(x - o, axis=1) * np.linalg.norm(x + o, axis=1)
        np.testing.assert_allclose(excess, ((x - o) * (x + o)).sum(1), atol=rtol * lengths.max())


def test_cpu_uses_blas_gpus_the_symmetric_product_and_others_xla(monkeypatch):
    for platform, wanted in (
        ("cpu", products.BLAS),
        ("gpu", products.SYMMETRIC),
        ("tpu", products.XLA),
    ):
        monkeypatch.setattr(products.jax, "default_backend", lambda platform=platform: platform)
        assert products.backend() is wanted


def shifted_columns(monkeypatch, A):
    """Return how many columns BLAS shifted for a Gram, and how far off that is once centred."""
    shifts = []

    def counted(A, origin, weights, tile, shift=products._shifted):
        shifts.append(A[:, tile].shape[1])
        return shift(A, origin, weights, tile)

    monkeypatch.setattr(products, "_shifted", counted)
    K = products.BLAS.gram(A, A[0], None)
    return sum(shifts), relative_error(centred(K), centred(linear_gram64(A)))


PROBED, TILE = products._PROBED_COLUMNS, products.TILE_COLUMNS
WIDTHS = (PROBED, TILE, 100)


@pytest.mark.parametrize(
    ("means", "columns"),
    [
        ((0, 0, 0), 0),
        ((1, 1, 1), 0),
        ((100, 100, 100), sum(WIDTHS)),
        ((0, 0, 100), 100),
        ((100, 0, 0), sum(WIDTHS)),
    ],
)
def test_blas_shifts_from_the_first_tile_that_needs_it(means, columns, monkeypatch):
    A = activations(20, (sum(WIDTHS),)) + 3 * np.repeat(np.float32(means), WIDTHS)
    found, error = shifted_columns(monkeypatch, A)
    assert found == columns
    assert error < 1e-5


def test_blas_shifts_where_one_row_dwarfs_the_mean_of_the_others(monkeypatch):
    A = activations(20, (500,), mean=1000)
    A[7] *= 1000
    found, _ = shifted_columns(monkeypatch, A)
    assert found == 500
    K = products.BLAS.gram(A, A[0], None)
    rest = np.delete(np.arange(20), 7)
    wanted = linear_gram64(A[rest])
    assert relative_error(centred(K[np.ix_(rest, rest)]), centred(wanted)) < 1e-5
