"""JSON that scripts of the page read: inside the page, and in a file of its own a result."""

import json
import math
from typing import Any

import numpy as np

from allcnn.compare.describe import errors_caution
from flows.reporting.found import digests_of
from store import SimilarityResult

_ESCAPED = {ord(c): f"\\u{ord(c):04x}" for c in "<>&"}
"""No name may end the script that it stands in."""


def to_script(values: object) -> str:
    """Return JSON that is safe inside a script: ASCII, and without letters that HTML reads."""
    text = json.dumps(values, allow_nan=False, separators=(",", ":"))
    return text.translate(_ESCAPED)


def finite(number: Any) -> Any:
    """Return a number, or None for NaN and infinities, which JSON does not have."""
    return None if isinstance(number, float) and not math.isfinite(number) else number


def numbers_script(result: SimilarityResult) -> bytes:
    """Return the script that hands the page the numbers of a result, with all their digits."""
    values = {
        "values": _nested(result.values),
        "errors": _nested(result.errors),
        **{f"sums_{side}": _nested(result.sums(side)) for side in ("rows", "columns")},
        **{
            f"scales_{side}": _nested(result.parts.get(f"scales_{side}"))
            for side in ("rows", "columns")
        },
        "reasons": result.reasons,
        "errors_reason": result.errors_reason,
        "n_minibatches": result.n_minibatches,
        "errors_caution": errors_caution(result),
        "digests": digests_of(result),
    }
    return f"reportNumbers({to_script(result.name)},{to_script(values)});\n".encode()


def _nested(array: np.ndarray | None) -> Any:
    """Return numbers as lists; a float's repr, which JSON writes, has all its digits."""
    if array is None:
        return None
    numbers = array.astype(object)
    numbers[~np.isfinite(array)] = None
    return numbers.tolist()
