"""What a run's folder says about itself: its settings, its data and its learning curves."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from allcnn.config import RunConfig
from allcnn.errors import AllcnnError, RunError
from allcnn.network import NetworkSpec, spec_of
from allcnn.workspace import Workspace, read_json, write_json
from store.place import is_file, make_folder

_SCHEMA_VERSION = 1


@dataclass(frozen=True)
class RunRecord:
    """The settings of a run and what its data set decided: all that its network depends on.

    Attributes:
        config: the settings.
        class_names: of the data set, by their numbers.
        input_channels: of its images.
        created_at: when the run was begun, ISO 8601 in UTC; empty where that is not known.
    """

    config: RunConfig
    class_names: tuple[str, ...]
    input_channels: int
    created_at: str = field(default="", compare=False)

    @property
    def spec(self) -> NetworkSpec:
        """The network that this run trains."""
        return spec_of(self.config, len(self.class_names), self.input_channels)


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


def write_record(workspace: Workspace, record: RunRecord) -> None:
    """Make the run's folder and write what it is."""
    folder = workspace.run_folder(record.config.name)
    make_folder(folder)
    values = {"schema_version": _SCHEMA_VERSION, "config": record.config.to_json()}
    values |= {"created_at": record.created_at}
    data = {"class_names": list(record.class_names), "input_channels": record.input_channels}
    write_json(folder / "config.json", values | data)


def read_record(workspace: Workspace, run: str) -> RunRecord:
    """Read what a run is; raises RunError if there is no such run or a newer version wrote it."""
    path = workspace.find_run(run) / "config.json"
    values = read_json(path)
    try:
        if values["schema_version"] > _SCHEMA_VERSION:
            raise ValueError(f"schema_version {values['schema_version']}")
        config = RunConfig.from_json(values["config"])
        return RunRecord(
            config,
            tuple(values["class_names"]),
            int(values["input_channels"]),
            str(values.get("created_at") or ""),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"{path} does not describe a run that this version knows"
            f" ({type(error).__name__}: {error});"
            " use the version that wrote it"
        ) from error


def begun_at(workspace: Workspace, run: str) -> str:
    """Return when a run was begun; empty where there is none, or nothing tells."""
    try:
        return read_record(workspace, run).created_at
    except AllcnnError:
        return ""


def check_same(found: RunConfig, wanted: RunConfig) -> None:
    """Raise RunError unless a run that exists has the settings that are asked for."""
    differing = [
        f"{each.name.replace('_', '-')} {getattr(found, each.name)}"
        f" (asked for: {getattr(wanted, each.name)})"
        for each in fields(RunConfig)
        if getattr(found, each.name) != getattr(wanted, each.name)
    ]
    if differing:
        raise RunError(
            f"run {wanted.name!r} exists with {', '.join(differing)};"
            " ask for the same settings, or use another --prefix or --workspace"
        )


def write_history(workspace: Workspace, run: str, history: History) -> None:
    """Write the learning curves so far."""
    write_json(workspace.run_folder(run) / "history.json", [row._asdict() for row in history])


def read_history(workspace: Workspace, run: str) -> History:
    """Read the learning curves; a run that has not finished an epoch has none.

    Raises RunError if there is no such run, or its curves are not what this version writes.
    """
    path = workspace.find_run(run) / "history.json"
    try:
        return tuple(Epoch(**row) for row in read_json(path)) if is_file(path) else ()
    except TypeError as error:
        raise RunError(
            f"{path} holds no learning curves ({error}); restore it from a copy"
        ) from error


def final_accuracy(workspace: Workspace, run: str) -> float:
    """Return the share of test examples that a run got right after its last epoch.

    Raises RunError where the run has no learning curves.
    """
    history = read_history(workspace, run)
    if not history:
        raise RunError(f"run {run!r} has no learning curves; restore its history.json")
    return history[-1].test_accuracy


def columns(history: Sequence[Epoch]) -> dict[str, list[Any]]:
    """Turn the rows of a history into one list a quantity."""
    return {name: [getattr(row, name) for row in history] for name in Epoch._fields}
