"""What rounding to a stored dtype loses: refused where it matters, unnoticed where it does not."""

import re

import numpy as np
import pytest

from store import ActivationOverflowError, PrecisionError
from store.model.narrowing import TOLERANCE, _measured, narrow_gram, narrow_rows, surely_kept
from tests.oracles import cka64

N = 256
RANGES = [(0, N)]


def normal(p=32, n=N, seed=0):
    return np.random.default_rng(seed).standard_normal((n, p))


def is_refused(X, dtype):
    try:
        narrow_rows(X, dtype, "fc")
    except PrecisionError:
        return True
    return False


# What is held to: CKA as of the values that were given, from far below to far beyond the limits


@pytest.mark.parametrize("p", [1, 10, 300])
@pytest.mark.parametrize(
    ("dtype", "offsets"),
    [("float16", (0, 10, 50, 1e3)), ("float32", (1e3, 1e5, 1e6, 1e8))],
)
def test_cka_is_kept_or_the_rows_are_refused(dtype, offsets, p):
    X = normal(p)
    Y = X[:, : (p + 1) // 2] + 0.5 * normal((p + 1) // 2, seed=1)
    refused = []
    for offset in offsets:
        A = (X + offset).astype("float32" if dtype == "float16" else "float64")
        refused.append(is_refused(A, dtype))
        [[change]] = cka64([A], [Y], RANGES) - cka64([A.astype(dtype)], [Y], RANGES)
        # The random part is estimated for eight times as many examples.
        assert refused[-1] or abs(change) < 3 * np.sqrt(8) * TOLERANCE
    assert refused == sorted(refused)
    assert (refused[0], refused[-1]) == (False, True)


@pytest.mark.parametrize(
    ("dtype", "scale", "refused"),
    [
        ("float16", 1e-4, False),
        ("float16", 1e-5, False),
        ("float16", 1e-7, True),  # steps of 6e-8
        ("float16", 1e-30, True),
        ("float32", 1e-40, False),
        ("float32", 1e-44, True),  # steps of 1.4e-45
        ("float32", 1e-200, True),
        ("float64", 1e-300, False),
    ],
)
def test_small_values_are_refused_where_they_vanish(dtype, scale, refused):
    X = normal() * scale
    assert is_refused(X, dtype) == refused


ORDINARY = {
    "ReLU": np.maximum(normal(300), 0),
    "mostly dead": np.maximum(normal(300) - 3, 0),
    "one unit alive": np.eye(N)[:, :1] * normal(),
    "all dead": np.zeros((N, 8)),
    "all alike": np.full((N, 8), 0.1),
    "with a bias": normal() + 5,
    "probabilities": np.exp(normal(10)) / np.exp(normal(10)).sum(1, keepdims=True),
    "sigmoid": 1 / (1 + np.exp(-normal())),
    "one-hot": np.eye(10)[np.arange(N) % 10],
    "one number": np.maximum(normal(1), 0),
    "outlying unit": normal() + 1e4 * np.eye(32)[0] * (np.arange(N) % 16 == 0)[:, None],
    "outlying rows": np.where(np.arange(N)[:, None] < 3, 1e4, normal()),
    "constant units": np.where(np.arange(32) < 16, normal(), 1000.3),
    "small": 1e-3 * normal(),
    "large": 1e3 * normal(),
    "spatial": np.maximum(normal(96), 0).reshape(N, 4, 4, 6),
    "four rows": np.maximum(normal(10, n=4), 0),
}


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_activations_are_never_refused(name):
    X = ORDINARY[name].astype(np.float32)
    for dtype in ("float16", "float32"):
        np.testing.assert_array_equal(narrow_rows(X, dtype, "fc"), X.astype(dtype))
    for exponent in (-30, -10, 10, 30):
        wide = ORDINARY[name] * 10.0**exponent
        np.testing.assert_array_equal(narrow_rows(wide, "float32", "fc"), wide.astype(np.float32))


def test_it_is_the_spread_of_all_features_that_counts():
    bad = 1e9 + normal(1)
    assert is_refused(bad, "float32")
    assert is_refused(np.hstack([bad, normal(4)]), "float32")
    # Among thousands a feature that is lost changes nothing, nor does one that never varied.
    assert not is_refused(np.hstack([bad, 1e3 * normal(4000)]), "float32")
    assert not is_refused(np.hstack([np.full((N, 1), 1e30 / 3), normal(1)]), "float32")
    assert is_refused(np.hstack([np.full((N, 1), 1e30 / 3), 1e-60 * normal(1)]), "float32")


@pytest.mark.parametrize("dtype", [np.int64, np.uint32, np.longdouble])
def test_whatever_type_the_spread_comes_in(dtype):
    X = (normal() * 20 + 2e9).astype(dtype)
    assert is_refused(X, "float32")
    np.testing.assert_array_equal(narrow_rows(X, "float64", "fc"), X.astype(np.float64))


@pytest.mark.parametrize("n", [0, 1, 3])
def test_fewer_rows_than_hsic_needs_are_stored_as_they_come(n):
    X = 1e9 + normal(n=n)
    np.testing.assert_array_equal(narrow_rows(X, "float32", "fc"), X.astype(np.float32))


def test_rows_that_are_not_finite_do_not_count():
    X = 1e9 + normal()
    X[7, 3], X[8, 4] = np.nan, -np.inf
    assert is_refused(X, "float32")
    X -= 1e9
    np.testing.assert_array_equal(narrow_rows(X, "float32", "fc"), X.astype(np.float32))
    X[:] = np.nan
    assert np.isnan(narrow_rows(X, "float16", "fc")).all()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_bound_is_one(dtype):
    rng = np.random.default_rng(0)
    n_kept = 0
    for _ in range(300):
        p, n = rng.integers(1, 40), rng.integers(4, 40)
        X = rng.standard_normal((n, p)) * 10 ** rng.uniform(-9, 3, p)
        X += 10 ** rng.uniform(-9, 4, p) * rng.integers(0, 2, p)
        X = X.astype(np.float32) if dtype == "float16" else X * 10 ** rng.uniform(-37, 30)
        if surely_kept(X, dtype):
            n_kept += 1
            assert _measured(X, dtype) <= TOLERANCE
            assert np.abs(X).max() <= np.finfo(dtype).max
    assert 50 < n_kept < 300


def test_of_the_same_or_a_narrower_type_nothing_is_looked_at(monkeypatch):
    monkeypatch.setattr("store.model.narrowing.surely_kept", None)
    for values, dtype in ((np.float16, "float16"), (np.float32, "float32"), (bool, "float32")):
        X = (normal() + 100).astype(values)
        np.testing.assert_array_equal(narrow_rows(X, dtype, "fc"), X.astype(dtype))


# What is said


@pytest.mark.parametrize(
    ("values", "dtype", "message"),
    [
        (normal() + 1e3, "float16", "and 0.0001 is allowed; store it as float32 (--dtype float32)"),
        (normal() + 1e8, "float16", "fc reaches 1e+08, and float16 ends at 65504; store it as flo"),
        (
            normal() + 1e8,
            "float32",
            "fc varies too little for the precision of float32: rounding w",
        ),
        (normal() + 1e8, "float16", "; store it as float64 (--dtype float64)"),
        (normal() * 1e-60, "float16", "; store it as float64 (--dtype float64)"),
        (normal() * 1e60, "float32", "ends at 3.40282e+38; store it as float64 (--dtype float64)"),
        (normal() * 1e6, "float16", "float16 ends at 65504; store it as float32 (--dtype float32)"),
        (
            np.longdouble(1e20) + np.round(100 * normal()),
            "float64",
            "; subtract each feature's mean, and scale what is left to about 1",
        ),
    ],
)
def test_the_advice_is_the_narrowest_type_that_holds_the_rows(values, dtype, message):
    with pytest.raises((PrecisionError, ActivationOverflowError), match=re.escape(message)):
        narrow_rows(values, dtype, "fc")


def test_a_gram_is_stored_whatever_its_spread():
    K = 1e9 + normal(N)
    np.testing.assert_array_equal(narrow_gram(K, "float32", "Grams"), K.astype(np.float32))
    with pytest.raises(ActivationOverflowError, match=r"^Grams reaches .*; scale the activations"):
        narrow_gram(K * 1e30, "float32", "Grams")
