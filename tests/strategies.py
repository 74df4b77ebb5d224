"""Hypothesis strategies and small examples for the stores."""

import numpy as np
from hypothesis import strategies as st

from store import RepresentationKey, RepresentationMeta, SampleSet


def make_meta(
    tap: str = "conv1",
    *,
    n_samples: int = 10,
    batch_rows: int = 4,
    shape: tuple[int, ...] = (3, 2, 2),
    dtype: str = "float32",
    run: str = "allcnn-d1-v2-s0",
    checkpoint: str = "final",
    tap_index: int = 0,
    **changes,
) -> RepresentationMeta:
    """Return valid metadata, small unless told otherwise."""
    sample_set = SampleSet("digits", "test", n_samples, (8, 8, 1), "0123456789abcdef")
    fields = {
        "key": RepresentationKey(sample_set.name, run, checkpoint, tap),
        "sample_set": sample_set,
        "checkpoint_digest": "feedc0de",
        "tap_index": tap_index,
        "shape": shape,
        "dtype": dtype,
        "batch_rows": batch_rows,
        "created_by": "tests",
        "created_at": "2026-01-31T12:00:00+00:00",
    }
    return RepresentationMeta(**fields | changes)


def make_rows(meta: RepresentationMeta, seed: int = 0) -> np.ndarray:
    """Return activations of all samples, half of them zero as after a ReLU."""
    rng = np.random.default_rng(seed)
    values = np.maximum(rng.standard_normal((meta.n_samples, *meta.shape)), 0)
    return values.astype(meta.dtype)


def coordinates(meta: RepresentationMeta) -> tuple[np.ndarray, np.ndarray]:
    """Return sample indices and labels of the right lengths and types."""
    rows = np.arange(meta.n_samples)
    return rows[::-1].astype(np.int64), (rows % 10).astype(np.int32)


def batches(meta: RepresentationMeta, rows: np.ndarray) -> list[np.ndarray]:
    """Cut rows into the minibatches that a writer wants."""
    return [rows[i : i + meta.batch_rows] for i in range(0, meta.n_samples, meta.batch_rows)]


metas = st.builds(
    make_meta,
    st.just("conv1"),
    n_samples=st.integers(1, 17),
    batch_rows=st.integers(1, 7),
    shape=st.sampled_from([(3,), (2, 3), (3, 2, 2)]),
    dtype=st.sampled_from(["float32", "float16"]),
)
