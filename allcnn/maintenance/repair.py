"""Mend what a look through the stores of a workspace found damaged, where that can be done."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

from allcnn.errors import RunError
from allcnn.maintenance import rerun_probe as probes
from allcnn.maintenance.recompute import Network
from allcnn.maintenance.repair_activations import RowsAgain
from allcnn.maintenance.repair_grams import GramsAgain
from allcnn.maintenance.rerun_commands import command_for
from allcnn.maintenance.rewriter import Rewriting
from allcnn.progress import Report, silent
from allcnn.workspace.paths import Workspace
from store import StoreError
from store.maintenance.damage import FOLDER, MISSING, Damage
from store.maintenance.remove import remove
from store.maintenance.restore_folders import mend_folder
from store.maintenance.usage import Usage
from store.storage.paths import Place, as_place
from store.zarrfiles.layout import Kind
from store.zarrfiles.metadata_files import NODE

_DEPTH: dict[Kind, int] = {"activations": 4, "grams": 5, "similarity": 1, "probes": 1}


@dataclass(frozen=True)
class Outcome:
    """What became of one damage.

    Attributes:
        damage: as it was found.
        repaired: whether it is gone.
        said: how, or else why not and what to do.
    """

    damage: Damage
    repaired: bool
    said: str


def repair(
    workspace: Workspace, damage: Sequence[Damage], report: Report = silent
) -> list[Outcome]:
    """Mend what can be mended, and return what became of each damage.

    Damaged minibatches are computed again from the run's checkpoint, and no others; a group whose
    metadata or coordinates are damaged is made anew. Grams come from activations that are whole,
    else from the checkpoint. Damaged results are removed where a command computes them again. Where
    the checkpoint is gone, or has become another, all stays as it was.
    """
    work = _Repair(workspace, report)
    # Without the folders nothing below them is found, and Grams come from activations.
    found = [outcome for stage in (work.folders, work.networks) for outcome in stage(damage)]
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
                yield _tried(each, "written again", partial(self._mend, each))

    def _mend(self, damage: Damage) -> None:
        mend_folder(self._stores[damage.kind], damage.kind, damage.path)

    def networks(self, damage: Sequence[Damage]) -> Iterator[Outcome]:
        """Compute what is damaged again, one network in memory at a time."""
        data = _data_of(damage, "activations"), _data_of(damage, "grams")
        for path, members in _grouped([*data[0], *data[1]], 3):
            network = Network(self._workspace, *path.split("/"))
            root, grams = self._stores["activations"], self._stores["grams"]
            yield from self._rewritten(
                [RowsAgain(root, network, each) for each in _groups(members, "activations")]
            )
            # Planned once the activations are whole, from which they come.
            yield from self._rewritten(
                [GramsAgain(grams, network, each, root) for each in _groups(members, "grams")]
            )

    def results(self, damage: Sequence[Damage], unmended: Sequence[str]) -> Iterator[Outcome]:
        """Remove damaged results that a command computes again exactly: that costs little."""
        for name, members in _grouped(_data_of(damage, "similarity"), 1):
            try:
                command = command_for(self._workspace, name, unmended)
            except RunError as error:
                yield from [Outcome(each, False, str(error)) for each in members]
                continue
            for each in members:
                said = f"removed; {command} computes it again"
                yield _tried(each, said, partial(self._remove, name))

    def probes(self, damage: Sequence[Damage]) -> Iterator[Outcome]:
        """Say how damaged probes are computed again, which takes minutes: they stay until then."""
        for name, members in _grouped(_data_of(damage, "probes"), 1):
            try:
                said = f"{probes.command_for(self._workspace, name)} computes it again"
            except RunError as error:
                said = str(error)
            yield from [Outcome(each, False, said) for each in members]

    def _remove(self, name: str) -> None:
        found = Usage("similarity", name, frozenset({NODE}), 0, 0, 0.0)
        remove(self._stores["similarity"], found)

    def _rewritten(self, pieces: Sequence[Rewriting]) -> Iterator[Outcome]:
        blocks = sorted({block for piece in pieces for block in piece.blocks})
        for done, block in enumerate(blocks):
            self._report(done, len(blocks), pieces[0].title)
            # A minibatch that several taps lack is computed once.
            for piece in pieces:
                piece.compute(block)
        for piece in pieces:
            piece.finish()
            for each in piece.damage:
                yield Outcome(each, piece.error is None, piece.error or piece.said)


def _is_above(damage: Damage) -> bool:
    """Return whether a damage is of a folder above representations, Grams or results."""
    return len(damage.path.split("/")) < _DEPTH[damage.kind] or not damage.path


def _data_of(damage: Sequence[Damage], kind: Kind) -> list[Damage]:
    ours = [each for each in damage if each.kind == kind and each.part != FOLDER]
    return [each for each in ours if not _is_above(each)]


def _groups(damage: Sequence[Damage], kind: Kind) -> list[list[Damage]]:
    """Return the damage of each damaged group of a store."""
    return [of for _, of in _grouped(_data_of(damage, kind), _DEPTH[kind])]


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
