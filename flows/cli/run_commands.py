"""The commands about trained runs: to list, show, draw, export, import and remove them."""

from functools import partial
from typing import Any

import click

from allcnn.errors import ConfigError
from flows.cli import options
from flows.cli.options import option
from flows.settings import texts
from flows.views.terminal import show


@click.group("run")
def run_group() -> None:
    """Look at trained runs, and take them from one machine to another."""


@run_group.command("ls")
@options.pattern
@options.as_json
@options.workspace
def list_runs(pattern: str | None, as_json: bool, place: Any) -> None:
    """List the runs: how far each is, how well it does, and what it takes.

    PATTERN is a run's name with *, ? and [...]; quote it, or the shell expands it.
    """
    from allcnn.workspace import run_listing as runs
    from flows.views.runs import no_runs, runs_json, runs_table

    found = runs.list_runs(place, "*" if pattern is None else pattern)
    if not found:
        raise no_runs(place, pattern)
    show(runs_json(place, found) if as_json else runs_table(found))


@run_group.command("show")
@click.argument("run")
@options.as_json
@options.workspace
def show_run(run: str, as_json: bool, place: Any) -> None:
    """Show a run's settings, its learning curves in brief, and its checkpoints.

    The digest of a checkpoint's variables is the same wherever the same numbers are.
    """
    from allcnn.workspace.run_listing import describe_run
    from flows.views.runs import run_json, run_table

    found = describe_run(place, run)
    show(run_json(found) if as_json else run_table(found))


@run_group.command("curves")
@click.argument("patterns", metavar="RUN...", nargs=-1, required=True)
@options.workspace
def draw_curves(patterns: tuple[str, ...], place: Any) -> None:
    """Draw loss and accuracy over the epochs of runs, finished or not; print the picture's path.

    RUN is a run's name or a pattern with *, ? and [...].
    """
    from allcnn.drawing.figure_files import draw_learning_curves
    from flows.views.runs import histories_of, name_of_all

    names = list(histories_of(place, patterns))
    click.echo(draw_learning_curves(place, names, f"{name_of_all(names)}-curves"))


@run_group.command("export")
@click.argument("run")
@click.argument("file")
@option(
    "checkpoints",
    (),
    "init, epoch-0005, …, final; can be given several times [default: final]",
    read=str,
    metavar="NAME",
    option="checkpoint",
)
@option("everything", False, "every checkpoint", option="all")
@option("force", False, "replace a file that exists")
@options.workspace
def export_run(
    run: str, file: str, checkpoints: tuple[str, ...], everything: bool, force: bool, place: Any
) -> None:
    """Write a run to one file, which 'allcnn run import' reads on another machine.

    FILE is an uncompressed tar of settings, learning curves and checkpoints, the same bytes each
    time. The last line is a digest that stands for all of it, which the import shows too.
    """
    path = texts.file_to_write("file", file, "" if force else "--force")
    from allcnn.workspace.run_export import export_run as export
    from flows.views.listing import size

    if everything:
        if checkpoints:
            raise ConfigError("all and checkpoint exclude each other", remedy="leave one out")
        place.find_run(run)
        checkpoints = tuple(place.checkpoints(run))
    manifest = export(place, run, path, checkpoints)
    click.echo(f"{path}  {size(path.stat().st_size)}, {manifest.n_files} files of {run}")
    click.echo(manifest.digest)


@run_group.command("import")
@options.argument("file", "FILE", texts.local_file)
@options.workspace
def import_run(file: Any, place: Any) -> None:
    """Take a run from a file that 'allcnn run export' wrote; the last line is its name.

    Everything in it is checked before any of it counts, and nothing in it is executed. A run that
    is here already gets the checkpoints that it lacks.
    """
    from allcnn.workspace.run_export import import_run as take
    from flows.views.runs import check_stored, in_doubt

    imported = take(place, file, partial(check_stored, place))
    for note in in_doubt(place, imported):
        click.echo(note, err=True)
    click.echo(imported.manifest.digest)
    added = ", ".join(imported.added)
    click.echo(f"added {added}" if added else "nothing to add: all of it is here")
    click.echo(imported.manifest.run)


@run_group.command("rm")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@options.yes
@options.as_json
@options.workspace
def remove_runs(runs: tuple[str, ...], yes: bool, as_json: bool, place: Any) -> None:
    """Remove runs with their checkpoints; what was stored of them stays.

    Shows what would go, and asks.
    """
    from flows.views.runs import remove

    remove(place, runs, yes=yes, as_json=as_json)
