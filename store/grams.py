"""Keep the Gram of every minibatch of a representation, as packed triangles.

Whoever compares the representation again reads 132 kB a minibatch of 256, and no activations.
"""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from store.claim import Claim
from store.committed import ArrayForm, CommittedReader, Form
from store.errors import (
    MisalignedWriteError,
    PackingError,
    SchemaError,
    UnknownGramsError,
)
from store.finding import CommittedStore
from store.foreign import as_real
from store.layout import SOURCE
from store.narrowing import narrow_gram
from store.place import Address, Place
from store.reach import reaching
from store.schema import Commit, GramKey, GramMeta
from store.writer import CommittedWriter, written

MEDIAN_DISTANCE: Final = "allcnn_median_distance"

_FLOAT32: Final = np.dtype(np.float32).newbyteorder("<")


def pack(K: npt.ArrayLike) -> npt.NDArray[Any]:
    """Return the upper triangle of a symmetric matrix with its diagonal, row after row.

    Of shape (n(n+1)/2,) for K of shape (n, n), and a copy. Whether K is symmetric is not checked.
    """
    square = np.asarray(K)
    if square.ndim != 2 or square.shape[0] != square.shape[1]:
        raise PackingError(f"a matrix of shape {square.shape} has no triangle; give a square one")
    # No index is out of range, and "wrap" takes two thirds of the time of looking for one.
    return np.take(square, _upper(len(square)), mode="wrap")


def unpack(packed: npt.ArrayLike) -> npt.NDArray[Any]:
    """Return symmetric matrices, of shape (..., n, n), from packed ones, (..., n(n+1)/2)."""
    triangles = np.asarray(packed)
    n_pairs = triangles.shape[-1] if triangles.ndim else 0
    n = (math.isqrt(8 * n_pairs + 1) - 1) // 2
    if triangles.ndim == 0 or triangle_size(n) != n_pairs:
        raise PackingError(
            f"values of shape {triangles.shape} are no packed triangles; want n(n+1)/2 of them"
            " along the last axis, without padding"
        )
    return np.take(triangles, _square(n), axis=-1, mode="wrap")


def triangle_size(n: int) -> int:
    """Return how many entries the triangle of an (n, n) matrix has, with its diagonal."""
    return n * (n + 1) // 2


def _array_form(meta: GramMeta) -> ArrayForm:
    return ArrayForm(
        shape=(meta.length, meta.width),
        chunks=(min(meta.block_length, meta.length), meta.width),
        dtype=_FLOAT32,
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
        commits: tuple[Commit, ...],
        attributes: Mapping[str, Any],
        held: Claim,
    ) -> None:
        super().__init__(root, meta, commits, attributes, held)
        self._pending: list[npt.NDArray[Any]] = []

    @property
    def median_distance(self) -> float | None:
        """Median distance between examples, None where it was never set."""
        return _median_distance(self._attributes, self.meta.key)

    def append(self, K: npt.ArrayLike) -> None:
        """Add the Gram of the next minibatch, of shape (n, n), stored as float32.

        It is written and committed with the others of its chunk, ``n_committed`` telling how far
        that went; a writer that ends before loses the few it had gathered. NaN and infinities are
        stored as they are; a finite entry beyond float32 raises ActivationOverflowError.
        """
        index = self.n_committed + len(self._pending)
        gram = self._check_square(as_real(K, str(self.meta.key)), index)
        pending = [*self._pending, pack(narrow_gram(gram, str(self.meta.key)))]
        if len(pending) == self.meta.block_length or index + 1 == self.meta.length:
            self._write(_padded(pending, self.meta.width))
            pending = []
        self._pending = pending

    def replace(self, first: int, Ks: Sequence[npt.ArrayLike]) -> None:
        """Write the committed Grams of a whole chunk again, from minibatch ``first`` on.

        Until that is done, a reader may find them damaged.
        """
        starts = [each.start for each in self._commits]
        index = starts.index(first) if first in starts else None
        if index is None or self._commits[index].stop != first + len(Ks):
            raise MisalignedWriteError(
                f"{len(Ks)} Grams from minibatch {first} on are no chunk of {self.meta.key} that is"
                f" committed; give {self.meta.block_length} at once, or what is left at the end"
            )
        grams = [
            self._check_square(as_real(K, str(self.meta.key)), first + i) for i, K in enumerate(Ks)
        ]
        packed = [pack(narrow_gram(K, str(self.meta.key))) for K in grams]
        self._rewrite(index, _padded(packed, self.meta.width))

    def set_median_distance(self, distance: float) -> None:
        """Keep the median distance between examples at once; 0.0 and NaN are allowed."""
        if distance < 0:
            raise SchemaError(f"the median distance of {self.meta.key} is {distance}; want >= 0")
        value = float(distance)
        with (
            reaching(self.store_path),
            written(f"cannot write to {self.place}", "; mend it and run again"),
        ):
            # JSON has no NaN and no infinity.
            self._put({MEDIAN_DISTANCE: value if math.isfinite(value) else str(value)})

    def _check_square(self, K: npt.NDArray[Any], index: int) -> npt.NDArray[Any]:
        if index == self.meta.length:
            raise MisalignedWriteError(
                f"{self.meta.key} have all their {self.meta.length} minibatches; stop appending"
            )
        n = self.meta.sizes[index]
        if K.shape != (n, n):
            raise MisalignedWriteError(
                f"{self.meta.key} got a Gram of shape {K.shape}; minibatch {index} needs {(n, n)}:"
                " append the Grams of all minibatches in order"
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
        """Median distance between examples, None where it was never set."""
        return _median_distance(self._attributes, self.key)

    @property
    def rows_digest(self) -> str | None:
        """Digest of the activations that they were computed from, None where none were kept."""
        found = self._attributes.get(SOURCE)
        return found if isinstance(found, str) else None

    def read(self, first: int, stop: int) -> list[npt.NDArray[np.float32]]:
        """Return the packed Grams of minibatches first to stop (exclusive), without padding.

        They are views of whole chunks, each read once and its digest verified. Raises
        UnfinishedError for minibatches not yet committed and DamagedChunkError for values that
        are not those that were written.
        """
        packed: list[npt.NDArray[np.float32]] = []
        for block in self._blocks(first, stop):
            rows = self._empty(block.stop - block.start)
            self._fill(block, rows)
            sizes = self.meta.sizes[block.start : block.stop]
            unpadded = [row[: triangle_size(n)] for row, n in zip(rows, sizes, strict=True)]
            packed += unpadded[max(first - block.start, 0) : stop - block.start]
        return packed

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


def _padded(packed: list[npt.NDArray[Any]], width: int) -> npt.NDArray[Any]:
    rows = np.full((len(packed), width), math.nan, _FLOAT32)
    for row, values in zip(rows, packed, strict=True):
        row[: len(values)] = values
    return rows


def _median_distance(attributes: Mapping[str, Any], key: GramKey) -> float | None:
    value = attributes.get(MEDIAN_DISTANCE)
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError) as error:
        raise SchemaError(
            f"the median distance of {key} is {value!r}; set it again, or delete {key.path}"
        ) from error


# Minibatches come in few sizes; the two indices of 256 rows take 0.8 MB together.
@lru_cache(maxsize=4)
def _upper(n: int) -> npt.NDArray[np.intp]:
    """Return the flat indices of a square matrix's upper triangle."""
    rows, columns = np.triu_indices(n)
    indices: npt.NDArray[np.intp] = rows * n + columns
    return indices


@lru_cache(maxsize=4)
def _square(n: int) -> npt.NDArray[np.intp]:
    """Return the place in the packed triangle of every entry of a square matrix."""
    places = np.empty((n, n), np.intp)
    rows, columns = np.triu_indices(n)
    places[rows, columns] = places[columns, rows] = np.arange(len(rows))
    return places
