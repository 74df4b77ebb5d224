"""Faults: a process that dies between any two changes of the disk, and bits that rot."""

import itertools
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

_CHANGES = ("mkdir", "link", "replace", "rename", "unlink", "rmdir")
"""Zarr's LocalStore, pathlib and shutil change what is visible on disk by these functions only."""


class Killed(BaseException):
    """Stands for a SIGKILL: no ``except Exception`` clears anything away."""


@contextmanager
def killed_before(n: int) -> Iterator[None]:
    """Raise Killed instead of the n-th change (from 0) and of every later one."""
    made, lock = itertools.count(), threading.Lock()
    dead = False

    def faulty(name, original):
        def change(*args, **kwargs):
            if name == "mkdir" and os.path.isdir(args[0]):
                return original(*args, **kwargs)  # changes nothing
            nonlocal dead
            with lock:
                dead = dead or next(made) >= n
            if dead:
                raise Killed
            return original(*args, **kwargs)

        return change

    patches = {name: faulty(name, getattr(os, name)) for name in _CHANGES}
    with mock.patch.multiple(os, **patches):
        yield


def kill_series(work: Callable[[Path], object], folder: Path, initial: Path) -> Iterator[Path]:
    """Kill ``work`` before its n-th change, for every n until it survives; yield what it left.

    It works on copies of the folder ``initial``, or on nothing where that does not exist.

    The number of changes is not fixed beforehand: concurrent writes race for a few of them.
    """
    for n in itertools.count():
        path = folder / f"killed-{n}"
        if initial.exists():
            shutil.copytree(initial, path)
        try:
            with killed_before(n):
                work(path)
        except Killed:
            yield path
        else:
            return


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
