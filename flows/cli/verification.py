"""Look through the stores and runs of a workspace, repair them, and show what was found."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from allcnn.advice import extracting, is_here, options_of, store_again
from allcnn.commands import command
from allcnn.compare.candidates import find
from allcnn.compare.reextract import as_stored
from allcnn.maintenance.findings import CheckedRun, Outcome, RunDamage
from allcnn.maintenance.inventory import KINDS
from allcnn.settings.selection import EVERYTHING, Selection
from allcnn.workspace.paths import Workspace
from flows.views.listing import size
from flows.views.progress import Progress
from flows.views.stored import nothing_fits
from store import has_store
from store.maintenance.damage import Damage, Unfinished
from store.maintenance.verify import n_expected, verify
from store.model.names import readable
from store.storage.paths import child_names


@dataclass
class DamageFound:
    """What a look through a workspace found.

    ``n_checked`` counts representations, Grams of them, results and probes, ``n_bytes`` the values
    that were read. What is ``unfinished`` is missing without being damaged.
    """

    runs: Sequence[CheckedRun]
    n_checked: int
    n_bytes: int
    damage: list[Damage | RunDamage]
    unfinished: list[Unfinished]


def look_through(place: Workspace, side: Selection = EVERYTHING) -> DamageFound:
    """Look through all stores and runs of a workspace, or through what fits a pattern of each."""
    present = {kind: path for kind in KINDS if has_store(path := place.store(kind))}
    runs, taps_of = _look_through_runs(place, side)
    if not (present or runs):
        raise nothing_fits(place)
    found = DamageFound(runs, 0, sum(run.n_bytes for run in runs), [], [])
    found.damage += (each for run in runs for each in run.damage)
    totals = {kind: n_expected(path, kind) for kind, path in present.items()}
    with Progress(list(totals.values())) as progress:
        for kind, path in present.items():
            n_before = found.n_checked
            with progress.step(f"verifying {kind}") as report:
                for checked in verify(path, kind, taps_of=taps_of, **asdict(side)):
                    found.n_checked += checked.is_data
                    found.n_bytes += checked.n_bytes
                    found.damage += checked.damage
                    found.unfinished += checked.unfinished
                    n_here = min(found.n_checked - n_before, totals[kind])
                    report(n_here, totals[kind], readable(checked.path))
    if side != EVERYTHING and not (found.n_checked or found.damage or found.unfinished or runs):
        raise nothing_fits(place, side)
    return found


def _look_through_runs(
    place: Workspace, side: Selection
) -> tuple[list[CheckedRun], Callable[[str], Sequence[str]]]:
    """Also return what names the taps of a run's network, some of which may be lost."""
    n_runs = len(child_names(place.root / "runs"))
    if not n_runs:
        return [], lambda _: ()
    # Only where there are runs, as this takes seconds.
    from allcnn.maintenance.verify_runs import examine_runs, taps_of

    found: list[CheckedRun] = []
    if side.tap == "*":  # a pattern of taps names no run
        with Progress([n_runs]) as progress, progress.step("verifying runs") as report:
            for checked in examine_runs(place, side.run, side.checkpoint):
                found.append(checked)
                report(len(found), n_runs, checked.run)
    return found, partial(taps_of, place)


def repair_all(place: Workspace, damage: Sequence[Damage | RunDamage]) -> list[Outcome]:
    """Repair what can be repaired; the runs first, for stores need them."""
    from allcnn.maintenance.repair import repair, repair_run

    outcomes = [repair_run(place, each) for each in damage if isinstance(each, RunDamage)]
    if stored := [each for each in damage if isinstance(each, Damage)]:
        with Progress([1]) as progress, progress.step("repairing") as report:
            outcomes += repair(place, stored, report)
    return outcomes


def report_lines(place: Workspace, found: DamageFound, outcomes: Sequence[Outcome]) -> list[str]:
    """Return a line for each damage, and one for all; advice goes with what is unfinished."""
    lines = [f"unfinished: {each}" for each in found.unfinished]
    advice = dict.fromkeys(f"to go on: {_finishing(place, each)}" for each in found.unfinished)
    lines += [*advice, ""] if advice else []
    for run in found.runs:
        if run.unsealed:
            files = f"{' and '.join(run.unsealed)} of {run.run}"
            lines.append(f"not sealed, as an earlier version wrote it: {files}")
    for each in outcomes:
        lines.append(str(each.damage))
        if each.repaired is not None:
            lines.append(f"  {'repaired' if each.repaired else 'not repaired'}: {each.said}")
    looked = f"{found.n_checked} representations, Grams, results and probes"
    looked += f", {len(found.runs)} runs, {size(found.n_bytes)}"
    if not outcomes:
        return [*lines, f"{looked}: no damage"]
    if outcomes[0].repaired is None:
        repair = command(place.root, "store", "verify", repair=True)
        what = f"; {repair} repairs what a checkpoint still gives"
    else:
        what = f", {sum(bool(each.repaired) for each in outcomes)} repaired"
    return [*lines, "", f"{looked}: {len(outcomes)} damaged{what}"]


def _finishing(place: Workspace, unfinished: Unfinished) -> str:
    """Advise how to go on with a network that has something unfinished."""
    sample_set, run, checkpoint = unfinished.path.split("/")[:3]
    side = Selection(run, checkpoint)
    # Damaged taps are reported as damage.
    found = find(place, side, sample_set, skip=True)
    jobs = [job for job in as_stored(side, found) if unfinished.kind in job.keep]
    if not jobs or not is_here(place, side):
        return store_again(place, side)
    return f"run {extracting(place, side, **options_of(jobs[0]))}"


def as_json(found: DamageFound, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return the same for programs."""
    return {
        "checked": found.n_checked,
        "runs": len(found.runs),
        "unsealed": [{"run": r.run, "files": r.unsealed} for r in found.runs if r.unsealed],
        "bytes": found.n_bytes,
        "unfinished": [asdict(each) | {"sentence": str(each)} for each in found.unfinished],
        "damage": [
            asdict(each.damage)
            | {"sentence": str(each.damage), "repaired": each.repaired, "said": each.said}
            for each in outcomes
        ],
    }
