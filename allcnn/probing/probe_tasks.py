"""Which activations a probe is trained on, and which it is tested on."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import numpy as np

from allcnn.advice import (
    importing,
    is_extracted,
    listing,
    store_missing,
)
from allcnn.commands import command
from allcnn.compare.candidates import Found, by_network, find, missing_tap
from allcnn.compare.reextract import store_whole
from allcnn.compare.select import left_behind
from allcnn.errors import AllcnnError, ProbeError
from allcnn.machine_memory import check_room
from allcnn.probing.classifier import count_columns, split
from allcnn.settings.probing import Probing
from allcnn.settings.selection import Selection
from allcnn.similarity.method import Pool
from allcnn.workspace import run_record
from allcnn.workspace.checkpoint_names import checkpoint_epoch
from allcnn.workspace.paths import Workspace
from store import Representation, SampleSet, Store
from store.ingest.import_arrays import rows_digest
from store.model.examples import NO_LABEL

Role = Literal["train", "test"]
"""The splits whose sample sets are used unless others are named."""

KnownBy = Literal["digest", "name"]
"""Whether its digest or its name alone shows that two sets of activations are of one network."""

_SAMPLES: Mapping[Role, int] = {"train": 5000, "test": 10000}
_LARGE = ("cifar10", "cifar100", "fashion_mnist")
"""How many examples of a split are advised, of the data sets that have so many."""

_COPIES = 4
"""Copies of all features or Gram matrices: as read, centred, on the device, and to spare."""

Taps = Sequence[Representation]


@dataclass(frozen=True)
class ProbedTap:
    """One tap, on the examples that are trained on and on those that are classified."""

    name: str
    train: Representation
    test: Representation

    def count_features(self, pool: Pool) -> int:
        """Return how many numbers it has of each example, pooled as asked."""
        shape = self.test.meta.shape
        return shape[-1] if pool == "mean" and len(shape) > 1 else math.prod(shape)


@dataclass(frozen=True)
class Task:
    """The taps of one network, in its order, and the classes of the training examples.

    ``known_by`` is what shows that the activations of both sets are of one network.
    """

    network: Selection
    taps: tuple[ProbedTap, ...]
    classes: tuple[int, ...]
    known_by: KnownBy

    @property
    def train_set(self) -> SampleSet:
        """The examples that are trained on."""
        return self.taps[0].train.meta.sample_set

    @property
    def test_set(self) -> SampleSet:
        """The examples that are classified."""
        return self.taps[0].test.meta.sample_set


def choose(workspace: Workspace, job: Probing) -> list[Task]:
    """Find the activations of every network that is named, on both sets of examples.

    Raises ProbeError where any of them is not stored whole, or the examples cannot be used.
    """
    found = find(workspace, job.networks, None)
    if not found:
        raise ProbeError(
            str(workspace.root),
            f"holds no activations of {job.networks}",
            remedy=f"{_to_store(workspace, job.networks, 'train')}, and again for the split test",
        )
    networks = by_network(found)
    order = sorted(networks, key=lambda n: (n.run, checkpoint_epoch(n.checkpoint), n.checkpoint))
    return [_ProbedNetwork(workspace, job, each, networks[each]).task() for each in order]


@dataclass(frozen=True)
class _ProbedNetwork:
    """The stored activations of one network that a job names."""

    workspace: Workspace
    job: Probing
    network: Selection
    found: list[Found]

    def task(self) -> Task:
        # The set that is named comes first: the other one is of the same data set, or named too.
        roles: tuple[Role, Role] = ("test", "train") if self.job.test_set else ("train", "test")
        sides: dict[Role, Taps] = {}
        dataset = None
        for role in roles:
            sides[role] = self.stored(role, dataset)
            dataset = sides[role][0].meta.sample_set.dataset
        train, test = sides["train"], sides["test"]
        self.check_apart(train, test)
        known_by = self.known_by(train, test)
        self.check_same_taps(train, test)
        of = {tap.key.tap: tap for tap in train}
        taps = tuple(ProbedTap(tap.key.tap, of[tap.key.tap], tap) for tap in test)
        self.check_fits(taps)
        return Task(self.network, taps, _classes(self.network, taps[0]), known_by)

    def stored(self, role: Role, dataset: str | None) -> Taps:
        """Return those on the sample set that is named, or on the largest of a data set's split."""
        name = self.job.train_set if role == "train" else self.job.test_set
        sets: dict[str, list[Found]] = {}
        for each in self.found:
            of = each.meta.sample_set
            fits = of.split == role and dataset in (None, of.dataset)
            if of.name == name if name else fits:
                sets.setdefault(of.name, []).append(each)
        whole = [
            taps
            for taps in sets.values()
            if all(each.whole for each in taps) and missing_tap(taps, self.job.networks) is None
        ]
        if not whole:
            raise self.not_stored(sets, role, name, dataset)
        largest = max(whole, key=lambda taps: (taps[0].meta.n_samples, taps[0].key))
        ordered = sorted(largest, key=lambda each: (each.meta.tap_index, each.key.tap))
        return [each.whole for each in ordered if each.whole]

    def not_stored(
        self, sets: Mapping[str, list[Found]], role: Role, name: str | None, dataset: str | None
    ) -> ProbeError:
        """Return why none of these sample sets can be used."""
        if not sets:
            split = f"of examples of the split {role}" + (f" of {dataset}" if dataset else "")
            store_it = _to_store(self.workspace, self.network, role)
            return ProbeError(
                f"no activations of {self.network} {f'on {name}' if name else split}",
                f"are in {self.workspace.root}",
                remedy=listing(self.workspace) if name else store_it,
            )
        of, taps = next(iter(sets.items()))
        lacking = next((each for each in taps if not each.whole), taps[0])
        grams_alone = all(each.activations is None for each in taps)
        return ProbeError(
            f"the activations of {self.network} on {of}",
            "are not stored, only their Grams" if grams_alone else "are not all there",
            remedy=store_whole(self.workspace, lacking),
        )

    def check_apart(self, train: Taps, test: Taps) -> None:
        """Refuse to test on examples that were trained on: samples of a split are one shuffle's."""
        one, other = (side[0].meta.sample_set for side in (train, test))
        if (one.dataset, one.split) == (other.dataset, other.split):
            raise ProbeError(
                f"{one.name} and {other.name}, for {self.network},",
                f"are both of the split {one.split} of {one.dataset}, and share examples",
                remedy="name sets of two splits with --train-set and --test-set",
            )

    def known_by(self, train: Taps, test: Taps) -> KnownBy:
        """Return what shows that both sets are of one network; raise ProbeError if they are not.

        Digests do, unless imports computed them from rows, which differ between two sets: then it
        is the name, with the same taps of the same shapes.
        """
        stale = left_behind(self.workspace, [tap.meta for tap in (*train, *test)])
        if stale:
            raise ProbeError(next(iter(stale.values())))
        if _digest(train) == _digest(test):
            return "digest"
        if any(self.is_of_rows(side[0]) for side in (train, test)):
            return "name"
        named = (f"{_digest(side)} on {side[0].key.sample_set}" for side in (train, test))
        raise ProbeError(
            f"the activations of {self.network}",
            f"are of several checkpoints: {' and '.join(named)}",
            remedy="store those of different networks under different names",
        )

    def is_of_rows(self, tap: Representation) -> bool:
        """Return whether a digest is that of imported rows, and not that of a network."""
        key = tap.key
        if is_extracted(tap.meta.attributes):
            return False
        taps = Store(self.workspace.activations).find(key.run, key.checkpoint, key.sample_set)
        return rows_digest(taps) == tap.meta.checkpoint_digest

    def check_same_taps(self, train: Taps, test: Taps) -> None:
        one, other = ({tap.key.tap: tap.meta.shape for tap in side} for side in (train, test))
        odd = sorted(name for name in one | other if one.get(name) != other.get(name))
        if odd:
            same = [f"{self.network}:{name}" for name in one if name not in odd]
            some = f"{command(self.workspace.root, 'probe', *same[:1])} probes one that both have"
            raise ProbeError(
                f"tap {odd[0]} of {self.network}",
                f"has the shape {one.get(odd[0])} on {train[0].key.sample_set} and"
                f" {other.get(odd[0])} on {test[0].key.sample_set}",
                remedy=some if same else "store the same taps on both",
            )

    def check_fits(self, taps: Sequence[ProbedTap]) -> None:
        """Raise ProbeError if training needs more memory than this machine has."""
        of, pool = taps[0].train.meta.sample_set, self.job.pool
        columns = max(count_columns(of.n_samples, tap.count_features(pool)) for tap in taps)
        needed = 4 * _COPIES * of.n_samples * columns
        what = f"training on the {of.n_samples} examples of {of.name}, for {self.network},"
        check_room(what, needed, "name a smaller set with --train-set", error=ProbeError)


def _digest(side: Taps) -> str:
    return " and ".join(sorted({tap.meta.checkpoint_digest for tap in side}))


def _to_store(workspace: Workspace, side: Selection, role: Role) -> str:
    """Say how to store a network on the examples of a split."""
    if side.run not in workspace.runs() and side in workspace.stored_networks():
        return f"import its activations on examples of the split {role} ({importing()} says how)"
    n_samples = None
    with suppress(AllcnnError):
        if run_record.read_record(workspace, side.run).config.dataset in _LARGE:
            n_samples = _SAMPLES[role]
    network = Selection(side.run, side.checkpoint)
    return store_missing(workspace, network, split=role, samples=n_samples)


def _classes(network: Selection, tap: ProbedTap) -> tuple[int, ...]:
    """Return the classes of the training examples; raise ProbeError where they do not suffice."""
    train, test = (side.meta.sample_set for side in (tap.train, tap.test))
    there, asked = (np.unique(side.labels) for side in (tap.train, tap.test))
    for labels, of in ((there, train), (asked, test)):
        if NO_LABEL in labels:
            raise ProbeError(
                f"examples of {of.name}",
                f"have no labels, by which {network} would be probed",
                remedy="store them with labels",
            )
    if len(there) < 2:
        raise ProbeError(
            f"all {train.n_samples} examples of {train.name}",
            f"have the label {there[0]}",
            "a classifier needs two classes",
            "store more of them",
        )
    unknown = np.setdiff1d(asked, there)
    if len(unknown):
        raise ProbeError(
            test.name,
            f"has examples of label {unknown[0]}, and {train.name} has none to learn it from",
            remedy="store more training examples",
        )
    split(tap.train.labels, train.name)
    return tuple(int(label) for label in there)
