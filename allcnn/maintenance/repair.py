"""Repair what a look through a workspace found damaged, where that can be done."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from allcnn.errors import AllcnnError, RunError
from allcnn.maintenance.findings import Outcome, RunDamage
from allcnn.maintenance.repair_networks import NetworkRepair
from allcnn.maintenance.rerun_commands import command_for, probe_command
from allcnn.maintenance.verify_runs import CONFIG, HISTORY
from allcnn.progress import Report, silent
from allcnn.workspace import run_record
from allcnn.workspace.paths import Workspace
from allcnn.workspace.sealed_json import is_sealed, read_sealed
from store import StoreError
from store.maintenance.damage import FOLDER, MISSING, Damage
from store.maintenance.expected_metadata import restore_folder
from store.maintenance.remove import remove_record
from store.maintenance.usage import DEPTHS
from store.storage.paths import is_file


def repair(
    workspace: Workspace, damage: Sequence[Damage], report: Report = silent
) -> list[Outcome]:
    """Repair what can be repaired, and return the outcome of each damage.

    Damaged minibatches are computed again from the run's checkpoint, and no others; a group whose
    metadata or coordinates are damaged is made again. Grams come from activations that are whole,
    else from the checkpoint. Damaged results are removed where a command computes them again. Where
    the checkpoint is gone, or has become another, all stays as it was.
    """
    above = [each for each in damage if each.part == FOLDER or _is_above(each)]
    data = {kind: [e for e in damage if e.kind == kind and e not in above] for kind in DEPTHS}
    # Without the folders nothing below them is found.
    found = [_folder(workspace, each) for each in above]
    for path, members in _grouped([*data["activations"], *data["grams"]], 3):
        network = NetworkRepair(workspace, path, report)
        # Grams once the activations are whole, from which they come.
        for kind in ("activations", "grams"):
            found += network.repair([each for each in members if each.kind == kind])
    left = [each.damage.path for each in found if not each.repaired]
    for name, members in _grouped(data["similarity"], 1):
        found += _result(workspace, name, members, left)
    found += [_probe(workspace, each) for each in data["probes"]]
    outcomes: dict[object, Outcome] = {each.damage: each for each in found}
    return [outcomes[each] for each in damage]


def repair_run(workspace: Workspace, damage: RunDamage) -> Outcome:
    """Write a run's settings again from the copy beside its learning curves, or say what helps."""
    if damage.part == CONFIG and (entry := _copied(workspace, damage.path)) is not None:
        run_record.write_record(workspace, entry)
        return Outcome(damage, True, f"written again from {HISTORY}")
    place = workspace.run_folder(damage.path) / damage.part
    if damage.part in (CONFIG, HISTORY):
        return Outcome(damage, False, f"restore {place} from a copy, or train the run again")
    advice = (
        f"move {place} away; an export of the run brings it back when it is"
        " imported, and training goes on from the last checkpoint that is left"
    )
    return Outcome(damage, False, advice)


def _copied(workspace: Workspace, run: str) -> run_record.RunRecord | None:
    """Return the settings that are kept with learning curves, None where they are not whole."""
    path = workspace.run_folder(run) / HISTORY
    try:
        if not (is_file(path) and is_sealed(path)):
            return None
        entry = run_record.record_in(path, read_sealed(path))
    except AllcnnError:
        return None
    return entry if entry.config.name == run else None


def _folder(workspace: Workspace, damage: Damage) -> Outcome:
    """Write the metadata of a root, or of a folder above representations, again."""
    root = workspace.store(damage.kind)
    if damage.part == FOLDER:
        return Outcome(damage, False, f"move {root / damage.path} away, or delete it")
    if damage.part == MISSING:
        return Outcome(damage, False, "extract or import it again")
    try:
        restore_folder(root, damage.kind, damage.path)
    except (StoreError, OSError) as error:
        return Outcome(damage, False, str(error))
    return Outcome(damage, True, "written again")


def _result(
    workspace: Workspace, name: str, damage: Sequence[Damage], left: Sequence[str]
) -> Iterator[Outcome]:
    """Remove a damaged result if a command computes it again exactly: that costs little."""
    repaired = False
    try:
        said = f"removed; {command_for(workspace, name, left)} computes it again"
        remove_record(workspace.similarity, name)
        repaired = True
    except (RunError, StoreError, OSError) as error:
        said = str(error)
    yield from (Outcome(each, repaired, said) for each in damage)


def _probe(workspace: Workspace, damage: Damage) -> Outcome:
    """Say how a damaged probe is computed again, which takes minutes: it stays until then."""
    try:
        said = f"{probe_command(workspace, damage.path)} computes it again"
    except RunError as error:
        said = str(error)
    return Outcome(damage, False, said)


def _is_above(damage: Damage) -> bool:
    """Return whether a damage is of a folder above representations, Grams or results."""
    return not damage.path or len(damage.path.split("/")) < DEPTHS[damage.kind]


def _grouped(damage: Sequence[Damage], depth: int) -> list[tuple[str, list[Damage]]]:
    """Group what is sorted by path by the first components of it."""

    def first(each: Damage) -> str:
        return "/".join(each.path.split("/")[:depth])

    ordered = sorted(damage, key=lambda each: each.path)
    return [(path, list(some)) for path, some in groupby(ordered, first)]
