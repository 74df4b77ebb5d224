"""How long work reports its progress, without knowing who is listening."""

from collections.abc import Callable

Report = Callable[[int, int, str], None]
"""Takes the units of work done, the units in all, and what is being done."""


def silent(done: int, total: int, detail: str) -> None:
    """Report nothing."""
