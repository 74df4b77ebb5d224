"""What the stores of a workspace hold: collected for the commands that list and show it."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from allcnn.settings.selection import Selection
from allcnn.workspace.checkpoint_names import checkpoint_order
from allcnn.workspace.paths import Workspace
from flows.views.not_found import nothing_fits, of_option
from flows.views.stored import (
    Files,
    Stored,
    StoredTap,
    key_of,
    kind_of,
    network_of,
    stored,
    stored_tap,
)
from flows.views.stored_results import StoredProbe, StoredResult, find_probes, find_results
from flows.views.where import OF_PROBES, OF_RESULTS, Facts, Where
from store import (
    Grams,
    GramStore,
    Representation,
    Store,
    has_store,
    open_grams,
)
from store import open as open_store
from store.arrays.query import Wanted, facts
from store.maintenance.damage import METADATA, Damage, reason_of
from store.model.schema import SampleSet
from store.records.results import settings_of
from store.storage.paths import child_names


@dataclass(frozen=True)
class Listing:
    """All that is stored, or what of it was asked for, and what of that cannot be opened."""

    activations: tuple[Stored, ...]
    grams: tuple[Stored, ...]
    results: tuple[StoredResult, ...]
    probes: tuple[StoredProbe, ...]
    damaged: tuple[Damage, ...]


@dataclass(frozen=True)
class Found:
    """Activations and Grams that fit, in the order of training, and what cannot be opened."""

    taps: list[Representation]
    grams: list[Grams]
    damaged: list[Damage]
    files: Files


@dataclass(frozen=True)
class Network:
    """One checkpoint of one run on one sample set: its taps and the Grams that are kept of it."""

    run: str
    checkpoint: str
    sample_set: SampleSet
    checkpoint_digests: tuple[str, ...]
    created_by: tuple[str, ...]
    created_at: str
    attributes: dict[str, Any]
    taps: tuple[StoredTap, ...]
    grams: tuple[Stored, ...]


def list_stores(
    workspace: Workspace, pattern: Selection | None = None, where: Sequence[str] = ()
) -> Listing:
    """Collect what fits a pattern and comparisons such as ``epoch>=5``; RunError for nothing.

    Of results and probes those are listed that are about what fits, and fit what is asked of their
    own names.
    """
    wanted = Where.parse(pattern, where)
    opened = _open(workspace, wanted.folders)
    chosen = [one for one in opened.found if wanted.of_networks.matches(_facts(one))]
    among = {key_of(one) for one in chosen} if wanted.narrows else None
    results = list(find_results(workspace.similarity, pattern, among))
    probes = list(find_probes(workspace.probes, pattern, among))
    _check_names(workspace, wanted, opened)
    found = _sorted_out(chosen, wanted, opened.damaged)
    unreadable = [one for one in (*results, *probes) if isinstance(one, Damage)]
    listing = Listing(
        tuple(stored(group, found.files) for group in _networks(found.taps)),
        tuple(stored(group, found.files) for group in _networks(found.grams)),
        tuple(one for one in results if isinstance(one, StoredResult) and wanted.admits(one)),
        tuple(one for one in probes if isinstance(one, StoredProbe) and wanted.admits(one)),
        (*found.damaged, *unreadable),
    )
    if not any(vars(listing).values()):
        raise nothing_fits(workspace, [pattern, *where])
    return listing


def describe_networks(
    workspace: Workspace, pattern: Selection, sample_set: str | None = None
) -> tuple[list[Network], list[Damage]]:
    """Collect the networks that fit a pattern, and what cannot be opened; RunError for nothing."""
    wanted = Where.parse(pattern, (), sample_set)
    opened = _open(workspace, wanted.folders)
    found = _sorted_out(opened.found, wanted, opened.damaged)
    kept = {key: list(group) for key, group in groupby(found.grams, network_of)}
    taps = {key: list(group) for key, group in groupby(found.taps, network_of)}
    if not (taps or kept or found.damaged):
        raise nothing_fits(workspace, [pattern, of_option("sample-set", sample_set)])
    keys = sorted({*taps, *kept}, key=_order)
    return [
        _describe(taps.get(key, []), kept.get(key, []), found.files) for key in keys
    ], found.damaged


def listing_json(listing: Listing) -> dict[str, Any]:
    """Return JSON values, in which results have the settings of their method by name."""
    values = asdict(listing)
    results = [settings_of(each.pop("method")) | each for each in values["results"]]
    return values | {"results": results}


def network_json(network: Network) -> dict[str, Any]:
    """Return JSON values, in which the sample set has its name too."""
    sample_set = network.sample_set.to_json() | {"name": network.sample_set.name}
    return asdict(network) | {"sample_set": sample_set}


@dataclass(frozen=True)
class _Opened:
    """What lies in the folders that were asked for."""

    found: list[Representation | Grams]
    damaged: list[Damage]


def _open(workspace: Workspace, folders: dict[str, Wanted]) -> _Opened:
    stores: list[Store | GramStore] = []
    if has_store(workspace.activations):
        stores.append(open_store(workspace.activations))
    if has_store(workspace.grams):
        stores.append(open_grams(workspace.grams))
    opened = _Opened([], [])
    for kept in stores:
        scan = kept.scan(**folders)
        opened.found.extend(scan.found)
        opened.damaged.extend(
            Damage(kept.reader.form.kind, path, METADATA, reason_of(error))
            for path, error in scan.unreadable.items()
        )
    return opened


def _check_names(workspace: Workspace, wanted: Where, opened: _Opened) -> None:
    """Raise QueryError for a name that no network, no result and no probe has."""

    def everything() -> Iterator[Facts]:
        yield from map(_facts, _open(workspace, {}).found)
        for place, own in ((workspace.similarity, OF_RESULTS), (workspace.probes, OF_PROBES)):
            if has_store(place) and child_names(place):
                yield own

    wanted.check(workspace.root, map(_facts, opened.found), everything)


def _facts(one: Representation | Grams) -> Facts:
    return facts(one.meta, one.complete)


def _sorted_out(
    chosen: Sequence[Representation | Grams], wanted: Where, damaged: list[Damage]
) -> Found:
    """Tell activations, Grams and what has lost its array apart."""
    found = [one for one in chosen if wanted.query.matches(_facts(one))]
    taps: list[Representation] = []
    grams: list[Grams] = []
    files = Files()
    for one in sorted(found, key=lambda one: _order(network_of(one))):
        usage = files.of(one)
        if usage is None or one.form.array not in usage.members:
            lost = f"it has no array {one.form.array!r}"
            damaged.append(Damage(one.form.kind, one.meta.key.path, METADATA, lost))
        elif isinstance(one, Grams):
            grams.append(one)
        else:
            taps.append(one)
    return Found(taps, grams, damaged, files)


def _order(network: tuple[str, str, str]) -> tuple[str, str, float, str]:
    """Sort checkpoints as they were trained, not by their letters."""
    sample_set, run, checkpoint = network
    return sample_set, run, checkpoint_order(checkpoint), checkpoint


def _networks(found: Sequence[Representation | Grams]) -> list[list[Representation | Grams]]:
    """Group by network and kind, in the order of the network."""
    groups: dict[tuple[str, ...], list[Representation | Grams]] = {}
    for one in found:
        groups.setdefault(kind_of(one), []).append(one)
    return list(groups.values())


def _describe(taps: list[Representation], grams: list[Grams], files: Files) -> Network:
    both: list[Representation | Grams] = [*taps, *grams]
    key = key_of(both[0])
    digests = [tap.meta.checkpoint_digest for tap in taps]
    digests += [each.key.checkpoint_digest for each in grams]
    return Network(
        run=key.run,
        checkpoint=key.checkpoint,
        sample_set=both[0].meta.sample_set,
        checkpoint_digests=tuple(dict.fromkeys(digests)),
        created_by=tuple(dict.fromkeys(one.meta.created_by for one in both)),
        created_at=max(one.meta.created_at for one in both),
        attributes=dict(both[0].meta.attributes),
        taps=tuple(stored_tap(tap, files) for tap in taps),
        grams=tuple(stored(group, files) for group in _networks(grams)),
    )
