"""Linear probes on the command line: from a job to results, and what is shown of these."""

from collections.abc import Sequence
from typing import Any

import click
import numpy as np

from allcnn.probing import fit
from allcnn.settings.probing import Probing
from allcnn.workspace.paths import Workspace
from flows.cli.comparisons import write_values
from flows.views.progress import Progress
from flows.views.tables import aligned
from store import ProbeResult


def run_probe(place: Workspace, job: Probing) -> list[ProbeResult]:
    """Probe networks with the progress on standard error."""
    with Progress([1]) as progress, progress.step("probing") as report:
        return fit.probe(place, job, report)


def show(place: Workspace, results: Sequence[ProbeResult], json_path: str | None) -> None:
    """Print the accuracies, and write the JSON file."""
    if json_path is not None:
        write_values(json_path, [probe_json(result) for result in results])
    for result in results:
        click.echo(probe_table(result))
        click.echo(f"result   {place.probes / result.name}")
        if result is not results[-1]:
            click.echo("")


def probe_table(result: ProbeResult) -> str:
    """Return how well each tap is classified as text, in the network's order, in percent."""
    head = ("tap", "accuracy", "training", "penalty", "features")
    columns = (result.accuracy, result.standard_errors, result.train_accuracy, result.penalties)
    rows = [
        (
            key.tap,
            f"{100 * accuracy:5.1f} ± {100 * error:.1f} %",
            f"{100 * trained:5.1f} %",
            f"{penalty:.2g}",
            str(n_features),
        )
        for key, accuracy, error, trained, penalty, n_features in zip(
            result.taps, *columns, result.n_features, strict=True
        )
    ]
    some, pooled = result.taps[0], ", mean over space" if result.pool == "mean" else ""
    lines = [
        aligned([head, *rows]),
        "",
        f"network  {some.run}@{some.checkpoint}{pooled}",
        f"trained  on {result.train_set}, {result.n_train} examples",
        f"tested   on {some.sample_set}, {result.n_test} examples of {len(result.classes)} classes",
    ]
    if result.provenance.get(fit.NETWORK_KNOWN_BY) == "name":
        lines.append(
            "known as one network by its name alone, as both were imported without --digest"
        )
    odd = [
        key.tap for key, value in zip(result.taps, result.accuracy, strict=True) if value != value
    ]
    lines += [f"not defined: activations of {tap} are not finite" for tap in odd]
    return "\n".join(lines)


def probe_json(result: ProbeResult) -> dict[str, Any]:
    """Return a result as JSON values; what is not defined is None."""
    some = result.taps[0]
    taps = [
        {
            "tap": key.tap,
            "accuracy": _number(result.accuracy[i]),
            "standard_error": _number(result.standard_errors[i]),
            "train_accuracy": _number(result.train_accuracy[i]),
            "class_accuracy": [_number(value) for value in result.class_accuracy[i]],
            "penalty": _number(result.penalties[i]),
            "n_features": int(result.n_features[i]),
        }
        for i, key in enumerate(result.taps)
    ]
    return {
        "name": result.name,
        "run": some.run,
        "checkpoint": some.checkpoint,
        "train_set": result.train_set,
        "test_set": some.sample_set,
        "n_train": result.n_train,
        "n_test": result.n_test,
        "classes": list(result.classes),
        "pool": result.pool,
        "taps": taps,
        "provenance": result.provenance,
    }


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
