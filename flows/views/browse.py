"""Collect what the stores of a workspace hold for the commands that list and show it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any, Final, Self

from allcnn.errors import ConfigError
from allcnn.settings.selection import Selection
from allcnn.similarity.method import Method
from allcnn.workspace.checkpoint_names import checkpoint_epoch
from allcnn.workspace.paths import Workspace
from flows.views.stored import (
    Facts,
    Files,
    digest_of,
    find_records,
    key_of,
    kind_of,
    network_of,
    nothing_fits,
    open_stores,
    stored,
    stored_tap,
)
from store import Grams, QueryError, Representation, has_store
from store.arrays.query import LEVELS, Query, Wanted, facts, parse_where
from store.maintenance.damage import METADATA, Damage, reason_of
from store.records.results import settings_of
from store.storage.paths import child_names

OF_RESULTS: Final[dict[str, Any]] = {
    "label": 0,
    **{name: each.kind() for name, each in Method.settings().items()},
}
"""Names that a result has itself, each with a value of its kind; others are of what it compares."""

OF_PROBES: Final[dict[str, Any]] = {"pool": ""}
"""Those of them that a probe has."""


@dataclass(frozen=True)
class Where:
    """A pattern and comparisons, which must all hold.

    Attributes:
        query: all of them.
        folders: those that folders answer by their names, so that no other is opened.
        of_networks: those that choose networks; a result or a probe is chosen by what it is about.
        of_results: those that a result or a probe answers itself.
        narrows: whether there is a comparison that chooses networks, beside the pattern.
    """

    query: Query
    folders: dict[str, Wanted]
    of_networks: Query
    of_results: Query
    narrows: bool

    @classmethod
    def parse(
        cls, pattern: Selection | None, texts: Sequence[str] = (), sample_set: str | None = None
    ) -> Self:
        """Read comparisons such as ``epoch>=5``; raises ConfigError for what compares nothing."""
        named: dict[str, Wanted] = {} if sample_set is None else {"sample_set": sample_set}
        named |= asdict(pattern) if pattern else {}
        compared: dict[str, Wanted] = {}
        try:
            for name, value in map(parse_where, texts):
                if name in compared:
                    raise ConfigError(
                        f"where compares {name} twice", remedy="join the values, as in seed=0,1"
                    )
                if named.get(name, "*") != "*":
                    raise ConfigError(
                        f"{name} is in the pattern and in --where", remedy="leave one out"
                    )
                compared[name] = value
            filters = compared | named | compared
            query = Query.parse(filters, in_signs=True)
        except QueryError as error:
            raise ConfigError(error.finding, "", error.wanted, error.remedy) from error
        return cls(
            query,
            {name: wanted for name, wanted in filters.items() if name.split("__")[0] in LEVELS},
            Query(tuple(c for c in query.conditions if c.name not in OF_RESULTS)),
            Query(tuple(c for c in query.conditions if c.name in OF_RESULTS)),
            any(name.split("__")[0] not in OF_RESULTS for name in compared),
        )

    def admits(self, record: object) -> bool:
        """Return whether this is a result or a probe that fits the comparisons of its own names."""
        return isinstance(record, dict) and self.of_results.matches(
            record | record.get("method", {})
        )


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
        wanted.query.check(workspace.root, _all_facts(workspace))
    files = Files()
    whole = _whole(chosen, wanted, files, damaged)
    listing: dict[str, list[Any]] = {
        "activations": _summed_up(whole, "activations", files),
        "grams": _summed_up(whole, "grams", files),
        "results": list(filter(wanted.admits, results)),
        "probes": list(filter(wanted.admits, probes)),
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
    whole = _whole(opened, wanted, files, damaged)
    if not (whole or damaged):
        raise nothing_fits(workspace, pattern, sample_set=sample_set)
    networks = [list(each) for _, each in groupby(whole, network_of)]
    return [_describe(each, files) for each in networks], damaged


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
    found: list[Representation | Grams] = []
    damaged: list[Damage] = []
    for kept in open_stores(workspace):
        scan = kept.scan(**folders)
        found += scan.found
        for path, error in scan.unreadable.items():
            damaged.append(Damage(kept.reader.form.kind, path, METADATA, reason_of(error)))
    return found, damaged


def _all_facts(workspace: Workspace) -> list[Facts]:
    own = (workspace.similarity, OF_RESULTS), (workspace.probes, OF_PROBES)
    of_records = [names for place, names in own if has_store(place) and child_names(place)]
    return [*map(_facts, _open(workspace, {})[0]), *of_records]


def _facts(one: Representation | Grams) -> Facts:
    return facts(one.meta, one.complete)


def _whole(
    chosen: Sequence[Representation | Grams], wanted: Where, files: Files, damaged: list[Damage]
) -> list[Representation | Grams]:
    """Return the activations and Grams that fit, in the order of training; note lost arrays."""
    whole = []
    for one in sorted(chosen, key=_order):
        if not wanted.query.matches(_facts(one)):
            continue
        usage = files.of(one)
        if usage is None or one.form.array not in usage.members:
            lost = f"it has no array {one.form.array!r}"
            damaged.append(Damage(one.form.kind, one.meta.key.path, METADATA, lost))
        else:
            whole.append(one)
    return whole


def _order(one: Representation | Grams) -> tuple[str, str, float, str]:
    """Sort checkpoints as they were trained, not by their letters."""
    sample_set, run, checkpoint = network_of(one)
    return sample_set, run, checkpoint_epoch(checkpoint), checkpoint


def _summed_up(found: Sequence[Representation | Grams], store: str, files: Files) -> list[Facts]:
    """Return the facts on what is in one store, summed up by network and kind."""
    groups: dict[tuple[str, ...], list[Representation | Grams]] = {}
    for one in found:
        if one.form.kind == store:
            groups.setdefault(kind_of(one), []).append(one)
    return [stored(group, files) for group in groups.values()]


def _describe(network: list[Representation | Grams], files: Files) -> Facts:
    key, meta = key_of(network[0]), network[0].meta
    return {
        "run": key.run,
        "checkpoint": key.checkpoint,
        "sample_set": meta.sample_set.to_json() | {"name": meta.sample_set.name},
        "checkpoint_digests": list(dict.fromkeys(map(digest_of, network))),
        "created_by": list(dict.fromkeys(one.meta.created_by for one in network)),
        "created_at": max(one.meta.created_at for one in network),
        "attributes": dict(meta.attributes),
        "taps": [stored_tap(one, files) for one in network if isinstance(one, Representation)],
        "grams": _summed_up(network, "grams", files),
    }
