"""Figures of training: learning curves, and the final network against its checkpoints."""

import math
from collections.abc import Sequence
from dataclasses import replace

import click

from allcnn.advice import extracting, store_missing
from allcnn.compare import SimilarityResult, describe
from allcnn.definitions.fields import check_name
from allcnn.drawing import curves, film, matrices
from allcnn.drawing.panel import Panel
from allcnn.errors import AllcnnError, ComparisonError, ConfigError, RunError
from allcnn.settings.selection import Selection
from allcnn.workspace import run_record
from allcnn.workspace.checkpoint_names import checkpoint_epoch, is_checkpoint, spread_out
from allcnn.workspace.paths import Workspace
from flows.figures.pairs import words_of
from flows.figures.results import Request, Sources
from flows.figures.style import Drawn, Look
from flows.views.runs import histories_of, name_of_all


def draw_curves(place: Workspace, patterns: Sequence[str], look: Look) -> Drawn:
    """Draw loss and accuracy over the epochs of the runs that fit."""
    histories = histories_of(place, patterns)
    columns = {run: run_record.columns(history) for run, history in histories.items()}
    drawn = curves.learning_curves(columns, look.titled(""), look.style)
    return Drawn(drawn, ("curves", name_of_all(list(histories))))


def draw_stages(
    sources: Sources, run: str, checkpoints: Sequence[str], request: Request, look: Look
) -> Drawn:
    """Draw a run's final network against some of its checkpoints, in a grid.

    Without names of checkpoints: up to six spread over training, denser in the beginning.
    """
    chosen = list(checkpoints) or spread_out(_checkpoints(sources, run, request))
    results = _against(sources, run, chosen, request)
    moments = _Moments(sources.place, run)
    panels = _panels(results, look, [moments.short(name) for name in chosen])
    figure = matrices.grid(panels, look.titled(_title(run, results)), look.style)
    words = ("stages", *words_of(request.job(Selection(run, "final"), Selection(run, "final"))))
    return Drawn(figure, (*words, *(["of", *checkpoints] if checkpoints else [])))


def draw_film(sources: Sources, run: str, request: Request, look: Look) -> Drawn:
    """Draw a run's final network against all its checkpoints, one after the other."""
    names = _checkpoints(sources, run, request)
    results = _against(sources, run, names, request)
    _check_taps(results)
    moments = _Moments(sources.place, run)
    panels = _panels(results, look, [moments.long(name) for name in names])
    drawn = film.film(panels, look.titled(_title(run, results)), look.style)
    words = words_of(request.job(Selection(run, "final"), Selection(run, "final")))
    return Drawn(drawn, ("animation", *words))


def _checkpoints(sources: Sources, run: str, request: Request) -> list[str]:
    """Return the checkpoints that can be drawn, and tell of those that a run has beside them.

    Raises RunError where the last is not among them.
    """
    check_name("run", run)
    place, names = sources.place, sources.checkpoints(run, request)
    final = Selection(run, "final")
    if "final" not in names:
        raise RunError(
            f"nothing is stored of {final} in {place.root}", remedy=store_missing(place, final)
        )
    others = [name for name in place.checkpoints(run) if name not in names]
    if others:
        told = ", ".join(others[:4]) + (", …" if len(others) > 4 else "")
        extract = extracting(place, Selection(run, "all"))
        click.echo(f"not stored, and left out: {told}; {extract} stores all", err=True)
    return names


def _against(
    sources: Sources, run: str, names: Sequence[str], request: Request
) -> list[SimilarityResult]:
    for name in names:
        check_name("checkpoint", name)
    check_name("run", run)
    final = Selection(run, "final")
    return sources.results([request.job(final, Selection(run, name)) for name in names])


def _check_taps(results: Sequence[SimilarityResult]) -> None:
    """Raise ComparisonError where checkpoints have other taps than the last one."""
    for result in results:
        final, other = ([key.tap for key in side] for side in (result.rows, result.columns))
        if other != final:
            names = (
                f"{keys[0].run}@{keys[0].checkpoint}" for keys in (result.columns, result.rows)
            )
            raise ComparisonError(
                f"{next(names)} has the taps {', '.join(other)} and {next(names)}"
                f" {', '.join(final)}",
                remedy="a film needs checkpoints of the same taps: draw 'stages'",
            )


def _panels(results: Sequence[SimilarityResult], look: Look, titles: Sequence[str]) -> list[Panel]:
    # One label for all columns, so that the axes are named once.
    return [
        replace(look.panel(result, title), column_label=result.rows[0].run)
        for result, title in zip(results, titles, strict=True)
    ]


def _title(run: str, results: Sequence[SimilarityResult]) -> str:
    return f"{run}@final against its checkpoints: {describe.method(results[0])}"


class _Moments:
    """When in training checkpoints are, and how well they do, as far as the run tells."""

    def __init__(self, place: Workspace, run: str) -> None:
        self._accuracies: dict[float, float] = {}
        try:
            history = run_record.read_history(place, run)
            self._epochs = float(run_record.read_record(place, run).config.epochs)
        except AllcnnError:  # removed, or imported without its run
            self._epochs = math.inf
        else:
            self._accuracies = {row.epoch: row.test_accuracy for row in history}

    def short(self, checkpoint: str) -> str:
        """Return words for a title of a small matrix."""
        epoch, accuracy = self._of(checkpoint)
        return epoch if accuracy is None else f"{epoch} ({accuracy:.1%})"

    def long(self, checkpoint: str) -> str:
        """Return words for a title of a large one."""
        epoch, accuracy = self._of(checkpoint)
        return epoch if accuracy is None else f"{epoch} · test accuracy {accuracy:.1%}"

    def _of(self, checkpoint: str) -> tuple[str, float | None]:
        if not is_checkpoint(checkpoint):
            return checkpoint, None
        epoch = min(checkpoint_epoch(checkpoint), self._epochs)
        if math.isinf(epoch):
            return checkpoint, None
        return f"epoch {epoch:.0f}", self._accuracies.get(epoch)


def parse_checkpoints(text: str | None) -> tuple[str, ...]:
    """Read a list of checkpoints such as ``init,epoch-0005,final``; raises ConfigError."""
    names = () if text is None else tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if text is not None and not all(names):
        raise ConfigError(
            f"checkpoints is {text!r}", remedy="write names, as in init,epoch-0005,final"
        )
    return names
