"""Bodies of tasks that do badly on workers: they die, fill the memory, raise, or take for ever."""

import os
import signal
import time
from pathlib import Path

import numpy as np


def doubled(value, *, wanted):
    return 2 * value


def slow(value, seconds, *, wanted):
    time.sleep(seconds)
    return value


def notes(value, seconds, folder, *, wanted):
    """Note each time that a value is asked for, and take some seconds for it."""
    (Path(folder) / f"{value}-{time.time_ns()}").mkdir()
    time.sleep(seconds)
    return value


def dies_once(value, folder, *, wanted):
    """Kill this worker the first time that it is asked for a value."""
    try:
        (Path(folder) / f"died-{value}").mkdir()
    except FileExistsError:
        return value
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("killed")


def dies(value, folder, *, wanted):
    """Kill every worker, having noted it."""
    (Path(folder) / f"died-{time.time_ns()}").mkdir()
    os.kill(os.getpid(), signal.SIGKILL)


def fills_memory(n_bytes, folder, *, wanted):
    """Take more and more memory, until this worker is ended for it; give up after a minute."""
    (Path(folder) / f"began-{time.time_ns()}").mkdir()
    held = []
    for _ in range(n_bytes >> 26):
        held.append(np.ones(2**26, np.uint8))
        time.sleep(0.05)
    time.sleep(60)
    return len(held)


def fills_memory_once(n_bytes, folder, *, wanted):
    if any(Path(folder).glob("began-*")):
        return 0
    return fills_memory(n_bytes, folder, wanted=wanted)


class OddError(Exception):
    """An error that cannot be sent from one process to another."""

    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")
        self.lock = (os.getpid() for _ in ())


def raises(value, *, wanted):
    raise ValueError(f"no such value as {value}")


def raises_oddly(value, *, wanted):
    raise OddError("this", "that")
