"""The folder or address that holds runs, stores, results and figures, and the names inside it."""

import json
import os
import re
import textwrap
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, Final, Self, TypeVar

from allcnn.commands import command
from allcnn.definitions.fields import check_name
from allcnn.errors import RunError, WorkspaceError
from allcnn.settings.selection import Selection
from allcnn.workspace.checkpoint_names import checkpoint_epoch, is_checkpoint
from store.errors import ExplainedError
from store.model import strict_json
from store.storage.paths import (
    Place,
    as_place,
    child_names,
    is_file,
    is_inside,
    read_bytes,
    walk_files,
    write_bytes,
)
from store.storage.remote_errors import check_reachable, reaching

WHOLE: Final = "_CHECKPOINT_METADATA"
"""The file of a checkpoint that is uploaded last, and says that it is whole."""

T = TypeVar("T")


@dataclass(frozen=True)
class Workspace:
    """Places below one root; names from outside are checked before they become paths."""

    root: Place

    @classmethod
    def at(cls, root: str | os.PathLike[str]) -> Self:
        """Return the workspace at a folder, made absolute, or at an address such as ``s3://``.

        Neither need exist yet. Raises WorkspaceError if something that is not a folder stands
        there or on the way, StoreLocationError if nothing can be kept at the address.
        """
        text = os.fspath(root)
        # No page can show such bytes, and no library of C++ takes them.
        if re.search("[\0\ud800-\udfff]", text):
            found = "has bytes in its name that are no UTF-8"
            remedy = "name another folder with --workspace"
            raise WorkspaceError(f"the workspace {text!r}", found, remedy=remedy)
        place = as_place(root)
        if isinstance(place, Path):
            # The path as it was given: made absolute, ``~`` would be a folder's name.
            return cls(_folder(place if "://" in text else Path(root)))
        check_reachable(place)
        return cls(place)

    def store(self, kind: str) -> Place:
        """Return the Zarr store of a kind, such as ``grams``."""
        return self.root / f"{kind}.zarr"

    @property
    def activations(self) -> Place:
        """The Zarr store of activations."""
        return self.store("activations")

    @property
    def grams(self) -> Place:
        """The Zarr store of Gram matrices."""
        return self.store("grams")

    @property
    def similarity(self) -> Place:
        """The Zarr store of comparisons."""
        return self.store("similarity")

    @property
    def probes(self) -> Place:
        """The Zarr store of linear probes."""
        return self.store("probes")

    @property
    def figures(self) -> Place:
        """The folder of pictures; raises WorkspaceError where it is a link out of the workspace."""
        return self.own("figures")

    def own(self, top: str, *names: str) -> Place:
        """Return a place below the root to write at, or to remove.

        Raises WorkspaceError where a symbolic link on the way leads out of the workspace; the
        folder of runs may itself be one, as to another disk, and is then what must not be left.
        """
        place = self.root.joinpath(top, *names)
        inside = self.root / top if top == "runs" else self.root
        if isinstance(place, Path) and not is_inside(place, inside):
            found = f"leads by a symbolic link to {os.path.realpath(place)}, out of {inside}"
            remedy = "delete the link, or set one there that leads here"
            raise WorkspaceError(str(place), found, remedy=remedy)
        return place

    def once(self, question: tuple[Hashable, ...], answer: Callable[[], T]) -> T:
        """Return an answer; a snapshot gives the first answer to a question again."""
        return answer()

    def run_folder(self, run: str) -> Place:
        """Return the folder of a run, whether or not it exists."""
        return self.root / "runs" / check_name("run", run)

    def checkpoints_folder(self, run: str) -> Place:
        """Return the folder of a run's checkpoints."""
        return self.run_folder(run) / "checkpoints"

    def runs(self) -> list[str]:
        """Return the names of the runs here, sorted."""
        folder = self.root / "runs"

        def listed() -> list[str]:
            return [run for run in child_names(folder) if is_file(folder / run / "config.json")]

        return self.once(("runs",), listed)

    def find_run(self, run: str) -> Place:
        """Return the folder of a run that exists, else raise RunError naming those that do."""
        folder = self.run_folder(run)
        if not is_file(folder / "config.json"):
            train = f"or train it first with {command(self.root, 'train')}"
            remedy = f"{_choices('runs', run, self.runs())}, {train}"
            raise RunError(f"no run {run!r} in {self.root}", remedy=remedy)
        return folder

    def checkpoints(self, run: str) -> list[str]:
        """Return the whole checkpoints of a run from ``init`` to ``final``.

        A checkpoint in the making has another name until it is whole.
        """
        folder = self.checkpoints_folder(run)

        def listed() -> list[str]:
            if isinstance(folder, Path):
                names = child_names(folder)
            else:
                files = (PurePosixPath(name) for name, _, _ in walk_files(folder))
                names = [str(file.parent) for file in files if file.name == WHOLE]
            return sorted(filter(is_checkpoint, names), key=checkpoint_epoch)

        return self.once(("checkpoints", run), listed)

    def sample_sets(self) -> list[str]:
        """Return the names of the sample sets that have a folder of activations or Grams."""
        found = (child_names(place) for place in (self.activations, self.grams))
        return self.once(("stored",), lambda: list(dict.fromkeys(chain(*found))))

    def stored_on(self, sample_set: str) -> list[Selection]:
        """Return the networks that have a folder of activations or Grams on a sample set."""

        def listed() -> list[Selection]:
            found = [
                Selection(run, checkpoint)
                for folder in (self.activations / sample_set, self.grams / sample_set)
                for run in child_names(folder)
                for checkpoint in child_names(folder / run)
            ]
            return list(dict.fromkeys(found))

        return self.once(("stored", sample_set), listed)

    def stored_networks(self) -> dict[Selection, list[str]]:
        """Return the networks that have a folder of activations or Grams, and on which sets."""
        found: dict[Selection, list[str]] = {}
        for name in self.sample_sets():
            for network in self.stored_on(name):
                found.setdefault(network, []).append(name)
        return found

    def find_checkpoint(self, run: str, checkpoint: str) -> Place:
        """Return the folder of a checkpoint that exists, else raise RunError naming those."""
        self.find_run(run)
        check_name("checkpoint", checkpoint)
        known = self.checkpoints(run)
        if checkpoint not in known:
            remedy = _choices("checkpoints", checkpoint, known)
            raise RunError(f"run {run!r}", f"has no checkpoint {checkpoint!r}", remedy=remedy)
        return self.checkpoints_folder(run) / checkpoint


@dataclass(frozen=True)
class Snapshot(Workspace):
    """A workspace that lists, opens and hashes nothing twice, as whatever takes one asks it.

    It does not see what is written later; its own command calls ``forget`` for what it stores.
    """

    _answers: dict[tuple[Hashable, ...], object] = field(
        default_factory=dict, repr=False, compare=False
    )

    @classmethod
    def of(cls, workspace: Workspace) -> Self:
        """Return a snapshot of a workspace: the same one, where it is a snapshot already."""
        return workspace if isinstance(workspace, cls) else cls(workspace.root)

    def once(self, question: tuple[Hashable, ...], answer: Callable[[], T]) -> T:
        """Return the first answer to a question, or raise its error again."""
        if question not in self._answers:
            try:
                self._answers[question] = answer()
            except ExplainedError as error:
                self._answers[question] = error
        found = self._answers[question]
        if isinstance(found, ExplainedError):
            raise found
        return found  # type: ignore[return-value]  # as this question was answered

    def forget(self, networks: Iterable[Selection]) -> None:
        """List and open again what is stored of networks, after this process has written some."""
        written = set(networks)
        for question in list(self._answers):
            if question[0] == "stored" or (question[0] == "opened" and question[1] in written):
                del self._answers[question]

    def __reduce__(self) -> tuple[type["Snapshot"], tuple[object]]:
        return Snapshot, (self.root,)


def _folder(root: Path) -> Path:
    """Return a folder's absolute path, having checked that it is one or can be made."""
    try:
        path = root.expanduser().absolute()
    except RuntimeError as error:
        raise WorkspaceError(f"the workspace {root} cannot be found: {error}") from error
    standing = next(folder for folder in (path, *path.parents) if folder.exists())
    if not standing.is_dir():
        where = "is" if standing == path else f"would lie in {standing}, which is"
        remedy = "name a folder with --workspace"
        raise WorkspaceError(f"the workspace {path}", f"{where} a file", remedy=remedy)
    return path


def _choices(kind: str, asked: str, names: list[str]) -> str:
    if not names:
        return f"there are no {kind} yet"
    close = get_close_matches(asked, names, n=1)
    nearest = f" (nearest: {close[0]})" if close and len(names) > 1 else ""
    return f"choose one of: {', '.join(names)}{nearest}"


def json_bytes(values: object) -> bytes:
    """Return values as their file has them."""
    return f"{json.dumps(values, indent=1, allow_nan=False)}\n".encode()


def write_json(path: Place, values: object) -> None:
    """Write JSON so that a reader, or a crash, sees either the old file or the new one.

    Raises WorkspaceError where it cannot be written.
    """
    try:
        write_bytes(path, json_bytes(values))
    except OSError as error:
        remedy = "what was written before is safe, so fix that and run again"
        found = f"cannot write {path}: {error.strerror or error}"
        raise WorkspaceError(found, remedy=remedy) from error


def read_json(path: Place) -> Any:
    """Read JSON; raises WorkspaceError if the file is damaged."""
    try:
        with reaching(path):
            return strict_json.parse(read_bytes(path))
    except ValueError as error:
        remedy = "restore it from a copy"
        raise WorkspaceError(f"{path} is no JSON ({error})", remedy=remedy) from error


def kept_digests(folder: Place) -> dict[str, str]:
    """Return the digests that are kept with a checkpoint, by item, without reading its arrays.

    Checkpoints of the first version have none. Raises RunError where they cannot be read.
    """
    try:
        kept = read_json(folder / WHOLE)["custom_metadata"].get("digests", {})
        return {str(name): str(value) for name, value in kept.items()}
    except (AttributeError, KeyError, TypeError, FileNotFoundError, WorkspaceError) as error:
        raise damaged_checkpoint(folder, str(error)) from error


def damaged_checkpoint(folder: Place, reason: str) -> RunError:
    """Return the error for a checkpoint that cannot be read."""
    found = f"cannot be read ({textwrap.shorten(reason, 240)})"
    remedy = "restore it from a copy, or train the run again with another --prefix"
    return RunError(f"the checkpoint {folder}", found, remedy=remedy)
