"""Tell a machine that has run out of something from values that are damaged."""

import errno
from typing import Final

_THREADS: Final = "can't start new thread"
_UNMAPPED: Final = ("failed to map segment", "cannot allocate memory", "Cannot allocate memory")

_FILES: Final = (errno.EMFILE, errno.ENFILE)


def shortage_of(error: BaseException | None) -> str | None:
    """Return what is lacking, and how to get more, where that made an error or one of its causes.

    None for any other error.
    """
    while error is not None:
        if found := _lacking(error):
            return found
        error = error.__cause__ or error.__context__
    return None


def pass_on(error: BaseException) -> None:
    """Raise an error again that a shortage has made: what was being read may be as it should."""
    if shortage_of(error):
        raise error


def _lacking(error: BaseException) -> str | None:
    text = str(error)
    if isinstance(error, RuntimeError) and _THREADS in text:
        return (
            "no more threads can be started; end other programs, or raise their limit ('ulimit -u'"
            " shows it)"
        )
    if isinstance(error, OSError) and error.errno in _FILES:
        return "too many files are open; allow more with 'ulimit -n 4096'"
    unmapped = isinstance(error, ImportError) and any(each in text for each in _UNMAPPED)
    # XLA says by this word alone that a device's memory is full.
    full = isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" in text
    no_memory = isinstance(error, OSError) and error.errno == errno.ENOMEM
    if unmapped or full or no_memory or isinstance(error, MemoryError):
        return (
            f"the memory does not suffice ({' '.join(text.split())[:300]}); use smaller batches,"
            " fewer samples, smaller images or a smaller width"
        )
    return None
