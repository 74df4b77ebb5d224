"""Hypothesis strategies and small examples for the stores."""

from dataclasses import fields

import numpy as np
from hypothesis import strategies as st

from store import (
    GramKey,
    GramMeta,
    RepresentationKey,
    RepresentationMeta,
    SampleSet,
    SimilarityResult,
)
from store.records.results import method_of


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
    split: str = "test",
    **changes,
) -> RepresentationMeta:
    """Return valid metadata, small unless told otherwise."""
    sample_set = SampleSet("digits", split, n_samples, (8, 8, 1), "0123456789abcdef")
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


def make_gram_meta(
    tap: str = "conv1",
    *,
    sizes: tuple[int, ...] = (4, 4, 4, 6),
    run: str = "allcnn-d1-v2-s0",
    checkpoint: str = "final",
    tap_index: int = 0,
    **changes,
) -> GramMeta:
    """Return valid metadata of Grams; changes are to the key or to the metadata."""
    stops = np.cumsum(sizes).tolist()
    sample_set = SampleSet("digits", "test", stops[-1], (8, 8, 1), "0123456789abcdef")
    fields = {
        "of": RepresentationKey(sample_set.name, run, checkpoint, tap),
        "kernel": "linear",
        "pool": "whole",
        "batch_size": 4,
        "dtype": "float32",
        "checkpoint_digest": "sha256:" + "0123456789abcdef" * 4,
        "sample_set": sample_set,
        "tap_index": tap_index,
        "ranges": tuple(zip([0, *stops], stops, strict=False)),
        "created_by": "tests",
        "created_at": "2026-01-31T12:00:00+00:00",
    } | changes
    of_key = ("of", "kernel", "pool", "batch_size", "dtype", "checkpoint_digest")
    key = GramKey(**{name: fields.pop(name) for name in of_key})
    return GramMeta(**{"key": key} | fields)


def make_grams(meta: GramMeta, seed: int = 0) -> list[np.ndarray]:
    """Return a symmetric matrix for every minibatch, the second with NaN, infinity and -0.0."""
    rng = np.random.default_rng(seed)
    squares = [rng.standard_normal((n, n)).astype(np.float32) for n in meta.sizes]
    grams = [np.triu(K) + np.triu(K, 1).T for K in squares]
    for K in grams[1:2]:
        K[0, :3] = K[:3, 0] = np.array([np.nan, np.inf, -0.0], np.float32)[: len(K)]
    return grams


def make_similarity(name, rows, columns, values, n_examples=10, **facts) -> SimilarityResult:
    """Return a result of CKA; facts are fields, settings of its method, or parts of it."""
    flat = {"kernel": "linear", "sigma": None, "estimator": "unbiased", "batch_size": 4}
    flat = {setting: facts.pop(setting, usual) for setting, usual in flat.items()}
    pool = facts.pop("pool", "whole")
    known = {field.name for field in fields(SimilarityResult)}
    r, c = len(rows), len(columns)
    sums = {"hsic": np.ones((r, c)), "hsic_rows": np.ones(r), "hsic_columns": np.ones(c)}
    parts = sums | {part: facts.pop(part) for part in [*facts] if part not in known}
    return SimilarityResult(
        name,
        tuple(rows),
        tuple(columns),
        method_of({"pool": pool, **flat}),
        values,
        n_examples,
        parts={part: each for part, each in parts.items() if each is not None},
        **facts,
    )


def coordinates(meta: RepresentationMeta | GramMeta) -> tuple[np.ndarray, np.ndarray]:
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

# A minibatch of 4 rows has a triangle of 10, one of 7 rows a triangle of 28.
gram_metas = st.builds(
    make_gram_meta,
    st.just("conv1"),
    sizes=st.tuples(st.integers(0, 5), st.integers(1, 5), st.sampled_from([None, 1, 2, 7])).map(
        lambda drawn: (drawn[1],) * drawn[0] + (drawn[2] or drawn[1],)
    ),
)

REAL_NAMES = (
    *("layer1.0.conv1", "features.0", "classifier.6", "module.layer1.0"),
    *("blocks/0/attn", "encoder/layer_0/mlp/~/linear"),
    *("_blocks.0._expand_conv", "_conv_stem", "_orig_mod.layer1", "_fc"),
    *("conv1/Relu:0", "dense_1/BiasAdd:0"),
    *("layers[0].attn", "params['Dense_0']"),
    *("block 1", "Schicht_ü", "relu(conv1)", "conv1+relu", "conv1->bn1"),
    *("0", "0.0", "1x1"),
    *("lm_head", "h.0.hook_resid_pre", "zarr.json", "a" * 150),
)
"""Taps as PyTorch, Flax, Haiku, TensorFlow, Equinox and TransformerLens call them."""

NAMES = st.text(
    st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp"))
    | st.sampled_from("/\\.:@*?[]-_ '\"$%ü"),
    min_size=1,
    max_size=200,
)
"""Any name that a tap can have."""
