"""Write to standard streams, which may be closed, full, or unable to show every letter."""

import atexit
import codecs
import json
import os
import sys
from contextlib import suppress
from typing import Any, Final, TextIO

import click

_ERRORS: Final = "allcnn-plain"

_PLAIN: Final = {"…": "...", "→": "->", "×": "x", "±": "+/-", "·": "-", "–": "-", "—": "-"}  # noqa: RUF001
"""Letters of our output beyond ASCII, in ASCII; others become their number, as in Python."""


def prepare() -> None:
    """Make all three standard streams usable, and let none of them fail for a letter."""
    _open_closed()
    codecs.register_error(_ERRORS, _in_ascii)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors=_ERRORS)


def show(what: Any) -> None:
    """Print a text, or other values as a JSON document."""
    click.echo(what if isinstance(what, str) else json.dumps(what, indent=1, allow_nan=False))


def abandon_output() -> None:
    """Discard unwritten output, over which Python would fail once more when it ends."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def end_in_silence() -> None:
    """Print nothing after the error message about what the machine lacks.

    Libraries that could not start their threads fail again when Python ends, each at length.
    """
    atexit.register(lambda: os.dup2(os.open(os.devnull, os.O_WRONLY), 2))


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether a user can answer on a stream, or read it."""
    return stream is not None and not stream.closed and stream.isatty()


def _open_closed() -> None:
    """Open closed streams at the null device.

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
    plain = "".join(_PLAIN.get(each, each) for each in letters)
    return plain.encode("ascii", "backslashreplace").decode(), error.end
