"""Damage of runs, and the outcome of repairs; needs nothing that computes."""

from dataclasses import dataclass
from typing import Literal

from store.maintenance.damage import Damage


@dataclass(frozen=True)
class RunDamage:
    """One file of a run, or one checkpoint, that is not what was written; fields as of Damage.

    Attributes:
        path: the run's name.
        part: the path below the run's folder.
        reason: what was found.
    """

    path: str
    part: str
    reason: str
    kind: Literal["runs"] = "runs"
    start: None = None
    stop: None = None

    def __str__(self) -> str:
        return f"{self.part} of run {self.path} is damaged ({self.reason})"


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


@dataclass(frozen=True)
class Outcome:
    """The outcome of one damage.

    Attributes:
        damage: as it was found.
        repaired: whether it is gone; None where no repair was tried.
        said: how it was repaired, or why not and what to do.
    """

    damage: Damage | RunDamage
    repaired: bool | None = None
    said: str = ""
