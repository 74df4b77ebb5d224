"""Repair what a look through the stores of a workspace found damaged, where that can be done."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby

from allcnn.errors import RunError
from allcnn.maintenance.repair_networks import NetworkRepair, Outcome
from allcnn.maintenance.rerun_commands import command_for, probe_command
from allcnn.progress import Report, silent
from allcnn.workspace.paths import Workspace
from store import StoreError
from store.maintenance.damage import FOLDER, MISSING, Damage
from store.maintenance.remove import remove
from store.maintenance.restore_folders import restore_folder
from store.maintenance.usage import DEPTHS, Usage
from store.storage.paths import Place, as_place
from store.zarrfiles.layout import Kind
from store.zarrfiles.metadata_files import NODE


def repair(
    workspace: Workspace, damage: Sequence[Damage], report: Report = silent
) -> list[Outcome]:
    """Repair what can be repaired, and return what became of each damage.

    Damaged minibatches are computed again from the run's checkpoint, and no others; a group whose
    metadata or coordinates are damaged is made again. Grams come from activations that are whole,
    else from the checkpoint. Damaged results are removed where a command computes them again. Where
    the checkpoint is gone, or has become another, all stays as it was.
    """
    work = _Repair(workspace, report)
    # Without the folders nothing below them is found.
    found = [*work.folders(damage), *work.networks(damage)]
    found += work.results(damage, [each.damage.path for each in found if not each.repaired])
    found += work.probes(damage)
    order = {each: index for index, each in enumerate(damage)}
    return sorted(found, key=lambda outcome: order[outcome.damage])


class _Repair:
    def __init__(self, workspace: Workspace, report: Report) -> None:
        self._workspace = workspace
        self._report = report
        self._stores: dict[Kind, Place] = {
            "activations": as_place(workspace.activations),
            "grams": as_place(workspace.grams),
            "similarity": as_place(workspace.similarity),
            "probes": as_place(workspace.probes),
        }

    def folders(self, damage: Sequence[Damage]) -> Iterator[Outcome]:
        """Write the metadata of roots, and of folders above representations, again."""
        for each in damage:
            place = self._stores[each.kind] / each.path
            if each.part == FOLDER:
                yield Outcome(each, False, f"move {place} away, or delete it")
            elif each.part == MISSING and _is_above(each):
                yield Outcome(each, False, "extract or import it again")
            elif _is_above(each):
                step = partial(restore_folder, self._stores[each.kind], each.kind, each.path)
                yield _tried(each, "written again", step)

    def networks(self, damage: Sequence[Damage]) -> Iterator[Outcome]:
        """Compute activations and Grams again, one network in memory at a time."""
        data = [each for kind in ("activations", "grams") for each in _data_of(damage, kind)]
        for path, members in _grouped(data, 3):
            network = NetworkRepair(self._workspace, path, self._report)
            yield from network.repair(_data_of(members, "activations"))
            # Once the activations are whole, from which they come.
            yield from network.repair(_data_of(members, "grams"))

    def results(self, damage: Sequence[Damage], unrepaired: Sequence[str]) -> Iterator[Outcome]:
        """Remove damaged results that a command computes again exactly: that costs little."""
        for name, members in _grouped(_data_of(damage, "similarity"), 1):
            try:
                command = command_for(self._workspace, name, unrepaired)
            except RunError as error:
                yield from [Outcome(each, False, str(error)) for each in members]
                continue
            found = Usage("similarity", name, frozenset({NODE}), 0, 0, 0.0)
            step = partial(remove, self._stores["similarity"], found)
            for each in members:
                yield _tried(each, f"removed; {command} computes it again", step)

    def probes(self, damage: Sequence[Damage]) -> Iterator[Outcome]:
        """Say how damaged probes are computed again, which takes minutes: they stay until then."""
        for each in _data_of(damage, "probes"):
            try:
                said = f"{probe_command(self._workspace, each.path)} computes it again"
            except RunError as error:
                said = str(error)
            yield Outcome(each, False, said)


def _is_above(damage: Damage) -> bool:
    """Return whether a damage is of a folder above representations, Grams or results."""
    return len(damage.path.split("/")) < DEPTHS[damage.kind] or not damage.path


def _data_of(damage: Sequence[Damage], kind: Kind) -> list[Damage]:
    ours = [each for each in damage if each.kind == kind and each.part != FOLDER]
    return sorted((each for each in ours if not _is_above(each)), key=lambda each: each.path)


def _grouped(damage: Sequence[Damage], depth: int) -> list[tuple[str, list[Damage]]]:
    """Group by the first components of the path."""

    def first(each: Damage) -> str:
        return "/".join(each.path.split("/")[:depth])

    return [(path, list(of)) for path, of in groupby(sorted(damage, key=first), first)]


def _tried(damage: Damage, said: str, step: Callable[[], None]) -> Outcome:
    try:
        step()
    except (StoreError, OSError) as error:
        return Outcome(damage, False, str(error))
    return Outcome(damage, True, said)
