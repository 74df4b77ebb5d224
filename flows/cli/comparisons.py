"""Comparisons on the command line: from options to a job, and from results to what is shown."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from allcnn.cluster.cluster import Cluster
from allcnn.cluster.spec import ClusterSpec
from allcnn.compare import SimilarityResult, choose, compare, describe
from allcnn.compare.identification import check_excluded, identify_keys
from allcnn.drawing import figure_files
from allcnn.errors import ConfigError
from allcnn.settings.comparison import Comparison
from allcnn.similarity.layer_identification import Identification
from allcnn.workspace.paths import Workspace
from flows.views.progress import Progress
from flows.views.tables import identification_table, matrix_table


def run_comparison(place: Workspace, job: Comparison, spec: ClusterSpec) -> list[SimilarityResult]:
    """Compute a comparison with its progress on standard error."""
    with (
        Progress([1]) as progress,
        Cluster(spec, progress.tell) as cluster,
        progress.step("comparing") as report,
    ):
        return compare(place, job, report, cluster)


def show(
    place: Workspace,
    results: Sequence[SimilarityResult],
    *,
    errors: bool,
    convergence: bool,
    json_path: str | None,
) -> None:
    """Print the matrices, write the JSON file, and draw the figures."""
    if json_path is not None:
        values = [describe.matrix_json(result, errors=errors) for result in results]
        write_values(json_path, values)
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


def write_values(path: str, values: list[Any]) -> None:
    """Write one result as an object, several as a list of them."""
    text = json.dumps(values[0] if len(values) == 1 else values, indent=1, allow_nan=False)
    Path(path).write_text(text + "\n", encoding="utf-8")


def check_identifiable(place: Workspace, job: Comparison, exclude: Sequence[str]) -> None:
    """Raise ConfigError for networks whose layers do not correspond, before any work."""
    rows, _ = choose(place, job)
    check_excluded([source.key for source in rows], exclude)
    nothing = np.zeros((len(rows), len(rows)))
    try:
        identify_keys(nothing, [source.key for source in rows], exclude)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def show_identification(
    place: Workspace,
    results: Sequence[SimilarityResult],
    found: dict[str, Identification],
    json_path: str | None,
) -> None:
    """Print how often layers were identified, write the JSON file, and draw the bars."""
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
        write_values(json_path, values)
    click.echo(identification_table(found))
    for result in results:
        click.echo(f"result   {place.similarity / result.name}")
    some = next(iter(found.values()))
    title = f"Layers identified, {some.n_pairs} ordered pairs of networks"
    click.echo(f"figure   {figure_files.draw_identification(place, found, results[0].name, title)}")
