"""Faults: a process that dies between any two changes of the disk, and bits that rot."""

import asyncio
import itertools
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from zarr.core.sync import sync

from store.storage.claims import Claim
from store.storage.paths import is_leftover
from store.zarrfiles.metadata_files import read_attributes, write_attributes

CHANGES = ("mkdir", "link", "replace", "rename", "unlink", "rmdir")
"""Zarr's LocalStore, pathlib and shutil change what is visible on disk by these functions only."""


_SURVIVALS = 5
"""Forty writings of one store differed by at most four changes."""


class Killed(BaseException):
    """Stands for a SIGKILL: no ``except Exception`` clears anything away."""


@contextmanager
def killed_before(n: int) -> Iterator[None]:
    """Raise Killed instead of the n-th change (from 0) and of every later one."""
    made, lock = itertools.count(), threading.Lock()
    dead = False

    def faulty(name, original):
        def change(*args, **kwargs):
            if changes_nothing(name, *args):
                return original(*args, **kwargs)
            nonlocal dead
            with lock:
                dead = dead or next(made) >= n
            if dead:
                raise Killed
            return original(*args, **kwargs)

        return change

    patches = {name: faulty(name, getattr(os, name)) for name in CHANGES}
    with mock.patch.multiple(os, **patches):
        try:
            yield
        finally:
            sync(all_others_end())


async def all_others_end() -> None:
    """Wait for the writes that Zarr goes on with after one has failed: they die with the process.

    Left alone they would change the disk once the functions are themselves again.
    """
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.gather(*others, return_exceptions=True)


def changes_nothing(name: str, path: Path, target: Path | None = None, *_: object) -> bool:
    """Return whether a change will fail, as those do by which concurrent writes find out."""
    if name == "mkdir":
        return os.path.isdir(path) or not os.path.isdir(os.path.dirname(path))
    return name == "link" and target is not None and os.path.exists(target)


def kill_series(work: Callable[[Path], object], folder: Path, initial: Path) -> Iterator[Path]:
    """Kill ``work`` before its n-th change, for every n until it survives; yield what it left.

    It works on copies of the folder ``initial``, or on nothing where that does not exist.

    The number of changes is not fixed beforehand: concurrent writes race for a few of them, so
    only one that survives again and again has no later change to be killed before.
    """
    n_survived = 0
    for n in itertools.count():
        if n_survived == _SURVIVALS:
            return
        path = folder / f"killed-{n}"
        if initial.exists():
            shutil.copytree(initial, path)
        if _survives(n, work, path):
            n_survived += 1
        else:
            n_survived = 0
            yield path


def _survives(n: int, work: Callable[[Path], object], path: Path) -> bool:
    try:
        with killed_before(n):
            work(path)
    except Killed:
        pass
    else:
        return True
    end_claims()
    return False


def end_claims() -> None:
    """Take all claims of this process, as its end would; a traceback may still hold writers."""
    for claim in list(Claim.living):
        claim.forget()


def edit_attributes(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change a group's attributes and seal them again, as a faulty writer might."""
    attributes = read_attributes(folder)
    assert attributes is not None
    edit(attributes)
    write_attributes(folder, attributes)


def write_again(writer: Any, start: int, *values: Any) -> None:
    """Take a block back and append it."""
    writer.take_back([start])
    for each in values:
        writer.append(each)


def chunk_files(array: Path) -> list[Path]:
    """Return the chunk files of an array, in the order of their rows."""
    every = (array / "c").rglob("*")
    files = [path for path in every if path.is_file() and not is_leftover(path.name)]
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


def damaging(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test that makes Orbax abandon the reads that were still under way."""
    # Its coroutines end with exceptions that nobody asks for.
    abandoned = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    marked: Callable[..., None] = pytest.mark.usefixtures("collected")(abandoned(test))
    return marked


def as_before_seals(content: bytes, **changes: Any) -> bytes:
    """Return a run's settings, changed, or its learning curves as versions without seals wrote."""
    values = json.loads(content)
    if "epochs" in values:
        return json.dumps(values["epochs"]).encode()
    values.pop("seal")
    return json.dumps(values | {"schema_version": 1} | changes).encode()


def relabel(checkpoint: Path) -> None:
    """Let a checkpoint that was copied say that it is the one in whose place it is."""
    file = checkpoint / "_CHECKPOINT_METADATA"
    values = json.loads(file.read_bytes())
    values["custom_metadata"]["of"] = f"{checkpoint.parents[1].name}@{checkpoint.name}"
    file.write_text(json.dumps(values))
