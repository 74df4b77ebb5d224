"""Find stored representations, and what a comparison can use of each."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, product

import numpy as np

import store
from allcnn.advice import is_extracted
from allcnn.settings.comparison import Comparison
from allcnn.settings.selection import Selection
from allcnn.similarity.kernels import BaseKernel
from allcnn.similarity.method import Pool
from allcnn.workspace.paths import Workspace
from store import (
    Attributes,
    DType,
    GramKey,
    GramMeta,
    Grams,
    Representation,
    RepresentationKey,
    RepresentationMeta,
    SampleSet,
)
from store.storage import remote_errors


@dataclass(frozen=True)
class Source:
    """A representation to compare, by names and numbers alone.

    Attributes:
        key: the representation's.
        digest: of its checkpoint.
        sample_set: the examples.
        tap_index: its position in the network.
        dtype: of the activations, stored or once computed.
        row_bytes: of one example's stored activations; 0 where none are stored.
        kept: whether its Grams are kept already.
        rows_digest: of the activations, stored or once stored; empty where they never were.
        created_at: when what is used was begun to be stored.
        extracted: whether it was extracted from a run, and not imported.
    """

    key: RepresentationKey
    digest: str
    sample_set: SampleSet
    tap_index: int
    dtype: DType
    row_bytes: int
    kept: bool
    rows_digest: str
    created_at: str
    extracted: bool

    @property
    def network(self) -> Selection:
        """The run and the checkpoint."""
        return network_of(self.key)

    def gram_key(self, job: Comparison) -> GramKey:
        """Return where its Grams are, or will be."""
        kernel, pool, batch_size = _kind(job)
        return GramKey(self.key, kernel, pool, batch_size, self.dtype, self.digest)


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

    def versions(self, job: Comparison) -> set[Version]:
        """Return the versions that the comparison can use."""
        tap = self.activations
        if tap is not None and tap.complete:
            return {(tap.meta.checkpoint_digest, tap.meta.dtype)}
        return set() if job.method.is_whole else set(map(_version_of, self.fitting(job)))

    def digests(self) -> set[str]:
        """Return the checkpoints that this may be of: the one of its activations, or any kept."""
        tap = self.activations
        if tap is not None:
            return {tap.meta.checkpoint_digest}
        return {g.key.checkpoint_digest for g in self.grams}

    def source(self, job: Comparison, version: Version) -> Source:
        """Return one of the versions."""
        kept = [g for g in self.fitting(job) if _version_of(g) == version]
        tap = self.activations
        if tap is None or not tap.complete:
            return self._source(kept[0].meta, version, 0, kept[0].rows_digest, kept=True)
        has_grams = not job.method.is_whole and bool(kept)
        return self._source(tap.meta, version, tap.row_bytes, tap.rows_digest, kept=has_grams)

    @property
    def tap_index(self) -> int:
        """Position of the tap in its network."""
        return self._meta.tap_index

    @property
    def n_taps(self) -> int:
        """Taps of its network, 0 where the writer did not know."""
        return self._meta.n_taps or 0

    @property
    def sample_set(self) -> SampleSet:
        """The examples."""
        return self._meta.sample_set

    @property
    def attributes(self) -> Attributes:
        """Free attributes of its network."""
        return self._meta.attributes

    @property
    def created_at(self) -> str:
        """When it was begun to be stored."""
        return self._meta.created_at

    @property
    def extracted(self) -> bool:
        """Whether it was extracted from a run, rather than imported."""
        return is_extracted(self.attributes)

    @property
    def _meta(self) -> RepresentationMeta | GramMeta:
        return self.grams[0].meta if self.activations is None else self.activations.meta

    def fitting(self, job: Comparison) -> list[Grams]:
        """Return the whole Grams that serve the comparison."""
        return [
            g
            for g in self.grams
            if (g.key.kernel, g.key.pool, g.key.batch_size) == _kind(job)
            and g.complete
            and self._is_current(g)
        ]

    def _source(
        self,
        meta: RepresentationMeta | GramMeta,
        version: Version,
        row_bytes: int,
        rows_digest: str | None,
        *,
        kept: bool,
    ) -> Source:
        digest, dtype = version
        return Source(
            self.key,
            digest,
            meta.sample_set,
            meta.tap_index,
            dtype,
            row_bytes,
            kept,
            rows_digest or "",
            meta.created_at,
            is_extracted(meta.attributes),
        )

    def _is_current(self, grams: Grams) -> bool:
        """Return whether Grams are those of the activations that are stored now, as far as known.

        Activations of other programs may depend on more than the digest of the checkpoint covers.
        """
        tap = self.activations
        if tap is None:
            return True
        same = grams.key.checkpoint_digest == tap.meta.checkpoint_digest
        if not tap.complete or grams.rows_digest is None:
            return same
        return same and grams.rows_digest == tap.rows_digest


def activations_alone(tap: Representation) -> Source:
    """Return the activations of a tap as a source, for what asks nothing of Grams."""
    meta = tap.meta
    return Source(
        tap.key,
        meta.checkpoint_digest,
        meta.sample_set,
        meta.tap_index,
        meta.dtype,
        0,
        False,
        tap.rows_digest,
        meta.created_at,
        is_extracted(meta.attributes),
    )


def _version_of(grams: Grams) -> Version:
    return grams.key.checkpoint_digest, grams.key.dtype


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
    there = {each.tap_index for each in taps}
    n_taps = max(max(there) + 1, *(each.n_taps for each in taps))
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
    taps: dict[RepresentationKey, Representation] = {}
    if store.has_store(workspace.activations):
        opened = store.open(workspace.activations)
        found = opened.scan(**where).found if skip else opened.find(**where)
        taps = {tap.key: tap for tap in found}
    grams: dict[RepresentationKey, list[Grams]] = {}
    if store.has_store(workspace.grams):
        kept = store.open_grams(workspace.grams)
        for each in kept.scan(**where).found if skip else kept.find(**where):
            grams.setdefault(each.key.of, []).append(each)
    return {key: Found(key, taps.get(key), tuple(grams.get(key, ()))) for key in {*taps, *grams}}
