"""What the clock of a training tells, by a time that the test sets."""

import time

import pytest

from allcnn.training.loop import Clock


class Time:
    """A monotonic clock that stands still unless it is told to go on."""

    now = 100.0

    def pass_s(self, seconds):
        self.now += seconds


@pytest.fixture
def passing(monkeypatch):
    clock = Time()
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    return clock


@pytest.fixture
def told():
    return []


def take(clock, passing, n_steps, seconds):
    with clock.stepping(n_steps):
        passing.pass_s(seconds)


def test_images_a_second_and_the_share_outside_leave_out_what_was_compiled(passing, told):
    clock = Clock(40, 128, lambda *report: told.append(report))
    clock.report(0, "epoch 1 of 4")
    take(clock, passing, 1, 30)  # compiled meanwhile
    clock.report(1, "loss 2")
    take(clock, passing, 4, 2)
    passing.pass_s(1)
    take(clock, passing, 6, 3)
    clock.report(11, "loss 1")
    # 10 steps of 128 images in 5 s, of the 6 s since the first program ended.
    assert told == [
        (0, 40, "epoch 1 of 4, compiling"),
        (1, 40, "loss 2"),
        (11, 40, "loss 1, 256 images/s, 17% outside the steps"),
    ]


def test_seeds_trained_together_count_each(passing, told):
    clock = Clock(9, 3 * 16, lambda *report: told.append(report))
    take(clock, passing, 1, 1)
    take(clock, passing, 2, 0.5)
    clock.report(3, "loss")
    assert told == [(3, 9, "loss, 192 images/s, 0% outside the steps")]


def test_a_program_takes_as_many_steps_as_fit_in_a_second(passing):
    clock = Clock(100, 1, lambda *report: None)
    assert clock.n_steps == 1
    for n_steps, seconds, wanted in ((1, 0.25, 4), (4, 0.5, 8), (8, 2.0, 4), (4, 40.0, 1)):
        take(clock, passing, n_steps, seconds)
        assert clock.n_steps == wanted
