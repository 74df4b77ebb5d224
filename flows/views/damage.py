"""Look through the stores and runs of a workspace, and show what was found."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
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
from flows.views.not_found import nothing_fits
from flows.views.progress import Progress
from store import has_store
from store.maintenance.damage import Damage, Unfinished
from store.maintenance.verify import n_expected, verify
from store.model.names import readable
from store.storage.paths import child_names

Examine = Callable[[Workspace, str, str], Iterator[CheckedRun]]
"""Looks through the runs and checkpoints that fit two patterns."""

TapsOf = Callable[[Workspace, str], Sequence[str]]


@dataclass
class DamageFound:
    """What a look through a workspace found.

    Attributes:
        runs: each that was looked through, with its checkpoints.
        n_checked: representations, Grams of them, results and probes.
        n_bytes: of values that were read.
        damage: all that is damaged in stores.
        unfinished: what is missing without being damaged.
    """

    runs: Sequence[CheckedRun]
    n_checked: int = 0
    n_bytes: int = 0
    damage: list[Damage] = field(default_factory=list)
    unfinished: list[Unfinished] = field(default_factory=list)

    @property
    def run_damage(self) -> list[RunDamage]:
        """All that is damaged in runs."""
        return [each for run in self.runs for each in run.damage]


def look_through(
    place: Workspace,
    side: Selection | None,
    examine: Examine | None = None,
    taps_of: TapsOf = lambda *_: (),
) -> DamageFound:
    """Look through all stores and runs of a workspace, or through what fits a pattern of each.

    ``taps_of`` returns the taps of a run's network, by which those are named that are lost.
    """
    side = side or EVERYTHING
    present = {kind: path for kind in KINDS if has_store(path := place.store(kind))}
    runs = _runs(place, side, examine)
    if not (present or runs):
        raise nothing_fits(place)
    found = DamageFound(runs, n_bytes=sum(run.n_bytes for run in runs))
    known = partial(taps_of, place)
    totals = {kind: n_expected(path, kind) for kind, path in present.items()}
    with Progress(list(totals.values())) as progress:
        for kind, path in present.items():
            n_before = found.n_checked
            with progress.step(f"verifying {kind}") as report:
                for checked in verify(path, kind, taps_of=known, **asdict(side)):
                    found.n_checked += checked.is_data
                    found.n_bytes += checked.n_bytes
                    found.damage += checked.damage
                    found.unfinished += checked.unfinished
                    n_here = min(found.n_checked - n_before, totals[kind])
                    report(n_here, totals[kind], readable(checked.path))
    if side != EVERYTHING and not (found.n_checked or found.damage or found.unfinished or runs):
        raise nothing_fits(place, side)
    return found


def _runs(place: Workspace, side: Selection, examine: Examine | None) -> list[CheckedRun]:
    """Look through the runs; a pattern of taps names none."""
    if examine is None or side.tap != "*":
        return []
    found, n_all = [], len(child_names(place.root / "runs"))
    with Progress([n_all]) as progress, progress.step("verifying runs") as report:
        for checked in examine(place, side.run, side.checkpoint):
            found.append(checked)
            report(len(found), n_all, checked.run)
    return found


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
