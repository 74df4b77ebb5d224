"""Keep the matrices of comparisons: one Zarr group a result, complete or absent."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

import numpy as np

from store.errors import SchemaError, UnknownResultError
from store.model.field_checks import (
    as_list,
    check_choice,
    check_count,
    check_place,
    check_positive,
    check_text,
)
from store.model.names import check_component
from store.model.schema import RepresentationKey
from store.records import records
from store.records.records import Arrays, Content, Matrix, RecordForm, Sizes
from store.storage.paths import Address

RESULT: Final = "allcnn_result"

ARRAYS: Final[dict[str, tuple[str, ...]]] = {
    "cka": ("row", "column"),
    "hsic": ("row", "column"),
    "hsic_rows": ("row",),
    "hsic_columns": ("column",),
    "bandwidths_rows": ("row",),
    "bandwidths_columns": ("column",),
    "standard_errors": ("row", "column"),
    "minibatch_sizes": ("minibatch",),
    "hsic_minibatches": ("minibatch", "row", "column"),
    "hsic_rows_minibatches": ("minibatch", "row"),
    "hsic_columns_minibatches": ("minibatch", "column"),
    "baseline": ("permutation", "row", "column"),
}
"""The arrays of numbers in a result, and their dimensions."""

_REQUIRED = {"cka", "hsic", "hsic_rows", "hsic_columns"}
_INTEGERS = {"minibatch_sizes"}

_MOST_LETTERS: Final = 10_000
"""Of a reason, which may name several representations."""


@dataclass(frozen=True, eq=False)
class SimilarityResult:
    """A CKA matrix with the sums it came from; arrays are float64, sizes int64.

    Attributes:
        name: of the comparison, safe as a folder's name.
        rows: representations along the first axis.
        columns: representations along the second axis.
        cka: ratio of the sums below; NaN where a self-HSIC sum is not positive.
        hsic: weighted sums over minibatches of HSIC between row and column.
        hsic_rows: the same of each row's representation with itself.
        hsic_columns: the same of each column's representation with itself.
        n_examples: rows of the sample set that were used.
        kernel: such as ``linear`` or ``rbf``.
        sigma: bandwidth as a fraction of the median distance, None for kernels without one.
        estimator: such as ``unbiased``.
        batch_size: examples a minibatch.
        bandwidths_rows: absolute bandwidth of each row's kernel, None for kernels without one.
        bandwidths_columns: absolute bandwidth of each column's kernel.
        reasons: (row, column, sentence) for entries that are NaN.
        provenance: JSON values such as versions, checkpoint digests and time.
        standard_errors: of the entries of ``cka``, None where none were computed.
        standard_errors_reason: sentence why standard errors are NaN, else empty.
        minibatch_sizes: examples of each minibatch, None in older results.
        hsic_minibatches: (minibatch, row, column), the terms of ``hsic``.
        hsic_rows_minibatches: (minibatch, row), those of ``hsic_rows``.
        hsic_columns_minibatches: (minibatch, column), those of ``hsic_columns``.
        baseline: (permutation, row, column), CKA with examples matched at random.
        pool: ``whole``, or ``mean`` where convolutional taps were averaged over space.
        label: class whose examples were compared, None for all of them.
        n_skipped: minibatches that had too few examples of that class.
        sources: how many representations came from activations, and how many from kept Grams.
    """

    name: str
    rows: tuple[RepresentationKey, ...]
    columns: tuple[RepresentationKey, ...]
    cka: Matrix
    hsic: Matrix
    hsic_rows: Matrix
    hsic_columns: Matrix
    n_examples: int
    kernel: str
    sigma: float | None
    estimator: str
    batch_size: int
    bandwidths_rows: Matrix | None = None
    bandwidths_columns: Matrix | None = None
    reasons: tuple[tuple[int, int, str], ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)
    standard_errors: Matrix | None = None
    standard_errors_reason: str = ""
    minibatch_sizes: Sizes | None = None
    hsic_minibatches: Matrix | None = None
    hsic_rows_minibatches: Matrix | None = None
    hsic_columns_minibatches: Matrix | None = None
    baseline: Matrix | None = None
    pool: str = "whole"
    label: int | None = None
    n_skipped: int = 0
    sources: tuple[int, int] = (0, 0)

    @property
    def n_minibatches(self) -> int:
        """Minibatches that were summed; of older results, which do not keep them, by their size."""
        if self.minibatch_sizes is not None:
            return len(self.minibatch_sizes)
        return max(1, -(-self.n_examples // self.batch_size))

    def __post_init__(self) -> None:
        check_component("result", self.name)
        lengths = {"row": len(self.rows), "column": len(self.columns)}
        for name in ARRAYS:
            values = getattr(self, name)
            if values is not None or name in _REQUIRED:
                what = f"{name} of result {self.name}"
                records.check_shape(what, ARRAYS[name], np.shape(values), lengths)
                object.__setattr__(self, name, np.ascontiguousarray(values, RESULTS.dtype_of(name)))
        if len(self.sources) != 2:
            raise SchemaError(
                f"sources of result {self.name} are {self.sources}; want two counts,"
                " of activations and of kept Grams"
            )


def write_result(store: Address, result: SimilarityResult) -> None:
    """Write a result, replacing one of the same name only after the new one is complete.

    At an address, where nothing can be renamed at once, the old one is removed first.
    """
    present = {name: getattr(result, name) for name in ARRAYS}
    arrays = {name: values for name, values in present.items() if values is not None}
    records.write_record(store, RESULTS, Content(result.name, _to_json(result), arrays))


def read_result(store: Address, name: str) -> SimilarityResult:
    """Read a finished result.

    Raises UnknownResultError where there is none, UnfinishedError where writing was interrupted,
    DamagedChunkError where values are not those that were written.
    """
    return records.read_record(store, RESULTS, name)


def list_results(store: Address) -> list[str]:
    """Return the names of finished results, sorted; of damaged ones too, which cannot be read."""
    return records.list_records(store, RESULTS)


def has_result(store: Address, name: str) -> bool:
    """Return whether a finished result has this name; a store not yet there has none."""
    return records.has_record(store, RESULTS, name)


def _to_json(result: SimilarityResult) -> dict[str, Any]:
    names = [f.name for f in fields(result) if f.name not in ARRAYS]
    return {name: getattr(result, name) for name in names} | {
        "rows": [key.text for key in result.rows],
        "columns": [key.text for key in result.columns],
        "reasons": [list(reason) for reason in result.reasons],
        "sources": list(result.sources),
    }


def _check(facts: Mapping[str, Any]) -> None:
    """Raise SchemaError, KeyError or TypeError for facts of other types or bounds."""
    check_component("result", facts["name"])
    sizes = [len(as_list(side, facts[side])) for side in ("rows", "columns")]
    for name in ("kernel", "estimator"):
        check_text(name, facts[name])
    check_count("n_examples", facts["n_examples"], least=0)
    for name, otherwise in (("batch_size", None), ("n_skipped", 0)):
        check_count(name, facts.get(name, otherwise), least=0)
    for count in as_list("sources", facts.get("sources", [0, 0])):
        check_count("sources", count, least=0)
    check_choice("pool", facts.get("pool", "whole"), "whole", "mean")
    if facts.get("label") is not None:
        check_count("label", facts["label"], least=0)
    if facts["sigma"] is not None:
        check_positive("sigma", facts["sigma"])
    if facts.get("standard_errors_reason", "") != "":
        check_text("standard_errors_reason", facts["standard_errors_reason"], _MOST_LETTERS)
    for row, column, reason in as_list("reasons", facts["reasons"]):
        check_place("row of a reason", row, sizes[0])
        check_place("column of a reason", column, sizes[1])
        check_text("a reason", reason, _MOST_LETTERS)
    records.check_provenance(facts)
    _check_digests(facts.get("provenance", {}).get("checkpoint_digests"))


def _check_digests(sides: object) -> None:
    for networks in records.check_dict("checkpoint_digests", sides).values():
        for network, digest in records.check_dict("checkpoint_digests", networks).items():
            check_text("checkpoint_digest", network)
            check_text("checkpoint_digest", digest)


def _make(facts: Mapping[str, Any], arrays: Arrays) -> SimilarityResult:
    given: dict[str, Any] = {**facts, **arrays}
    return SimilarityResult(
        **given
        | {
            "rows": tuple(map(RepresentationKey.from_text, facts["rows"])),
            "columns": tuple(map(RepresentationKey.from_text, facts["columns"])),
            "reasons": tuple((i, j, why) for i, j, why in facts["reasons"]),
            "sources": tuple(facts.get("sources", (0, 0))),
        }
    )


RESULTS: Final = RecordForm(
    kind="similarity",
    noun="result",
    mark=RESULT,
    sides=("rows", "columns"),
    labels=lambda facts: {
        "row": records.tap_names(facts["rows"]),
        "column": records.tap_names(facts["columns"]),
    },
    arrays=ARRAYS,
    integers=frozenset(_INTEGERS),
    unknown=UnknownResultError,
    check=_check,
    make=_make,
)
"""How a store keeps results."""
