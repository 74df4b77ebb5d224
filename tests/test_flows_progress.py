"""Progress: the share that is done, and the time left at the speed of this process."""

import io
import re

import pytest
from rich.console import Console

from flows.views import progress
from flows.views.progress import Progress, duration


class Clock:
    """Stands still until it is told."""

    def __init__(self, monkeypatch):
        self.now_s = 100.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now_s)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def shown(capsys):
    return capsys.readouterr().err.splitlines()


def test_time_left_is_what_is_left_at_the_pace_so_far(clock, capsys):
    with Progress([4, 1]) as steps:
        with steps.step("training a") as report:
            for done in range(5):
                report(done, 4, f"epoch {done} of 4")
                clock.now_s += 30
        with steps.step("extracting") as report:
            for done in range(3):
                report(done, 2, "a@final")
                clock.now_s += 10
    assert shown(capsys) == [
        "[  0%] training a: epoch 0 of 4 · time left not known yet",
        "[ 20%] training a: epoch 1 of 4 · time left not known yet",
        "[ 40%] training a: epoch 2 of 4 · about 1 min 30 s left",
        "[ 60%] training a: epoch 3 of 4 · about 1 min 0 s left",
        "[ 80%] training a: epoch 4 of 4 · about 30 s left",
        "[ 80%] extracting: a@final · about 30 s left",
        "[ 90%] extracting: a@final · about 15 s left",
        "[100%] extracting: a@final · about 0 s left",
    ]


def promised(lines):
    """Return the seconds left that lines promise."""
    found = [re.search(r"about (?:(\d+) min )?(\d+) s left", line) for line in lines]
    return [60 * int(each[1] or 0) + int(each[2]) for each in found if each]


@pytest.mark.parametrize("compiling_s", [0, 14, 120])
def test_what_is_compiled_promises_nothing_and_the_time_left_settles(clock, capsys, compiling_s):
    """Twenty epochs of 9 steps of 0.3 s, the first evaluation of 4 s, all others of 0.1 s."""
    left, n_steps = [], 20 * 9
    with Progress([1]) as steps, steps.step("training") as report:
        report(0, n_steps, "epoch 1 of 20, compiling")
        clock.now_s += compiling_s
        for done in range(1, n_steps + 1):
            clock.now_s += 0.3 + (0 if done % 9 else 4 if done == 9 else 0.1)
            left += [0.3 * (n_steps - done) + 0.1 * ((n_steps - done) // 9)]
            steps._last_line = -100.0  # lest lines wait for each other
            report(done, n_steps, "epoch")
    lines = shown(capsys)
    assert "compiling · time left not known yet" in lines[0]
    seconds = promised(lines)
    assert len(seconds) > n_steps - 10
    really = left[-len(seconds) :]
    ratios = [a / b for a, b in zip(seconds, really, strict=True) if b > 5]
    assert max(ratios) < 3
    assert max(ratios[30:]) < 1.3
    assert min(ratios) > 0.8


def test_what_was_done_before_promises_no_speed(clock, capsys):
    with Progress([1]) as steps, steps.step("training a") as report:
        for done in (90, 91, 92):  # goes on after 90
            report(done, 100, "")
            clock.now_s += 8
    assert shown(capsys)[-1] == "[ 92%] training a · about 1 min 4 s left"


def test_a_step_that_had_nothing_to_do_promises_no_speed(clock, capsys):
    with Progress([9, 1]) as steps:
        with steps.step("training a") as report:
            clock.now_s += 1
            report(1, 1, "already trained")
        with steps.step("extracting") as report:
            for done in (1, 2, 3):
                clock.now_s += 9
                report(done, 10, "a@final")
    assert shown(capsys)[-1] == "[ 93%] extracting: a@final · about 1 min 3 s left"


def test_nothing_is_promised_at_the_start_or_where_all_was_done(clock, capsys):
    with Progress([1]) as steps, steps.step("comparing") as report:
        report(0, 1, "bandwidths")
        clock.now_s += 6
        report(1, 100, "")
        clock.now_s += 1
        report(2, 100, "")
    with Progress([1, 0]) as steps:
        with steps.step("training"):
            pass
        with steps.step("extracting") as report:
            clock.now_s += 6
            report(1, 1, "")
    assert all("time left not known yet" in line for line in shown(capsys))


def test_lines_are_few_where_nobody_watches(clock, capsys):
    with Progress([1]) as steps, steps.step("training") as report:
        for step in range(1, 101):
            clock.now_s += 0.1
            report(step, 100, "")
    assert len(shown(capsys)) == 2


def test_a_terminal_has_one_bar_that_goes_away(monkeypatch):
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=100)
    monkeypatch.setattr(progress, "Console", lambda stderr: terminal)
    with Progress([1]) as steps, steps.step("training [a]") as report:
        report(1, 2, "epoch 1 of 2")
    assert "training [a]: epoch 1 of 2 · time left not known yet" in screen.getvalue()
    assert screen.getvalue().endswith("\x1b[2K")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_durations_are_written_as_people_do(seconds, text):
    assert duration(seconds) == text
