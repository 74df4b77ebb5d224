"""Open an activation store, list what it holds, and read committed rows, every digest verified."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any, ClassVar, Final, Literal

import numpy as np
import numpy.typing as npt

from store.arrays.committed import ArrayForm, CommittedReader, Form
from store.arrays.scan import CommittedStore
from store.arrays.selection import Chosen, Space, TapSelection, as_indices, known_labels
from store.errors import QueryError, UnfinishedError, UnknownRepresentationError
from store.model.names import is_tap_folder, tap_folder
from store.model.schema import RepresentationKey, RepresentationMeta, SampleSet
from store.storage.paths import Address, child_names
from store.zarrfiles.layout import META, chunk_shape

DIMENSIONS: Final = {
    2: ("sample", "channel"),
    3: ("sample", "position", "channel"),
    4: ("sample", "y", "x", "channel"),
}
"""Names of the axes, by how many there are."""


def _array_form(meta: RepresentationMeta) -> ArrayForm:
    # By the first xarray makes the labels a coordinate, and by the second it shows the tap's name
    # where its folder, which is what xarray calls a group, has another one.
    tap = meta.key.tap
    attributes = {"coordinates": "label"} | ({} if tap_folder(tap) == tap else {"long_name": tap})
    return ArrayForm(
        shape=(meta.n_samples, *meta.shape),
        chunks=chunk_shape(meta),
        dtype=np.dtype(meta.dtype).newbyteorder("<"),
        dimensions=DIMENSIONS[1 + len(meta.shape)],
        attributes=attributes,
    )


ACTIVATIONS: Final = Form(
    kind="activations",
    mark=META,
    from_json=RepresentationMeta.from_json,
    array="activations",
    array_form=_array_form,
    depth=4,
    unit="row",
    units="rows",
    verb="store",
)


class Representation(CommittedReader[RepresentationMeta]):
    """The rows of one tap that were committed when it was opened; pickles as its path and key."""

    form: ClassVar[Form[RepresentationMeta]] = ACTIVATIONS
    unknown = UnknownRepresentationError

    @cached_property
    def rows_digest(self) -> str:
        """One digest of all rows that count, from those of the minibatches they are stored in."""
        lines = "".join(f"{c.start} {c.stop} {c.digest}\n" for c in self.commits)
        return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()[:12]}"

    @property
    def key(self) -> RepresentationKey:
        """Where it is stored."""
        return self.meta.key

    @property
    def compression(self) -> Literal["none", "zstd"]:
        """How its chunks are compressed, of the ways in which a store writes them."""
        return "zstd" if "zstd" in self._node.codec_names else "none"

    def __array__(
        self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
    ) -> npt.NDArray[Any]:
        """Read all rows, for NumPy to take it for an array; UnfinishedError where some miss."""
        values = self.read()
        return values if dtype is None else values.astype(dtype, copy=False)

    def read(self, start: int = 0, stop: int | None = None) -> npt.NDArray[Any]:
        """Return rows start to stop (exclusive) in the stored dtype, of shape (rows, *meta.shape).

        All rows are those of the sample set, ``meta.n_samples``.

        Every minibatch that the range touches is read whole and its digest verified; ranges of
        whole minibatches are cheapest. Raises UnfinishedError for rows not yet committed and
        DamagedChunkError for rows that are not those that were written.
        """
        return self._read(start, self.meta.n_samples if stop is None else stop)

    def select(
        self,
        rows: Chosen = None,
        label: int | Sequence[int] | None = None,
        channels: Chosen = None,
        space: Space | None = None,
    ) -> TapSelection:
        """Select rows and channels, to be read or viewed later; reads nothing but labels.

        Args:
            rows: a slice, whole numbers in any order (negative ones count from the end), or a
                mask; None for all of a complete representation.
            label: class, or classes, to which the rows are narrowed.
            channels: as rows, of the last axis.
            space: ``mean`` for the mean over all axes but the first and the last, in float32 or
                float64.

        Raises UnfinishedError for rows not yet committed, RowRangeError for what is out of range,
        and QueryError for labels that no example has.
        """
        if space not in (None, "mean"):
            remedy = "use 'mean', or None to keep all positions"
            raise QueryError(f"space is {space!r}", remedy=remedy)
        n, n_channels = self.meta.n_samples, self.meta.shape[-1]
        chosen = as_indices(f"rows of {self.key}", slice(None) if rows is None else rows, n)
        last = int(chosen.max(initial=-1))
        if last >= self.n_committed:
            raise UnfinishedError(
                f"{self.key} has {self.n_committed} of {n} rows, and row {last} was selected",
                remedy=f"finish its extraction, or select rows before {self.n_committed}",
            )
        if label is not None:
            chosen = chosen[np.isin(self.labels[chosen], known_labels(self, label))]
        if channels is not None:
            channels = as_indices(f"channels of {self.key}", channels, n_channels)
        return TapSelection(self, chosen, channels, space)


@dataclass(frozen=True)
class Summary:
    """One checkpoint of one run on one sample set.

    ``n_missing_taps`` have no folder, as far as the others know; without any, and with all rows, it
    is ``complete``. ``n_committed`` is that of the tap with the fewest; ``n_bytes`` counts
    committed rows.
    """

    sample_set: str
    run: str
    checkpoint: str
    n_taps: int
    n_missing_taps: int
    n_committed: int
    n_rows: int
    n_bytes: int
    dtype: str
    complete: bool


class Store(CommittedStore[Representation]):
    """An activation store, read only; pickles as its path."""

    reader = Representation

    def keys(self) -> list[RepresentationKey]:
        """Return the keys of all representations, in the order of ``find``."""
        return [found.key for found in self.find()]

    def sample_sets(self) -> list[SampleSet]:
        """Return the sample sets, sorted by name."""
        found = {tap.meta.sample_set: None for tap in self.find()}
        return sorted(found, key=lambda sample_set: sample_set.name)

    def summaries(self) -> list[Summary]:
        """Return one row a sample set, run and checkpoint; reads metadata alone."""
        taps = groupby(
            self.find(), lambda tap: (tap.key.sample_set, tap.key.run, tap.key.checkpoint)
        )
        return [_summary(list(group)) for _, group in taps]


def open(path: Address) -> Store:
    """Open an activation store for reading.

    Raises StoreLocationError where there is none, SchemaError for a foreign or newer one.
    """
    return Store(path)


def n_missing_taps(taps: Sequence[Representation]) -> int:
    """Return how many taps have no folder, as far as these of the same network know."""
    n_taps = max((tap.meta.n_taps or 0 for tap in taps), default=0)
    return max(0, n_taps - len(child_names(taps[0].place.parent, is_tap_folder))) if n_taps else 0


def _summary(taps: list[Representation]) -> Summary:
    key, n_rows = taps[0].key, taps[0].meta.n_samples
    n_missing = n_missing_taps(taps)
    return Summary(
        sample_set=key.sample_set,
        run=key.run,
        checkpoint=key.checkpoint,
        n_taps=len(taps),
        n_missing_taps=n_missing,
        n_committed=min(tap.n_committed for tap in taps),
        n_rows=n_rows,
        n_bytes=sum(tap.n_committed * tap.row_bytes for tap in taps),
        dtype=", ".join(sorted({tap.meta.dtype for tap in taps})),
        complete=not n_missing and all(tap.complete for tap in taps),
    )
