"""A disk, or a client of remote storage, that refuses any one write."""

import errno
import io
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from fsspec.implementations.memory import MemoryFileSystem
from zarr.core.sync import sync

from tests.faults import CHANGES, all_others_end, changes_nothing


class Refusal:
    """Writes below a folder, of which one fails; use ``refusing``.

    ``ENOSPC`` comes as from a full disk: half of what is being written goes in, and until the end
    nothing that needs room succeeds. Any other error comes once.
    """

    def __init__(self, n: int, code: int, folder: Path, among: str) -> None:
        self.made: list[str] = []
        self.refused: str | None = None
        self._n, self._code, self._folder = n, code, os.path.join(folder, "")
        self._among = re.compile(among)
        self._first: OSError | None = None
        self._descriptors: dict[int, str] = {}
        self._lock = threading.Lock()

    @property
    def patches(self) -> dict[str, Callable[..., Any]]:
        """Replacements of functions of ``os``."""
        named = {name: self._change(name, getattr(os, name)) for name in CHANGES}
        return named | {"open": self._open(os.open), "write": self._write(os.write)}

    def _change(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def change(path: Any, *args: Any, **kwargs: Any) -> Any:
            below = "dir_fd" in kwargs or self._is_below(path)
            if below and not changes_nothing(name, path, *args):
                self._ask(name, path)
            return original(path, *args, **kwargs)

        return change

    def _open(self, original: Callable[..., int]) -> Callable[..., int]:
        def opened(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
            if not (flags & (os.O_WRONLY | os.O_RDWR) and self._is_below(path)):
                return original(path, flags, *args, **kwargs)
            self._ask("open", path)
            descriptor = original(path, flags, *args, **kwargs)
            self._descriptors[descriptor] = os.fspath(path)
            return descriptor

        return opened

    def _write(self, original: Callable[..., int]) -> Callable[..., int]:
        def write(descriptor: int, content: Any) -> int:
            if descriptor not in self._descriptors:
                return original(descriptor, content)
            path = self._descriptors[descriptor]
            return original(descriptor, content[: self.ask_to_write(path, len(content))])

        return write

    def open_file(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Return a replacement of ``io.open``, by which pathlib and Zarr write."""

        def opened(path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if mode not in ("wb", "xb", "r+b") or not self._is_below(path):
                return original(path, mode, *args, **kwargs)
            self._ask("open", path)
            return io.BufferedWriter(_RefusedFile(path, mode, self))

        return opened

    def ask_to_write(self, path: str, n_bytes: int) -> int:
        """Return how many bytes may be written, or refuse."""
        try:
            self._ask("write", path)
        except OSError as error:
            if error is self._first and self._code == errno.ENOSPC and n_bytes > 1:
                return n_bytes // 2
            raise
        return n_bytes

    def _ask(self, name: str, path: Any) -> None:
        full = self._code == errno.ENOSPC
        if full and name in ("unlink", "rmdir"):
            return
        change = f"{name} {os.path.basename(path)}"
        with self._lock:
            self.made.append(change)
            if self.refused is not None:
                if full:
                    raise OSError(self._code, os.strerror(self._code))
            elif self._among.fullmatch(change):
                self._n -= 1
                if self._n < 0:
                    self.refused = change
                    self._first = OSError(self._code, os.strerror(self._code))
                    raise self._first

    def _is_below(self, path: Any) -> bool:
        return not isinstance(path, int) and os.path.join(path, "").startswith(self._folder)


class _RefusedFile(io.FileIO):
    def __init__(self, path: Any, mode: str, refusal: Refusal) -> None:
        super().__init__(path, mode)
        self._path, self._refusal = os.fspath(path), refusal

    def write(self, content: Any) -> int:
        return super().write(content[: self._refusal.ask_to_write(self._path, len(content))])


@contextmanager
def refusing(n: int, code: int, folder: Path, among: str = ".*") -> Iterator[Refusal]:
    """Let the n-th write (from 0) of one name below a folder fail with an error of the system.

    ``among`` is a regular expression of what and which file: concurrent writes race, so that only
    among writes of one name the n-th is there every time.
    """
    refusal = Refusal(n, code, folder, among)
    with mock.patch.multiple(os, **refusal.patches):
        with mock.patch.object(io, "open", refusal.open_file(io.open)):
            try:
                yield refusal
            finally:
                sync(all_others_end())


CLIENT = ("pipe_file", "rm", "rm_file")
"""Fsspec changes what is in memory by these methods only."""


class ThrottledError(Exception):
    """What a client of remote storage may raise: no OSError."""


@contextmanager
def failing_client(n: int, moment: str) -> Iterator[list[str]]:
    """Let the n-th change (from 0) of what is in memory fail, before or after it was made."""
    made: list[str] = []
    lock = threading.Lock()

    def faulty(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def change(self: Any, path: Any, *args: Any, **kwargs: Any) -> Any:
            with lock:
                fails = len(made) == n
                made.append(f"{name} {os.path.basename(path)}")
            result = None if fails and moment == "before" else original(self, path, *args, **kwargs)
            if fails:
                raise ThrottledError("slow down.")
            return result

        return change

    patches = {name: faulty(name, getattr(MemoryFileSystem, name)) for name in CLIENT}
    with mock.patch.multiple(MemoryFileSystem, **patches):
        try:
            yield made
        finally:
            sync(all_others_end())
