"""How large a figure and its letters are: for a page, for one column of it, or for a screen."""

from dataclasses import dataclass, replace
from typing import Final, Literal, Self

Purpose = Literal["page", "column"]


@dataclass(frozen=True)
class Style:
    """Sizes in inches, and those of letters in points.

    Attributes:
        width: of the whole figure, at most.
        fills: whether it is exactly so wide.
        matrix: largest side of a matrix that stands alone.
        cell: largest side of one cell.
        abreast: matrices side by side in a grid, at most.
        title: size of titles.
        label: size of the labels of axes.
        tick: size of names and numbers at axes; never below 6, the least that is read in print.
        number: size of numbers in cells.
        line: width of curves in points.
        dpi: dots an inch of bitmaps.
    """

    width: float
    fills: bool
    matrix: float
    cell: float
    abreast: int
    title: float
    label: float
    tick: float
    number: float
    line: float
    dpi: int

    @property
    def small(self) -> Self:
        """The same for grids, whose matrices are smaller."""
        return replace(
            self,
            title=max(7.0, self.title - 2),
            label=max(7.0, self.label - 1.5),
            tick=max(6.0, self.tick - 1.5),
        )


PAGE: Final = Style(9.5, False, 6.4, 0.42, 4, 11, 10, 8, 7, 1.5, 150)
COLUMN: Final = Style(3.3, True, 3.3, 0.42, 3, 8, 7, 6, 6, 1.0, 300)
SCREEN: Final = replace(PAGE, width=16.0)
"""For pictures kept beside results: matrices of many networks need not shrink to a page."""

STYLES: Final[dict[Purpose, Style]] = {"page": PAGE, "column": COLUMN}
