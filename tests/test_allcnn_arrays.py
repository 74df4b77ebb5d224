"""CKA of arrays against the float64 oracle, whatever holds the arrays, and the work it takes."""

import itertools

import dask.array
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from allcnn.similarity import gram as kernels
from allcnn.similarity.arrays import cka, cka_matrix
from allcnn.similarity.pair_sums import split_minibatches
from tests.oracles import cka64, jackknife64, linear_gram64, song_hsic
from tests.sweeps import every

N, BATCH = 70, 32
RANGES = split_minibatches(N, BATCH)
KERNELS = ("linear", "rbf", "cosine")
ESTIMATORS = ("unbiased", "biased", "exact")


def arrays(*shapes, n=N, seed=0, common=8):
    """Return arrays over the same examples, with part of their signal in common."""
    signal = np.random.default_rng(99).standard_normal((n, common))
    rng = np.random.default_rng(seed)

    def array(shape):
        p = int(np.prod(shape))
        X = signal @ rng.standard_normal((common, p)) + 2 * rng.standard_normal((n, p))
        return (X + 3 * rng.standard_normal(p)).astype(np.float32).reshape(n, *shape)

    return [array(shape) for shape in shapes]


def assert_same(found, wanted):
    np.testing.assert_array_equal(found.values, wanted.values)
    np.testing.assert_array_equal(found.standard_errors, wanted.standard_errors)


# Against float64


@pytest.mark.parametrize(
    ("kernel", "estimator", "pool"),
    every(5, itertools.product(KERNELS, ESTIMATORS, ["whole", "mean"])),
)
def test_values_are_those_of_the_oracle(kernel, estimator, pool):
    Xs, Ys = arrays((30,), (4, 4, 20), seed=1), arrays((5, 2, 9), (50,), (7, 3), seed=2)
    how = {"kernel": kernel, "estimator": estimator, "pool": pool}
    found = cka_matrix(Xs, Ys, batch_size=BATCH, **how)
    # 1e-5: float32 Grams, each entry rounded to 6e-8 of the largest.
    np.testing.assert_allclose(found.values, cka64(Xs, Ys, RANGES, **how), rtol=0, atol=1e-5)
    assert found.values.dtype == found.standard_errors.dtype == np.float64
    assert np.isnan(found.standard_errors).all() == (estimator == "exact")
    own = cka_matrix(Ys, batch_size=BATCH, **how).values
    np.testing.assert_allclose(own, cka64(Ys, Ys, RANGES, **how), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_pair_is_an_entry_of_the_matrix(kernel):
    X, Y = arrays((30,), (4, 4, 20))
    found = cka(X, Y, kernel=kernel, batch_size=BATCH)
    whole = cka_matrix([X], [Y], kernel=kernel, batch_size=BATCH)
    assert found == (whole.values.item(), whole.standard_errors.item())
    assert all(type(number) is float for number in found)


def test_sigma_is_a_fraction_of_the_median_distance():
    Xs = arrays((30,), (4, 4, 20))
    found = cka_matrix(Xs, kernel="rbf", sigma=0.8, batch_size=BATCH).values
    wanted = cka64(Xs, Xs, RANGES, kernel="rbf", fraction=0.8)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    assert np.abs(found - cka_matrix(Xs, kernel="rbf", batch_size=BATCH).values).max() > 0.01


def test_standard_errors_are_the_jackknife_of_float64_sums():
    X, Y = arrays((30,), (12,))

    def sums(A, B):
        return [
            (stop - start) * song_hsic(linear_gram64(A[start:stop]), linear_gram64(B[start:stop]))
            for start, stop in RANGES
        ]

    wanted = jackknife64(
        sums(X, Y), sums(X, X), sums(Y, Y), [stop - start for start, stop in RANGES]
    )
    assert cka(X, Y, batch_size=BATCH).standard_error == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("kernel", KERNELS)
def test_minibatches_estimate_the_exact_value_within_their_standard_errors(kernel):
    Xs, Ys = arrays((20,), (60,), n=600, seed=3), arrays((40,), (4, 4, 10), n=600, seed=4)
    values, errors = cka_matrix(Xs, Ys, kernel=kernel, batch_size=64)
    exact = cka_matrix(Xs, Ys, kernel=kernel, estimator="exact").values
    assert (np.abs(values - exact) < 4 * errors).all()
    assert (errors < 0.1).all()


def test_exact_values_do_not_depend_on_the_tiles():
    Xs = arrays((20,), (60,))
    found = [cka_matrix(Xs, estimator="exact", batch_size=b).values for b in (4, 32, 256)]
    np.testing.assert_allclose(found[0], found[2], rtol=0, atol=1e-6)
    np.testing.assert_allclose(found[1], found[2], rtol=0, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_shape_and_ragged_split(data):
    n = data.draw(st.integers(4, 40), "n")
    batch_size = data.draw(st.sampled_from([4, 9, 64]), "batch_size")
    # Of a single feature the cosine kernel keeps the sign, of which HSIC may be 0 but for rounding.
    features = st.lists(st.integers(2, 5), min_size=1, max_size=3)
    shapes = data.draw(st.lists(features, min_size=2, max_size=3), "shapes")
    kernel, estimator = data.draw(st.sampled_from(KERNELS)), data.draw(st.sampled_from(ESTIMATORS))
    Xs = arrays(*shapes, n=n, seed=data.draw(st.integers(0, 9)))
    how = {"kernel": kernel, "estimator": estimator}
    found = cka_matrix(Xs[:1], Xs[1:], batch_size=batch_size, **how).values
    wanted = cka64(Xs[:1], Xs[1:], split_minibatches(n, batch_size), **how)
    # 1e-3: four examples may nearly cancel, and float32 rounding then weighs more.
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-3)


# Invariance and bounds


@pytest.mark.parametrize(("kernel", "estimator"), every(4, itertools.product(KERNELS, ESTIMATORS)))
def test_an_array_agrees_with_itself(kernel, estimator):
    X, Y = arrays((30,), (4, 4, 20))
    how = {"kernel": kernel, "estimator": estimator, "batch_size": BATCH}
    value, error = cka(X, X, **how)
    assert value == 1
    assert np.isnan(error) if estimator == "exact" else error == 0
    values = cka_matrix([X, Y], **how).values
    np.testing.assert_array_equal(values, values.T)
    np.testing.assert_array_equal(values.diagonal(), 1)
    assert cka(X, X.copy(), **how).value == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_sides_may_change_places(estimator):
    Xs, Ys = arrays((30,), (20,), seed=1), arrays((9,), (30,), (7,), seed=2)
    there = cka_matrix(Xs, Ys, estimator=estimator, batch_size=BATCH)
    back = cka_matrix(Ys, Xs, estimator=estimator, batch_size=BATCH)
    np.testing.assert_allclose(back.values.T, there.values, rtol=0, atol=1e-6)
    np.testing.assert_allclose(back.standard_errors.T, there.standard_errors, rtol=0, atol=1e-6)


def test_independent_arrays_are_negative_about_half_the_time_and_not_clipped():
    Xs, Ys = ([*np.random.default_rng(s).standard_normal((8, 16, 4))] for s in (0, 1))
    values = cka_matrix(Xs, Ys).values
    assert 0.25 < np.mean(values < 0) < 0.75


def test_four_examples_are_one_minibatch_without_a_standard_error():
    X, Y = arrays((30,), (20,), n=4)
    found = cka(X, Y)
    assert np.isfinite(found.value)
    assert np.isnan(found.standard_error)


@pytest.mark.parametrize(
    ("damage", "kernel", "estimator"),
    every(4, itertools.product(["constant", "nan", "inf"], KERNELS, ESTIMATORS)),
)
def test_what_is_not_defined_is_nan_and_leaves_the_others_alone(damage, kernel, estimator):
    X, Y, bad = arrays((30,), (20,), (12,))
    if damage == "constant":
        bad[:] = bad[0]
    else:
        bad[40, 3] = float(damage)
    how = {"kernel": kernel, "estimator": estimator, "batch_size": BATCH}
    for Xs, Ys in ([X, bad, Y], None), ([X, bad, Y], [X, bad, Y.copy()]):
        found = cka_matrix(Xs, Ys, **how)
        undefined = np.zeros((3, 3), bool)
        undefined[1], undefined[:, 1] = True, True
        np.testing.assert_array_equal(np.isnan(found.values), undefined)
        assert np.isnan(found.standard_errors[undefined]).all()
    wanted = cka_matrix([X, Y], **how).values
    np.testing.assert_allclose(found.values[::2, ::2], wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("estimator", ["unbiased", "exact"])
def test_a_constant_array_has_no_bandwidth_and_one_of_a_few_live_rows_has_one(estimator):
    X, dying, dead = arrays((30,), (20,), (10,))
    dying[5:] = dead[:] = 1
    how = {"kernel": "rbf", "estimator": estimator, "batch_size": BATCH}
    found = cka_matrix([X, dying, dead], **how).values
    np.testing.assert_array_equal(np.isnan(found), [[0, 0, 1], [0, 0, 1], [1, 1, 1]])
    wanted = cka64([X], [dying], RANGES, kernel="rbf", estimator=estimator)
    assert found[0, 1] == pytest.approx(wanted.item(), abs=1e-5)


# What holds the arrays


class Foreign:
    """Slices like an array of a library whose dtypes are its own."""

    def __init__(self, X):
        self.X, self.shape, self.dtype = X, X.shape, f"foreign.{X.dtype}"

    def __getitem__(self, rows):
        return Foreign(self.X[rows])

    def __array__(self, dtype=None, copy=None):
        return self.X


def in_zarr(X):
    held = zarr.create_array({}, shape=X.shape, chunks=(17, *X.shape[1:]), dtype=X.dtype)
    held[:] = X
    return held


HOLDERS = {
    "JAX": jnp.asarray,
    "Dask": lambda X: dask.array.from_array(X, chunks=(23, *X.shape[1:])),
    "Zarr": in_zarr,
    "a list": lambda X: [list(x) for x in X],
    "Fortran order": np.asfortranarray,
    "big-endian": lambda X: X.astype(">f4"),
    "a foreign library": Foreign,
}


@pytest.mark.parametrize("estimator", ["unbiased", "exact"])
@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_whatever_holds_an_array_gives_the_same_bits(holder, kernel, estimator):
    Xs = arrays((4, 4, 5), (20,))
    how = {"kernel": kernel, "estimator": estimator, "batch_size": BATCH}
    found = cka_matrix([HOLDERS[holder](X) for X in Xs], **how)
    assert_same(found, cka_matrix(Xs, **how))


def test_spatial_shape_and_data_frames_give_the_same_bits():
    X, Y = arrays((4, 4, 5), (20,))
    wanted = cka_matrix([X, Y], batch_size=BATCH)
    frame = pd.DataFrame(Y, index=np.arange(N)[::-1])
    assert_same(cka_matrix([X.reshape(N, -1), frame], batch_size=BATCH), wanted)
    others = [list(jnp.asarray(X)), frame.astype("Float32")]
    assert_same(cka_matrix(others, batch_size=BATCH), wanted)


@pytest.mark.parametrize(
    ("narrow", "wide"),
    [
        (bool, np.float32),
        (np.uint8, np.float32),
        (np.int32, np.float64),
        (np.int64, np.float64),
        (jnp.bfloat16, np.float32),
        (jnp.float8_e5m2, np.float32),
        (np.longdouble, np.float64),
        (np.float16, np.float16),
    ],
)
def test_values_of_any_real_dtype(narrow, wide):
    X, Y = arrays((30,), (20,))
    X = X > 1 if narrow is bool else np.abs(X).astype(narrow)
    wanted = cka(X.astype(wide), Y, batch_size=BATCH)
    assert cka(X, Y, batch_size=BATCH) == wanted
    assert np.isfinite(wanted).all()
    if narrow != np.longdouble and np.dtype(narrow).itemsize < 8:
        assert cka(jnp.asarray(X), Y, batch_size=BATCH) == wanted


def test_float64_and_whole_numbers_keep_a_spread_that_float32_would_lose():
    X, Y = arrays((30,), (20,))
    wanted = cka(X.astype(np.float64), Y, batch_size=BATCH).value
    assert cka(X.astype(np.float64) + 1e10, Y, batch_size=BATCH).value == pytest.approx(
        wanted, 1e-5
    )
    counts = np.round(1e3 * X).astype(np.int64)
    wanted = cka(counts, Y, batch_size=BATCH).value
    assert cka(counts + 10**12, Y, batch_size=BATCH).value == pytest.approx(wanted, 1e-5)


# Work


class Watched:
    """Knows which rows were read of it, and how many at a time."""

    def __init__(self, X):
        self.X, self.shape, self.dtype, self.read = X, X.shape, X.dtype, []

    def __getitem__(self, rows):
        self.read.append(range(*rows.indices(len(self.X))))
        return self.X[rows]


def test_every_row_is_read_once_a_minibatch_at_a_time():
    X, Y = (Watched(A) for A in arrays((30,), (20,)))
    cka_matrix([X, Y], [Y, X], batch_size=BATCH)
    for watched in X, Y:
        assert [(rows.start, rows.stop) for rows in watched.read] == RANGES


@pytest.mark.parametrize("kernel", KERNELS)
def test_exact_values_and_bandwidths_take_few_rows_at_a_time(kernel):
    X, Y = (Watched(A) for A in arrays((30,), (20,), n=1200))
    cka(X, Y, kernel=kernel, estimator="exact", batch_size=200)
    assert max(map(len, X.read + Y.read)) <= 256


def test_grams_of_shared_arrays_are_computed_once(monkeypatch):
    counted, gram = [], kernels.gram

    def counting_gram(rows, *how):
        counted.append(len(rows))
        return gram(rows, *how)

    monkeypatch.setattr(kernels, "gram", counting_gram)
    X, Y, Z = arrays((30,), (20,), (10,))
    sides = {
        "with themselves": ([X, Y, Z], None, 3),
        "one list twice": ([X, Y], [X, Y], 2),
        "another order": ([X, Y], [Y, X], 2),
        "partly": ([X, Y, X], [Y, Z], 3),
        "not at all": ([X], [Y, Z], 3),
        "equal but not the same": ([X], [X.copy()], 2),
    }
    for Xs, Ys, distinct in sides.values():
        counted.clear()
        found = cka_matrix(Xs, Ys, batch_size=BATCH)
        assert counted == [stop - start for start, stop in RANGES for _ in range(distinct)]
        apart = cka_matrix(list(map(np.copy, Xs)), list(map(np.copy, Xs if Ys is None else Ys)))
        wanted = cka64(Xs, Xs if Ys is None else Ys, RANGES)
        np.testing.assert_allclose(found.values, wanted, rtol=0, atol=1e-5)
        assert found.values.shape == apart.values.shape


# Refusals


@pytest.mark.parametrize(
    ("Xs", "Ys", "message"),
    [
        ([], None, "there are no arrays to compare"),
        ([np.ones((8, 2))], [], "there are no arrays to compare"),
        (
            [np.ones((8, 2)), np.ones((8, 3))],
            [np.ones((8, 2)), np.ones((9, 2))],
            r"Xs\[0\] has 8 examples and Ys\[1\] has 9; compare arrays over the same",
        ),
        ([np.ones((3, 2))], None, "there are 3 examples; unbiased HSIC needs 4"),
        ([np.ones(8)], None, r"Xs\[0\] has shape \(8,\); give a known number of examples first"),
        ([np.ones((8, 0))], None, r"Xs\[0\] has shape \(8, 0\)"),
        ([np.float64(3)], None, r"Xs\[0\] has shape \(\)"),
        ([np.ones((8, 2))], [np.ones((8, 2), complex)], r"Ys\[0\] is of type complex128; w"),
        ([np.ones((8, 2), object)], None, r"Xs\[0\] is of type object; wanted are real numbers"),
        ([[["a", "b"]] * 8], None, r"Xs\[0\] is of type <U1"),
        ([Foreign(np.ones((8, 2), complex))], None, r"Xs\[0\] is of type complex128"),
        ([jnp.ones((8, 2), complex)], None, r"Xs\[0\] is of type complex64"),
        ([jax.random.split(jax.random.key(0), (8, 2))], None, r"Xs\[0\] cannot be made an array"),
        ([np.ma.masked_equal(np.eye(8), 1)], None, r"Xs\[0\] has masked values"),
        ([Foreign(np.ma.masked_equal(np.eye(8), 1))], None, r"Xs\[0\] has masked values"),
        ([scipy.sparse.eye_array(8)], None, r"Xs\[0\] is sparse"),
        ([pd.DataFrame({"a": pd.array([None] * 8, dtype="Int64")})], None, r"Xs\[0\] has missing"),
    ],
)
def test_arrays_that_cannot_be_compared(Xs, Ys, message):
    with pytest.raises(ValueError, match=message):
        cka_matrix(Xs, Ys)


def test_a_mask_in_any_minibatch_is_refused():
    X, Y = arrays((30,), (20,))
    masked = np.ma.masked_array(X, np.zeros_like(X, bool))
    wanted = cka(X, Y, batch_size=BATCH)
    assert cka(Watched(masked), Y, batch_size=BATCH) == wanted
    masked[N - 1, 3] = np.ma.masked
    for estimator in "unbiased", "biased", "exact":
        with pytest.raises(ValueError, match=r"^X has masked values"):
            cka(Watched(masked), Y, batch_size=BATCH, estimator=estimator)


def test_a_dask_array_of_unknown_length_is_refused():
    X = dask.array.ones((8, 2))
    with pytest.raises(ValueError, match=r"Xs\[0\] has shape \(nan, 2\)"):
        cka_matrix([X[X[:, 0] > 0]])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"kernel": "poly"}, "kernel is 'poly'; use linear, rbf, cosine or MODULE:OBJECT"),
        ({"estimator": "debiased"}, "estimator is 'debiased'; use unbiased or biased or exact"),
        ({"pool": "max"}, "pool is 'max'; use whole or mean"),
        ({"sigma": 0.4}, "sigma has no effect: kernel is linear, which has no sigma; leave it out"),
        ({"kernel": "rbf", "sigma": [0.2, 0.4]}, "ask for 2 methods; give one value of each"),
        ({"sigmas": 0.4}, "CKA of arrays has no setting sigmas; use batch_size, estimator, kernel"),
        ({"measure": "hsic"}, "CKA of arrays has no setting measure"),
        ({"kernel": "rbf", "sigma": 0.0}, r"sigma is 0\.0; use a number from 1e-09 to 1e\+09"),
        ({"kernel": "rbf", "sigma": np.nan}, "sigma is nan"),
        ({"batch_size": 3}, "batch-size is 3; use 4 or more"),
    ],
)
def test_settings_that_are_refused(setting, message):
    X = Watched(np.ones((8, 2)))
    with pytest.raises(ValueError, match=message):
        cka(X, X, **setting)
    assert X.read == []


def test_pairs_are_refused_by_their_names():
    with pytest.raises(ValueError, match="X has 8 examples and Y has 9"):
        cka(np.ones((8, 2)), np.ones((9, 2)))
