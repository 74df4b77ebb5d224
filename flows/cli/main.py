"""The ``allcnn`` command: plain functions of ``allcnn``, without Prefect.

Commands import what they need, so that ``--help`` answers at once.
"""

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from allcnn.cluster.spec import ClusterSpec
from allcnn.commands import command
from allcnn.definitions.fields import but
from allcnn.errors import ConfigError
from allcnn.networks.architectures import presets
from allcnn.settings.comparison import Comparison
from allcnn.settings.extraction import Extraction
from allcnn.settings.probing import Probing
from allcnn.settings.run import RunConfig
from allcnn.settings.selection import Selection
from flows.cli import (
    commands,
    figure_commands,
    import_command,
    nightly_commands,
    options,
    query_commands,
    removal_commands,
    run_commands,
)
from flows.cli.options import option
from flows.settings.pipeline_plan import DEMO, Pipeline, each_of


def _report_unraisable(hook: Any, found: "sys.UnraisableHookArgs") -> None:
    """Report an exception that nothing can catch, but for one that a failed checkpoint causes.

    After a write failed, Orbax reports the end of the others to a loop that is closed.
    """
    if str(found.exc_value) != "Event loop is closed":
        hook(found)


@click.group(
    cls=commands.Program,
    epilog="Every piece of work can be killed and run again: it goes on where it was.",
    context_settings={"max_content_width": 100},
)
@click.version_option(package_name="allcnn-cka")
def main() -> None:
    """Train All-CNN-C networks, keep their activations, and compare them by CKA."""
    # Libraries that log their start and stop would drown the progress, and what goes wrong is
    # raised as well, which is enough.
    for library in ("absl", "asyncio"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    # Letters that no font here has are drawn as boxes.
    warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from", UserWarning)
    if getattr(sys.unraisablehook, "func", None) is not _report_unraisable:
        sys.unraisablehook = partial(_report_unraisable, sys.unraisablehook)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@main.command()
@options.workspace
def demo(place: Any) -> None:
    """Train three small networks on handwritten digits, compare them and draw the figures."""
    from flows.cli.local_pipeline import run_pipeline

    _show_outcome(*run_pipeline(place, DEMO))


@main.command()
@options.workspace
@options.network
@option("together", False, "train all seeds as one program, as on a GPU")
@options.training
def train(
    place: Any, preset: str | None, seeds: Sequence[int] | None, together: bool, **settings: Any
) -> None:
    """Train one network, or one of each seed; prints the runs' names.

    The defaults are for a try on two cores: less than a minute on digits, about half an hour on
    CIFAR-10. A published network, at full width and for 350 epochs, is a preset.

    Presets: d1-v1, d1-v2, d2-v1, … d8-v2; plain-10, plain-18, plain-34, plain-66, tiny-10 and
    width-N. Options that are given as well come before a preset's.
    """
    given = options.given()
    recipe = {} if preset is None else presets.preset(preset)
    recipe = {name: value for name, value in recipe.items() if name not in given}
    settings = RunConfig.chosen(settings, given, recipe)
    several = [settings]
    if seeds is not None:
        if "seed" in given:
            raise ConfigError("seed and seeds exclude each other", remedy="leave one out")
        several = [settings | {"seed": seed} for seed in seeds]
    configs = [RunConfig.of(**each) for each in several]
    if together and len(configs) == 1:
        raise ConfigError("together needs several seeds", remedy="name them, as in --seeds 0-9")
    from flows.cli.local_pipeline import train_runs
    from flows.views.tables import trained_lines

    runs = train_runs(place, configs, together=together)
    for run in runs:
        click.echo(run)
    # Beside the names, which scripts read.
    click.echo(trained_lines(place, runs), err=True)


@main.command()
@click.argument("run")
@options.workspace
@options.giving(but(Extraction, "run"))
def extract(run: str, place: Any, **how: Any) -> None:
    """Keep the activations of a run's checkpoint, or its Gram matrices, or both.

    All taps; the last line is the sample set.
    """
    job = Extraction(run, **how)
    from flows.cli.local_pipeline import extract_checkpoints

    click.echo(extract_checkpoints(place, job))


@main.command()
@options.argument("rows")
@options.argument("columns")
@options.workspace
@options.comparing
@options.showing
def compare(rows: Selection, columns: Selection, place: Any, **settings: Any) -> None:
    """Print the similarity matrix of two networks from what is stored, and draw it."""
    for side in (rows, columns):
        if not side.is_network:
            several = command(place.root, "matrix", rows, columns)
            remedy = f"{several} compares several networks"
            raise ConfigError(f"{str(side)!r}", "is a pattern", remedy=remedy)
    _compare(place, rows, columns, settings)


@main.command()
@options.argument("rows", "PATTERN")
@options.argument("columns", "[PATTERN]", required=False)
@options.workspace
@options.comparing
@options.showing
def matrix(rows: Selection, columns: Selection | None, place: Any, **settings: Any) -> None:
    """Compare all representations that fit a pattern, with each other or with another pattern's.

    A pattern is RUN@CHECKPOINT or RUN@CHECKPOINT:TAP with *, ? and [...], such as
    'allcnn-d1-*@final' or '*@*:conv[1-9]'; quote it, or the shell expands it. TAP is all that
    follows the colon, and may be a tap's name, whatever characters it has.
    """
    _compare(place, rows, columns or rows, settings)


@main.command()
@options.argument("pattern", "PATTERN")
@options.workspace
@options.methods
@options.sample_set
@options.exclude
@options.cluster
@options.json_file
def identify(
    pattern: Selection,
    place: Any,
    exclude: list[str],
    cluster: ClusterSpec,
    json_path: Path | None,
    **how: Any,
) -> None:
    """Report how often the most similar layer of another network is the corresponding one.

    Over all ordered pairs of the networks that fit RUN@CHECKPOINT with *, ? and [...] (Kornblith et
    al. 2019, Table 2).
    """
    job = Comparison(pattern, pattern, options.take_methods(how), **how)
    from flows.cli.comparisons import show_identification

    show_identification(place, job, cluster, exclude, json_path)


@main.command()
@options.argument("pattern", "PATTERN")
@options.workspace
@options.giving(but(Probing, "networks"))
@options.json_file
def probe(pattern: Selection, place: Any, json_path: Path | None, **how: Any) -> None:
    """Train a linear classifier on each tap of networks, and report how well it does.

    PATTERN is RUN@CHECKPOINT or RUN@CHECKPOINT:TAP with *, ? and [...]; quote it, or the shell
    expands it. Logistic regression with an l2 penalty on stored activations of the training split,
    tested on those of the test split (Kornblith et al. 2019, Figure 3).
    """
    job = Probing(pattern, **how)
    from flows.cli.comparisons import show_probes

    show_probes(place, job, json_path)


@main.command()
@options.workspace
@options.networks
@options.training
@options.stored
@options.kernels
@options.cluster
def pipeline(place: Any, depths: Any, seeds: Any, cluster: ClusterSpec, **settings: Any) -> None:
    """Train networks of several depths and seeds, store, compare and draw them all."""
    how = {name: settings.pop(name) for name in ("dtype", "n_samples")}
    how["methods"] = options.take_methods(settings)
    given = ["depth" if name == "depths" else name for name in options.given()]
    plan = Pipeline(each_of(RunConfig.chosen(settings, given), depth=depths, seed=seeds), **how)
    from flows.cli.local_pipeline import run_pipeline

    _show_outcome(*run_pipeline(place, plan, cluster))


@main.group()
def store() -> None:
    """Look at the stored activations."""


def _compare(place: Any, rows: Selection, columns: Selection, settings: dict[str, Any]) -> None:
    shown = {name: settings.pop(name) for name in ("errors", "convergence", "json_path")}
    if settings.pop("each_label"):
        if settings["label"] is not None:
            raise ConfigError("label and each-label exclude each other", remedy="leave one out")
        settings["label"] = "each"
    cluster = settings.pop("cluster")
    job = Comparison(rows, columns, options.take_methods(settings), **settings)
    from flows.cli.comparisons import show_comparison

    show_comparison(place, job, cluster, **shown)


def _show_outcome(files: list[Any], accuracies: dict[str, float]) -> None:
    from flows.views.tables import accuracy_table

    click.echo("\n".join([accuracy_table(accuracies), "", *map(str, files)]))


main.add_command(run_commands.run_group)
main.add_command(figure_commands.figure)
main.add_command(nightly_commands.nightly)
main.add_command(nightly_commands.report)
main.add_command(nightly_commands.run_flow)
store.add_command(query_commands.list_store)
store.add_command(query_commands.show_store)
store.add_command(query_commands.query_store)
store.add_command(query_commands.verify)
store.add_command(import_command.import_arrays)
store.add_command(removal_commands.usage)
store.add_command(removal_commands.remove)
store.add_command(removal_commands.collect)


if __name__ == "__main__":
    sys.exit(main())
