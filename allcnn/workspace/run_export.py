"""Export a run to a file and import it: nothing counts before all of it was checked.

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
from allcnn.networks.variables import abstract, parameter_bytes
from allcnn.workspace import checkpoints as checkpoint
from allcnn.workspace.checkpoint_names import checkpoint_epoch
from allcnn.workspace.paths import WHOLE, Workspace
from allcnn.workspace.remote_folders import brought, send
from allcnn.workspace.run_archive import Manifest, is_member, pack, unpack
from allcnn.workspace.run_record import History, RunRecord, check_same, read_history, read_record
from store.errors import ExplainedError
from store.storage.local_files import try_lock
from store.storage.paths import (
    Place,
    entry_names,
    make_folder,
    remove_tree,
    walk_files,
    write_bytes,
)

_DRAFT: Final = ".importing"
"""Where a file is unpacked, in the folder of runs: no run has such a name."""

_LAYER_BYTES: Final = 100
"""A checkpoint takes more than that for the names and shapes of a layer alone."""

_MOST_PACKED: Final = 1000
"""No network's numbers are compressed so much, unless all are zeros."""

_HARMLESS_BYTES: Final = 2**28


class Imported(NamedTuple):
    """The contents of an imported file, and the checkpoints that were added."""

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
    place, known = workspace.find_run(run), workspace.checkpoints(run)
    if not known:
        raise RunError(f"run {run!r} has no checkpoints yet", remedy="train it first")
    if not checkpoints and "final" not in known:
        remedy = "name a checkpoint with --checkpoint, or take --all"
        raise RunError(f"run {run!r} is not finished", remedy=remedy)
    for name in checkpoints:
        workspace.find_checkpoint(run, name)
    names = [name for name in known if name in (checkpoints or ("final",))]
    entry, history = read_record(workspace, run), read_history(workspace, run)
    with brought(place, partial(is_member, checkpoints=names)) as folder:
        _check_run(entry, history, folder / "checkpoints", names)
        return pack(file, run, folder, names)


def import_run(
    workspace: Workspace,
    file: Path,
    check: Callable[[str, Mapping[str, str]], object] = lambda *_: None,
) -> Imported:
    """Add the run in a file to a workspace, or to a run that is there its missing checkpoints.

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
    except ExplainedError:
        raise
    except OSError as error:
        found = f"cannot be unpacked in {workspace.root} ({error.strerror or error})"
        raise WorkspaceError(str(file), found, remedy="fix that, and import it again") from error


def _check_run(
    entry: RunRecord, history: History, checkpoints: Place, names: Sequence[str]
) -> dict[str, str]:
    """Return the digests of checkpoints' variables, having read each and its kept digest.

    Raises RunError where one is damaged, is of another network, or where the curves end before it.
    """
    digests = {}
    for name in names:
        folder = checkpoints / name
        sizes = {file: n_bytes for file, n_bytes, _ in walk_files(folder)}
        # Without that file it would pass for one of the first version, which has no digests.
        if WHOLE not in sizes:
            raise RunError(f"checkpoint {name!r}", "is not whole")
        check_epochs(entry, history, name)
        network, n_bytes = entry.network, sum(sizes.values())
        # Settings from elsewhere could ask for any amount of memory and time. The taps first: to
        # count the parameters of a network without end takes as long.
        most = max(_HARMLESS_BYTES, _MOST_PACKED * n_bytes)
        if len(network.taps) * _LAYER_BYTES >= n_bytes or parameter_bytes(network) >= most:
            what = f"the checkpoint {name!r} of run {entry.config.name!r}"
            found = f"has {n_bytes} bytes, too few for the network that its config.json describes"
            raise RunError(what, found, remedy="restore both")
        _, digests[name] = checkpoint.load_variables(folder, abstract(network))
    return digests


def check_epochs(entry: RunRecord, history: History, name: str) -> None:
    """Raise RunError where learning curves end before a checkpoint, or after the last epoch."""
    epochs, n = entry.config.epochs, len(history)
    wanted = epochs if name == "final" else checkpoint_epoch(name)
    if not wanted <= n <= epochs:
        found = f"has the checkpoint {name!r}, and curves of {n} of its {epochs} epochs"
        raise RunError(f"run {entry.config.name!r}", found, remedy="restore its history.json")


@contextmanager
def _drafting(workspace: Workspace) -> Iterator[Path]:
    """Yield a folder that is removed at the end; beside the runs, if these are local."""
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
        digests = _check_run(entry, history, folder / "checkpoints", place.checkpoints(run))
        if not digests:
            raise RunError("no checkpoints")
    except AllcnnError as error:
        # Its remedy is for a run in a workspace, and the folder is gone by then.
        found = f"holds no run that can be used here ({error.finding.replace(f'{folder}/', '')})"
        remedy = "export it again, or import it with the version that wrote it"
        raise ArchiveError(str(file), found, remedy=remedy) from error
    return _New(folder, entry, history, digests)


def _add(workspace: Workspace, new: _New) -> tuple[str, ...]:
    """Add what is new to a workspace, in an order in which a kill leaves a whole run or none."""
    run = new.entry.config.name
    target, is_run = workspace.run_folder(run), run in workspace.runs()
    known, history = workspace.checkpoints(run), read_history(workspace, run) if is_run else ()
    if not is_run and not set(known) <= set(new.digests):
        found = "holds checkpoints but no config.json to say of what"
        remedy = "restore it, or import into another --workspace"
        raise RunError(str(target), found, remedy=remedy)
    if other := _difference(workspace, new, history, known):
        remedy = "import it into another --workspace"
        raise RunError(f"run {run!r} in {workspace.root}", f"{other} than the file", remedy=remedy)
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


def _difference(
    workspace: Workspace, new: _New, history: History, checkpoints: Sequence[str]
) -> str:
    """Return how a run differs from what is there of it; raises RunError for its settings."""
    run = new.entry.config.name
    if run in workspace.runs():
        found = read_record(workspace, run)
        check_same(found.config, new.entry.config)
        if found != new.entry:
            return "is of other classes or channels"
        # The time of an epoch does not count.
        pairs = zip(history, new.history, strict=False)
        if any(one._replace(wall_s=0) != two._replace(wall_s=0) for one, two in pairs):
            return "has other learning curves"
    folder = workspace.checkpoints_folder(run)
    common = [name for name in checkpoints if name in new.digests]
    for name, digest in _check_run(new.entry, new.history, folder, common).items():
        if digest != new.digests[name]:
            return f"has another checkpoint {name!r}"
    return ""
