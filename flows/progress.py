"""Progress of work in several steps, on standard error: what is being done and how long is left."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as RichProgress

from allcnn.progress import Report

_LINE_EVERY_S = 5.0


class Progress:
    """Shows one bar over all steps on a terminal, and a line every few seconds elsewhere.

    ``weights`` are guesses of how long each step takes, in any unit; the time left is the time
    passed, scaled by the weight that is left over that done here: what an earlier process had
    done already took no time in this one.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        self._weights = list(weights)
        self._total = sum(weights) or 1.0
        self._passed = 0.0
        self._found_done = 0.0
        self._began = time.monotonic()
        self._last_line = 0.0
        console = Console(stderr=True)
        self._console = console
        self._bar = RichProgress(
            TextColumn("{task.percentage:3.0f} %"),
            BarColumn(bar_width=24),
            TextColumn("{task.description}", markup=False),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("", total=1.0)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    @contextmanager
    def step(self, title: str) -> Iterator[Report]:
        """Do one step; the report given to the caller tells how far it is."""
        weight = self._weights.pop(0) if self._weights else 0.0
        silent = True

        def report(done: int, total: int, detail: str) -> None:
            nonlocal silent
            if silent:
                silent = False
                self._found_done += weight * max(done - 1, 0) / max(total, 1)
            self._show(title, weight * done / max(total, 1), detail)

        # A line of its own would stand before the sentence of an error.
        if not self._bar.disable:
            self._show(title, 0.0, "")
        yield report
        if silent:  # there was nothing left to do
            self._found_done += weight
        self._passed += weight

    def tell(self, text: str) -> None:
        """Print a sentence on standard error, above the bar where there is one."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _show(self, title: str, within: float, detail: str) -> None:
        share = (self._passed + within) / self._total
        text = f"{title}{': ' if detail else ''}{detail} · {self._left(share)}"
        self._bar.update(self._task, completed=share, description=text)
        now = time.monotonic()
        if self._bar.disable and now - self._last_line >= _LINE_EVERY_S:
            self._last_line = now
            print(f"[{share:4.0%}] {text}", file=sys.stderr, flush=True)  # noqa: T201

    def _left(self, share: float) -> str:
        passed_s = time.monotonic() - self._began
        found = self._found_done / self._total
        here = (share - found) / (1 - found) if found < 1 else 0.0
        # Compiling comes first and is no measure of what follows.
        if here <= 0 or passed_s < 3 or (here < 0.02 and passed_s < 30):
            return "time left not known yet"
        return f"about {duration(passed_s * (1 - here) / here)} left"


def duration(seconds: float) -> str:
    """Write a duration as people do: ``45 s``, ``3 min 20 s``, ``2 h 5 min``."""
    s = round(seconds)
    if s < 60:
        return f"{s} s"
    if s < 3600:
        return f"{s // 60} min {s % 60} s"
    return f"{s // 3600} h {s % 3600 // 60} min"
