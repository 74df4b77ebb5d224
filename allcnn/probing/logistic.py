"""Multinomial logistic regression with an l2 penalty, by conjugate gradients in one jitted loop.

Minimises over weights W and intercepts b

    mean over examples of the cross entropy of softmax(x W + b)  +  penalty / 2 · |W|²

where x are features, or, by a Gram matrix K of them, W = Xᵀ A: the optimum lies in the span of the
examples, and |W|² = tr(Aᵀ K A). The gradient with respect to W is Xᵀ G for a G that needs no
features either, so that a step costs one product with K, half of what one with as many features
costs, and K may be singular. Along a direction scores are linear: a line search costs no product.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from allcnn import backend

Basis = Float[Array, "n q"]
Scalar = Float[Array, ""]

MAX_STEPS = 1000
"""For one fit: twice to five times as many as the weakest of the usual penalties needed."""

_FLATTER = 0.02
"""A line search ends where the slope is at most this share of the first one. With 0.5, as for
L-BFGS, conjugate gradients take half as many steps again; a look costs less than a step."""

_LOOKS = 20
"""Per line search: two or three find the minimum of a convex function."""


class Point(NamedTuple):
    """A classifier, or a step between two: W or A, b, and the scores x W + b of the examples."""

    coefficients: Float[Array, "q c"]
    intercepts: Float[Array, "c"]
    scores: Float[Array, "n c"]


class _State(NamedTuple):
    """``t`` is the length of the last step, and ``stuck`` says that rounding left no way down."""

    point: Point
    gradient: Point
    direction: Point
    squared: Scalar
    t: Scalar
    n_steps: Int[Array, ""]
    stuck: Bool[Array, ""]


class _Problem(NamedTuple):
    """The loss; ``is_gram`` says whether the basis is a Gram matrix or features."""

    basis: Basis
    targets: Float[Array, "n c"]
    penalty: Scalar
    is_gram: bool

    def at(self, coefficients: Float[Array, "q c"], intercepts: Float[Array, "c"]) -> Point:
        return Point(coefficients, intercepts, self.basis @ coefficients + intercepts[None, :])

    def residuals(self, scores: Float[Array, "n c"]) -> Float[Array, "n c"]:
        """Return the gradient of the mean cross entropy with respect to the scores."""
        return (jax.nn.softmax(scores, axis=1) - self.targets) / len(self.targets)

    def gradient(self, point: Point) -> Point:
        R = self.residuals(point.scores)
        of_loss = R if self.is_gram else self.basis.T @ R
        return self.at(of_loss + self.penalty * point.coefficients, R.sum(axis=0))

    def of_weights(self, a: Point, b: Point) -> Scalar:
        """Return the inner product of the weights alone."""
        if self.is_gram:
            return jnp.vdot(a.coefficients, b.scores - b.intercepts[None, :])
        return jnp.vdot(a.coefficients, b.coefficients)

    def inner(self, a: Point, b: Point) -> Scalar:
        return self.of_weights(a, b) + jnp.vdot(a.intercepts, b.intercepts)


def fit(
    basis: Basis | np.ndarray,
    classes: Int[np.ndarray, "n"],
    n_classes: int,
    penalty: float,
    start: Point | None = None,
    *,
    is_gram: bool,
    tolerance: float = 1e-3,
) -> tuple[Point, int]:
    """Minimise from a start; return the classifier and the number of steps.

    Ends where the loss is within ``tolerance`` nats of the optimum as far as the weights decide: it
    is strongly convex in them, so that no more than |gradient|² / (2 penalty) is left; or where
    rounding to float32 leaves no way down.

    Args:
        basis: features (n, p), or their Gram matrix (n, n) if ``is_gram``; their mean squared norm
            should be about 1.
        classes: of the examples, 0 to n_classes - 1.
        n_classes: number of classes.
        penalty: factor of the l2 term, above 0.
        start: coefficients and intercepts; by default the optimum for an infinite penalty: no
            weights, and the frequencies of the classes.
        is_gram: whether ``basis`` is a Gram matrix.
        tolerance: nats.
    """
    basis = jnp.asarray(basis)
    if start is None:
        # A class without examples would have an intercept of minus infinity.
        counts = np.maximum(np.bincount(classes, minlength=n_classes), 0.1)
        coefficients = jnp.zeros((basis.shape[1], n_classes), basis.dtype)
        intercepts = jnp.asarray(np.log(counts / len(classes)), basis.dtype)
    else:
        coefficients, intercepts, _ = start
    found, n_steps = _minimise(
        basis,
        np.eye(n_classes, dtype=basis.dtype)[classes],
        np.asarray(penalty, basis.dtype),
        coefficients,
        intercepts,
        np.asarray(2 * penalty * tolerance, basis.dtype),
        is_gram=is_gram,
    )
    return found, int(n_steps)


@partial(backend.jit, static_argnames=("is_gram",))
def _minimise(
    basis: Basis,
    targets: Float[Array, "n c"],
    penalty: Scalar,
    coefficients: Float[Array, "q c"],
    intercepts: Float[Array, "c"],
    enough: Scalar,
    *,
    is_gram: bool,
) -> tuple[Point, Int[Array, ""]]:
    problem = _Problem(basis, targets, penalty, is_gram)
    point = problem.at(coefficients, intercepts)
    gradient = problem.gradient(point)
    squared, one = problem.inner(gradient, gradient), jnp.ones_like(penalty)
    downhill = jax.tree.map(jnp.negative, gradient)
    begin = _State(point, gradient, downhill, squared, one, jnp.int32(0), jnp.bool(False))

    def goes_on(state: _State) -> Bool[Array, ""]:
        left = (state.squared > enough) & ~state.stuck
        return left & (state.n_steps < MAX_STEPS)

    end = jax.lax.while_loop(goes_on, partial(_step, problem), begin)
    return end.point, end.n_steps


def _step(problem: _Problem, state: _State) -> _State:
    """Step along the direction, and choose the next one (Hager and Zhang 2005)."""
    direction = state.direction
    t = _line_search(problem, state)
    point = jax.tree.map(lambda x, d: x + t * d, state.point, direction)
    gradient = problem.gradient(point)
    change = jax.tree.map(jnp.subtract, gradient, state.gradient)
    curvature = problem.inner(direction, change)
    # Strongly convex: only rounding makes it less.
    stuck = ~(curvature > 0)
    excess = 2 * problem.inner(change, change) / curvature * problem.inner(direction, gradient)
    beta = (problem.inner(change, gradient) - excess) / curvature
    following = jax.tree.map(lambda d, g: beta * d - g, direction, gradient)
    kept = jax.tree.map(lambda new, old: jnp.where(stuck, old, new), point, state.point)
    squared = problem.inner(gradient, gradient)
    return _State(kept, gradient, following, squared, t, state.n_steps + 1, stuck)


class _Search(NamedTuple):
    """Lengths of a step with the slopes there: the last one, and those around the minimum."""

    here: tuple[Scalar, Scalar]
    low: tuple[Scalar, Scalar]
    high: tuple[Scalar, Scalar]
    n_looks: Int[Array, ""]


def _line_search(problem: _Problem, state: _State) -> Scalar:
    """Return how far to go: the slope of a convex function grows from below 0 to above it."""
    point, direction = state.point, state.direction
    weights = problem.of_weights(point, direction), problem.of_weights(direction, direction)

    def look(t: Scalar) -> tuple[Scalar, Scalar]:
        R = problem.residuals(point.scores + t * direction.scores)
        slope = jnp.vdot(R, direction.scores) + problem.penalty * (weights[0] + t * weights[1])
        return t, slope

    first = problem.inner(state.gradient, direction)

    def goes_on(at: _Search) -> Bool[Array, ""]:
        return (jnp.abs(at.here[1]) > _FLATTER * jnp.abs(first)) & (at.n_looks < _LOOKS)

    def narrow(at: _Search) -> _Search:
        before = partial(jnp.where, at.here[1] < 0)
        low, high = jax.tree.map(before, (at.here, at.high), (at.low, at.here))
        secant = low[0] - low[1] * (high[0] - low[0]) / (high[1] - low[1])
        t = jnp.where(jnp.isinf(high[0]), 4 * low[0], secant)
        return _Search(look(t), low, high, at.n_looks + 1)

    t = state.t
    begin = _Search(look(t), (0 * t, first), (jnp.inf * t, jnp.ones_like(t)), jnp.int32(0))
    return jax.lax.while_loop(goes_on, narrow, begin).here[0]
