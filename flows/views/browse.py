"""Collect what the stores of a workspace hold for the commands that list and show it."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any

from allcnn.settings.selection import Selection
from allcnn.workspace.checkpoint_names import checkpoint_epoch
from allcnn.workspace.paths import Workspace
from flows.views.not_found import nothing_fits
from flows.views.stored import (
    Facts,
    Files,
    find_records,
    key_of,
    kind_of,
    network_of,
    stored,
    stored_tap,
)
from flows.views.where import OF_PROBES, OF_RESULTS, Where
from store import Grams, GramStore, Representation, Store, has_store, open_grams
from store import open as open_store
from store.arrays.query import Wanted, facts
from store.maintenance.damage import METADATA, Damage, reason_of
from store.records.results import settings_of
from store.storage.paths import child_names


def list_stores(
    workspace: Workspace, pattern: Selection | None = None, where: Sequence[str] = ()
) -> dict[str, list[Any]]:
    """Collect what fits a pattern and comparisons such as ``epoch>=5``; RunError for nothing.

    Returns the facts on activations, grams, results and probes, and what is damaged. Results and
    probes are listed that are about what fits, and fit what is asked of their own names.
    """
    wanted = Where.parse(pattern, where)
    opened, damaged = _open(workspace, wanted.folders)
    chosen = [one for one in opened if wanted.of_networks.matches(_facts(one))]
    among = {key_of(one) for one in chosen} if wanted.narrows else None
    results = list(find_records(workspace.similarity, "similarity", pattern, among))
    probes = list(find_records(workspace.probes, "probes", pattern, among))
    if wanted.query.unsure(map(_facts, opened)).conditions:
        # Raises QueryError for a name that no network, no result and no probe has.
        wanted.query.check(workspace.root, list(_all_facts(workspace)))
    files = Files()
    taps, grams = _sorted_out(chosen, wanted, files, damaged)
    listing: dict[str, list[Any]] = {
        "activations": [stored(group, files) for group in _by_kind(taps)],
        "grams": [stored(group, files) for group in _by_kind(grams)],
        "results": [one for one in results if isinstance(one, dict) and wanted.admits(one)],
        "probes": [one for one in probes if isinstance(one, dict) and wanted.admits(one)],
        "damaged": [*damaged, *(e for e in (*results, *probes) if isinstance(e, Damage))],
    }
    if not any(listing.values()):
        raise nothing_fits(workspace, pattern, *where)
    return listing


def describe_networks(
    workspace: Workspace, pattern: Selection, sample_set: str | None = None
) -> tuple[list[Facts], list[Damage]]:
    """Collect the networks that fit a pattern, and what cannot be opened; RunError for nothing.

    A network is one checkpoint of one run on one sample set, with its taps and Grams.
    """
    wanted = Where.parse(pattern, (), sample_set)
    opened, damaged = _open(workspace, wanted.folders)
    files = Files()
    found, kept = _sorted_out(opened, wanted, files, damaged)
    if not (found or kept or damaged):
        raise nothing_fits(workspace, pattern, sample_set=sample_set)
    taps = {key: list(some) for key, some in groupby(found, network_of)}
    grams = {key: list(some) for key, some in groupby(kept, network_of)}
    keys = sorted({*taps, *grams}, key=_order)
    return [_describe(taps.get(key, []), grams.get(key, []), files) for key in keys], damaged


def listing_json(listing: dict[str, list[Any]]) -> Facts:
    """Return JSON values, in which results have the settings of their method by name."""
    results = [settings_of(each["method"]) | each for each in listing["results"]]
    for each in results:
        del each["method"]
    return listing | {"results": results, "damaged": list(map(asdict, listing["damaged"]))}


def _open(
    workspace: Workspace, folders: dict[str, Wanted]
) -> tuple[list[Representation | Grams], list[Damage]]:
    """Open what lies in the folders that were asked for; also return what cannot be opened."""
    stores: list[Store | GramStore] = []
    if has_store(workspace.activations):
        stores.append(open_store(workspace.activations))
    if has_store(workspace.grams):
        stores.append(open_grams(workspace.grams))
    found: list[Representation | Grams] = []
    damaged: list[Damage] = []
    for kept in stores:
        scan = kept.scan(**folders)
        found += scan.found
        for path, error in scan.unreadable.items():
            damaged.append(Damage(kept.reader.form.kind, path, METADATA, reason_of(error)))
    return found, damaged


def _all_facts(workspace: Workspace) -> Iterator[Facts]:
    yield from map(_facts, _open(workspace, {})[0])
    for place, own in ((workspace.similarity, OF_RESULTS), (workspace.probes, OF_PROBES)):
        if has_store(place) and child_names(place):
            yield own


def _facts(one: Representation | Grams) -> Facts:
    return facts(one.meta, one.complete)


def _sorted_out(
    chosen: Sequence[Representation | Grams], wanted: Where, files: Files, damaged: list[Damage]
) -> tuple[list[Representation], list[Grams]]:
    """Return activations and Grams that fit, in the order of training; note lost arrays."""
    taps: list[Representation] = []
    grams: list[Grams] = []
    for one in sorted(chosen, key=lambda one: _order(network_of(one))):
        if not wanted.query.matches(_facts(one)):
            continue
        usage = files.of(one)
        if usage is None or one.form.array not in usage.members:
            lost = f"it has no array {one.form.array!r}"
            damaged.append(Damage(one.form.kind, one.meta.key.path, METADATA, lost))
        elif isinstance(one, Grams):
            grams.append(one)
        else:
            taps.append(one)
    return taps, grams


def _order(network: tuple[str, str, str]) -> tuple[str, str, float, str]:
    """Sort checkpoints as they were trained, not by their letters."""
    sample_set, run, checkpoint = network
    return sample_set, run, checkpoint_epoch(checkpoint), checkpoint


def _by_kind(found: Sequence[Representation | Grams]) -> list[list[Representation | Grams]]:
    """Group by network and kind, in the order of the network."""
    groups: dict[tuple[str, ...], list[Representation | Grams]] = {}
    for one in found:
        groups.setdefault(kind_of(one), []).append(one)
    return list(groups.values())


def _describe(taps: list[Representation], grams: list[Grams], files: Files) -> Facts:
    both: list[Representation | Grams] = [*taps, *grams]
    key, sample_set = key_of(both[0]), both[0].meta.sample_set
    digests = [tap.meta.checkpoint_digest for tap in taps]
    digests += [each.key.checkpoint_digest for each in grams]
    return {
        "run": key.run,
        "checkpoint": key.checkpoint,
        "sample_set": sample_set.to_json() | {"name": sample_set.name},
        "checkpoint_digests": list(dict.fromkeys(digests)),
        "created_by": list(dict.fromkeys(one.meta.created_by for one in both)),
        "created_at": max(one.meta.created_at for one in both),
        "attributes": dict(both[0].meta.attributes),
        "taps": [stored_tap(tap, files) for tap in taps],
        "grams": [stored(group, files) for group in _by_kind(grams)],
    }
