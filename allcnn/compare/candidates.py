"""Find stored representations, and what a comparison can use of each."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, product
from typing import TypeVar

import numpy as np

import store
from allcnn.advice import is_extracted
from allcnn.settings.comparison import Comparison
from allcnn.settings.selection import Selection
from allcnn.similarity.kernels import BaseKernel
from allcnn.similarity.method import Pool
from allcnn.workspace.paths import Workspace
from store import (
    DType,
    GramKey,
    GramMeta,
    Grams,
    Representation,
    RepresentationKey,
    RepresentationMeta,
    SampleSet,
)
from store.arrays.scan import CommittedStore
from store.storage import remote_errors
from store.storage.paths import Place

R = TypeVar("R", Representation, Grams)


Meta = RepresentationMeta | GramMeta


@dataclass(frozen=True)
class Source:
    """A representation to compare, by names and numbers alone.

    Attributes:
        meta: of its activations, or of its Grams where those are unfinished or were removed.
        rows_digest: of the activations, stored or once stored; empty where they never were.
        row_bytes: of one example's stored activations; 0 where none are stored.
        kept: whether its Grams are kept already.
    """

    meta: Meta
    rows_digest: str
    row_bytes: int
    kept: bool

    @property
    def key(self) -> RepresentationKey:
        """The representation's."""
        return self.meta.of

    @property
    def network(self) -> Selection:
        """The run and the checkpoint."""
        return network_of(self.key)

    def gram_key(self, job: Comparison) -> GramKey:
        """Return where its Grams are, or will be."""
        return GramKey(self.key, *_kind(job), self.meta.dtype, self.meta.checkpoint_digest)


Sides = tuple[list[Source], list[Source]]


def preference(sample_set: SampleSet) -> tuple[bool, int, str]:
    """Return what is largest for the sample set that is compared on, unless one is named.

    Training examples are stored for probes, and are the last to be compared on.
    """
    return sample_set.split != "train", sample_set.n_samples, sample_set.name


def network_of(key: RepresentationKey) -> Selection:
    """Return the network that a representation belongs to."""
    return Selection(key.run, key.checkpoint)


Version = tuple[str, DType]
"""Digest of the checkpoint, and dtype of the activations."""


@dataclass(frozen=True)
class Found:
    """One stored representation: its activations and Grams, whole or not."""

    key: RepresentationKey
    activations: Representation | None
    grams: tuple[Grams, ...]

    @property
    def _first(self) -> Sequence[Representation | Grams]:
        return self.grams if self.activations is None else (self.activations,)

    @property
    def meta(self) -> Meta:
        """The metadata of its activations, or of some of its Grams."""
        return self._first[0].meta

    @property
    def whole(self) -> Representation | None:
        """Its activations, where they are all there."""
        tap = self.activations
        return tap if tap is not None and tap.complete else None

    @property
    def extracted(self) -> bool:
        """Whether it was extracted from a run, rather than imported."""
        return is_extracted(self.meta.attributes)

    def digests(self) -> set[str]:
        """Return the checkpoints that this may be of: the one of its activations, or any kept."""
        return {each.meta.checkpoint_digest for each in self._first}

    def versions(self, job: Comparison) -> set[Version]:
        """Return the versions that the comparison can use."""
        if self.whole is not None:
            return {_version_of(self.whole.meta)}
        return {_version_of(g.meta) for g in self._fitting(job)}

    def source(self, job: Comparison, version: Version) -> Source:
        """Return one of the versions."""
        kept = [g for g in self._fitting(job) if _version_of(g.meta) == version]
        if (tap := self.whole) is None:
            return Source(kept[0].meta, kept[0].rows_digest or "", 0, kept=True)
        return Source(tap.meta, tap.rows_digest, tap.row_bytes, kept=bool(kept))

    def _fitting(self, job: Comparison) -> list[Grams]:
        """Return the whole Grams that serve the comparison."""
        return [
            g
            for g in self.grams
            if (g.key.kernel, g.key.pool, g.key.batch_size) == _kind(job)
            and not job.method.is_whole
            and g.complete
            and self._is_current(g)
        ]

    def _is_current(self, grams: Grams) -> bool:
        """Return whether Grams are those of the activations that are stored now, as far as known.

        Activations of other programs may depend on more than the digest of the checkpoint covers.
        """
        if grams.meta.checkpoint_digest not in self.digests():
            return False
        return self.whole is None or grams.rows_digest in (None, self.whole.rows_digest)


def _version_of(meta: Meta) -> Version:
    return meta.checkpoint_digest, meta.dtype


def _kind(job: Comparison) -> tuple[BaseKernel, Pool, int]:
    return job.method.kernel.base, job.method.pool, job.method.batch_size


def by_network(found: list[Found]) -> dict[Selection, list[Found]]:
    """Group representations by run and checkpoint."""
    networks: dict[Selection, list[Found]] = {}
    for each in found:
        networks.setdefault(network_of(each.key), []).append(each)
    return networks


def sources_of(taps: list[Found], job: Comparison) -> list[Source]:
    """Return the version that all taps of a network have, or nothing; the widest dtype first.

    Where Grams of several checkpoints are kept without activations, it is unknown which are the
    run's: the newest may be of a run that has been replaced.
    """
    common = set.intersection(*(each.versions(job) for each in taps))
    if not common or len(digests_of(taps)) > 1:
        return []
    widest = max(common, key=lambda version: np.dtype(version[1]).itemsize)
    return [each.source(job, widest) for each in taps]


def digests_of(taps: list[Found]) -> list[str]:
    """Return the digests of the checkpoints that taps may be of, sorted."""
    return sorted({digest for each in taps for digest in each.digests()})


def missing_tap(taps: list[Found], side: Selection) -> int | None:
    """Return the position of a tap that is known to be and is not there, where all are wanted."""
    if side.tap != "*":
        return None
    there = {each.meta.tap_index for each in taps}
    n_taps = max(max(there) + 1, *(each.meta.n_taps or 0 for each in taps))
    return next((index for index in range(n_taps) if index not in there), None)


def find(
    workspace: Workspace, side: Selection, sample_set: str | None, *, skip: bool = False
) -> list[Found]:
    """Open the activations and the Grams that a selection names, whole or not.

    Raises what keeps any of them from being opened, or else skips those.
    """

    def opened(at: tuple[str, Selection]) -> dict[RepresentationKey, Found]:
        name, network = at
        opening = partial(_open, workspace, network, name, skip=skip)
        return workspace.once(("opened", network, name, skip), opening)

    folders = list(_folders(workspace, side, sample_set))
    found = dict(
        chain(*(some.items() for some in remote_errors.each(workspace.root, opened, folders)))
    )
    return [found[key] for key in sorted(found) if side.matches(key.run, key.checkpoint, key.tap)]


def _folders(
    workspace: Workspace, side: Selection, sample_set: str | None
) -> Iterable[tuple[str, Selection]]:
    """Return the sample sets and networks that may have what a selection names."""
    names = [sample_set] if sample_set else workspace.sample_sets()
    network = replace(side, tap="*")
    if side.is_network:
        return product(names, [network])
    stored = ((name, each) for name in names for each in workspace.stored_on(name))
    return [at for at in stored if network.matches(at[1].run, at[1].checkpoint, "")]


def _open(
    workspace: Workspace, network: Selection, sample_set: str, *, skip: bool
) -> dict[RepresentationKey, Found]:
    where = {"sample_set": sample_set, "run": network.run, "checkpoint": network.checkpoint}

    def stored(place: Place, reading: Callable[[Place], CommittedStore[R]]) -> Sequence[R]:
        if not store.has_store(place):
            return ()
        opened = reading(place)
        return opened.scan(**where).found if skip else opened.find(**where)

    taps = {tap.key: tap for tap in stored(workspace.activations, store.open)}
    grams: dict[RepresentationKey, list[Grams]] = {}
    for each in stored(workspace.grams, store.open_grams):
        grams.setdefault(each.key.of, []).append(each)
    return {key: Found(key, taps.get(key), tuple(grams.get(key, ()))) for key in {*taps, *grams}}
