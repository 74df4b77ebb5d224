"""Settings as people write them on a command line."""

import re
from pathlib import Path
from typing import Any, Final

from allcnn.errors import ConfigError
from allcnn.settings.selection import Selection

MAX_NUMBERS: Final = 10_000
"""Depths or seeds of one command: a mistyped range must not fill the memory."""

_RANGE: Final = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?")


def local_file(text: str) -> Path:
    """Return the path of a file; raises ConfigError for an address, which would be mangled."""
    if "://" in text:
        raise ConfigError(f"{text} is an address", remedy="give a local file")
    return Path(text)


def file_to_write(name: str, text: str, replacing: str = "") -> Path:
    """Return the path of a file to write; raises ConfigError where none can be written.

    ``replacing`` is the option that replaces a file that exists; without it, any file may be.
    """
    path = local_file(text)
    if path.is_dir():
        raise ConfigError(name, f"is {path}, which is a folder", "name a file")
    if not path.parent.is_dir():
        raise ConfigError(name, f"is {path}, and {path.parent} is no folder", "make it first")
    if replacing and path.exists():
        raise ConfigError(name, f"is {path}, which exists", remedy=f"replace it with {replacing}")
    return path


def taps(text: str) -> list[str]:
    """Read names of taps, separated by commas; the whole text may be a name with commas, too."""
    return [text, *(name.strip() for name in text.split(","))]


def network(text: str) -> Selection:
    """Read the name of a network; raises ConfigError for a pattern."""
    side = Selection.parse(text)
    if not side.is_network or side.tap != "*":
        raise ConfigError(f"{str(side)!r}", "is a pattern", "name one RUN@CHECKPOINT")
    return side


def networks(text: str) -> Selection:
    """Read a pattern where a run alone, or a pattern of runs, stands for all its checkpoints."""
    return Selection.parse(text if set("@:") & set(text) or not text else f"{text}@*")


def words(text: str) -> tuple[Any, ...]:
    """Read words that are separated by commas, each once."""
    return tuple(dict.fromkeys(word.strip() for word in text.split(",")))


def parse_numbers(name: str, text: str) -> tuple[int, ...]:
    """Read a list of numbers and ascending ranges, such as ``0-3,7``; raises ConfigError."""
    numbers: list[int] = []
    for part in text.split(","):
        found = _RANGE.fullmatch(part.strip())
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if last < first:
            raise ConfigError(f"{name} is {text!r}", remedy="write numbers and ranges, as in 0-3,7")
        if len(numbers) + last - first >= MAX_NUMBERS:
            raise ConfigError(f"{name} is {text!r}", remedy=f"name at most {MAX_NUMBERS} numbers")
        numbers += range(first, last + 1)
    return tuple(dict.fromkeys(numbers))


def parse_fractions(name: str, text: str) -> tuple[float, ...]:
    """Read a list of numbers such as ``0.2,0.4,0.8``; raises ConfigError."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"{name} is {text!r}", remedy="write numbers, as in 0.2,0.4,0.8"
        ) from None
