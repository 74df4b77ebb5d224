"""What of an extraction is not stored yet: opened for writing, and told from what is another's."""

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from allcnn.advice import is_extracted, options_of, replace_stored
from allcnn.extract.forward import Samples, Source
from allcnn.extract.sinks import ActivationSink, GramSink, Sink
from allcnn.provenance import stamp
from allcnn.settings.extraction import DEFAULT_SAMPLES, Extraction
from allcnn.settings.selection import Selection
from allcnn.similarity import pair_sums
from allcnn.workspace.paths import Workspace
from store import (
    Attributes,
    ConflictError,
    GramKey,
    GramMeta,
    Grams,
    GramWriter,
    Representation,
    RepresentationKey,
    RepresentationMeta,
    SchemaError,
    Store,
    StoreLocationError,
    Writer,
    has_store,
    open_grams,
)
from store.storage.claims import claim, drop_dead, is_claimed
from store.storage.paths import Place


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
            writers = {
                tap: closing.enter_context(_open_writer(workspace, meta, samples, job))
                for tap, meta in tap_metas(source, samples, shapes, job).items()
            }
            # Entered last, so that it ends before the writers are closed.
            thread = closing.enter_context(ThreadPoolExecutor(2, "writing"))
            sinks.append(ActivationSink(writers, thread))
    else:
        _check_not_other(workspace, source, samples, job)
    if "grams" in job.keep:
        metas = gram_metas(source, samples, shapes, job)
        _check_no_other_grams(workspace, source, samples, job)
        if not _has_grams(workspace.grams, [meta.key for meta in metas.values()]):
            coordinates = samples.indices, samples.labels
            grams = {
                tap: closing.enter_context(GramWriter.open(workspace.grams, meta, *coordinates))
                for tap, meta in metas.items()
            }
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
    whole = [tap.key.tap for tap in taps] == names and all(
        tap.complete and (tap.meta.checkpoint_digest, tap.meta.dtype) == (source.digest, job.dtype)
        for tap in taps
    )
    return whole and _finished(taps)


def _check_not_other(
    workspace: Workspace, source: Source, samples: Samples, job: Extraction
) -> None:
    """Refuse Grams beside activations of another checkpoint, which comparisons would take."""
    if not has_store(workspace.activations):
        return
    stored = Store(workspace.activations)
    for tap in stored.find(source.run, source.checkpoint, samples.sample_set.name):
        if tap.meta.checkpoint_digest != source.digest:
            found = f"activations of checkpoint_digest {tap.meta.checkpoint_digest!r}"
            raise _conflict(workspace, source, tap, found, job)


def _check_no_other_grams(
    workspace: Workspace, source: Source, samples: Samples, job: Extraction
) -> None:
    """Refuse Grams beside those of another checkpoint: no one could tell which are the run's."""
    if not has_store(workspace.grams):
        return
    kept = open_grams(workspace.grams)
    for grams in kept.find(source.run, source.checkpoint, samples.sample_set.name):
        if grams.key.checkpoint_digest != source.digest:
            found = f"Grams of checkpoint_digest {grams.key.checkpoint_digest!r}"
            raise _conflict(workspace, source, grams, found, job)


def _conflict(
    workspace: Workspace,
    source: Source,
    stored: Representation | Grams,
    found: str,
    job: Extraction,
) -> ConflictError:
    """Return the error for what is stored under a network's name and is not of its checkpoint."""
    network, name = Selection(source.run, source.checkpoint), stored.meta.sample_set.name
    return ConflictError(
        f"{network} is stored on {name} with {found}, not {source.digest!r}",
        remedy=_replacing(workspace, network, name, stored.meta.attributes, job),
    )


def _replacing(
    workspace: Workspace,
    network: Selection,
    sample_set: str,
    attributes: Attributes,
    job: Extraction,
) -> str:
    """Say how to store what the job asks for in the place of what is there."""
    if not is_extracted(attributes):
        return (
            "that was imported; import it under another --run, or train this run with another"
            " --prefix"
        )
    return replace_stored(workspace, network, sample_set, options_of(job))


def _has_grams(path: Place, keys: list[GramKey]) -> bool:
    try:
        kept = open_grams(path)
        grams = [kept[key] for key in keys]
    except (SchemaError, StoreLocationError, LookupError):
        return False
    return all(each.complete for each in grams) and _finished(grams)


def _finished(found: Sequence[Representation | Grams]) -> bool:
    """Take the claims away of a writer that was killed after its last minibatch."""
    for each in found:
        drop_dead(each.place / each.form.array)
    return True


def tap_metas(
    source: Source, samples: Samples, shapes: Mapping[str, tuple[int, ...]], job: Extraction
) -> dict[str, RepresentationMeta]:
    """Return what the activations of each tap are stored with."""
    created = stamp()
    return {
        tap: RepresentationMeta(
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
        for index, (tap, shape) in enumerate(shapes.items())
    }


def gram_metas(
    source: Source, samples: Samples, taps: Collection[str], job: Extraction
) -> dict[str, GramMeta]:
    """Return what the Grams of each tap are stored with."""
    how = job.base_kernel, job.pool, job.batch_size, job.dtype, source.digest
    ranges = tuple(pair_sums.split_minibatches(samples.sample_set.n_samples, job.batch_size))
    facts: dict[str, Any] = {"attributes": source.attributes, "n_taps": len(taps)} | stamp()
    of = (samples.sample_set.name, source.run, source.checkpoint)
    return {
        tap: GramMeta(
            GramKey(RepresentationKey(*of, tap), *how), samples.sample_set, index, ranges, **facts
        )
        for index, tap in enumerate(taps)
    }


def _open_writer(
    workspace: Workspace, meta: RepresentationMeta, samples: Samples, job: Extraction
) -> Writer:
    store, key = workspace.activations, meta.key
    try:
        return Writer.open(store, meta, samples.indices, samples.labels, job.compression)
    except ConflictError as error:
        stored = Store(store).find(key.run, key.checkpoint, key.sample_set)
        if not stored:
            raise
        # The other taps differ in the same way: all go at once, not one after the other.
        network = Selection(key.run, key.checkpoint)
        attributes = stored[0].meta.attributes
        again = _replacing(workspace, network, key.sample_set, attributes, job)
        raise ConflictError(error.finding, remedy=f"{again}, or ask for what is there") from error
