"""The pictures that a nightly run draws beside the report."""

from collections.abc import Iterable
from typing import Final

from allcnn.drawing import figure_files
from allcnn.progress import Report, silent
from allcnn.workspace.paths import Workspace
from store import SimilarityResult
from store.storage.paths import Place, is_file

CURVES: Final = "nightly-curves"
"""The picture of the learning curves of all runs."""


def draw_missing(
    workspace: Workspace, results: Iterable[SimilarityResult], report: Report = silent
) -> list[Place]:
    """Draw the results that have no picture; return the pictures drawn."""
    wanted = [r for r in results if not is_file(workspace.figures / f"{r.name}.png")]
    drawn = []
    for done, result in enumerate(wanted, start=1):
        drawn.append(figure_files.draw_comparison(workspace, result))
        report(done, len(wanted), f"drawing {result.name}")
    return drawn
