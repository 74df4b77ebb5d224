"""Write a run's settings again from the copy beside its learning curves; say what else helps."""

from allcnn.errors import AllcnnError
from allcnn.maintenance.verify_runs import CONFIG, HISTORY, RunDamage
from allcnn.workspace import run_record
from allcnn.workspace.paths import Workspace
from allcnn.workspace.sealed_json import is_sealed, read_sealed
from store.storage.paths import is_file


def repair_run(workspace: Workspace, damage: RunDamage) -> tuple[bool, str]:
    """Return whether a damage of a run was repaired, and how, or what to do."""
    if damage.part == CONFIG and (entry := _copied(workspace, damage.run)) is not None:
        run_record.write_record(workspace, entry)
        return True, f"written again from {HISTORY}"
    folder = workspace.run_folder(damage.run)
    if damage.part in (CONFIG, HISTORY):
        return False, f"restore {folder / damage.part} from a copy, or train the run again"
    return False, (
        f"move {folder / damage.part} away; an export of the run brings it back when it is"
        " imported, and training goes on from the last checkpoint that is left"
    )


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
