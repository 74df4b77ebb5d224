"""Processes that write stores, to be killed: ``python -m tests.victims`` forks one for each order.

Forking saves the time that importing NumPy and Zarr takes; nothing else is shared.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any, Self
from unittest import mock

import numpy as np

from store import GramMeta, GramWriter, RepresentationMeta, Writer
from tests.strategies import batches, coordinates, make_gram_meta, make_grams, make_meta, make_rows

CHUNK_BYTES = 150_000
"""In place of 64 MB: a minibatch of the tap ``split`` is two chunks."""

_FORM = {"n_samples": 32 * 16 - 5, "batch_rows": 32}
TAPS = (
    make_meta("single", shape=(8, 8, 16), **_FORM),
    make_meta("half", shape=(8, 8, 16), dtype="float16", tap_index=1, **_FORM),
    make_meta("split", shape=(16, 16, 8), tap_index=2, **_FORM),
    make_meta("zstd", shape=(64,), tap_index=3, **_FORM),
)
GRAMS = make_gram_meta("single", sizes=(256,) * 23 + (250,), batch_size=256)
"""Three chunks."""

MEDIAN_DISTANCE = 1.5
N_BLOCKS = 4 * 16 + 3


@cache
def values(meta: RepresentationMeta | GramMeta) -> list[np.ndarray]:
    """Return the minibatches of a tap, or the Grams, always the same."""
    if isinstance(meta, GramMeta):
        return make_grams(meta)
    return batches(meta, make_rows(meta))


def write(folder: Path) -> int:
    """Write what two stores lack, the taps in turns; return how many blocks were committed."""
    with mock.patch("store.zarrfiles.layout.MAX_CHUNK_BYTES", CHUNK_BYTES), ExitStack() as closing:
        return _write_taps(folder / "activations.zarr", closing) + _write_grams(
            folder / "grams.zarr", closing
        )


def _write_taps(path: Path, closing: ExitStack) -> int:
    writers = []
    for meta in TAPS:
        compression: Any = "zstd" if meta.key.tap == "zstd" else "none"
        writer = Writer.open(path, meta, *coordinates(meta), compression=compression)
        writers.append(closing.enter_context(writer))
    n_appended = 0
    for start in range(0, TAPS[0].n_samples, TAPS[0].batch_rows):
        for writer in writers:
            if writer.n_committed == start:
                writer.append(values(writer.meta)[start // TAPS[0].batch_rows])
                n_appended += 1
    return n_appended


def _write_grams(path: Path, closing: ExitStack) -> int:
    writer = closing.enter_context(GramWriter.open(path, GRAMS, *coordinates(GRAMS)))
    n_before = len(writer.commits)
    for K in values(GRAMS)[writer.n_committed :]:
        writer.append(K)
    if writer.median_distance is None:
        writer.set_median_distance(MEDIAN_DISTANCE)
    return len(writer.commits) - n_before


class Victims:
    """Starts writers in processes of their own, one at a time."""

    def __init__(self) -> None:
        root = Path(__file__).parent.parent
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.victims"],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root)},
            **pipes,
        )
        assert self._ask("ready") == ["ready"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.communicate()

    def start(self, folder: Path) -> int:
        """Start a writer below a folder and return its process number."""
        (pid,) = self._ask(f"write {folder}")
        return int(pid)

    def end(self) -> tuple[int, int]:
        """Wait for its end; return its exit status, as of subprocess, and the blocks it says."""
        status, n_blocks = self._ask("wait")
        return int(status), int(n_blocks)

    def _ask(self, order: str) -> list[str]:
        self._server.stdin.write(f"{order}\n")
        self._server.stdin.flush()
        return self._server.stdout.readline().split()


def _serve(work: Callable[[Path], int]) -> None:
    for meta in (*TAPS, GRAMS):
        values(meta)  # before any fork
    writer = output = -1
    for order in sys.stdin:
        what, _, folder = order.strip().partition(" ")
        if what == "write":
            writer, output = _fork(work, Path(folder))
            answer = str(writer)
        elif what == "wait":
            # Not before it is asked for: the number of what has ended belongs to nobody else.
            answer = " ".join(map(str, _wait(writer, output)))
        else:
            answer = what
        print(answer, flush=True)  # noqa: T201


def _fork(work: Callable[[Path], int], folder: Path) -> tuple[int, int]:
    output, result = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(result, str(work(folder)).encode())
        os._exit(0)
    os.close(result)
    return pid, output


def _wait(pid: int, output: int) -> tuple[int, int]:
    with os.fdopen(output) as pipe:
        told = pipe.read()
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), int(told or -1)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the tests end it by closing its input
    _serve(write)
