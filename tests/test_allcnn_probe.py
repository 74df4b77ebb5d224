"""Probes of arrays: scikit-learn's predictions, invariances of CKA, and what no probe can learn."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from allcnn.errors import ProbeError
from allcnn.probing import classifier
from allcnn.settings.probing import PENALTIES
from tests.sweeps import slow

CLASSES = 4
ONE = (1e-3,)
"""A single penalty: nothing is chosen."""


def make_data(shape, n=160, n_test=80, seed=0, signal=2.0, mean=0.0, dtype=np.float32):
    """Return training and test examples with their classes, which differ in their means.

    Those are enough for few features to be trained on themselves, and not by their Gram matrix.
    """
    rng = np.random.default_rng(seed)
    centres = signal * rng.standard_normal((CLASSES, *shape)) / np.sqrt(np.prod(shape))
    classes = rng.integers(CLASSES, size=n + n_test)
    X = rng.standard_normal((n + n_test, *shape)) * rng.uniform(0.2, 2, shape) + centres[classes]
    X = (X + mean).astype(dtype)
    return (X[:n], classes[:n]), (X[n:], classes[n:])


def source(X, block_rows=32, pool="whole"):
    return classifier.FeatureSource(lambda start, stop: X[start:stop], len(X), block_rows, pool)


def train_and_test(training, test, penalties=ONE, **how):
    """Return a probe and the predicted classes of the test examples."""
    (X, classes), (Z, _) = training, test
    found = classifier.train(source(X, **how), classes, CLASSES, penalties)
    assert found is not None
    return found, classifier.evaluate(found, source(Z, **how))


def by_sklearn(training, test, penalty):
    """Standardise by float64 means, fit scikit-learn's classifier, and return its test scores."""
    X, Z = (np.float64(each[0]).reshape(len(each[0]), -1) for each in (training, test))
    mean = X.mean(axis=0)
    size = np.sqrt(np.mean([x @ x for x in X - mean]))
    found = LogisticRegression(C=1 / (penalty * len(X)), tol=1e-10, max_iter=20_000)
    found.fit((X - mean) / size, training[1])
    return found.decision_function((Z - mean) / size)


@pytest.mark.parametrize(
    ("shape", "mean"),
    [
        ((6,), 300.0),
        ((5, 5, 8), 0.0),
        slow(((6,), 0.0)),
        slow(((5, 5, 8), 300.0)),
        slow(((300,), 0.0)),
        slow(((300,), 300.0)),
    ],
)
def test_scores_are_those_of_scikit_learn(shape, mean):
    training, test = make_data(shape, mean=mean)
    found, predicted = train_and_test(training, test, (1e-2,))
    wanted = by_sklearn(training, test, 1e-2)
    rows = test[0].reshape(len(test[0]), -1).astype(np.float64)
    scores = (rows - found.reference) @ found.weights + found.offsets
    # Within 1e-3 nats of the optimum weights are off by sqrt(2e-3 / penalty), at most; on examples
    # of norm 1 so are scores. What all classes have in common says nothing.
    scores -= scores.mean(axis=1, keepdims=True) - wanted.mean(axis=1, keepdims=True)
    off = np.sqrt(np.mean((scores - wanted) ** 2))
    assert off < 0.1 * np.sqrt(2e-3 / 1e-2)
    margins = np.diff(np.sort(wanted, axis=1)[:, -2:], axis=1)[:, 0]
    sure = margins > 6 * off
    assert sure.mean() > 0.5
    np.testing.assert_array_equal(predicted[sure], wanted.argmax(axis=1)[sure])
    assert found.weights.shape == (np.prod(shape), CLASSES)
    assert found.penalty == 1e-2


def orthogonal(p, rng):
    return np.linalg.qr(rng.standard_normal((p, p)))[0]


TRANSFORMS = {
    "rotated": lambda X, rng: X @ orthogonal(X.shape[1], rng),
    "scaled": lambda X, rng: 1e3 * X,
    "shifted": lambda X, rng: X + rng.standard_normal(X.shape[1]),
    "permuted": lambda X, rng: X[:, rng.permutation(X.shape[1])],
}


@pytest.mark.parametrize("how", TRANSFORMS)
@pytest.mark.parametrize("p", [6, slow(300)])
def test_what_cka_does_not_see_changes_no_prediction(p, how):
    training, test = make_data((p,))
    found, predicted = train_and_test(training, test)
    both = np.concatenate([training[0], test[0]])
    other = TRANSFORMS[how](np.float64(both), np.random.default_rng(1)).astype(np.float32)
    changed = (other[:160], training[1]), (other[160:], test[1])
    again, predicted_again = train_and_test(*changed)
    # An example between two classes may go to either.
    assert np.mean(predicted != predicted_again) <= 1 / 80
    assert abs(found.train_accuracy - again.train_accuracy) <= 1 / 160


def test_the_largest_features_are_not_made_smaller():
    """Features are scaled by one number: one that is large stays the one that counts."""
    training, test = make_data((6,), signal=0.0)
    for X, classes in (training, test):
        X[:, 0] = 100 * (classes == 2) + 0.1 * X[:, 0]
    found, predicted = train_and_test(training, test)
    np.testing.assert_array_equal(predicted == 2, test[1] == 2)
    weights = np.abs(found.weights)
    assert weights[0].max() * 100 > 100 * (weights[1:].max() * 2)


@pytest.mark.parametrize("p", [6, 300])
def test_separable_classes_are_all_found(p):
    training, test = make_data((p,), signal=100.0)
    found, predicted = train_and_test(training, test, PENALTIES)
    np.testing.assert_array_equal(predicted, test[1])
    assert found.train_accuracy == 1.0


@pytest.mark.parametrize("p", [6, 300])
def test_labels_that_are_independent_of_the_features_are_guessed(p):
    training, test = make_data((p,), n_test=2000, signal=0.0)
    _, predicted = train_and_test(training, test, PENALTIES)
    # The standard error of a share of 2,000 is 1 %.
    chance = 1 / CLASSES
    assert abs(np.mean(predicted == test[1]) - chance) < 4 * np.sqrt(chance * (1 - chance) / 2000)


@pytest.mark.parametrize(("p", "value"), [(6, 3.1), (300, 0.0), slow((6, 0.0)), slow((300, 3.1))])
def test_a_constant_tap_gives_the_most_frequent_class(p, value):
    X = np.full((161, p), value, np.float32)
    classes = np.arange(161) % CLASSES  # class 0 has one more
    found, predicted = train_and_test((X, classes), (X[:7], classes[:7]), PENALTIES)
    np.testing.assert_array_equal(predicted, 0)
    assert found.train_accuracy == 41 / 161
    assert np.isfinite(found.weights).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("row", [0, 17, 159])
@pytest.mark.parametrize("p", [6, 300])
def test_activations_that_are_not_finite_have_no_probe(p, row, value):
    (X, classes), _ = make_data((p,))
    X[row, 2] = value
    assert classifier.train(source(X), classes, CLASSES, ONE) is None


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_test_example_that_is_not_finite_has_no_class(value):
    training, (Z, classes) = make_data((6,))
    Z[3, 1] = value
    _, predicted = train_and_test(training, (Z, classes))
    assert np.flatnonzero(predicted < 0).tolist() == [3]


@pytest.mark.parametrize("shape", [(6,), (5, 5, 8)])
def test_blocks_of_any_size_and_memory_give_one_probe(shape, monkeypatch):
    training, test = make_data(shape)
    whole, predicted = train_and_test(training, test, block_rows=1000)
    monkeypatch.setattr(classifier, "_HELD_BYTES", 40 * training[0][0].nbytes)
    parts, predicted_in_parts = train_and_test(training, test, block_rows=7)
    np.testing.assert_array_equal(predicted, predicted_in_parts)
    scale = np.abs(whole.weights).max()
    np.testing.assert_allclose(parts.weights, whole.weights, atol=1e-2 * scale)


def test_memory_bounds_the_rows_that_are_read_at_once(monkeypatch):
    (X, classes), _ = make_data((5, 5, 8))
    monkeypatch.setattr(classifier, "_HELD_BYTES", 40 * X[0].nbytes)
    asked = []

    def read(start, stop):
        asked.append((start, stop))
        return X[start:stop]

    classifier.train(classifier.FeatureSource(read, len(X), 8), classes, CLASSES, ONE)
    assert max(stop - start for start, stop in asked) == 40
    # The first block for the reference; 40 rows with themselves and all after them, four times;
    # and once more for the weights.
    assert sum(stop - start for start, stop in asked) == 8 + (160 + 120 + 80 + 40) + 160


def test_where_memory_has_the_room_each_row_is_read_once():
    (X, classes), _ = make_data((5, 5, 8))
    asked = []

    def read(start, stop):
        asked.append((start, stop))
        return X[start:stop]

    classifier.train(classifier.FeatureSource(read, len(X), 8), classes, CLASSES, ONE)
    assert sorted(asked[1:]) == [(i, i + 8) for i in range(0, 160, 8)]


def test_the_mean_over_space_is_taken_first():
    training, test = make_data((5, 5, 8))
    pooled = [(X.mean(axis=(1, 2), dtype=np.float64), classes) for X, classes in (training, test)]
    found, predicted = train_and_test(training, test, pool="mean")
    wanted, predicted_wanted = train_and_test(*pooled)
    assert len(found.weights) == 8
    np.testing.assert_array_equal(predicted, predicted_wanted)
    np.testing.assert_array_equal(found.weights, wanted.weights)


def test_float16_is_probed_as_its_values_in_float32():
    training, test = make_data((300,), dtype=np.float16)
    wide = [(np.float32(X), classes) for X, classes in (training, test)]
    found, wanted = (train_and_test(*data)[0] for data in ((training, test), wide))
    np.testing.assert_array_equal(found.weights, wanted.weights)


@pytest.mark.parametrize("p", [6, slow(300)])
def test_the_penalty_is_the_best_of_those_that_were_tried(p):
    """Fit scikit-learn with each on the same four fifths: none is better by more than a tenth."""
    training, test = make_data((p,), signal=3.0)
    found, _ = train_and_test(training, test, PENALTIES)
    fitted, held_out = classifier.split(training[1])
    parts = [(training[0][rows], training[1][rows]) for rows in (fitted, held_out)]
    losses = {}
    for penalty in PENALTIES:
        scores = by_sklearn(*parts, penalty)
        scores = scores - scores.max(axis=1, keepdims=True)
        of_class = scores[np.arange(len(scores)), parts[1][1]]
        losses[penalty] = np.mean(np.log(np.exp(scores).sum(axis=1)) - of_class)
    assert losses[found.penalty] < 1.01 * min(losses.values()) + 1e-2


def test_a_fifth_of_each_class_is_held_out():
    classes = np.array([0] * 10 + [1] * 14 + [2] * 3)
    fitted, held_out = classifier.split(classes)
    assert sorted([*fitted, *held_out]) == list(range(27))
    assert np.bincount(classes[held_out], minlength=3).tolist() == [2, 2, 0]


def test_too_few_examples_are_refused():
    with pytest.raises(ProbeError, match="the training set has 8 examples and no class of 5; one"):
        classifier.split(np.arange(8) % 2)


def test_the_same_bits_twice():
    training, test = make_data((5, 5, 8))
    first, second = (train_and_test(training, test, PENALTIES)[0] for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
