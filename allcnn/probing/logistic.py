"""Multinomial logistic regression with an l2 penalty, by L-BFGS in one jitted loop.

Minimises over weights W and intercepts b

    mean over examples of the cross entropy of softmax(x W + b)  +  penalty / 2 · |W|²

where x are features, or, by a Gram matrix K of them, W = Xᵀ A: the optimum lies in the span of the
examples, and |W|² = tr(Aᵀ K A). The gradient with respect to W is Xᵀ G for a G that needs no
features either, so that a step costs one product with K, half of what one with the features costs
where there are as many of them as examples, and K may be singular. Along a direction the scores are
linear, so that a line search costs no product at all.
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
"""Of one fit: five times what the weakest of the usual penalties took."""

_MEMORY = 10
"""Steps that L-BFGS remembers."""

_FLATTER = 0.5
"""A line search ends where the slope is so small a part of the first one, above or below 0."""

_LOOKS = 20
"""Of a line search: the slope of a convex function is found in two or three."""


class Point(NamedTuple):
    """A classifier, or a step between two.

    Attributes:
        coefficients: W of features, or A of a Gram matrix.
        intercepts: b.
        scores: of the examples, x W + b.
    """

    coefficients: Float[Array, "q c"]
    intercepts: Float[Array, "c"]
    scores: Float[Array, "n c"]


class _Memory(NamedTuple):
    """The last steps and the changes of the gradient over them, in the order of a ring."""

    steps: Point
    changes: Point
    rho: Float[Array, "m"]


class _State(NamedTuple):
    point: Point
    gradient: Point
    squared: Scalar
    memory: _Memory
    n_steps: Int[Array, ""]
    stuck: Bool[Array, ""]


class _Problem(NamedTuple):
    """What is minimised; ``is_gram`` says whether the basis is a Gram matrix or features."""

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
    """Minimise from a start; return the classifier and how many steps that took.

    Ends where the loss is within ``tolerance`` nats of the optimum as far as the weights decide: it
    is strongly convex in them, so that no more than |gradient|² / (2 penalty) is left; or where
    float32 finds no way down.

    Args:
        basis: features (n, p), centred or not, or the Gram matrix (n, n) of such features. Of mean
            squared norm about 1, or else penalties mean something else.
        classes: of the examples, 0 to n_classes - 1.
        n_classes: how many there are.
        penalty: factor of the l2 term, above 0.
        start: only its coefficients and intercepts count; by default the optimum of a penalty
            without bounds.
        is_gram: whether ``basis`` is a Gram matrix.
        tolerance: nats.
    """
    basis = jnp.asarray(basis)
    if start is None:
        start = strongest(classes, n_classes, basis.shape[1])
    targets = np.eye(n_classes, dtype=basis.dtype)[classes]
    found, n_steps = _minimise(
        basis,
        targets,
        np.asarray(penalty, basis.dtype),
        start.coefficients,
        start.intercepts,
        np.asarray(2 * penalty * tolerance, basis.dtype),
        is_gram=is_gram,
    )
    return found, int(n_steps)


def strongest(classes: Int[np.ndarray, "n"], n_classes: int, q: int) -> Point:
    """Return the optimum of a penalty without bounds: no weights, and the classes' frequencies."""
    shares = np.bincount(classes, minlength=n_classes) / len(classes)
    # A class that no example has would have an intercept of minus infinity.
    intercepts = np.log(np.maximum(shares, 0.1 / len(classes))).astype(np.float32)
    nothing = np.zeros((q, n_classes), np.float32)
    scores = np.broadcast_to(intercepts, (len(classes), n_classes))
    return Point(jnp.asarray(nothing), jnp.asarray(intercepts), jnp.asarray(scores))


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
    empty = jax.tree.map(lambda x: jnp.zeros((_MEMORY, *x.shape), x.dtype), point)
    memory = _Memory(empty, empty, jnp.zeros(_MEMORY, basis.dtype))
    squared = problem.inner(gradient, gradient)
    begin = _State(point, gradient, squared, memory, jnp.int32(0), jnp.bool(False))

    def goes_on(state: _State) -> Bool[Array, ""]:
        left = (state.squared > enough) & ~state.stuck
        return left & (state.n_steps < MAX_STEPS)

    end = jax.lax.while_loop(goes_on, partial(_step, problem), begin)
    return end.point, end.n_steps


def _step(problem: _Problem, state: _State) -> _State:
    direction = _direction(problem, state)
    t = _line_search(problem, state, direction)
    step = jax.tree.map(lambda x: t * x, direction)
    point = jax.tree.map(jnp.add, state.point, step)
    gradient = problem.gradient(point)
    change = jax.tree.map(jnp.subtract, gradient, state.gradient)
    curvature = problem.inner(step, change)
    # Strongly convex: only rounding makes it less.
    stuck = ~(curvature > 0)
    slot = state.n_steps % _MEMORY
    memory = _Memory(
        jax.tree.map(lambda ring, x: ring.at[slot].set(x), state.memory.steps, step),
        jax.tree.map(lambda ring, x: ring.at[slot].set(x), state.memory.changes, change),
        state.memory.rho.at[slot].set(1 / curvature),
    )
    squared = problem.inner(gradient, gradient)
    kept = jax.tree.map(lambda new, old: jnp.where(stuck, old, new), point, state.point)
    return _State(kept, gradient, squared, memory, state.n_steps + 1, stuck)


def _direction(problem: _Problem, state: _State) -> Point:
    """Return minus the gradient times the remembered curvature's inverse (Nocedal 1980)."""
    steps, changes, rho = state.memory
    n_known = jnp.minimum(state.n_steps, _MEMORY)

    def known(ring: Point, i: Int[Array, ""]) -> tuple[Point, Int[Array, ""]]:
        slot = (state.n_steps - n_known + i) % _MEMORY  # from the oldest
        return jax.tree.map(lambda x: x[slot], ring), slot

    def backward(
        i: Int[Array, ""], carried: tuple[Point, Float[Array, "m"]]
    ) -> tuple[Point, Float[Array, "m"]]:
        q, alphas = carried
        step, slot = known(steps, n_known - 1 - i)
        alpha = rho[slot] * problem.inner(step, q)
        return _plus(q, -alpha, known(changes, n_known - 1 - i)[0]), alphas.at[slot].set(alpha)

    def forward(i: Int[Array, ""], q: Point) -> Point:
        change, slot = known(changes, i)
        beta = rho[slot] * problem.inner(change, q)
        return _plus(q, alphas[slot] - beta, known(steps, i)[0])

    q, alphas = jax.lax.fori_loop(0, n_known, backward, (state.gradient, jnp.zeros_like(rho)))
    last, slot = known(changes, n_known - 1)
    size = 1 / (rho[slot] * problem.inner(last, last))
    size = jnp.where(n_known > 0, size, jnp.ones_like(size))
    q = jax.tree.map(lambda x: size * x, q)
    direction: Point = jax.tree.map(jnp.negative, jax.lax.fori_loop(0, n_known, forward, q))
    return direction


def _plus(a: Point, factor: Scalar, b: Point) -> Point:
    total: Point = jax.tree.map(lambda x, y: x + factor * y, a, b)
    return total


class _Search(NamedTuple):
    """A step's size and slope there, and the sizes and slopes around the minimum."""

    t: Scalar
    slope: Scalar
    low: Scalar
    slope_low: Scalar
    high: Scalar
    slope_high: Scalar
    n_looks: Int[Array, ""]


def _line_search(problem: _Problem, state: _State, direction: Point) -> Scalar:
    """Return how far to go: the slope of a convex function grows from below 0 to above it."""
    point = state.point
    weights = problem.of_weights(point, direction), problem.of_weights(direction, direction)

    def slope_at(t: Scalar) -> Scalar:
        R = problem.residuals(point.scores + t * direction.scores)
        return jnp.vdot(R, direction.scores) + problem.penalty * (weights[0] + t * weights[1])

    first = problem.inner(state.gradient, direction)

    def goes_on(at: _Search) -> Bool[Array, ""]:
        return (jnp.abs(at.slope) > _FLATTER * jnp.abs(first)) & (at.n_looks < _LOOKS)

    def look(at: _Search) -> _Search:
        before = at.slope < 0
        low, slope_low = (jnp.where(before, x, y) for x, y in zip(at[:2], at[2:4], strict=True))
        high, slope_high = (jnp.where(before, y, x) for x, y in zip(at[:2], at[4:6], strict=True))
        between = low - slope_low * (high - low) / (slope_high - slope_low)
        t = jnp.where(jnp.isinf(high), 4 * low, between)
        return _Search(t, slope_at(t), low, slope_low, high, slope_high, at.n_looks + 1)

    one = jnp.ones_like(first)
    begin = _Search(one, slope_at(one), 0 * one, first, jnp.inf * one, one, jnp.int32(0))
    return jax.lax.while_loop(goes_on, look, begin).t
