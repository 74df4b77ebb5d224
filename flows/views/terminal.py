"""Standard streams as they may be: closed, full, or unable to show every letter."""

import atexit
import codecs
import os
import sys
from contextlib import suppress
from typing import Final, TextIO

_ERRORS: Final = "allcnn-plain"

_PLAIN: Final = {"…": "...", "→": "->", "×": "x", "±": "+/-", "·": "-", "–": "-", "—": "-"}  # noqa: RUF001
"""What we print beyond ASCII, in ASCII; any other letter becomes its number, as in Python."""


def prepare() -> None:
    """Make all three standard streams usable, and let none of them fail for a letter."""
    _open_closed()
    codecs.register_error(_ERRORS, _in_ascii)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors=_ERRORS)


def abandon_output() -> None:
    """Let go of what standard output could not take: else Python fails once more at its end."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def end_in_silence() -> None:
    """Let nothing follow the sentence of an error that says what the machine lacks.

    Libraries that could not start their threads fail again when Python ends, each at length.
    """
    atexit.register(lambda: os.dup2(os.open(os.devnull, os.O_WRONLY), 2))


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether somebody can answer on a stream, or read it."""
    return stream is not None and not stream.closed and stream.isatty()


def _open_closed() -> None:
    """Open what was closed: from nothing, and to nothing.

    Else the next file takes its number, and gets what some library writes as an error.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, open(descriptor, mode, encoding="utf-8"))


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    return "".join(_PLAIN.get(each) or _numbered(each) for each in letters), error.end


def _numbered(letter: str) -> str:
    return letter.encode("ascii", "backslashreplace").decode()
