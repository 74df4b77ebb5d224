"""Figures of training: learning curves, and the final network against its checkpoints."""

import math
from collections.abc import Sequence
from dataclasses import replace

import click

from allcnn.advice import extracting, store_missing
from allcnn.compare import SimilarityResult, describe, network_of
from allcnn.drawing import curves, film, matrices
from allcnn.drawing.panel import Panel
from allcnn.errors import AllcnnError, ComparisonError, RunError
from allcnn.settings.selection import Selection
from allcnn.workspace import run_record
from allcnn.workspace.checkpoint_names import checkpoint_epoch, is_checkpoint, spread_out
from allcnn.workspace.paths import Workspace
from flows.figures.pairs import words_of
from flows.figures.results import Sources
from flows.figures.style import Drawn, Look
from flows.views.runs import histories_of, name_of_all


def draw_curves(sources: Sources, look: Look, runs: Sequence[str]) -> Drawn:
    """Draw loss and accuracy over the epochs of the runs that fit."""
    histories = histories_of(sources.place, runs)
    columns = {run: run_record.columns(history) for run, history in histories.items()}
    drawn = curves.learning_curves(columns, look.titled(""), look.style)
    return Drawn(drawn, ("curves", name_of_all(list(histories))))


def draw_stages(
    sources: Sources, look: Look, run: str, checkpoints: Sequence[str] | None = None
) -> Drawn:
    """Draw a run's final network against some of its checkpoints, in a grid.

    Without names of checkpoints: up to six spread over training, denser in the beginning.
    """
    chosen = checkpoints or spread_out(_checkpoints(sources, run))
    results = _against(sources, run, chosen)
    panels = _panels(sources.place, results, look, chosen, "{} ({:.1%})")
    figure = matrices.grid(panels, look.titled(_title(run, results)), look.style)
    words = words_of(sources.job(Selection(run, "final")))
    return Drawn(figure, ("stages", *words, *(["of", *checkpoints] if checkpoints else [])))


def draw_animation(sources: Sources, look: Look, run: str) -> Drawn:
    """Draw a run's final network against all its checkpoints, one after the other."""
    names = _checkpoints(sources, run)
    results = _against(sources, run, names)
    for result in results:
        _check_taps(result)
    panels = _panels(sources.place, results, look, names, "{} · test accuracy {:.1%}")
    drawn = film.film(panels, look.titled(_title(run, results)), look.style)
    return Drawn(drawn, ("animation", *words_of(sources.job(Selection(run, "final")))))


def _checkpoints(sources: Sources, run: str) -> list[str]:
    """Return the checkpoints that can be drawn, and report those that a run has beside them.

    Raises RunError where the last is not among them.
    """
    place, names, final = sources.place, sources.checkpoints(run), Selection(run, "final")
    if "final" not in names:
        raise RunError(
            f"nothing is stored of {final} in {place.root}", remedy=store_missing(place, final)
        )
    others = [name for name in place.checkpoints(run) if name not in names]
    if others:
        listed = ", ".join(others[:4]) + (", …" if len(others) > 4 else "")
        extract = extracting(place, Selection(run, "all"))
        click.echo(f"not stored, and left out: {listed}; {extract} stores all", err=True)
    return names


def _against(sources: Sources, run: str, names: Sequence[str]) -> list[SimilarityResult]:
    final = Selection(run, "final")
    return sources.results([sources.job(final, Selection(run, name)) for name in names])


def _check_taps(result: SimilarityResult) -> None:
    """Raise ComparisonError where a checkpoint has other taps than the last one."""
    final, other = ([key.tap for key in side] for side in (result.rows, result.columns))
    if other != final:
        raise ComparisonError(
            f"{network_of(result.columns[0])} has the taps {', '.join(other)} and"
            f" {network_of(result.rows[0])} {', '.join(final)}",
            remedy="a film needs checkpoints of the same taps: draw 'stages'",
        )


def _title(run: str, results: Sequence[SimilarityResult]) -> str:
    return f"{run}@final against its checkpoints: {describe.method(results[0])}"


def _panels(
    place: Workspace,
    results: Sequence[SimilarityResult],
    look: Look,
    checkpoints: Sequence[str],
    with_accuracy: str,
) -> list[Panel]:
    """Return a panel a checkpoint, titled by its epoch and, where the run has it, its accuracy."""
    run, epochs = results[0].rows[0].run, math.inf
    accuracies: dict[float, float] = {}
    try:
        history = run_record.read_history(place, run)
        epochs = float(run_record.read_record(place, run).config.epochs)
        accuracies = {row.epoch: row.test_accuracy for row in history}
    except AllcnnError:  # removed, or imported without its run
        pass
    panels = []
    for name, result in zip(checkpoints, results, strict=True):
        epoch = min(checkpoint_epoch(name), epochs) if is_checkpoint(name) else math.inf
        title = name if math.isinf(epoch) else f"epoch {epoch:.0f}"
        if epoch in accuracies:
            title = with_accuracy.format(title, accuracies[epoch])
        # One label for all columns, so that the axes are named once.
        panels.append(replace(look.panel(result, title), column_label=run))
    return panels
