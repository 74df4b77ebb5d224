"""What of an extraction is not stored yet: opened for writing, and told from what is another's."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Literal

from allcnn import hsic
from allcnn.config import DEFAULT_SAMPLES, Extraction
from allcnn.extract.forward import Samples, Source
from allcnn.extract.sinks import ActivationSink, GramSink, Sink
from allcnn.provenance import stamp
from allcnn.workspace import Workspace
from store import (
    Compression,
    ConflictError,
    GramKey,
    GramMeta,
    GramWriter,
    RepresentationKey,
    RepresentationMeta,
    SchemaError,
    Store,
    StoreLocationError,
    Writer,
    has_store,
    open_grams,
)
from store.claim import claim, is_claimed
from store.place import Place


def open_sinks(
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
            thread = closing.enter_context(ThreadPoolExecutor(2, "writing"))
            sinks.append(ActivationSink(writers, thread))
    else:
        _check_not_other(workspace.activations, source, samples)
    if "grams" in job.keep:
        keys = _gram_keys(source, samples, job, list(shapes))
        _check_no_other_grams(workspace.grams, source, samples)
        if not _has_grams(workspace.grams, keys, job):
            grams = _open_gram_writers(workspace.grams, keys, source, samples, closing)
            sinks.append(GramSink(grams))
    return sinks


def check_unclaimed(workspace: Workspace, job: Extraction, dataset: str) -> None:
    """Raise ClaimedError where another process extracts the same, before anything is loaded.

    Its writers refuse that as well, but only by names that the examples' digest is a part of.
    """
    for what, place in (("activations", workspace.activations), ("grams", workspace.grams)):
        if what not in job.keep or not has_store(place):
            continue
        store = Store(place) if what == "activations" else open_grams(place)
        unfinished = store.scan(
            run=job.run,
            checkpoint=job.checkpoint,
            dataset=dataset,
            split=job.split,
            n_samples=job.n_samples or DEFAULT_SAMPLES,
            complete=False,
        )
        for one in unfinished.found:
            if is_claimed(folder := one.place / one.form.array):
                claim(folder).release()  # raises, with the holder's name


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
