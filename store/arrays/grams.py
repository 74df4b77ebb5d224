"""Keep the Gram of every minibatch of a representation, as packed triangles.

Another comparison of the representation reads 132 kB a minibatch of 256, and no activations.
They are stored in float32, and from the first Gram whose digits that does not hold in float64.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from store.arrays.committed import ArrayForm, CommittedReader, Form, Records, block_range
from store.arrays.scan import CommittedStore
from store.arrays.writer import CommittedWriter, written
from store.errors import (
    MisalignedWriteError,
    SchemaError,
    UnknownGramsError,
)
from store.model.array_interop import as_real
from store.model.narrowing import narrow_gram
from store.model.schema import GramKey, GramMeta
from store.model.triangles import as_narrow_as_exact, pack, triangle_size
from store.storage.claims import Claim
from store.storage.paths import Address, Place
from store.storage.remote_errors import reaching
from store.zarrfiles.layout import SOURCE

MEDIAN_DISTANCE: Final = "allcnn_median"
FIRST_MEDIAN_DISTANCE: Final = "allcnn_median_distance"
"""What versions before 3 kept: of the first 1,024 examples, zero distances among them."""

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
    mark="allcnn_grams",
    from_json=GramMeta.from_json,
    array="grams",
    array_form=_array_form,
    depth=5,
    unit="minibatch",
    units="minibatches",
    block="chunks of {} minibatches",
    finish="finish computing them",
    verb="compute",
)


class GramWriter(CommittedWriter[GramMeta]):
    """Fills the Grams of one representation; use ``GramWriter.open``, which also resumes.

    One writer for each: two at once would overwrite each other's commit records.
    """

    form: ClassVar[Form[GramMeta]] = GRAMS

    def __init__(
        self,
        root: Place,
        meta: GramMeta,
        records: Records,
        attributes: Mapping[str, Any],
        held: Claim,
    ) -> None:
        super().__init__(root, meta, records, attributes, held)
        self._pending: list[npt.NDArray[Any]] = []
        self._bounds = _bounds(attributes, meta)
        self._unit = _unit(attributes, meta.key) if self._commits or self.kept else None

    @property
    def median_distance(self) -> float | None:
        """Median distance between examples, None where it is not kept."""
        return _median_distance(self._attributes, self.meta.key)

    @property
    def unit(self) -> int | None:
        """Power of two that examples were divided by; None while all Grams suit any."""
        return self._unit

    def append(self, K: npt.ArrayLike, bound: float | None = None, unit: int | None = 0) -> None:
        """Add the Gram of the next minibatch, of shape (n, n).

        It is written and committed with the others of its chunk, ``n_committed`` telling how far
        that went; a writer that ends before loses the few it had gathered. NaN and infinities are
        stored as they are.

        Args:
            K: float64 whose digits float32 does not hold is stored as such, others as float32. What
                was stored before is then written again in float64; killed in between, nothing is
                stored, and writing begins afresh.
            bound: of the errors of its squared distances, against usual ones; None if not known.
            unit: the examples were divided by 2**unit, the same for all minibatches; None, before
                others, of examples that are all alike.
        """
        index = self.n_committed + len(self._pending)
        gram = as_narrow_as_exact(self._check_square(as_real(K, str(self.meta.key)), index))
        if gram.dtype == np.float64 and self.meta.precision == "float32":
            if self._later:
                # Those behind that were stored in float32 are not at hand in float64.
                bound = None
            else:
                self._widen()
        self._unit = unit
        self._bounds[index] = bound
        pending = [*self._pending, pack(narrow_gram(gram, self.meta.precision, str(self.meta.key)))]
        if len(pending) == self.meta.block_length or index + 1 == self.meta.length:
            self._write(self._padded(pending))
            pending = []
        self._pending = pending

    def set_median_distance(self, distance: float) -> None:
        """Keep the median distance between examples at once; 0.0 and NaN are allowed."""
        if distance < 0:
            raise SchemaError(
                f"the median distance of {self.meta.key} is {distance}", remedy="want >= 0"
            )
        value = float(distance)
        with (
            reaching(self.store_path),
            written(f"cannot write to {self.place}", "; fix that and run again"),
        ):
            self._put({MEDIAN_DISTANCE: _json(value)})

    def _notes(self, records: Records) -> dict[str, Any]:
        stop = block_range(self.meta, len(records))[0]
        notes: dict[str, Any] = {BOUNDS: [_json(bound) for bound in self._bounds[:stop]]}
        if self._unit != 0 or UNIT in self._attributes:
            notes[UNIT] = self._unit
        return notes

    def _widen(self) -> None:
        """Store everything in float64, what is committed included."""
        there = Grams(self.store_path, self.meta, self._commits, self._attributes)
        kept = there.read(0, self.n_committed)
        blocks = [kept[each.start : each.stop] for each in self._commits]
        self._make_again(replace(self.meta, precision="float64"))
        for block in blocks:
            self._write(self._padded(block))

    def _padded(self, packed: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        dtype = np.dtype(self.meta.precision).newbyteorder("<")
        rows = np.full((len(packed), self.meta.width), math.nan, dtype)
        for row, values in zip(rows, packed, strict=True):
            row[: len(values)] = values
        return rows

    def _check_square(self, K: npt.NDArray[Any], index: int) -> npt.NDArray[Any]:
        if index == self.meta.length:
            raise MisalignedWriteError(
                f"{self.meta.key} have all their {self.meta.length} minibatches",
                remedy="stop appending",
            )
        n = self.meta.sizes[index]
        if K.shape != (n, n):
            raise MisalignedWriteError(
                f"{self.meta.key} got a Gram of shape {K.shape}",
                remedy=(
                    f"minibatch {index} needs {(n, n)}:"
                    " append the Grams of all minibatches in order"
                ),
            )
        return K


class Grams(CommittedReader[GramMeta]):
    """The Grams of one representation that were committed when they were opened.

    Pickles as path and key.
    """

    form: ClassVar[Form[GramMeta]] = GRAMS

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.store_path, self.key)

    @property
    def key(self) -> GramKey:
        """Where they are stored."""
        return self.meta.key

    @property
    def median_distance(self) -> float | None:
        """Median distance between examples, None where it is not kept: the Grams hold it."""
        return _median_distance(self._attributes, self.key)

    @property
    def unit(self) -> int:
        """Power of two that the examples were divided by."""
        return _unit(self._attributes, self.key) or 0

    @property
    def bounds(self) -> list[float | None]:
        """Bounds of the errors of squared distances, one a minibatch; None where not known."""
        return _bounds(self._attributes, self.meta)[: self.n_committed]

    @property
    def rows_digest(self) -> str | None:
        """Digest of the activations that they were computed from, None where none were kept."""
        found = self._attributes.get(SOURCE)
        return found if isinstance(found, str) else None

    def read(self, first: int, stop: int) -> list[npt.NDArray[Any]]:
        """Return the packed Grams of minibatches first to stop (exclusive), without padding.

        Each is in float32 where that holds its digits, else in float64. They may be views of whole
        chunks, each read once and its digest verified. Raises
        UnfinishedError for minibatches not yet committed and DamagedChunkError for values that
        are not those that were written.
        """
        packed: list[npt.NDArray[Any]] = []
        for block in self._blocks(first, stop):
            rows = self._empty(block.stop - block.start)
            self._fill(block, rows)
            sizes = self.meta.sizes[block.start : block.stop]
            unpadded = [row[: triangle_size(n)] for row, n in zip(rows, sizes, strict=True)]
            packed += unpadded[max(first - block.start, 0) : stop - block.start]
        return list(map(as_narrow_as_exact, packed))

    @property
    def _name(self) -> str:
        of = self.key.of
        return (
            f"the Grams {self.key.variant} of tap {of.tap} of run {of.run}, checkpoint"
            f" {of.checkpoint}"
        )


class GramStore(CommittedStore[Grams]):
    """A store of Grams, read only; pickles as its path."""

    reader = Grams
    unknown = UnknownGramsError

    def __getitem__(self, key: GramKey) -> Grams:
        """Open the Grams of one representation.

        Raises UnknownGramsError for what is not there, UnfinishedError while it is being created.
        """
        return self._get(key)


def open_grams(path: Address) -> GramStore:
    """Open a store of Grams for reading.

    Raises StoreLocationError where there is none, SchemaError for a foreign or newer one.
    """
    return GramStore(path)


def _reopen(path: Place, key: GramKey) -> Grams:
    return GramStore(path)[key]


def _bounds(attributes: Mapping[str, Any], meta: GramMeta) -> list[float | None]:
    """Return what is known of each minibatch's errors; nothing before version 3."""
    found = attributes.get(BOUNDS, [])
    if not isinstance(found, list) or len(found) > meta.length:
        raise SchemaError(
            f"the bounds of {meta.key} are {found!r:.60}", remedy="want a list of numbers"
        )
    known = [_number(value, f"a bound of {meta.key}") for value in found]
    return known + [None] * (meta.length - len(known))


def _unit(attributes: Mapping[str, Any], key: GramKey) -> int | None:
    found = attributes.get(UNIT, 0)
    if found is None:
        return None
    if not isinstance(found, int) or isinstance(found, bool) or abs(found) > 1100:
        raise SchemaError(f"the unit of {key} is {found!r:.60}", remedy="want a power of two")
    return found


def _json(value: float | None) -> float | str | None:
    # JSON has no NaN and no infinity.
    return value if value is None or math.isfinite(value) else str(value)


def _number(value: object, name: str) -> float | None:
    if value is None or (isinstance(value, int | float | str) and not isinstance(value, bool)):
        try:
            return None if value is None else float(value)
        except (ValueError, OverflowError):
            pass
    raise SchemaError(f"{name} is {value!r:.60}, and no number", remedy="compute the Grams again")


def _median_distance(attributes: Mapping[str, Any], key: GramKey) -> float | None:
    return _number(attributes.get(MEDIAN_DISTANCE), f"the median distance of {key}")
