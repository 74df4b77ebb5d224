"""Names of what is stored, and the folders that stand for them.

A tap is called what its library calls it, ``blocks/0/attn`` or ``conv1/Relu:0``. Its folder has the
same name where that is safe as one component of a path, and else an escaped one.
"""

import hashlib
import re
import unicodedata
from fnmatch import fnmatchcase
from typing import Final

from store.errors import InvalidKeyError

MOST_LETTERS: Final = 200
"""Of a name, and of a folder: file systems take 255 bytes."""

_MOST_SHOWN: Final = 300
"""Letters of what is refused, as files can hold names without end."""

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
"""Categories of control characters, of surrogates, and of what separates lines."""


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
            f"{kind} {name!r} cannot be a folder's name: use up to {MOST_LETTERS} letters, digits,"
            " '_', '-' and single dots, beginning with a letter or digit"
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
        raise InvalidKeyError(
            f"{name!r:.{_MOST_SHOWN}} cannot be the name of a tap: use 1 to {MOST_LETTERS}"
            " characters of any kind but control characters, line separators and surrogates"
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
    escaped = [_escape(letter) for letter in name]
    whole = _PREFIX + "".join(escaped)
    if len(whole) <= MOST_LETTERS:
        return whole
    digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGEST_LETTERS]
    return f"{_PREFIX}{_cut(escaped)}--{digest}"


def tap_name(folder: str) -> str | None:
    """Return the name that a folder stands for; None where it is cut, or no tap has such a folder.

    The name of a cut one is in its metadata.
    """
    if is_component(folder):
        return folder
    found = _ESCAPED.fullmatch(folder)
    name = None if found is None or found[2] else _unescaped(found[1])
    return name if is_tap(name) and tap_folder(str(name)) == folder else None


def is_tap_folder(folder: str) -> bool:
    """Return whether a tap can have this folder."""
    return tap_name(folder) is not None or _stem(folder) is not None


def is_folder(name: str, depth: int) -> bool:
    """Return whether a group's path can have this folder below so many others."""
    return is_tap_folder(name) if depth == TAP_DEPTH else is_component(name)


def shown(folder: str) -> str:
    """Return what people read for a tap's folder: its name, of a cut one the beginning."""
    name, stem = tap_name(folder), _stem(folder)
    if name is not None:
        return name
    return folder if stem is None else f"{stem}…"


def readable(path: str) -> str:
    """Return the path of a group below a store's root with its tap as people read it."""
    parts = path.split("/")
    return "/".join(shown(p) if d == TAP_DEPTH else p for d, p in enumerate(parts))


def fits(name: str, pattern: str) -> bool:
    """Return whether a name is a text itself, or fits it as a pattern with ``*?[...]``."""
    return name == pattern or fnmatchcase(name, pattern)


def _escape(letter: str) -> str:
    return "".join(chr(b) if b in _PLAIN else f"-{b:02x}" for b in letter.encode())


def _unescaped(body: str) -> str | None:
    plain = _ESCAPE.sub(lambda found: bytes.fromhex(found[1].decode()), body.encode("ascii"))
    try:
        return plain.decode()
    except UnicodeDecodeError:
        return None


def _cut(escaped: list[str]) -> str:
    """Return as many whole letters as a digest leaves room for."""
    room, stem = MOST_LETTERS - len(_PREFIX) - len("--") - _DIGEST_LETTERS, ""
    for letter in escaped:
        if len(stem) + len(letter) > room:
            break
        stem += letter
    return stem


def _stem(folder: str) -> str | None:
    """Return the beginning of the name that a cut folder stands for; None of any other folder."""
    found = _ESCAPED.fullmatch(folder)
    if found is None or not found[2] or len(folder) > MOST_LETTERS:
        return None
    return _unescaped(found[1])
