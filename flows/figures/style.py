"""How a figure looks, and where it goes: files that are named, or one in the workspace."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NamedTuple

from matplotlib.figure import Figure

from allcnn.compare import SimilarityResult
from allcnn.definitions.bounds import shown
from allcnn.drawing import figure_files
from allcnn.drawing.canvas import save
from allcnn.drawing.film import Film, has_ffmpeg, save_film
from allcnn.drawing.panel import Panel, by_number
from allcnn.drawing.style import STYLES, Purpose, Style
from allcnn.errors import ConfigError, WorkspaceError
from allcnn.settings.selection import Selection
from allcnn.workspace.paths import Workspace
from flows.settings import texts
from store.storage.paths import Place

PICTURES: Final = (".png", ".pdf", ".svg")
FILMS: Final = (".gif", ".mp4")

_LONGEST: Final = 120
"""Letters of a file's name before its digest."""

_MOST_LETTERS: Final = 300
"""In a title: a page has no room for more."""


@dataclass(frozen=True)
class Look:
    """The choices of a reader.

    Attributes:
        purpose: a page, or a column of print, 3.3 inches wide.
        names: of the layers: those of their taps, or L1, L2, ...
        title: in place of the one that says what is drawn; empty for none.
    """

    purpose: Purpose = "page"
    names: Literal["taps", "numbers"] = "taps"
    title: str | None = None

    def __post_init__(self) -> None:
        title = self.title or ""
        if len(title) > _MOST_LETTERS or not all(map(str.isprintable, title.splitlines())):
            raise ConfigError(
                "title",
                f"is {shown(title)}",
                f"use at most {_MOST_LETTERS} letters, all of them printable",
            )

    @property
    def style(self) -> Style:
        """The sizes of figures of this purpose."""
        return STYLES[self.purpose]

    @property
    def suffix(self) -> str:
        """The end of a file's name that says how the figure looks."""
        choices = {"-numbers": self.names == "numbers", "-column": self.purpose == "column"}
        return "".join(name for name, chosen in choices.items() if chosen)

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


def parse_files(names: Sequence[str], kinds: tuple[str, ...] = PICTURES) -> tuple[Path, ...]:
    """Read names of files; raises ConfigError for what cannot be written, before any work."""
    files = tuple(dict.fromkeys(texts.file_to_write("to", name) for name in names))
    for file in files:
        if file.suffix.lower() not in kinds:
            raise ConfigError("to", f"is {file}", f"use a name in {', '.join(kinds)}")
        if not os.access(file.parent, os.W_OK):
            raise ConfigError("to", f"is {file}, and nothing can be written in {file.parent}")
        if file.suffix.lower() == ".mp4" and not has_ffmpeg():
            raise ConfigError(
                "to",
                f"is {file}, and there is no ffmpeg to write it",
                "install ffmpeg, or name a .gif",
            )
    return files


def write(place: Workspace, drawn: Drawn, files: Sequence[Path], look: Look) -> list[Place]:
    """Write a figure into files, or into the workspace's folder of figures; return where it is."""
    picture, written = drawn.picture, []
    kind = (FILMS if isinstance(picture, Film) else PICTURES)[0]
    for target in files or (place.figures / f"{speaking_name(*drawn.words)}{look.suffix}{kind}",):
        try:
            if isinstance(picture, Film):
                written.append(save_film(picture, target))
            else:
                written.append(save(picture, target, look.style.dpi))
        except OSError as error:
            raise WorkspaceError(
                f"cannot write {target} ({error.strerror or error})",
                remedy="name another file with --to",
            ) from error
    return written


def speaking_name(kind: str, *parts: str) -> str:
    """Return a file's name of letters, digits, ``_``, ``.`` and ``-``, from words that may not be.

    ``@`` becomes ``_``, and others become ``x``; a digest distinguishes names that are then alike,
    or too long.
    """
    words = [part.replace("@", "_") for part in dict.fromkeys(parts) if part]
    exact = "-".join([kind, *words])
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "x" for c in exact)
    if plain == exact and len(plain) <= _LONGEST:
        return plain
    # A pattern may have what no name has, such as half a surrogate pair.
    digest = hashlib.sha256(exact.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{plain[:_LONGEST]}-{digest[:8]}"
