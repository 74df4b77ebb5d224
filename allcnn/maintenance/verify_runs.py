"""Look the runs of a workspace through for damage: records, learning curves and checkpoints."""

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

import jax

from allcnn.errors import AllcnnError, RunError
from allcnn.networks.variables import abstract
from allcnn.training.recipe import recipe_of
from allcnn.workspace import checkpoints as checkpoint
from allcnn.workspace import run_record
from allcnn.workspace.checkpoints import Position, TrainState
from allcnn.workspace.paths import Workspace
from allcnn.workspace.run_record import RunRecord
from allcnn.workspace.run_validation import check_epochs
from allcnn.workspace.sealed_json import is_sealed
from store.errors import ExplainedError
from store.storage.paths import Place, child_names, entry_names, is_file, walk_files

CONFIG: Final = "config.json"
HISTORY: Final = "history.json"


@dataclass(frozen=True)
class RunDamage:
    """One file of a run, or one checkpoint, that is not what was written.

    Attributes:
        run: whose it is.
        part: its path below the run's folder.
        reason: what was found.
    """

    run: str
    part: str
    reason: str

    def __str__(self) -> str:
        return f"{self.part} of run {self.run} is damaged ({self.reason})"


@dataclass(frozen=True)
class CheckedRun:
    """A run that was looked through.

    Attributes:
        run: its name.
        damage: all that was found; where its settings are damaged, nothing else can be read.
        unsealed: files that an earlier version wrote, of which only the form was checked.
        n_bytes: of its files.
    """

    run: str
    damage: tuple[RunDamage, ...]
    unsealed: tuple[str, ...]
    n_bytes: int


def examine_runs(workspace: Workspace, run: str = "*", name: str = "*") -> Iterator[CheckedRun]:
    """Look through the runs, and the checkpoints of them, whose names fit shell patterns."""
    folder = workspace.root / "runs"
    for each in child_names(folder):
        if fnmatchcase(each, run) and _is_begun(folder / each):
            damage = tuple(_damage(workspace, each, name))
            n_bytes = sum(n for _, n, _ in walk_files(folder / each))
            yield CheckedRun(each, damage, tuple(_unsealed(folder / each, damage)), n_bytes)


def taps_of(workspace: Workspace, run: str) -> tuple[str, ...]:
    """Return the taps of a run's network; none where there is no such run, or it cannot be read."""
    try:
        return tuple(run_record.read_record(workspace, run).network.taps)
    except AllcnnError:
        return ()


def _is_begun(folder: Place) -> bool:
    """Return whether a folder holds anything of a run: training begins with its settings."""
    return bool({CONFIG, HISTORY, "checkpoints"} & set(entry_names(folder)))


def _damage(workspace: Workspace, run: str, pattern: str) -> Iterator[RunDamage]:
    try:
        entry = run_record.read_record(workspace, run)
        if entry.config.name != run:
            raise RunError(f"it is of a run {entry.config.name!r}")
    except AllcnnError as error:
        missing = not is_file(workspace.run_folder(run) / CONFIG)
        yield RunDamage(run, CONFIG, "it is missing" if missing else _finding(error))
        return
    names = workspace.checkpoints(run)
    yield from _of_history(workspace, entry, names)
    for name in names:
        if fnmatchcase(name, pattern):
            yield from _of_checkpoint(workspace, entry, name)


def _of_history(
    workspace: Workspace, entry: RunRecord, checkpoints: list[str]
) -> Iterator[RunDamage]:
    try:
        history = run_record.read_history(workspace, entry.config.name)
        for name in checkpoints:
            check_epochs(entry, history, name)
    except AllcnnError as error:
        yield RunDamage(entry.config.name, HISTORY, _finding(error))


def _of_checkpoint(workspace: Workspace, entry: RunRecord, name: str) -> Iterator[RunDamage]:
    run = entry.config.name
    try:
        checkpoint.load(workspace.checkpoints_folder(run) / name, _like(entry))
    except AllcnnError as error:
        yield RunDamage(run, f"checkpoints/{name}", _finding(error))


def _like(entry: RunRecord) -> TrainState:
    """Return the shapes of what a checkpoint holds; nothing is computed."""
    variables = abstract(entry.network)
    optimiser = jax.eval_shape(
        recipe_of(entry.config).optimiser(entry.config, 1).init, variables.params
    )
    position: Any = jax.eval_shape(lambda: Position.first(jax.random.key(0)))
    return TrainState(variables, optimiser, position)


def _unsealed(folder: Place, damage: tuple[RunDamage, ...]) -> Iterator[str]:
    damaged = {each.part for each in damage}
    for name in (CONFIG, HISTORY):
        if name not in damaged and is_file(folder / name) and not is_sealed(folder / name):
            yield name


def _finding(error: Exception) -> str:
    return error.finding if isinstance(error, ExplainedError) else str(error)
