"""The bridge from a checkpoint to the activation store, one minibatch at a time."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float16, UInt8

from allcnn import checkpoint, data, network, record
from allcnn.config import DEFAULT_SAMPLES, DType, Extraction
from allcnn.errors import RunError
from allcnn.progress import Report, silent
from allcnn.workspace import Workspace
from store import (
    ConflictError,
    RepresentationKey,
    RepresentationMeta,
    SampleSet,
    SchemaError,
    Store,
    StoreLocationError,
    Writer,
)

Forward = Callable[[Any], Mapping[str, Float[Array, "n ..."]]]
"""A network with its variables: uint8 images (n, h, w, c) to ordered taps."""


@dataclass(frozen=True)
class Samples:
    """The examples of a sample set, in its order."""

    sample_set: SampleSet
    indices: np.ndarray
    images: UInt8[np.ndarray, "n h w c"]
    labels: np.ndarray


@dataclass(frozen=True)
class Source:
    """A checkpoint as the store sees it: a name, a digest, and images to ordered taps."""

    run: str
    checkpoint: str
    digest: str
    forward: Forward


def extract(workspace: Workspace, job: Extraction, report: Report = silent) -> str:
    """Fill the store with every tap of a checkpoint; return the name of the sample set.

    Resumes after the last minibatch that a tap has; a finished extraction computes nothing.
    """
    entry = record.read_record(workspace, job.run)
    folder = workspace.find_checkpoint(job.run, job.checkpoint)
    config = entry.config
    samples = load_samples(config.dataset, config.image_size, job.split, job.n_samples)
    variables = checkpoint.load_variables(folder, network.abstract(entry.spec))
    forward = functools.partial(network.apply, entry.spec, variables)
    source = Source(job.run, job.checkpoint, checkpoint.digest(variables), forward)
    write_activations(workspace.activations, source, samples, job.batch_size, job.dtype, report)
    return samples.sample_set.name


def each_checkpoint(workspace: Workspace, job: Extraction) -> list[Extraction]:
    """Return one extraction a checkpoint where ``all`` are asked for, else the one."""
    if job.checkpoint != "all":
        return [job]
    workspace.find_run(job.run)
    names = workspace.checkpoints(job.run)
    if not names:
        raise RunError(f"run {job.run!r} has no checkpoints yet; train it first")
    return [replace(job, checkpoint=name) for name in names]


def load_samples(dataset: str, image_size: int, split: str, n_samples: int | None) -> Samples:
    """Load the first ``n_samples`` of the fixed shuffle of a split."""
    whole = data.load(dataset, split, image_size)
    wanted = min(DEFAULT_SAMPLES, len(whole)) if n_samples is None else n_samples
    indices = data.draw_samples(whole, wanted)
    shape = whole.images.shape[1:]
    sample_set = SampleSet(dataset, split, wanted, shape, data.digest(whole, indices))
    return Samples(sample_set, indices, whole.images[indices], whole.labels[indices])


def write_activations(
    store: Path,
    source: Source,
    samples: Samples,
    batch_size: int,
    dtype: DType,
    report: Report = silent,
) -> None:
    """Write the taps of a network, holding the activations of one minibatch at a time.

    What is whole already is kept, in minibatches of whatever size: a comparison regroups rows.
    """
    shapes = _tap_shapes(source.forward, _padded(samples.images[:1], batch_size))
    n = samples.sample_set.n_samples
    if _is_whole(store, source, samples.sample_set.name, list(shapes), dtype):
        report(n, n, f"{source.run}@{source.checkpoint}: already extracted")
        return
    writers = _open_writers(store, source, samples, shapes, batch_size, dtype)
    first = min(writer.n_committed for writer in writers.values())
    report(first, n, f"{source.run}@{source.checkpoint}")
    for start, stop in data.batch_ranges(n, batch_size):
        if start < first:
            continue
        _append_minibatch(writers, source.forward, samples.images[start:stop], start, batch_size)
        report(stop, n, f"{source.run}@{source.checkpoint}")


def _append_minibatch(
    writers: Mapping[str, Writer],
    forward: Forward,
    images: UInt8[np.ndarray, "n h w c"],
    start: int,
    batch_size: int,
) -> None:
    # A function of its own, so that these taps are gone before the next ones are computed.
    taps = forward(_padded(images, batch_size))
    for name, writer in writers.items():
        # A kill may have left some taps further than others.
        if writer.n_committed == start:
            writer.append(_narrowed(taps[name], writer.meta.dtype)[: len(images)])


def _narrowed(tap: Float[Array, "n ..."], dtype: DType) -> Float[np.ndarray, "n ..."]:
    """Cast to float16 by XLA, in a quarter of NumPy's time; what overflows is left to the store."""
    if dtype == "float16":
        narrow, largest = _to_float16(tap)
        if float(largest) <= float(np.finfo(np.float16).max):
            return np.asarray(narrow)
    return np.asarray(tap)


@jax.jit
def _to_float16(tap: Float[Array, "n ..."]) -> tuple[Float16[Array, "n ..."], Float[Array, ""]]:
    return tap.astype(jnp.float16), jnp.max(jnp.abs(tap))


def _padded(images: UInt8[np.ndarray, "n h w c"], batch_size: int) -> UInt8[np.ndarray, "b h w c"]:
    """Fill up the last minibatch, so that one compiled program serves it too."""
    missing = batch_size - len(images)
    return np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0)))


def _is_whole(store: Path, source: Source, sample_set: str, names: list[str], dtype: DType) -> bool:
    try:
        taps = Store(store).find(source.run, source.checkpoint, sample_set)
    except (SchemaError, StoreLocationError):
        # Not there, half created, or foreign: opening the writers tells these apart.
        return False
    return [tap.key.tap for tap in taps] == names and all(
        tap.complete and (tap.meta.checkpoint_digest, tap.meta.dtype) == (source.digest, dtype)
        for tap in taps
    )


def _open_writers(
    store: Path,
    source: Source,
    samples: Samples,
    shapes: Mapping[str, tuple[int, ...]],
    batch_size: int,
    dtype: DType,
) -> dict[str, Writer]:
    created_at = datetime.now(UTC).isoformat(timespec="seconds")
    writers = {}
    for index, (tap, shape) in enumerate(shapes.items()):
        meta = RepresentationMeta(
            key=RepresentationKey(samples.sample_set.name, source.run, source.checkpoint, tap),
            sample_set=samples.sample_set,
            checkpoint_digest=source.digest,
            tap_index=index,
            shape=shape,
            dtype=dtype,
            batch_rows=batch_size,
            created_by=f"allcnn-cka {version('allcnn-cka')}",
            created_at=created_at,
        )
        writers[tap] = _open_writer(store, meta, samples)
    return writers


def _open_writer(store: Path, meta: RepresentationMeta, samples: Samples) -> Writer:
    try:
        return Writer.open(store, meta, samples.indices, samples.labels)
    except ConflictError as error:
        # The other taps differ in the same way: one folder to delete, not one after the other.
        found, folder = str(error).partition(";")[0], (store / meta.key.path).parent
        raise ConflictError(f"{found}; delete {folder}, or ask for what it holds") from error


def _tap_shapes(
    forward: Forward, images: UInt8[np.ndarray, "n h w c"]
) -> dict[str, tuple[int, ...]]:
    """Return the shape of one example of each tap, in order, without computing anything."""
    names: list[str] = []

    def values(images: UInt8[Array, "n h w c"]) -> list[Float[Array, "n ..."]]:
        taps = forward(images)
        names.extend(taps)  # while tracing: JAX itself would sort them
        return list(taps.values())

    shapes = [tap.shape[1:] for tap in jax.eval_shape(values, images)]
    return dict(zip(names, shapes, strict=True))
