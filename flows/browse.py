"""What the stores of a workspace hold: collected for the commands that list and show it."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from allcnn.config import Selection
from allcnn.errors import ConfigError, RunError
from allcnn.stages import checkpoint_order
from allcnn.workspace import Workspace
from flows.stored import (
    Stored,
    StoredResult,
    StoredTap,
    key_of,
    kind_of,
    network_of,
    stored,
    stored_result,
    stored_tap,
)
from store import (
    Grams,
    GramStore,
    QueryError,
    Representation,
    RepresentationKey,
    Store,
    has_store,
    list_results,
    open_grams,
)
from store import open as open_store
from store.nodes import read_attributes
from store.query import parse_where
from store.schema import SampleSet
from store.usage import result_facts


@dataclass(frozen=True)
class Listing:
    """All that is stored, or what of it was asked for."""

    activations: tuple[Stored, ...]
    grams: tuple[Stored, ...]
    results: tuple[StoredResult, ...]


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

    Of results those are listed that compare what fits.
    """
    taps, grams = find(workspace, pattern, where)
    among = {key_of(tap) for tap in taps} | {key_of(each) for each in grams}
    listing = Listing(
        tuple(stored(group) for group in _networks(taps)),
        tuple(stored(group) for group in _networks(grams)),
        tuple(_results(workspace, pattern, among if where else None)),
    )
    if not (listing.activations or listing.grams or listing.results):
        raise RunError(_nothing(workspace, pattern, where))
    return listing


def describe_networks(
    workspace: Workspace, pattern: Selection, sample_set: str | None = None
) -> list[Network]:
    """Collect what is known of the networks that fit a pattern; RunError for none."""
    taps, grams = find(workspace, pattern, (), sample_set)
    kept = {key: list(group) for key, group in groupby(grams, network_of)}
    networks = dict.fromkeys([*map(network_of, taps), *kept])
    found = {key: list(group) for key, group in groupby(taps, network_of)}
    if not networks:
        raise RunError(_nothing(workspace, pattern, ()))
    return [
        _describe(found.get(key, []), kept.get(key, [])) for key in sorted(networks, key=_order)
    ]


def network_json(network: Network) -> dict[str, Any]:
    """Return JSON values, in which the sample set has its name too."""
    sample_set = network.sample_set.to_json() | {"name": network.sample_set.name}
    return asdict(network) | {"sample_set": sample_set}


def find(
    workspace: Workspace,
    pattern: Selection | None,
    where: Sequence[str],
    sample_set: str | None = None,
) -> tuple[list[Representation], list[Grams]]:
    """Open the activations and the kept Grams that fit, in the order of training."""
    filters = _filters(pattern, where, sample_set)
    stores: list[Store | GramStore] = []
    if has_store(workspace.activations):
        stores.append(open_store(workspace.activations))
    if has_store(workspace.grams):
        stores.append(open_grams(workspace.grams))
    found: list[Representation | Grams] = []
    refusals = []
    for each in stores:
        try:
            found += each.find(**filters)
        except QueryError as error:  # a name that only the other store may know
            refusals.append(error)
    if refusals and not found:
        raise refusals[0]
    found.sort(key=lambda one: _order(network_of(one)))
    return (
        [one for one in found if isinstance(one, Representation)],
        [one for one in found if isinstance(one, Grams)],
    )


def _order(network: tuple[str, str, str]) -> tuple[str, str, float, str]:
    """Sort checkpoints as they were trained, not by their letters."""
    sample_set, run, checkpoint = network
    return sample_set, run, checkpoint_order(checkpoint), checkpoint


def _filters(
    pattern: Selection | None, where: Sequence[str], sample_set: str | None
) -> dict[str, Any]:
    filters: dict[str, Any] = {}
    for text in where:
        name, value = parse_where(text)
        if name in filters:
            raise ConfigError(f"where compares {name} twice; join the values, as in seed=0,1")
        filters[name] = value
    named = {} if sample_set is None else {"sample_set": sample_set}
    if pattern:
        named |= {"run": pattern.run, "checkpoint": pattern.checkpoint, "tap": pattern.tap}
    for name, value in named.items():
        if name in filters and value != "*":
            raise ConfigError(f"{name} is in the pattern and in --where; leave one out")
        filters.setdefault(name, value)
    return filters


def _networks(found: Sequence[Representation | Grams]) -> list[list[Representation | Grams]]:
    """Group by network and kind, in the order of the network."""
    groups: dict[tuple[str, ...], list[Representation | Grams]] = {}
    for one in found:
        groups.setdefault(kind_of(one), []).append(one)
    return list(groups.values())


def _describe(taps: list[Representation], grams: list[Grams]) -> Network:
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
        taps=tuple(map(stored_tap, taps)),
        grams=tuple(stored(group) for group in _networks(grams)),
    )


def _results(
    workspace: Workspace, pattern: Selection | None, among: set[RepresentationKey] | None
) -> Iterable[StoredResult]:
    place = workspace.similarity
    for name in list_results(place) if has_store(place) else []:
        attributes = read_attributes(place / name) or {}
        facts = result_facts(place, name)
        if facts is None:
            raise RunError(f"result {place / name} is malformed; compute it again")
        keys = facts[1]
        if among is not None and among.isdisjoint(keys):
            continue
        if pattern is None or any(pattern.matches(k.run, k.checkpoint, k.tap) for k in keys):
            yield stored_result(place / name, attributes, keys)


def _nothing(workspace: Workspace, pattern: Selection | None, where: Sequence[str]) -> str:
    asked = " and ".join([*([str(pattern)] if pattern else []), *where])
    if not asked:
        return f"nothing is extracted yet in {workspace.root}; run 'allcnn extract RUN'"
    return f"nothing in {workspace.root} fits {asked}; 'allcnn store ls' shows what there is"
