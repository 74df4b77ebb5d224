"""List, describe and remove the runs of a workspace."""

from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from allcnn.errors import AllcnnError, RunError, WorkspaceError
from allcnn.workspace import run_record
from allcnn.workspace.paths import Workspace, kept_digests
from allcnn.workspace.run_record import Epoch
from store.errors import StoreError
from store.storage.paths import Place, entry_names, remove_tree, walk_files
from store.storage.remote_errors import reaching

_REMOVED: Final = ".removed-"
"""Before a run's name, where it is being removed: no run has such a name."""


@dataclass(frozen=True)
class Run:
    """A run in brief, and its progress.

    ``test_accuracy`` is that of the last epoch, None before the first; ``n_bytes`` counts all
    files of its folder; ``created_at`` is empty where it is not known.
    """

    run: str
    dataset: str
    epochs_done: int
    epochs: int
    finished: bool
    test_accuracy: float | None
    checkpoints: tuple[str, ...]
    n_bytes: int
    created_at: str


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint: its files, and the digests that are kept with it, by item."""

    checkpoint: str
    n_files: int
    n_bytes: int
    digests: dict[str, str]


@dataclass(frozen=True)
class Description:
    """All that a run's folder says about it."""

    summary: Run
    settings: dict[str, Any]
    class_names: tuple[str, ...]
    input_channels: int
    history: tuple[Epoch, ...]
    checkpoints: tuple[Checkpoint, ...]


@dataclass(frozen=True)
class Unreadable:
    """A run that cannot be read, and why."""

    run: str
    reason: str


@dataclass(frozen=True)
class Removable:
    """The parts of a run that its removal removes, files of an interrupted one among them."""

    run: str
    is_run: bool
    checkpoints: tuple[str, ...]
    n_files: int
    n_bytes: int


def list_runs(workspace: Workspace, pattern: str = "*") -> list[Run | Unreadable]:
    """Return the runs whose names fit a shell pattern, and those of them that cannot be read."""
    found: list[Run | Unreadable] = []
    for run in workspace.runs():
        if fnmatchcase(run, pattern):
            try:
                found.append(_summary(workspace, run))
            except (AllcnnError, StoreError, OSError) as error:
                found.append(Unreadable(run, str(error)))
    return found


def describe_run(workspace: Workspace, run: str) -> Description:
    """Return what is known of a run, without reading an array; raises RunError for damage."""
    entry = run_record.read_record(workspace, run)
    summary, folder = _summary(workspace, run), workspace.checkpoints_folder(run)
    checkpoints = (
        Checkpoint(name, *_measured(folder / name), kept_digests(folder / name))
        for name in summary.checkpoints
    )
    return Description(
        summary=summary,
        settings=entry.config.to_json(),
        class_names=entry.class_names,
        input_channels=entry.input_channels,
        history=run_record.read_history(workspace, run),
        checkpoints=tuple(checkpoints),
    )


def find_removable(workspace: Workspace, run: str) -> Removable:
    """Return what removing a run would remove; RunError where nothing has that name.

    A folder without a config.json, which is no run, is removed too. Raises WorkspaceError for a
    symbolic link in its place.
    """
    folder = workspace.run_folder(run)
    if isinstance(folder, Path) and folder.is_symlink():
        raise WorkspaceError(f"{folder} is a symbolic link", remedy="delete the link itself")
    places = [folder, folder.with_name(f"{_REMOVED}{run}")]
    # At an address there are no empty folders.
    if not any(p.is_dir() if isinstance(p, Path) else entry_names(p) for p in places):
        workspace.find_run(run)  # its error lists the runs
    n_files, n_bytes = map(sum, zip(*map(_measured, places), strict=True))
    checkpoints = tuple(workspace.checkpoints(run))
    return Removable(run, run in workspace.runs(), checkpoints, n_files, n_bytes)


def remove_run(workspace: Workspace, run: str) -> None:
    """Remove a run; killed, it leaves the run, or remains that the next removal removes."""
    folder = workspace.run_folder(run)
    if not isinstance(folder, Path):
        with reaching(folder), suppress(FileNotFoundError):
            folder.fs.rm_file((folder / "config.json").path)
        remove_tree(folder)
        return
    trash = folder.with_name(f"{_REMOVED}{run}")
    remove_tree(trash)
    if folder.is_dir():
        folder.rename(trash)
    remove_tree(trash)


def _summary(workspace: Workspace, run: str) -> Run:
    entry = run_record.read_record(workspace, run)
    history = run_record.read_history(workspace, run)
    if entry.config.name != run:
        found = f"is of a run {entry.config.name!r}"
        remedy = "restore it, or give the folder that name"
        raise RunError(f"the config.json of run {run!r}", found, remedy=remedy)
    checkpoints = tuple(workspace.checkpoints(run))
    return Run(
        run=run,
        dataset=entry.config.dataset,
        epochs_done=len(history),
        epochs=entry.config.epochs,
        finished="final" in checkpoints,
        test_accuracy=history[-1].test_accuracy if history else None,
        checkpoints=checkpoints,
        n_bytes=_measured(workspace.run_folder(run))[1],
        created_at=entry.created_at,
    )


def _measured(place: Place) -> tuple[int, int]:
    """Return how many files are below a place, and their bytes."""
    sizes = [n_bytes for _, n_bytes, _ in walk_files(place)]
    return len(sizes), sum(sizes)
