"""Store a network from whole arrays, checked before any is written."""

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from store.arrays.reader import Representation
from store.arrays.writer import Compression
from store.errors import ArrayError, ConflictError, StoreError
from store.ingest.network_writer import BATCH_ROWS, DTYPE, NetworkWriter, common_meta, stored_taps
from store.model.array_interop import (
    Sliced,
    as_bytes,
    as_real,
    as_rows,
    as_sliced,
    check_mapping,
    check_tap,
)
from store.model.examples import Examples
from store.model.narrowing import MIN_ROWS, narrow_rows
from store.model.schema import Attributes, DType
from store.storage.paths import Address
from store.zarrfiles.layout import crc32c

Report = Callable[[int, int, str], None]


def write_network(
    store: Address,
    taps: Mapping[str, Any],
    *,
    run: str,
    checkpoint: str,
    examples: Examples,
    digest: str | None = None,
    dtype: DType = DTYPE,
    batch_rows: int = BATCH_ROWS,
    channels_first: bool | Collection[str] = False,
    attributes: Attributes | None = None,
    compression: Compression = "none",
    created_by: str | None = None,
    report: Report | None = None,
) -> str:
    """Store whole arrays as the taps of a network, in their order; return its digest.

    They may be anything that has a shape and gives rows as slices: NumPy's, PyTorch's, mapped files
    or HDF5 data sets, of which a minibatch at a time is read. All are read once before any is
    written: whatever is not finite, or does not fit, is refused. A second call writes only missing
    taps and missing or damaged minibatches, and other arrays of the same name are refused.
    ``report`` gets the rows that are done, all rows, and a text.

    ``digest`` stands for the network's parameters, such as the SHA-256 of their file: it shows that
    activations on other examples are of the same network. Without one it is of the rows. The other
    settings are those of ``NetworkWriter``.
    """
    check_mapping(taps)
    arrays = {name: as_sliced(values, f"tap {name}") for name, values in taps.items()}
    settings: dict[str, Any] = {"run": run, "checkpoint": checkpoint, "examples": examples}
    settings |= {"dtype": dtype, "batch_rows": batch_rows}
    settings |= {"attributes": attributes, "created_by": created_by}
    like = common_meta(digest=digest or "not known yet", **settings)
    stored_taps(store, like, ("dtype", "batch_rows"))
    network = _Network(arrays, dtype, channels_first, report)
    network.check(like.n_samples)
    # Fewer rows show no loss of precision.
    of_rows = _sha256(network.blocks(max(batch_rows, MIN_ROWS)))
    settings |= {"channels_first": channels_first, "compression": compression}
    with NetworkWriter(store, digest=digest or of_rows, taps=list(arrays), **settings) as writer:
        if digest is not None:
            network.check_same(writer.stored())
        writer.take_back_damaged()
        for rows in writer.minibatches():
            writer.append({name: values[rows] for name, values in arrays.items()})
            network.progress(len(arrays) * (rows.stop - rows.start), "writing")
    return digest or of_rows


def rows_digest(taps: Sequence[Representation]) -> str | None:
    """Return the digest that ``write_network`` computes of these rows; reads all of them.

    None where they are not all there or are damaged.
    """
    if not all(tap.complete for tap in taps):
        return None
    in_order = sorted(taps, key=lambda each: each.meta.tap_index)
    blocks = ((tap, commit) for tap in in_order for commit in tap.commits)
    try:
        return _sha256(
            (tap.key.tap, tap.meta.n_samples, commit.start, tap.read(commit.start, commit.stop))
            for tap, commit in blocks
        )
    except StoreError:
        return None


def _sha256(blocks: Iterable[tuple[str, int, int, npt.NDArray[Any]]]) -> str:
    """Return the digest of blocks: name and length of their tap, first row, and rows."""
    state = hashlib.sha256()
    for name, n_rows, start, rows in blocks:
        if start == 0:
            state.update(f"{name} {rows.dtype.name} {(n_rows, *rows.shape[1:])}\n".encode())
        state.update(as_bytes(rows))
    return f"sha256:{state.hexdigest()}"


@dataclass
class _Network:
    """Whole arrays, how they will be stored, and how many rows were checked or written."""

    arrays: Mapping[str, Sliced]
    dtype: DType
    channels_first: bool | Collection[str]
    report: Report | None
    n_done: int = 0

    def progress(self, n_rows: int, text: str) -> None:
        self.n_done += n_rows
        if self.report is not None:
            n_all = 2 * sum(values.shape[0] for values in self.arrays.values())
            self.report(self.n_done, n_all, text)

    def rows(self, tap: str, start: int, stop: int) -> npt.NDArray[Any]:
        rows = as_rows(tap, self.arrays[tap][start:stop], self.channels_first)
        return narrow_rows(rows, self.dtype, f"tap {tap}")

    def check(self, n_samples: int) -> None:
        if not self.arrays:
            raise ArrayError("there are no arrays to store", remedy="give one a tap")
        for tap, values in self.arrays.items():
            shape = tuple(values.shape)
            check_tap(tap, shape)
            as_real(values[:0], f"tap {tap}")
            if shape[0] != n_samples:
                found = f"has {shape[0]} rows, and there are {n_samples} examples"
                raise ArrayError(f"tap {tap}", found, "want one row an example")

    def blocks(self, size: int) -> Iterator[tuple[str, int, int, npt.NDArray[Any]]]:
        """Yield the rows as they will be stored; raises ArrayError where a value cannot be."""
        for tap, values in self.arrays.items():
            for start in range(0, values.shape[0], size):
                rows = self.rows(tap, start, start + size)
                odd = ~np.isfinite(rows).reshape(len(rows), -1).all(axis=1)
                if odd.any():
                    found = f"has NaN or infinite values, first in row {start + int(odd.argmax())}"
                    advice = "no CKA is defined with them: replace them, or leave the tap out"
                    raise ArrayError(f"tap {tap}", found, remedy=advice)
                yield tap, values.shape[0], start, rows
                self.progress(len(rows), f"checking {tap}")

    def check_same(self, stored: Sequence[Representation]) -> None:
        """Raise ConflictError where other rows are stored: a given digest does not show it."""
        for tap in stored:
            name = tap.key.tap
            for commit in tap.commits if name in self.arrays else ():
                found = self.rows(name, commit.start, commit.stop)
                if crc32c(np.ascontiguousarray(found)) != commit.digest:
                    raise ConflictError(
                        f"{tap.key} on {tap.key.sample_set}",
                        f"is stored with other values in rows {commit.start} to {commit.stop - 1}",
                        remedy="give those, or another name",
                    )
