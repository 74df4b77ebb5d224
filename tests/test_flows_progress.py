"""Progress: the share that is done, and the time left at the speed of this process."""

import io

import pytest
from rich.console import Console

from flows import progress
from flows.progress import Progress, duration


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


def test_time_left_is_the_time_passed_scaled_by_what_is_left(clock, capsys):
    with Progress([3, 1]) as steps:
        with steps.step("training a") as report:
            clock.now_s += 30
            report(1, 3, "epoch 1 of 3")
            clock.now_s += 60
            report(3, 3, "epoch 3 of 3")
        with steps.step("extracting") as report:
            clock.now_s += 20
            report(1, 2, "a@final")
    assert shown(capsys) == [
        "[ 25%] training a: epoch 1 of 3 · about 1 min 30 s left",
        "[ 75%] training a: epoch 3 of 3 · about 30 s left",
        "[ 88%] extracting: a@final · about 16 s left",
    ]


def test_what_was_done_before_promises_no_speed(clock, capsys):
    with Progress([1]) as steps, steps.step("training a") as report:
        clock.now_s += 2
        report(91, 100, "")  # goes on after 90
        clock.now_s += 8
        report(92, 100, "")
    assert shown(capsys) == [
        "[ 91%] training a · time left not known yet",
        "[ 92%] training a · about 40 s left",
    ]


def test_a_step_that_had_nothing_to_do_promises_no_speed(clock, capsys):
    with Progress([9, 1]) as steps:
        with steps.step("training a"):
            clock.now_s += 1
        with steps.step("extracting") as report:
            clock.now_s += 9
            report(1, 10, "a@final")
    assert shown(capsys) == ["[ 91%] extracting: a@final · about 1 min 30 s left"]


def test_nothing_is_promised_at_the_start_or_where_all_was_done(clock, capsys):
    with Progress([1]) as steps, steps.step("comparing") as report:
        report(0, 1, "bandwidths")
        clock.now_s += 6
        report(1, 100, "")
    with Progress([1, 0]) as steps:
        with steps.step("training"):
            pass
        with steps.step("extracting") as report:
            clock.now_s += 6
            report(1, 1, "")
    assert all("time left not known yet" in line for line in shown(capsys))


def test_a_long_job_tells_its_time_left_after_half_a_minute(clock, capsys):
    with Progress([1]) as steps, steps.step("training") as report:
        clock.now_s += 29
        report(1, 1000, "")
        clock.now_s += 11
        report(2, 1000, "")
    assert shown(capsys) == [
        "[  0%] training · time left not known yet",
        "[  0%] training · about 5 h 32 min left",
    ]


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
