"""Find data in the stores of a workspace that can be deleted, and say why."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Literal

from allcnn.errors import AllcnnError
from allcnn.extract import load_source
from allcnn.maintenance.inventory import KINDS, Inventory, Removal, check_mounted
from allcnn.maintenance.recompute import Recomputation
from allcnn.settings.selection import EVERYTHING, Selection
from allcnn.similarity.kernels import served_by
from allcnn.workspace import run_record
from allcnn.workspace.paths import Workspace
from store import Grams, Representation, SampleSet, StoreError, has_store
from store.maintenance.remove import abandoned, is_held
from store.maintenance.usage import Usage, networks
from store.storage.paths import child_names
from store.zarrfiles.layout import NAMED

Reason = Literal["superseded", "abandoned", "orphaned"]

Network = tuple[str, ...]
"""A sample set, a run and a checkpoint."""


@dataclass(frozen=True)
class Findings:
    """Data that can be deleted; and activations whose Grams are kept, but which must stay.

    Their checkpoint or their examples are not here, or those Grams are damaged.
    """

    removable: tuple[Removal, ...]
    irreplaceable: tuple[Usage, ...]


def find_garbage(
    inventory: Inventory,
    reasons: Sequence[Reason],
    side: Selection,
    *,
    spared: Sequence[Selection],
    before: float,
) -> Findings:
    """Find what can be deleted, among what ``side`` names.

    Superseded are activations of which all taps have whole Grams of one kind, of the same
    checkpoint and dtype. Those that could not be extracted again stay, as their checkpoint or data
    set is not here or is another one; so do ``spared`` ones, and those with a damaged Gram.
    Abandoned are partial writes that no living writer holds and that last changed ``before`` a
    POSIX timestamp, and files left by interrupted writes, which only the widest selection names.
    Orphaned are results and probes of a run whose folder and stored data are gone.
    """
    found: list[Removal] = []
    irreplaceable: list[Usage] = []
    if "orphaned" in reasons:
        found += _orphaned(inventory, side)
    if "abandoned" in reasons:
        found += _abandoned(inventory, side, before)
    if "superseded" in reasons:
        superseded, irreplaceable = _superseded(inventory, side, spared)
        found += superseded
    garbage: dict[tuple[str, str], Removal] = {}
    for each in found:  # each once, for the first reason
        garbage.setdefault((each.found.kind, each.found.path), each)
    return Findings(tuple(garbage.values()), tuple(irreplaceable))


def _superseded(
    inventory: Inventory, side: Selection, spared: Sequence[Selection]
) -> tuple[list[Removal], list[Usage]]:
    garbage: list[Removal] = []
    irreplaceable: list[Usage] = []
    place = inventory.workspace.activations
    chosen = set(inventory.select("activations", side))
    chosen.difference_update(*(inventory.select("activations", each) for each in spared))
    for names, groups in networks(inventory.select("activations", EVERYTHING)):
        wanted = [each for each in groups if each in chosen]
        kinds = _kept_kinds(inventory, names) if wanted else []
        if not kinds or any(is_held(place, each) for each in groups):
            continue
        can_be_extracted = _can_be_extracted(inventory, names)
        whole = [kind for kind in kinds if can_be_extracted and _is_undamaged(kind)]
        if whole:
            note = "kept: " + ", ".join(map(_described, whole))
            garbage += [Removal(each, "superseded", note) for each in wanted]
        else:
            irreplaceable += wanted
    return garbage, irreplaceable


def _kept_kinds(inventory: Inventory, names: Network) -> list[list[Grams]]:
    """Return the kinds of Grams that are complete for every stored tap of a network."""
    if not has_store(inventory.workspace.grams):
        return []
    taps = inventory.opened("activations", names) or {}
    kept: dict[str, list[Grams]] = {}
    for each in (inventory.opened("grams", names) or {}).values():
        tap = taps.get(each.key.of.path)
        if tap is not None and each.complete and _is_of(each, tap):
            kept.setdefault(each.key.variant, []).append(each)
    return [kind for _, kind in sorted(kept.items()) if len(kind) == len(taps)]


def _is_undamaged(kind: list[Grams]) -> bool:
    """Return whether Grams are what was committed, having read them."""
    try:
        return all(each.check(block) is None for each in kind for block in each.commits)
    except (StoreError, OSError):
        return False


def _is_of(grams: Grams, tap: Representation) -> bool:
    """Return whether Grams are those of the activations that are stored now."""
    key, meta = grams.key, tap.meta
    same_rows = not tap.complete or grams.rows_digest in (None, tap.rows_digest)
    return same_rows and (key.checkpoint_digest, key.dtype) == (meta.checkpoint_digest, meta.dtype)


def _described(grams: list[Grams]) -> str:
    key = grams[0].key
    pooled = " pooled" if key.pool == "mean" else ""
    return f"{served_by(key.kernel)}{pooled} Grams, minibatches of {key.batch_size}"


def _can_be_extracted(inventory: Inventory, names: Network) -> bool:
    workspace, (sample_set, run, name) = inventory.workspace, names
    taps = (inventory.opened("activations", names) or {}).values()
    if {tap.meta.checkpoint_digest for tap in taps} != {readable_digest(workspace, run, name)}:
        return False
    # Data are loaded once, for all networks.
    question = "samples", sample_set, _data_of(workspace, run)
    samples = workspace.once(question, partial(current_samples, workspace, names))
    return all(tap.meta.sample_set == samples for tap in taps)


def _data_of(workspace: Workspace, run: str) -> tuple[str, int] | None:
    try:
        config = run_record.read_record(workspace, run).config
    except AllcnnError:
        return None
    return config.dataset, config.image_size


def current_samples(workspace: Workspace, names: Network) -> SampleSet | None:
    """Return what the data set gives for a sample set now, or None where it is not here."""
    try:
        return Recomputation(workspace, *names).samples.sample_set
    except (AllcnnError, StoreError, OSError):
        return None


def readable_digest(workspace: Workspace, run: str, name: str) -> str | None:
    """Return the digest of a checkpoint, or None where its variables cannot be read whole.

    Nothing else brings back what is removed.
    """
    try:
        return load_source(workspace, run, name).digest
    except AllcnnError:
        return None


def _abandoned(inventory: Inventory, side: Selection, before: float) -> Iterator[Removal]:
    for kind in KINDS:
        found = inventory.found[kind] if side == EVERYTHING else inventory.select(kind, side)
        place = inventory.workspace.store(kind)
        for each in abandoned(place, list(found), before, inventory.opened):
            yield Removal(each, "abandoned", "left of a file" if each.is_file else "partial")


def _orphaned(inventory: Inventory, side: Selection) -> Iterator[Removal]:
    known = _known_runs(inventory)
    for each in (found for kind in NAMED for found in inventory.select(kind, side)):
        facts = inventory.facts(each)
        if facts and (gone := sorted({key.run for key in facts[1]} - known)):
            yield Removal(each, "orphaned", "gone: " + ", ".join(gone))


def _known_runs(inventory: Inventory) -> set[str]:
    """Return the runs that have a folder, or anything in a store.

    By names alone, so that what is damaged or linked here from elsewhere is not taken for gone.
    """
    workspace = inventory.workspace
    check_mounted(runs := workspace.root / "runs")
    stores = product((workspace.activations, workspace.grams), workspace.sample_sets())
    return set[str]().union(*map(child_names, [runs, *(place / name for place, name in stores)]))
