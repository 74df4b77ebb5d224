"""Figures of one comparison: its matrix, its standard errors, and how its values settle."""

from typing import Any

import numpy as np

from allcnn.compare import SimilarityResult, describe
from allcnn.drawing import figure_files, matrices
from allcnn.errors import ComparisonError
from allcnn.settings.comparison import Comparison
from allcnn.similarity.method import Method
from flows.figures.results import Sources
from flows.figures.style import Drawn, Look


def draw_matrix(sources: Sources, look: Look, *, errors: bool = False, **sides: Any) -> Drawn:
    """Draw values of all representations of two sides, with standard errors where asked for.

    ``sides`` are rows, columns and label of a comparison, here and in the figures below.
    """
    job, result = _result(sources, look, sides, errors=errors)
    title = look.titled(describe.method(result, errors=errors))
    panel = look.panel(result, title, errors=errors)
    words = ("matrix", *words_of(job), *(["errors"] if errors else []))
    return Drawn(matrices.matrix(panel, look.style), words)


def draw_errors(sources: Sources, look: Look, **sides: Any) -> Drawn:
    """Draw the standard errors as a map."""
    job, result = _result(sources, look, sides, errors=True)
    panel = look.panel(result, look.titled(describe.method(result, errors=True)), errors=True)
    return Drawn(matrices.errors(panel, look.style), ("errors", *words_of(job)))


def draw_convergence(sources: Sources, look: Look, **sides: Any) -> Drawn:
    """Draw values of chosen pairs of layers against the number of minibatches."""
    job, result = _result(sources, look, sides)
    if result.is_whole:
        raise ComparisonError(
            f"{result.method['how']} is of a single batch", remedy="use another --estimator"
        )
    title = look.titled(describe.method(result, errors=True))
    figure = figure_files.convergence_figure(result, title, look.layers, look.style)
    return Drawn(figure, ("convergence", *words_of(job)))


def _result(
    sources: Sources, look: Look, sides: dict[str, Any], *, errors: bool = False
) -> tuple[Comparison, SimilarityResult]:
    """Return what to draw; raises ComparisonError where errors are wanted and not there."""
    job = sources.job(**sides)
    look.check_numbers(job.rows, job.columns)
    result = sources.result(job)
    if errors and (result.errors is None or not np.isfinite(result.errors).any()):
        why = result.errors_reason or f"result {result.name} has none; compute it again"
        raise ComparisonError(f"there are no standard errors to draw: {why}")
    return job, result


def words_of(job: Comparison) -> tuple[str, ...]:
    """Return the words by which a comparison's figures differ from those of others."""
    method, usual = job.method, Method()
    settings = [str(value) for value in method.measure.to_json().values()]
    return (
        str(job.rows).replace(":", "_"),
        str(job.columns).replace(":", "_"),
        "" if type(method.measure) is type(usual.measure) else method.measure.name,
        method.kernel.slug,
        *(() if method.measure == usual.measure else settings),
        "pooled" if method.pool == "mean" else "",
        "" if job.label is None else f"class{job.label}",
        "" if method.batch_size == usual.batch_size else f"batch{method.batch_size}",
        job.sample_set or "",
    )
