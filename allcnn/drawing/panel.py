"""One matrix to draw: its values, the names of its rows and columns, and their groups."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from jaxtyping import Float

COLOURS: Final = "magma"
"""The map of Matplotlib's for values of measures, which colour-blind readers can read."""

Groups = Sequence[tuple[str, int]]
"""Names of consecutive rows or columns and how many each has, in order."""


def spans(groups: Groups) -> list[tuple[str, int, int]]:
    """Return name, first and stop of each group."""
    stops = itertools.accumulate(count for _, count in groups)
    return [(name, stop - count, stop) for (name, count), stop in zip(groups, stops, strict=True)]


def check_shape(what: str, values: np.ndarray, shape: tuple[int, ...], wanted: str) -> None:
    """Raise ValueError unless there are values, in this shape."""
    if np.shape(values) != shape or 0 in shape:
        raise ValueError(f"{what} shape {np.shape(values)}, {wanted}")


@dataclass(frozen=True)
class Panel:
    """One matrix to draw, with the taps of its rows and columns in order.

    Attributes:
        matrix: of any values; NaN is hatched, values outside the limits have the nearest colour.
        rows: names, from the bottom up.
        columns: names, from left to right.
        title: above the matrix.
        row_label: the name of all rows, such as the run.
        column_label: that of all columns.
        errors: standard errors of the values; NaN is not written, and hatched in a map.
        row_groups: names and numbers of rows that belong together, such as those of one network.
        column_groups: the same of columns.
        measure: the name of the values.
        limits: values of the first colour and of the last.
        colours: their map in Matplotlib.
    """

    matrix: Float[np.ndarray, "r c"]
    rows: Sequence[str]
    columns: Sequence[str]
    title: str = ""
    row_label: str = ""
    column_label: str = ""
    errors: Float[np.ndarray, "r c"] | None = None
    row_groups: Groups | None = None
    column_groups: Groups | None = None
    measure: str = "CKA"
    limits: tuple[float, float] = (0.0, 1.0)
    colours: str = COLOURS

    def __post_init__(self) -> None:
        shape = (len(self.rows), len(self.columns))
        check_shape(
            f"the matrix of panel {self.title!r} has",
            self.matrix,
            shape,
            f"its names {shape}; give one name a row and column, and at least one of each",
        )
        if self.errors is not None:
            check_shape(
                f"the errors of panel {self.title!r} have",
                self.errors,
                shape,
                f"its matrix {shape}; give one error a value, NaN where there is none",
            )
        sides = ("row", self.row_groups), ("column", self.column_groups)
        for (kind, groups), n in zip(sides, shape, strict=True):
            counts = [n] if groups is None else [count for _, count in groups]
            if sum(counts) != n or min(counts) < 1:
                raise ValueError(
                    f"the {kind} groups of panel {self.title!r} have {counts} {kind}s, its matrix"
                    f" {n}; give groups of one or more that add up to all"
                )

    @property
    def is_grouped(self) -> bool:
        """Whether rows or columns are of several networks."""
        return self.row_groups is not None or self.column_groups is not None

    @property
    def longest(self) -> int:
        """The cells of its longer side."""
        return max(len(self.rows), len(self.columns))

    @property
    def names(self) -> tuple[object, ...]:
        """All that stands at the axes: equal where two panels share them."""
        groups = (tuple(self.row_groups or ()), tuple(self.column_groups or ()))
        return tuple(self.rows), tuple(self.columns), self.row_label, self.column_label, groups


def deviations(panel: Panel, matrix: Float[np.ndarray, "r c"], measure: str) -> Panel:
    """Return how far values lie off, in colours of their own from 0 to the largest."""
    # Of zeros alone, any scale shows them as its first colour.
    largest = float(np.max(matrix, initial=0.0, where=np.isfinite(matrix))) or 1.0
    return replace(
        panel,
        matrix=matrix,
        title=measure,
        errors=None,
        measure=measure,
        limits=(0.0, largest),
        colours="cividis",
    )


def by_number(panel: Panel) -> Panel:
    """Call rows and columns L1, L2, ..., beginning again with each group."""
    return replace(
        panel,
        rows=_numbers(len(panel.rows), panel.row_groups),
        columns=_numbers(len(panel.columns), panel.column_groups),
    )


def _numbers(n: int, groups: Groups | None) -> list[str]:
    parts = spans(groups if groups is not None else [("", n)])
    return [f"L{k + 1}" for _, first, stop in parts for k in range(stop - first)]
