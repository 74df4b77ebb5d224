"""Name the results of a comparison, find known ones, and make results of sums."""

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

import store
from allcnn.compare.candidates import Sides, Source
from allcnn.compare.tasks import Part
from allcnn.provenance import now, versions
from allcnn.settings.comparison import Comparison
from allcnn.similarity.derived import is_defined
from allcnn.similarity.jackknife import jackknife
from allcnn.similarity.measures import PairSums
from allcnn.similarity.method import Method
from allcnn.similarity.pair_sums import zero_sums
from store import (
    DamagedChunkError,
    SchemaError,
    SimilarityResult,
    UnfinishedError,
    UnknownResultError,
)
from store.storage.paths import Place

Medians = Sequence[Sequence[float | None]]
"""Median distances of the rows and of the columns; None for kernels that need none."""

_METHOD = 3
"""Raised with every change that moves the numbers, so that no older result stands for a new one."""


JOB: Final = "job"
"""Where a result's provenance has its comparison; results of 0.1 have none."""

_ROWS = "rows_digests"
_DIGESTS = "checkpoint_digests"


@dataclass(frozen=True)
class Slot:
    """One of a comparison's results: of a method, and of a class or (None) of all examples."""

    method: Method
    label: int | None
    name: str


def slots(
    job: Comparison, labels: Iterable[int | None], rows: list[Source], columns: list[Source]
) -> list[Slot]:
    """Return the results of a comparison, method after method, class after class."""
    return [
        Slot(method, label, _name(job, method, label, rows, columns))
        for method, label in itertools.product(job.methods, labels)
    ]


def known_results(path: Place, wanted: list[Slot], sides: Sides) -> list[SimilarityResult] | None:
    """Return results that were all computed before; one that is damaged does not count.

    Neither does one of other activations under the same digest of a checkpoint, as those of another
    program may depend on more than that digest covers.
    """
    if not store.has_store(path):
        return None
    try:
        found = [store.read_result(path, slot.name) for slot in wanted]
    except (UnknownResultError, UnfinishedError, DamagedChunkError, SchemaError):
        return None
    return found if all(is_current(result.provenance, sides) for result in found) else None


def is_current(provenance: Mapping[str, Any], sides: Sides) -> bool:
    """Return whether a result is of the activations that are stored now, as far as it shows."""
    if provenance.get(_DIGESTS) not in (None, _checkpoint_digests(sides)):
        return False
    return has_rows(provenance, _rows_digests(sides))


def has_rows(provenance: Mapping[str, Any], now: Mapping[str, str]) -> bool:
    """Return whether a result is of activations that have these digests, as far as it shows."""
    recorded = provenance.get(_ROWS, {})
    return all(recorded.get(key, digest) == digest for key, digest in now.items())


def _rows_digests(sides: Sides) -> dict[str, str]:
    return {s.key.text: s.rows_digest for side in sides for s in side if s.rows_digest}


def _name(
    job: Comparison, method: Method, label: int | None, rows: list[Source], columns: list[Source]
) -> str:
    """Return a name that changes with everything that the result depends on."""
    kernel, measure = method.kernel, method.measure
    inputs = {
        "method": _METHOD,
        "rows": [_inputs(source) for source in rows],
        "columns": [_inputs(source) for source in columns],
        "kernel": [kernel.reference, *(kernel.to_json().values() or (None,)), method.pool],
        "estimator": [*measure.to_json().values(), method.minibatch],
        "label": label,
        "permutations": job.permutations,
    }
    is_usual = type(measure) is type(Method.measure)
    if not is_usual:
        inputs["measure"] = measure.reference
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:8]
    parts = [_sides(job), *([] if is_usual else [measure.name]), kernel.slug]
    parts += ["pooled"] if method.pool == "mean" else []
    parts += [str(value) for value in measure.to_json().values()]
    parts += [] if label is None else [f"class{label}"]
    return "-".join([*parts, digest]).replace("+", "")


def _inputs(source: Source) -> list[str]:
    meta = source.meta
    return [source.key.text, meta.sample_set.digest, meta.checkpoint_digest, meta.dtype]


def _sides(job: Comparison) -> str:
    """Return both sides in letters that a folder's name can have; the digest keeps cut ones apart.

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
    """Finish the sums of one result, with standard errors and a baseline."""
    rows, columns = sides
    measure, sums = slot.method.measure, part.sums
    total = sums.total() if len(sums) else zero_sums(len(rows), len(columns))
    values = measure.finish(total)
    errors, reason = np.full(values.shape, np.nan), ""
    if slot.method.is_whole:
        reason = f"{measure.how} has a single batch; the jackknife needs minibatches"
    elif len(sums):
        errors, reason = jackknife(sums, measure)
    return SimilarityResult(
        name=slot.name,
        rows=tuple(source.key for source in rows),
        columns=tuple(source.key for source in columns),
        method=described(slot.method, total.n_examples, values),
        values=values,
        n_examples=total.n_examples,
        errors=errors,
        errors_reason=reason,
        parts=_parts(slot.method, total, part, medians, job.permutations > 0),
        reasons=_reasons(slot, values, total, sides, medians, part),
        label=slot.label,
        n_skipped=part.n_skipped,
        sources=_sources(sides),
        provenance=_provenance(job, slot, rows, columns),
    )


def described(method: Method, n_examples: int, values: ArrayLike = ()) -> dict[str, Any]:
    """Return a method as results have it, which need nothing else to be shown.

    Where the measure has no limits of its own, those of the values are its.
    """
    measure, kernel = method.measure, method.kernel
    whole = {"batch_size": n_examples} if method.is_whole else {}
    shown = {
        "title": measure.title,
        "limits": list(measure.limits_of(np.asarray(values))),
        "qualifier": measure.qualifier,
        "how": measure.how,
        "kernel_title": kernel.title,
        "is_whole": method.is_whole,
        "sums": measure.sums_name,
        "shows_sums": kernel.shows_sums,
    }
    return method.to_json() | whole | shown


def _parts(
    method: Method, total: PairSums, part: Part, medians: Medians, has_baseline: bool
) -> dict[str, np.ndarray]:
    """Return what the values came from, by the measure's own names."""
    sums, name = part.sums, method.measure.sums_name
    parts = {
        name: total.cross,
        f"{name}_rows": total.rows,
        f"{name}_columns": total.columns,
        "minibatch_sizes": sums.sizes,
        f"{name}_minibatches": sums.cross,
        f"{name}_rows_minibatches": sums.rows,
        f"{name}_columns_minibatches": sums.columns,
    }
    if method.kernel.uses_median:
        for side, found in zip(("rows", "columns"), medians, strict=True):
            parts[f"scales_{side}"] = np.array([method.kernel.scale(m or 0.0) for m in found])
    if has_baseline:
        # Shuffling leaves the sums of a representation with itself as they are.
        shuffled = [total._replace(cross=cross) for cross in part.shuffled]
        parts["baseline"] = np.stack([method.measure.finish(each) for each in shuffled])
    return parts


def _sources(sides: Sides) -> tuple[int, int]:
    """Count the representations computed from activations, and those whose Grams were kept."""
    unique = dict.fromkeys(source for side in sides for source in side)
    kept = sum(source.kept for source in unique)
    return len(unique) - kept, kept


def _reasons(
    slot: Slot, values: np.ndarray, total: PairSums, sides: Sides, medians: Medians, part: Part
) -> tuple[tuple[int, int, str], ...]:
    """Name the taps, and the missing distance or examples where those are the cause."""
    rows, columns = sides
    kernel, measure = slot.method.kernel, slot.method.measure

    def reason(i: int, j: int) -> str:
        if not len(part.sums):
            return (
                f"no minibatch has 4 examples of label {slot.label}; use larger minibatches, or the"
                " exact estimator"
            )
        for source, median in ((rows[i], medians[0][i]), (columns[j], medians[1][j])):
            if not is_defined(kernel, median):
                examples, state = (
                    ("some values", "not finite") if median else ("all examples", "equal")
                )
                return (
                    f"{examples} of {source.key} are {state}: no distance scales the"
                    f" {kernel.title.split()[0]} kernel"
                )
        return f"{rows[i].key} with {columns[j].key}: {measure.why_undefined(total, i, j)}"

    return tuple((int(i), int(j), reason(int(i), int(j))) for i, j in np.argwhere(np.isnan(values)))


def _provenance(
    job: Comparison, slot: Slot, rows: list[Source], columns: list[Source]
) -> dict[str, Any]:
    """Return who made a result from what, and by which comparison it can be made again."""
    named = rows[0].key.sample_set
    again = replace(job, sample_set=named, methods=(slot.method,), label=slot.label)
    return {
        "created_at": now(),
        JOB: again.to_json(),
        "versions": versions(),
        "sample_set": rows[0].meta.sample_set.to_json(),
        _ROWS: _rows_digests((rows, columns)),
        _DIGESTS: _checkpoint_digests((rows, columns)),
    }


def _checkpoint_digests(sides: Sides) -> dict[str, dict[str, str]]:
    return {
        name: {str(source.network): source.meta.checkpoint_digest for source in side}
        for name, side in zip(("rows", "columns"), sides, strict=True)
    }
