"""Open for writing what an extraction has not stored yet; refuse what is another network's."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from allcnn.advice import is_extracted, options_of, replace_stored
from allcnn.extract.forward import LoadedNetwork, Samples
from allcnn.extract.sinks import ActivationSink, GramSink, Sink, gram_meta
from allcnn.provenance import stamp
from allcnn.settings.extraction import DEFAULT_SAMPLES, Extraction, Keep
from allcnn.settings.selection import Selection
from allcnn.similarity.kernels import KERNELS
from allcnn.workspace.paths import Workspace
from store import (
    Attributes,
    ConflictError,
    GramKey,
    GramMeta,
    GramWriter,
    RepresentationKey,
    RepresentationMeta,
    Store,
    StoreError,
    Writer,
    has_store,
    open_grams,
)
from store.arrays.scan import CommittedStore
from store.storage.claims import claim, drop_dead, is_claimed
from store.storage.remote_errors import each


def open_sinks(
    workspace: Workspace,
    source: LoadedNetwork,
    samples: Samples,
    job: Extraction,
    shapes: Mapping[str, tuple[int, ...]],
    closing: ExitStack,
) -> list[Sink]:
    """Open the stores that do not hold all yet, to be closed at the end.

    Raises ConflictError where the store holds other activations of the same name.
    """
    there = _There(workspace, source, samples, job)
    sinks: list[Sink] = []
    metas = tap_metas(source, samples, shapes, job)
    if "activations" not in job.keep:
        # Comparisons would take those of another checkpoint.
        there.check_same("activations")
    elif not there.has("activations", metas.values()):
        writers = {
            tap: closing.enter_context(there.open_writer(meta)) for tap, meta in metas.items()
        }
        sinks.append(ActivationSink(writers, closing))
    if "grams" in job.keep:
        # Those of several checkpoints could not be told apart.
        there.check_same("grams")
        wanted = gram_metas(source, samples, shapes, job)
        if not there.has("grams", wanted.values()):
            coordinates = samples.indices, samples.labels
            grams = {
                tap: closing.enter_context(GramWriter.open(workspace.grams, meta, *coordinates))
                for tap, meta in wanted.items()
            }
            sinks.append(GramSink(grams))
    return sinks


def check_unclaimed(workspace: Workspace, job: Extraction, dataset: str) -> None:
    """Raise ClaimedError where another process extracts the same, before anything is loaded.

    Its writers refuse that as well, but only by names that the examples' digest is a part of.
    """
    for what in job.keep:
        if (store := _opened(workspace, what)) is None:
            continue
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


def _opened(workspace: Workspace, what: Keep) -> CommittedStore[Any] | None:
    place = workspace.activations if what == "activations" else workspace.grams
    if not has_store(place):
        return None
    return Store(place) if what == "activations" else open_grams(place)


@dataclass(frozen=True)
class _There:
    """Parts of an extraction that are stored already."""

    workspace: Workspace
    source: LoadedNetwork
    samples: Samples
    job: Extraction

    @property
    def _names(self) -> tuple[str, str, str]:
        return self.source.run, self.source.checkpoint, self.samples.sample_set.name

    def has(self, what: Keep, metas: Iterable[RepresentationMeta | GramMeta]) -> bool:
        """Return whether all of these are whole, and of this checkpoint in the dtype asked for."""
        wanted = self.source.digest, self.job.dtype
        try:
            if (store := _opened(self.workspace, what)) is None:
                return False
            found = each(store.path, store.__getitem__, [meta.key for meta in metas])
        except StoreError:
            # Not there, half created, or foreign: opening the writers tells these apart.
            return False
        kept = [(one.meta.checkpoint_digest, one.meta.dtype) for one in found if one.complete]
        if kept != [wanted] * len(found):
            return False
        for one in found:
            # A writer killed after its last minibatch left its claim.
            drop_dead(one.place / one.form.array)
        return True

    def check_same(self, what: Keep) -> None:
        """Raise ConflictError for what is stored of another checkpoint under the same name."""
        store = _opened(self.workspace, what)
        for stored in () if store is None else store.find(*self._names):
            digest = stored.meta.checkpoint_digest
            if digest != self.source.digest:
                run, checkpoint, name = self._names
                found = f"{'Grams' if what == 'grams' else what} of checkpoint_digest"
                raise ConflictError(
                    f"{run}@{checkpoint} is stored on {name} with {found} {digest!r},"
                    f" not {self.source.digest!r}",
                    remedy=self._replacing(stored.meta.attributes),
                )

    def open_writer(self, meta: RepresentationMeta) -> Writer:
        """Open the writer of a tap's activations."""
        store, samples = self.workspace.activations, self.samples
        try:
            return Writer.open(store, meta, samples.indices, samples.labels, self.job.compression)
        except ConflictError as error:
            stored = Store(store).find(*self._names)
            if not stored:
                raise
            # The other taps differ in the same way: all go at once, not one after the other.
            again = self._replacing(stored[0].meta.attributes)
            remedy = f"{again}, or ask for what is there"
            raise ConflictError(error.finding, remedy=remedy) from error

    def _replacing(self, attributes: Attributes) -> str:
        """Say how to store what the job asks for in the place of what is there."""
        if not is_extracted(attributes):
            return (
                "that was imported; import it under another --run, or train this run with another"
                " --prefix"
            )
        run, checkpoint, name = self._names
        how = options_of(self.job)
        return replace_stored(self.workspace, Selection(run, checkpoint), name, how)


def tap_metas(
    source: LoadedNetwork, samples: Samples, shapes: Mapping[str, tuple[int, ...]], job: Extraction
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
    source: LoadedNetwork, samples: Samples, shapes: Mapping[str, tuple[int, ...]], job: Extraction
) -> dict[str, GramMeta]:
    """Return what the Grams of each tap are stored with."""
    how = KERNELS.find(job.kernel).base, job.pool, job.batch_size, job.dtype, source.digest
    metas = tap_metas(source, samples, shapes, job)
    return {tap: gram_meta(meta, GramKey(meta.key, *how)) for tap, meta in metas.items()}
