"""The commands about trained runs: to list, show, draw, export, import and remove them."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import click

from allcnn.errors import ConfigError
from flows.cli import options
from flows.settings import texts

_json = click.option("--json", "as_json", is_flag=True, help="print one JSON document")


@click.group("run")
def run_group() -> None:
    """Look at trained runs, and take them from one machine to another."""


@run_group.command("ls")
@click.argument("pattern", metavar="[PATTERN]", required=False)
@_json
@options.workspace
def list_runs(pattern: str | None, as_json: bool, workspace: str) -> None:
    """List the runs: how far each is, how well it does, and what it takes.

    PATTERN is a run's name with *, ? and [...]; quote it, or the shell expands it.
    """
    place = _workspace(workspace)
    from allcnn.workspace import run_listing as runs
    from flows.views.runs import no_runs, runs_json, runs_table

    found = runs.list_runs(place, "*" if pattern is None else pattern)
    if not found:
        raise no_runs(place, pattern)
    _show(runs_json(place, found) if as_json else runs_table(found))


@run_group.command("show")
@click.argument("run")
@_json
@options.workspace
def show_run(run: str, as_json: bool, workspace: str) -> None:
    """Show a run's settings, its learning curves in brief, and its checkpoints.

    The digest of a checkpoint's variables is the same wherever the same numbers are.
    """
    place = _workspace(workspace)
    from allcnn.workspace.run_listing import describe_run
    from flows.views.runs import run_json, run_table

    found = describe_run(place, run)
    _show(run_json(found) if as_json else run_table(found))


@run_group.command("curves")
@click.argument("patterns", metavar="RUN...", nargs=-1, required=True)
@options.workspace
def draw_curves(patterns: tuple[str, ...], workspace: str) -> None:
    """Draw loss and accuracy over the epochs of runs, finished or not; print the picture's path.

    RUN is a run's name or a pattern with *, ? and [...].
    """
    place = _workspace(workspace)
    from allcnn.drawing.figure_files import draw_learning_curves
    from flows.views.runs import histories_of, name_of_all

    names = list(histories_of(place, patterns))
    click.echo(draw_learning_curves(place, names, f"{name_of_all(names)}-curves"))


@run_group.command("export")
@click.argument("run")
@click.argument("file")
@click.option(
    "--checkpoint",
    "checkpoints",
    multiple=True,
    metavar="NAME",
    help="init, epoch-0005, …, final; can be given several times [default: final]",
)
@click.option("--all", "everything", is_flag=True, help="every checkpoint")
@click.option("--force", is_flag=True, help="replace a file that exists")
@options.workspace
def export_run(
    run: str,
    file: str,
    checkpoints: tuple[str, ...],
    everything: bool,
    force: bool,
    workspace: str,
) -> None:
    """Write a run to one file, which 'allcnn run import' reads on another machine.

    FILE is an uncompressed tar of settings, learning curves and checkpoints, the same bytes each
    time. The last line is a digest that stands for all of it, which the import shows too.
    """
    path = texts.local_file(file)
    _check_target(path, force)
    place = _workspace(workspace)
    from allcnn.workspace.run_export import export_run as export
    from flows.views.listing import size

    if everything:
        if checkpoints:
            raise ConfigError("all and checkpoint exclude each other; leave one out")
        place.find_run(run)
        checkpoints = tuple(place.checkpoints(run))
    manifest = export(place, run, path, checkpoints)
    click.echo(f"{path}  {size(path.stat().st_size)}, {manifest.n_files} files of {run}")
    click.echo(manifest.digest)


@run_group.command("import")
@click.argument("file")
@options.workspace
def import_run(file: str, workspace: str) -> None:
    """Take a run from a file that 'allcnn run export' wrote; the last line is its name.

    Everything in it is checked before any of it counts, and nothing in it is executed. Of a run
    that is here already, the checkpoints that are missing are added.
    """
    path = texts.local_file(file)
    place = _workspace(workspace)
    from allcnn.workspace.run_export import import_run as take
    from flows.views.runs import check_stored, in_doubt

    imported = take(place, path, partial(check_stored, place))
    for note in in_doubt(place, imported):
        click.echo(note, err=True)
    click.echo(imported.manifest.digest)
    added = ", ".join(imported.added)
    click.echo(f"added {added}" if added else "nothing to add: all of it is here")
    click.echo(imported.manifest.run)


@run_group.command("rm")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="remove without asking")
@_json
@options.workspace
def remove_runs(runs: tuple[str, ...], yes: bool, as_json: bool, workspace: str) -> None:
    """Remove runs with their checkpoints; what was stored of them stays.

    Shows what would go, and asks.
    """
    place = _workspace(workspace)
    from flows.views.runs import remove

    remove(place, runs, yes=yes, as_json=as_json)


def _check_target(path: Path, force: bool) -> None:
    if path.is_dir():
        raise ConfigError(f"file is {path}, which is a folder; name a file")
    if not path.parent.is_dir():
        raise ConfigError(f"file is {path}, and {path.parent} is no folder; make it first")
    if path.exists() and not force:
        raise ConfigError(f"file is {path}, which exists; replace it with --force")


def _show(what: Any) -> None:
    text = what if isinstance(what, str) else json.dumps(what, indent=1, allow_nan=False)
    click.echo(text)


def _workspace(root: str) -> Any:
    from allcnn.workspace.paths import Workspace

    return Workspace.at(root)
