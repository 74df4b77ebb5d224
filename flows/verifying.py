"""Looking through the stores of a workspace: how far it is, and what is shown of it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from allcnn.commands import command
from allcnn.config import Selection
from allcnn.workspace import Workspace
from flows.listing import size
from flows.nothing import nothing_fits
from flows.progress import Progress
from store import has_store
from store.damage import Damage, Unfinished
from store.layout import Kind
from store.verify import n_expected, verify


@dataclass(frozen=True)
class Found:
    """What a look through a workspace found.

    Attributes:
        n_checked: representations, Grams of them, results and probes.
        n_bytes: of values that were read.
        damage: all that is damaged.
        unfinished: what is missing without being damaged.
    """

    n_checked: int
    n_bytes: int
    damage: tuple[Damage, ...]
    unfinished: tuple[Unfinished, ...] = ()


@dataclass(frozen=True)
class Told:
    """A damage, and what became of it: None where nothing was tried."""

    damage: Damage
    repaired: bool | None = None
    said: str = ""


def look_through(place: Workspace, side: Selection | None) -> Found:
    """Look through all stores of a workspace, or through what fits a pattern of each."""
    stores: dict[Kind, Any] = {
        "activations": place.activations,
        "grams": place.grams,
        "similarity": place.similarity,
        "probes": place.probes,
    }
    present = {kind: path for kind, path in stores.items() if has_store(path)}
    if not present:
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
                for checked in verify(path, kind, **names):
                    n_here += checked.is_data
                    n_bytes += checked.n_bytes
                    damage += checked.damage
                    unfinished += checked.unfinished
                    report(min(n_here, totals[kind]), totals[kind], checked.path)
                n_checked += n_here
    if side is not None and not n_checked and not damage and not unfinished:
        raise nothing_fits(place, [side])
    return Found(n_checked, n_bytes, tuple(damage), tuple(unfinished))


def report_lines(
    place: Workspace, found: Found, told: Sequence[Told], advice: Sequence[str]
) -> list[str]:
    """Return a line for each damage, and one for all; advice goes with what is unfinished."""
    lines = [f"unfinished: {each}" for each in found.unfinished]
    lines += [*advice, ""] if lines else []
    for each in told:
        lines.append(str(each.damage))
        if each.repaired is not None:
            lines.append(f"  {'repaired' if each.repaired else 'not repaired'}: {each.said}")
    left = sum(not each.repaired for each in told)
    looked = f"{found.n_checked} representations, Grams, results and probes, {size(found.n_bytes)}"
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
        "bytes": found.n_bytes,
        "unfinished": [asdict(each) | {"sentence": str(each)} for each in found.unfinished],
        "damage": [
            asdict(each.damage)
            | {"sentence": str(each.damage), "repaired": each.repaired, "said": each.said}
            for each in told
        ],
    }
