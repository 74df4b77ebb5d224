"""Comparisons and linear probes on the command line: from a job to what is shown of its results."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from allcnn.cluster.spec import ClusterSpec
from allcnn.compare import choose, describe
from allcnn.compare.identification import check_excluded, identify_keys, identify_layers
from allcnn.drawing import figure_files
from allcnn.errors import ConfigError
from allcnn.probing import fit
from allcnn.settings.comparison import Comparison
from allcnn.settings.probing import Probing
from allcnn.workspace.paths import Snapshot, Workspace
from flows.figures.results import compute
from flows.views.progress import Progress
from flows.views.tables import aligned, identification_table, matrix_table
from store import ProbeResult


def show_comparison(
    place: Workspace,
    job: Comparison,
    spec: ClusterSpec,
    *,
    errors: bool,
    convergence: bool,
    json_path: Path | None,
) -> None:
    """Compare, print the matrices, write the JSON file, and draw the figures."""
    (results,) = compute(place, [job], spec)
    if json_path is not None:
        _write_values(json_path, [describe.matrix_json(each, errors=errors) for each in results])
    for result in results:
        click.echo(matrix_table(result, errors=errors))
        click.echo(f"result   {place.similarity / result.name}")
        click.echo(f"figure   {figure_files.draw_comparison(place, result, errors=errors)}")
        if convergence:
            click.echo(f"figure   {figure_files.draw_convergence(place, result)}")
        if result.baseline is not None:
            click.echo(f"figure   {figure_files.draw_baseline(place, result)}")
        if result is not results[-1]:
            click.echo("")
    classes = [result for result in results if result.label is not None]
    for kernel in dict.fromkeys(result.kernel_title for result in classes):
        same = [result for result in classes if result.kernel_title == kernel]
        if len(same) > 1:
            click.echo(f"figure   {figure_files.draw_classes(place, same)}")


def _write_values(path: Path, values: list[Any]) -> None:
    """Write one result as an object, several as a list of them."""
    text = json.dumps(values[0] if len(values) == 1 else values, indent=1, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def show_identification(
    place: Workspace,
    job: Comparison,
    spec: ClusterSpec,
    exclude: Sequence[str],
    json_path: Path | None,
) -> None:
    """Print how often layers were identified, write the JSON file, and draw the bars.

    Raises ConfigError for networks whose layers do not correspond, before any work.
    """
    keys = [source.key for source in choose(place, job)[0]]
    check_excluded(keys, exclude)
    try:
        identify_keys(np.zeros((len(keys), len(keys))), keys, exclude)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    (results,) = compute(place, [job], spec)
    found = identify_layers(results, exclude)
    if json_path is not None:
        values = [
            {
                "way": way,
                "accuracy": each.accuracy,
                "layers": dict(each.per_layer),
                "pairs": each.n_pairs,
                "confusion": each.confusion.tolist(),
            }
            for way, each in found.items()
        ]
        _write_values(json_path, values)
    click.echo(identification_table(found))
    for result in results:
        click.echo(f"result   {place.similarity / result.name}")
    some = next(iter(found.values()))
    title = f"Layers identified, {some.n_pairs} ordered pairs of networks"
    click.echo(f"figure   {figure_files.draw_identification(place, found, results[0].name, title)}")


def show_probes(place: Workspace, job: Probing, json_path: Path | None) -> None:
    """Probe networks, print the accuracies, and write the JSON file."""
    with Progress([1]) as progress, progress.step("probing") as report:
        results = fit.probe(Snapshot.of(place), job, report)
    if json_path is not None:
        _write_values(json_path, [_probe_json(result) for result in results])
    tables = (f"{_probe_table(each)}\nresult   {place.probes / each.name}" for each in results)
    click.echo("\n\n".join(tables))


def _probe_table(result: ProbeResult) -> str:
    """Return how well each tap is classified as text, in the network's order, in percent."""
    rows = [("tap", "accuracy", "training", "penalty", "features")]
    odd = []
    for i, key in enumerate(result.taps):
        rows.append(
            (
                key.tap,
                f"{100 * result.accuracy[i]:5.1f} ± {100 * result.standard_errors[i]:.1f} %",
                f"{100 * result.train_accuracy[i]:5.1f} %",
                f"{result.penalties[i]:.2g}",
                str(result.n_features[i]),
            )
        )
        if np.isnan(result.accuracy[i]):
            odd.append(f"not defined: activations of {key.tap} are not finite")
    some, pooled = result.taps[0], ", mean over space" if result.pool == "mean" else ""
    lines = [
        aligned(rows),
        "",
        f"network  {some.run}@{some.checkpoint}{pooled}",
        f"trained  on {result.train_set}, {result.n_train} examples",
        f"tested   on {some.sample_set}, {result.n_test} examples of {len(result.classes)} classes",
    ]
    if result.provenance.get(fit.NETWORK_KNOWN_BY) == "name":
        lines.append(
            "known as one network by its name alone, as both were imported without --digest"
        )
    return "\n".join([*lines, *odd])


_NUMBERS = {
    "accuracy": "accuracy",
    "standard_error": "standard_errors",
    "train_accuracy": "train_accuracy",
    "class_accuracy": "class_accuracy",
    "penalty": "penalties",
}
"""Names in JSON of what a result has for each tap."""


def _probe_json(result: ProbeResult) -> dict[str, Any]:
    """Return a result as JSON values; what is not defined is None."""
    some = result.taps[0]
    own = ("name", "train_set", "n_train", "n_test", "pool", "provenance")
    taps = [
        {"tap": key.tap, "n_features": int(result.n_features[i])}
        | {name: describe.nested(getattr(result, field)[i]) for name, field in _NUMBERS.items()}
        for i, key in enumerate(result.taps)
    ]
    return {name: getattr(result, name) for name in own} | {
        "run": some.run,
        "checkpoint": some.checkpoint,
        "test_set": some.sample_set,
        "classes": list(result.classes),
        "taps": taps,
    }
