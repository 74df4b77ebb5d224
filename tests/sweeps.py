"""Sweeps of many like cases: a few of them are always run, all of them by `make test-slow`."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def sweep(cases: Iterable[Any], always: Callable[[Any], bool]) -> list[Any]:
    """Return the cases for ``parametrize``, those marked as slow that are not always run."""
    return [case if always(case) else slow(case) for case in cases]


def every(step: int, cases: Iterable[Any]) -> list[Any]:
    """Return the cases, all but each ``step``-th marked as slow."""
    return [slow(case) if n % step else case for n, case in enumerate(cases)]


def slow(case: Any) -> Any:
    """Return a case, or a tuple of arguments, that is marked as slow."""
    values = case if isinstance(case, tuple) else (case,)
    return pytest.param(*values, marks=pytest.mark.slow)
