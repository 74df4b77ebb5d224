"""Verify a share of what is stored each time, the longest unverified first."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from allcnn.errors import AllcnnError, in_one_line
from allcnn.maintenance.inventory import NETWORK_KINDS
from allcnn.maintenance.repair import repair
from allcnn.maintenance.verify_runs import taps_of
from allcnn.progress import Report
from allcnn.provenance import now
from allcnn.workspace.nightly_ledger import Ledger
from allcnn.workspace.paths import Workspace
from flows.settings.nightly_plan import Nightly
from store import StoreError, has_store
from store.maintenance.damage import Checked, Damage
from store.maintenance.verify import verify
from store.storage.paths import child_names
from store.zarrfiles.layout import NAMED

_WRITE_EVERY_S: Final = 60.0
"""A ledger names every unit, and at an address each writing is a request."""


@dataclass
class Verified:
    """The outcome of a verification."""

    n_units: int = 0
    n_all: int = 0
    n_bytes: int = 0
    damage: list[Damage] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    n_repaired: int = 0


def units(workspace: Workspace) -> list[str]:
    """Return what is verified in turn: networks on sample sets in each store, results, probes."""
    found: list[str] = []
    for kind in NETWORK_KINDS:
        place = workspace.store(kind)
        found += [
            f"{kind}/{sample_set}/{run}/{name}"
            for sample_set in child_names(place)
            for run in child_names(place / sample_set)
            for name in child_names(place / sample_set / run)
        ]
    for store in NAMED:
        found += [f"{store}/{name}" for name in child_names(workspace.store(store))]
    return found


def in_turn(every: Sequence[str], verified: dict[str, str], share: float) -> list[str]:
    """Return the units whose turn it is, those that were never verified first."""
    ordered = sorted(every, key=lambda unit: (verified.get(unit, ""), unit))
    # Not one more for what floating point makes of a share such as 1/7.
    return ordered[: math.ceil(round(len(every) * share, 9))]


def verify_in_turn(workspace: Workspace, ledger: Ledger, plan: Nightly, report: Report) -> Verified:
    """Verify the units whose turn it is, noting each in the ledger, and repair what can be.

    If it is killed, the next nightly run continues with the others. A unit that cannot be verified
    is reported and counts as verified, so that it does not hold up the others.
    """
    every = units(workspace)
    chosen = in_turn(every, ledger.verified, plan.share)
    found, there = Verified(n_all=len(every)), set(every)
    ledger.verified = {unit: at for unit, at in ledger.verified.items() if unit in there}
    written, damaged = time.monotonic(), []
    for done, unit in enumerate(chosen, start=1):
        if _look(workspace, unit, found):
            ledger.verified[unit] = now()
        else:  # only once that is reported
            damaged.append(unit)
        if time.monotonic() - written >= _WRITE_EVERY_S:
            ledger.write(workspace)
            written = time.monotonic()
        report(done, len(chosen), f"verifying {unit}")
    if found.damage and plan.repair:
        _repair(workspace, found, report)
    else:
        found.said += map(str, found.damage)
    ledger.verified |= dict.fromkeys(damaged, now())
    return found


def _look(workspace: Workspace, unit: str, found: Verified) -> bool:
    """Verify one unit; return whether it is free of damage, as far as it can be read."""
    n_damaged = len(found.damage)
    try:
        for checked in _checked(workspace, unit):
            found.n_bytes += checked.n_bytes
            found.damage += [each for each in checked.damage if each not in found.damage]
        found.n_units += 1
    except (AllcnnError, StoreError, OSError) as error:
        found.said.append(f"{unit} cannot be verified: {in_one_line(error)}")
    return len(found.damage) == n_damaged


def _repair(workspace: Workspace, found: Verified, report: Report) -> None:
    try:
        outcomes = repair(workspace, found.damage, report)
    except (AllcnnError, StoreError, OSError) as error:
        reason = in_one_line(error)
        found.said += [f"{each}; not repaired: {reason}" for each in found.damage]
        return
    for outcome in outcomes:
        found.n_repaired += bool(outcome.repaired)
        what = "repaired" if outcome.repaired else "not repaired"
        found.said.append(f"{outcome.damage}; {what}: {outcome.said}")


def _checked(workspace: Workspace, unit: str) -> Iterator[Checked]:
    kind, *names = unit.split("/")
    given = ("result",) if kind in NAMED else ("sample_set", "run", "checkpoint")
    patterns: Any = {"kind": kind, **dict(zip(given, names, strict=True))}
    if has_store(place := workspace.store(kind)):
        yield from verify(place, taps_of=partial(taps_of, workspace), **patterns)
