"""Cast activations to the dtype in which they are stored, unless that loses what is compared.

CKA, distances and probes see how examples differ from each other, not the values themselves. A
float that is far from zero holds few digits of that difference, and one that is close to zero may
hold none.
"""

from collections.abc import Iterator
from typing import Any, Final, get_args

import numpy as np
import numpy.typing as npt

from store.errors import ActivationOverflowError, PrecisionError
from store.foreign import as_floats
from store.schema import DType

TOLERANCE: Final = 1e-4
"""Rounding may add this share of the variance of a minibatch, summed over its features.

Rounding errors E of rows X are nearly uncorrelated with them, and add tr(cov E) to tr(cov X). What
CKA divides by, |cov X|² (Frobenius), grows by 2 tr(cov X cov E), a share of 2 tr(cov E)/tr(cov X)
where errors are spread as the variance is: CKA falls by the share itself, squared distances grow by
it. So 1e-4 keeps CKA to about 1e-4. Float16 stays below it where a feature's mean is up to some 45
standard deviations, float32 up to some 400,000.
"""

MIN_ROWS: Final = 4
"""Fewer rows have no HSIC, and may be alike by chance; they join the minibatch before them."""

_TILE_VALUES: Final = 2**18


def narrow_rows(values: npt.NDArray[Any], dtype: DType, name: str) -> npt.NDArray[Any]:
    """Return the rows of a minibatch as they are stored: C order, little endian.

    Raises, both calling the rows ``name``, ActivationOverflowError where a finite value would
    become infinite, and PrecisionError where rounding adds more than ``TOLERANCE`` of the variance
    of at least ``MIN_ROWS`` rows. Rows that are not finite count for neither.
    """
    wide = as_floats(values, name)
    try:
        rows = _cast(wide, dtype)
    except FloatingPointError:
        raise ActivationOverflowError(
            f"{_too_large(wide, dtype, name)}; {_advice(wide, dtype)}"
        ) from None
    share = _share_lost(wide, dtype)
    if share > TOLERANCE:
        raise PrecisionError(
            f"{name} varies too little for the precision of {dtype}: rounding adds {share:.2g} of"
            f" the variance of {len(wide)} rows, and CKA needs {TOLERANCE:g} or less;"
            f" {_advice(wide, dtype)}"
        )
    return rows


def narrow_gram(values: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    """Return a Gram as it is stored, in float32; raises ActivationOverflowError, naming it."""
    wide = as_floats(values, name)
    try:
        return _cast(wide, "float32")
    except FloatingPointError:
        raise ActivationOverflowError(
            f"{_too_large(wide, 'float32', name)}; scale the activations down"
        ) from None


def surely_kept(rows: npt.NDArray[Any], dtype: DType) -> bool:
    """Return whether a bound shows that rows lose nothing in a dtype; a fifth of NumPy's cast.

    False for few others: rows that are not finite, that vary little, or with huge values.
    """
    flat, form = rows.reshape(len(rows), -1), np.finfo(dtype)
    n, unit = len(flat), float(np.finfo(flat.dtype).eps)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        squares = np.einsum("ij,ij->i", flat, flat).astype(np.float64)
        sums = flat.sum(axis=0).astype(np.float64)
        total = float(squares.sum())
        # Each sum over n rows is off by n rounding errors at most.
        variance = total * (1 - 2 * n * unit) - float(sums @ sums) / n
        rounding = (float(form.eps) / 2) ** 2 * total
        rounding += flat.size * (float(form.smallest_subnormal) / 2) ** 2
        is_small = float(squares.max()) < float(form.max) ** 2 or np.abs(flat).max() <= form.max
        return bool(is_small and rounding <= TOLERANCE * variance)


def _cast(values: npt.NDArray[Any], dtype: DType) -> npt.NDArray[Any]:
    # The processor's overflow flag costs nothing; looking for the maximum, a fifth of the cast.
    with np.errstate(over="raise", under="ignore"):
        return values.astype(np.dtype(dtype).newbyteorder("<"), order="C", copy=False)


def _share_lost(wide: npt.NDArray[Any], dtype: DType) -> float:
    """Return the variance that rounding adds to rows, as a share of theirs; 0 for few rows."""
    if np.dtype(dtype).itemsize >= wide.dtype.itemsize or len(wide) < MIN_ROWS:
        return 0.0
    if surely_kept(wide, dtype):
        return 0.0
    flat = wide.reshape(len(wide), -1)
    flat = flat[np.isfinite(flat).all(axis=1)]
    scale = np.ptp(flat, axis=0).max() if len(flat) >= MIN_ROWS else 0
    if scale == 0:
        return 0.0
    variance = rounding = 0.0
    for tile in _tiles(flat):
        variance += _squares_about_mean((tile - tile[0]) / scale)
        rounding += _squares_about_mean((tile - _cast(tile, dtype)) / scale)
    return rounding / variance


def _tiles(flat: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    width = max(1, _TILE_VALUES // len(flat))
    return (flat[:, start : start + width] for start in range(0, flat.shape[1], width))


def _squares_about_mean(values: npt.NDArray[Any]) -> float:
    wide = values.astype(np.float64)
    wide -= wide.mean(axis=0)
    return float(np.square(wide).sum())


def _too_large(wide: npt.NDArray[Any], dtype: DType, name: str) -> str:
    largest = np.abs(wide[np.isfinite(wide)]).max()
    return f"{name} reaches {largest:g}, and {dtype} ends at {np.finfo(dtype).max:.6g}"


def _advice(wide: npt.NDArray[Any], dtype: DType) -> str:
    """Return how to store rows that a dtype does not hold, as a part of a sentence."""
    for other in sorted(get_args(DType), key=lambda each: np.dtype(each).itemsize):
        if np.dtype(other).itemsize > np.dtype(dtype).itemsize and _holds(wide, other):
            return f"store it as {other} (--dtype {other})"
    return "subtract each feature's mean, and scale what is left to about 1"


def _holds(wide: npt.NDArray[Any], dtype: DType) -> bool:
    try:
        _cast(wide, dtype)
    except FloatingPointError:
        return False
    return _share_lost(wide, dtype) <= TOLERANCE
