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
import optax
from jaxtyping import Float, Float32, Float64, Int

from allcnn.errors import ProbeError
from allcnn.probing import logistic
from allcnn.similarity import gram
from allcnn.similarity.method import Pool
from store.model.array_interop import as_floats
from store.model.schema import Span

Rows = Float[np.ndarray, "n ..."]
Labels = Int[np.ndarray, "n"]

_FOLDS = 5
"""Every fifth training example of a class is held out while the penalty is chosen."""

_WORSE = 1.01
"""If the held-out loss exceeds the best one by this factor, weaker penalties only overfit more."""

_HELD_BYTES = 2**30
"""Training examples in memory; more of them are read several times."""

_COMPILED_COLUMNS = 64
"""Features are padded to this width or a power of two above it, as each width is compiled."""


@dataclass(frozen=True)
class FeatureSource:
    """The n examples of a representation, read ``block_rows`` at a time as they are needed.

    ``read`` returns the rows of a range, examples first; ``pool`` is that of a method.
    """

    read: Callable[[int, int], Rows]
    n: int
    block_rows: int = 256
    pool: Pool = "whole"

    def rows(self, start: int, stop: int) -> Float[np.ndarray, "n p"]:
        """Return some rows, flat."""
        rows = as_floats(self.read(start, stop), "the representation")
        return np.asarray(gram.pooled(rows, self.pool)).reshape(stop - start, -1)

    def spans(self, start: int = 0, size: int = 0) -> Iterator[Span]:
        """Yield ranges of rows from ``start`` on, of ``size`` rows, by default of a block."""
        size = size or self.block_rows
        return ((i, min(i + size, self.n)) for i in range(start, self.n, size))

    def held(self, first: Float[np.ndarray, "n p"]) -> "FeatureSource":
        """Return the same with all rows in memory if they fit, where ``first`` is some of them."""
        if self.n * first[0].nbytes > _HELD_BYTES:
            return self
        rows = np.empty((self.n, first.shape[1]), first.dtype)
        for start, stop in self.spans():
            rows[start:stop] = self.rows(start, stop)
        return FeatureSource(lambda start, stop: rows[start:stop], self.n, self.block_rows)


class Classifier(NamedTuple):
    """Scores of an example x: (x - reference) weights + offsets; the class is the highest.

    The reference is subtracted before anything is multiplied, as float32 is not exact without it.
    ``penalty`` is the chosen factor of the l2 term.
    """

    reference: Float[np.ndarray, "p"]
    weights: Float32[np.ndarray, "p c"]
    offsets: Float64[np.ndarray, "c"]
    train_accuracy: float
    penalty: float

    def predict(self, rows: Float[np.ndarray, "n p"]) -> Labels:
        """Return the class of each row, by its place among the classes; -1 if it is not finite."""
        with np.errstate(over="ignore", invalid="ignore"):
            scores = _shifted(rows, self.reference) @ self.weights + self.offsets
        return np.where(np.isfinite(scores).all(axis=1), np.argmax(scores, axis=1), -1)


class _Data(NamedTuple):
    """Features, or their Gram matrix, centred and scaled by the examples that are trained on.

    ``basis`` is of these, ``others`` of the held-out examples; features were divided by ``size``.
    """

    basis: Float32[np.ndarray, "n q"]
    others: Float32[np.ndarray, "m q"]
    size: float
    is_gram: bool


def train(
    source: FeatureSource, classes: Labels, n_classes: int, penalties: Sequence[float]
) -> Classifier | None:
    """Train a linear classifier on examples of classes 0 to n_classes - 1.

    One of the penalties is chosen by the cross entropy of a fifth of the examples, from the
    strongest to weaker ones, until that grows by a hundredth. Then all examples are trained on.
    Returns None where activations are not finite; raises ProbeError where no class has five
    examples, one of which can be held out.
    """
    fitted, held_out = split(classes)
    first = source.rows(*next(source.spans()))
    with np.errstate(over="ignore", invalid="ignore"):
        reference = gram.reference(first)
    source, p = source.held(first), first.shape[1]
    is_gram = count_columns(source.n, p) == source.n
    numbers = (_gram if is_gram else _features)(source, reference, first)
    if not np.isfinite(numbers).all():
        return None
    data = _standardise(numbers, fitted, held_out, is_gram=is_gram)
    penalty, start = _choose(data, classes[fitted], classes[held_out], n_classes, penalties)
    if is_gram:
        # The weights are a sum over examples: of one over more of them each has a smaller share.
        coefficients = np.zeros((source.n, n_classes), np.float32)
        coefficients[fitted] = start.coefficients * np.float32(len(fitted) / source.n)
        start = start._replace(coefficients=jnp.asarray(coefficients))
    data = _standardise(numbers, slice(None), slice(0), is_gram=is_gram)
    point, _ = logistic.fit(data.basis, classes, n_classes, penalty, start, is_gram=is_gram)
    hits = np.argmax(np.asarray(point.scores), axis=1) == classes
    weights, offsets = _as_stored(source, reference.row, numbers, data, point)
    return Classifier(reference.row, weights, offsets, float(hits.mean()), penalty)


def evaluate(classifier: Classifier, source: FeatureSource) -> Labels:
    """Return the predicted class of every example, by its place; -1 where it is not finite."""
    return np.concatenate([classifier.predict(source.rows(*span)) for span in source.spans()])


def split(classes: Labels, name: str = "the training set") -> tuple[Labels, Labels]:
    """Return the places of the examples to fit and to hold out: every fifth of each class.

    Raises ProbeError, which names the set of examples, where no class has five.
    """
    is_held_out = np.zeros(len(classes), bool)
    for each in np.unique(classes):
        is_held_out[np.flatnonzero(classes == each)[_FOLDS - 1 :: _FOLDS]] = True
    if not is_held_out.any():
        raise ProbeError(
            name,
            f"has {len(classes)} examples and no class of {_FOLDS}",
            f"one in {_FOLDS} is held out to choose the penalty",
            "store more examples",
        )
    return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)


def count_columns(n: int, p: int) -> int:
    """Return how many columns training has in memory, of n rows: p padded, or n of a Gram."""
    width = max(_COMPILED_COLUMNS, 1 << (p - 1).bit_length())
    # A step multiplies with the features twice, with a Gram matrix once.
    return n if 2 * width > n else width


def _features(
    source: FeatureSource, reference: gram.Reference, first: Rows
) -> Float32[np.ndarray, "n q"]:
    """Return all features less the reference, padded with zeros."""
    p = first.shape[1]
    features = np.zeros((source.n, count_columns(source.n, p)), np.float32)
    for start, stop in source.spans():
        features[start:stop, :p] = _shifted(source.rows(start, stop), reference.row)
    return features


def _gram(
    source: FeatureSource, reference: gram.Reference, first: Rows
) -> Float32[np.ndarray, "n n"]:
    """Return the Gram matrix of all examples, a bounded number of them in memory."""
    K = np.empty((source.n, source.n), np.float32)
    n_held = max(source.block_rows, _HELD_BYTES // first[0].nbytes)
    for start, stop in source.spans(size=n_held):
        A = source.rows(start, stop)
        K[start:stop, start:stop] = gram.cross_gram(A, A, reference).values
        for i, j in source.spans(stop):
            K[i:j, start:stop] = gram.cross_gram(source.rows(i, j), A, reference).values
            K[start:stop, i:j] = K[i:j, start:stop].T
    return K


def _standardise(
    numbers: Float32[np.ndarray, "n q"],
    some: Labels | slice,
    others: Labels | slice,
    *,
    is_gram: bool,
) -> _Data:
    """Centre and scale by some examples, whose mean squared norm becomes 1."""
    centred = numbers - numbers[some].mean(axis=0, dtype=np.float64).astype(np.float32)
    if is_gram:
        centred = centred[:, some]
        centred -= centred.mean(axis=1, dtype=np.float64).astype(np.float32)[:, None]
    basis = centred[some]
    squared_norms = basis.diagonal() if is_gram else np.vecdot(basis, basis)
    # A constant representation stays 0.
    square = np.mean(squared_norms, dtype=np.float64)
    size = np.float32(np.sqrt(square) if square > 0 else 1)
    divisor = size**2 if is_gram else size
    return _Data(basis / divisor, centred[others] / divisor, float(size), is_gram)


def _choose(
    data: _Data, classes: Labels, held_out: Labels, n_classes: int, penalties: Sequence[float]
) -> tuple[float, logistic.Point]:
    """Return the penalty under which held-out examples are most likely, and its classifier."""
    basis = jnp.asarray(data.basis)
    best: tuple[float, float, logistic.Point] | None = None
    point: logistic.Point | None = None
    for penalty in sorted(penalties, reverse=True):
        # The classifier of the next stronger penalty is close.
        point, _ = logistic.fit(basis, classes, n_classes, penalty, point, is_gram=data.is_gram)
        scores = data.others @ np.asarray(point.coefficients) + np.asarray(point.intercepts)
        entropies = optax.softmax_cross_entropy_with_integer_labels(jnp.asarray(scores), held_out)
        loss = float(entropies.mean())
        if best is None or loss < best[0]:
            best = loss, penalty, point
        elif loss > _WORSE * best[0]:
            break
    assert best is not None
    return best[1], best[2]


def _as_stored(
    source: FeatureSource,
    reference: Float[np.ndarray, "p"],
    numbers: Float32[np.ndarray, "n q"],
    data: _Data,
    point: logistic.Point,
) -> tuple[Float32[np.ndarray, "p c"], Float64[np.ndarray, "c"]]:
    """Return weights and offsets for examples that are neither centred nor scaled."""
    coefficients, p = np.asarray(point.coefficients), reference.size
    if not data.is_gram:
        weights = coefficients[:p] / np.float32(data.size)
        mean = numbers[:, :p].mean(axis=0, dtype=np.float64)
    else:
        # The weights of centred features: what all coefficients have in common meets their mean.
        A = (coefficients - coefficients.mean(axis=0)) / np.float32(data.size**2)
        weights, mean = np.zeros((p, A.shape[1]), np.float32), np.zeros(p)
        for start, stop in source.spans():
            X = _shifted(source.rows(start, stop), reference)
            weights += X.T @ A[start:stop]
            mean += X.sum(axis=0, dtype=np.float64) / source.n
    return weights, np.asarray(point.intercepts, np.float64) - mean @ weights


def _shifted(rows: Float[np.ndarray, "n p"], reference: Rows) -> Float32[np.ndarray, "n p"]:
    """Subtract the reference in the precision of the rows, float32 at least; then narrow."""
    wide = rows if rows.dtype == np.float64 else rows.astype(np.float32, copy=False)
    # Values that are not finite stay so, and are found later.
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(wide - np.ravel(reference)[None, :].astype(wide.dtype), np.float32)
