"""Store a network from whole arrays, checked before any is written."""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from store.arrays.reader import Representation
from store.arrays.writer import Compression
from store.errors import ArrayError, ConflictError, StoreError
from store.ingest.network_writer import (
    BATCH_ROWS,
    DTYPE,
    NetworkWriter,
    common_meta,
    stored_taps,
)
from store.model.array_interop import (
    Sliced,
    as_bytes,
    as_real,
    as_rows,
    as_sliced,
    check_mapping,
    check_tap,
)
from store.model.examples import HasExamples
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
    examples: HasExamples,
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
    written: whatever is not finite, or does not fit, is refused. Asking again writes only missing
    taps and missing or damaged minibatches, and other arrays of the same name are refused.
    ``report`` gets the rows that are done, all rows, and a text.

    ``digest`` stands for the network's parameters, such as the SHA-256 of their file: it shows that
    activations on other examples are of the same network. Without one it is of the rows. The other
    settings are those of ``NetworkWriter``.
    """
    check_mapping(taps)
    sliced = {name: as_sliced(values, f"tap {name}") for name, values in taps.items()}
    # Checked before the arrays are read.
    of_any = (dtype, batch_rows, attributes, created_by)
    like = common_meta(run, checkpoint, examples, digest or "not known yet", *of_any)
    stored_taps(store, like, ("dtype", "batch_rows"))
    network = _Network(sliced, dtype, channels_first)
    network.check(like.n_samples)
    done = 0

    def progress(n_rows: int, text: str) -> None:
        nonlocal done
        done += n_rows
        if report is not None:
            report(done, 2 * len(sliced) * like.n_samples, text)

    of_rows = network.digest(batch_rows, progress)
    with NetworkWriter(
        store,
        run=run,
        checkpoint=checkpoint,
        examples=examples,
        digest=digest or of_rows,
        dtype=dtype,
        batch_rows=batch_rows,
        channels_first=channels_first,
        attributes=attributes,
        compression=compression,
        created_by=created_by,
        taps=list(sliced),
    ) as writer:
        if digest is not None:
            network.check_same(writer.stored())
        _repair(writer, network)
        for rows in writer.minibatches():
            writer.append({name: values[rows] for name, values in sliced.items()})
            progress(len(sliced) * (rows.stop - rows.start), "writing")
    return digest or of_rows


@dataclass(frozen=True)
class _Network:
    """Whole arrays, and how they will be stored."""

    taps: Mapping[str, Sliced]
    dtype: DType
    channels_first: bool | Collection[str]

    def rows(self, name: str, start: int, stop: int) -> npt.NDArray[Any]:
        return as_rows(name, self.taps[name][start:stop], self.channels_first)

    def narrowed(self, name: str, start: int, stop: int) -> npt.NDArray[Any]:
        return narrow_rows(self.rows(name, start, stop), self.dtype, f"tap {name}")

    def check(self, n_samples: int) -> None:
        if not self.taps:
            raise ArrayError("there are no arrays to store", remedy="give one a tap")
        for name, values in self.taps.items():
            shape = tuple(values.shape)
            check_tap(name, shape)
            as_real(values[:0], f"tap {name}")
            if shape[0] != n_samples:
                found = f"has {shape[0]} rows, and there are {n_samples} examples"
                raise ArrayError(f"tap {name}", found, "want one row an example")

    def digest(self, batch_rows: int, progress: Callable[[int, str], None]) -> str:
        """Return the SHA-256 of the taps as they will be stored; raises where a value cannot be."""
        # Lost precision shows in no fewer rows.
        size = max(batch_rows, MIN_ROWS)
        hasher = hashlib.sha256()
        for name, values in self.taps.items():
            for start in range(0, values.shape[0], size):
                rows = self.narrowed(name, start, start + size)
                _check_finite(name, rows, start)
                if start == 0:
                    hasher.update(_head(name, self.dtype, (values.shape[0], *rows.shape[1:])))
                hasher.update(as_bytes(rows))
                progress(len(rows), f"checking {name}")
        return f"sha256:{hasher.hexdigest()}"

    def check_same(self, stored: Sequence[Representation]) -> None:
        """Raise ConflictError where other rows are stored: a given digest does not show it."""
        for tap in stored:
            name = tap.key.tap
            for commit in tap.commits if name in self.taps else ():
                found = self.narrowed(name, commit.start, commit.stop)
                if crc32c(np.ascontiguousarray(found)) != commit.digest:
                    where = f"rows {commit.start} to {commit.stop - 1}"
                    raise ConflictError(
                        f"{tap.key} on {tap.key.sample_set}",
                        f"is stored with other values in {where}",
                        remedy="give those, or another name",
                    )


def _repair(writer: NetworkWriter, network: _Network) -> None:
    """Write committed minibatches again that cannot be read as they were written.

    Raises DamagedChunkError for coordinates and metadata, which are not among the arrays.
    """
    for tap in writer.stored():
        _ = tap.samples, tap.labels
        damaged = [commit for commit in tap.commits if tap.check(commit) is not None]
        if not damaged:
            continue
        with writer.open_tap(tap.meta) as again:
            for commit in damaged:
                again.replace(commit.start, network.rows(tap.key.tap, commit.start, commit.stop))


def rows_digest(taps: Sequence[Representation]) -> str | None:
    """Return the digest that ``write_network`` computes of these rows; reads all of them.

    None where they are not all there or are damaged.
    """
    hasher = hashlib.sha256()
    for tap in sorted(taps, key=lambda each: each.meta.tap_index):
        meta = tap.meta
        if not tap.complete:
            return None
        hasher.update(_head(tap.key.tap, meta.dtype, (meta.n_samples, *meta.shape)))
        for commit in tap.commits:
            try:
                hasher.update(as_bytes(tap.read(commit.start, commit.stop)))
            except StoreError:
                return None
    return f"sha256:{hasher.hexdigest()}"


def _head(name: str, dtype: str, shape: tuple[int, ...]) -> bytes:
    return f"{name} {dtype} {shape}\n".encode()


def _check_finite(name: str, rows: npt.NDArray[Any], start: int) -> None:
    odd = ~np.isfinite(rows).reshape(len(rows), -1).all(axis=1)
    if odd.any():
        raise ArrayError(
            f"tap {name}",
            f"has NaN or infinite values, first in row {start + int(odd.argmax())}",
            remedy="no CKA is defined with them: replace them, or leave the tap out",
        )
