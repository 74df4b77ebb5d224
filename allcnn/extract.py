"""The bridge from a checkpoint to the stores, one minibatch at a time."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float16, UInt8

from allcnn import checkpoint, data, hsic, kernels, network, record
from allcnn.config import DEFAULT_SAMPLES, DType, Extraction, RunConfig
from allcnn.errors import RunError
from allcnn.progress import Report, silent
from allcnn.provenance import stamp
from allcnn.stages import checkpoint_epoch
from allcnn.workspace import Workspace
from store import (
    ActivationOverflowError,
    Attributes,
    Compression,
    ConflictError,
    GramKey,
    GramMeta,
    GramWriter,
    RepresentationKey,
    RepresentationMeta,
    SampleSet,
    SchemaError,
    Store,
    StoreLocationError,
    Writer,
    has_store,
    open_grams,
)
from store.place import Place

Images = UInt8[np.ndarray, "n h w c"]

Forward = Callable[[Any], Mapping[str, Float[Array, "n ..."]]]
"""A network with its variables: uint8 images (n, h, w, c) to ordered taps."""

_HELD_BYTES = 2**30
"""Activations of the first examples that are held at once for their median distance."""


@dataclass(frozen=True)
class Samples:
    """The examples of a sample set, in its order."""

    sample_set: SampleSet
    indices: np.ndarray
    images: Images
    labels: np.ndarray


@dataclass(frozen=True)
class Source:
    """A checkpoint as the store sees it: a name, a digest, and images to ordered taps."""

    run: str
    checkpoint: str
    digest: str
    forward: Forward
    attributes: Attributes = field(default_factory=dict)


def extract(workspace: Workspace, job: Extraction, report: Report = silent) -> str:
    """Keep every tap of a checkpoint, or its Grams, or both; return the name of the sample set.

    Resumes after the last minibatch that a tap has; a finished extraction computes nothing.
    """
    source = load_source(workspace, job.run, job.checkpoint)
    config = record.read_record(workspace, job.run).config
    samples = load_samples(config.dataset, config.image_size, job.split, job.n_samples)
    keep(workspace, source, samples, job, report)
    return samples.sample_set.name


def load_source(workspace: Workspace, run: str, name: str) -> Source:
    """Load a checkpoint; raises RunError where there is none, or it cannot be read."""
    entry = record.read_record(workspace, run)
    folder = workspace.find_checkpoint(run, name)
    variables = checkpoint.load_variables(folder, network.abstract(entry.spec))
    forward = functools.partial(network.apply, entry.spec, variables)
    facts = _attributes(entry.config, name)
    return Source(run, name, checkpoint.digest(variables), forward, facts)


def _attributes(config: RunConfig, name: str) -> Attributes:
    """Return what a network is found by in the stores."""
    epoch = config.epochs if name == "final" else int(checkpoint_epoch(name))
    return {
        "depth": config.depth,
        "variant": config.variant,
        "width": config.width,
        "seed": config.seed,
        "epoch": epoch,
    }


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


def keep(
    workspace: Workspace,
    source: Source,
    samples: Samples,
    job: Extraction,
    report: Report = silent,
) -> None:
    """Keep what the job asks for, holding the activations of one minibatch at a time.

    While they are written, those of the next are computed.
    Activations that are whole already are left alone, in minibatches of whatever size: a comparison
    regroups rows.
    """
    shapes = tap_shapes(source.forward, padded(samples.images[:1], job.batch_size))
    with ExitStack() as writers:
        sinks = _missing(workspace, source, samples, job, shapes, writers)
        _fill(sinks, source, samples, job, report)


class Sink(Protocol):
    """Where the rows of a network's taps go."""

    @property
    def next_row(self) -> int:
        """The first row that is not kept yet."""

    def take(self, tap: str, start: int, rows: Float[np.ndarray, "n ..."]) -> None:
        """Keep rows of a tap; rows that are kept already are passed over."""

    def finish(self, forward: Forward, images: Images, job: Extraction) -> None:
        """Do what needs more than one minibatch."""


def _fill(
    sinks: list[Sink], source: Source, samples: Samples, job: Extraction, report: Report
) -> None:
    n, name = samples.sample_set.n_samples, f"{source.run}@{source.checkpoint}"
    first = min((sink.next_row for sink in sinks), default=n)
    if first == n:
        report(n, n, f"{name}: already extracted")
    else:
        report(first, n, name)
    for start, stop in data.batch_ranges(n, job.batch_size):
        if start < first:
            continue
        take_minibatch(sinks, source.forward, samples.images[start:stop], start, job)
        report(stop, n, name)
    for sink in sinks:
        sink.finish(source.forward, samples.images, job)


def take_minibatch(
    sinks: Sequence[Sink], forward: Forward, images: Images, start: int, job: Extraction
) -> None:
    """Compute a minibatch, and give the rows of every tap to all sinks."""
    # A function of its own, so that these taps are gone before the next ones are computed.
    taps = forward(padded(images, job.batch_size))
    for name, tap in taps.items():
        rows = _narrowed(tap, job.dtype)[: len(images)]
        for sink in sinks:
            sink.take(name, start, rows)


class _Activations:
    """The activation store, a writer a tap; a minibatch is written while the next is computed."""

    def __init__(self, writers: Mapping[str, Writer], thread: ThreadPoolExecutor) -> None:
        self._writers = writers
        self._thread = thread
        self._pending: list[Future[None]] = []
        self._start = 0
        self._failed = False

    @property
    def next_row(self) -> int:
        return min(writer.n_committed for writer in self._writers.values())

    def take(self, tap: str, start: int, rows: Float[np.ndarray, "n ..."]) -> None:
        if start != self._start:
            # Else the minibatches that wait to be written would fill the memory.
            self._wait()
            self._start = start
        # A kill may have left some taps further than others.
        if self._writers[tap].n_committed == start:
            self._pending.append(self._thread.submit(self._append, tap, rows))

    def finish(self, forward: Forward, images: Images, job: Extraction) -> None:
        self._wait()

    def _append(self, tap: str, rows: Float[np.ndarray, "n ..."]) -> None:
        if self._failed:
            return
        try:
            self._writers[tap].append(rows)
        except BaseException:
            self._failed = True
            raise

    def _wait(self) -> None:
        pending, self._pending = self._pending, []
        for each in pending:
            each.result()


class _Grams:
    """The Gram store, a writer a tap; rows are held until their minibatch is whole."""

    def __init__(self, writers: Mapping[str, GramWriter]) -> None:
        self._writers = writers
        self._next = {tap: writer.n_committed for tap, writer in writers.items()}
        self._held: dict[str, list[Float[np.ndarray, "n ..."]]] = {tap: [] for tap in writers}

    @property
    def next_row(self) -> int:
        return min(self._start(tap) for tap in self._writers)

    def take(self, tap: str, start: int, rows: Float[np.ndarray, "n ..."]) -> None:
        writer, held = self._writers[tap], self._held[tap]
        whole = self._next[tap] == len(_ranges(writer))
        if whole or self._start(tap) != start - sum(map(len, held)):
            return
        key = writer.meta.key
        if rows.dtype != key.dtype:
            largest = np.abs(rows[np.isfinite(rows)]).max()
            raise ActivationOverflowError(
                f"{key.of} reaches {largest:g}, and {key.dtype} ends at"
                f" {np.finfo(key.dtype).max:.0f}; use a wider dtype"
            )
        held.append(rows)
        first, stop = _ranges(writer)[self._next[tap]]
        if sum(map(len, held)) == stop - first:
            X = held[0] if len(held) == 1 else np.concatenate(held)
            held.clear()
            writer.append(kernels.gram(kernels.pooled(X, key.pool), key.kernel))
            self._next[tap] += 1

    def finish(self, forward: Forward, images: Images, job: Extraction) -> None:
        if job.kernel != "rbf":
            return
        without = [tap for tap, w in self._writers.items() if w.median_distance is None]
        examples = images[: kernels.BANDWIDTH_EXAMPLES]
        for taps in _groups_that_fit(forward, examples, without, job):
            _set_medians({tap: self._writers[tap] for tap in taps}, forward, examples, job)

    def _start(self, tap: str) -> int:
        ranges, index = _ranges(self._writers[tap]), self._next[tap]
        return ranges[index][0] if index < len(ranges) else ranges[-1][1]


def _ranges(writer: GramWriter) -> tuple[tuple[int, int], ...]:
    return writer.meta.ranges


def _groups_that_fit(
    forward: Forward, examples: Images, taps: list[str], job: Extraction
) -> list[list[str]]:
    """Split taps into groups whose rows of all examples fit memory; each costs forward passes."""
    shapes = tap_shapes(forward, padded(examples[:1], job.batch_size))
    groups: list[list[str]] = []
    room = 0
    for tap in taps:
        n_bytes = len(examples) * math.prod(shapes[tap]) * np.dtype(job.dtype).itemsize
        if n_bytes > room:
            groups.append([])
            room = _HELD_BYTES
        groups[-1].append(tap)
        room -= n_bytes
    return groups


def _set_medians(
    writers: Mapping[str, GramWriter], forward: Forward, examples: Images, job: Extraction
) -> None:
    """Keep the median distance of some taps, from one more pass over the first examples."""
    held: dict[str, list[Float[np.ndarray, "n ..."]]] = {tap: [] for tap in writers}
    for start, stop in data.batch_ranges(len(examples), job.batch_size):
        images = examples[start:stop]
        taps = forward(padded(images, job.batch_size))
        for tap, rows in held.items():
            rows.append(_narrowed(taps[tap], job.dtype)[: len(images)])
    for tap, writer in writers.items():
        X = kernels.pooled(np.concatenate(held.pop(tap)), job.pool)
        writer.set_median_distance(_median_distance(X))


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


def padded(images: Images, batch_size: int) -> UInt8[np.ndarray, "b h w c"]:
    """Fill up the last minibatch, so that one compiled program serves it too."""
    missing = batch_size - len(images)
    return np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0)))


def _median_distance(X: kernels.Rows) -> float:
    return kernels.median_distance(lambda a, b: X[a:b], len(X), kernels.BANDWIDTH_BLOCK)


def _missing(
    workspace: Workspace,
    source: Source,
    samples: Samples,
    job: Extraction,
    shapes: Mapping[str, tuple[int, ...]],
    closing: ExitStack,
) -> list[Sink]:
    """Open the stores that do not hold all yet, to be closed at the end.

    Raises ConflictError where the store holds other activations of the same name.
    """
    sinks: list[Sink] = []
    if "activations" in job.keep:
        if not _has_activations(workspace.activations, source, samples, job, list(shapes)):
            writers = _open_writers(workspace.activations, source, samples, shapes, job, closing)
            # Entered last, so that it ends before the writers are closed.
            thread = closing.enter_context(ThreadPoolExecutor(1, "writing"))
            sinks.append(_Activations(writers, thread))
    else:
        _check_not_other(workspace.activations, source, samples)
    if "grams" in job.keep:
        keys = _gram_keys(source, samples, job, list(shapes))
        _check_no_other_grams(workspace.grams, source, samples)
        if not _has_grams(workspace.grams, keys, job):
            grams = _open_gram_writers(workspace.grams, keys, source, samples, closing)
            sinks.append(_Grams(grams))
    return sinks


def _has_activations(
    store: Place, source: Source, samples: Samples, job: Extraction, names: list[str]
) -> bool:
    try:
        taps = Store(store).find(source.run, source.checkpoint, samples.sample_set.name)
    except (SchemaError, StoreLocationError):
        # Not there, half created, or foreign: opening the writers tells these apart.
        return False
    return [tap.key.tap for tap in taps] == names and all(
        tap.complete and (tap.meta.checkpoint_digest, tap.meta.dtype) == (source.digest, job.dtype)
        for tap in taps
    )


def _check_not_other(store: Place, source: Source, samples: Samples) -> None:
    """Refuse Grams beside activations of another checkpoint, which comparisons would take."""
    if not has_store(store):
        return
    for tap in Store(store).find(source.run, source.checkpoint, samples.sample_set.name):
        if tap.meta.checkpoint_digest != source.digest:
            folder = (store / tap.key.path).parent
            raise ConflictError(
                f"{folder} is stored with checkpoint_digest {tap.meta.checkpoint_digest!r}, not"
                f" {source.digest!r}; delete it, and extract again"
            )


def _check_no_other_grams(path: Place, source: Source, samples: Samples) -> None:
    """Refuse Grams beside those of another checkpoint: nobody could tell which are the run's."""
    if not has_store(path):
        return
    for grams in open_grams(path).find(source.run, source.checkpoint, samples.sample_set.name):
        if grams.key.checkpoint_digest != source.digest:
            folder = (path / grams.key.of.path).parent
            raise ConflictError(
                f"{folder} holds Grams of checkpoint_digest {grams.key.checkpoint_digest!r}, not"
                f" {source.digest!r}; delete it, and extract again"
            )


def _gram_keys(source: Source, samples: Samples, job: Extraction, taps: list[str]) -> list[GramKey]:
    kernel: Literal["linear", "cosine"] = "cosine" if job.kernel == "cosine" else "linear"
    return [
        GramKey(
            RepresentationKey(samples.sample_set.name, source.run, source.checkpoint, tap),
            kernel,
            job.pool,
            job.batch_size,
            job.dtype,
            source.digest,
        )
        for tap in taps
    ]


def _has_grams(path: Place, keys: list[GramKey], job: Extraction) -> bool:
    try:
        kept = open_grams(path)
        grams = [kept[key] for key in keys]
    except (SchemaError, StoreLocationError, LookupError):
        return False
    return all(
        each.complete and (job.kernel != "rbf" or each.median_distance is not None)
        for each in grams
    )


def _open_gram_writers(
    path: Place, keys: list[GramKey], source: Source, samples: Samples, closing: ExitStack
) -> dict[str, GramWriter]:
    ranges = tuple(hsic.split_minibatches(samples.sample_set.n_samples, keys[0].batch_size))
    writers = {}
    for index, key in enumerate(keys):
        meta = GramMeta(
            key,
            samples.sample_set,
            index,
            ranges,
            attributes=source.attributes,
            n_taps=len(keys),
            **stamp(),
        )
        writer = GramWriter.open(path, meta, samples.indices, samples.labels)
        writers[key.of.tap] = closing.enter_context(writer)
    return writers


def _open_writers(
    store: Place,
    source: Source,
    samples: Samples,
    shapes: Mapping[str, tuple[int, ...]],
    job: Extraction,
    closing: ExitStack,
) -> dict[str, Writer]:
    created = stamp()
    writers = {}
    for index, (tap, shape) in enumerate(shapes.items()):
        meta = RepresentationMeta(
            key=RepresentationKey(samples.sample_set.name, source.run, source.checkpoint, tap),
            sample_set=samples.sample_set,
            checkpoint_digest=source.digest,
            tap_index=index,
            shape=shape,
            dtype=job.dtype,
            batch_rows=job.batch_size,
            attributes=source.attributes,
            n_taps=len(shapes),
            **created,
        )
        writer = _open_writer(store, meta, samples, job.compression)
        writers[tap] = closing.enter_context(writer)
    return writers


def _open_writer(
    store: Place, meta: RepresentationMeta, samples: Samples, compression: Compression
) -> Writer:
    try:
        return Writer.open(store, meta, samples.indices, samples.labels, compression)
    except ConflictError as error:
        # The other taps differ in the same way: one folder to delete, not one after the other.
        found, folder = str(error).partition(";")[0], (store / meta.key.path).parent
        raise ConflictError(f"{found}; delete {folder}, or ask for what it holds") from error


def tap_shapes(forward: Forward, images: Images) -> dict[str, tuple[int, ...]]:
    """Return the shape of one example of each tap, in order, without computing anything."""
    names: list[str] = []

    def values(images: UInt8[Array, "n h w c"]) -> list[Float[Array, "n ..."]]:
        taps = forward(images)
        names.extend(taps)  # while tracing: JAX itself would sort them
        return list(taps.values())

    shapes = [tap.shape[1:] for tap in jax.eval_shape(values, images)]
    return dict(zip(names, shapes, strict=True))
