"""Symmetric matrices as packed triangles, in the narrowest float that holds them exactly."""

import math
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from store.errors import PackingError


def pack(K: npt.ArrayLike) -> npt.NDArray[Any]:
    """Return the upper triangle of a symmetric matrix with its diagonal, row after row.

    The result is a copy of shape (n(n+1)/2,) for K of shape (n, n). Symmetry is not checked.
    """
    square = np.asarray(K)
    if square.ndim != 2 or square.shape[0] != square.shape[1]:
        what = f"a matrix of shape {square.shape}"
        raise PackingError(what, "has no triangle", remedy="give a square one")
    # No index is out of range, and "wrap" takes two thirds of the time of looking for one.
    return np.take(square, _upper(len(square)), mode="wrap")


def unpack(packed: npt.ArrayLike) -> npt.NDArray[Any]:
    """Return symmetric matrices, of shape (..., n, n), from packed ones, (..., n(n+1)/2)."""
    triangles = np.asarray(packed)
    n_pairs = triangles.shape[-1] if triangles.ndim else 0
    n = (math.isqrt(8 * n_pairs + 1) - 1) // 2
    if triangles.ndim == 0 or triangle_size(n) != n_pairs:
        wanted = "want n(n+1)/2 of them along the last axis, without padding"
        raise PackingError(f"values of shape {triangles.shape}", "are no packed triangles", wanted)
    return np.take(triangles, _square(n), axis=-1, mode="wrap")


def triangle_size(n: int) -> int:
    """Return how many entries the triangle of an (n, n) matrix has, with its diagonal."""
    return n * (n + 1) // 2


def as_narrow_as_exact(K: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return values in float32 if that holds them exactly, else as they are."""
    if K.dtype != np.float64:
        return K
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        narrowed = K.astype(np.float32)
    return narrowed if np.array_equal(narrowed, K, equal_nan=True) else K


# Minibatches come in few sizes; the two indices of 256 rows take 0.8 MB together.
@lru_cache(maxsize=4)
def _upper(n: int) -> npt.NDArray[np.intp]:
    """Return the flat indices of a square matrix's upper triangle."""
    rows, columns = np.triu_indices(n)
    indices: npt.NDArray[np.intp] = rows * n + columns
    return indices


@lru_cache(maxsize=4)
def _square(n: int) -> npt.NDArray[np.intp]:
    """Return the place in the packed triangle of every entry of a square matrix."""
    places = np.empty((n, n), np.intp)
    rows, columns = np.triu_indices(n)
    places[rows, columns] = places[columns, rows] = np.arange(len(rows))
    return places
