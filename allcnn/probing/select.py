"""Which activations a probe is trained on, and which it is tested on."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from allcnn.advice import (
    extracting,
    importing,
    is_extracted,
    is_here,
    listing,
    replace_stored,
    store_missing,
)
from allcnn.cluster.backends import memory_bytes
from allcnn.commands import command
from allcnn.compare.candidates import Found, activations_alone, by_network, find, missing_tap
from allcnn.compare.reextract import examples_of, store_whole
from allcnn.compare.select import left_behind
from allcnn.errors import AllcnnError, ProbeError
from allcnn.extract import load_source
from allcnn.probing.classifier import FOLDS, count_columns
from allcnn.settings.probing import Probing
from allcnn.settings.selection import Selection
from allcnn.similarity.method import Pool
from allcnn.workspace import run_record
from allcnn.workspace.checkpoint_names import checkpoint_order
from allcnn.workspace.paths import Workspace
from store import Representation, SampleSet, Store
from store.ingest.import_arrays import rows_digest
from store.model.examples import NO_LABEL

Role = Literal["train", "test"]
"""Names of the splits that are taken where no sample set is named."""

KnownBy = Literal["digest", "name"]
"""What tells that two sets of activations are of one network: its digest, or its name alone."""

_SAMPLES = {"train": 5000, "test": 10000}
"""Of which split how many examples are advised."""

_LARGE = ("cifar10", "cifar100", "fashion_mnist")
"""Data sets that have so many."""

_COPIES = 4
"""Of all examples' features or Gram matrix: as it comes, centred, on the device, and to spare."""


@dataclass(frozen=True)
class Tap:
    """One tap, on the examples that are trained on and on those that are classified."""

    train: Representation
    test: Representation

    def count_features(self, pool: Pool) -> int:
        """Return how many numbers it has of each example, pooled as asked."""
        shape = self.test.meta.shape
        return shape[-1] if pool == "mean" and len(shape) > 1 else math.prod(shape)


@dataclass(frozen=True)
class Task:
    """The taps of one network, in its order, and the classes of the training examples.

    ``known_by`` is what tells that the activations of both sets are of one network.
    """

    network: Selection
    taps: tuple[Tap, ...]
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

    Raises ProbeError where any of them is not stored whole, and where the examples do not serve.
    """
    found = find(workspace, job.networks, None)
    if not found:
        raise ProbeError(
            f"{workspace.root} holds no activations of {job.networks};"
            f" {_to_store(workspace, job.networks, 'train')}, and again for the split test"
        )
    networks = sorted(by_network(found).items(), key=lambda each: _order(each[0]))
    return [_task(workspace, job, *each) for each in networks]


def _order(network: Selection) -> tuple[str, float, str]:
    return network.run, checkpoint_order(network.checkpoint), network.checkpoint


def _task(workspace: Workspace, job: Probing, network: Selection, found: list[Found]) -> Task:
    # What is named first: the other one is of the same data set, unless it is named too.
    roles: tuple[Role, Role] = ("test", "train") if job.test_set else ("train", "test")
    first, second = roles
    sides = {first: _stored(workspace, job, network, found, first)}
    dataset = sides[first][0].meta.sample_set.dataset
    sides[second] = _stored(workspace, job, network, found, second, dataset)
    train, test = sides["train"], sides["test"]
    _check_apart(network, train[0].meta.sample_set, test[0].meta.sample_set)
    known_by = _known_by(workspace, network, sides)
    by_name = {tap.key.tap: tap for tap in train}
    _check_same_taps(workspace, network, train, test)
    taps = tuple(Tap(by_name[tap.key.tap], tap) for tap in test)
    _check_fits(network, taps, job.pool)
    return Task(network, taps, _classes(network, taps[0]), known_by)


def _stored(
    workspace: Workspace,
    job: Probing,
    network: Selection,
    found: list[Found],
    role: Role,
    dataset: str | None = None,
) -> list[Representation]:
    """Return the activations on the sample set that is named, or on the largest of a split.

    ``dataset`` is the one that this split is of, None for any.
    """
    name = job.train_set if role == "train" else job.test_set
    fitting = [each for each in found if _serves(each, name, role, dataset)]
    sets: dict[str, list[Found]] = {}
    for each in fitting:
        sets.setdefault(each.key.sample_set, []).append(each)
    whole = {of: taps for of, taps in sets.items() if _is_whole(taps, job.networks)}
    if not whole:
        of_split = f"of examples of the split {role}" + (f" of {dataset}" if dataset else "")
        wanted = f"on {name}" if name else of_split
        raise ProbeError(_why_not(workspace, network, sets, role, wanted, name))
    chosen = max(whole.values(), key=lambda taps: (taps[0].sample_set.n_samples, taps[0].key))
    ordered = sorted(chosen, key=lambda each: (each.tap_index, each.key.tap))
    return [each.activations for each in ordered if each.activations is not None]


def _serves(found: Found, name: str | None, role: Role, dataset: str | None) -> bool:
    if name:
        return found.key.sample_set == name
    sample_set = found.sample_set
    return sample_set.split == role and dataset in (None, sample_set.dataset)


def _is_whole(taps: list[Found], side: Selection) -> bool:
    return all(map(_is_complete, taps)) and missing_tap(taps, side) is None


def _is_complete(tap: Found) -> bool:
    return tap.activations is not None and tap.activations.complete


def _why_not(
    workspace: Workspace,
    network: Selection,
    sets: dict[str, list[Found]],
    role: Role,
    wanted: str,
    name: str | None,
) -> str:
    if not sets:
        help_ = listing(workspace) if name else _to_store(workspace, network, role)
        return f"no activations of {network} {wanted} are in {workspace.root}; {help_}"
    of, taps = next(iter(sets.items()))
    lacking = next((each for each in taps if not _is_complete(each)), taps[0])
    again = store_whole(workspace, lacking)
    if all(each.activations is None for each in taps):
        return f"of {network} on {of} Grams alone are kept, and probes need activations; {again}"
    return f"the activations of {network} on {of} are not all there; {again}"


def _to_store(workspace: Workspace, side: Selection, role: Role) -> str:
    """Say how to store a network on the examples of a split."""
    if _is_imported(workspace, side):
        return f"import its activations on examples of the split {role} ({importing()} says how)"
    n_samples = _SAMPLES[role] if _is_large(workspace, side.run) else None
    network = Selection(side.run, side.checkpoint)
    if is_here(workspace, network):
        return f"run {extracting(workspace, network, split=role, samples=n_samples)}"
    return store_missing(workspace, network, split=role, samples=n_samples)


def _is_imported(workspace: Workspace, side: Selection) -> bool:
    return side.run not in workspace.runs() and side in workspace.stored_networks()


def _is_large(workspace: Workspace, run: str) -> bool:
    """Return whether a run is of a data set that has as many examples as are advised."""
    try:
        return run_record.read_record(workspace, run).config.dataset in _LARGE
    except AllcnnError:
        return False


def _check_apart(network: Selection, train: SampleSet, test: SampleSet) -> None:
    """Refuse to test on examples that were trained on: samples of a split are one shuffle's."""
    if (train.dataset, train.split) == (test.dataset, test.split):
        raise ProbeError(
            f"{train.name} and {test.name}, for {network}, are both of the split {test.split} of"
            f" {test.dataset}, and share examples; name sets of two splits with --train-set and"
            " --test-set"
        )


def _digest(side: Sequence[Representation]) -> str:
    return " and ".join(sorted({tap.meta.checkpoint_digest for tap in side}))


def _is_of_rows(workspace: Workspace, tap: Representation) -> bool:
    """Return whether the digest of a network stands for what is stored of it, as of imports."""
    key = tap.key
    if is_extracted(tap.meta.attributes):
        return False
    network = Store(workspace.activations).find(key.run, key.checkpoint, key.sample_set)
    return rows_digest(network) == tap.meta.checkpoint_digest


def _known_by(
    workspace: Workspace, network: Selection, sides: Mapping[Role, Sequence[Representation]]
) -> KnownBy:
    """Return what tells that both sets are of one network; raises ProbeError where they are not.

    Digests do, except for those that imports compute from the rows themselves, which differ between
    two sets of examples: then the name, the checkpoint, the taps and their shapes have to do.
    """
    taps = itertools.chain(*sides.values())
    stale = left_behind(workspace, list(map(activations_alone, taps)))
    if stale:
        raise ProbeError(next(iter(stale.values())))
    digests = {role: _digest(side) for role, side in sides.items()}
    if len(set(digests.values())) == 1:
        return "digest"
    if any(_is_of_rows(workspace, side[0]) for side in sides.values()):
        return "name"
    sets = {role: side[0].meta.sample_set for role, side in sides.items()}
    named = " and ".join(f"{digests[role]} on {sets[role].name}" for role in digests)
    raise ProbeError(
        f"the activations of {network} are of several checkpoints: {named};"
        f" {_to_agree(workspace, network, sides)}"
    )


def _to_agree(
    workspace: Workspace, network: Selection, sides: Mapping[Role, Sequence[Representation]]
) -> str:
    """Say how to store both sets of one network, where one of them is of another."""
    taps = [tap for side in sides.values() for tap in side]
    if not (is_here(workspace, network) and all(is_extracted(t.meta.attributes) for t in taps)):
        return "store those of different networks under different names"
    now = load_source(workspace, network.run, network.checkpoint).digest
    other = next(role for role, side in sides.items() if _digest(side) != now)
    sample_set = sides[other][0].meta.sample_set
    return replace_stored(workspace, network, sample_set.name, examples_of(sample_set))


def _check_fits(network: Selection, taps: Sequence[Tap], pool: Pool) -> None:
    """Raise ProbeError where what training needs of all examples would not fit here."""
    train = taps[0].train.meta.sample_set
    n = train.n_samples
    needed = 4 * _COPIES * n * max(count_columns(n, tap.count_features(pool)) for tap in taps)
    if needed > (there := memory_bytes()):
        raise ProbeError(
            f"to train on the {train.n_samples} examples of {train.name}, for {network}, would take"
            f" {needed / 1e9:.0f} GB here, and there are {there / 1e9:.0f}; name a smaller set with"
            " --train-set"
        )


def _check_same_taps(
    workspace: Workspace,
    network: Selection,
    train: Sequence[Representation],
    test: Sequence[Representation],
) -> None:
    first, second = ({tap.key.tap: tap.meta.shape for tap in side} for side in (train, test))
    odd = sorted(name for name in {*first, *second} if first.get(name) != second.get(name))
    if odd:
        same = [f"{network}:{name}" for name in first if name not in odd]
        some = command(workspace.root, "probe", *same[:1])
        probes = f"{some} probes one that both have" if same else "store the same taps on both"
        raise ProbeError(
            f"tap {odd[0]} of {network} has the shape {first.get(odd[0])} on"
            f" {train[0].key.sample_set} and {second.get(odd[0])} on {test[0].key.sample_set};"
            f" {probes}"
        )


def _classes(network: Selection, tap: Tap) -> tuple[int, ...]:
    """Return the classes of the training examples, having checked that they suffice."""
    there, asked = (np.unique(side.labels) for side in (tap.train, tap.test))
    for labels, side in ((there, tap.train), (asked, tap.test)):
        if NO_LABEL in labels:
            raise ProbeError(
                f"examples of {side.key.sample_set} have no labels, and {network} is probed by"
                " them; store them with labels"
            )
    train_set, test_set = tap.train.meta.sample_set, tap.test.meta.sample_set
    if len(there) < 2:
        raise ProbeError(
            f"all {train_set.n_samples} examples of {train_set.name} have the label {there[0]}, and"
            " a classifier needs two classes; store more of them"
        )
    unknown = np.setdiff1d(asked, there)
    if len(unknown):
        raise ProbeError(
            f"{test_set.name} has examples of label {unknown[0]}, and {train_set.name} has none to"
            " learn it from; store more training examples"
        )
    if np.unique(tap.train.labels, return_counts=True)[1].max() < FOLDS:
        raise ProbeError(
            f"{train_set.name} has {train_set.n_samples} examples, and of no class"
            f" {FOLDS}, of which one could be held out to choose the penalty; store more"
        )
    return tuple(int(label) for label in there)
