"""Mend what a look through the stores of a workspace found damaged, where that can be done."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

from allcnn.progress import Report, silent
from allcnn.repair.grams import GramsAgain
from allcnn.repair.network import Network
from allcnn.repair.rewriting import Rewriting
from allcnn.repair.rows import RowsAgain
from allcnn.workspace import Workspace
from store import GramMeta, StoreError
from store.damage import FOLDER, Damage
from store.examine import opened
from store.layout import Kind
from store.mend import mend_folder
from store.nodes import NODE, read_attributes
from store.place import Place, as_place, child_names
from store.results import RESULT
from store.tidy import remove
from store.usage import Usage

_DEPTH: dict[Kind, int] = {"activations": 4, "grams": 5, "similarity": 1}
_SIDES = ("rows", "columns")


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
    else from the checkpoint. Damaged results are removed where the same
    numbers can be had again. Where the checkpoint is gone, or has
    become another, all stays as it was.
    """
    work = _Repair(workspace, report)
    # Without the folders nothing below them is found, and Grams come from activations.
    stages = (work.folders, work.networks, work.results)
    found = [outcome for stage in stages for outcome in stage(damage)]
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
        }

    def folders(self, damage: Sequence[Damage]) -> Iterator[Outcome]:
        """Write the metadata of roots, and of folders above representations, again."""
        for each in damage:
            place = self._stores[each.kind] / each.path
            if each.part == FOLDER:
                yield Outcome(each, False, f"move {place} away, or delete it")
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

    def results(self, damage: Sequence[Damage]) -> Iterator[Outcome]:
        """Remove damaged results that can be computed again: that costs little."""
        for name, members in _grouped(_data_of(damage, "similarity"), 1):
            record = _record(self._stores["similarity"] / name)
            reason = self._reason_to_keep(name, record)
            said = f"removed; {_command(record)} computes it again"
            for each in members:
                if reason is None:
                    yield _tried(each, said, partial(self._remove, name))
                else:
                    yield Outcome(each, False, reason)

    def _reason_to_keep(self, name: str, record: Mapping[str, Any]) -> str | None:
        """Return why the numbers of a result could not be had again, None where they could."""
        if not record:
            return "nothing tells what it came from; delete it once it is computed again"
        if record.get("name") != name:
            return f"rename the folder to {record.get('name')}, which is the result that it holds"
        lost = self._lost(record)
        if lost is not None:
            return f"{lost} is stored no more, from which it came"
        other = self._other(record)
        if other is not None:
            return f"{other} is stored of another checkpoint than that from which it came"
        return None

    def _other(self, record: Mapping[str, Any]) -> str | None:
        """Return a representation that is not known to be stored of the same checkpoint."""
        provenance = record.get("provenance") or {}
        for side in _SIDES:
            recorded = provenance.get("checkpoint_digests", {}).get(side, {})
            for key in record.get(side, ()):
                digest = recorded.get("@".join(key.split("/")[1:3]))
                if self._digests(key) != {digest}:
                    return str(key)
        return None

    def _digests(self, key: str) -> set[str]:
        """Return the digests of the checkpoints of which a representation is stored."""
        rows, grams = self._stores["activations"], self._stores["grams"]
        found = [opened(rows, "activations", key)]
        found += [opened(grams, "grams", f"{key}/{each}") for each in child_names(grams / key)]
        metas = [each.meta for each in found if not isinstance(each, str)]
        return {
            meta.key.checkpoint_digest if isinstance(meta, GramMeta) else meta.checkpoint_digest
            for meta in metas
        }

    def _remove(self, name: str) -> None:
        found = Usage("similarity", name, frozenset({NODE}), 0, 0, 0.0)
        remove(self._stores["similarity"], found)

    def _lost(self, record: Mapping[str, Any]) -> str | None:
        """Return a representation of a result of which nothing is stored any more."""
        stores = (self._stores["activations"], self._stores["grams"])
        keys = [key for side in _SIDES for key in record.get(side, ())]
        return next((key for key in keys if not any((s / key).is_dir() for s in stores)), None)

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


def _record(folder: Place) -> Mapping[str, Any]:
    """Return what a result says of itself, as far as that can be read."""
    try:
        found = (read_attributes(folder) or {}).get(RESULT)
    except StoreError:
        return {}
    return found if isinstance(found, dict) else {}


def _command(record: Mapping[str, Any]) -> str:
    """Return the command that computes a result, as far as that can be told."""
    sides = [sorted({"@".join(key.split("/")[1:3]) for key in record.get(s, ())}) for s in _SIDES]
    if not all(sides):
        return "the comparison that wrote it"
    names = ("kernel", "sigma", "estimator", "batch_size", "pool", "label")
    known = {name: record.get(name) for name in names}
    if known["estimator"] == "exact":
        known["batch_size"] = None
    flags = [f"--{n.replace('_', '-')} {v}" for n, v in known.items() if v is not None]
    if all(len(side) == 1 for side in sides):
        return " ".join(["'allcnn compare", *sides[0], *sides[1], *flags]) + "'"
    return f"'allcnn matrix' of the same networks with {' '.join(flags)}"
