"""Keep the matrices of comparisons: one Zarr group a result, complete or absent."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from math import isfinite
from typing import Any, Final

from store.errors import SchemaError, UnknownResultError
from store.model.field_checks import (
    as_list,
    check_choice,
    check_count,
    check_text,
    shown,
)
from store.model.names import check_component
from store.model.schema import RepresentationKey
from store.records import records
from store.records.records import Arrays, Matrix, RecordForm, Sizes

VALUES: Final = "values"
ERRORS: Final = "errors"
SIZES: Final = "minibatch_sizes"

_PART: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_ENDINGS: Final[dict[str, tuple[str, ...]]] = {
    SIZES: ("minibatch",),
    "baseline": ("permutation", "row", "column"),
    "_rows_minibatches": ("minibatch", "row"),
    "_columns_minibatches": ("minibatch", "column"),
    "_minibatches": ("minibatch", "row", "column"),
    "_rows": ("row",),
    "_columns": ("column",),
}
"""Dimensions of a part by the end of its name; all others are matrices of rows and columns."""

_FORMER: Final = {"cka": VALUES, "standard_errors": ERRORS}
"""Arrays of results of schema 2 and earlier, all of which are of CKA."""

_SHOWN: Final = frozenset(
    "title limits qualifier how kernel_title is_whole sums shows_sums".split()
)
"""Parts of a method that say how the others are shown."""

_MOST_LETTERS: Final = 10_000
"""Letters of a reason, which may name several representations."""


def dimensions_of(array: str) -> tuple[str, ...]:
    """Return the dimensions of an array of a result; raises SchemaError for no name of one."""
    if not _PART.fullmatch(array):
        raise SchemaError(f"part {array[:80]!r} is no lower-case name of up to 64 letters")
    return next((d for end, d in _ENDINGS.items() if array.endswith(end)), ("row", "column"))


def are_arrays(names: Collection[str]) -> bool:
    """Return whether a folder's entries can all be arrays of a result, of any version."""
    known = {VALUES, ERRORS, *_FORMER, "hsic"}
    return all(
        name in known or name.endswith(tuple(_ENDINGS)) or f"{name}_rows" in names for name in names
    )


@dataclass(frozen=True, eq=False)
class SimilarityResult:
    """A matrix of similarity with the sums it came from; arrays are float64, sizes int64.

    Attributes:
        name: of the comparison, safe as a folder's name.
        rows: representations along the first axis.
        columns: representations along the second axis.
        method: JSON values that fix the numbers but for the data, such as ``measure``, ``kernel``,
            ``estimator``, ``batch_size`` and ``pool``; ``title`` and ``limits`` for pictures.
        values: of the measure; NaN where it is not defined.
        n_examples: rows of the sample set that were used.
        errors: standard errors of the values, None where none were computed.
        errors_reason: sentence why standard errors are NaN, else empty.
        parts: what the values came from, by the measure's own names: for CKA ``hsic``,
            ``hsic_rows`` and ``hsic_columns``, the sums; each with ``_minibatches``, their terms;
            ``minibatch_sizes``; ``scales_rows`` and ``scales_columns``, such as bandwidths; and
            ``baseline``, (permutation, row, column), with examples matched at random.
        reasons: (row, column, sentence) for entries that are NaN.
        label: class whose examples were compared, None for all of them.
        n_skipped: minibatches that had too few examples of that class.
        sources: how many representations came from activations, and how many from kept Grams.
        provenance: JSON values such as versions, checkpoint digests and time.
    """

    name: str
    rows: tuple[RepresentationKey, ...]
    columns: tuple[RepresentationKey, ...]
    method: dict[str, Any]
    values: Matrix
    n_examples: int
    errors: Matrix | None = None
    errors_reason: str = ""
    parts: dict[str, Any] = field(default_factory=dict)
    reasons: tuple[tuple[int, int, str], ...] = ()
    label: int | None = None
    n_skipped: int = 0
    sources: tuple[int, int] = (0, 0)
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def cka(self) -> Matrix:
        """The values of CKA; raises AttributeError for results of another measure."""
        if self.method.get("measure") != "cka":
            raise AttributeError(f"result {self.name} is of {self.title}; take its values")
        return self.values

    @property
    def title(self) -> str:
        """The measure's name in words."""
        return str(self.method["title"])

    @property
    def kernel_title(self) -> str:
        """The kernel's name in words, such as "RBF 0.4"."""
        return str(self.method["kernel_title"])

    @property
    def limits(self) -> tuple[float, float]:
        """Ends of the measure's scale of colours."""
        low, high = self.method["limits"]
        return low, high

    @property
    def pool(self) -> str:
        """``whole``, or ``mean`` where convolutional taps were averaged over space."""
        return str(self.method["pool"])

    @property
    def batch_size(self) -> int:
        """Examples of a minibatch."""
        return int(self.method["batch_size"])

    @property
    def is_whole(self) -> bool:
        """Whether all examples were one minibatch."""
        return bool(self.method["is_whole"])

    def sums(self, part: str = "") -> Any:
        """Return sums that the values came from; None where older results do not keep them.

        ``part`` names others than the matrix: ``rows``, ``columns``, ``minibatches``,
        ``rows_minibatches`` or ``columns_minibatches``.
        """
        return self.parts.get("_".join(filter(None, (self.method["sums"], part))))

    @property
    def baseline(self) -> Matrix | None:
        """Values with examples matched at random, (permutation, row, column)."""
        return self.parts.get("baseline")

    @property
    def sizes(self) -> Sizes | None:
        """Examples of each minibatch, None in older results."""
        return self.parts.get(SIZES)

    @property
    def n_minibatches(self) -> int:
        """Minibatches that were summed; of older results, which do not keep them, by their size."""
        if self.sizes is not None:
            return len(self.sizes)
        return max(1, -(-self.n_examples // self.batch_size))

    @property
    def arrays(self) -> dict[str, Any]:
        """All arrays by their names in the store."""
        own = {VALUES: self.values} | ({} if self.errors is None else {ERRORS: self.errors})
        return own | self.parts

    def with_arrays(self, arrays: Mapping[str, Any], **changes: Any) -> "SimilarityResult":
        """Return a result with other arrays, and with other facts."""
        parts = {name: each for name, each in arrays.items() if name not in (VALUES, ERRORS)}
        changes |= {"values": arrays[VALUES], "errors": arrays.get(ERRORS), "parts": parts}
        return replace(self, **changes)

    def __post_init__(self) -> None:
        check_component("result", self.name)
        made = RESULTS.as_stored(self)
        for name in (VALUES, ERRORS):
            object.__setattr__(self, name, made.pop(name, None))
        object.__setattr__(self, "parts", made)
        if len(self.sources) != 2:
            raise SchemaError(
                f"sources of result {self.name}",
                f"are {self.sources}",
                "want two counts, of activations and of kept Grams",
            )


def method_of(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the method of a result's facts, also of schema 2 and earlier."""
    if "method" in facts:
        return records.check_dict("method", facts["method"])
    estimator, kernel, sigma = facts["estimator"], facts["kernel"], facts["sigma"]
    own = {} if sigma is None else {"sigma": sigma}
    return {
        "measure": "cka",
        "kernel": kernel,
        "estimator": estimator,
        **own,
        "pool": facts.get("pool", "whole"),
        "batch_size": facts.get("batch_size", 0),
        "title": "CKA",
        "limits": [0.0, 1.0],
        "qualifier": estimator,
        "how": f"{estimator} HSIC",
        "kernel_title": kernel if sigma is None else f"RBF {sigma:g}",
        "is_whole": estimator == "exact",
        "sums": "hsic",
        "shows_sums": kernel == "linear",
    }


def settings_of(method: Mapping[str, Any]) -> dict[str, Any]:
    """Return what fixes the numbers, without what shows them; ``sigma`` is always there."""
    return {"sigma": None} | {name: each for name, each in method.items() if name not in _SHOWN}


def _completed(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts of a result, also of one that an earlier version wrote with fewer."""
    reason = facts.get("standard_errors_reason", "")
    lacked = {"errors_reason": reason, "label": None, "n_skipped": 0, "sources": [0, 0]}
    found = lacked | {"provenance": {}} | dict(facts) | {"method": method_of(facts)}
    return {each.name: found[each.name] for each in fields(SimilarityResult) if each.name in found}


def _check(stored: Mapping[str, Any]) -> None:
    """Raise SchemaError, KeyError or TypeError for facts of other types or bounds."""
    facts = _completed(stored)
    check_component("result", facts["name"])
    sizes = [len(as_list(side, facts[side])) for side in ("rows", "columns")]
    _check_method(facts["method"])
    for name in ("n_examples", "n_skipped"):
        check_count(name, facts[name], least=0)
    for count in as_list("sources", facts["sources"]):
        check_count("sources", count, least=0)
    if facts["label"] is not None:
        check_count("label", facts["label"], least=0)
    if facts["errors_reason"] != "":
        check_text("errors_reason", facts["errors_reason"], _MOST_LETTERS)
    for row, column, reason in as_list("reasons", facts["reasons"]):
        check_count("row of a reason", row, 0, sizes[0] - 1)
        check_count("column of a reason", column, 0, sizes[1] - 1)
        check_text("a reason", reason, _MOST_LETTERS)
    records.check_provenance(facts)
    sides = facts["provenance"].get("checkpoint_digests")
    for networks in records.check_dict("checkpoint_digests", sides).values():
        for network, digest in records.check_dict("checkpoint_digests", networks).items():
            check_text("checkpoint_digest", network)
            check_text("checkpoint_digest", digest)


def _check_method(method: Mapping[str, Any]) -> None:
    for name in ("measure", "kernel", "title", "kernel_title", "sums"):
        check_text(name, method[name])
    for name in ("qualifier", "how"):
        if method[name] != "":
            check_text(name, method[name])
    check_choice("pool", method["pool"], "whole", "mean")
    check_count("batch_size", method["batch_size"], least=0)
    low, high = as_list("limits", method["limits"])
    if not (isinstance(low, float) and isinstance(high, float) and low < high):
        wanted = "want two numbers, the smaller first"
        raise SchemaError("limits", f"are {low!r} and {high!r}", wanted)
    for name, value in {"lower limit": low, "upper limit": high, **method}.items():
        if isinstance(value, float) and not isfinite(value):
            raise SchemaError(f"{name} is {value}", remedy="want a finite number")
    for name in ("is_whole", "shows_sums"):
        if not isinstance(method[name], bool):
            raise SchemaError(f"{name} is {shown(method[name])}", remedy="want true or false")


def _make(stored: Mapping[str, Any], arrays: Arrays) -> SimilarityResult:
    facts = _completed(stored)
    for side in ("rows", "columns"):
        facts[side] = tuple(map(RepresentationKey.from_text, facts[side]))
    facts |= {"reasons": tuple(map(tuple, facts["reasons"])), "sources": tuple(facts["sources"])}
    found = {
        _FORMER.get(name, name.replace("bandwidths_", "scales_")): values
        for name, values in arrays.items()
    }
    values, errors = found.pop(VALUES), found.pop(ERRORS, None)
    return SimilarityResult(**facts, values=values, errors=errors, parts=found)


RESULTS: Final = RecordForm(
    kind="similarity",
    noun="result",
    mark="allcnn_result",
    own=(VALUES, ERRORS, "parts"),
    arrays_of=lambda result: result.arrays,
    axes={"row": "rows", "column": "columns"},
    sides=("rows", "columns"),
    dimensions=dimensions_of,
    first=(VALUES, "cka"),
    integers=frozenset({SIZES}),
    unknown=UnknownResultError,
    check=_check,
    make=_make,
)
"""How a store keeps results."""

write_result, read_result = RESULTS.write, RESULTS.read
list_results, has_result = RESULTS.names, RESULTS.has
