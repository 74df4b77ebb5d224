"""Cast activations to the dtype in which they are stored, unless that loses how examples differ.

CKA, distances and probes depend on these differences, not on the values themselves. A float far
from zero holds few digits of a difference, and one close to zero may hold none.
"""

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, get_args

import numpy as np
import numpy.typing as npt

from store.errors import ActivationOverflowError, PrecisionError
from store.model.array_interop import as_floats
from store.model.schema import DType, Precision

TOLERANCE: Final = 1e-4
"""How much rounding may change CKA over ``EXAMPLES`` examples, as estimated by ``_effect``."""

EXAMPLES: Final = 2048
"""Examples of a comparison by default; over fewer, chance changes CKA much more."""

MIN_ROWS: Final = 4
"""Fewer rows have no HSIC, and may be alike by chance; they join the minibatch before them."""

_TILE_VALUES: Final = 2**18


def narrow_rows(values: npt.NDArray[Any], dtype: DType, name: str) -> npt.NDArray[Any]:
    """Return the rows of a minibatch as they are stored: C order, little endian.

    Raises, both calling the rows ``name``, ActivationOverflowError where a finite value would
    become infinite, and PrecisionError where rounding ``MIN_ROWS`` or more of them would change
    CKA by more than ``TOLERANCE``. Rows that are not finite count for neither.
    """
    wide = as_floats(values, name)
    rows = _cast_of(name, wide, dtype, lambda: _advice(wide, dtype))
    change = _change(wide, dtype)
    if change > TOLERANCE:
        raise PrecisionError(
            name,
            f"varies too little for the precision of {dtype}: rounding would change CKA by about"
            f" {change:.2g}, and {TOLERANCE:g} is allowed",
            remedy=_advice(wide, dtype),
        )
    return rows


def narrow_gram(values: npt.NDArray[Any], dtype: Precision, name: str) -> npt.NDArray[Any]:
    """Return a Gram as it is stored; raises ActivationOverflowError, naming it."""
    return _cast_of(name, as_floats(values, name), dtype, lambda: "scale the activations down")


def surely_kept(rows: npt.NDArray[Any], dtype: DType) -> bool:
    """Return whether a bound shows that a dtype holds rows; costs a tenth of NumPy's cast.

    False for few others: rows that are not finite, vary little, or have huge values.
    """
    flat, form = rows.reshape(len(rows), -1), np.finfo(dtype)
    n, unit = len(flat), float(max(np.finfo(flat.dtype).eps, np.finfo(np.float64).eps))
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        squares = np.einsum("ij,ij->j", flat, flat).astype(np.float64) / n
        means = flat.sum(axis=0).astype(np.float64) / n
        # Each sum over n rows is off by n rounding errors at most.
        v = np.maximum(squares * (1 - 2 * n * unit) - np.square(means), 0)
        e = (float(form.eps) / 2) ** 2 * squares + (float(form.smallest_subnormal) / 2) ** 2
        is_small = np.sqrt(n * squares.max()) < form.max or np.abs(flat).max() <= form.max
        return bool(is_small and v.sum() > 0 and _effect(v, e) <= TOLERANCE)


def _effect(v: npt.NDArray[np.float64], e: npt.NDArray[np.float64]) -> float:
    """Return by how much rounding changes CKA, about, from variances of features and of rounding.

    Errors E of the centred rows X are nearly uncorrelated with them. So E Eᵀ adds e to v: CKA,
    and squared distances, change by the share Σe / Σv. And X Eᵀ + E Xᵀ adds a random part to
    the Gram matrix, which changes CKA over N examples by about 2 √(Σev / N) / Σv.
    """
    total = float(v.sum())
    random = 2 * math.sqrt(float(e @ v) / EXAMPLES)
    return float(e.sum()) / total + random / total if total else 0.0


def _cast(values: npt.NDArray[Any], dtype: DType) -> npt.NDArray[Any]:
    # The processor's overflow flag costs nothing; looking for the maximum, a fifth of the cast.
    with np.errstate(over="raise", under="ignore"):
        return values.astype(np.dtype(dtype).newbyteorder("<"), order="C", copy=False)


def _cast_of(
    name: str, wide: npt.NDArray[Any], dtype: DType, remedy: Callable[[], str]
) -> npt.NDArray[Any]:
    try:
        return _cast(wide, dtype)
    except FloatingPointError:
        largest, end = np.abs(wide[np.isfinite(wide)]).max(), np.finfo(dtype).max
        found = f"reaches {largest:g}, and {dtype} ends at {end:.6g}"
        raise ActivationOverflowError(name, found, remedy=remedy()) from None


def _change(wide: npt.NDArray[Any], dtype: DType) -> float:
    """Return by how much rounding changes CKA, about; 0 for few rows."""
    if np.dtype(dtype).itemsize >= wide.dtype.itemsize or len(wide) < MIN_ROWS:
        return 0.0
    return 0.0 if surely_kept(wide, dtype) else _measured(wide, dtype)


def _measured(wide: npt.NDArray[Any], dtype: DType) -> float:
    flat = wide.reshape(len(wide), -1)
    flat = flat[np.isfinite(flat).all(axis=1)]
    scale = np.ptp(flat, axis=0).max() if len(flat) >= MIN_ROWS else 0
    if scale == 0:
        return 0.0
    width = max(1, _TILE_VALUES // len(flat))
    tiles = [flat[:, start : start + width] for start in range(0, flat.shape[1], width)]
    v = np.concatenate([_variances(tile, scale) for tile in tiles])
    e = np.concatenate([_variances(tile - _cast(tile, dtype), scale) for tile in tiles])
    return _effect(v, e)


def _variances(columns: npt.NDArray[Any], scale: Any) -> npt.NDArray[np.float64]:
    # Less the first row: the mean of a constant is off by a rounding error.
    differences = ((columns - columns[0]) / scale).astype(np.float64)
    found: npt.NDArray[np.float64] = differences.var(axis=0)
    return found


def _advice(wide: npt.NDArray[Any], dtype: DType) -> str:
    """Return how to store rows that a dtype does not hold."""
    for other in sorted(get_args(DType), key=lambda each: np.dtype(each).itemsize):
        if np.dtype(other).itemsize > np.dtype(dtype).itemsize:
            with suppress(FloatingPointError):
                _cast(wide, other)
                if _change(wide, other) <= TOLERANCE:
                    return f"store it as {other} (--dtype {other})"
    return "subtract each feature's mean, and scale what is left to about 1"
