"""Networks of small random taps, stored for tests of comparisons."""

from dataclasses import fields

import numpy as np

import store
from allcnn.compare import compare
from allcnn.settings.comparison import Comparison
from allcnn.settings.selection import Selection
from allcnn.similarity.method import OBJECTS, Method
from allcnn.workspace.paths import Workspace
from store import SimilarityResult, Writer
from tests.strategies import batches, coordinates, make_meta

N = 66
RANGES = [*((start, start + 8) for start in range(0, 56, 8)), (56, 66)]
"""Minibatches of 8, where chunks hold 16 rows; the last two rows join the minibatch before."""

A, B, C = (Selection(run, "final") for run in "abc")
ALL = Selection("*", "final")


def make_taps(seed=0, n=N, names=("one", "two"), dtype=np.float32):
    rng = np.random.default_rng(seed)
    return {name: np.maximum(rng.standard_normal((n, 3, 2)), 0).astype(dtype) for name in names}


def write_network(
    path, side, taps, *, batch_rows=16, n_committed=None, labels=None, indices=None, **changes
):
    """Store arrays as the taps of a network, all rows or the first minibatches of them."""
    for index, (tap, values) in enumerate(taps.items()):
        meta = make_meta(
            tap,
            n_samples=len(values),
            batch_rows=batch_rows,
            shape=values.shape[1:],
            dtype=str(values.dtype),
            run=side.run,
            checkpoint=side.checkpoint,
            tap_index=index if indices is None else indices[index],
            **changes,
        )
        samples, classes = coordinates(meta)
        classes = classes if labels is None else np.asarray(labels, np.int32)
        writer = Writer.open(path, meta, samples, classes)
        for rows in batches(meta, values)[: n_committed and n_committed // batch_rows]:
            writer.append(rows)


def methods(**flat) -> tuple[Method, ...]:
    """Return the methods of some settings, one for each bandwidth."""
    names = [flat[kind] for kind in OBJECTS if kind in flat]
    assert set(flat) <= set(Method.settings(*names)), flat
    return Method.several(flat)


def comparison(rows, columns, **how) -> Comparison:
    """Return a comparison whose methods are given by their settings."""
    own = {field.name for field in fields(Comparison)}
    flat = {name: how.pop(name) for name in [*how] if name not in own}
    return Comparison(rows, columns, methods(**flat), **how)


def job(rows=A, columns=B, **how) -> Comparison:
    return comparison(rows, columns, **{"batch_size": 8} | how)


def compare_one(workspace, *sides, **how) -> SimilarityResult:
    """Return the single result of a comparison in minibatches of 8."""
    (result,) = compare(workspace, job(*sides, **how))
    return result


def kept_grams(workspace: Workspace) -> int:
    """Return how many minibatches are kept of all Grams."""
    if not store.has_store(workspace.grams):
        return 0
    return sum(grams.n_committed for grams in store.open_grams(workspace.grams).find())


def assert_same_bits(first, second):
    assert first.arrays.keys() == second.arrays.keys()
    for name, values in first.arrays.items():
        np.testing.assert_array_equal(values, second.arrays[name], err_msg=name)
