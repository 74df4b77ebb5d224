"""JSON for the scripts of the page: inside the page, and in a file for each result."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from allcnn.compare.describe import errors_caution
from store import SimilarityResult

_ESCAPED = {ord(c): f"\\u{ord(c):04x}" for c in "<>&"}
"""No name may end the script that it stands in."""


def to_script(values: object) -> str:
    """Return JSON that is safe inside a script: ASCII, and without letters that HTML reads."""
    text = json.dumps(values, allow_nan=False, separators=(",", ":"))
    return text.translate(_ESCAPED)


def numbers_script(result: SimilarityResult) -> bytes:
    """Return the script that passes the numbers of a result to the page, with all their digits."""
    values = {
        "values": nested(result.values),
        "errors": nested(result.errors),
        "sums_rows": nested(result.sums("rows")),
        "sums_columns": nested(result.sums("columns")),
        "scales_rows": nested(result.parts.get("scales_rows")),
        "scales_columns": nested(result.parts.get("scales_columns")),
        "reasons": result.reasons,
        "errors_reason": result.errors_reason,
        "n_minibatches": result.n_minibatches,
        "errors_caution": errors_caution(result),
        "digests": digests_of(result),
    }
    return f"reportNumbers({to_script(result.name)},{to_script(values)});\n".encode()


def digests_of(result: SimilarityResult) -> dict[str, str]:
    """Return the digests of the checkpoints that a result is of, as far as it names them."""
    sides: Mapping[str, Any] = result.provenance.get("checkpoint_digests") or {}
    return {name: digest for side in sides.values() for name, digest in side.items()}


def nested(array: np.ndarray | None) -> Any:
    """Return numbers as lists, with None for NaN and infinities, which JSON does not have.

    JSON writes a float's repr, which has all its digits.
    """
    if array is None:
        return None
    numbers = array.astype(object)
    numbers[~np.isfinite(array)] = None
    return numbers.tolist()
