"""Faults: a process that dies between any two changes of the disk, and bits that rot."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

_CHANGES = ("mkdir", "link", "replace", "rename", "unlink", "rmdir")
"""Zarr's LocalStore, pathlib and shutil change what is visible on disk by these functions only."""


class Killed(BaseException):
    """Stands for a SIGKILL: no ``except Exception`` clears anything away."""


class Changes:
    """Number of changes that were made, and whether the process has died."""

    def __init__(self) -> None:
        self.made = 0
        self.dead = False


@contextmanager
def killed_before(n: int | None) -> Iterator[Changes]:
    """Raise Killed instead of the n-th change (from 0) and every later one; None only counts."""
    changes, lock = Changes(), threading.Lock()

    def faulty(original):
        def change(*args, **kwargs):
            with lock:
                changes.dead = changes.dead or (n is not None and changes.made >= n)
                if changes.dead:
                    raise Killed
                changes.made += 1
            return original(*args, **kwargs)

        return change

    patches = {name: faulty(getattr(os, name)) for name in _CHANGES}
    with mock.patch.multiple(os, **patches):
        yield changes


def chunk_files(array: Path) -> list[Path]:
    """Return the chunk files of an array, in the order of their rows."""
    files = [path for path in (array / "c").rglob("*") if path.is_file()]
    return sorted(files, key=lambda path: [int(part) for part in path.relative_to(array).parts[1:]])


def flip_bit(path: Path, offset: int = 5) -> None:
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[offset] ^= 0x10
    path.write_bytes(content)


def swap(first: Path, second: Path) -> None:
    """Exchange the contents of two files."""
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
