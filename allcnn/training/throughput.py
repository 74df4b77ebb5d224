"""The speed of training: the number of steps to take at a time, and reports of them."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from allcnn.progress import Report

REPORT_EVERY_S = 1.0
"""Steps are taken in one program for about so long; then the host looks at them, and reports."""


class Clock:
    """Times the programs of a training, and reports after each.

    ``n_steps_in_all`` are those of the whole training, ``images_per_step`` of all its seeds.
    """

    def __init__(self, n_steps_in_all: int, images_per_step: int, report: Report) -> None:
        self.n_steps = 1
        self._in_all, self._images, self._report = n_steps_in_all, images_per_step, report
        self._began: float | None = None
        self._steps, self._stepping_s = 0, 0.0

    @contextmanager
    def stepping(self, n_steps: int) -> Iterator[None]:
        """Time a program of ``n_steps`` steps, and choose how many the next one takes."""
        began = time.monotonic()
        yield
        seconds = time.monotonic() - began
        self.n_steps = max(1, int(n_steps * REPORT_EVERY_S / max(seconds, 1e-9)))
        if self._began is None:  # the first program was compiled meanwhile
            self._began = time.monotonic()
            return
        self._steps += n_steps
        self._stepping_s += seconds

    def report(self, done: int, detail: str) -> None:
        """Report the steps done of the whole training, with the speed so far."""
        if self._steps and self._began is not None:
            speed = self._steps * self._images / self._stepping_s
            outside = 1 - self._stepping_s / (time.monotonic() - self._began)
            detail += f", {speed:,.0f} images/s, {max(outside, 0):.0%} outside the steps"
        elif self._began is None:
            detail += ", compiling"
        self._report(done, self._in_all, detail)
