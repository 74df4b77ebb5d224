"""Damage of runs, and the outcome of repairs; needs nothing that computes."""

from dataclasses import dataclass
from typing import Literal

from store.maintenance.damage import Damage


@dataclass(frozen=True)
class RunDamage:
    """A file or checkpoint, ``part`` of the run ``path``, that is damaged; fields as of Damage."""

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
    """A run that was looked through; where its settings are damaged, nothing else can be read.

    ``unsealed`` are files that an earlier version wrote, of which only the form was checked.
    """

    run: str
    damage: tuple[RunDamage, ...]
    unsealed: tuple[str, ...]
    n_bytes: int


@dataclass(frozen=True)
class Outcome:
    """The outcome of one damage; ``repaired`` is None where no repair was tried.

    ``said`` is how it was repaired, or why not and what to do.
    """

    damage: Damage | RunDamage
    repaired: bool | None = None
    said: str = ""
