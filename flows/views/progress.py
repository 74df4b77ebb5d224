"""Progress of work in several steps, on standard error: the current step and the time left."""

import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as RichProgress

from allcnn.progress import Report

_LINE_EVERY_S = 5.0

_PACE_AFTER_S = 2.0
"""Time worked before a time left is shown."""


class Progress:
    """Shows one bar over all steps on a terminal, and a line every few seconds elsewhere.

    ``weights`` are guesses of how long each step takes, in any unit. The time left is the weight
    left at the pace of the time worked so far, or of its later half if that was faster: a delay in
    the first half, such as compiling the evaluation, is soon forgotten. A step's time until its
    first unit is done, mostly compiling, is not counted, and neither is the work of an earlier
    process.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        self._weights = list(weights)
        self._total = sum(weights) or 1.0
        self._passed = 0.0
        self._pace = _Pace()
        self._last_line = 0.0
        self._console = console = Console(stderr=True)
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
        """Do one step; its progress is what the caller reports."""
        weight = self._weights.pop(0) if self._weights else 0.0
        self._pace.begin()

        def report(done: int, total: int, detail: str) -> None:
            within = weight * done / max(total, 1)
            self._pace.reach(self._passed + within)
            self._show(title, within, detail)

        # A line of its own would stand before the sentence of an error.
        if not self._bar.disable:
            self._show(title, 0.0, "")
        yield report
        self._passed += weight

    def tell(self, text: str) -> None:
        """Print a sentence on standard error, above the bar where there is one."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _show(self, title: str, within: float, detail: str) -> None:
        share = (self._passed + within) / self._total
        pace, left = self._pace.weight_per_s(), "time left not known yet"
        if pace is not None:
            left = f"about {duration((1 - share) * self._total / pace)} left"
        text = f"{title}{': ' if detail else ''}{detail} · {left}"
        self._bar.update(self._task, completed=share, description=text)
        now = time.monotonic()
        if self._bar.disable and now - self._last_line >= _LINE_EVERY_S:
            self._last_line = now
            print(f"[{share:4.0%}] {text}", file=sys.stderr, flush=True)  # noqa: T201


class _Pace:
    """How fast work goes, by all of the time worked or by its later half."""

    def __init__(self) -> None:
        self._worked_s, self._gained = 0.0, 0.0
        self._marks = deque([(0.0, 0.0)])
        self.begin()

    def begin(self) -> None:
        """Begin a step, whose pace is not known until its first unit is done."""
        self._found: float | None = None
        self._last: tuple[float, float] | None = None

    def reach(self, weight: float) -> None:
        """Note how much of all work is done."""
        now = time.monotonic()
        if self._last is not None:
            self._worked_s += now - self._last[0]
            self._gained += weight - self._last[1]
            self._marks.append((self._worked_s, self._gained))
        if self._found is None:  # perhaps by an earlier process
            self._found = weight
        if weight > self._found:
            self._last = now, weight

    def weight_per_s(self) -> float | None:
        """Return the pace; None before enough work was seen."""
        # Marks older than half of the time are never needed again.
        while len(self._marks) > 2 and self._marks[1][0] <= self._worked_s / 2:
            self._marks.popleft()
        worked_s, gained = self._marks[0]
        if self._worked_s < _PACE_AFTER_S or self._gained <= 0:
            return None
        later = (self._gained - gained) / (self._worked_s - worked_s)
        return max(later, self._gained / self._worked_s)


def duration(seconds: float) -> str:
    """Write a duration as people do: ``45 s``, ``3 min 20 s``, ``2 h 5 min``."""
    s = round(seconds)
    if s < 60:
        return f"{s} s"
    if s < 3600:
        return f"{s // 60} min {s % 60} s"
    return f"{s // 3600} h {s % 3600 // 60} min"
