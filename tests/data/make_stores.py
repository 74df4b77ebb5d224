"""Write the three small stores that keep older versions readable: `make_stores.py FOLDER`.

`store-v1` was written by this script at revision 0137726, whose stores have schema version 1. Never
write it again: it stands for what people keep. A later version gets a folder of its own.
"""

import sys
from pathlib import Path
from unittest import mock

import numpy as np

from store import (
    GramKey,
    GramMeta,
    GramWriter,
    RepresentationKey,
    RepresentationMeta,
    SampleSet,
    SimilarityResult,
    Writer,
    write_result,
)
from store.zarrfiles import layout
from tests.strategies import make_similarity

SAMPLE_SET = SampleSet("digits", "test", 10, (8, 8, 1), "0123456789abcdef")
SAMPLES = np.arange(10)[::-1]
DIGEST = "sha256:" + "0123456789abcdef" * 4
MADE = {"created_by": "allcnn-cka 0.1.0", "created_at": "2026-01-31T12:00:00+00:00"}
RUN, FOREIGN = "allcnn-d1-v2-s0", "resnet18"
LABELS = {
    RUN: np.arange(10, dtype=np.int32) % 3,
    FOREIGN: np.zeros(10, np.int32),  # version 1 left out the chunk of these
}

TAPS = {
    (RUN, "epoch-0005", "conv1"): ((4, 2, 2), "float32"),  # chunks of 2 lines
    (RUN, "epoch-0005", "tokens"): ((3, 2), "float16"),
    (RUN, "epoch-0005", "logits"): ((5,), "float32"),
    (RUN, "init", "conv1"): ((5, 2, 2), "float16"),  # chunks of 3 lines, the second one padded
    (FOREIGN, "pretrained", "pool"): ((2,), "float32"),
}
UNFINISHED = (RUN, "init", "conv1")
"""Two of its three minibatches were written."""

MEDIAN_DISTANCE = 1.25
_CHUNK_BYTES = 128
"""Two lines of conv1 of a minibatch in float32, and four in float16."""


def main(folder: Path) -> None:
    """Write activations, Grams and a result below a folder."""
    for key in TAPS:
        _write_activations(folder / "activations.zarr", meta(*key), activations(*key))
    _write_grams(folder / "grams.zarr")
    write_result(folder / "similarity.zarr", result())


def meta(run: str, checkpoint: str, tap: str) -> RepresentationMeta:
    """Return the metadata of one of ``TAPS``."""
    shape, dtype = TAPS[run, checkpoint, tap]
    return RepresentationMeta(
        key=RepresentationKey(SAMPLE_SET.name, run, checkpoint, tap),
        sample_set=SAMPLE_SET,
        checkpoint_digest=DIGEST,
        tap_index=[name for *of, name in TAPS if of == [run, checkpoint]].index(tap),
        shape=shape,
        dtype=dtype,
        batch_rows=4,
        **MADE,
    )


def activations(run: str, checkpoint: str, tap: str) -> np.ndarray:
    """Return the rows of one of ``TAPS``, half of them zero, and exact in float16."""
    shape, dtype = TAPS[run, checkpoint, tap]
    rows = values((10, *shape), seed=list(TAPS).index((run, checkpoint, tap)))
    return np.maximum(rows, 0).astype(dtype)


def gram_meta() -> GramMeta:
    """Return the metadata of the Grams: minibatches of 4 and 6 rows, so one row is padded."""
    of = RepresentationKey(SAMPLE_SET.name, RUN, "epoch-0005", "conv1")
    key = GramKey(of, "linear", "whole", 4, "float32", DIGEST)
    return GramMeta(key, SAMPLE_SET, 0, ((0, 4), (4, 10)), **MADE)


def grams() -> list[np.ndarray]:
    """Return a symmetric matrix for each minibatch."""
    squares = [values((n, n), seed=n).astype(np.float32) for n in gram_meta().sizes]
    return [np.triu(K) + np.triu(K, 1).T for K in squares]


def result() -> SimilarityResult:
    """Return a result of three rows and two columns with all that a result can have."""
    rows = [RepresentationKey(SAMPLE_SET.name, *key) for key in list(TAPS)[:3]]
    cka = values((3, 2), seed=10)
    cka[1, 0] = np.nan
    return make_similarity(
        name="taps",
        rows=rows,
        columns=rows[:2],
        values=cka,
        hsic=values((3, 2), seed=11),
        hsic_rows=values((3,), seed=12),
        hsic_columns=values((2,), seed=13),
        n_examples=10,
        kernel="rbf",
        sigma=0.4,
        estimator="unbiased",
        batch_size=4,
        scales_rows=values((3,), seed=14),
        scales_columns=values((2,), seed=15),
        reasons=((1, 0, "the self-HSIC of tokens is not positive"),),
        provenance={"allcnn": "0.1.0"},
        errors=values((3, 2), seed=16),
        minibatch_sizes=np.array([4, 6]),
        hsic_minibatches=values((2, 3, 2), seed=17),
        hsic_rows_minibatches=values((2, 3), seed=18),
        hsic_columns_minibatches=values((2, 2), seed=19),
        baseline=values((5, 3, 2), seed=20),
        sources=(3, 0),
    )


def values(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Return multiples of 1/64 between -16 and 16 that no version of NumPy draws otherwise."""
    numbers = np.arange(np.prod(shape)) * 7919 + (seed + 1) * 104729
    return (numbers % 2048 - 1024).reshape(shape) / 64


def _write_activations(path: Path, meta: RepresentationMeta, rows: np.ndarray) -> None:
    stop = 8 if meta.key.checkpoint == "init" else 10
    labels = LABELS[meta.key.run]
    with (
        mock.patch.object(layout, "MAX_CHUNK_BYTES", _CHUNK_BYTES),
        Writer.open(path, meta, SAMPLES, labels) as writer,
    ):
        for start in range(0, stop, meta.batch_rows):
            writer.append(rows[start : start + meta.batch_rows])


def _write_grams(path: Path) -> None:
    with GramWriter.open(path, gram_meta(), SAMPLES, LABELS[RUN]) as writer:
        writer.set_median_distance(MEDIAN_DISTANCE)
        for K in grams():
            writer.append(K)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
