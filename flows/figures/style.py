"""How a figure is to look: its purpose, the names of layers, and its title."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from matplotlib.figure import Figure

from allcnn.compare import SimilarityResult
from allcnn.definitions.bounds import shown
from allcnn.drawing import figure_files
from allcnn.drawing.film import Film
from allcnn.drawing.panel import Panel, by_number
from allcnn.drawing.style import STYLES, Purpose, Style
from allcnn.errors import ConfigError
from allcnn.settings.selection import Selection

Naming = Literal["taps", "numbers"]

_MOST_LETTERS = 300
"""Of a title: a page has no room for more."""


@dataclass(frozen=True)
class Look:
    """What of a figure is the reader's choice.

    Attributes:
        purpose: a page, or a column of print, 3.3 inches wide.
        names: of the layers: those of their taps, or L1, L2, ...
        title: in place of the one that says what is drawn; empty for none.
    """

    purpose: Purpose = "page"
    names: Naming = "taps"
    title: str | None = None

    def __post_init__(self) -> None:
        title = self.title or ""
        if len(title) > _MOST_LETTERS or not all(map(str.isprintable, title.splitlines())):
            raise ConfigError(
                f"title is {shown(title)}",
                remedy=f"use at most {_MOST_LETTERS} letters, all of them printable",
            )

    @property
    def style(self) -> Style:
        """The sizes of figures of this purpose."""
        return STYLES[self.purpose]

    def titled(self, otherwise: str) -> str:
        """Return the title that was asked for, or else this one."""
        # Two dollars would make a formula of what is between them.
        return otherwise if self.title is None else self.title.replace("$", r"\$")

    def check_numbers(self, *sides: Selection) -> None:
        """Raise ConfigError for numbers of some layers alone, which would begin with 1 too."""
        some = next((side for side in sides if side.tap != "*"), None)
        if self.names == "numbers" and some is not None:
            raise ConfigError(f"names is numbers, and {some} leaves out layers", remedy="use taps")

    def panel(self, result: SimilarityResult, title: str = "", *, errors: bool = False) -> Panel:
        """Return a result as something to draw."""
        drawn = figure_files.panel(result, title, errors=errors)
        return by_number(drawn) if self.names == "numbers" else drawn

    def layers(self, taps: list[str]) -> list[str]:
        """Return what layers are called."""
        return [f"L{k + 1}" for k in range(len(taps))] if self.names == "numbers" else taps


class Drawn(NamedTuple):
    """A figure, or a film, and the words that its file's name is made of."""

    picture: Figure | Film
    words: tuple[str, ...]
