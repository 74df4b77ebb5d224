"""Kernels and measures, of the package and of others: their definitions, and what all of them keep.

A kernel and a measure from outside the package are those of tests/plugins.
"""

import sys
from dataclasses import dataclass, replace
from typing import ClassVar

import jax
import numpy as np
import pytest
from scipy.spatial.distance import cdist, pdist, squareform

from allcnn.compare.results import described
from allcnn.definitions.fields import setting
from allcnn.definitions.registry import Registry, Varying
from allcnn.errors import ConfigError
from allcnn.similarity.arrays import similarity_matrix
from allcnn.similarity.derived import kernel_of, wide_kernel_of
from allcnn.similarity.gram import gram
from allcnn.similarity.jackknife import jackknife
from allcnn.similarity.kernels import KERNELS, Kernel, Linear, Rbf
from allcnn.similarity.measures import MEASURES, Cka, Hsic, PairSums
from allcnn.similarity.method import Method
from allcnn.similarity.pair_sums import (
    MinibatchSums,
    group_sums,
    merged,
    minibatch_sums,
    permuted_sums,
)
from tests.oracles import (
    ORACLES,
    cosine_gram64,
    jackknife64,
    linear_gram64,
    median_distance64,
    rbf_gram64,
    song_hsic,
    squared_distances64,
)
from tests.plugins.distance import Distance
from tests.plugins.rsa import Rsa

N, BATCH = 40, 16
RANGES = [(0, 16), (16, 32), (32, 40)]
DISTANCE, RSA = "tests.plugins.distance:Distance", "tests.plugins.rsa:Rsa"

ESTIMATORS = ("unbiased", "biased", "exact")
ALL_KERNELS = [*(KERNELS.find(name)() for name in (*KERNELS.names, DISTANCE)), Rbf(1.5)]
ALL_MEASURES = [of(each) for of in (Cka, Hsic) for each in ESTIMATORS] + [Rsa()]
IN_MINIBATCHES = [each for each in ALL_MEASURES if not each.is_whole]

every_kernel = pytest.mark.parametrize("kernel", ALL_KERNELS, ids=lambda k: k.slug)
every_measure = pytest.mark.parametrize("measure", ALL_MEASURES, ids=repr)
every_measure_of_minibatches = pytest.mark.parametrize("measure", IN_MINIBATCHES, ids=repr)


def arrays(*widths, seed=0, n=N):
    """Return arrays over the same examples, with part of their signal in common."""
    signal = np.random.default_rng(99).standard_normal((n, 6))
    rng = np.random.default_rng(seed)
    return [
        np.float32(signal @ rng.standard_normal((6, p)) + 2 * rng.standard_normal((n, p)) + 1)
        for p in widths
    ]


def kernel64(kernel, X, median):
    """Return a kernel by its definition."""
    if isinstance(kernel, Rbf):
        return rbf_gram64(X, kernel.sigma * median)
    if isinstance(kernel, Distance):
        return -cdist(np.float64(X), np.float64(X))
    return {"linear": linear_gram64, "cosine": cosine_gram64}[kernel.name](X)


def product64(measure, K, L):
    """Return n times a measure's product of two Grams by its definition."""
    if not isinstance(measure, Rsa):
        return len(K) * ORACLES[measure.estimator](K, L)
    upper = np.triu_indices(len(K), 1)
    squared = [(np.diag(M)[:, None] + np.diag(M) - 2 * M)[upper] for M in (K, L)]
    return len(K) * np.cov(*squared, bias=True)[0, 1]


def sums64(measure, kernel, Xs, Ys):
    """Return the sums over all minibatches by definition."""
    ranges = [(0, N)] if measure.is_whole else RANGES

    def grams(X):
        median = median_distance64(X, ranges)
        return [kernel64(kernel, X[start:stop], median) for start, stop in ranges]

    def summed(A, B):
        return sum(product64(measure, K, L) for K, L in zip(A, B, strict=True))

    Ks, Ls = ([grams(X) for X in side] for side in (Xs, Ys))
    cross = np.array([[summed(K, L) for L in Ls] for K in Ks])
    own = [np.array([summed(K, K) for K in side]) for side in (Ks, Ls)]
    return PairSums(cross, *own, N)


def value64(measure, sums):
    if isinstance(measure, Hsic) and not isinstance(measure, Cka):
        return sums.cross / N
    return sums.cross / np.sqrt(sums.rows[:, None] * sums.columns[None, :])


def scale_of(measure, sums):
    """Return a typical size of the values."""
    return np.sqrt(sums.rows.max() * sums.columns.max()) / N if measure.limits is None else 1


# Definition


@every_kernel
@every_measure
def test_values_are_those_of_the_definition(kernel, measure):
    Xs, Ys = arrays(20, 50, seed=1), arrays(30, 7, seed=2)
    found = similarity_matrix(Xs, Ys, Method(measure, kernel, batch_size=BATCH)).values
    sums = sums64(measure, kernel, Xs, Ys)
    # 1e-5: float32 Grams, each entry rounded to 6e-8 of the largest.
    atol = 1e-5 * scale_of(measure, sums)
    np.testing.assert_allclose(found, value64(measure, sums), rtol=0, atol=atol)
    own = similarity_matrix(Xs, None, Method(measure, kernel, batch_size=BATCH)).values
    wanted = value64(measure, sums64(measure, kernel, Xs, Xs))
    np.testing.assert_allclose(own, wanted, rtol=0, atol=atol)
    np.testing.assert_array_equal(own, own.T)


def u_centred(D):
    """Centre distances entry by entry (Székely and Rizzo 2014, equation 2.6)."""
    n, total = len(D), D.sum()
    A = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            if i != j:
                means = (D[i].sum() + D[:, j].sum()) / (n - 2)
                A[i, j] = D[i, j] - means + total / ((n - 1) * (n - 2))
    return A


def test_hsic_of_the_distance_kernel_is_squared_distance_covariance():
    X, Y = arrays(5, 8)
    A, B = (u_centred(squareform(pdist(np.float64(Z)))) for Z in (X, Y))
    wanted = (A * B).sum() / (N * (N - 3))
    for method in (
        Method(Hsic("exact"), Distance(), batch_size=7),
        Method(Hsic("unbiased"), Distance(), batch_size=N),
    ):
        found = similarity_matrix([X], [Y], method).values.item()
        assert found == pytest.approx(wanted, rel=1e-5)
    D, E = (cdist(np.float64(Z), np.float64(Z)) for Z in (X, Y))
    assert song_hsic(-D, -E) == pytest.approx(wanted, rel=1e-12)


def test_rsa_of_one_minibatch_is_the_correlation_of_squared_distances():
    Xs, Ys = arrays(5, 20, seed=1), arrays(8, 30, 3, seed=2)
    found = similarity_matrix(Xs, Ys, Method(Rsa(), batch_size=N)).values
    squared = [[squared_distances64(X) for X in side] for side in (Xs, Ys)]
    wanted = np.corrcoef(*map(np.stack, squared))[: len(Xs), len(Xs) :]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    assert 0.1 < np.abs(wanted).max() < 0.9


def test_rsa_of_permuted_examples_is_the_correlation_with_reordered_rows():
    Xs = arrays(5, 20)
    Ks = [gram(X).values for X in Xs]
    orders = np.stack([np.arange(N), np.random.default_rng(0).permutation(N)])
    found = permuted_sums(Ks, None, orders, Rsa())
    sums = minibatch_sums(Ks, None, Rsa())
    squared = [squared_distances64(X) for X in Xs]
    for order, cross in zip(orders, found, strict=True):
        moved = [squared_distances64(X[order]) for X in Xs]
        wanted = np.corrcoef(np.stack(squared), np.stack(moved))[:2, 2:]
        values = Rsa().finish(sums._replace(cross=cross))
        np.testing.assert_allclose(values, wanted, rtol=0, atol=1e-5)
    # No pair of an example with itself enters, in whatever order.
    wider = [K + np.float32(3) * np.eye(N, dtype=np.float32) for K in Ks]
    np.testing.assert_allclose(found[0].diagonal(), sums.rows, rtol=1e-5)
    features = Rsa().features(np.float64(wider[0]))
    assert not features.diagonal().any()


def test_standard_errors_are_those_of_any_measure():
    X, Y = arrays(20, 30)
    for measure in (Cka(), Rsa()):
        parts = minibatches(Linear(), measure, [X], [Y])
        sums = [(parts.cross[b].item(), *parts.rows[b], *parts.columns[b]) for b in range(3)]
        wanted = jackknife64(*zip(*sums, strict=True), parts.sizes)
        found = similarity_matrix([X], [Y], Method(measure, batch_size=BATCH)).standard_errors
        assert found.item() == pytest.approx(wanted, rel=1e-6)
    parts = minibatches(Linear(), Hsic(), [X], [Y])
    # The jackknife of a weighted mean, for minibatches of one size that of a mean.
    equal = MinibatchSums.stack([parts[0], parts[1]])
    each = equal.cross.ravel() / BATCH
    assert jackknife(equal, Hsic()).values.item() == pytest.approx(each.std(ddof=1) / np.sqrt(2))


# What all keep


def minibatches(kernel, measure, Xs, Ys):
    def derived(side, start, stop):
        Ks = [gram(X[start:stop]).values for X in side]
        return kernel_of(Ks, kernel, [median_distance64(X, RANGES) for X in side], measure)

    parts = [minibatch_sums(derived(Xs, *span), derived(Ys, *span), measure) for span in RANGES]
    return MinibatchSums.stack(parts)


def assert_same_values(measure, found, wanted, rtol):
    sums = wanted if isinstance(wanted, PairSums) else None
    a, b = (
        measure.finish(each) if isinstance(each, PairSums) else each for each in (found, wanted)
    )
    scale = 1 if measure.limits else scale_of(measure, sums) if sums else np.abs(b).max()
    np.testing.assert_allclose(a / scale, b / scale, rtol=0, atol=rtol)


@every_kernel
@every_measure
def test_a_shift_and_a_rotation_of_the_features_change_nothing(kernel, measure):
    X, Y = arrays(20, 30)
    method = Method(measure, kernel, batch_size=BATCH)
    Q, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((20, 20)))
    wanted = similarity_matrix([X], [Y], method).values
    moved = [np.float32(X @ Q)]
    if kernel.base == "linear":
        moved.append(X + np.linspace(-50, 50, 20, dtype=np.float32)[None, :])
    found = similarity_matrix(moved, [Y], method).values
    assert_same_values(measure, found, np.repeat(wanted, len(moved), axis=0), rtol=1e-4)


@every_kernel
@every_measure
def test_another_order_of_the_examples_changes_nothing(kernel, measure):
    Xs = arrays(20, 30)
    order = np.random.default_rng(0).permutation(N)
    method = Method(measure, kernel, batch_size=N)
    wanted = similarity_matrix(Xs, None, method).values
    found = similarity_matrix([X[order] for X in Xs], None, method).values
    assert_same_values(measure, found, wanted, rtol=1e-5)


@every_kernel
@every_measure_of_minibatches
def test_merged_minibatches_are_the_whole(kernel, measure):
    if kernel.base == "cosine":
        pytest.skip("the Grams of this test are linear")
    Xs, Ys = arrays(20, 50, seed=1), arrays(30, seed=2)
    parts = minibatches(kernel, measure, Xs, Ys)
    whole = similarity_matrix(Xs, Ys, Method(measure, kernel, batch_size=BATCH))
    assert_same_values(measure, parts.total(), whole.values, rtol=1e-6)
    a, b, c = (parts[i] for i in range(3))
    left, right = merged(merged(a, b), c), merged(a, merged(b, c))
    assert_same_values(measure, left, right, rtol=1e-12)
    np.testing.assert_allclose(jackknife(parts, measure).values, whole.standard_errors, rtol=1e-3)


@every_kernel
@every_measure_of_minibatches
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_compiled_sums_are_those_of_float64(kernel, measure, dtype):
    """From Grams of either precision, and without compilation."""
    base = "cosine" if kernel.base == "cosine" else "linear"
    Xs, Ys = arrays(20, 50, seed=1), arrays(30, seed=2)
    Ks, Ls = ([dtype(gram(X, base).values) for X in side] for side in (Xs, Ys))
    medians = [[median_distance64(X) for X in side] for side in (Xs, Ys)]

    def sides(derive):
        pairs = zip((Ks, Ls), medians, strict=True)
        return [derive(side, kernel, own, measure) for side, own in pairs]

    compiled = minibatch_sums(*sides(kernel_of), measure)
    wide = group_sums(*sides(wide_kernel_of), measure)
    with jax.disable_jit():
        eager = minibatch_sums(*sides(kernel_of), measure)
    scale = np.sqrt(wide.rows[:, None] * wide.columns[None, :])
    for found in (compiled, eager):
        np.testing.assert_allclose(found.cross / scale, wide.cross / scale, rtol=0, atol=1e-5)
        np.testing.assert_allclose(found.rows, wide.rows, rtol=1e-5)
        np.testing.assert_allclose(found.columns, wide.columns, rtol=1e-5)


def test_another_bandwidth_is_not_compiled_again(caplog):
    (X,) = arrays(20)
    K = gram(X).values
    kernel_of([K], Rbf(0.31), [3.0], Cka())
    with jax.log_compiles():
        kernel_of([K], Rbf(0.32), [3.0], Cka())
        assert "_derived" not in caplog.text
        kernel_of([K[:-1, :-1]], Rbf(0.32), [3.0], Cka())
        assert "_derived" in caplog.text


@every_measure_of_minibatches
def test_a_constant_adds_nothing_and_is_nan_where_it_is_divided_by(measure):
    X, constant = arrays(20, 30)
    constant[:] = constant[0]
    sums = minibatch_sums([gram(each).values for each in (X, constant)], None, measure)
    assert not sums.cross[1].any()
    assert not sums.rows[1]
    values = measure.finish(sums)
    if type(measure) is Hsic:
        assert values[1, 1] == 0
        return
    np.testing.assert_array_equal(np.isnan(values), [[False, True], [True, True]])
    why = measure.why_undefined(sums, 1, 0)
    assert "of row 1 with itself sums to 0" in why
    assert why.endswith(f"; {measure.title} needs a finite sum above 0")


@every_kernel
@every_measure
def test_methods_survive_json_and_are_described(kernel, measure):
    method = Method(measure, kernel, "mean", 16)
    assert Method.from_json(method.to_json()) == method
    assert hash(replace(method)) == hash(method)
    facts = described(method, N)
    assert facts["batch_size"] == (N if measure.is_whole else 16)
    low, high = facts["limits"]
    assert low < high
    assert all(isinstance(facts[name], str) for name in ("title", "how", "qualifier", "sums"))
    assert kernel.slug in facts["kernel_title"].lower().replace(" ", "")


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([[0.5, 3.0]], (0, 3)),
        ([[-0.5, np.nan, 3.0, np.inf]], (-0.5, 3)),
        ([[-0.5, -0.25]], (-0.5, -0.25)),
        ([[0.0]], (0, 1)),
        ([[np.nan]], (0, 1)),
        ([], (0, 1)),
    ],
)
def test_the_limits_of_hsic_are_those_of_its_values(values, wanted):
    found = described(Method(Hsic()), N, values)["limits"]
    assert found == list(wanted)
    assert all(type(number) is float for number in found)
    assert described(Method(Cka()), N, values)["limits"] == [0.0, 1.0]
    assert described(Method(Rsa()), N, values)["limits"] == [-1.0, 1.0]


# The registry


@dataclass(frozen=True)
class Power(Kernel):
    """xᵀy to a power, to try settings."""

    name: ClassVar[str] = "power"

    sigma: float = setting(1.0, "a factor", several=True)
    degree: str = setting("odd", "of the power", choices=("odd", "even"))
    count: int = setting(1, "a number")
    odd: bool = setting(True, "whether it is")
    note: str = setting("", "a text")

    def transform(self, pairs):
        return self.sigma * pairs.products


@dataclass(frozen=True)
class Colour(Varying):
    name: ClassVar[str] = "colour"


def test_own_objects_are_found_by_name_and_those_of_others_by_module():
    assert KERNELS.names == ("linear", "rbf", "cosine")
    assert MEASURES.names == ("cka", "hsic")
    assert KERNELS.find("rbf") is Rbf
    assert KERNELS.find(DISTANCE) is Distance
    assert (Rbf().reference, Distance().reference, Rsa().reference) == ("rbf", DISTANCE, RSA)
    for registry in (KERNELS, MEASURES):
        for name in registry.names:
            assert registry.find(name)().reference == name
            assert registry.find(f"{registry.find(name).__module__}:{name.title()}")().name == name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("poly", r"kernel is 'poly'; use linear, rbf, cosine or MODULE:OBJECT"),
        ("", r"kernel is ''; use linear, rbf, cosine or MODULE:OBJECT"),
        (None, r"kernel is None; use linear, rbf, cosine or MODULE:OBJECT"),
        (["linear"], r"kernel is \['linear'\]; use linear, rbf, cosine or MODULE:OBJECT"),
        ("../a:B", r"kernel is '../a:B'; use"),
        ("a:B.c", r"kernel is 'a:B.c'; use"),
        (
            "no_such_module:Kernel",
            r"kernel is no_such_module:Kernel, which cannot be imported \(No module named"
            r" 'no_such_module'\); check the module's name, and that its folder is on PYTHONPATH",
        ),
        (
            "tests.plugins.distance:Nothing",
            r"kernel is tests.plugins.distance:Nothing, which cannot be imported \("
            r"module 'tests.plugins.distance' has no attribute 'Nothing'\); check",
        ),
        (
            RSA,
            r"kernel is tests.plugins.rsa:Rsa, which is no Kernel; name a frozen dataclass that"
            r" derives from allcnn.similarity.kernels.kernel.Kernel",
        ),
        ("tests.test_plugins_similarity:Colour", "which is no Kernel; name a frozen dataclass"),
        ("os:path", "kernel is os:path, which is no Kernel; name a frozen dataclass"),
    ],
)
def test_names_that_are_refused(name, message):
    with pytest.raises(ConfigError, match=f"^{message}" if "kernel" in message else message) as of:
        KERNELS.find(name)
    assert "\n" not in str(of.value)
    with pytest.raises(ConfigError):
        Method.from_json({"kernel": name})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = (\n", r".* was never closed \(broken\.py, line 1\)"),
        ("x = 1 / 0\n", "division by zero"),
        ("raise ValueError('two\\nlines')\n", "two lines"),
        ("raise SystemExit\n", "SystemExit"),
    ],
)
def test_a_module_that_fails_is_one_sentence(tmp_path, monkeypatch, text, message):
    (tmp_path / "broken.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    with pytest.raises(ConfigError, match=rf"^kernel is broken:K, which .* \({message}\); check"):
        KERNELS.find("broken:K")


def test_settings_without_effect_are_refused_where_somebody_asked_for_them():
    values = {"sigma": 0.2}
    assert KERNELS.make("linear", values) == Linear()
    assert KERNELS.make("rbf", values, ["sigma"]) == Rbf(0.2)
    for name in ("linear", DISTANCE):
        message = rf"^sigma has no effect: kernel is {name}, which has no sigma; leave it out, or"
        with pytest.raises(ConfigError, match=rf"{message} use the kernel rbf$"):
            KERNELS.make(name, values, ["sigma"])


def test_settings_of_other_packages_are_checked_and_may_be_lists():
    name = "tests.test_plugins_similarity:Power"
    own = KERNELS.settings(name)
    assert set(own) == {"sigma", "degree", "count", "odd", "note"}
    assert own["sigma"].bounds is not None  # described by the first that has it
    assert set(Method.settings(name, RSA)) >= {"degree", "sigma", "estimator", "measure"}
    made = Method.several({"kernel": name, "sigma": [2, 0.5], "degree": "even"})
    assert [each.kernel for each in made] == [Power(2, "even"), Power(0.5, "even")]
    for setting_, value, wanted in (
        ("degree", "round", "odd or even"),
        ("sigma", "x", "a number"),
        ("sigma", True, "a number"),
        ("sigma", [1.0, {}], "a number"),
        ("count", 1.5, "a whole number"),
        ("odd", 1, "true or false"),
        ("note", 1, "text"),
    ):
        shown = value[1] if isinstance(value, list) else value
        with pytest.raises(ConfigError, match=f"{setting_} is {shown!r}; use {wanted}"):
            Method.several({"kernel": name, setting_: value})


def test_a_registry_holds_objects_of_its_kind():
    colours = Registry("colour", Colour, (Colour,))
    assert colours.find("colour") is Colour
    assert colours.make("colour", {}) == Colour()
    with pytest.raises(ConfigError, match=r"^colour is 'red'; use colour or MODULE:OBJECT"):
        colours.find("red")
