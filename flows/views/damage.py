"""Looking through the stores of a workspace: how far it is, and what is shown of it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from allcnn.commands import command
from allcnn.settings.selection import Selection
from allcnn.workspace.paths import Workspace
from flows.views.listing import size
from flows.views.not_found import nothing_fits
from flows.views.progress import Progress
from store import has_store
from store.maintenance.damage import Damage, Unfinished
from store.maintenance.verify import n_expected, verify
from store.model.names import readable
from store.storage.paths import child_names
from store.zarrfiles.layout import Kind

Examine = Callable[[Workspace, str, str], Iterator[Any]]
"""Looks the runs and checkpoints that fit two patterns through."""

TapsOf = Callable[[Workspace, str], Sequence[str]]


@dataclass(frozen=True)
class Found:
    """What a look through a workspace found.

    Attributes:
        n_checked: representations, Grams of them, results and probes.
        n_bytes: of values that were read.
        damage: all that is damaged in stores.
        unfinished: what is missing without being damaged.
        n_runs: runs, with their checkpoints.
        run_damage: all that is damaged in these.
        unsealed: runs of earlier versions, by name, with the files that say of no bit if it is so.
    """

    n_checked: int
    n_bytes: int
    damage: tuple[Damage, ...]
    unfinished: tuple[Unfinished, ...] = ()
    n_runs: int = 0
    run_damage: tuple[Any, ...] = ()
    unsealed: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True)
class Told:
    """A damage, and what became of it: None where nothing was tried."""

    damage: Any
    repaired: bool | None = None
    said: str = ""


def look_through(
    place: Workspace,
    side: Selection | None,
    examine: Examine | None = None,
    taps_of: TapsOf = lambda *_: (),
) -> Found:
    """Look through all stores and runs of a workspace, or through what fits a pattern of each.

    ``taps_of`` returns the taps of a run's network, by which those are named that are lost.
    """
    stores: dict[Kind, Any] = {
        "activations": place.activations,
        "grams": place.grams,
        "similarity": place.similarity,
        "probes": place.probes,
    }
    present = {kind: path for kind, path in stores.items() if has_store(path)}
    runs = _runs(place, side, examine)
    if not (present or runs):
        raise nothing_fits(place, ())
    names = {} if side is None else {n: getattr(side, n) for n in ("run", "checkpoint", "tap")}
    n_checked, n_bytes = 0, 0
    damage: list[Damage] = []
    unfinished: list[Unfinished] = []
    totals = {kind: n_expected(path, kind) for kind, path in present.items()}
    with Progress(list(totals.values())) as progress:
        for kind, path in present.items():
            with progress.step(f"verifying {kind}") as report:
                n_here = 0
                for checked in verify(path, kind, taps_of=partial(taps_of, place), **names):
                    n_here += checked.is_data
                    n_bytes += checked.n_bytes
                    damage += checked.damage
                    unfinished += checked.unfinished
                    report(min(n_here, totals[kind]), totals[kind], readable(checked.path))
                n_checked += n_here
    if side is not None and not (n_checked or damage or unfinished or runs):
        raise nothing_fits(place, [side])
    return Found(
        n_checked,
        n_bytes + sum(run.n_bytes for run in runs),
        tuple(damage),
        tuple(unfinished),
        len(runs),
        tuple(each for run in runs for each in run.damage),
        tuple((run.run, run.unsealed) for run in runs if run.unsealed),
    )


def _runs(place: Workspace, side: Selection | None, examine: Examine | None) -> list[Any]:
    """Look through the runs; a pattern of taps names none."""
    if examine is None or (side is not None and side.tap != "*"):
        return []
    run, checkpoint = ("*", "*") if side is None else (side.run, side.checkpoint)
    found, n_all = [], len(child_names(place.root / "runs"))
    with Progress([n_all]) as progress, progress.step("verifying runs") as report:
        for checked in examine(place, run, checkpoint):
            found.append(checked)
            report(len(found), n_all, checked.run)
    return found


def report_lines(
    place: Workspace, found: Found, told: Sequence[Told], advice: Sequence[str]
) -> list[str]:
    """Return a line for each damage, and one for all; advice goes with what is unfinished."""
    lines = [f"unfinished: {each}" for each in found.unfinished]
    lines += [*advice, ""] if lines else []
    for run, names in found.unsealed:
        lines.append(f"not sealed, as an earlier version wrote it: {' and '.join(names)} of {run}")
    for each in told:
        lines.append(str(each.damage))
        if each.repaired is not None:
            lines.append(f"  {'repaired' if each.repaired else 'not repaired'}: {each.said}")
    left = sum(not each.repaired for each in told)
    looked = f"{found.n_checked} representations, Grams, results and probes, {found.n_runs} runs"
    looked += f", {size(found.n_bytes)}"
    if not told:
        return [*lines, f"{looked}: no damage"]
    mended = f", {len(told) - left} repaired" if told[0].repaired is not None else ""
    repair = command(place.root, "store", "verify", repair=True)
    remedy = "" if mended else f"; {repair} repairs what a checkpoint still gives"
    return [*lines, "", f"{looked}: {len(told)} damaged{mended}{remedy}"]


def as_json(found: Found, told: Sequence[Told]) -> dict[str, Any]:
    """Return the same for programs."""
    return {
        "checked": found.n_checked,
        "runs": found.n_runs,
        "unsealed": [{"run": run, "files": names} for run, names in found.unsealed],
        "bytes": found.n_bytes,
        "unfinished": [asdict(each) | {"sentence": str(each)} for each in found.unfinished],
        "damage": [
            _facts(each.damage)
            | {"sentence": str(each.damage), "repaired": each.repaired, "said": each.said}
            for each in told
        ],
    }


def _facts(damage: Any) -> dict[str, Any]:
    """Return the fields of a damage, those of a run under the names that stores have."""
    if isinstance(damage, Damage):
        return asdict(damage)
    names = {"kind": "runs", "path": damage.run, "part": damage.part, "reason": damage.reason}
    return names | {"start": None, "stop": None}
