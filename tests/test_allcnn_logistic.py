"""Logistic regression: the optimum of scikit-learn, and the gradient of the definition."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from allcnn.probing import logistic

N, CLASSES = 60, 3


def make_problem(p, seed=0, n=N):
    """Return centred features of mean squared norm 1, and classes that they tell something of."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(CLASSES, size=n)
    X = rng.standard_normal((n, p)) + 1.5 * rng.standard_normal((CLASSES, p))[classes] / np.sqrt(p)
    X -= X.mean(axis=0)
    return X / np.sqrt(np.mean(np.sum(X**2, axis=1))), classes


def loss_by_definition(X, classes, W, b, penalty):
    """Sum over examples, one by one, in float64."""
    X, W, b = np.float64(X), np.float64(W), np.float64(b)
    total = 0.0
    for x, label in zip(X, classes, strict=True):
        scores = x @ W + b
        total += np.log(np.sum(np.exp(scores - scores.max()))) + scores.max() - scores[label]
    return total / len(X) + penalty / 2 * np.sum(W**2)


def by_sklearn(X, classes, penalty):
    """Return weights and intercepts of scikit-learn, whose loss is ours times n / penalty."""
    found = LogisticRegression(C=1 / (penalty * len(X)), tol=1e-10, max_iter=20_000)
    found.fit(X, classes)
    return found.coef_.T, found.intercept_


def fit(X, classes, penalty, *, is_gram, tolerance=1e-6, start=None):
    """Return weights, intercepts and the point of a fit."""
    basis = np.float32(X @ X.T if is_gram else X)
    point, _ = logistic.fit(
        basis, classes, CLASSES, penalty, start, is_gram=is_gram, tolerance=tolerance
    )
    A = np.float64(point.coefficients)
    return (X.T @ A if is_gram else A), np.float64(point.intercepts), point


@pytest.mark.parametrize("penalty", [1e-1, 1e-2, 1e-3])
@pytest.mark.parametrize("is_gram", [False, True])
@pytest.mark.parametrize("p", [5, 300])
def test_the_optimum_is_that_of_scikit_learn(p, is_gram, penalty):
    X, classes = make_problem(p)
    W, b, point = fit(X, classes, penalty, is_gram=is_gram)
    V, c = by_sklearn(X, classes, penalty)
    least = loss_by_definition(X, classes, V, c, penalty)
    # The tolerance is a bound on the loss; float32 adds a rounding error of the scores.
    assert loss_by_definition(X, classes, W, b, penalty) - least < 1e-6 + 1e-6
    # Strong convexity turns what is left of the loss into a distance of the weights.
    assert np.sum((W - V) ** 2) < 2 / penalty * 2e-6
    scores = X @ W + b
    np.testing.assert_allclose(point.scores, scores, atol=1e-5 * np.abs(scores).max())


@pytest.mark.parametrize("is_gram", [False, True])
def test_the_gradient_vanishes(is_gram):
    penalty, step = 1e-2, 1e-5
    X, classes = make_problem(5)
    W, b, _ = fit(X, classes, penalty, is_gram=is_gram)
    slopes = []
    for i in range(W.size):
        for_each = np.zeros(W.size)
        for_each[i] = step
        D = for_each.reshape(W.shape)
        above, below = (loss_by_definition(X, classes, W + s * D, b, penalty) for s in (1, -1))
        slopes.append((above - below) / (2 * step))
    # Within the tolerance, |gradient|² <= 2 penalty 1e-6.
    assert np.linalg.norm(slopes) < np.sqrt(2 * penalty * 1e-6) + step


def test_a_gram_matrix_and_features_give_one_classifier():
    X, classes = make_problem(40)
    (W, b, _), (V, c, _) = (fit(X, classes, 1e-2, is_gram=is_gram) for is_gram in (False, True))
    assert np.linalg.norm(W - V) < 2 * np.sqrt(2 / 1e-2 * 1e-6)
    np.testing.assert_array_equal(np.argmax(X @ W + b, 1), np.argmax(X @ V + c, 1))


@pytest.mark.parametrize("is_gram", [False, True])
def test_a_start_changes_nothing_but_the_way(is_gram):
    X, classes = make_problem(40)
    basis = np.float32(X @ X.T if is_gram else X)
    how = {"is_gram": is_gram, "tolerance": 1e-6}
    near, _ = logistic.fit(basis, classes, CLASSES, 2e-3, **how)
    cold, n_cold = logistic.fit(basis, classes, CLASSES, 1e-3, **how)
    warm, n_warm = logistic.fit(basis, classes, CLASSES, 1e-3, near, **how)
    again, n_again = logistic.fit(basis, classes, CLASSES, 1e-3, cold, **how)
    assert n_again <= 1
    assert 0 < n_warm < n_cold
    np.testing.assert_allclose(warm.scores, cold.scores, atol=0.05)
    np.testing.assert_allclose(again.scores, cold.scores, atol=1e-2)


def test_lengths_of_steps_are_those_of_the_weights():
    """Whichever way the weights are given: by these the penalty and the end are defined."""
    X, classes = make_problem(40)
    rng = np.random.default_rng(1)
    A, B = rng.standard_normal((2, N, CLASSES))
    b, c = rng.standard_normal((2, CLASSES))
    targets = np.eye(CLASSES)[classes]
    for basis, is_gram, V, W in ((X @ X.T, True, A, B), (X, False, X.T @ A, X.T @ B)):
        problem = logistic._Problem(np.float32(basis), np.float32(targets), 1.0, is_gram)
        first, second = (
            problem.at(np.float32(each), np.float32(of)) for each, of in ((V, b), (W, c))
        )
        wanted = np.sum((X.T @ A) * (X.T @ B))
        size = np.linalg.norm(X.T @ A) * np.linalg.norm(X.T @ B)
        assert abs(problem.of_weights(first, second) - wanted) < 1e-5 * size
        assert abs(problem.inner(first, second) - wanted - b @ c) < 1e-5 * size


def test_a_looser_tolerance_takes_fewer_steps():
    X, classes = make_problem(300)
    K = np.float32(X @ X.T)
    steps = [
        logistic.fit(K, classes, CLASSES, 1e-4, is_gram=True, tolerance=tolerance)[1]
        for tolerance in (1e-1, 1e-3, 1e-5)
    ]
    assert steps == sorted(steps)
    assert steps[0] < steps[-1] < logistic.MAX_STEPS


@pytest.mark.parametrize("is_gram", [False, True])
def test_features_of_zeros_give_the_frequencies(is_gram):
    classes = np.array([0, 0, 1, 1, 1, 2] * 10)
    nothing = np.zeros((len(classes), len(classes) if is_gram else 40), np.float32)
    point, n_steps = logistic.fit(nothing, classes, CLASSES, 1e-3, is_gram=is_gram)
    assert n_steps == 0
    np.testing.assert_allclose(np.exp(point.intercepts), [2 / 6, 3 / 6, 1 / 6], rtol=1e-6)
    assert not np.any(point.coefficients)


def test_separable_examples_are_separated():
    X, classes = make_problem(500)
    _, _, point = fit(X, classes, 1e-5, is_gram=True, tolerance=1e-3)
    np.testing.assert_array_equal(np.argmax(point.scores, 1), classes)


def test_the_same_bits_twice():
    X, classes = make_problem(100)
    first, second = (fit(X, classes, 1e-3, is_gram=True)[2] for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
