"""Write stored activations to a file that other programs open, one minibatch at a time."""

import json
import zipfile
from collections.abc import Iterator
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.lib.format as npy
import pyarrow
import pyarrow.csv
import pyarrow.parquet

from allcnn.advice import store_again
from allcnn.errors import ConfigError, RunError
from allcnn.progress import Report, silent
from allcnn.settings.selection import Selection as Pattern
from allcnn.workspace.paths import Workspace
from flows.views.stored import nothing_fits
from store import Representation, has_store, open_grams
from store import open as open_store
from store.arrays.selection import TapSelection
from store.model.names import some_of
from store.storage.local_files import replacing

MOST_COLUMNS = 10_000
"""Features of a table, beyond which few programs open it."""

_ENDINGS: Final = (".npz", ".csv", ".parquet")
_FEATURES: Final = {1: "c{}", 2: "p{}_c{}", 3: "y{}_x{}_c{}"}


def find_one(workspace: Workspace, pattern: Pattern, sample_set: str | None) -> Representation:
    """Return the one representation that fits; RunError for none, ConfigError for several."""
    where = asdict(pattern) | ({} if sample_set is None else {"sample_set": sample_set})
    found: list[Representation] = []
    if has_store(workspace.activations):
        found = open_store(workspace.activations).find(**where)
        # A pattern may be a name as well, as layers[0] is.
        found = [tap for tap in found if tap.key.tap == pattern.tap] or found
    if not found:
        _check_grams(workspace, where)
        raise nothing_fits(workspace, pattern, sample_set=sample_set)
    if len(found) > 1:
        names = some_of([f"{tap.key} on {tap.key.sample_set}" for tap in found], 3)
        raise ConfigError(
            f"{str(pattern)!r} fits {len(found)} representations ({names}), and a file holds one",
            remedy="name its run, checkpoint and tap, and --sample-set where there are several",
        )
    return found[0]


def _check_grams(workspace: Workspace, where: dict[str, str]) -> None:
    """Raise RunError where Grams are kept of what has no activations."""
    grams = open_grams(workspace.grams).find(**where) if has_store(workspace.grams) else []
    if not grams:
        return
    key, samples = grams[0].key.of, grams[0].meta.sample_set
    network = Pattern(key.run, key.checkpoint)
    raise RunError(
        f"only Grams of {network} on {samples.name} are kept, and a query needs activations",
        remedy=store_again(workspace, network, split=samples.split, samples=samples.n_samples),
    )


def check_rows(tap: Representation, rows: slice) -> None:
    """Raise ConfigError for a range that is empty, such as one that is reversed."""
    n = tap.meta.n_samples
    ends = [n if rows.stop is None else rows.stop, rows.start or 0]
    stop, start = (end + n if end < 0 else end for end in ends)
    if stop <= start:
        written = ":".join("" if end is None else str(end) for end in (rows.start, rows.stop))
        raise ConfigError(
            f"rows is {written}, and between these lies none of the {n} rows of {tap.key}",
            remedy="write A:B for rows A to B - 1",
        )


def write(selection: TapSelection, path: Path, report: Report = silent) -> None:
    """Write a selection, whole or not at all, in the format of the file's ending."""
    with replacing(path) as file:
        if path.suffix == ".npz":
            _write_arrays(selection, file, report)
        else:
            _write_table(selection, file, report, is_csv=path.suffix == ".csv")


def check_ending(path: Path) -> None:
    """Raise ConfigError where a file's ending is none of the formats."""
    if path.suffix not in _ENDINGS:
        raise ConfigError("to", f"is {path}", f"use a name that ends in {' or '.join(_ENDINGS)}")


def feature_names(selection: TapSelection) -> list[str]:
    """Return a name for each value of a row, such as ``y0_x0_c12``; channels keep their numbers."""
    *space, n_channels = selection.shape[1:]
    channels = range(n_channels) if selection.channels is None else selection.channels.tolist()
    pattern = _FEATURES[len(space) + 1]
    return [pattern.format(*place) for place in product(*map(range, space), channels)]


def describe(selection: TapSelection) -> dict[str, Any]:
    """Return what the values are, as JSON values."""
    channels = None if selection.channels is None else selection.channels.tolist()
    return selection.tap.meta.to_json() | {"channels": channels, "space": selection.space}


def _check_width(selection: TapSelection) -> None:
    width = int(np.prod(selection.shape[1:]))
    if width > MOST_COLUMNS:
        raise ConfigError(
            f"{selection.tap.meta.key} has {width} features an example, and a table takes"
            f" {MOST_COLUMNS}",
            remedy="average with --pool mean, choose --channels, or write an .npz file",
        )
    if selection.channels is not None and len(set(selection.channels)) < len(selection.channels):
        raise ConfigError("channels are named twice", remedy="a table has one column a channel")


def _parts(selection: TapSelection, report: Report) -> Iterator[TapSelection]:
    parts = list(selection.parts())
    for done, part in enumerate(parts, start=1):
        yield part
        if done < len(parts):
            report(done, len(parts), str(selection.tap.meta.key))


def _write_arrays(selection: TapSelection, file: BinaryIO, report: Report) -> None:
    dtype = npy.dtype_to_descr(selection.dtype)
    header = {"descr": dtype, "fortran_order": False, "shape": selection.shape}
    description = np.array(json.dumps(describe(selection)))
    members = {"samples": selection.samples, "labels": selection.labels, "metadata": description}
    with zipfile.ZipFile(file, "w", allowZip64=True) as archive:
        with archive.open("values.npy", "w", force_zip64=True) as values:
            npy.write_array_header_2_0(values, header)
            for part in _parts(selection, report):
                values.write(part.read().data)
        for name, array in members.items():
            with archive.open(f"{name}.npy", "w") as member:
                npy.write_array(member, np.asarray(array), allow_pickle=False)


def _write_table(selection: TapSelection, file: BinaryIO, report: Report, *, is_csv: bool) -> None:
    _check_width(selection)
    # Float32 also for float16: it loses nothing, and more programs read it.
    wide = np.promote_types(selection.dtype, np.float32)
    features = [(name, pyarrow.from_numpy_dtype(wide)) for name in feature_names(selection)]
    schema = pyarrow.schema([("sample", pyarrow.int64()), ("label", pyarrow.int32()), *features])
    if is_csv:
        file.write((",".join(schema.names) + "\n").encode())
        options = pyarrow.csv.WriteOptions(include_header=False)
        writer = pyarrow.csv.CSVWriter(file, schema, write_options=options)
    else:
        schema = schema.with_metadata({"allcnn": json.dumps(describe(selection))})
        writer = pyarrow.parquet.ParquetWriter(file, schema)
    with writer:
        for part in _parts(selection, report):
            values = part.read().reshape(len(part), -1).T.astype(wide, order="C")
            writer.write_table(pyarrow.table([part.samples, part.labels, *values], schema=schema))
