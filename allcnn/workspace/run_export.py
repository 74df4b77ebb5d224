"""Take a run to a file and back: nothing counts before all of it was checked.

A file is unpacked beside the runs and read there as any run is; then it is renamed. Digests say
that nothing was changed on the way, not who made it; nothing in it is executed.
"""

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from allcnn.errors import AllcnnError, ArchiveError, RunError, WorkspaceError
from allcnn.networks.network import abstract
from allcnn.workspace import checkpoints as checkpoint
from allcnn.workspace import run_record
from allcnn.workspace.checkpoint_digests import kept_digests
from allcnn.workspace.checkpoint_names import checkpoint_epoch
from allcnn.workspace.paths import WHOLE, Workspace
from allcnn.workspace.remote_folders import brought, send
from allcnn.workspace.run_archive import pack, unpack
from allcnn.workspace.run_manifest import Manifest, is_member
from allcnn.workspace.run_record import History, RunRecord
from allcnn.workspace.run_validation import check_run
from store.storage.paths import entry_names, make_folder, remove_tree, walk_files, write_bytes

_DRAFT: Final = ".importing"
"""Where a file is unpacked, in the folder of runs: no run has such a name."""


@dataclass(frozen=True)
class Imported:
    """What an import found in a file, and which checkpoints it added: none that were there."""

    manifest: Manifest
    digests: Mapping[str, str]
    added: tuple[str, ...]


@dataclass(frozen=True)
class _Unpacked:
    """A run that was unpacked and found sound."""

    file: Path
    folder: Path
    manifest: Manifest
    entry: RunRecord
    history: History
    digests: Mapping[str, str]

    @property
    def run(self) -> str:
        return self.manifest.run


def export_run(
    workspace: Workspace, run: str, file: Path, checkpoints: Sequence[str] = ()
) -> Manifest:
    """Write a run and some of its checkpoints, ``final`` where none is named, to one local file.

    Replaces a file of that name. Raises RunError where the run or a checkpoint is not there or
    cannot be read, or none is named and the run is not finished.
    """
    names = _chosen(workspace, run, checkpoints)
    entry = run_record.read_record(workspace, run)
    history = run_record.read_history(workspace, run)
    with brought(workspace.find_run(run), lambda name: _is_wanted(name, names)) as folder:
        check_run(entry, history, folder / "checkpoints", names)
        found = [name for name, _, _ in walk_files(folder) if _is_wanted(name, names)]
        return pack(file, run, folder, found)


def _anything(run: str, digests: Mapping[str, str]) -> None:
    """Let any run in."""


def import_run(
    workspace: Workspace, file: Path, check: Callable[[str, Mapping[str, str]], None] = _anything
) -> Imported:
    """Add the run in a file to a workspace; where it is already, the checkpoints that are missing.

    ``check`` is given the run and its checkpoints' digests before anything is added, and may raise.
    Raises ArchiveError for a file that is damaged, or is no run that this version can use;
    RunError where another run of that name is there.
    """
    try:
        with _draft(workspace) as draft:
            unpacked = _unpack(file, draft)
            check(unpacked.run, unpacked.digests)
            added = _add(workspace, unpacked)
    except OSError as error:
        if isinstance(error, WorkspaceError) or not isinstance(workspace.root, Path):
            raise
        raise WorkspaceError(
            f"{file} cannot be unpacked in {workspace.root} ({error.strerror or error}); mend"
            " that, and import it again"
        ) from error
    return Imported(unpacked.manifest, unpacked.digests, added)


def _chosen(workspace: Workspace, run: str, checkpoints: Sequence[str]) -> list[str]:
    known = workspace.checkpoints(run)
    workspace.find_run(run)
    if not known:
        raise RunError(f"run {run!r} has no checkpoints yet; train it first")
    if not checkpoints and "final" not in known:
        raise RunError(
            f"run {run!r} is not finished; name a checkpoint with --checkpoint, or take --all"
        )
    for name in checkpoints:
        workspace.find_checkpoint(run, name)
    return [name for name in known if name in (checkpoints or ("final",))]


def _is_wanted(name: str, checkpoints: Sequence[str]) -> bool:
    """Return whether a file of a run belongs to it, and to one of some checkpoints if to any."""
    top, _, rest = name.partition("/")
    return is_member(name) and (top != "checkpoints" or rest.partition("/")[0] in checkpoints)


@contextmanager
def _draft(workspace: Workspace) -> Iterator[Path]:
    """Yield an empty folder, of which nothing is left; beside the runs, if these are local."""
    runs = workspace.root / "runs"
    if not isinstance(runs, Path):
        with TemporaryDirectory(prefix="allcnn-") as scratch:
            yield Path(scratch)
        return
    make_folder(runs)
    with _alone(runs):
        # A kill may have left something in it.
        remove_tree(runs / _DRAFT)
        try:
            yield runs / _DRAFT
        finally:
            remove_tree(runs / _DRAFT)


@contextmanager
def _alone(runs: Path) -> Iterator[None]:
    """Hold the folder of runs against other imports; a process that dies holds nothing."""
    descriptor = os.open(runs, os.O_RDONLY)
    try:
        _lock(descriptor, runs)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, runs: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise WorkspaceError(
            f"another import is at work in {runs}; wait for it, and import again"
        ) from error
    except OSError:  # a file system without locks, where nobody can tell
        return


def _unpack(file: Path, draft: Path) -> _Unpacked:
    manifest = unpack(file, draft / "runs")
    place, run, folder = Workspace(draft), manifest.run, draft / "runs" / manifest.run
    try:
        entry = run_record.read_record(place, run)
        if entry.config.name != run:
            raise RunError(f"its config.json is of a run {entry.config.name!r}, not {run!r}")
        history = run_record.read_history(place, run)
        names = _whole_checkpoints(place, manifest)
        digests = check_run(entry, history, folder / "checkpoints", names)
    except (AllcnnError, RecursionError) as error:
        # Its advice is for a run in a workspace, and the folder is gone by then.
        reason = str(error).replace(f"{folder}/", "")
        reason = reason.rpartition("; ")[0] or reason
        raise ArchiveError(
            f"{file} holds no run that can be used here ({reason}); export it again, or import it"
            " with the version that wrote it"
        ) from error
    return _Unpacked(file, folder, manifest, entry, history, digests)


def _whole_checkpoints(place: Workspace, manifest: Manifest) -> list[str]:
    """Return the checkpoints in a file; raises RunError where one of them is not whole."""
    names = place.checkpoints(manifest.run)
    listed = {member.name for member in manifest.members}
    lacking = [name for name in names if f"checkpoints/{name}/{WHOLE}" not in listed]
    if lacking or not names:
        raise RunError(f"checkpoint {lacking[0]!r} is not whole" if names else "no checkpoints")
    return names


def _add(workspace: Workspace, new: _Unpacked) -> tuple[str, ...]:
    """Take what is new into a workspace, in an order in which a kill leaves a run or none."""
    target, is_run = workspace.run_folder(new.run), new.run in workspace.runs()
    known = workspace.checkpoints(new.run)
    _check_fits(workspace, new, known, is_run=is_run)
    workspace.own("runs", new.run, "checkpoints")
    if isinstance(target, Path) and not entry_names(target):
        os.rename(new.folder, target)
        return tuple(new.digests)
    history = run_record.read_history(workspace, new.run) if is_run else ()
    # Curves are never shorter than the checkpoints beside them.
    if len(new.history) > len(history):
        write_bytes(target / "history.json", (new.folder / "history.json").read_bytes())
    missing = [name for name in new.digests if name not in known]
    for name in sorted(missing, key=checkpoint_epoch):
        place, source = target / "checkpoints" / name, new.folder / "checkpoints" / name
        if isinstance(place, Path):
            make_folder(place.parent)
            os.rename(source, place)
        else:
            send(source, place, last=WHOLE)
    if not is_run:
        write_bytes(target / "config.json", (new.folder / "config.json").read_bytes())
    return tuple(missing)


def _check_fits(
    workspace: Workspace, new: _Unpacked, known: Sequence[str], *, is_run: bool
) -> None:
    """Raise RunError unless what is there under the run's name is of the same run."""
    if is_run:
        _check_same(workspace, new)
    elif not set(known) <= set(new.digests):
        raise RunError(
            f"{workspace.run_folder(new.run)} holds checkpoints but no config.json to say of what;"
            " restore it, or import into another --workspace"
        )
    for name in known:
        if name in new.digests:
            _check_same_checkpoint(workspace, new, name)


def _check_same(workspace: Workspace, new: _Unpacked) -> None:
    found = run_record.read_record(workspace, new.run)
    run_record.check_same(found.config, new.entry.config)
    if found != new.entry:
        raise _other(workspace, new, "is of other classes or channels")
    history = run_record.read_history(workspace, new.run)
    # How long an epoch took is no part of what it gave.
    pairs = zip(history, new.history, strict=False)
    if any(one._replace(wall_s=0) != other._replace(wall_s=0) for one, other in pairs):
        raise _other(workspace, new, "has other learning curves")


def _check_same_checkpoint(workspace: Workspace, new: _Unpacked, name: str) -> None:
    folder = workspace.checkpoints_folder(new.run) / name
    found = kept_digests(folder).get("variables")
    if found is None:  # checkpoints of the first version have none
        like = abstract(new.entry.network)
        found = checkpoint.digest(checkpoint.load_variables(folder, like))
    if found != new.digests[name]:
        raise _other(workspace, new, f"has another checkpoint {name!r}")


def _other(workspace: Workspace, new: _Unpacked, what: str) -> RunError:
    return RunError(
        f"run {new.run!r} in {workspace.root} {what} than {new.file}; import it into another"
        " --workspace"
    )
