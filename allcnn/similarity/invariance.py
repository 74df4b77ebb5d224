"""Transformations of neurons that CKA should not see: another order, scale or rotation.

Kornblith et al. (2019, section 2): a similarity of representations should be invariant to
orthogonal transformations, permutations of neurons among them, and to isotropic scaling, and not
to every invertible linear transformation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import numpy as np
from jaxtyping import Float, Float64

from allcnn.similarity import gram
from allcnn.similarity.arrays import similarity_matrix
from allcnn.similarity.method import Method, Pool
from store.model.array_interop import Sliced, as_floats

CONTROL: Final = "stretched"
N_REFLECTIONS: Final = 16
SCALE: Final = 7.0
STRETCH: Final = 10.0

Rows = Float[np.ndarray, "n p"]
Map = Callable[[Rows], Rows]
Directions = Float64[np.ndarray, "k p"]


class Check(NamedTuple):
    """Values of representations, the rows, with their transformed copies."""

    values: Float64[np.ndarray, "r r"]
    deviation: float  # the largest from untransformed values; NaN where no value is defined
    keeps: bool  # whether they should be the same


def check_invariance(
    representations: Sequence[Sliced], method: Method = Method()
) -> tuple[Float64[np.ndarray, "r r"], dict[str, Check]]:
    """Return values of representations with themselves, and with transformed copies by name.

    The copies: neurons permuted; scaled by 7; rotated, by 16 reflections and a permutation; and, as
    a control, stretched tenfold along the directions of these reflections, which is invertible and
    not orthogonal. Errors are those of ``similarity_matrix``. The kernel ``cosine`` is
    about angles at the origin, and is as invariant.
    """
    originals: list[Any] = [_Flat(each, method.pool) for each in representations]
    maps = [_maps(X, (0, k)) for k, X in enumerate(originals)]
    copies = {
        name: [replace(X, by=own[name]) for X, own in zip(originals, maps, strict=True)]
        for name in (maps[0] if maps else ())
    }
    # All at once, so that the Gram of each representation is computed once.
    columns = [*originals, *(X for moved in copies.values() for X in moved)]
    values = similarity_matrix(originals, columns, replace(method, pool="whole")).values
    plain, *others = np.split(values, len(copies) + 1, axis=1)
    checks = {
        name: Check(found, _largest(found - plain), name != CONTROL)
        for name, found in zip(copies, others, strict=True)
    }
    return plain, checks


@dataclass(frozen=True, eq=False)
class _Flat:
    """A representation with an example a row, pooled and transformed as its rows are read."""

    of: Sliced
    pool: Pool
    by: Map = np.ascontiguousarray

    @property
    def shape(self) -> tuple[int, int]:
        n, *features = self.of.shape
        return n, int(np.prod(features[-1:] if self.pool == "mean" else features))

    def __getitem__(self, rows: slice) -> Rows:
        found = as_floats(self.of[rows], "the representation")
        X = np.asarray(gram.pooled(found, self.pool))
        dtype = np.promote_types(X.dtype, np.float32)
        return self.by(np.ascontiguousarray(X.reshape(len(X), -1), dtype))


def _maps(X: _Flat, seed: Any) -> dict[str, Map]:
    """Return the transformations of one representation by name."""
    order = np.random.default_rng(seed).permutation(X.shape[1])
    rng = np.random.default_rng(seed)
    directions, reorder = _directions(X, rng), rng.permutation(X.shape[1])
    return {
        "neurons permuted": lambda rows: rows[:, order],
        f"scaled by {SCALE:g}": lambda rows: rows * np.float32(SCALE),
        # A dense orthogonal matrix of the first layer would take 39 GB.
        "rotated": lambda rows: _along(rows, directions, -2)[:, reorder],
        CONTROL: lambda rows: _along(rows, directions, STRETCH - 1),
    }


def _along(rows: Rows, directions: Directions, factor: float) -> Rows:
    """Add to rows their part along each unit vector in turn, times a factor.

    A factor of -2 makes Householder reflections.
    """
    rows = rows.copy()
    for v in directions:
        v = v.astype(rows.dtype)
        rows += np.float32(factor) * (rows @ v)[:, None] * v
    return rows


def _directions(X: _Flat, rng: np.random.Generator) -> Directions:
    """Return unit vectors between examples, so that differences between these are transformed.

    Reflections at random vectors would leave representations of many neurons nearly as they are.
    """
    n, p = X.shape
    examples = X[slice(0, min(n, 2 * N_REFLECTIONS))].astype(np.float64)
    pairs = rng.permutation(len(examples))
    half = len(pairs) // 2
    vectors = examples[pairs[:half]] - examples[pairs[half : 2 * half]]
    # A little of everything, for examples that are alike.
    vectors += 1e-3 * np.sqrt(np.mean(np.square(vectors)) + 1e-30) * rng.standard_normal((half, p))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _largest(difference: Float[np.ndarray, "r r"]) -> float:
    finite = np.abs(difference[np.isfinite(difference)])
    return float(finite.max()) if len(finite) else float("nan")
