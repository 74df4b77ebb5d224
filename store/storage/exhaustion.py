"""Distinguish a machine that has run out of something from damaged values."""

import errno
from typing import Final

_UNMAPPED: Final = ("failed to map segment", "annot allocate memory")


def shortage_of(error: BaseException | None) -> str | None:
    """Return what is lacking, and how to get more, where that caused an error; None for others."""
    while error is not None:
        if found := _lacking(error):
            return found
        error = error.__cause__ or error.__context__
    return None


def pass_on(error: BaseException) -> None:
    """Raise an error again where a shortage caused it: the values that were read may be sound."""
    if shortage_of(error):
        raise error


def _lacking(error: BaseException) -> str | None:
    text, code = str(error), error.errno if isinstance(error, OSError) else None
    if isinstance(error, RuntimeError) and "can't start new thread" in text:
        advice = "end other programs, or raise their limit ('ulimit -u' shows it)"
        return f"no more threads can be started; {advice}"
    if code in (errno.EMFILE, errno.ENFILE):
        return "too many files are open; allow more with 'ulimit -n 4096'"
    unmapped = isinstance(error, ImportError) and any(each in text for each in _UNMAPPED)
    # XLA says by this word alone that a device's memory is full.
    full = isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" in text
    if unmapped or full or code == errno.ENOMEM or isinstance(error, MemoryError):
        advice = "use smaller batches, fewer samples, smaller images or a smaller width"
        return f"the memory does not suffice ({' '.join(text.split())[:300]}); {advice}"
    return None
