"""Measure codecs, chunk sizes and shards on the activations of a trained network, as tables.

    allcnn train --dataset cifar10 --width 0.5 --epochs 3
    allcnn extract RUN --samples 1024
    python tests/measure_compression.py workspace/activations.zarr

Ways take turns in one process, minibatch after minibatch as the pipeline does it, from and into the
page cache. Speeds are of the processor's time, all threads and the kernel's copying counted, which
others on the machine disturb least; medians of rounds. Nothing here passes or fails.
"""
# ruff: noqa: T201 - prints what it measures

import argparse
import itertools
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from statistics import median
from typing import Any, Literal, get_args
from unittest import mock

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, ZstdCodec

import store
from store import RepresentationMeta, Writer
from store.arrays.writer import Compression
from store.model.schema import DType
from store.storage.paths import Place, as_place, remove_tree, walk_files
from store.zarrfiles import layout


@dataclass(frozen=True)
class Tap:
    """What is written: all rows of one tap, and their metadata."""

    meta: RepresentationMeta
    rows: np.ndarray

    def blocks(self) -> Iterator[slice]:
        """Return the rows of each minibatch."""
        for start in range(0, len(self.rows), self.meta.batch_rows):
            yield slice(start, min(start + self.meta.batch_rows, len(self.rows)))


@dataclass(frozen=True)
class Way:
    """One way of writing a tap to a place and reading it back, a minibatch at a time."""

    name: str
    write: Callable[[Place, Tap], None]
    read: Callable[[Place, Tap], None]
    address: str = ""

    def place(self, scratch: str) -> Place:
        """Return where to write: in a folder, or below an address by its name."""
        return as_place(f"{self.address}{scratch}/a")


@dataclass(frozen=True)
class Cost:
    """What one tap cost in one way, as a median of rounds; seconds are the processor's."""

    raw_bytes: int
    stored_bytes: int
    n_files: int
    write_s: float
    read_s: float


Shards = Literal["none", "at once", "in turn"]

Costs = dict[str, dict[str, Cost]]
"""By the way's name, then by the tap's."""


def through_store(
    name: str,
    max_chunk_bytes: int = layout.MAX_CHUNK_BYTES,
    compression: Compression = "none",
    address: str = "",
) -> Way:
    """Write with our writer and read with our reader, which verifies every digest."""

    def write(place: Place, tap: Tap) -> None:
        coordinates = np.arange(len(tap.rows)), np.zeros(len(tap.rows), np.int32)
        with (
            mock.patch.object(layout, "MAX_CHUNK_BYTES", max_chunk_bytes),
            Writer.open(place, tap.meta, *coordinates, compression=compression) as writer,
        ):
            for block in tap.blocks():
                writer.append(tap.rows[block])

    def read(place: Place, tap: Tap) -> None:
        stored = store.open(place)[tap.meta.key]
        for block in tap.blocks():
            stored.read(block.start, block.stop)

    return Way(name, write, read, address)


def through_zarr(name: str, *compressors: Any, shards: Shards = "none") -> Way:
    """Write and read with Zarr alone; a shard is one file of all minibatches of a tap."""

    def write(place: Place, tap: Tap) -> None:
        chunks = layout.chunk_shape(tap.meta)
        # A shard has whole chunks along every axis.
        whole = tuple(-(-n // c) * c for n, c in zip(tap.rows.shape, chunks, strict=True))
        array = zarr.create_array(
            place,
            shape=tap.rows.shape,
            chunks=chunks,
            shards=None if shards == "none" else whole,
            dtype=tap.rows.dtype,
            filters=None,
            compressors=compressors,
            config={"write_empty_chunks": True},
        )
        for block in [slice(None)] if shards == "at once" else tap.blocks():
            array[block] = tap.rows[block]

    def read(place: Place, tap: Tap) -> None:
        array = zarr.open_array(place, mode="r")
        for block in tap.blocks():
            array[block]

    return Way(name, write, read)


def codecs() -> list[Way]:
    """Return the ways of encoding that the default was chosen among."""
    checksum = Crc32cCodec()
    levels: list[tuple[Any, int]] = [("lz4", 5), ("zstd", 1)]
    shuffles: list[Any] = ["shuffle", "bitshuffle"]
    blosc = {
        f"blosc {cname} {level}, {shuffle}": BloscCodec(cname=cname, clevel=level, shuffle=shuffle)
        for (cname, level), shuffle in itertools.product(levels, shuffles)
    }
    return [
        through_store("crc32c, store"),
        through_store("zstd 1, store", compression="zstd"),
        through_zarr("crc32c", checksum),
        *(through_zarr(f"zstd {n}", ZstdCodec(level=n, checksum=True)) for n in (-1, 1, 3)),
        *(through_zarr(name, codec, checksum) for name, codec in blosc.items()),
        through_zarr("gzip 1", GzipCodec(level=1), checksum),
    ]


def chunk_sizes() -> list[Way]:
    """Return the budgets of a chunk that the rule was chosen among."""
    return [through_store(f"chunks of {n} MB", n * 2**20) for n in (16, 64, 256)]


def addresses() -> list[Way]:
    """Return a folder, and memory as fsspec sees it: what an address costs without a network."""
    return [
        through_store(f"{kind}, {compression}", compression=compression, address=address)
        for kind, address in (("folder", ""), ("memory://", "memory:/"))
        for compression in get_args(Compression)
    ]


def shards() -> list[Way]:
    """Return a file a minibatch, and one shard a tap, written whole or as minibatches come."""
    return [
        through_zarr("a file a minibatch", Crc32cCodec()),
        through_zarr("a shard a tap, written at once", Crc32cCodec(), shards="at once"),
        through_zarr("a shard a tap, minibatch by minibatch", Crc32cCodec(), shards="in turn"),
    ]


def measure(ways: list[Way], taps: list[Tap], rounds: int) -> Costs:
    """Write and read every tap in every way, the ways taking turns."""
    seconds: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    sizes: dict[tuple[str, str], tuple[int, int]] = {}
    for _, way, tap in itertools.product(range(rounds), ways, taps):
        with tempfile.TemporaryDirectory() as scratch:
            place, tried = way.place(scratch), (way.name, tap.meta.key.tap)
            seconds[tried].append((timed(way.write, place, tap), timed(way.read, place, tap)))
            sizes[tried] = size_of(place)
            remove_tree(place)
    costs: Costs = defaultdict(dict)
    for way, tap in itertools.product(ways, taps):
        tried = way.name, tap.meta.key.tap
        write_s, read_s = (median(each) for each in zip(*seconds[tried], strict=True))
        costs[way.name][tap.meta.key.tap] = Cost(tap.rows.nbytes, *sizes[tried], write_s, read_s)
    return costs


def timed(work: Callable[[Place, Tap], None], place: Place, tap: Tap) -> float:
    """Return the processor's seconds that a piece of work takes."""
    began = time.process_time()
    work(place, tap)
    return time.process_time() - began


def size_of(place: Place) -> tuple[int, int]:
    """Return the bytes of all files below a place, and how many they are."""
    sizes = [n_bytes for _, n_bytes, _ in walk_files(place)]
    return sum(sizes), len(sizes)


def load(path: str, n_samples: int, dtype: DType, batch_rows: int | None = None) -> list[Tap]:
    """Return the taps of the only checkpoint of a store, narrowed to a dtype as extraction does."""
    return [
        Tap(
            replace(
                tap.meta,
                sample_set=(sample_set := replace(tap.meta.sample_set, n_samples=n_samples)),
                key=replace(tap.key, sample_set=sample_set.name),
                dtype=dtype,
                batch_rows=batch_rows or tap.meta.batch_rows,
            ),
            tap.read(0, n_samples).astype(dtype),
        )
        for tap in store.open(path).find()
    ]


def show_ways(costs: Costs) -> None:
    """Print one line a way, over all taps."""
    print("| way | ratio | write MB/s | read MB/s | files |\n| --- | --- | --- | --- | --- |")
    for name, by_tap in costs.items():
        raw, stored, files, write_s, read_s = (
            sum(getattr(cost, field.name) for cost in by_tap.values()) for field in fields(Cost)
        )
        speeds = f"{raw / write_s / 1e6:.0f} | {raw / read_s / 1e6:.0f}"
        print(f"| {name} | {raw / stored:.2f} | {speeds} | {files} |", flush=True)


def show_taps(costs: Costs, taps: list[Tap]) -> None:
    """Print one line a tap: its share of zeros, and the ratio of each way."""
    print(f"| tap | shape | zeros | {' | '.join(costs)} |\n{'| --- ' * (3 + len(costs))}|")
    for tap in taps:
        found = [by_tap[tap.meta.key.tap] for by_tap in costs.values()]
        ratios = " | ".join(f"{cost.raw_bytes / cost.stored_bytes:.2f}" for cost in found)
        zeros = np.mean(tap.rows == 0)
        shape = " x ".join(map(str, tap.meta.shape))
        print(f"| `{tap.meta.key.tap}` | {shape} | {zeros:.0%} | {ratios} |", flush=True)


def main() -> None:
    """Measure what is asked for, and print it as tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", help="activations of one checkpoint, in float32")
    parser.add_argument("what", nargs="*", default=["codecs", "chunks", "shards", "addresses"])
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    if "codecs" in asked.what:
        for dtype in get_args(DType):
            taps = load(asked.store, asked.samples, dtype)
            costs = measure(codecs(), taps, asked.rounds)
            print(f"\n{dtype}, {asked.samples} examples")
            show_ways(costs)
            show_taps(costs, taps)
    if "chunks" in asked.what:
        # As large as the first tap's at width 1, in float32, with 256 rows.
        taps = load(asked.store, asked.samples, "float32", 512)[:1]
        print(f"\nchunks: minibatches of {taps[0].rows[:512].nbytes / 2**20:.0f} MiB")
        show_ways(measure(chunk_sizes(), taps, asked.rounds))
    for name, ways in (("shards", shards), ("addresses", addresses)):
        if name in asked.what:
            print(f"\n{name}: all taps in float16, {asked.samples} examples")
            taps = load(asked.store, asked.samples, "float16")
            show_ways(measure(ways(), taps, asked.rounds))


if __name__ == "__main__":
    main()
