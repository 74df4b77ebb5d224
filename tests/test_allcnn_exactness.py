"""CKA to 1e-4 of float64 where examples lie far apart, from arrays and from stores.

The oracle multiplies and compares rows in float64 and sums in long double, by the definitions.
"""

import functools
import itertools

import ml_dtypes
import numpy as np
import pytest
from scipy.spatial.distance import cdist

import store
from allcnn.compare import compare
from allcnn.settings.comparison import Comparison
from allcnn.settings.selection import Selection
from allcnn.similarity import gram, pair_sums
from allcnn.similarity.arrays import cka_matrix
from allcnn.similarity.measures import Cka
from allcnn.similarity.method import Method
from allcnn.workspace.paths import Workspace
from tests import oracles
from tests.sweeps import every, sweep

N, BATCH = 72, 36
RANGES = [(0, 36), (36, 72)]
DTYPES = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16]
KERNELS = [("linear", None), ("cosine", None), ("rbf", 0.1), ("rbf", 0.4), ("rbf", 1000.0)]
ESTIMATORS = ["unbiased", "biased", "exact"]


def related(p, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((N, p))
    return X, 0.8 * X + 0.6 * rng.standard_normal((N, p))


@functools.cache
def cases():
    """Return pairs of representations by what is hard about them."""
    found = {}
    for p in (3, 40):
        X, Y = related(p)
        found[f"ordinary {p}"] = X, Y
        places = {
            "first": [0], "last": [N - 1], "first three": [0, 1, 2], "half": slice(0, N, 2),
            "every 16th": slice(0, N, 16), "a stretch": slice(30, 45), "all": slice(None),
        }  # fmt: skip
        for where, rows in places.items():
            for size in (30, 1e3, 3e4):
                A, B = X.copy(), Y.copy()
                A[rows, 1] += size
                B[rows, 2] -= 0.7 * size
                found[f"{where} far by {size:g} {p}"] = A, B
                A, B = X.copy(), Y.copy()
                A[rows] *= size
                B[rows] *= size
                found[f"{where} larger by {size:g} {p}"] = A, B
        for size in (1e2, 1e4):
            alternating, sorted_ = np.arange(N) % 2, np.arange(N) >= 25
            for name, cluster in (("mixed", alternating), ("sorted", sorted_)):
                shift = size * cluster[:, None]
                found[f"two clusters {name} {size:g} {p}"] = X + shift, Y + shift
        for mean in (10, 1e3, 1e4):
            A, B = X + mean, Y + mean
            found[f"mean {mean:g} {p}"] = A.copy(), B.copy()
            A[0] = B[0] = 0
            found[f"mean {mean:g} first blank {p}"] = A.copy(), B.copy()
            A[40:50] = B[40:50] = 0
            found[f"mean {mean:g} some blank {p}"] = A, B
        for scale in (1e-30, 1e-20, 1e20, 1e30):
            found[f"scale {scale:g} {p}"] = scale * X, scale * Y
        for scale in (1e-200, 1e-120, 1e120):
            found[f"float64 scale {scale:g} {p}"] = scale * X, scale * Y
        A, B = X.copy(), Y.copy()
        A[:30], B[:20] = 0, 0
        found[f"dead first {p}"] = A, B
        A, B = X.copy(), Y.copy()
        A[20:60], B[::2] = A[20], B[1]
        found[f"equal rows {p}"] = A, B
        A, B = X.copy(), Y.copy()
        A[::2] *= 1e-3
        B[::2] *= 1e-3
        found[f"half nearly equal {p}"] = A, B
    return found


def held(dtype):
    """Return the cases that a dtype holds: finite, and with a spread left."""
    kept = {}
    for name, (A, B) in cases().items():
        if name.startswith("float64") and dtype != np.float64:
            continue
        with np.errstate(over="ignore", under="ignore"):
            a, b = A.astype(dtype), B.astype(dtype)
        wide = a.astype(np.float64), b.astype(np.float64)
        if dtype == np.float16 and (np.abs(wide).max() > 6e4 or np.abs(wide).max() < 1e-3):
            continue
        if all(len(np.unique(each[:, 0])) > 9 for each in wide) and np.isfinite(wide).all():
            kept[name] = a, b
    return kept


def median64(X, ranges):
    pairs = [cdist(X[a:b], X[a:b])[np.triu_indices(b - a, 1)] for a, b in ranges]
    distances = np.concatenate(pairs)
    return np.median(distances[distances > 0])


def gram64(X, kernel, sigma):
    """Return a Gram but for what HSIC ignores, and the factor that was left out."""
    if kernel != "rbf":
        if kernel == "cosine":
            lengths = np.linalg.norm(X, axis=1, keepdims=True)
            X = X / np.where(lengths > 0, lengths, 1)
        X = X - X.mean(axis=0)
        return np.longdouble(X @ X.T), 1
    return np.exp(-((np.longdouble(cdist(X, X)) / sigma) ** 2) / 2), 1


def hsic64(K, L, estimator):
    """Sum as Song et al. (2012, eq. 5) or Gretton et al. (2005, eq. 9) write it."""
    n = len(K)
    if estimator == "biased":
        K, L = K - K[0, 0], L - L[0, 0]
        means = K.mean(0), L.mean(0)
        K = K - means[0] - means[0][:, None] + means[0].mean()
        return (K * L).sum() / (n - 1) ** 2
    off = ~np.eye(n, dtype=bool)
    K, L = np.where(off, K - K[off].mean(), 0), np.where(off, L - L[off].mean(), 0)
    means = K.sum() * L.sum() / ((n - 1) * (n - 2))
    return ((K * L).sum() + means - 2 / np.longdouble(n - 2) * (K.sum(0) @ L.sum(0))) / (
        n * (n - 3)
    )


def cka64(a, b, kernel, fraction, estimator):
    X, Y = np.float64(a), np.float64(b)
    X, Y = X / np.abs(X).max(), Y / np.abs(Y).max()
    ranges = [(0, N)] if estimator == "exact" else RANGES
    sigmas = [fraction * median64(Z, ranges) if kernel == "rbf" else None for Z in (X, Y)]
    sums = np.zeros(3, np.longdouble)
    for start, stop in ranges:
        K, L = (gram64(Z[start:stop], kernel, s)[0] for Z, s in zip((X, Y), sigmas, strict=True))
        pairs = ((K, L), (K, K), (L, L))
        sums += [(stop - start) * hsic64(P, Q, estimator) for P, Q in pairs]
    return float(sums[0] / np.sqrt(sums[1]) / np.sqrt(sums[2]))


@functools.cache
def wanted(dtype, kernel, fraction, estimator):
    return {name: cka64(*pair, kernel, fraction, estimator) for name, pair in held(dtype).items()}


def check(found, dtype, kernel, fraction, estimator):
    expected = wanted(dtype, kernel, fraction, estimator)
    off = {
        name: (value, expected[name])
        for name, value in found.items()
        if not abs(value - expected[name]) < 1e-4
    }
    assert off == {}


ARRAYS = [(dtype, *kernel, e) for dtype in DTYPES for kernel in KERNELS for e in ESTIMATORS]
OFTEN = [("linear", None, "unbiased"), ("rbf", 0.4, "exact")]
FLOAT32 = [("cosine", None, "unbiased"), ("rbf", 0.1, "unbiased"), ("rbf", 1000.0, "biased")]


@pytest.mark.parametrize(
    ("dtype", "kernel", "fraction", "estimator"),
    sweep(ARRAYS, lambda c: c[1:] in OFTEN or (c[0] == np.float32 and c[1:] in FLOAT32)),
)
def test_cka_of_arrays_is_that_of_float64(dtype, kernel, fraction, estimator):
    pairs = held(dtype)
    assert len(pairs) > 60
    how = {} if fraction is None else {"sigma": fraction}
    Xs, Ys = zip(*pairs.values(), strict=True)
    found = cka_matrix(Xs, Ys, kernel=kernel, estimator=estimator, batch_size=BATCH, **how)
    check(
        dict(zip(pairs, found.values.diagonal(), strict=True)), dtype, kernel, fraction, estimator
    )


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Return a workspace with all cases as taps of two networks, and their names."""
    workspace = Workspace.at(tmp_path_factory.mktemp("exactness"))
    names = {f"tap{i}": name for i, name in enumerate(held(np.float32))}
    examples = store.Examples.of("hard", "test", N)
    for side, run in enumerate(("a", "b")):
        taps = {tap: held(np.float32)[name][side] for tap, name in names.items()}
        how = {"run": run, "checkpoint": "final", "examples": examples, "dtype": "float32"}
        store.write_network(workspace.activations, taps, **how)
    return workspace, names


def asked(kernel, estimator, **how):
    """Return a kernel's fractions of the median, and the comparison of a with b by all of them."""
    fractions = [each for name, each in KERNELS if name == kernel]
    flat = {"kernel": kernel, "estimator": estimator, "batch_size": BATCH}
    flat |= {"sigma": fractions} if kernel == "rbf" else {}
    sides = Selection("a", "final"), Selection("b", "final")
    return fractions, Comparison(*sides, Method.several(flat), **how)


STORED = list(itertools.product(["linear", "cosine", "rbf"], ESTIMATORS))


@pytest.mark.parametrize(("kernel", "estimator"), every(8, STORED))
def test_cka_from_stores_is_that_of_float64(stored, kernel, estimator):
    workspace, names = stored
    fractions, job = asked(kernel, estimator)
    for fraction, result in zip(fractions, compare(workspace, job), strict=True):
        taps = [key.tap for key in result.rows]
        values = dict(zip((names[tap] for tap in taps), result.values.diagonal(), strict=True))
        check(values, np.float32, kernel, fraction, estimator)


def test_grams_of_stores_keep_their_bounds_and_only_what_needs_it_is_float64(stored):
    workspace, names = stored
    kept = {names[each.key.of.tap]: each for each in store.open_grams(workspace.grams).find()}
    linear = {name: each for name, each in kept.items() if each.key.kernel == "linear"}
    assert all(0 <= bound < 1e-3 for each in linear.values() for bound in each.bounds)
    assert linear["ordinary 40"].meta.precision == linear["mean 10 40"].meta.precision == "float32"
    assert linear["every 16th far by 30000 40"].meta.precision == "float64"


def classes():
    """Return pairs of representations whose classes, every other example, are unlike."""
    found, second = {}, np.arange(N) % 2 == 1
    for p in (5, 40):
        X, Y = related(p)
        for size in (3, 100, 1e3, 1e4):
            shift = size * second[:, None]
            found[f"apart by {size:g} {p}"] = X + shift, Y + shift
            A, B = X.copy(), Y.copy()
            A[second, 1] += size
            B[second, 2] -= size
            found[f"apart in one feature by {size:g} {p}"] = A, B
            factor = np.where(second, size, 1)[:, None]
            found[f"one wider by {size:g} {p}"] = factor * X, factor * Y
    return {name: (np.float32(A), np.float32(B)) for name, (A, B) in found.items()}


def class_cka64(a, b, label, kernel, fraction, estimator):
    X, Y = np.float64(a), np.float64(b)
    ranges = [(0, N)] if estimator == "exact" else RANGES
    sigmas = [fraction * median64(Z, ranges) if kernel == "rbf" else None for Z in (X, Y)]
    sums = np.zeros(3, np.longdouble)
    for start, stop in ranges:
        rows = [row for row in range(start, stop) if row % 2 == label]
        K, L = (gram64(Z[rows], kernel, s)[0] for Z, s in zip((X, Y), sigmas, strict=True))
        sums += [len(rows) * hsic64(P, Q, estimator) for P, Q in ((K, L), (K, K), (L, L))]
    return float(sums[0] / np.sqrt(sums[1]) / np.sqrt(sums[2]))


@pytest.fixture(scope="module")
def stored_classes(tmp_path_factory):
    workspace = Workspace.at(tmp_path_factory.mktemp("classes"))
    names = {f"tap{i}": name for i, name in enumerate(classes())}
    examples = store.Examples.of("hard", "test", N, labels=np.arange(N) % 2)
    for side, run in enumerate(("a", "b")):
        taps = {tap: classes()[name][side] for tap, name in names.items()}
        how = {"run": run, "checkpoint": "final", "examples": examples, "dtype": "float32"}
        store.write_network(workspace.activations, taps, **how)
    return workspace, names


@pytest.mark.parametrize(("kernel", "estimator"), every(8, STORED))
def test_cka_of_classes_that_lie_far_apart_is_that_of_float64(stored_classes, kernel, estimator):
    workspace, names = stored_classes
    fractions, job = asked(kernel, estimator, label="each")
    results = iter(compare(workspace, job))
    for fraction in fractions:
        for label in (0, 1):
            result = next(results)
            for key, value in zip(result.rows, result.values.diagonal(), strict=True):
                pair = classes()[names[key.tap]]
                wanted = class_cka64(*pair, label, kernel, fraction, estimator)
                assert value == pytest.approx(wanted, abs=1e-4), (names[key.tap], label)


@pytest.mark.parametrize("p", [3, 20, 200])
def test_tight_classes_keep_their_digits_where_most_pairs_are_of_different_ones(p):
    n, rng = 256, np.random.default_rng(0)
    centres, label = rng.standard_normal((10, p)), rng.integers(0, 10, n)
    X = rng.standard_normal((n, p))
    Y = 0.8 * X + 0.6 * rng.standard_normal((n, p))
    for size in (1, 3, 10, 30, 100, 300, 1e3):
        pair = [np.float32(Z + size * centres[label]) for Z in (X, Y)]
        Ks = [gram.gram(Z).values for Z in pair]
        for rows in (np.flatnonzero(label == each) for each in range(10)):
            sums = pair_sums.group_sums([K[np.ix_(rows, rows)] for K in Ks], None, Cka())
            found = sums.cross[0, 1] / np.sqrt(sums.rows[0] * sums.rows[1])
            K, L = (gram64(np.float64(Z[rows]), "linear", None)[0] for Z in pair)
            own = hsic64(K, K, "unbiased") * hsic64(L, L, "unbiased")
            assert found == pytest.approx(float(hsic64(K, L, "unbiased") / np.sqrt(own)), abs=1e-4)
    assert Ks[0].dtype == np.float64
    assert p == 3 or gram.gram(X + 3 * centres[label]).values.dtype == np.float32


@pytest.mark.parametrize(
    ("scale", "estimator"), every(4, itertools.product([1e-200, 1e-60, 1e100], ESTIMATORS))
)
def test_a_dead_beginning_says_nothing_of_the_size_of_the_rest(tmp_path, scale, estimator):
    n, workspace = 400, Workspace.at(tmp_path)
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 5))
    Y = 0.8 * X + 0.6 * rng.standard_normal((n, 5))
    X[:300], Y[:300] = 0, 0
    how = {"checkpoint": "final", "dtype": "float64"}
    sides = Selection("a", "final"), Selection("b", "final")
    for run, Z in (("a", X), ("b", Y)):
        examples = store.Examples.of("hard", "test", n)
        store.write_network(
            workspace.activations, {"fc": scale * Z}, run=run, examples=examples, **how
        )
    for kernel in ("linear", "rbf"):
        ranges = pair_sums.split_minibatches(n, 64)
        wanted = oracles.cka64([X], [Y], ranges, kernel=kernel, estimator=estimator).item()
        ways = {"kernel": kernel, "estimator": estimator, "batch_size": 64}
        (result,) = compare(workspace, Comparison(*sides, Method.several(ways)))
        found = cka_matrix([scale * X], [scale * Y], **ways).values
        assert result.values.item() == pytest.approx(wanted, abs=1e-4)
        assert found.item() == pytest.approx(wanted, abs=1e-4)


def test_sizes_of_which_float64_does_not_hold_the_fourth_power_make_no_number_up():
    X, Y = related(5)
    X[:BATCH] *= 1e-40
    Y[:BATCH] *= 1e-40
    wanted = cka64(X, Y, "linear", None, "unbiased")
    found = cka_matrix([X], [Y], batch_size=BATCH).values.item()
    assert found == pytest.approx(wanted, abs=1e-4)


def test_float64_and_float32_grams_are_summed_alike():
    X, Y = related(20)
    Ks = [np.float32(Z @ Z.T) for Z in (X, Y)]
    for estimator in ("unbiased", "biased"):
        narrow = pair_sums.minibatch_sums(Ks, None, Cka(estimator))
        mixed = pair_sums.minibatch_sums([Ks[0], np.float64(Ks[1])], None, Cka(estimator))
        np.testing.assert_allclose(mixed.cross, narrow.cross, rtol=1e-5)
