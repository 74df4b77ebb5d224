"""Keep the Gram of every minibatch of a representation, as packed triangles.

Another comparison of the representation reads 132 kB a minibatch of 256, and no activations.
They are stored in float32, and from the first Gram whose digits that does not hold in float64.
"""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from store.arrays.committed import ArrayForm, Committed, CommittedReader, Form, Records
from store.arrays.scan import CommittedStore
from store.arrays.writer import CommittedWriter
from store.errors import MisalignedWriteError, SchemaError, UnknownGramsError
from store.model.array_interop import as_real
from store.model.narrowing import narrow_gram
from store.model.schema import GramKey, GramMeta
from store.model.triangles import as_narrow_as_exact, pack, triangle_size
from store.storage.paths import Address
from store.zarrfiles.layout import GRAM_META, SOURCE, writing

MEDIAN_DISTANCE: Final = "allcnn_median"
FIRST_MEDIAN_DISTANCE: Final = "allcnn_median_distance"
"""As versions before 3 kept it: over the first 1,024 examples, zero distances included."""

BOUNDS: Final = "allcnn_bounds"
UNIT: Final = "allcnn_unit"


def _array_form(meta: GramMeta) -> ArrayForm:
    return ArrayForm(
        shape=(meta.length, meta.width),
        chunks=(min(meta.block_length, meta.length), meta.width),
        dtype=np.dtype(meta.precision).newbyteorder("<"),
        dimensions=("minibatch", "pair"),
        attributes={},
    )


GRAMS: Final = Form(
    kind="grams",
    mark=GRAM_META,
    from_json=GramMeta.from_json,
    array="grams",
    array_form=_array_form,
    depth=5,
    unit="minibatch",
    units="minibatches",
    verb="compute",
)


class _GramNotes(Committed[GramMeta]):
    """What is known of Grams beside them, checked as it is read."""

    form: ClassVar[Form[GramMeta]] = GRAMS

    @property
    def median_distance(self) -> float | None:
        """Median distance between examples, None where it is not kept: the Grams hold it."""
        found = self._attributes.get(MEDIAN_DISTANCE)
        return _number(found, f"the median distance of {self.meta.key}")

    def _noted_bounds(self) -> list[float | None]:
        """Return what is known of each minibatch's errors; nothing before version 3."""
        found, key = self._attributes.get(BOUNDS, []), self.meta.key
        if not isinstance(found, list) or len(found) > self.meta.length:
            raise SchemaError(
                f"the bounds of {key}", f"are {found!r:.60}", "want a list of numbers"
            )
        known = [_number(value, f"a bound of {key}") for value in found]
        return known + [None] * (self.meta.length - len(known))

    def _noted_unit(self) -> int | None:
        found = self._attributes.get(UNIT, 0)
        if found is None or (type(found) is int and abs(found) <= 1100):
            return found
        what = f"the unit of {self.meta.key} is {found!r:.60}"
        raise SchemaError(what, remedy="want a power of two")


class GramWriter(_GramNotes, CommittedWriter[GramMeta]):
    """Fills the Grams of one representation; use ``GramWriter.open``, which also resumes."""

    def __init__(self, *made: Any) -> None:
        super().__init__(*made)
        self._pending: list[npt.NDArray[Any]] = []
        self._bounds = self._noted_bounds()
        self.unit = self._noted_unit() if self.commits or self.kept else None
        """Power of two that examples were divided by; None while all Grams suit any."""

    def append(self, K: npt.ArrayLike, bound: float | None = None, unit: int | None = 0) -> None:
        """Add the Gram of the next minibatch, of shape (n, n).

        It is written and committed with the others of its chunk, up to ``n_committed``; a writer
        that ends before loses the few that it had gathered. NaN and infinities are stored as they
        are.

        Args:
            K: float64 whose digits float32 does not hold is stored as such, others as float32. What
                was stored before is then written again in float64; killed in between, nothing is
                stored, and writing begins again.
            bound: of the errors of its squared distances, against usual ones; None if not known.
            unit: the examples were divided by 2**unit, the same for all minibatches; None, before
                others, of examples that are all alike.
        """
        name, index = str(self.meta.key), self.n_committed + len(self._pending)
        if index == self.meta.length:
            found = f"have all their {index} minibatches"
            raise MisalignedWriteError(name, found, "stop appending")
        gram, n = as_narrow_as_exact(as_real(K, name)), self.meta.sizes[index]
        if gram.shape != (n, n):
            wanted = f"minibatch {index} needs {(n, n)}: append all minibatches in order"
            raise MisalignedWriteError(name, f"got a Gram of shape {gram.shape}", wanted)
        if gram.dtype == np.float64 and self.meta.precision == "float32":
            if self._later:
                # Those behind that were stored in float32 are not at hand in float64.
                bound = None
            else:
                self._widen()
        self.unit = unit
        self._bounds[index] = bound
        pending = [*self._pending, pack(narrow_gram(gram, self.meta.precision, name))]
        if len(pending) == self.meta.block_length or index + 1 == self.meta.length:
            self._write(self._padded(pending))
            pending = []
        self._pending = pending

    def set_median_distance(self, distance: float) -> None:
        """Keep the median distance between examples at once; 0.0 and NaN are allowed."""
        if distance < 0:
            what = f"the median distance of {self.meta.key}"
            raise SchemaError(what, f"is {distance}", "want >= 0")
        what = f"cannot write to {self.place}"
        with writing(self.store_path, what, "; fix that and run again"):
            self._put({MEDIAN_DISTANCE: _json(float(distance))})

    def _notes(self, records: Records) -> dict[str, Any]:
        stop = self.meta.block(len(records))[0]
        notes: dict[str, Any] = {BOUNDS: [_json(bound) for bound in self._bounds[:stop]]}
        if self.unit != 0 or UNIT in self._attributes:
            notes[UNIT] = self.unit
        return notes

    def _widen(self) -> None:
        """Store everything in float64, what is committed included."""
        there = Grams(self.store_path, self.meta, self.commits, self._attributes)
        kept = there.read(0, self.n_committed)
        blocks = [kept[each.start : each.stop] for each in self.commits]
        self._make_again(replace(self.meta, precision="float64"))
        for block in blocks:
            self._write(self._padded(block))

    def _padded(self, packed: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        dtype = np.dtype(self.meta.precision).newbyteorder("<")
        rows = np.full((len(packed), self.meta.width), math.nan, dtype)
        for row, values in zip(rows, packed, strict=True):
            row[: len(values)] = values
        return rows


class Grams(_GramNotes, CommittedReader[GramMeta]):
    """The Grams of one representation that were committed when they were opened."""

    unknown = UnknownGramsError

    @property
    def key(self) -> GramKey:
        """Where they are stored."""
        return self.meta.key

    @property
    def unit(self) -> int:
        """Power of two that the examples were divided by."""
        return self._noted_unit() or 0

    @property
    def bounds(self) -> list[float | None]:
        """Bounds of the errors of squared distances, one a minibatch; None where not known."""
        return self._noted_bounds()[: self.n_committed]

    @property
    def rows_digest(self) -> str | None:
        """Digest of the activations that they were computed from, None where none were kept."""
        found = self._attributes.get(SOURCE)
        return found if isinstance(found, str) else None

    def read(self, first: int, stop: int) -> list[npt.NDArray[Any]]:
        """Return the packed Grams of minibatches first to stop (exclusive), without padding.

        Each is in float32 where that holds its digits, else in float64. They may be views of one
        array. Every chunk is read once and its digest verified. Raises UnfinishedError for
        minibatches not yet committed and DamagedChunkError for values that are not those that were
        written.
        """
        packed, sizes = self._read(first, stop), self.meta.sizes[first:stop]
        unpadded = (row[: triangle_size(n)] for row, n in zip(packed, sizes, strict=True))
        return list(map(as_narrow_as_exact, unpadded))


class GramStore(CommittedStore[Grams]):
    """A store of Grams, read only; pickles as its path."""

    reader = Grams


def open_grams(path: Address) -> GramStore:
    """Open a store of Grams for reading.

    Raises StoreLocationError where there is none, SchemaError for a foreign or newer one.
    """
    return GramStore(path)


def _json(value: float | None) -> float | str | None:
    # JSON has no NaN and no infinity.
    return value if value is None or math.isfinite(value) else str(value)


def _number(value: object, name: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        with suppress(ValueError, OverflowError):
            return float(value)
    raise SchemaError(f"{name} is {value!r:.60}, and no number", remedy="compute the Grams again")
