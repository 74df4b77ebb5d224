"""What a comparison's results are called, which are known, and how sums become one."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

import store
from allcnn.compare.candidates import Sides, Source
from allcnn.compare.tasks import Part
from allcnn.config import Comparison
from allcnn.provenance import now, versions
from allcnn.similarity.alignment import Alignment, align, jackknife
from allcnn.similarity.hsic import HsicSums
from store import (
    DamagedChunkError,
    SchemaError,
    SimilarityResult,
    UnfinishedError,
    UnknownResultError,
)
from store.storage.paths import Place

Medians = Sequence[Sequence[float | None]]
"""Of the rows and of the columns; None for kernels without a bandwidth."""

_METHOD = 3
"""Raised with every change that moves the numbers, so that no older result stands for a new one."""


JOB: Final = "job"
"""Where a result's provenance tells its comparison; results of 0.1 do not."""

_ROWS = "rows_digests"
_DIGESTS = "checkpoint_digests"


@dataclass(frozen=True)
class Slot:
    """One of a comparison's results: a bandwidth, by its place among them, and a class."""

    index: int
    sigma: float | None
    label: int | None
    name: str


def slots(
    job: Comparison, labels: tuple[int, ...] | None, rows: list[Source], columns: list[Source]
) -> list[Slot]:
    """Return the results of a comparison, bandwidth after bandwidth, class after class."""
    return [
        Slot(index, sigma, label, _name(job, sigma, label, rows, columns))
        for index, sigma in enumerate(job.bandwidths)
        for label in labels or (None,)
    ]


def known_results(path: Place, wanted: list[Slot], sides: Sides) -> list[SimilarityResult] | None:
    """Return results that were all computed before; one that is damaged does not count.

    Neither does one of other activations under the same digest of a checkpoint, which need not tell
    all that those of another program depend on.
    """
    if not store.has_store(path):
        return None
    try:
        found = [store.read_result(path, slot.name) for slot in wanted]
    except (UnknownResultError, UnfinishedError, DamagedChunkError, SchemaError):
        return None
    return found if all(is_current(result.provenance, sides) for result in found) else None


def is_current(provenance: Mapping[str, Any], sides: Sides) -> bool:
    """Return whether a result is of the activations that are stored now, as far as it tells."""
    if provenance.get(_DIGESTS) not in (None, _checkpoint_digests(sides)):
        return False
    recorded = provenance.get(_ROWS, {})
    return all(recorded.get(key, digest) == digest for key, digest in _rows_digests(sides).items())


def _rows_digests(sides: Sides) -> dict[str, str]:
    return {s.key.text: s.rows_digest for side in sides for s in side if s.rows_digest}


def _name(
    job: Comparison,
    sigma: float | None,
    label: int | None,
    rows: list[Source],
    columns: list[Source],
) -> str:
    """Return a name that changes with everything that the result depends on."""
    exact = job.estimator == "exact"
    inputs = {
        "method": _METHOD,
        "rows": [_inputs(source) for source in rows],
        "columns": [_inputs(source) for source in columns],
        "kernel": [job.kernel, sigma, job.pool],
        "estimator": [job.estimator, None if exact else job.batch_size],
        "label": label,
        "permutations": job.permutations,
    }
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:8]
    parts = [_sides(job)]
    parts.append(f"rbf{sigma:g}" if sigma is not None else job.kernel)
    parts += ["pooled"] if job.pool == "mean" else []
    parts.append(job.estimator)
    parts += [] if label is None else [f"class{label}"]
    return "-".join([*parts, digest]).replace("+", "")


def _inputs(source: Source) -> list[str]:
    return [source.key.text, source.sample_set.digest, source.digest, source.dtype]


def _sides(job: Comparison) -> str:
    """Return both sides in letters that a folder's name can have; the digest tells cut ones apart.

    Patterns lose what no file name has.
    """
    texts = [
        "_".join([side.run, side.checkpoint, *([side.tap] if side.tap != "*" else [])])
        for side in (job.rows, job.columns)
    ]
    plain = ["".join(c if c.isalnum() or c in "_.-" else "x" for c in text) for text in texts]
    joined = "-".join(dict.fromkeys(plain)).replace("..", "x")
    return joined.encode("ascii", "replace").decode().replace("?", "x").lstrip("_.-")[:140] or "x"


def result_of(
    slot: Slot, job: Comparison, sides: Sides, medians: Medians, part: Part
) -> SimilarityResult:
    """Divide the sums of one result, with its standard errors and its baseline."""
    rows, columns = sides
    total = part.sums.total() if len(part.sums.sizes) else HsicSums.zero(len(rows), len(columns))
    ratio = align(total)
    exact = job.estimator == "exact"
    errors = jackknife(part.sums) if len(part.sums.sizes) else None
    reason = "" if errors is None else errors.reason
    if exact:
        reason = "the exact estimate has a single batch; the jackknife needs minibatches"
    bandwidths = [_bandwidths(slot, side) for side in medians]
    return SimilarityResult(
        name=slot.name,
        rows=tuple(source.key for source in rows),
        columns=tuple(source.key for source in columns),
        cka=ratio.matrix,
        hsic=total.cross,
        hsic_rows=total.rows,
        hsic_columns=total.columns,
        n_examples=total.n_examples,
        kernel=job.kernel,
        sigma=slot.sigma,
        estimator=job.estimator,
        batch_size=total.n_examples if exact else job.batch_size,
        bandwidths_rows=bandwidths[0],
        bandwidths_columns=bandwidths[1],
        reasons=_reasons(slot, ratio, sides, medians, part),
        provenance=_provenance(job, slot, rows, columns),
        standard_errors=np.full(ratio.matrix.shape, np.nan) if errors is None else errors.values,
        standard_errors_reason=reason,
        minibatch_sizes=part.sums.sizes,
        hsic_minibatches=part.sums.cross,
        hsic_rows_minibatches=part.sums.rows,
        hsic_columns_minibatches=part.sums.columns,
        baseline=_baseline(part, total) if job.permutations else None,
        pool=job.pool,
        label=slot.label,
        n_skipped=part.n_skipped,
        sources=_sources(sides),
    )


def _baseline(part: Part, total: HsicSums) -> np.ndarray:
    """Return CKA of shuffled columns: shuffling leaves HSIC of a list with itself as it is."""
    sums = [HsicSums(s, total.rows, total.columns, total.n_examples) for s in part.shuffled]
    return np.stack([align(each).matrix for each in sums])


def _bandwidths(slot: Slot, medians: Sequence[float | None]) -> np.ndarray | None:
    if slot.sigma is None:
        return None
    return np.array([slot.sigma * (median or 0.0) for median in medians], np.float64)


def _sources(sides: Sides) -> tuple[int, int]:
    """Count the representations computed from activations, and those whose Grams were kept."""
    unique = dict.fromkeys(source for side in sides for source in side)
    kept = sum(source.kept for source in unique)
    return len(unique) - kept, kept


def _reasons(
    slot: Slot, ratio: Alignment, sides: Sides, medians: Medians, part: Part
) -> tuple[tuple[int, int, str], ...]:
    """Name the taps, and the missing bandwidth or examples where those are the cause."""
    rows, columns = sides

    def reason(i: int, j: int, text: str) -> str:
        if not len(part.sums.sizes):
            return (
                f"no minibatch has 4 examples of label {slot.label}; use larger minibatches, or the"
                " exact estimator"
            )
        for source, median in ((rows[i], medians[0][i]), (columns[j], medians[1][j])):
            if median is not None and not 0 < median < np.inf:
                examples, state = (
                    ("some values", "not finite") if median else ("all examples", "equal")
                )
                return f"{examples} of {source.key} are {state}: no distance scales the RBF kernel"
        return f"{rows[i].key} with {columns[j].key}: {text}"

    return tuple((i, j, reason(i, j, text)) for (i, j), text in ratio.reasons.items())


def _provenance(
    job: Comparison, slot: Slot, rows: list[Source], columns: list[Source]
) -> dict[str, Any]:
    """Return who made a result from what, and by which comparison it can be made again."""
    sigmas = job.sigmas if slot.sigma is None else (slot.sigma,)
    named = rows[0].key.sample_set
    again = replace(job, sample_set=named, sigmas=sigmas, label=slot.label)
    return {
        "created_at": now(),
        JOB: again.to_json(),
        "versions": versions(),
        "sample_set": rows[0].sample_set.to_json(),
        _ROWS: _rows_digests((rows, columns)),
        _DIGESTS: _checkpoint_digests((rows, columns)),
    }


def _checkpoint_digests(sides: Sides) -> dict[str, dict[str, str]]:
    return {
        name: {str(source.network): source.digest for source in side}
        for name, side in zip(("rows", "columns"), sides, strict=True)
    }
