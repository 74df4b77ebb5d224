"""Take a run to a file and back: nothing counts before all of it was checked.

A file is unpacked beside the runs and read there as any run is; then its folders are renamed.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from allcnn.errors import AllcnnError, ArchiveError, RunError, WorkspaceError
from allcnn.workspace.paths import WHOLE, Workspace
from allcnn.workspace.remote_folders import brought, send
from allcnn.workspace.run_archive import Manifest, is_member, pack, unpack
from allcnn.workspace.run_record import History, RunRecord, check_same, read_history, read_record
from allcnn.workspace.run_validation import check_run
from store.errors import ExplainedError
from store.storage.file_lock import try_lock
from store.storage.paths import entry_names, make_folder, remove_tree, write_bytes

_DRAFT: Final = ".importing"
"""Where a file is unpacked, in the folder of runs: no run has such a name."""


class Imported(NamedTuple):
    """What an import found in a file, and which checkpoints it added: none that were there."""

    manifest: Manifest
    digests: Mapping[str, str]
    added: tuple[str, ...]


class _New(NamedTuple):
    """A run that was unpacked, with the digests of its checkpoints."""

    folder: Path
    entry: RunRecord
    history: History
    digests: Mapping[str, str]


def export_run(
    workspace: Workspace, run: str, file: Path, checkpoints: Sequence[str] = ()
) -> Manifest:
    """Write a run and some of its checkpoints, ``final`` where none is named, to one local file.

    Replaces a file of that name. Raises RunError where the run or a checkpoint is not there or
    cannot be read, or none is named and the run is not finished.
    """
    names = _chosen(workspace, run, checkpoints)
    entry, history = read_record(workspace, run), read_history(workspace, run)
    with brought(workspace.find_run(run), partial(is_member, checkpoints=names)) as folder:
        check_run(entry, history, folder / "checkpoints", names)
        return pack(file, run, folder, names)


def import_run(
    workspace: Workspace,
    file: Path,
    check: Callable[[str, Mapping[str, str]], object] = lambda *_: None,
) -> Imported:
    """Add the run in a file to a workspace; where it is already, the checkpoints that are missing.

    ``check`` is given the run and its checkpoints' digests before anything is added, and may raise.
    Raises ArchiveError for a file that is damaged, or is no run that this version can use;
    RunError where another run of that name is there.
    """
    try:
        with _drafting(workspace) as draft:
            manifest = unpack(file, draft / "runs")
            new = _read(file, draft, manifest.run)
            check(manifest.run, new.digests)
            return Imported(manifest, new.digests, _add(workspace, new))
    except OSError as error:
        if isinstance(error, ExplainedError):
            raise
        raise WorkspaceError(
            f"{file} cannot be unpacked in {workspace.root} ({error.strerror or error})",
            remedy="fix that, and import it again",
        ) from error


def _chosen(workspace: Workspace, run: str, checkpoints: Sequence[str]) -> list[str]:
    workspace.find_run(run)
    known = workspace.checkpoints(run)
    if not known:
        raise RunError(f"run {run!r} has no checkpoints yet", remedy="train it first")
    if not checkpoints and "final" not in known:
        remedy = "name a checkpoint with --checkpoint, or take --all"
        raise RunError(f"run {run!r} is not finished", remedy=remedy)
    for name in checkpoints:
        workspace.find_checkpoint(run, name)
    return [name for name in known if name in (checkpoints or ("final",))]


@contextmanager
def _drafting(workspace: Workspace) -> Iterator[Path]:
    """Yield a folder of which nothing is left; beside the runs, if these are local."""
    runs = workspace.root / "runs"
    with ExitStack() as stack:
        if not isinstance(runs, Path):
            yield Path(stack.enter_context(TemporaryDirectory(prefix="allcnn-")))
            return
        make_folder(runs)
        descriptor = os.open(runs, os.O_RDONLY)
        stack.callback(os.close, descriptor)
        if try_lock(descriptor) is False:
            remedy = "wait for it, and import again"
            raise WorkspaceError(f"another import is at work in {runs}", remedy=remedy)
        remove_tree(runs / _DRAFT)  # a killed import may have left something in it
        stack.callback(remove_tree, runs / _DRAFT)
        yield runs / _DRAFT


def _read(file: Path, draft: Path, run: str) -> _New:
    """Return the run in a draft; raises ArchiveError where this version cannot use it."""
    place, folder = Workspace(draft), draft / "runs" / run
    try:
        entry, history = read_record(place, run), read_history(place, run)
        if entry.config.name != run:
            raise RunError(f"its config.json is of a run {entry.config.name!r}, not {run!r}")
        digests = check_run(entry, history, folder / "checkpoints", place.checkpoints(run))
        if not digests:
            raise RunError("no checkpoints")
    except AllcnnError as error:
        # Its remedy is for a run in a workspace, and the folder is gone by then.
        raise ArchiveError(
            f"{file} holds no run that can be used here"
            f" ({error.finding.replace(f'{folder}/', '')})",
            remedy="export it again, or import it with the version that wrote it",
        ) from error
    return _New(folder, entry, history, digests)


def _add(workspace: Workspace, new: _New) -> tuple[str, ...]:
    """Take what is new into a workspace, in an order in which a kill leaves a run or none."""
    run = new.entry.config.name
    target, is_run = workspace.run_folder(run), run in workspace.runs()
    known, history = workspace.checkpoints(run), read_history(workspace, run) if is_run else ()
    if is_run:
        _check_same(workspace, new, history)
    elif not set(known) <= set(new.digests):
        raise RunError(
            f"{target} holds checkpoints but no config.json to say of what",
            remedy="restore it, or import into another --workspace",
        )
    common = [name for name in known if name in new.digests]
    for name, digest in check_run(new.entry, new.history, target / "checkpoints", common).items():
        if digest != new.digests[name]:
            raise _other(workspace, run, f"has another checkpoint {name!r}")
    workspace.own("runs", run, "checkpoints")
    if isinstance(target, Path) and not entry_names(target):
        os.rename(new.folder, target)
        return tuple(new.digests)
    # Curves are never shorter than the checkpoints beside them.
    if len(new.history) > len(history):
        write_bytes(target / "history.json", (new.folder / "history.json").read_bytes())
    missing = tuple(name for name in new.digests if name not in known)
    for name in missing:
        place, source = target / "checkpoints" / name, new.folder / "checkpoints" / name
        if isinstance(place, Path):
            make_folder(place.parent)
            os.rename(source, place)
        else:
            send(source, place, last=WHOLE)
    if not is_run:
        write_bytes(target / "config.json", (new.folder / "config.json").read_bytes())
    return missing


def _check_same(workspace: Workspace, new: _New, history: History) -> None:
    """Raise RunError unless the run that is there is the same."""
    run = new.entry.config.name
    found = read_record(workspace, run)
    check_same(found.config, new.entry.config)
    if found != new.entry:
        raise _other(workspace, run, "is of other classes or channels")
    # How long an epoch took is no part of what it gave.
    for one, other in zip(history, new.history, strict=False):
        if one._replace(wall_s=0) != other._replace(wall_s=0):
            raise _other(workspace, run, "has other learning curves")


def _other(workspace: Workspace, run: str, what: str) -> RunError:
    remedy = "import it into another --workspace"
    return RunError(f"run {run!r} in {workspace.root} {what} than the file", remedy=remedy)
