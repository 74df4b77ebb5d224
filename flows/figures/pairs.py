"""Figures of one comparison: its matrix, its standard errors, and how its values settle."""

import numpy as np

from allcnn.compare import SimilarityResult, describe
from allcnn.drawing import curves, figure_files, matrices
from allcnn.errors import ComparisonError
from allcnn.settings.comparison import Comparison
from allcnn.similarity.jackknife import convergence
from allcnn.similarity.method import Method
from flows.figures.results import Sources
from flows.figures.style import Drawn, Look


def draw_matrix(sources: Sources, job: Comparison, look: Look, *, errors: bool) -> Drawn:
    """Draw values of all representations of two sides, with its standard errors where asked for."""
    look.check_numbers(job.rows, job.columns)
    result = sources.result(job)
    if errors:
        _check_errors(result)
    title = look.titled(describe.method(result, errors=errors))
    panel = look.panel(result, title, errors=errors)
    words = ("matrix", *words_of(job), *(["errors"] if errors else []))
    return Drawn(matrices.matrix(panel, look.style), words)


def draw_errors(sources: Sources, job: Comparison, look: Look) -> Drawn:
    """Draw the standard errors as a map."""
    look.check_numbers(job.rows, job.columns)
    result = sources.result(job)
    _check_errors(result)
    panel = look.panel(result, look.titled(describe.method(result, errors=True)), errors=True)
    return Drawn(matrices.errors(panel, look.style), ("errors", *words_of(job)))


def draw_convergence(sources: Sources, job: Comparison, look: Look) -> Drawn:
    """Draw values of chosen pairs of layers against the number of minibatches."""
    look.check_numbers(job.rows, job.columns)
    result = sources.result(job)
    if result.is_whole:
        raise ComparisonError(
            f"{result.method['how']} is of a single batch", remedy="use another --estimator"
        )
    parts = figure_files.parts_of(result)
    rows, columns = (describe.side(keys) for keys in (result.rows, result.columns))
    figure = curves.convergence_curves(
        convergence(parts, figure_files.measure_of(result)),
        look.layers(rows.full_names),
        look.layers(columns.full_names),
        parts.sizes,
        result.errors,
        is_self=result.rows == result.columns,
        title=look.titled(describe.method(result, errors=True)),
        style=look.style,
        measure=result.title,
    )
    return Drawn(figure, ("convergence", *words_of(job)))


def _check_errors(result: SimilarityResult) -> None:
    errors = result.errors
    if errors is None or not np.isfinite(errors).any():
        why = result.errors_reason or f"result {result.name} has none; compute it again"
        raise ComparisonError(f"there are no standard errors to draw: {why}")


def words_of(job: Comparison) -> tuple[str, ...]:
    """Return the words that tell a comparison's figures from those of others."""
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
