"""Where figures go: files that are named, or one of a speaking name in the workspace."""

import hashlib
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from matplotlib.figure import Figure

from allcnn.drawing.canvas import save
from allcnn.drawing.film import Film, has_ffmpeg, save_film
from allcnn.errors import ConfigError, WorkspaceError
from allcnn.workspace.paths import Workspace
from flows.figures.style import Look
from flows.settings import texts
from store.storage.paths import Place

PICTURES: Final = (".png", ".pdf", ".svg")
FILMS: Final = (".gif", ".mp4")

_LONGEST: Final = 120


@dataclass(frozen=True)
class Targets:
    """The files to write; without any, one in the workspace's folder of figures."""

    files: tuple[Path, ...] = ()
    kinds: tuple[str, ...] = PICTURES

    @classmethod
    def parse(cls, names: Sequence[str], kinds: tuple[str, ...] = PICTURES) -> Self:
        """Read names of files; raises ConfigError for what cannot be written, before any work."""
        files = tuple(dict.fromkeys(map(texts.local_file, names)))
        for file in files:
            _check(file, kinds)
        return cls(files, kinds)

    def write(self, place: Workspace, drawn: Figure | Film, name: str, look: Look) -> list[Place]:
        """Write a figure into every file; return them."""
        own = place.figures / f"{name}{_suffix(look)}{self.kinds[0]}"
        written = []
        for target in self.files or (own,):
            try:
                if isinstance(drawn, Film):
                    written.append(save_film(drawn, target))
                else:
                    written.append(save(drawn, target, look.style.dpi))
            except OSError as error:
                raise WorkspaceError(
                    f"cannot write {target} ({error.strerror or error})",
                    remedy="name another file with --to",
                ) from error
        return written


def _check(file: Path, kinds: Collection[str]) -> None:
    if file.suffix.lower() not in kinds:
        raise ConfigError(f"to is {file}", remedy=f"use a name in {', '.join(kinds)}")
    if file.is_dir():
        raise ConfigError(f"to is {file}, which is a folder", remedy="name a file")
    if not file.parent.is_dir():
        raise ConfigError(f"to is {file}, and {file.parent} is no folder", remedy="make it first")
    if not os.access(file.parent, os.W_OK):
        raise ConfigError(f"to is {file}, and nothing can be written in {file.parent}")
    if file.suffix.lower() == ".mp4" and not has_ffmpeg():
        raise ConfigError(
            f"to is {file}, and there is no ffmpeg to write it",
            remedy="install ffmpeg, or name a .gif",
        )


def speaking_name(kind: str, *parts: str) -> str:
    """Return a file's name of letters, digits, ``_``, ``.`` and ``-``, from words that may not be.

    ``@`` becomes ``_``, and others become ``x``. Of what is then alike, or too long, a digest tells
    the one from the other.
    """
    words = [part.replace("@", "_") for part in dict.fromkeys(parts) if part]
    exact = "-".join([kind, *words])
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "x" for c in exact)
    if plain == exact and len(plain) <= _LONGEST:
        return plain
    # A pattern may have what no name has, such as half a surrogate pair.
    digest = hashlib.sha256(exact.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{plain[:_LONGEST]}-{digest[:8]}"


def _suffix(look: Look) -> str:
    return ("-numbers" if look.names == "numbers" else "") + (
        "-column" if look.purpose == "column" else ""
    )
