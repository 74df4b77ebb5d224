"""The bridge from the activation store to CKA matrices, through tasks that Dask schedules.

A task takes a store's path, keys, a row range and a kernel, opens the store itself, and returns
HSIC sums; they are merged in the order of the rows, whatever order the tasks finished in.
"""

import hashlib
import json
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from dask.typing import Key
from distributed import Client, as_completed
from jaxtyping import Float32

import store
from allcnn import cluster, hsic, kernels
from allcnn.cka import Cka, cka
from allcnn.config import Comparison, Estimator, Network
from allcnn.errors import ComparisonError
from allcnn.hsic import HsicSums
from allcnn.progress import Report, silent
from allcnn.workspace import Workspace
from store import (
    DamagedChunkError,
    Representation,
    RepresentationKey,
    SchemaError,
    SimilarityResult,
)

__all__ = ["SimilarityResult", "compare", "network_of"]

BANDWIDTH_EXAMPLES = 1024
"""The median distance is taken between this many first examples."""

_BANDWIDTH_BLOCK = 256
"""Of which so many are read at a time: small minibatches would read every chunk again and again."""

_METHOD = 1
"""Raised with every change that moves the numbers, so that no older result stands for a new one."""

# One compute thread a process: the other threads read meanwhile.
_COMPUTING = threading.Lock()


class Operand(NamedTuple):
    """A representation and its kernel, as a task gets them: names and numbers, no arrays.

    ``bandwidth`` is the RBF kernel's sigma as a distance, None for the linear kernel; 0 and NaN
    stand for a representation whose distances define none.
    """

    key: RepresentationKey
    bandwidth: float | None


def compare(workspace: Workspace, job: Comparison, report: Report = silent) -> SimilarityResult:
    """Compute a CKA matrix from stored activations and keep it; a known one is read instead.

    Known is what was computed from the same activations (by digest) in the same way.
    Raises ComparisonError where the two sides share no complete sample set, naming both.
    """
    rows, columns = _choose(workspace.activations, job)
    name = _result_name(job, rows, columns)
    known = _read_known(workspace.similarity, name)
    if known is not None:
        report(1, 1, f"{job.rows} with {job.columns}: already computed")
        return known
    with cluster.connect() as client:
        result = _compute(client, workspace.activations, job, name, rows, columns, report)
    store.write_result(workspace.similarity, result)
    return result


def minibatch_sums(
    path: str,
    rows: Sequence[Operand],
    columns: Sequence[Operand] | None,
    start: int,
    stop: int,
    estimator: Estimator,
) -> HsicSums:
    """Return the HSIC sums of one minibatch; the body of a Dask task.

    ``columns`` None compares the rows with themselves. One minibatch of one tap is held at a time.
    Raises DamagedChunkError for rows that are not those that were written.
    """
    opened = store.open(path)
    Ks = _grams(opened, rows, start, stop)
    Ls = None if columns is None else _grams(opened, columns, start, stop)
    with _COMPUTING:
        return hsic.minibatch_hsic(Ks, Ls, estimator)


def median_distance(path: str, key: RepresentationKey, n: int, block_rows: int) -> float:
    """Return the median distance between the first ``n`` examples; the body of a Dask task."""
    representation = store.open(path)[key]
    with _COMPUTING:
        return kernels.median_distance(representation.read, n, block_rows)


def _grams(
    opened: store.Store, operands: Sequence[Operand], start: int, stop: int
) -> Float32[np.ndarray, "m n n"]:
    n = stop - start
    Ks = np.zeros((len(operands), n, n), np.float32)
    for K, operand in zip(Ks, operands, strict=True):
        # All rows alike, or not finite: the Gram stays constant, and CKA says why it is NaN.
        if operand.bandwidth is None or 0 < operand.bandwidth < np.inf:
            K[...] = _gram(opened[operand.key], operand.bandwidth, start, stop)
    return Ks


def _gram(
    tap: Representation, bandwidth: float | None, start: int, stop: int
) -> Float32[np.ndarray, "n n"]:
    # A function of its own, so that these rows are gone before those of the next tap are read.
    X = tap.read(start, stop)
    with _COMPUTING:
        return kernels.gram(X, bandwidth)


def _compute(
    client: Client,
    path: Path,
    job: Comparison,
    name: str,
    rows: list[Representation],
    columns: list[Representation],
    report: Report,
) -> SimilarityResult:
    same = [tap.key for tap in rows] == [tap.key for tap in columns]
    n = rows[0].meta.n_samples
    row_operands = _operands(client, path, job, rows, report)
    column_operands = row_operands if same else _operands(client, path, job, columns, report)
    futures = [
        client.submit(
            minibatch_sums,
            str(path),
            row_operands,
            None if same else column_operands,
            start,
            stop,
            job.estimator,
            pure=False,
        )
        for start, stop in hsic.split_minibatches(n, job.batch_size)
    ]
    parts: dict[Key, HsicSums] = {}
    # Raises the error of a task that failed at once, without waiting for the others.
    for future, part in as_completed(futures, with_results=True):
        parts[future.key] = part
        report(len(parts), len(futures), f"{job.rows} with {job.columns}")
    sums = HsicSums.reduce([parts[future.key] for future in futures])
    return _result(job, name, rows, columns, row_operands, column_operands, sums)


def _operands(
    client: Client, path: Path, job: Comparison, taps: list[Representation], report: Report
) -> list[Operand]:
    """Fix every bandwidth before any Gram."""
    keys = [tap.key for tap in taps]
    if job.kernel == "linear":
        return [Operand(key, None) for key in keys]
    n = min(BANDWIDTH_EXAMPLES, taps[0].meta.n_samples)
    futures = [
        client.submit(median_distance, str(path), key, n, _BANDWIDTH_BLOCK, pure=False)
        for key in keys
    ]
    report(0, 1, f"bandwidths of {network_of(keys[0])}")
    medians = client.gather(futures)
    return [Operand(key, job.sigma * median) for key, median in zip(keys, medians, strict=True)]


def _result(
    job: Comparison,
    name: str,
    rows: list[Representation],
    columns: list[Representation],
    row_operands: list[Operand],
    column_operands: list[Operand],
    sums: HsicSums,
) -> SimilarityResult:
    rbf = job.kernel == "rbf"
    ratio = cka(sums)
    return SimilarityResult(
        name=name,
        rows=tuple(tap.key for tap in rows),
        columns=tuple(tap.key for tap in columns),
        cka=ratio.matrix,
        hsic=sums.cross,
        hsic_rows=sums.rows,
        hsic_columns=sums.columns,
        n_examples=sums.n_examples,
        kernel=job.kernel,
        sigma=job.sigma if rbf else None,
        estimator=job.estimator,
        batch_size=job.batch_size,
        bandwidths_rows=_bandwidths(row_operands) if rbf else None,
        bandwidths_columns=_bandwidths(column_operands) if rbf else None,
        reasons=_reasons(ratio, row_operands, column_operands),
        provenance=_provenance(rows, columns),
    )


def _bandwidths(operands: list[Operand]) -> np.ndarray:
    return np.array([operand.bandwidth for operand in operands], np.float64)


def _reasons(
    ratio: Cka, rows: list[Operand], columns: list[Operand]
) -> tuple[tuple[int, int, str], ...]:
    """Name the taps, and the missing bandwidth where that is the cause."""

    def reason(i: int, j: int, text: str) -> str:
        for operand in (rows[i], columns[j]):
            if operand.bandwidth is not None and not 0 < operand.bandwidth < np.inf:
                median = operand.bandwidth
                return f"the median distance between examples of {operand.key} is {median:g}"
        return f"{rows[i].key} with {columns[j].key}: {text}"

    return tuple((i, j, reason(i, j, text)) for (i, j), text in ratio.reasons.items())


def _provenance(rows: list[Representation], columns: list[Representation]) -> dict[str, Any]:
    packages = ("allcnn-cka", "jax", "numpy", "zarr", "dask")
    return {
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {package: version(package) for package in packages},
        "sample_set": rows[0].meta.sample_set.to_json(),
        "checkpoint_digests": {
            "rows": rows[0].meta.checkpoint_digest,
            "columns": columns[0].meta.checkpoint_digest,
        },
    }


def _result_name(job: Comparison, rows: list[Representation], columns: list[Representation]) -> str:
    """Return a name that changes with everything that the result depends on."""
    inputs = {
        "method": _METHOD,
        "taps": [
            [tap.key.path, tap.meta.sample_set.digest, tap.meta.checkpoint_digest, tap.meta.dtype]
            for tap in (*rows, *columns)
        ],
        "kernel": [job.kernel, job.sigma if job.kernel == "rbf" else None],
        "estimator": [job.estimator, job.batch_size],
    }
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:8]
    # A folder's name has no '+' and at most 200 characters; the digest tells cut ones apart.
    kernel = f"rbf{job.sigma:g}".replace("+", "") if job.kernel == "rbf" else "linear"
    sides = dict.fromkeys(f"{side.run}_{side.checkpoint}" for side in (job.rows, job.columns))
    return "-".join(["-".join(sides)[:150], kernel, job.estimator, digest])


def _read_known(path: Path, name: str) -> SimilarityResult | None:
    """Return a result that was computed before; a damaged one does not count."""
    if not store.has_result(path, name):
        return None
    try:
        return store.read_result(path, name)
    except (DamagedChunkError, SchemaError):
        return None


def _choose(path: Path, job: Comparison) -> tuple[list[Representation], list[Representation]]:
    """Open both sides on the sample set asked for, or on the largest that both have whole."""
    if not path.exists():
        raise ComparisonError(
            f"nothing is extracted yet in {path.parent}; {_advice(path, job.rows)}"
        )
    opened = store.open(path)
    rows, columns = (_stored(opened, side, job.sample_set) for side in (job.rows, job.columns))
    wanted = [job.sample_set] if job.sample_set else [*rows]
    common = [name for name in wanted if name in rows and name in columns]
    if not common:
        asked = f", and {job.sample_set} was asked for" if job.sample_set else ""
        raise ComparisonError(
            f"{job.rows} is stored on {', '.join(rows)}, {job.columns} on {', '.join(columns)}"
            f"{asked}; only representations of the same sample set compare: extract both alike"
        )
    chosen = max(common, key=lambda name: (rows[name][0].meta.n_samples, name))
    return rows[chosen], columns[chosen]


def _stored(
    opened: store.Store, side: Network, wanted: str | None
) -> dict[str, list[Representation]]:
    """Return the complete representations of a network, by sample set."""
    found: dict[str, list[Representation]] = {}
    for tap in opened.find(run=side.run, checkpoint=side.checkpoint):
        found.setdefault(tap.key.sample_set, []).append(tap)
    whole = {name: taps for name, taps in found.items() if all(tap.complete for tap in taps)}
    if not found:
        raise ComparisonError(
            f"{opened.path} holds no activations of {side}; {_advice(opened.path, side)}"
        )
    if not whole or (wanted in found and wanted not in whole):
        name = wanted if wanted in found else next(iter(found))
        meta = found[name][0].meta
        raise ComparisonError(
            f"the activations of {side} on {name} are unfinished in {opened.path}; "
            + _advice(
                opened.path,
                side,
                f" --split {meta.sample_set.split} --samples {meta.n_samples}"
                f" --batch-size {meta.batch_rows} --dtype {meta.dtype}",
            )
        )
    return whole


def _advice(path: Path, side: Network, options: str = "") -> str:
    command = f"allcnn extract {side.run} --checkpoint {side.checkpoint}{options}"
    return f"run '{command} --workspace {path.parent}'"


def network_of(key: RepresentationKey) -> Network:
    """Return the network that a representation belongs to."""
    return Network(key.run, key.checkpoint)
