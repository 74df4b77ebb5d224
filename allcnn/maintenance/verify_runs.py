"""Look through the runs of a workspace for damage: records, learning curves and checkpoints."""

from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any, Final

import jax

from allcnn.errors import AllcnnError, RunError
from allcnn.maintenance.findings import CheckedRun, RunDamage
from allcnn.networks.variables import abstract
from allcnn.training.recipe import recipe_of
from allcnn.workspace import checkpoints as checkpoint
from allcnn.workspace import run_record
from allcnn.workspace.checkpoints import Position, TrainState
from allcnn.workspace.paths import Workspace
from allcnn.workspace.run_export import check_epochs
from allcnn.workspace.run_record import RunRecord
from allcnn.workspace.sealed_json import is_sealed
from store.storage.paths import child_names, entry_names, is_file, walk_files

CONFIG: Final = "config.json"
HISTORY: Final = "history.json"


def examine_runs(workspace: Workspace, run: str = "*", name: str = "*") -> Iterator[CheckedRun]:
    """Look through the runs, and the checkpoints of them, whose names fit shell patterns."""
    for each in child_names(workspace.root / "runs"):
        folder = workspace.root / "runs" / each
        # Training begins with a run's settings.
        is_begun = {CONFIG, HISTORY, "checkpoints"} & set(entry_names(folder))
        if fnmatchcase(each, run) and is_begun:
            damage = _damage(workspace, each, name)
            whole = [part for part in (CONFIG, HISTORY) if part not in {d.part for d in damage}]
            files = (part for part in whole if is_file(folder / part))
            unsealed = tuple(part for part in files if not is_sealed(folder / part))
            n_bytes = sum(n for _, n, _ in walk_files(folder))
            yield CheckedRun(each, tuple(damage), unsealed, n_bytes)


def taps_of(workspace: Workspace, run: str) -> tuple[str, ...]:
    """Return the taps of a run's network; none where there is no such run, or it cannot be read."""
    try:
        return tuple(run_record.read_record(workspace, run).network.taps)
    except AllcnnError:
        return ()


def _damage(workspace: Workspace, run: str, pattern: str) -> list[RunDamage]:
    damage: list[RunDamage] = []

    @contextmanager
    def reading(part: str) -> Iterator[None]:
        try:
            yield
        except AllcnnError as error:
            damage.append(RunDamage(run, part, error.finding))

    if not is_file(workspace.run_folder(run) / CONFIG):
        return [RunDamage(run, CONFIG, "it is missing")]
    with reading(CONFIG):
        entry = run_record.read_record(workspace, run)
        if entry.config.name != run:
            raise RunError(f"it is of a run {entry.config.name!r}")
    if damage:
        return damage
    names = workspace.checkpoints(run)
    with reading(HISTORY):
        history = run_record.read_history(workspace, run)
        for name in names:
            check_epochs(entry, history, name)
    for name in names:
        if fnmatchcase(name, pattern):
            with reading(f"checkpoints/{name}"):
                checkpoint.load(workspace.checkpoints_folder(run) / name, _like(entry))
    return damage


def _like(entry: RunRecord) -> TrainState:
    """Return the shapes of what a checkpoint holds; nothing is computed."""
    variables = abstract(entry.network)
    optimiser = jax.eval_shape(
        recipe_of(entry.config).optimiser(entry.config, 1).init, variables.params
    )
    position: Any = jax.eval_shape(lambda: Position.first(jax.random.key(0)))
    return TrainState(variables, optimiser, position)
