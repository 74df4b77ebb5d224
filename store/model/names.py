"""Names of what is stored, and the folders that stand for them.

A tap has the name that its library gives it, ``blocks/0/attn`` or ``conv1/Relu:0``. Its folder has
the same name where that is safe as one component of a path, and else an escaped one.
"""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from fnmatch import fnmatchcase
from itertools import accumulate
from typing import Final

from store.errors import InvalidKeyError

MOST_LETTERS: Final = 200
"""Letters of a name, and of a folder: file systems take 255 bytes."""

TAP_DEPTH: Final = 3
"""Folders above that of a tap: a sample set's, a run's and a checkpoint's."""

_COMPONENT = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_.-]{{0,{MOST_LETTERS - 1}}}")
_PREFIX: Final = "_-"
"""How escaped folders begin; no component does."""

_PLAIN: Final = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789_")
"""Bytes that an escaped folder keeps: small letters alone, as some file systems ignore case."""

_ESCAPED = re.compile(r"_-((?:[a-z0-9_]|-[0-9a-f]{2})+)(--[0-9a-f]{32})?")
_ESCAPE = re.compile(rb"-([0-9a-f]{2})")
_DIGEST_LETTERS: Final = 32

_UNREADABLE: Final = frozenset(("Cc", "Cs", "Zl", "Zp"))
"""Categories of control characters, surrogates and line separators."""


def is_component(name: object) -> bool:
    """Return whether ``name`` is safe as one component of a path."""
    # A folder called zarr.json would take the place of its parent's metadata.
    return (
        isinstance(name, str)
        and _COMPONENT.fullmatch(name) is not None
        and ".." not in name
        and name != "zarr.json"
    )


def check_component(kind: str, name: object) -> None:
    """Raise InvalidKeyError unless ``name`` is safe as one component of a path."""
    if not is_component(name):
        raise InvalidKeyError(
            f"{kind} {name!r}",
            "cannot be a folder's name",
            remedy=f"use up to {MOST_LETTERS} letters, digits, '_', '-' and single dots, beginning"
            " with a letter or digit",
        )


def is_tap(name: object) -> bool:
    """Return whether a tap can have this name: 1 to 200 characters, none of them unreadable."""
    return (
        isinstance(name, str)
        and 1 <= len(name) <= MOST_LETTERS
        and _UNREADABLE.isdisjoint(map(unicodedata.category, name))
    )


def check_tap(name: object) -> None:
    """Raise InvalidKeyError unless a tap can have this name."""
    if not is_tap(name):
        # Cut, as files can hold names without end.
        raise InvalidKeyError(
            f"{name!r:.300}",
            "cannot be the name of a tap",
            remedy=f"use 1 to {MOST_LETTERS} characters of any kind but control characters, line"
            " separators and surrogates",
        )


def tap_folder(name: str) -> str:
    """Return the name of a tap's folder; raises InvalidKeyError for what is no tap's name.

    Names that are components are their own folders. Of others the bytes of UTF-8 but ``a-z``,
    ``0-9`` and ``_`` are escaped as ``-`` and two hexadecimal digits, after ``_-``. What is too
    long then is cut, and ends in ``--`` and the first 32 digits of the name's SHA-256.
    """
    if is_component(name):
        return name
    check_tap(name)
    letters = ["".join(chr(b) if b in _PLAIN else f"-{b:02x}" for b in x.encode()) for x in name]
    if len(_PREFIX + "".join(letters)) <= MOST_LETTERS:
        return _PREFIX + "".join(letters)
    end = f"--{hashlib.sha256(name.encode()).hexdigest()[:_DIGEST_LETTERS]}"
    ends = accumulate(map(len, letters), initial=len(_PREFIX + end))
    whole = sum(length <= MOST_LETTERS for length in ends) - 1
    return _PREFIX + "".join(letters[:whole]) + end


def _unescaped(folder: str) -> tuple[str | None, bool]:
    """Return the name in an escaped folder, or its beginning, and whether the rest is cut off."""
    found = _ESCAPED.fullmatch(folder)
    if found is None or len(folder) > MOST_LETTERS:
        return None, False
    plain = _ESCAPE.sub(lambda each: bytes.fromhex(each[1].decode()), found[1].encode("ascii"))
    try:
        return plain.decode(), found[2] is not None
    except UnicodeDecodeError:
        return None, False


def tap_name(folder: str) -> str | None:
    """Return the name that a folder stands for; None where it is cut, or stands for none."""
    if is_component(folder):
        return folder
    name, is_cut = _unescaped(folder)
    return name if name and is_tap(name) and not is_cut and tap_folder(name) == folder else None


def is_tap_folder(folder: str) -> bool:
    """Return whether a tap can have this folder."""
    return tap_name(folder) is not None or _unescaped(folder)[1]


def is_folder(name: str, depth: int) -> bool:
    """Return whether a group's path can have this folder below so many others."""
    return is_tap_folder(name) if depth == TAP_DEPTH else is_component(name)


def shown(folder: str) -> str:
    """Return a tap's folder as users read it: its name, or the beginning of a cut one."""
    if (name := tap_name(folder)) is not None:
        return name
    stem, is_cut = _unescaped(folder)
    return f"{stem}…" if is_cut else folder


def readable(path: str) -> str:
    """Return the path of a group below a store's root with its tap as users read it."""
    parts = path.split("/")
    return "/".join(shown(p) if d == TAP_DEPTH else p for d, p in enumerate(parts))


def fits(name: str, pattern: str) -> bool:
    """Return whether a name is a text itself, or fits it as a pattern with ``*?[...]``."""
    return name == pattern or fnmatchcase(name, pattern)


def some_of(names: Sequence[str], most: int) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
