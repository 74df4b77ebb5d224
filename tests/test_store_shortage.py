"""A machine that has run out of something is no damage, and no mistake of ours."""

import errno
import re

import pytest

from store.errors import pass_on, shortage_of


@pytest.mark.parametrize(
    ("error", "lacking"),
    [
        (RuntimeError("can't start new thread"), "no more threads can be started"),
        (OSError(errno.EMFILE, "Too many open files", "x"), "too many files are open"),
        (OSError(errno.ENFILE, "Too many open files in system"), "too many files are open"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "the memory does not suffice"),
        (MemoryError(), "the memory does not suffice"),
        (RuntimeError("RESOURCE_EXHAUSTED: 9 TiB"), r"suffice \(RESOURCE_EXHAUSTED: 9 TiB\)"),
        (ImportError("lib.so: failed to map segment from shared object"), "the memory does not"),
    ],
)
def test_a_shortage_is_recognised_and_passed_on(error, lacking):
    found = shortage_of(error)
    assert found is not None
    assert re.search(lacking, found)
    with pytest.raises(type(error)):
        pass_on(error)
    outer = ValueError("cannot be read")
    outer.__cause__ = error
    assert shortage_of(outer) == found


@pytest.mark.parametrize(
    "error",
    [RuntimeError("zstd"), OSError(errno.ENOENT, "No such file"), ImportError("no x"), None],
)
def test_other_errors_are_none(error):
    assert shortage_of(error) is None
    if error is not None:
        pass_on(error)
