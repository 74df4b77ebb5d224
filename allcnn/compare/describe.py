"""Describe results in words and as JSON, without drawing or computing anything."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from allcnn.compare.candidates import network_of
from store import RepresentationKey, SimilarityResult
from store.records.results import settings_of

_ENOUGH_MINIBATCHES: Final = 8
"""Standard errors from fewer are qualified wherever they are shown."""


class Side(NamedTuple):
    """The labels along one side of a matrix.

    Attributes:
        names: of the taps.
        label: the network, or how many there are.
        groups: networks and their numbers of taps, where there is more than one.
    """

    names: list[str]
    label: str
    groups: list[tuple[str, int]] | None

    @property
    def full_names(self) -> list[str]:
        """The names that distinguish taps of several networks."""
        if self.groups is None:
            return self.names
        networks = [network for network, n in self.groups for _ in range(n)]
        return [f"{network}:{tap}" for network, tap in zip(networks, self.names, strict=True)]


def side(keys: Sequence[RepresentationKey]) -> Side:
    """Return what the representations along one side are called."""
    names = [key.tap for key in keys]
    groups = [
        (network, len(list(members))) for network, members in groupby(map(_network_name, keys))
    ]
    if len(groups) == 1:
        return Side(names, groups[0][0], None)
    return Side(names, f"{len(groups)} networks", groups)


def _network_name(key: RepresentationKey) -> str:
    return str(network_of(key))


def matrix_json(result: SimilarityResult, *, errors: bool = False) -> dict[str, Any]:
    """Return a result as JSON values: names and nested lists, NaN as null."""
    rows, columns = side(result.rows), side(result.columns)
    values = {
        "rows": rows.full_names,
        "columns": columns.full_names,
        "matrix": nested(result.values),
        **settings_of(result.method),
        "examples": result.n_examples,
        "label": result.label,
        "minibatches": result.n_minibatches,
        "skipped_minibatches": result.n_skipped,
        "sample_set": result.rows[0].sample_set,
        "networks": [
            list(dict.fromkeys(map(_network_name, keys))) for keys in (result.rows, result.columns)
        ],
        "sources": dict(zip(("activations", "grams"), result.sources, strict=True)),
        "reasons": [list(reason) for reason in result.reasons],
    }
    if errors and result.errors is not None:
        values["standard_errors"] = nested(result.errors)
        values["standard_errors_reason"] = result.errors_reason
        values["standard_errors_caution"] = errors_caution(result)
    if result.baseline is not None:
        values["baseline"] = {
            "permutations": len(result.baseline),
            "mean": nested(result.baseline.mean(axis=0)),
            "largest": nested(result.baseline.max(axis=0)),
        }
    return values


def nested(numbers: npt.ArrayLike | None) -> Any:
    """Return numbers as lists, with None for NaN and infinities, which JSON does not have.

    JSON writes a float's repr, which has all its digits.
    """
    if numbers is None:
        return None
    array = np.asarray(numbers, dtype=object)
    array[~np.isfinite(np.asarray(numbers))] = None
    return array.tolist()


def way(result: SimilarityResult) -> str:
    """Return the kernel, such as ``RBF 0.4``, and the pooling where there is any."""
    return result.kernel_title + (" (mean over space)" if result.pool == "mean" else "")


def method(result: SimilarityResult, *, examples: bool = True, errors: bool = False) -> str:
    """Return in one line how a result was computed, and what qualifies its standard errors."""
    text = ", ".join(filter(None, (f"{way(result)} {result.title}", result.method["qualifier"])))
    if result.label is not None:
        text += f", class {result.label}"
    if not examples:
        return text
    text += f", {result.n_examples:,} examples"
    if not result.is_whole:
        text += f" in minibatches of {result.batch_size}"
    doubt = errors_caution(result) if errors and not result.is_whole else ""
    return f"{text}; {doubt}" if doubt else text


def errors_caution(result: SimilarityResult) -> str:
    """Return how the standard errors of a result are qualified; empty where nothing is in doubt."""
    errors, n = result.errors, result.n_minibatches
    if errors is None or not np.isfinite(errors).any() or n >= _ENOUGH_MINIBATCHES:
        return ""
    return f"standard errors from {n} minibatches, likely too small"
