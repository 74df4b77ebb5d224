"""The one folder that holds runs, stores, results and figures, and the names inside it."""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from allcnn.config import check_name
from allcnn.errors import RunError, WorkspaceError

_CHECKPOINT = re.compile(r"init|final|epoch-(\d{4,})")


def checkpoint_name(epoch: int) -> str:
    """Return the name of the checkpoint after some epochs, such as ``epoch-0005``."""
    return f"epoch-{epoch:04d}" if epoch else "init"


def checkpoint_epoch(name: str) -> float:
    """Return the epochs that a checkpoint has seen; ``final`` comes after all (infinity)."""
    if name in ("init", "final"):
        return 0 if name == "init" else float("inf")
    return int(name.removeprefix("epoch-"))


def checkpoint_order(name: str) -> float:
    """Return a number that sorts checkpoints by epoch; names of other kinds go with the last."""
    return checkpoint_epoch(name) if _CHECKPOINT.fullmatch(name) else float("inf")


@dataclass(frozen=True)
class Workspace:
    """Paths below one root; names from outside are checked before they become paths."""

    root: Path

    @classmethod
    def at(cls, root: str | os.PathLike[str]) -> "Workspace":
        """Return the workspace at ``root``, absolute; the folder need not exist yet.

        Raises WorkspaceError if something that is not a folder stands there or on the way.
        """
        try:
            path = Path(root).expanduser().absolute()
        except RuntimeError as error:
            raise WorkspaceError(f"the workspace {root} cannot be found: {error}") from error
        standing = next(folder for folder in (path, *path.parents) if folder.exists())
        if not standing.is_dir():
            place = "is" if standing == path else f"would lie in {standing}, which is"
            raise WorkspaceError(
                f"the workspace {path} {place} a file; name a folder with --workspace"
            )
        return cls(path)

    @property
    def activations(self) -> Path:
        """The Zarr store of activations."""
        return self.root / "activations.zarr"

    @property
    def grams(self) -> Path:
        """The Zarr store of Gram matrices."""
        return self.root / "grams.zarr"

    @property
    def similarity(self) -> Path:
        """The Zarr store of comparisons."""
        return self.root / "similarity.zarr"

    @property
    def figures(self) -> Path:
        """The folder of pictures."""
        return self.root / "figures"

    def run_folder(self, run: str) -> Path:
        """Return the folder of a run, whether or not it exists."""
        return self.root / "runs" / check_name("run", run)

    def checkpoints_folder(self, run: str) -> Path:
        """Return the folder of a run's checkpoints."""
        return self.run_folder(run) / "checkpoints"

    def runs(self) -> list[str]:
        """Return the names of the runs here, sorted."""
        return sorted(path.parent.name for path in self.root.glob("runs/*/config.json"))

    def find_run(self, run: str) -> Path:
        """Return the folder of a run that exists, else raise RunError naming those that do."""
        folder = self.run_folder(run)
        if not (folder / "config.json").is_file():
            raise RunError(
                f"no run {run!r} in {self.root}; {_choices('runs', self.runs())},"
                " or train it first with 'allcnn train'"
            )
        return folder

    def checkpoints(self, run: str) -> list[str]:
        """Return the whole checkpoints of a run from ``init`` to ``final``.

        A checkpoint in the making has another name until it is whole.
        """
        folder = self.checkpoints_folder(run)
        return sorted(
            (path.name for path in folder.glob("*") if _CHECKPOINT.fullmatch(path.name)),
            key=checkpoint_epoch,
        )

    def find_checkpoint(self, run: str, checkpoint: str) -> Path:
        """Return the folder of a checkpoint that exists, else raise RunError naming those."""
        self.find_run(run)
        check_name("checkpoint", checkpoint)
        known = self.checkpoints(run)
        if checkpoint not in known:
            raise RunError(
                f"run {run!r} has no checkpoint {checkpoint!r}; {_choices('checkpoints', known)}"
            )
        return self.checkpoints_folder(run) / checkpoint


def _choices(kind: str, names: list[str]) -> str:
    return f"choose one of: {', '.join(names)}" if names else f"there are no {kind} yet"


def write_json(path: Path, values: object) -> None:
    """Write JSON so that a reader, or a crash, sees either the old file or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def read_json(path: Path) -> Any:
    """Read JSON; raises WorkspaceError if the file is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WorkspaceError(f"{path} is no JSON ({error}); restore or delete it") from error
