"""Comparisons on the command line: from options to a job, and from results to what is shown."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from allcnn.cluster.cluster import Cluster
from allcnn.cluster.spec import ClusterSpec
from allcnn.compare import SimilarityResult, choose, compare, network_of
from allcnn.config import Comparison
from allcnn.drawing import figure_files
from allcnn.errors import ConfigError
from allcnn.similarity.layer_identification import Identification, identify
from allcnn.workspace.paths import Workspace
from flows.views.progress import Progress
from flows.views.tables import identification_table, matrix_table
from store import RepresentationKey


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
        values = [figure_files.matrix_json(result, errors=errors) for result in results]
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
    for sigma in dict.fromkeys(result.sigma for result in classes):
        same = [result for result in classes if result.sigma == sigma]
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
        _identify(nothing, [source.key for source in rows], exclude)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def check_excluded(keys: Sequence[RepresentationKey], exclude: Sequence[str]) -> None:
    """Raise ConfigError for a tap to leave out that no network has; but some have no logits."""
    taps = list(dict.fromkeys(key.tap for key in keys))
    # A text with commas is a list, whose names follow it, unless it is the name of a tap.
    listed = [tap for tap in exclude if "," in tap]
    for tap in () if {*listed} & {*taps} else exclude:
        if tap not in (*taps, "logits", *listed):
            raise ConfigError(
                f"exclude names {tap!r}, and no network here has such a tap; theirs are"
                f" {', '.join(taps)}"
            )


def identify_layers(
    results: Sequence[SimilarityResult], exclude: Sequence[str]
) -> dict[str, Identification]:
    """Identify layers by CKA for each way of comparing, and by HSIC beside the linear kernel."""
    found = {}
    for result in results:
        found[f"{figure_files.way(result)} CKA"] = _identify(result.cka, result.rows, exclude)
        if result.kernel == "linear":
            found["linear HSIC"] = _identify(result.hsic, result.rows, exclude)
    return found


def _identify(
    matrix: np.ndarray, keys: Sequence[RepresentationKey], exclude: Sequence[str]
) -> Identification:
    networks, taps = [str(network_of(key)) for key in keys], [key.tap for key in keys]
    return identify(matrix, networks, taps, exclude)


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
