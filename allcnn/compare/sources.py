"""Which stored representations a comparison is about, and where its Grams come from."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

import store
from allcnn import record
from allcnn.config import MIN_MINIBATCH, Comparison, DType, Selection
from allcnn.errors import AllcnnError, ComparisonError
from allcnn.extract import load_source
from allcnn.stages import checkpoint_order
from allcnn.workspace import Workspace
from store import (
    GramKey,
    GramMeta,
    Grams,
    Representation,
    RepresentationKey,
    RepresentationMeta,
    SampleSet,
)

BaseKernel = Literal["linear", "cosine"]


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

    @property
    def network(self) -> Selection:
        """The run and the checkpoint."""
        return network_of(self.key)

    def gram_key(self, job: Comparison) -> GramKey:
        """Return where its Grams are, or will be."""
        kernel = base_kernel(job)
        return GramKey(self.key, kernel, job.pool, job.batch_size, self.dtype, self.digest)


Sides = tuple[list[Source], list[Source]]


def network_of(key: RepresentationKey) -> Selection:
    """Return the network that a representation belongs to."""
    return Selection(key.run, key.checkpoint)


def base_kernel(job: Comparison) -> BaseKernel:
    """Return the kernel of the Grams that serve a comparison: RBF is derived from linear ones."""
    return "cosine" if job.kernel == "cosine" else "linear"


def choose(workspace: Workspace, job: Comparison) -> Sides:
    """Find both sides on the sample set asked for, or on the largest that both have whole.

    Raises ComparisonError where a side is not stored, or is stored on other sample sets, and
    where what is kept cannot give what is asked.
    """
    if not (store.has_store(workspace.activations) or store.has_store(workspace.grams)):
        raise ComparisonError(
            f"nothing is extracted yet in {workspace.root}; {_advice(workspace, job.rows)}"
        )
    rows = _stored(workspace, job.rows, job)
    columns = rows if job.columns == job.rows else _stored(workspace, job.columns, job)
    wanted = [job.sample_set] if job.sample_set else [*rows]
    common = [name for name in wanted if name in rows and name in columns]
    if not common:
        asked = f", and {job.sample_set} was asked for" if job.sample_set else ""
        told = f"{job.rows} is stored on {', '.join(rows)}"
        if columns is not rows:
            told += f", {job.columns} on {', '.join(columns)}"
        raise ComparisonError(
            f"{told}{asked}; only representations of the same sample set compare:"
            " extract both alike"
        )
    chosen = max(common, key=lambda name: (rows[name][0].sample_set.n_samples, name))
    n_samples = rows[chosen][0].sample_set.n_samples
    if n_samples < MIN_MINIBATCH:
        raise ComparisonError(
            f"{chosen} has {n_samples} examples, and HSIC needs {MIN_MINIBATCH}; store more"
        )
    _check_one_sample_set([*rows[chosen], *columns[chosen]])
    _check_of_todays_runs(workspace, [*rows[chosen], *columns[chosen]])
    return rows[chosen], columns[chosen]


def _check_one_sample_set(sources: list[Source]) -> None:
    """Refuse other examples under one name, which holds the beginning of their digest alone."""
    first = sources[0]
    for source in sources:
        if source.sample_set != first.sample_set:
            raise ComparisonError(
                f"{source.key} is of {source.sample_set}, and {first.key} of {first.sample_set};"
                " only representations of the same sample set compare: store both alike"
            )


def _check_of_todays_runs(workspace: Workspace, sources: list[Source]) -> None:
    """Refuse what is left of an earlier run that had the name of one that is there."""
    begun = {run: record.begun_at(workspace, run) for run in {s.key.run for s in sources}}
    older = [source for source in sources if source.created_at < begun[source.key.run]]
    # Loaded only in doubt: the same settings give the same checkpoint again.
    now = {network: _digest_now(workspace, network) for network in {s.network for s in older}}
    for source in older:
        network, found = source.network, now[source.network]
        if found == source.digest:
            continue
        told = (
            f"{source.key} was stored at {source.created_at}, before run {network.run!r} was begun"
            f" at {begun[network.run]}, and"
        )
        if found is None:
            raise ComparisonError(
                f"{told} nothing tells whether it is of that run, as checkpoint"
                f" {network.checkpoint!r} is not there to be read; finish or restore the run, or"
                " give one of them another name"
            )
        raise ComparisonError(
            f"{told} its checkpoint is another one, so that this is of an earlier run of that"
            f" name; remove it with 'allcnn store rm {network} --yes --workspace"
            f" {workspace.root}', and {_advice(workspace, network, _samples(source.sample_set))}"
        )


def _digest_now(workspace: Workspace, network: Selection) -> str | None:
    try:
        return load_source(workspace, network.run, network.checkpoint).digest
    except AllcnnError:
        return None


_Version = tuple[str, DType]
"""Digest of the checkpoint, and dtype of the activations."""


@dataclass(frozen=True)
class _Found:
    """What is stored of one representation, whole or not."""

    key: RepresentationKey
    activations: Representation | None
    grams: tuple[Grams, ...]

    def versions(self, job: Comparison) -> set[_Version]:
        """Return the versions that the comparison can use."""
        tap = self.activations
        if tap is not None and tap.complete:
            return {(tap.meta.checkpoint_digest, tap.meta.dtype)}
        return set() if job.estimator == "exact" else set(map(_version_of, self.fitting(job)))

    def digests(self) -> set[str]:
        """Return the checkpoints that this may be of: the one of its activations, or any kept."""
        tap = self.activations
        if tap is not None:
            return {tap.meta.checkpoint_digest}
        return {g.key.checkpoint_digest for g in self.grams}

    def source(self, job: Comparison, version: _Version) -> Source:
        """Return one of the versions."""
        kept = [g for g in self.fitting(job) if _version_of(g) == version]
        tap = self.activations
        if tap is None or not tap.complete:
            return self._source(kept[0].meta, version, 0, kept[0].rows_digest, kept=True)
        row_bytes = int(np.prod(tap.meta.shape)) * np.dtype(tap.meta.dtype).itemsize
        has_grams = job.estimator != "exact" and bool(kept)
        return self._source(tap.meta, version, row_bytes, tap.rows_digest, kept=has_grams)

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
            and (job.kernel != "rbf" or g.median_distance is not None)
        ]

    def _source(
        self,
        meta: RepresentationMeta | GramMeta,
        version: _Version,
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
        )

    def _is_current(self, grams: Grams) -> bool:
        """Return whether Grams are those of the activations that are stored now, as far as known.

        The checkpoint's digest does not tell all that activations of other programs depend on.
        """
        tap = self.activations
        if tap is None:
            return True
        same = grams.key.checkpoint_digest == tap.meta.checkpoint_digest
        if not tap.complete or grams.rows_digest is None:
            return same
        return same and grams.rows_digest == tap.rows_digest


def _version_of(grams: Grams) -> _Version:
    return grams.key.checkpoint_digest, grams.key.dtype


def _kind(job: Comparison) -> tuple[str, str, int]:
    return base_kernel(job), job.pool, job.batch_size


def _stored(workspace: Workspace, side: Selection, job: Comparison) -> dict[str, list[Source]]:
    """Return what a selection finds, by sample sets that hold all its networks whole."""
    found = _find(workspace, side, job.sample_set)
    if not found and job.sample_set:
        # Elsewhere it may be stored, which the error then says.
        found = _find(workspace, side, None)
    if not found:
        raise ComparisonError(
            f"{workspace.root} holds no activations or Grams of {side}; {_advice(workspace, side)}"
        )
    sets: dict[str, list[_Found]] = {}
    for each in found:
        sets.setdefault(each.key.sample_set, []).append(each)
    networks = {network_of(each.key) for each in found}
    whole = {}
    for name, members in sets.items():
        of_network = _by_network(members).values()
        sources = [source for taps in of_network for source in _sources(taps, job)]
        if any(_missing_tap(taps, side) is not None for taps in of_network):
            continue
        if len(sources) == len(members) and {s.network for s in sources} == networks:
            whole[name] = sorted(sources, key=lambda s: (*_order(s.key), s.tap_index, s.key.tap))
    if not whole or (job.sample_set in sets and job.sample_set not in whole):
        raise ComparisonError(_why_not(workspace, side, job, sets))
    return whole


def _by_network(found: list[_Found]) -> dict[Selection, list[_Found]]:
    networks: dict[Selection, list[_Found]] = {}
    for each in found:
        networks.setdefault(network_of(each.key), []).append(each)
    return networks


def _sources(taps: list[_Found], job: Comparison) -> list[Source]:
    """Return the version that all taps of a network have, or nothing; float32 before float16.

    Where Grams of several checkpoints are kept and no activations, nobody knows which are the
    run's: the newest may be of a run that has been replaced.
    """
    common = set.intersection(*(each.versions(job) for each in taps))
    if not common or len(_digests(taps)) > 1:
        return []
    widest = max(common, key=lambda version: np.dtype(version[1]).itemsize)
    return [each.source(job, widest) for each in taps]


def _digests(taps: list[_Found]) -> list[str]:
    return sorted({digest for each in taps for digest in each.digests()})


def _missing_tap(taps: list[_Found], side: Selection) -> int | None:
    """Return the position of a tap that is known to be and is not there, where all are wanted."""
    if side.tap != "*":
        return None
    there = {each.tap_index for each in taps}
    n_taps = max(max(there) + 1, *(each.n_taps for each in taps))
    return next((index for index in range(n_taps) if index not in there), None)


def _order(key: RepresentationKey) -> tuple[str, float, str]:
    return key.run, checkpoint_order(key.checkpoint), key.checkpoint


def _find(workspace: Workspace, side: Selection, sample_set: str | None) -> list[_Found]:
    # Patterns too: nothing else is opened.
    where = {"sample_set": sample_set, "run": side.run, "checkpoint": side.checkpoint}
    taps: dict[RepresentationKey, Representation] = {}
    if store.has_store(workspace.activations):
        taps = {tap.key: tap for tap in store.open(workspace.activations).find(**where)}
    grams: dict[RepresentationKey, list[Grams]] = {}
    if store.has_store(workspace.grams):
        for each in store.open_grams(workspace.grams).find(**where):
            grams.setdefault(each.key.of, []).append(each)
    return [
        _Found(key, taps.get(key), tuple(grams.get(key, ())))
        for key in sorted({*taps, *grams})
        if side.matches(key.run, key.checkpoint, key.tap)
    ]


def _why_not(
    workspace: Workspace, side: Selection, job: Comparison, sets: dict[str, list[_Found]]
) -> str:
    """Say what keeps a selection from being compared, for the first representation in the way."""
    members = sets[job.sample_set] if job.sample_set in sets else next(iter(sets.values()))
    lacking = next((each for each in members if not each.versions(job)), None)
    if lacking is not None:
        return _why_unusable(workspace, lacking, job)
    for network, taps in _by_network(members).items():
        missing = _missing_tap(taps, side)
        if missing is not None:
            options = _samples(taps[0].sample_set)
            return (
                f"tap {missing} of {network} on {taps[0].key.sample_set}, counted from 0, is not"
                f" stored; {_advice(workspace, network, options)}, or name the"
                f" taps, as in '{network}:conv[1-3]'"
            )
        if not _sources(taps, job):
            return _why_mixed(workspace, network, taps, job)
    places: dict[Selection, list[str]] = {}
    for name, stored in sets.items():
        for network in dict.fromkeys(network_of(each.key) for each in stored):
            places.setdefault(network, []).append(name)
    spread = sorted(places.items(), key=lambda item: len(item[1]))
    told = ", ".join(f"{network} on {' and '.join(on)}" for network, on in (spread[0], spread[-1]))
    return (
        f"no sample set holds all networks of {side} whole: {told}; name one with --sample-set, or"
        " extract them alike"
    )


def _why_mixed(
    workspace: Workspace, network: Selection, taps: list[_Found], job: Comparison
) -> str:
    place, digests = f"{network} on {taps[0].key.sample_set}", _digests(taps)
    if len(digests) > 1:
        folder = workspace.grams / taps[0].key.sample_set / network.run / network.checkpoint
        return (
            f"what is kept of {place} is of several checkpoints: {' and '.join(digests)}; delete"
            f" {folder}, and {_advice(workspace, network, _samples(taps[0].sample_set))}"
        )
    dtypes = sorted({dtype for each in taps for _, dtype in each.versions(job)})
    return (
        f"the taps of {place} are kept in {' and '.join(dtypes)}, and in none all of them;"
        f" {_advice(workspace, network, _samples(taps[0].sample_set))}"
    )


def _why_unusable(workspace: Workspace, found: _Found, job: Comparison) -> str:
    network, on = network_of(found.key), found.key.sample_set
    tap = found.activations
    if tap is not None:
        meta = tap.meta
        options = f" --batch-size {meta.batch_rows} --dtype {meta.dtype}"
        again = _advice(workspace, network, _samples(meta.sample_set) + options)
        return f"the activations of {network} on {on} are unfinished in {workspace.root}; {again}"
    some = found.grams[0].meta
    options = _samples(some.sample_set)
    if job.estimator == "exact":
        return (
            f"the exact estimator needs activations, and of {network} on {on} Grams alone are kept;"
            f" {_advice(workspace, network, options)}"
        )
    kept = sorted({_describe(g) for g in found.grams})
    options += f" --keep grams --batch-size {job.batch_size} --dtype {some.key.dtype}"
    options += f" --kernel {job.kernel} --pool {job.pool}"
    return (
        f"the Grams kept of {found.key} on {on} are {' and '.join(kept)}, and {job.kernel}"
        f" {job.pool} ones in minibatches of {job.batch_size} are needed;"
        f" {_advice(workspace, network, options)}"
    )


def _describe(grams: Grams) -> str:
    key = grams.key
    state = "" if grams.complete else ", unfinished"
    median = ", without a median distance" if grams.median_distance is None else ""
    return f"{key.kernel} {key.pool} ones in minibatches of {key.batch_size}{median}{state}"


def _samples(sample_set: SampleSet) -> str:
    return f" --split {sample_set.split} --samples {sample_set.n_samples}"


def _advice(workspace: Workspace, side: Selection, options: str = "") -> str:
    if not side.is_network:
        return f"'allcnn store ls --workspace {workspace.root}' lists what is stored"
    command = f"allcnn extract {side.run} --checkpoint {side.checkpoint}{options}"
    # What is stored without a run may come from another program.
    foreign = options and side.run not in workspace.runs()
    other = ", or 'allcnn store import' again what another program made" if foreign else ""
    return f"run '{command} --workspace {workspace.root}'{other}"
