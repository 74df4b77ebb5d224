"""The record of a run: its settings, its data and its learning curves."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from allcnn.definitions.bounds import Bounds, shown
from allcnn.errors import AllcnnError, RunError
from allcnn.settings.run import RunConfig
from allcnn.workspace.paths import Workspace
from allcnn.workspace.sealed_json import SEALED_VERSION, read_sealed, write_sealed
from store.model.field_checks import check_text, check_utc
from store.storage.paths import Place, is_file, make_folder

if TYPE_CHECKING:
    from allcnn.networks.network import Network

_CLASSES = Bounds(1, 100_000)
_CHANNELS = Bounds(1, 1024)
"""Channels of an image, such as one of a satellite."""


@dataclass(frozen=True)
class RunRecord:
    """The settings of a run and the facts of its data set on which its network depends.

    ``created_at`` is when the run was begun, ISO 8601 in UTC, or empty where that is not known.
    Raises ValueError for classes, channels or a time that a data set or a clock cannot have.
    """

    config: RunConfig
    class_names: tuple[str, ...]
    input_channels: int
    created_at: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        _CLASSES.check("number of classes", len(self.class_names))
        for name in self.class_names:
            check_text("a class name", name)
        _CHANNELS.check("input_channels", self.input_channels)
        if self.created_at != "":
            check_utc("created_at", self.created_at)

    @property
    def network(self) -> "Network":
        """The network that this run trains."""
        config = self.config
        return config.architecture.network(
            len(self.class_names), self.input_channels, config.image_size
        )


class Epoch(NamedTuple):
    """One row of the learning curves; losses are mean cross entropies in nats.

    ``wall_s`` is the time of the epoch with its evaluation, divided by the seeds trained together.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    wall_s: float


History = tuple[Epoch, ...]

_FLOAT32 = Bounds(-1e38, 1e38, whole=False)
_SHARE = Bounds(0, 1, whole=False)
_EPOCH_BOUNDS = {
    "train_loss": _FLOAT32,
    "train_accuracy": _SHARE,
    "test_loss": _FLOAT32,
    "test_accuracy": _SHARE,
    "wall_s": Bounds(0, 1e9, whole=False),
}
"""Bounds of the numbers of an epoch; a time ends after thirty years."""


def write_record(workspace: Workspace, record: RunRecord) -> None:
    """Make the run's folder and write its record."""
    folder = workspace.run_folder(record.config.name)
    make_folder(folder)
    write_sealed(folder / "config.json", {"schema_version": SEALED_VERSION} | _to_json(record))


def _to_json(record: RunRecord) -> dict[str, Any]:
    return {
        "config": record.config.to_json(),
        "created_at": record.created_at,
        "class_names": list(record.class_names),
        "input_channels": record.input_channels,
    }


def read_record(workspace: Workspace, run: str) -> RunRecord:
    """Read the record of a run; raises RunError if it is missing, or of a newer version."""

    def read() -> RunRecord:
        path = workspace.find_run(run) / "config.json"
        return _from_json(path, read_sealed(path))

    return workspace.once(("record", run), read)


def _from_json(path: Place, values: Any) -> RunRecord:
    try:
        version, names = values["schema_version"], values["class_names"]
        if type(version) is not int or not 1 <= version <= SEALED_VERSION:
            raise ValueError(f"schema_version {shown(version)}")
        if not isinstance(names, list):
            raise TypeError(f"class_names is {shown(names)}")
        config = RunConfig.from_json(values["config"])
        begun = values.get("created_at", "")
        return RunRecord(config, tuple(names), values["input_channels"], begun)
    except (KeyError, TypeError, ValueError) as error:
        found = "does not describe a run that this version knows"
        reason = f"({type(error).__name__}: {error})"
        remedy = "use the version that wrote it"
        raise RunError(str(path), f"{found} {reason}", remedy=remedy) from error


def begun_at(workspace: Workspace, run: str) -> str:
    """Return when a run was begun; empty where there is no run, or its time is unknown."""
    try:
        return read_record(workspace, run).created_at
    except AllcnnError:
        return ""


def check_same(found: RunConfig, wanted: RunConfig) -> None:
    """Raise RunError unless a run that exists has the settings that are asked for."""
    there, asked = found.to_json(), wanted.to_json()
    differing = [
        f"{name.replace('_', '-')} {there.get(name)} (asked for: {asked.get(name)})"
        for name in {**there, **asked}
        if there.get(name) != asked.get(name)
    ]
    if differing:
        remedy = "ask for the same settings, or use another --prefix or --workspace"
        raise RunError(f"run {wanted.name!r}", f"exists with {', '.join(differing)}", remedy=remedy)


def write_history(workspace: Workspace, run: str, history: History) -> None:
    """Write the learning curves so far, with the record of their run."""
    values = {"schema_version": SEALED_VERSION, "of": _to_json(read_record(workspace, run))}
    values |= {"epochs": [row._asdict() for row in history]}
    write_sealed(workspace.run_folder(run) / "history.json", values)


def read_history(workspace: Workspace, run: str) -> History:
    """Read the learning curves; a run that has not finished an epoch has none.

    Raises RunError if there is no such run, or its curves are not what this version writes.
    """
    path = workspace.find_run(run) / "history.json"
    rows = workspace.once(("history", run), lambda: _rows(workspace, run, path))
    try:
        if not isinstance(rows, list):
            raise TypeError(f"{shown(rows)} is no list")
        return tuple(_epoch(n, row) for n, row in enumerate(rows, start=1))
    except (TypeError, ValueError) as error:
        found = f"holds no learning curves as training writes them ({error})"
        raise RunError(str(path), found, remedy="restore it from a copy") from error


def _rows(workspace: Workspace, run: str, path: Place) -> Any:
    """Return the rows in a file, if there is one; raises RunError where they are another run's."""
    if not is_file(path):
        return []
    values = read_sealed(path)
    if not isinstance(values, dict) or "of" not in values:
        return values  # of an earlier version, which named no run
    of = record_in(path, values)
    if of != read_record(workspace, run):
        found = f"holds the learning curves of another run, {of.config.name!r} with other"
        found += f" settings or data than {run!r}"
        raise RunError(str(path), found, remedy="restore it")
    return values.get("epochs")


def record_in(path: Place, values: Any) -> RunRecord:
    """Return the record of the run that a file of learning curves names."""
    of, version = values.get("of"), {"schema_version": values.get("schema_version")}
    return _from_json(path, of | version if isinstance(of, dict) else of)


def _epoch(n: int, row: Any) -> Epoch:
    """Return the n-th row of learning curves; raises TypeError or ValueError for other values."""
    if not isinstance(row, dict) or set(row) != set(Epoch._fields):
        raise TypeError(f"row {n} is {shown(row)}")
    if type(row["epoch"]) is not int or row["epoch"] != n:
        raise ValueError(f"row {n} is of epoch {shown(row['epoch'])}")
    for name, limits in _EPOCH_BOUNDS.items():
        limits.check(f"{name} of row {n}", row[name])
    return Epoch(**row)


def final_accuracy(workspace: Workspace, run: str) -> float:
    """Return the share of test examples that a run got right after its last epoch.

    Raises RunError where the run has no learning curves.
    """
    history = read_history(workspace, run)
    if not history:
        raise RunError(f"run {run!r} has no learning curves", remedy="restore its history.json")
    return history[-1].test_accuracy


def columns(history: Sequence[Epoch]) -> dict[str, list[Any]]:
    """Return the columns of a history by name."""
    return {name: [getattr(row, name) for row in history] for name in Epoch._fields}
