"""All ways to multiply shifted rows agree, and the one for the device is chosen in one place."""

import numpy as np
import pytest

from allcnn.similarity import gram_backends
from tests.oracles import activations, centred, linear_gram64, relative_error

BACKENDS = {
    "blas": gram_backends.BLAS,
    "symmetric": gram_backends.SYMMETRIC,
    "xla": gram_backends.XLA,
}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("is_shifted", [True, False])
def test_products_of_all_ways_agree(dtype, is_shifted):
    A, B = (activations(seed=s, dtype=dtype).reshape(40, -1) for s in (0, 1))
    origin = gram_backends.in_precision_of(A, A[3]) if is_shifted else None
    for b in (A, B):
        blas, *others = (way.products(A, b, origin) for way in BACKENDS.values())
        for other in others:
            # sqrt(2e4) roundings of 6e-8 at random, twice.
            assert relative_error(other, blas) < 2e-6


@pytest.mark.parametrize("far", [gram_backends.FAR, gram_backends.ALWAYS])
@pytest.mark.parametrize("mean", [0, 1000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_grams_of_all_ways_agree_and_are_exactly_symmetric(mean, far, dtype):
    A = activations(mean=mean, dtype=dtype).reshape(40, -1)
    for way in BACKENDS.values():
        K = way.gram(A, far)
        np.testing.assert_array_equal(K, K.T)
        # Ways may shift or not: only what is centred is the same.
        assert relative_error(centred(K), centred(linear_gram64(A))) < 1e-5


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_norms_of_all_ways_are_those_of_float64(dtype):
    A = activations(mean=1000, dtype=dtype).reshape(40, -1)
    x, o = np.float64(A), np.float64(A[3])
    for way in BACKENDS.values():
        # Float16 values lie on a grid: sums of their squares round half to even, time after time.
        rtol = 1e-5 if dtype == np.float16 else 1e-6
        np.testing.assert_allclose(way.norms(A, A[3]), ((x - o) ** 2).sum(1), rtol=rtol)
        np.testing.assert_allclose(way.norms(A, None), (x**2).sum(1), rtol=rtol)


def test_cpu_uses_blas_gpus_the_symmetric_product_and_others_xla(monkeypatch):
    for platform, wanted in (
        ("cpu", gram_backends.BLAS),
        ("gpu", gram_backends.SYMMETRIC),
        ("tpu", gram_backends.XLA),
    ):
        monkeypatch.setattr(
            gram_backends.jax, "default_backend", lambda platform=platform: platform
        )
        assert gram_backends.backend() is wanted


def shifted_columns(monkeypatch, A, far=gram_backends.FAR):
    """Return how many columns BLAS shifted for a Gram, and how far off that is once centred."""
    shifts = []

    def counted(a, mean=gram_backends._mean):
        shifts.append(a.shape[1])
        return mean(a)

    monkeypatch.setattr(gram_backends, "_mean", counted)
    K = gram_backends.BLAS.gram(A, far)
    return sum(shifts), relative_error(centred(K), centred(linear_gram64(A)))


PROBED, TILE = gram_backends._PROBED_COLUMNS, gram_backends.TILE_COLUMNS
WIDTHS = (PROBED, TILE, 100)


@pytest.mark.parametrize(
    ("means", "far", "columns"),
    [
        ((0, 0, 0), gram_backends.FAR, 0),
        ((1, 1, 1), gram_backends.FAR, 0),
        ((1, 1, 1), gram_backends.ALWAYS, sum(WIDTHS)),
        ((100, 100, 100), gram_backends.FAR, sum(WIDTHS)),
        ((0, 0, 100), gram_backends.FAR, 100),
        ((100, 0, 0), gram_backends.FAR, sum(WIDTHS)),
        ((0, 0, 0), gram_backends.NEVER, 0),
    ],
)
def test_blas_shifts_from_the_first_tile_that_needs_it(means, far, columns, monkeypatch):
    A = activations(20, (sum(WIDTHS),)) + 3 * np.repeat(np.float32(means), WIDTHS)
    found, error = shifted_columns(monkeypatch, A, far)
    assert found == columns
    assert error < 1e-5
