"""Store a network whose activations are there as whole arrays, checked before any is written."""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypedDict, Unpack

import numpy as np
import numpy.typing as npt

from store.arrays.reader import Representation
from store.arrays.writer import Compression
from store.errors import ArrayError, ConflictError, StoreError
from store.ingest.network_writer import BATCH_ROWS, DTYPE, NetworkWriter, describe, stored_taps
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


class Options(TypedDict, total=False):
    """What else ``NetworkWriter`` takes."""

    dtype: DType
    batch_rows: int
    channels_first: bool | Collection[str]
    attributes: Attributes | None
    compression: Compression
    created_by: str | None


_DEFAULTS: Options = {
    "dtype": DTYPE,
    "batch_rows": BATCH_ROWS,
    "channels_first": False,
    "attributes": None,
    "created_by": None,
}


def write_network(
    store: Address,
    taps: Mapping[str, Any],
    *,
    run: str,
    checkpoint: str,
    examples: HasExamples,
    digest: str | None = None,
    report: Report | None = None,
    **options: Unpack[Options],
) -> str:
    """Store whole arrays as the taps of a network, in their order; return its digest.

    They may be anything that has a shape and gives rows as slices: NumPy's, PyTorch's, mapped files
    or HDF5 data sets, of which a minibatch at a time is read. All are read once before any is
    written: whatever is not finite, or does not fit, is refused. Asking again writes only missing
    taps and missing or damaged minibatches, and other arrays of the same name are refused.
    ``report`` is told how many rows of how many are done.

    ``digest`` stands for the network's parameters, such as the SHA-256 of their file: it tells that
    activations on other examples are of the same network. Without one it is of the rows.
    """
    check_mapping(taps)
    network = {name: as_sliced(values, f"tap {name}") for name, values in taps.items()}
    settings: Options = {**_DEFAULTS, **options}
    _check_settings(store, run, checkpoint, examples, settings)
    _check_network(network, examples.sample_set.n_samples)
    progress = _Progress(report, 2 * len(network) * examples.sample_set.n_samples)
    of_rows = _digest(network, progress, settings)
    how: dict[str, Any] = {"run": run, "checkpoint": checkpoint, "examples": examples}
    how |= {"digest": digest or of_rows, "taps": list(network)}
    with NetworkWriter(store, **how, **settings) as writer:
        if digest is not None:
            _check_same_rows(writer.stored(), network, settings)
        writer.take_back_damaged()
        for rows in writer.minibatches():
            writer.append({name: values[rows] for name, values in network.items()})
            progress.add(len(network) * (rows.stop - rows.start), "writing")
    return digest or of_rows


def _check_same_rows(
    stored: Sequence[Representation], network: Mapping[str, Sliced], settings: Options
) -> None:
    """Raise ConflictError where other rows are stored: a digest that was given does not tell."""
    for tap in stored:
        name = tap.key.tap
        for commit in tap.commits if name in network else ():
            rows = network[name][commit.start : commit.stop]
            found = narrow_rows(
                as_rows(name, rows, settings["channels_first"]), settings["dtype"], f"tap {name}"
            )
            if crc32c(np.ascontiguousarray(found)) != commit.digest:
                raise ConflictError(
                    f"{tap.key} on {tap.key.sample_set} is stored with other values in rows"
                    f" {commit.start} to {commit.stop - 1}; give those, or another name"
                )


class _Progress:
    """Counts rows, and tells whoever wants to know."""

    def __init__(self, report: Report | None, total: int) -> None:
        self._report = report
        self._done = 0
        self._total = total

    def add(self, n_rows: int, detail: str) -> None:
        self._done += n_rows
        if self._report is not None:
            self._report(self._done, self._total, detail)


def _check_settings(
    store: Address, run: str, checkpoint: str, examples: HasExamples, settings: Options
) -> None:
    """Find before the arrays are read what could be found after it too."""
    how = (settings["dtype"], settings["batch_rows"], settings["attributes"])
    like = describe(run, checkpoint, examples, "not known yet", *how, settings["created_by"])
    stored_taps(store, like, ("dtype", "batch_rows"))


def _check_network(network: Mapping[str, Sliced], n_samples: int) -> None:
    if not network:
        raise ArrayError("there are no arrays to store; give one a tap")
    for name, values in network.items():
        shape = tuple(values.shape)
        check_tap(name, shape)
        as_real(values[:0], f"tap {name}")
        if shape[0] != n_samples:
            raise ArrayError(
                f"tap {name} has {shape[0]} rows, and there are {n_samples} examples; want one"
                " row an example"
            )


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


def _digest(network: Mapping[str, Sliced], progress: _Progress, settings: Options) -> str:
    """Return the SHA-256 of the taps as they will be stored; raises where a value cannot be."""
    # Precision shows in no fewer rows.
    dtype, size = settings["dtype"], max(settings["batch_rows"], MIN_ROWS)
    hasher = hashlib.sha256()
    for name, values in network.items():
        for start in range(0, values.shape[0], size):
            found = as_rows(name, values[start : start + size], settings["channels_first"])
            rows = narrow_rows(found, dtype, f"tap {name}")
            _check_finite(name, rows, start)
            if start == 0:
                hasher.update(_head(name, dtype, (values.shape[0], *rows.shape[1:])))
            hasher.update(as_bytes(rows))
            progress.add(len(rows), f"checking {name}")
    return f"sha256:{hasher.hexdigest()}"


def _check_finite(name: str, rows: npt.NDArray[Any], start: int) -> None:
    odd = ~np.isfinite(rows).reshape(len(rows), -1).all(axis=1)
    if odd.any():
        raise ArrayError(
            f"tap {name} has NaN or infinite values, first in row {start + int(odd.argmax())}; no"
            " CKA is defined with them: mend it or leave it out"
        )
