"""Errors of the stores, each also a builtin; and how a shortage shows, which damages nothing."""

import errno
from typing import Final, Self

_UNMAPPED: Final = ("failed to map segment", "annot allocate memory")


class ExplainedError(Exception):
    """An error in fields, which are put into one sentence here and nowhere else.

    Attributes:
        what: the thing, such as ``seed``; or all of the sentence.
        found: what holds of it, as in "is -1".
        wanted: what would be right, as in "use a whole number of 0 or more".
        remedy: what helps, as in "delete it and extract it again".
    """

    _reason = ""

    def __init__(self, what: str, found: str = "", wanted: str = "", remedy: str = "") -> None:
        self.what, self.found, self.wanted, self.remedy = what, found, wanted, remedy
        super().__init__("; ".join(filter(None, (self.finding, wanted, remedy))))

    @property
    def finding(self) -> str:
        """The sentence without what is wanted and what helps."""
        return f"{self.what} {self.found}".rstrip()

    @property
    def reason(self) -> str:
        """The finding, for a sentence that names the thing itself."""
        return self._reason or self.finding


class StoreError(ExplainedError):
    """Base of everything that a store refuses or finds wrong."""


def unreadable(place: object, verb: str) -> str:
    """Advise on stored values that cannot be read: perhaps nothing can make them again."""
    return f"restore {place} from a copy; only if you can {verb} it again, delete it and do so"


class StoreLocationError(StoreError, OSError):
    """A path does not exist, is a file, or cannot be written."""


class SchemaError(StoreError, ValueError):
    """A store is foreign, malformed, or written by a newer version."""


class InvalidKeyError(StoreError, ValueError):
    """A name cannot be that of a run, a tap or whatever else has one."""


class UnknownRepresentationError(StoreError, LookupError):
    """A store does not hold the representation that was asked for."""


class UnknownGramsError(StoreError, LookupError):
    """A store does not hold the Grams that were asked for."""


class UnknownResultError(StoreError, LookupError):
    """A store does not hold the result that was asked for."""


class UnknownProbeError(StoreError, LookupError):
    """A store does not hold the probe that was asked for."""


class QueryError(StoreError, ValueError):
    """A filter or a selection names what is not there, or compares what cannot be compared."""


class UnfinishedError(StoreError, LookupError):
    """Something that was asked for has not been written completely."""


class ConflictError(StoreError, ValueError):
    """The same key is already stored with other metadata."""


class ClaimedError(StoreError, RuntimeError):
    """Another writer is at work on the same representation."""


class MisalignedWriteError(StoreError, ValueError):
    """Rows do not have the shape of the next minibatch."""


class ArrayError(StoreError, ValueError):
    """An array from elsewhere has a shape, type or values that cannot be stored."""


class RowRangeError(StoreError, IndexError):
    """A range of rows is reversed or reaches outside the sample set."""


class ActivationOverflowError(StoreError, ArithmeticError):
    """A finite activation, or entry of a Gram, would become infinite in the stored dtype."""


class PrecisionError(StoreError, ArithmeticError):
    """Rounding to the stored dtype would lose how activations differ between examples."""


class PackingError(StoreError, ValueError):
    """A Gram matrix is not square, or a vector is no packed triangle."""


class DamagedChunkError(StoreError, OSError):
    """Stored values are not those that were committed; ``reason`` is how that shows."""

    @classmethod
    def of(cls, what: str, reason: object, remedy: str, verb: str = "are") -> Self:
        """Return the error of some values, for a reason such as their digest."""
        text = str(reason).rstrip(".")
        error = cls(what, f"{verb} damaged ({text})", remedy=remedy)
        error._reason = text
        return error


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
