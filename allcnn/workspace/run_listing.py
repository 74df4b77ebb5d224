"""The runs of a workspace: what each of them has, and removing one."""

from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from allcnn.errors import AllcnnError, RunError, WorkspaceError
from allcnn.workspace import run_record
from allcnn.workspace.checkpoint_digests import kept_digests
from allcnn.workspace.paths import Workspace
from allcnn.workspace.run_record import Epoch
from store.errors import StoreError
from store.storage.paths import Place, entry_names, remove_tree, walk_files
from store.storage.remote_errors import reaching

_REMOVED: Final = ".removed-"
"""Before a run's name, where it is being removed: no run has such a name."""


@dataclass(frozen=True)
class Run:
    """What a run is and how far it is.

    ``test_accuracy`` is that of the last epoch, None before the first; ``n_bytes`` counts all
    files of its folder; ``created_at`` is empty where nothing tells.
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
    """All that a run says of itself."""

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
    """What would go with a run: its folder, and what an interrupted removal left of it."""

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
    folder = workspace.checkpoints_folder(run)
    checkpoints = []
    for name in workspace.checkpoints(run):
        n_files, n_bytes = _measured(folder / name)
        kept = kept_digests(folder / name)
        checkpoints.append(Checkpoint(name, n_files, n_bytes, kept))
    return Description(
        summary=_summary(workspace, run),
        settings=entry.config.to_json(),
        class_names=entry.class_names,
        input_channels=entry.input_channels,
        history=run_record.read_history(workspace, run),
        checkpoints=tuple(checkpoints),
    )


def find_removable(workspace: Workspace, run: str) -> Removable:
    """Return what would go with a run; RunError where there is nothing of that name.

    A folder that is no run, without its config.json, is taken too. Raises WorkspaceError for a
    symbolic link in its place.
    """
    folder = workspace.run_folder(run)
    if isinstance(folder, Path) and folder.is_symlink():
        raise WorkspaceError(f"{folder} is a symbolic link", remedy="delete the link itself")
    places = [folder, folder.with_name(_trash(run))]
    if not any(map(_is_there, places)):
        workspace.find_run(run)  # names those that there are
    sizes = [_measured(place) for place in places]
    return Removable(
        run,
        run in workspace.runs(),
        tuple(workspace.checkpoints(run)),
        sum(n_files for n_files, _ in sizes),
        sum(n_bytes for _, n_bytes in sizes),
    )


def remove_run(workspace: Workspace, run: str) -> None:
    """Remove a run; a kill leaves the run, or what is none and goes with the next removal."""
    folder = workspace.run_folder(run)
    if not isinstance(folder, Path):
        with reaching(folder), suppress(FileNotFoundError):
            folder.fs.rm_file((folder / "config.json").path)
        remove_tree(folder)
        return
    trash = folder.with_name(_trash(run))
    remove_tree(trash)
    if folder.is_dir():
        folder.rename(trash)
    remove_tree(trash)


def _summary(workspace: Workspace, run: str) -> Run:
    entry = run_record.read_record(workspace, run)
    history = run_record.read_history(workspace, run)
    if entry.config.name != run:
        raise RunError(
            f"the config.json of run {run!r} is of a run {entry.config.name!r}",
            remedy="restore it, or give the folder that name",
        )
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


def _trash(run: str) -> str:
    return f"{_REMOVED}{run}"


def _is_there(place: Place) -> bool:
    return place.is_dir() if isinstance(place, Path) else bool(entry_names(place))


def _measured(place: Place) -> tuple[int, int]:
    """Return how many files are below a place, and their bytes."""
    sizes = [n_bytes for _, n_bytes, _ in walk_files(place)]
    return len(sizes), sum(sizes)
