"""The flow that compares many representations with each other in one pass."""

from prefect import flow

from flows.compare import compare_representations
from flows.parameters import MatrixParameters


@flow(name="matrix")
def matrix(settings: MatrixParameters) -> list[str]:
    """Compare all representations that fit a pattern; return the results' names."""
    return compare_representations(settings.job(), settings.place(), errors=settings.errors)
