"""Figures of several networks, or of one in several ways: depths, seeds, classes, invariances."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

import store
from allcnn.advice import store_missing
from allcnn.commands import command
from allcnn.compare import SimilarityResult, describe, network_of
from allcnn.compare.candidates import activations_alone, find, preference
from allcnn.compare.identification import check_excluded, identify_layers
from allcnn.compare.reextract import store_whole
from allcnn.compare.select import left_behind
from allcnn.drawing import bars, matrices
from allcnn.drawing.accuracy import Accuracies, depths, probe_curves
from allcnn.drawing.canvas import verbatim
from allcnn.drawing.panel import Panel
from allcnn.errors import AllcnnError, ComparisonError, ConfigError, RunError
from allcnn.settings.comparison import Comparison
from allcnn.settings.selection import Selection
from allcnn.similarity.invariance import check_invariance
from allcnn.similarity.kernels import Linear
from allcnn.similarity.matrix_statistics import between_networks, spread
from allcnn.workspace import run_record
from allcnn.workspace.paths import Workspace
from flows.figures.pairs import words_of
from flows.figures.probe_curves import accuracies, stored_probes
from flows.figures.published import TABLE_2, TABLE_2_SOURCE, are_of_table_2
from flows.figures.results import Request, Sources
from flows.figures.style import Drawn, Look
from store import Representation
from store.model.examples import NO_LABEL


def draw_depths(
    sources: Sources, networks: Sequence[Selection], request: Request, look: Look
) -> Drawn:
    """Draw networks side by side, and below each what probes find in its layers."""
    results = sources.results([request.job(network, network) for network in networks])
    probes = stored_probes(sources.place)
    shown: list[tuple[Panel, Accuracies | None]] = []
    for network, result in zip(networks, results, strict=True):
        taps = [key.tap for key in result.rows]
        sample_set = result.rows[0].sample_set
        # Of the same representations as are compared.
        found = accuracies(
            probes, network, sample_set=sample_set, taps=taps, pool=request.method.pool
        )
        shown.append((look.panel(result, str(network)), found))
    figure = depths(shown, look.titled(describe.method(results[0])), look.style)
    words = words_of(request.job(networks[0], networks[0]))[2:]
    return Drawn(figure, ("depths", *map(str, networks), *words))


def draw_seeds(sources: Sources, pattern: Selection, request: Request, look: Look) -> Drawn:
    """Draw mean and spread over all pairs of different networks that fit.

    Of two networks, which are one pair and have no spread, the mean alone.
    """
    look.check_numbers(pattern)
    job = request.job(pattern, pattern)
    result = sources.result(job)
    names = [str(network_of(key)) for key in result.rows]
    taps = [key.tap for key in result.rows]
    try:
        found = between_networks(result.values, names, taps)
    except ValueError as error:
        raise ComparisonError(str(error)) from error
    layers = list(dict.fromkeys(taps))
    panel = Panel(
        found.mean,
        look.layers(layers),
        look.layers(layers),
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


def draw_classes(
    sources: Sources, rows: Selection, columns: Selection, request: Request, look: Look
) -> Drawn:
    """Draw one matrix a class, their mean and spread, and that of all classes together."""
    names = _class_names(sources.place, rows.run)
    results = _of_classes(sources, request.job(rows, columns), names)
    # On the sample set that the classes are of, whatever larger ones there are.
    of_all = request.job(rows, columns, sample_set=results[0].rows[0].sample_set)
    whole = sources.result(of_all)
    found = spread([result.values for result in results])
    mean = replace(look.panel(whole, "mean of classes"), matrix=found.mean)
    panels = [look.panel(each, _class_name(names, each.label)) for each in results]
    title = describe.method(replace(whole, label=None))
    figure = matrices.classes(
        panels,
        mean,
        look.panel(whole, "all classes together"),
        found.deviation,
        look.titled(title),
        look.style,
    )
    return Drawn(figure, ("classes", *words_of(request.job(rows, columns))))


def _of_classes(sources: Sources, job: Comparison, names: Sequence[str]) -> list[SimilarityResult]:
    """Return a result a class: of all that are stored if those are all, or else computed.

    Where nothing is left to compute from, those that are stored.
    """
    labels = sources.catalogue.labels(job, job.method)
    if labels and len(labels) == len(names):
        return sources.results([replace(job, label=label) for label in labels])
    try:
        return sources.results([replace(job, label="each")])
    except ComparisonError:
        if len(labels) < 2:
            raise
        return sources.results([replace(job, label=label) for label in labels])


def _class_names(place: Workspace, run: str) -> tuple[str, ...]:
    try:
        return run_record.read_record(place, run).class_names
    except AllcnnError:  # removed, or imported without its run
        return ()


def _class_name(names: Sequence[str], label: object) -> str:
    if isinstance(label, int) and NO_LABEL < label < len(names):
        return names[label]
    return f"class {label}"


def draw_layers(
    sources: Sources, pattern: Selection, request: Request, exclude: Sequence[str], look: Look
) -> Drawn:
    """Draw how often layers are found by each way of comparing.

    Beside Tiny-10 trained on CIFAR-10, whose layers are compared whole and all but the logits, the
    published numbers are drawn.
    """
    linear, rbf = (
        replace(request, methods=methods).job(pattern, pattern)
        for methods in ((replace(request.method, kernel=Linear()),), request.methods)
    )
    results = sources.results([linear, rbf])
    check_excluded(results[0].rows, exclude)
    try:
        found = identify_layers(results, exclude)
    except ValueError as error:
        raise ComparisonError(str(error)) from error
    # HSIC last, as it is another measure.
    ways = sorted(found, key=lambda way: way.endswith("HSIC"))
    some = found[ways[0]]
    title = f"{some.n_layers} layers, {some.n_pairs} ordered pairs of {verbatim(str(pattern))}"
    figure = bars.correspondence_bars(
        {way: found[way].accuracy for way in ways},
        TABLE_2 if _is_table_2(sources.place, results[0], request, exclude) else {},
        1 / some.n_layers,
        source=TABLE_2_SOURCE,
        title=look.titled(title),
        style=look.style,
    )
    words = [word for word in words_of(linear) if word != linear.method.kernel.slug]
    first, *others = (method.kernel for method in request.methods)
    kernels = "_".join([first.slug, *(each.slug.removeprefix(each.name) for each in others)])
    return Drawn(figure, ("layers", *words, kernels))


def _is_table_2(
    place: Workspace, result: SimilarityResult, request: Request, exclude: Sequence[str]
) -> bool:
    """Return whether a figure asks the question of the published table, as far as runs tell."""
    taps = {key.tap for key in result.rows}
    if request.method.pool != "whole" or {*exclude} & taps != {"logits"}:
        return False
    networks = {network_of(key) for key in result.rows}
    if any(network.checkpoint != "final" for network in networks):
        return False
    try:
        return are_of_table_2(run_record.read_record(place, each.run).config for each in networks)
    except AllcnnError:  # removed, or imported: nothing tells what network it is
        return False


def draw_probes(place: Workspace, networks: Sequence[Selection], look: Look) -> Drawn:
    """Draw the accuracy of linear probes along the layers, a line a network."""
    probes = stored_probes(place)
    found: dict[str, Accuracies] = {}
    for network in networks:
        name, one = str(network), accuracies(probes, network, pool="whole")
        if one is None:
            name, one = f"{network}, mean over space", accuracies(probes, network, pool="mean")
        if one is None:
            raise RunError(
                f"no probes of {network} are stored in {place.root}",
                remedy=_to_probe(place, network),
            )
        found[name] = replace(one, names=look.layers(list(one.names)))
    title = look.titled("Linear probes of each layer")
    return Drawn(probe_curves(found, title, look.style), ("probes", *map(str, networks)))


def _to_probe(place: Workspace, network: Selection) -> str:
    if network not in place.stored_networks():
        return store_missing(place, network)
    return f"train them with {command(place.root, 'probe', network)}"


def draw_invariance(
    place: Workspace, network: Selection, request: Request, n_examples: int, look: Look
) -> Drawn:
    """Draw values of a network with transformed copies of itself, and how far they deviate."""
    taps = _activations(place, network, request.sample_set)
    n = min(n_examples, taps[0].meta.n_samples)
    if n < 4:
        raise ConfigError(f"samples is {n_examples}", remedy="HSIC needs 4 examples or more")
    plain, checks = check_invariance(
        [_First(tap, n) for tap in taps],
        request.method,
    )
    names = look.layers([tap.key.tap for tap in taps])
    measure = request.method.measure
    limits = measure.limits_of(np.stack([plain, *(check.values for check in checks.values())]))
    panels = [
        Panel(
            plain, names, names, "untransformed", str(network), "its copy",
            measure=measure.title, limits=limits,
        )
    ]  # fmt: skip
    for name, check in checks.items():
        title = f"{name}{'' if check.keeps else ' (control)'}: {_deviation(check.deviation)}"
        panels.append(replace(panels[0], matrix=check.values, title=title))
    job = request.job(network, network)
    way = f"{request.method.kernel.title} {request.method.measure.title}"
    title = f"{network} with copies of it, and the largest deviation: {way}, {n:,} examples"
    figure = matrices.grid(panels, look.titled(title), look.style)
    return Drawn(figure, ("invariance", *words_of(job)))


def _deviation(value: float) -> str:
    return "not defined" if np.isnan(value) else f"{value:.2g}"


class _First:
    """The first rows of a stored representation, read as far as they are asked for."""

    def __init__(self, tap: Representation, n: int) -> None:
        self._tap, self._n = tap, n

    @property
    def shape(self) -> tuple[int, ...]:
        return (self._n, *self._tap.meta.shape)

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, _ = rows.indices(self._n)
        return self._tap.read(start, stop)


def _activations(
    place: Workspace, network: Selection, sample_set: str | None
) -> list[Representation]:
    """Return all taps of a network on the sample set named, or on that of comparisons.

    Raises RunError where there are none, ComparisonError where they are of an earlier run of that
    name.
    """
    found: list[Representation] = []
    if store.has_store(place.activations):
        kept = store.open(place.activations)
        found = kept.find(
            run=network.run, checkpoint=network.checkpoint, sample_set=sample_set, complete=True
        )
    sets = {tap.meta.sample_set for tap in found}
    if not sets:
        on = f" on {sample_set}" if sample_set else ""
        raise RunError(
            f"no activations of {network} are stored{on} in {place.root}, and only they can be"
            f" transformed",
            remedy=_to_store(place, network, sample_set),
        )
    chosen = max(sets, key=preference)
    taps = [tap for tap in found if tap.meta.sample_set == chosen]
    stale = left_behind(place, list(map(activations_alone, taps)))
    if stale:
        raise ComparisonError(next(iter(stale.values())))
    return taps


def _to_store(place: Workspace, network: Selection, sample_set: str | None) -> str:
    found = find(place, network, sample_set)
    return store_whole(place, found[0]) if found else store_missing(place, network)
