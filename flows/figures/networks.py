"""Figures of several networks, or of one in several ways: depths, seeds, classes, invariances."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

import store
from allcnn.advice import store_missing
from allcnn.commands import command
from allcnn.compare import SimilarityResult, describe, network_of
from allcnn.compare.candidates import find, preference
from allcnn.compare.identification import check_excluded, identify_layers
from allcnn.compare.reextract import store_whole
from allcnn.compare.select import left_behind
from allcnn.drawing import matrices
from allcnn.drawing.accuracy import Accuracies, correspondence_bars, depths, probe_curves
from allcnn.drawing.canvas import verbatim
from allcnn.drawing.panel import Panel
from allcnn.errors import AllcnnError, ComparisonError, ConfigError, RunError
from allcnn.networks.architectures import Tiny10
from allcnn.settings.comparison import Comparison
from allcnn.settings.selection import Selection
from allcnn.similarity.invariance import check_invariance
from allcnn.similarity.kernels import Linear
from allcnn.similarity.layer_identification import between_networks, spread
from allcnn.similarity.method import Pool
from allcnn.workspace import run_record
from allcnn.workspace.paths import Workspace
from flows.figures.pairs import words_of
from flows.figures.results import Sources
from flows.figures.style import Drawn, Look
from flows.reporting.facts import is_outdated, records
from store import ProbeResult, Representation

TABLE_2: Final = {
    "linear CKA": 0.993,
    "RBF 0.2 CKA": 0.806,
    "RBF 0.4 CKA": 0.991,
    "RBF 0.8 CKA": 0.993,
    "linear HSIC": 0.222,
}
"""Share of layers found by maximum similarity: ten Tiny-10 trained on CIFAR-10, without logits."""

TABLE_2_SOURCE: Final = "Kornblith et al. 2019, Table 2"


def draw_depths(sources: Sources, look: Look, networks: Sequence[Selection]) -> Drawn:
    """Draw networks side by side, and below each what probes find in its layers."""
    jobs = [sources.job(network) for network in networks]
    results = sources.results(jobs)
    probes = stored_probes(sources.place)
    shown: list[tuple[Panel, Accuracies | None]] = []
    for network, result in zip(networks, results, strict=True):
        # Of the same representations as are compared.
        found = accuracies(
            probes,
            network,
            sample_set=result.rows[0].sample_set,
            taps=[key.tap for key in result.rows],
            pool=sources.method.pool,
        )
        shown.append((look.panel(result, str(network)), found))
    figure = depths(shown, look.titled(describe.method(results[0])), look.style)
    return Drawn(figure, ("depths", *map(str, networks), *words_of(jobs[0])[2:]))


def draw_seeds(sources: Sources, look: Look, pattern: Selection) -> Drawn:
    """Draw mean and spread over all pairs of different networks; one pair has no spread."""
    look.check_numbers(pattern)
    job = sources.job(pattern)
    result = sources.result(job)
    names = [str(network_of(key)) for key in result.rows]
    taps = [key.tap for key in result.rows]
    try:
        found = between_networks(result.values, names, taps)
    except ValueError as error:
        raise ComparisonError(str(error)) from error
    layers = look.layers(list(dict.fromkeys(taps)))
    panel = Panel(
        found.mean,
        layers,
        layers,
        f"mean of {found.n} pairs" if found.n > 1 else "one pair, which has no spread",
        "one network",
        "another network",
        measure=result.title,
        limits=result.limits,
    )
    title = look.titled(
        f"{len(set(names))} networks {verbatim(str(pattern))}: {describe.method(result)}"
    )
    if found.n > 1:
        figure = matrices.mean_and_spread(panel, found.deviation, title, look.style)
    else:
        figure = matrices.grid([panel], title, look.style)
    return Drawn(figure, ("seeds", *words_of(job)))


def draw_classes(sources: Sources, look: Look, rows: Selection, columns: Selection | None) -> Drawn:
    """Draw one matrix a class, their mean and spread, and that of all classes together."""
    job = sources.job(rows, columns)
    try:
        names = run_record.read_record(sources.place, rows.run).class_names
    except AllcnnError:  # removed, or imported without its run
        names = ()
    results = _of_classes(sources, job, len(names))
    # On the sample set of the classes, whatever larger ones there are.
    whole = sources.result(replace(job, sample_set=results[0].rows[0].sample_set))
    found = spread([result.values for result in results])
    titles = dict(enumerate(names))
    panels = [
        look.panel(each, titles.get(int(each.label or 0), f"class {each.label}"))
        for each in results
    ]
    figure = matrices.classes(
        panels,
        replace(look.panel(whole, "mean of classes"), matrix=found.mean),
        look.panel(whole, "all classes together"),
        found.deviation,
        look.titled(describe.method(replace(whole, label=None))),
        look.style,
    )
    return Drawn(figure, ("classes", *words_of(job)))


def _of_classes(sources: Sources, job: Comparison, n_classes: int) -> list[SimilarityResult]:
    """Return a result a class: the stored ones where those are all, or else computed ones.

    Where nothing is left to compute from, the stored ones.
    """
    labels = sources.catalogue.labels(job, job.method)
    stored = [replace(job, label=label) for label in labels]
    if labels and len(labels) == n_classes:
        return sources.results(stored)
    try:
        return sources.results([replace(job, label="each")])
    except ComparisonError:
        if len(labels) < 2:
            raise
        return sources.results(stored)


def draw_layers(sources: Sources, look: Look, pattern: Selection, exclude: Sequence[str]) -> Drawn:
    """Draw how often layers are found by each way of comparing.

    The published numbers are drawn beside Tiny-10 trained on CIFAR-10, whose layers are compared
    whole and all but the logits.
    """
    linear = sources.job(pattern, methods=(replace(sources.method, kernel=Linear()),))
    results = sources.results([linear, sources.job(pattern)])
    check_excluded(results[0].rows, exclude)
    try:
        found = identify_layers(results, exclude)
    except ValueError as error:
        raise ComparisonError(str(error)) from error
    # HSIC last, as it is another measure.
    ways = sorted(found, key=lambda way: way.endswith("HSIC"))
    some = found[ways[0]]
    title = f"{some.n_layers} layers, {some.n_pairs} ordered pairs of {verbatim(str(pattern))}"
    figure = correspondence_bars(
        {way: found[way].accuracy for way in ways},
        TABLE_2 if _is_table_2(sources, results[0], exclude) else {},
        1 / some.n_layers,
        source=TABLE_2_SOURCE,
        title=look.titled(title),
        style=look.style,
    )
    words = [word for word in words_of(linear) if word != linear.method.kernel.slug]
    first, *others = (method.kernel for method in sources.methods)
    kernels = "_".join([first.slug, *(each.slug.removeprefix(each.name) for each in others)])
    return Drawn(figure, ("layers", *words, kernels))


def _is_table_2(sources: Sources, result: SimilarityResult, exclude: Sequence[str]) -> bool:
    """Return whether a figure asks the question of the published table, as far as runs show."""
    taps = {key.tap for key in result.rows}
    if sources.method.pool != "whole" or {*exclude} & taps != {"logits"}:
        return False
    networks = {network_of(key) for key in result.rows}
    try:
        configs = [run_record.read_record(sources.place, each.run).config for each in networks]
    except AllcnnError:  # removed, or imported: nothing shows what network it is
        return False
    # However long they were trained.
    return all(network.checkpoint == "final" for network in networks) and all(
        (config.dataset, config.image_size, config.architecture) == ("cifar10", 32, Tiny10(1.0))
        for config in configs
    )


def draw_probes(sources: Sources, look: Look, networks: Sequence[Selection]) -> Drawn:
    """Draw the accuracy of linear probes along the layers, a line a network."""
    place = sources.place
    probes = stored_probes(place)
    found: dict[str, Accuracies] = {}
    for network in networks:
        one, name = accuracies(probes, network, pool="whole"), str(network)
        if one is None:
            one, name = accuracies(probes, network, pool="mean"), f"{network}, mean over space"
        if one is None:
            is_stored = network in place.stored_networks()
            probing = f"train them with {command(place.root, 'probe', network)}"
            remedy = probing if is_stored else store_missing(place, network)
            raise RunError(f"no probes of {network} are stored in {place.root}", remedy=remedy)
        found[name] = replace(one, names=look.layers(list(one.names)))
    title = look.titled("Linear probes of each layer")
    return Drawn(probe_curves(found, title, look.style), ("probes", *map(str, networks)))


def stored_probes(place: Workspace) -> list[ProbeResult]:
    """Return the probes that can be read, of networks as they are now, the newest first."""
    found = [
        probe
        for probe in records(place, "probes")
        if isinstance(probe, ProbeResult) and not is_outdated(place, probe)
    ]
    return sorted(found, key=lambda probe: str(probe.provenance.get("created_at")), reverse=True)


def accuracies(
    found: Sequence[ProbeResult],
    network: Selection,
    *,
    sample_set: str | None = None,
    taps: Sequence[str] | None = None,
    pool: Pool | None = None,
) -> Accuracies | None:
    """Return the accuracies of a network, on a sample set and of all layers where there are some.

    ``taps`` are the layers that they must be of, ``pool`` how these were pooled; None for any.
    """
    fitting = [
        probe
        for probe in found
        if (probe.taps[0].run, probe.taps[0].checkpoint) == (network.run, network.checkpoint)
        and (taps is None or [key.tap for key in probe.taps] == list(taps))
        and pool in (None, probe.pool)
    ]
    if not fitting:
        return None
    best = min(
        fitting, key=lambda probe: (probe.taps[0].sample_set != sample_set, -len(probe.taps))
    )
    names = [key.tap for key in best.taps]
    return Accuracies(names, np.asarray(best.accuracy), np.asarray(best.standard_errors))


def draw_invariance(sources: Sources, look: Look, network: Selection, samples: int) -> Drawn:
    """Draw values of a network with transformed copies of itself, and how far they deviate."""
    taps, method = _activations(sources, network), sources.method
    n = min(samples, taps[0].meta.n_samples)
    if n < 4:
        raise ConfigError("samples", f"is {samples}", "HSIC needs 4 examples or more")
    plain, checks = check_invariance([_First(tap, n) for tap in taps], method)
    names = look.layers([tap.key.tap for tap in taps])
    untransformed = Panel(
        plain,
        names,
        names,
        "untransformed",
        str(network),
        "its copy",
        measure=method.measure.title,
        limits=method.measure.limits_of(
            np.stack([plain, *(check.values for check in checks.values())])
        ),
    )
    panels = [untransformed]
    for name, check in checks.items():
        deviation = "not defined" if np.isnan(check.deviation) else f"{check.deviation:.2g}"
        title = f"{name}{'' if check.keeps else ' (control)'}: {deviation}"
        panels.append(replace(untransformed, matrix=check.values, title=title))
    way = f"{method.kernel.title} {method.measure.title}"
    title = f"{network} with copies of it, and the largest deviation: {way}, {n:,} examples"
    figure = matrices.grid(panels, look.titled(title), look.style)
    return Drawn(figure, ("invariance", *words_of(sources.job(network))))


@dataclass(frozen=True)
class _First:
    """The first rows of a stored representation, read as far as they are asked for."""

    tap: Representation
    n: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.n, *self.tap.meta.shape)

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, _ = rows.indices(self.n)
        return self.tap.read(start, stop)


def _activations(sources: Sources, network: Selection) -> list[Representation]:
    """Return all taps of a network on the sample set named, or on that of comparisons.

    Raises RunError where there are none, ComparisonError where they are of an earlier run of that
    name.
    """
    place, sample_set = sources.place, sources.sample_set
    taps: list[Representation] = []
    if store.has_store(place.activations):
        where = {"run": network.run, "checkpoint": network.checkpoint, "sample_set": sample_set}
        taps = store.open(place.activations).find(**where, complete=True)
    if not taps:
        on = f" on {sample_set}" if sample_set else ""
        found = find(place, network, sample_set)
        raise RunError(
            f"no activations of {network} are stored{on} in {place.root}, and only they can be"
            " transformed",
            remedy=store_whole(place, found[0]) if found else store_missing(place, network),
        )
    chosen = max((tap.meta.sample_set for tap in taps), key=preference)
    taps = [tap for tap in taps if tap.meta.sample_set == chosen]
    stale = left_behind(place, [tap.meta for tap in taps])
    if stale:
        raise ComparisonError(next(iter(stale.values())))
    return taps
