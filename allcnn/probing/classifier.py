"""How well a linear classifier does on a representation (Kornblith et al. 2019, Figure 3).

A multinomial logistic regression with an l2 penalty, on features that are centred and divided by
one number, so that their mean squared norm is 1: like CKA it does not change with orthogonal
transformations and isotropic scaling, and a penalty means the same for every layer.

Representations are read a block at a time. Where a tap has more features than half of the training
examples, all that training needs is the Gram matrix of these, and its weights come from one more
pass over them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Float64, Int

from allcnn.probing import logistic
from allcnn.similarity import gram
from allcnn.similarity.method import Pool
from store.model.array_interop import as_floats

Rows = Float[np.ndarray, "n ..."]
Labels = Int[np.ndarray, "n"]
Span = tuple[int, int]
Basis = Float[Array, "n q"]

FOLDS = 5
"""Every fifth training example of a class is held out while the penalty is chosen."""

_CHOOSING, _FINAL = 1e-2, 1e-3
"""Nats within which the optima are found: for choosing, less than neighbouring penalties differ."""

_WORSE = 1.01
"""Held-out losses so much above the best one mean that weaker penalties only overfit more."""

_HELD_BYTES = 2**30
"""Of training examples in memory; where they are more, they are read several times."""

_COMPILED_COLUMNS = 64
"""Features are padded to powers of two from here on: each width would be compiled again."""


@dataclass(frozen=True)
class Source:
    """Examples of a representation, read as they are needed.

    Attributes:
        read: returns the rows of a range, in any shape, examples first.
        n: how many there are.
        block_rows: rows that are read at once.
        pool: ``mean`` for the mean of each over all axes but the last.
    """

    read: Callable[[int, int], Rows]
    n: int
    block_rows: int = 256
    pool: Pool = "whole"

    def rows(self, start: int, stop: int) -> Float[np.ndarray, "n p"]:
        """Return some rows, flat."""
        rows = as_floats(self.read(start, stop), "the representation")
        rows = np.asarray(gram.pooled(rows, self.pool))
        return rows.reshape(stop - start, -1)

    def spans(self, start: int = 0, size: int = 0) -> Iterator[Span]:
        """Yield ranges of rows from ``start`` on, of ``size`` rows, by default of a block."""
        size = size or self.block_rows
        return ((i, min(i + size, self.n)) for i in range(start, self.n, size))

    def held(self, row_bytes: int) -> "Source":
        """Return the same with all rows in memory where that has the room, each read once."""
        if self.n * row_bytes > _HELD_BYTES:
            return self
        first = self.rows(*next(self.spans()))
        every = np.empty((self.n, first.shape[1]), first.dtype)
        every[: len(first)] = first
        for start, stop in self.spans(len(first)):
            every[start:stop] = self.rows(start, stop)
        return Source(lambda start, stop: every[start:stop], self.n, self.block_rows)


class Classifier(NamedTuple):
    """Scores of an example x: (x - reference) weights + offsets; the class is the highest."""

    reference: Float[np.ndarray, "p"]
    weights: Float32[np.ndarray, "p c"]
    offsets: Float64[np.ndarray, "c"]

    def predict(self, rows: Float[np.ndarray, "n p"]) -> Labels:
        """Return the class of each row, by its place among the classes; -1 if it is not finite."""
        scores = self.scores(rows)
        return np.where(np.isfinite(scores).all(axis=1), np.argmax(scores, axis=1), -1)

    def scores(self, rows: Float[np.ndarray, "n p"]) -> Float64[np.ndarray, "n c"]:
        """Return the scores of all classes for each row."""
        with np.errstate(over="ignore", invalid="ignore"):
            found: Float64[np.ndarray, "n c"]
            found = _shifted(rows, self.reference) @ self.weights + self.offsets
            return found


class Probe(NamedTuple):
    """A trained classifier.

    Attributes:
        classifier: it.
        train_accuracy: share of the training examples that it classifies rightly.
        penalty: the chosen factor of the l2 term.
        n_features: of each example.
    """

    classifier: Classifier
    train_accuracy: float
    penalty: float
    n_features: int


def train(
    source: Source, classes: Labels, n_classes: int, penalties: Sequence[float]
) -> Probe | None:
    """Train a linear classifier; return None where activations are not finite.

    The penalty is chosen by the cross entropy of a fifth of the examples, from the strongest to
    weaker ones, until that grows by a hundredth. Then all examples are trained on.

    Args:
        source: of the training examples.
        classes: of them, 0 to n_classes - 1.
        n_classes: how many there are.
        penalties: of which one is chosen, in any order.

    Raises ValueError where no class has five examples, of which one can be held out.
    """
    fitted, held_out = split(classes)
    first = source.rows(*next(source.spans()))
    with np.errstate(over="ignore", invalid="ignore"):
        reference = gram.reference(first)
    row_bytes, p = first[0].nbytes, first.shape[1]
    del first
    source = source.held(row_bytes)
    matrix = _matrix(source, reference, p, row_bytes)
    if not np.isfinite(matrix.numbers).all():
        return None
    choosing = _standardise(matrix, fitted, held_out)
    penalty, start = _choose(choosing, classes[fitted], classes[held_out], n_classes, penalties)
    every = np.arange(source.n)
    whole = _standardise(matrix, every, every[:0])
    point, _ = logistic.fit(
        whole.basis,
        classes,
        n_classes,
        penalty,
        _extended(start, choosing, whole, fitted, source.n),
        is_gram=matrix.is_gram,
        tolerance=_FINAL,
    )
    hits = np.asarray(jnp.argmax(point.scores, axis=1)) == classes
    classifier = _classifier(source, reference.row, matrix, whole, point)
    return Probe(classifier, float(hits.mean()), penalty, p)


def evaluate(classifier: Classifier, source: Source) -> Labels:
    """Return the predicted class of every example, by its place; -1 where it is not finite."""
    return np.concatenate([classifier.predict(source.rows(*span)) for span in source.spans()])


def split(classes: Labels) -> tuple[Labels, Labels]:
    """Return the places of the examples to fit and to hold out: every fifth of each class.

    Raises ValueError where no class has five.
    """
    is_held_out = np.zeros(len(classes), bool)
    for each in np.unique(classes):
        is_held_out[np.flatnonzero(classes == each)[FOLDS - 1 :: FOLDS]] = True
    if not is_held_out.any():
        raise ValueError(
            f"{len(classes)} training examples have no class of {FOLDS} or more, of which one"
            " could be held out to choose the penalty; give more examples"
        )
    return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)


class _Matrix(NamedTuple):
    """All that training needs: features (n, p), or their Gram matrix, shifted by a reference."""

    numbers: Float32[np.ndarray, "n q"]
    is_gram: bool


class _Standardised(NamedTuple):
    """Features, or their Gram matrix, centred and scaled by some examples: of these and of others.

    ``mean`` and ``size`` are those of the shifted features of the former; the mean of a Gram
    matrix is not known.
    """

    basis: Basis
    others: Float32[np.ndarray, "m q"]
    mean: Float64[np.ndarray, "p"] | None
    size: float


def count_columns(n: int, p: int) -> int:
    """Return how many columns training has in memory, of n rows: p padded, or n of a Gram."""
    width = max(_COMPILED_COLUMNS, 1 << (p - 1).bit_length())
    # A step multiplies with the features twice, with a Gram matrix once.
    return n if 2 * width > n else width


def _matrix(source: Source, reference: gram.Reference, p: int, row_bytes: int) -> _Matrix:
    width = count_columns(source.n, p)
    if width == source.n:
        return _Matrix(_gram(source, reference, row_bytes), is_gram=True)
    features = np.zeros((source.n, width), np.float32)
    for start, stop in source.spans():
        features[start:stop, :p] = _shifted(source.rows(start, stop), reference.row)
    return _Matrix(features, is_gram=False)


def _gram(source: Source, reference: gram.Reference, row_bytes: int) -> Float32[np.ndarray, "n n"]:
    """Return the Gram matrix of all examples, a bounded number of them in memory."""
    K = np.empty((source.n, source.n), np.float32)
    n_held = max(source.block_rows, _HELD_BYTES // row_bytes)
    for start, stop in source.spans(size=n_held):
        A = source.rows(start, stop)
        K[start:stop, start:stop] = gram.cross_gram(A, A, reference).values
        for i, j in source.spans(stop):
            K[i:j, start:stop] = gram.cross_gram(source.rows(i, j), A, reference).values
            K[start:stop, i:j] = K[i:j, start:stop].T
    return K


def _standardise(matrix: _Matrix, some: Labels, others: Labels) -> _Standardised:
    """Centre and scale by some examples, whose mean squared norm becomes 1."""
    if not matrix.is_gram:
        X = matrix.numbers[some]
        mean = X.mean(axis=0, dtype=np.float64)
        X -= mean.astype(np.float32)
        size = _size(np.vecdot(X, X))
        held = matrix.numbers[others] - mean.astype(np.float32)
        return _Standardised(jnp.asarray(X / size), held / size, mean, float(size))
    K, H = matrix.numbers[np.ix_(some, some)], matrix.numbers[np.ix_(others, some)]
    means = K.mean(axis=0, dtype=np.float64)
    # Row by row the mean of the row and, for every row, what is left of the columns' means.
    columns = (means - means.mean()).astype(np.float32)
    for each in (K, H):
        each -= each.mean(axis=1, dtype=np.float64).astype(np.float32)[:, None]
        each -= columns
    size = _size(K.diagonal())
    K /= size**2
    H /= size**2
    return _Standardised(jnp.asarray(K), H, None, float(size))


def _size(squared_norms: Float32[np.ndarray, "n"]) -> np.float32:
    """Return the root of a mean squared norm; 1 for a constant representation, which stays 0."""
    mean = float(np.mean(squared_norms, dtype=np.float64))
    return np.float32(np.sqrt(mean)) if mean > 0 else np.float32(1)


def _choose(
    data: _Standardised,
    classes: Labels,
    held_out: Labels,
    n_classes: int,
    penalties: Sequence[float],
) -> tuple[float, logistic.Point]:
    """Return the penalty under which held-out examples are most likely, and its classifier."""
    best: tuple[float, float, logistic.Point] | None = None
    point: logistic.Point | None = None
    for penalty in sorted(penalties, reverse=True):
        # From the classifier of the next stronger penalty it is not far.
        point, _ = logistic.fit(
            data.basis,
            classes,
            n_classes,
            penalty,
            point,
            is_gram=data.mean is None,
            tolerance=_CHOOSING,
        )
        scores = data.others @ np.asarray(point.coefficients) + np.asarray(point.intercepts)
        loss = _cross_entropy(scores, held_out)
        if best is None or loss < best[0]:
            best = loss, penalty, point
        elif loss > _WORSE * best[0]:
            break
    assert best is not None
    return best[1], best[2]


def _cross_entropy(scores: Float[np.ndarray, "n c"], classes: Labels) -> float:
    above = scores - scores.max(axis=1, keepdims=True)
    of_class = np.take_along_axis(above, classes[:, None], axis=1)[:, 0]
    return float(np.mean(np.log(np.exp(above).sum(axis=1)) - of_class, dtype=np.float64))


def _extended(
    point: logistic.Point, before: _Standardised, now: _Standardised, fitted: Labels, n: int
) -> logistic.Point:
    """Return the classifier of some examples as one of all of them: a start that is not far."""
    A = np.asarray(point.coefficients)
    if before.mean is not None:
        return point._replace(coefficients=jnp.asarray(A / np.float32(before.size / now.size)))
    # Of the weights of so many examples each has its share.
    every = np.zeros((n, A.shape[1]), np.float32)
    every[fitted] = A * np.float32(len(fitted) / n)
    return point._replace(coefficients=jnp.asarray(every))


def _classifier(
    source: Source,
    reference: Rows,
    matrix: _Matrix,
    data: _Standardised,
    point: logistic.Point,
) -> Classifier:
    """Return what classifies examples as they are stored."""
    coefficients = np.asarray(point.coefficients)
    intercepts = np.asarray(point.intercepts, np.float64)
    if data.mean is not None:
        p = reference.size
        weights, mean = coefficients[:p] / np.float32(data.size), data.mean[:p]
    else:
        # The weights of centred features: what all coefficients have in common meets their mean.
        A = (coefficients - coefficients.mean(axis=0)) / np.float32(data.size**2)
        weights = np.zeros((reference.size, A.shape[1]), np.float32)
        mean = np.zeros(reference.size)
        for start, stop in source.spans():
            X = _shifted(source.rows(start, stop), reference)
            weights += X.T @ A[start:stop]
            mean += X.sum(axis=0, dtype=np.float64) / source.n
    return Classifier(reference, weights, intercepts - mean @ weights)


def _shifted(rows: Float[np.ndarray, "n p"], reference: Rows) -> Float32[np.ndarray, "n p"]:
    """Subtract the reference in the precision of the rows, float32 at least; then narrow."""
    wide = rows if rows.dtype == np.float64 else rows.astype(np.float32, copy=False)
    # What is not finite makes numbers so, which are looked at later.
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(wide - np.ravel(reference)[None, :].astype(wide.dtype), np.float32)
