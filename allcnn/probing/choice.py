"""Which activations a probe is trained on, and which it is tested on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from allcnn import record
from allcnn.cluster.start import memory_bytes
from allcnn.compare.choice import left_behind
from allcnn.compare.reasons import advice, samples_flags
from allcnn.compare.sources import (
    Found,
    activations_alone,
    by_network,
    digests_of,
    find,
    missing_tap,
)
from allcnn.config import Pool, Probing, Selection
from allcnn.errors import AllcnnError, ProbeError
from allcnn.probe import FOLDS, count_columns
from allcnn.stages import checkpoint_order
from allcnn.workspace import Workspace
from store import Representation, SampleSet
from store.samples import NO_LABEL

Role = Literal["train", "test"]
"""Names of the splits that are taken where no sample set is named."""

_SAMPLES = {"train": 5000, "test": 10000}
"""Of which split how many examples are advised."""

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
    """The taps of one network, in its order, and the classes of the training examples."""

    network: Selection
    taps: tuple[Tap, ...]
    classes: tuple[int, ...]

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
            f" {_advice(workspace, job.networks, 'train')}, and again for the split test"
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
    _check_one_network(workspace, network, [*train, *test])
    by_name = {tap.key.tap: tap for tap in train}
    _check_same_taps(network, train, test)
    taps = tuple(Tap(by_name[tap.key.tap], tap) for tap in test)
    _check_fits(network, taps, job.pool)
    return Task(network, taps, _classes(network, taps[0]))


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
    whole = all(each.activations is not None and each.activations.complete for each in taps)
    return whole and missing_tap(taps, side) is None


def _why_not(
    workspace: Workspace,
    network: Selection,
    sets: dict[str, list[Found]],
    role: Role,
    wanted: str,
    name: str | None,
) -> str:
    if not sets:
        help_ = (
            f"'allcnn store ls --workspace {workspace.root}' lists what is stored"
            if name
            else _advice(workspace, network, role)
        )
        return f"no activations of {network} {wanted} are in {workspace.root}; {help_}"
    of, taps = next(iter(sets.items()))
    options = f"{samples_flags(taps[0].sample_set)} --keep activations"
    if all(each.activations is None for each in taps):
        again = advice(workspace, network, options)
        return f"of {network} on {of} Grams alone are kept, and probes need activations; {again}"
    some = next(each.activations for each in taps if each.activations is not None)
    options += f" --batch-size {some.meta.batch_rows} --dtype {some.meta.dtype}"
    again = advice(workspace, network, options)
    return f"the activations of {network} on {of} are not all there; {again}"


def _advice(workspace: Workspace, side: Selection, role: Role) -> str:
    network = side if side.is_network else Selection("RUN", "NAME")
    options = f" --split {role} --keep activations"
    if not _is_small(workspace, network.run):
        options += f" --samples {_SAMPLES[role]}"
    command = f"allcnn extract {network.run} --checkpoint {network.checkpoint}{options}"
    return f"run '{command} --workspace {workspace.root}'"


def _is_small(workspace: Workspace, run: str) -> bool:
    """Return whether a run is of examples that are fewer than is advised: all are taken then."""
    try:
        return record.read_record(workspace, run).config.dataset == "digits"
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


def _check_one_network(
    workspace: Workspace, network: Selection, taps: Sequence[Representation]
) -> None:
    digests = digests_of([Found(tap.key, tap, ()) for tap in taps])
    if len(digests) > 1:
        raise ProbeError(
            f"the activations of {network} on {taps[0].key.sample_set} and on"
            f" {taps[-1].key.sample_set} are of several checkpoints: {' and '.join(digests)};"
            f" remove them with 'allcnn store rm {network}', and extract both again"
        )
    stale = left_behind(workspace, list(map(activations_alone, taps)))
    if stale:
        raise ProbeError(next(iter(stale.values())))


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
    network: Selection, train: Sequence[Representation], test: Sequence[Representation]
) -> None:
    first, second = ({tap.key.tap: tap.meta.shape for tap in side} for side in (train, test))
    odd = sorted(name for name in {*first, *second} if first.get(name) != second.get(name))
    if odd:
        raise ProbeError(
            f"tap {odd[0]} of {network} has the shape {first.get(odd[0])} on"
            f" {train[0].key.sample_set} and {second.get(odd[0])} on {test[0].key.sample_set};"
            " extract both alike, or name the taps that both have"
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
            " a classifier needs two classes; extract more of them"
        )
    unknown = np.setdiff1d(asked, there)
    if len(unknown):
        raise ProbeError(
            f"{test_set.name} has examples of label {unknown[0]}, and {train_set.name} has none to"
            " learn it from; extract more training examples"
        )
    if np.unique(tap.train.labels, return_counts=True)[1].max() < FOLDS:
        raise ProbeError(
            f"{train_set.name} has {train_set.n_samples} examples, and of no class"
            f" {FOLDS}, of which one could be held out to choose the penalty; extract more"
        )
    return tuple(int(label) for label in there)
