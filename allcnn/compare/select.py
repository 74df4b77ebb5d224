"""Which representations a comparison is about: both of its sides, on one sample set."""

import itertools
from collections.abc import Iterable

import store
from allcnn.advice import is_extracted, replace_stored, store_missing
from allcnn.compare.candidates import (
    Found,
    Meta,
    Sides,
    Source,
    by_network,
    find,
    missing_tap,
    network_of,
    preference,
    sources_of,
)
from allcnn.compare.current import digest_or_none, is_current
from allcnn.compare.diagnose import alike, why_not
from allcnn.compare.reextract import examples_of
from allcnn.definitions.bounds import MINIBATCH
from allcnn.errors import ComparisonError
from allcnn.settings.comparison import Comparison
from allcnn.settings.selection import Selection
from allcnn.workspace import run_record
from allcnn.workspace.checkpoint_names import checkpoint_epoch
from allcnn.workspace.paths import Workspace
from store import RepresentationKey


def choose(workspace: Workspace, job: Comparison) -> Sides:
    """Find both sides on the sample set asked for, or on the largest that both have whole.

    Sets of training examples are chosen where there are no others.

    Raises ComparisonError where a side is not stored, or is stored on other sample sets, and
    where what is kept cannot give what is asked.
    """
    if not (store.has_store(workspace.activations) or store.has_store(workspace.grams)):
        raise ComparisonError(
            f"nothing is extracted yet in {workspace.root}",
            remedy=store_missing(workspace, job.rows),
        )
    rows = _stored(workspace, job.rows, job)
    columns = rows if job.columns == job.rows else _stored(workspace, job.columns, job)
    wanted = [job.sample_set] if job.sample_set else [*rows]
    common = [name for name in wanted if name in rows and name in columns]
    if not common:
        asked = f", and {job.sample_set} was asked for" if job.sample_set else ""
        found = f"{job.rows} is stored on {', '.join(rows)}"
        if columns is not rows:
            found += f", {job.columns} on {', '.join(columns)}"
        stored = [s.meta for s in itertools.chain(*rows.values(), *columns.values())]
        raise ComparisonError(
            f"{found}{asked}",
            remedy=(
                f"only representations of the same sample set compare:"
                f" {alike(workspace, stored, job.sample_set)}"
            ),
        )
    chosen = max(common, key=lambda name: preference(rows[name][0].meta.sample_set))
    n_samples = rows[chosen][0].meta.n_samples
    if n_samples < MINIBATCH.least:
        raise ComparisonError(
            f"{chosen} has {n_samples} examples, and HSIC needs {MINIBATCH.least}",
            remedy="store more",
        )
    sides = rows[chosen], columns[chosen]
    metas = [source.meta for side in sides for source in side]
    _check_one_sample_set(metas)
    stale = left_behind(workspace, metas)
    left = tuple([s for s in side if s.network not in stale] for side in sides)
    if stale and (job.unusable == "refuse" or not all(left)):
        raise ComparisonError(next(iter(stale.values())))
    return left[0], left[1]


def _check_one_sample_set(metas: list[Meta]) -> None:
    """Refuse other examples under one name, which holds the beginning of their digest alone."""
    first = metas[0]
    for meta in metas:
        if meta.sample_set != first.sample_set:
            raise ComparisonError(
                f"{meta.of} is of {meta.sample_set}, and {first.of} of {first.sample_set}",
                remedy=(
                    "only representations of the same sample set compare, so give one of them"
                    " another name"
                ),
            )


def left_behind(workspace: Workspace, stored: Iterable[Meta]) -> dict[Selection, str]:
    """Say which networks do not belong to the run of their name now, and what to do about each."""
    stale: dict[Selection, str] = {}
    for meta in stored:
        network, extracted = network_of(meta.of), is_extracted(meta.attributes)
        how = {meta.checkpoint_digest}, meta.created_at
        if network not in stale and not is_current(workspace, network, *how, extracted=extracted):
            stale[network] = _why_left(workspace, meta)
    return stale


def _why_left(workspace: Workspace, meta: Meta) -> str:
    network, begun_at = network_of(meta.of), run_record.begun_at(workspace, meta.of.run)
    before = f", before run {network.run!r} was begun at {begun_at}"
    what = f"{meta.of} was stored at {meta.created_at}"
    what += f"{before if meta.created_at < begun_at else ''}, and"
    if digest_or_none(workspace, network) is None:
        return (
            f"{what} nothing shows whether it is of that run, as checkpoint"
            f" {network.checkpoint!r} is not there to be read; finish or restore the run, or"
            " give one of them another name"
        )
    if not is_extracted(meta.attributes):
        return (
            f"{what} it was imported; import it under another --run, or train that run with"
            " another --prefix"
        )
    examples = examples_of(meta.sample_set)
    again = replace_stored(workspace, network, meta.sample_set.name, examples)
    return (
        f"{what} its checkpoint is another one, so that this is of an earlier run of that"
        f" name; {again}"
    )


def _stored(workspace: Workspace, side: Selection, job: Comparison) -> dict[str, list[Source]]:
    """Return what a selection finds, by sample sets that hold all its networks whole."""
    skips = job.unusable == "skip"
    found = find(workspace, side, job.sample_set, skip=skips)
    if not found and job.sample_set:
        # Elsewhere it may be stored, which the error then says.
        found = find(workspace, side, None, skip=skips)
    if not found:
        raise ComparisonError(
            f"{workspace.root} holds no activations or Grams of {side}",
            remedy=store_missing(workspace, side),
        )
    sets: dict[str, list[Found]] = {}
    for each in found:
        sets.setdefault(each.key.sample_set, []).append(each)
    networks = {network_of(each.key) for each in found}
    whole = {}
    for name, members in sets.items():
        sources = [
            source
            for taps in by_network(members).values()
            if missing_tap(taps, side) is None
            for source in sources_of(taps, job)
        ]
        has_all = len(sources) == len(members) and {s.network for s in sources} == networks
        if has_all or (skips and sources):
            whole[name] = sorted(
                sources, key=lambda s: (*_order(s.key), s.meta.tap_index, s.key.tap)
            )
    if not whole or (job.sample_set in sets and job.sample_set not in whole):
        raise ComparisonError(why_not(workspace, side, job, sets))
    return whole


def _order(key: RepresentationKey) -> tuple[str, float, str]:
    return key.run, checkpoint_epoch(key.checkpoint), key.checkpoint
