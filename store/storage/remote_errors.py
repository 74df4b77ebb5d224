"""Report the errors of remote storage's clients in one sentence, within a reasonable time."""

import textwrap
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from fsspec.asyn import AsyncFileSystem, sync
from upath import UPath

from store.errors import StoreError, StoreLocationError

REACHED_S = 30
"""How long the first answer of an address may take."""

_OF_VALUES = ("builtins", "zarr", "json", "numpy", "numcodecs")
"""Modules whose errors, except an OSError, are not about reaching anything."""

_AT_ONCE = 16

T = TypeVar("T")
R = TypeVar("R")


@contextmanager
def reaching(place: Path | UPath) -> Iterator[None]:
    """Raise StoreLocationError for whatever a client of remote storage raises.

    Errors that Python and Zarr raise about values pass: a wrong checksum is no network error.
    """
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        raised_by = type(error).__module__.partition(".")[0]
        about_values = raised_by in _OF_VALUES and not isinstance(error, OSError)
        if about_values or isinstance(place, Path):
            raise
        raise unreachable(place, error) from error


def unreachable(place: Path | UPath, error: Exception) -> StoreLocationError:
    """Return the error to raise for one of a client of remote storage."""
    reason = textwrap.shorten(str(error), 300).rstrip(".")
    found = f"cannot be reached ({type(error).__name__}: {reason})"
    advice = "look at the address, the network and the credentials"
    return StoreLocationError(str(place), found, remedy=advice)


def check_reachable(place: Path | UPath) -> None:
    """Raise StoreLocationError where nothing can be stored: no server, bucket or credentials."""
    if isinstance(place, Path):
        return
    fs: Any = place.fs
    try:
        if isinstance(fs, AsyncFileSystem):
            # A server that never answers would be asked again for minutes.
            sync(fs.loop, fs._ls, place.path, timeout=REACHED_S)
        else:
            fs.ls(place.path)
    except FileNotFoundError as error:
        if place.drive and not fs.exists(place.drive):
            found = f"cannot be reached: there is no bucket {place.drive!r}"
            remedy = "make it, or correct the address"
            raise StoreLocationError(str(place), found, remedy=remedy) from error
    except Exception as error:
        raise unreachable(place, error) from error


def each(place: Path | UPath, function: Callable[[T], R], values: Sequence[T]) -> list[R]:
    """Apply a function to values in turn; at an address, mostly waiting, to several at once."""
    if isinstance(place, Path) or len(values) < 2:
        return [function(value) for value in values]
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return list(threads.map(function, values))
