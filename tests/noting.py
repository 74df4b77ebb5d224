"""A preload of Dask's workers in tests: notes whose Grams they compute, and makes that take longer.

Loaded by a process that is kept to its cores already, as it imports JAX.
"""

import os
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from allcnn.compare import tasks

NOTES = "ALLCNN_TEST_NOTES"
"""The environment variable that names the file: a line for each minibatch, its worker first."""


def pause_file(notes: Path, worker: str) -> Path:
    """Return the file that says how many seconds a worker takes more for a reading's Grams."""
    return notes.with_name(f"pause-{worker}")


def dask_setup(worker: Any) -> None:
    """Let each computation add its lines to the file, and then wait."""
    notes = Path(os.environ[NOTES])
    pause = pause_file(notes, worker.name)
    tasks._minibatch_grams = _noted(tasks._minibatch_grams, worker.name, notes, pause)


def _noted(original: Callable[..., Any], name: str, notes: Path, pause: Path) -> Callable[..., Any]:
    @wraps(original)
    def computed(tap, key, spans, unit):
        found = original(tap, key, spans, unit)
        _append(notes, "".join(f"{name} {key.of.run}/{key.of.tap} {start}\n" for start, _ in spans))
        # Not a computation: a machine with few cores is as fast, and its other users see nothing.
        time.sleep(float(pause.read_text()))
        return found

    return computed


def _append(file: Path, text: str) -> None:
    # One write, so that the lines of two workers do not mingle.
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(descriptor, text.encode("ascii"))
    finally:
        os.close(descriptor)
