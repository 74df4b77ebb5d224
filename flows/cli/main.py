"""The ``allcnn`` command: plain functions of ``allcnn``, without Prefect.

Commands import what they need, so that ``--help`` answers at once.
"""

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from allcnn.cluster.spec import ClusterSpec
from allcnn.commands import Command, command
from allcnn.definitions.fields import but
from allcnn.errors import AllcnnError, ConfigError, in_one_line
from allcnn.networks.architectures import presets
from allcnn.settings.comparison import Comparison
from allcnn.settings.extraction import Extraction
from allcnn.settings.run import RunConfig
from allcnn.settings.selection import Selection
from flows.cli import (
    commands,
    figure_commands,
    import_command,
    nightly_commands,
    options,
    probe_command,
    query_commands,
    removal_commands,
    run_commands,
    verify_command,
)
from flows.settings import texts
from flows.settings.pipeline_plan import DEMO, Pipeline, each_of
from flows.views.terminal import abandon_output, end_in_silence, prepare

if TYPE_CHECKING:
    from flows.cli.local_pipeline import Outcome

_DEFAULT = click.core.ParameterSource.DEFAULT
_MOST_LETTERS = 2000
"""Of a sentence: a value of a megabyte must not hide it."""

_EPILOG = "Every piece of work can be killed and run again: it goes on where it was."


class Group(commands.Group):
    """Turns the errors that a user can repair into one sentence and an exit status."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program on streams that cannot fail for a letter."""
        prepare()
        return super().main(*args, **kwargs)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Read the arguments; ``--help`` alone prints already here."""
        with _in_one_sentence():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; status 2 for a wrong setting, 1 for what went wrong later."""
        with _in_one_sentence():
            return super().invoke(ctx)


@contextmanager
def _in_one_sentence() -> Iterator[None]:
    try:
        yield
    except click.exceptions.Exit:
        raise  # of --help, for which nothing is imported
    except click.ClickException as error:
        error.message = _shortened(error.message)  # type: ignore[misc]  # of this one instance
        raise
    except ConfigError as error:
        raise Failure(error, 2) from error
    except BrokenPipeError:
        raise  # the reader of our output has seen enough: click ends quietly
    except KeyboardInterrupt as error:
        raise Failure("stopped; the same command goes on where it was", 130) from error
    except click.Abort:
        raise
    except Exception as error:
        if (reason := _reason(error)) is None:
            raise
        abandon_output()
        raise Failure(reason, 1) from error


def _reason(error: Exception) -> object | None:
    """Return what to say of an error; None for a mistake of ours."""
    from store.storage.exhaustion import shortage_of

    if shortage := shortage_of(error):
        end_in_silence()
        return shortage
    if isinstance(error, AllcnnError):
        return error
    from store import DamagedChunkError, StoreError

    if isinstance(error, DamagedChunkError):
        return f"{error}; {_repairing()} repairs what a checkpoint still gives"
    if isinstance(error, OSError):
        # Of two files the second is the one that was to be there.
        file = error.filename2 or error.filename
        return f"{error.strerror}: {file}" if file else error.strerror or error
    return error if isinstance(error, StoreError) else None


def _repairing() -> Command:
    context = click.get_current_context(silent=True)
    root = context.meta.get(options.ROOT) if context else None
    return command(root, "store", "verify", repair=True)


def _shortened(text: str) -> str:
    """Return a sentence; of a very long one its beginning and its end."""
    if len(text) <= _MOST_LETTERS:
        return text
    half = _MOST_LETTERS // 2
    return f"{text[:half]} ... {text[-half:]}"


class _Unraisable:
    """Tells of exceptions that nobody can catch, but for what a failed checkpoint leaves behind.

    What Orbax was still writing when one write failed tells of its end to a loop that is gone.
    """

    def __init__(self, hook: Callable[["sys.UnraisableHookArgs"], object]) -> None:
        self._hook = hook

    def __call__(self, found: "sys.UnraisableHookArgs") -> None:
        if str(found.exc_value) != "Event loop is closed":
            self._hook(found)


class Failure(click.ClickException):
    """One sentence on standard error, and an exit status."""

    def __init__(self, reason: object, status: int) -> None:
        super().__init__(_shortened(in_one_line(reason)))
        self.exit_code = status  # type: ignore[misc]  # click declares what it reads per instance


@click.group(cls=Group, epilog=_EPILOG, context_settings={"max_content_width": 100})
@click.version_option(package_name="allcnn-cka")
def main() -> None:
    """Train All-CNN-C networks, keep their activations, and compare them by CKA."""
    # Libraries that log their start and stop would drown the progress, and what goes wrong is
    # raised as well, which is enough.
    for library in ("absl", "asyncio"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    # Those that no font here has are drawn as boxes.
    warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from", UserWarning)
    if not isinstance(sys.unraisablehook, _Unraisable):
        sys.unraisablehook = _Unraisable(sys.unraisablehook)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@main.command()
@options.workspace
def demo(workspace: str) -> None:
    """Train three small networks on handwritten digits, compare them and draw the figures."""
    place = _workspace(workspace)
    from flows.cli.local_pipeline import run_pipeline

    _tell(run_pipeline(place, DEMO))


@main.command()
@options.workspace
@options.network
@click.option("--together", is_flag=True, help="train all seeds as one program, as on a GPU")
@options.training
@click.pass_context
def train(
    context: click.Context,
    /,
    workspace: str,
    preset: str | None,
    seeds: tuple[int, ...] | None,
    together: bool,
    **settings: Any,
) -> None:
    """Train one network, or one of each seed; what is printed are the runs' names.

    The defaults are for a try on two cores: less than a minute on digits, about half an hour on
    CIFAR-10. A published network, at full width and for 350 epochs, is a preset.

    Presets: d1-v1, d1-v2, d2-v1, … d8-v2; plain-10, plain-18, plain-34, plain-66, tiny-10 and
    width-N. Options that are given as well come before a preset's.
    """
    configs = _training(context, preset, seeds, settings)
    if together and len(configs) == 1:
        raise ConfigError("together needs several seeds", remedy="name them, as in --seeds 0-9")
    place = _workspace(workspace)
    from flows.cli.local_pipeline import train_runs
    from flows.views.tables import trained_lines

    runs = train_runs(place, configs, together=together)
    for run in runs:
        click.echo(run)
    # Beside the names, which scripts read.
    click.echo(trained_lines(place, runs), err=True)


def _training(
    context: click.Context,
    name: str | None,
    seeds: tuple[int, ...] | None,
    settings: dict[str, Any],
) -> list[RunConfig]:
    """Return the settings of the runs that are asked for."""
    given = {each for each in settings if context.get_parameter_source(each) != _DEFAULT}
    preset = {} if name is None else presets.preset(name)
    without = {each: value for each, value in preset.items() if each not in given}
    settings = RunConfig.chosen(settings, given, without)
    if seeds is None:
        return [RunConfig.of(**settings)]
    if "seed" in given:
        raise ConfigError("seed and seeds exclude each other", remedy="leave one out")
    return [RunConfig.of(**settings | {"seed": seed}) for seed in seeds]


@main.command()
@click.argument("run")
@options.workspace
@options.giving(but(Extraction, "run"))
def extract(run: str, workspace: str, **how: Any) -> None:
    """Keep the activations of a run's checkpoint, or its Gram matrices, or both.

    All taps; the last line is the sample set.
    """
    job = Extraction(run, **how)
    place = _workspace(workspace)
    from flows.cli.local_pipeline import extract_checkpoints

    click.echo(extract_checkpoints(place, job))


@main.command()
@click.argument("rows", metavar="RUN@CHECKPOINT")
@click.argument("columns", metavar="RUN@CHECKPOINT")
@options.workspace
@options.comparing
@options.showing
def compare(rows: str, columns: str, workspace: str, **settings: Any) -> None:
    """Print the similarity matrix of two networks from what is stored, and draw it."""
    sides = Selection.parse(rows), Selection.parse(columns)
    for side in sides:
        if not side.is_network:
            several = command(workspace, "matrix", *sides)
            raise ConfigError(
                f"{str(side)!r} is a pattern", remedy=f"{several} compares several networks"
            )
    _compare(sides, workspace, settings)


@main.command()
@click.argument("rows", metavar="PATTERN")
@click.argument("columns", metavar="[PATTERN]", required=False)
@options.workspace
@options.comparing
@options.showing
def matrix(rows: str, columns: str | None, workspace: str, **settings: Any) -> None:
    """Compare all representations that fit a pattern, with each other or with another pattern's.

    A pattern is RUN@CHECKPOINT or RUN@CHECKPOINT:TAP with *, ? and [...], such as
    'allcnn-d1-*@final' or '*@*:conv[1-9]'; quote it, or the shell expands it. TAP is all that
    follows the colon, and may be a tap's name, whatever characters it has.
    """
    sides = Selection.parse(rows), Selection.parse(columns or rows)
    _compare(sides, workspace, settings)


@main.command()
@click.argument("pattern", metavar="PATTERN")
@options.workspace
@options.methods
@options.sample_set
@options.exclude
@options.cluster
@options.json_file
def identify(
    pattern: str,
    workspace: str,
    exclude: str,
    cluster: ClusterSpec,
    json_path: str | None,
    **how: Any,
) -> None:
    """Report how often the most similar layer of another network is the corresponding one.

    Over all ordered pairs of the networks that fit RUN@CHECKPOINT with *, ? and [...] (Kornblith et
    al. 2019, Table 2).
    """
    side = Selection.parse(pattern)
    job = Comparison(side, side, options.take_methods(how), **how)
    _check_json(json_path)
    place = _workspace(workspace)
    from allcnn.compare.identification import identify_layers
    from flows.cli import comparisons as comparing

    without = texts.taps(exclude)
    comparing.check_identifiable(place, job, without)
    results = comparing.run_comparison(place, job, cluster)
    found = identify_layers(results, without)
    comparing.show_identification(place, results, found, json_path)


@main.command()
@options.workspace
@options.networks
@options.training
@options.stored
@options.kernels
@options.cluster
def pipeline(
    workspace: str,
    depths: tuple[int, ...],
    seeds: tuple[int, ...],
    cluster: ClusterSpec,
    **settings: Any,
) -> None:
    """Train networks of several depths and seeds, store, compare and draw them all."""
    how = {name: settings.pop(name) for name in ("dtype", "n_samples")}
    training = settings.pop("batch_size")
    settings["batch_size"] = settings.pop("minibatch")
    how["methods"] = options.take_methods(settings)
    settings["batch_size"] = training
    given = ["depth" if name == "depths" else name for name in options.given()]
    runs = each_of(RunConfig.chosen(settings, given), depth=depths, seed=seeds)
    plan = Pipeline(runs, **how)
    place = _workspace(workspace)
    from flows.cli.local_pipeline import run_pipeline

    _tell(run_pipeline(place, plan, cluster))


@main.group()
def store() -> None:
    """Look at the stored activations."""


def _compare(
    sides: "tuple[Selection, Selection]", workspace: str, settings: dict[str, Any]
) -> None:
    shown = {name: settings.pop(name) for name in ("errors", "convergence", "json_path")}
    if settings.pop("each_label"):
        if settings["label"] is not None:
            raise ConfigError("label and each-label exclude each other", remedy="leave one out")
        settings["label"] = "each"
    cluster = settings.pop("cluster")
    job = Comparison(*sides, options.take_methods(settings), **settings)
    _check_json(shown["json_path"])
    place = _workspace(workspace)
    from flows.cli.comparisons import run_comparison, show

    show(place, run_comparison(place, job, cluster), **shown)


def _check_json(path: str | None) -> None:
    folder = None if path is None else texts.local_file(path).parent
    if folder is not None and not folder.is_dir():
        raise ConfigError(f"json is {path}, and {folder} is no folder", remedy="make it first")


def _workspace(root: str) -> Any:
    from allcnn.workspace.paths import Workspace

    return Workspace.at(root)


def _tell(outcome: "Outcome") -> None:
    from flows.views.tables import accuracy_table

    click.echo(accuracy_table(outcome.accuracies))
    click.echo("")
    for path in outcome.files:
        click.echo(path)


main.add_command(run_commands.run_group)
main.add_command(probe_command.probe)
main.add_command(figure_commands.figure)
main.add_command(nightly_commands.nightly)
main.add_command(nightly_commands.report)
main.add_command(nightly_commands.run_flow)
store.add_command(query_commands.list_store)
store.add_command(query_commands.show_store)
store.add_command(query_commands.query_store)
store.add_command(verify_command.verify)
store.add_command(import_command.import_arrays)
store.add_command(removal_commands.usage)
store.add_command(removal_commands.remove)
store.add_command(removal_commands.collect)


if __name__ == "__main__":
    sys.exit(main())
