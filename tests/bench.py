"""Budgets, measured side by side in one process: each against its peer, medians of several rounds.

Run by `make bench`. Prints ratios; machines are noisy, so nothing here passes or fails.
"""

import argparse
import contextlib
import functools
import math
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import google_crc32c
import jax
import jax.numpy as jnp
import numpy as np
import reports
import torch
from browser import browsing, find_browser, wait_ready
from cka.cka import cka_from_features
from cka.hsic import hsic as pytorch_hsic

import store
from allcnn.cluster.cluster import Cluster
from allcnn.cluster.spec import THREADS, ClusterSpec
from allcnn.compare import compare
from allcnn.compare.candidates import Source as Compared
from allcnn.compare.compute import _block_size as block_size
from allcnn.compare.results import Slot, result_of
from allcnn.compare.tasks import Operand, Part, keep_grams
from allcnn.drawing import figure_files
from allcnn.extract import keep
from allcnn.extract.forward import LoadedNetwork, Samples, tap_shapes
from allcnn.networks.architectures import AllCnnC
from allcnn.networks.architectures.convnet import ConvNet
from allcnn.networks.architectures.presets import preset
from allcnn.progress import silent
from allcnn.settings.comparison import Comparison
from allcnn.settings.extraction import DEFAULT_SAMPLES, Compression, DType, Extraction, Keep
from allcnn.settings.run import RunConfig
from allcnn.settings.selection import Selection
from allcnn.similarity import gram, pair_sums
from allcnn.similarity import gram_backends as products
from allcnn.similarity.measures import Cka
from allcnn.similarity.method import Method
from allcnn.training import loop as train
from allcnn.training import steps
from allcnn.workspace import checkpoints, run_record
from allcnn.workspace.paths import Workspace
from flows.maintenance.nightly_run import holding, work_through
from flows.reporting import write_report
from flows.settings.nightly_plan import Nightly
from store import SampleSet

SHAPES = [(32, 96), (32, 96), (16, 96), (16, 192), (16, 192), (8, 192), (6, 192), (6, 192), (6, 10)]
"""Side and channels of the nine blocks of All-CNN-C at depth 1 and width 1; the logits follow."""

GramTask = tuple[str, str, store.GramKey]


@dataclass(frozen=True)
class Line:
    """One budget: what was measured, against what."""

    what: str
    ours: float
    peer: str
    theirs: float
    budget: str
    unit: str = "s"

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs


_LINES: list[Line] = []


def main() -> None:
    """Measure the rows asked for, and print them as a table."""
    rows = {
        "grams": grams,
        "pairs": all_pairs,
        "notebook": notebook,
        "extract": extraction,
        "read": read_speed,
        "compare": comparison,
        "added": added_checkpoint,
        "nightly": nightly,
        "report": report_page,
        "classes": classes,
        "dask": dask_share,
        "scaling": scaling,
        "memory": memory,
        "step": training_step,
        "flops": flops,
        "units": units,
        "kept": kept_grams,
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "rows", nargs="*", help=f"any of: {', '.join(rows)}; all but kept by default"
    )
    for name in parser.parse_args().rows or [name for name in rows if name != "kept"]:
        rows[name]()
    print(f"\non {jax.devices()[0].device_kind}, {len(os.sched_getaffinity(0))} cores")
    print(f"{'ratio':>7}  {'budget':>7}  what")
    for line in _LINES:
        limit = line.budget.split()[0]
        met = "" if limit == "-" or line.ratio <= float(limit) else "  (not met)"
        print(f"{line.ratio:7.3f}  {limit:>7}  {line.what}, against {line.peer}{met}")


def tell(what: str, ours: float, peer: str, theirs: float, budget: str, unit: str = "s") -> None:
    """Print a ratio and what it is made of, and keep it for the table."""
    line = Line(what, ours, peer, theirs, budget, unit)
    _LINES.append(line)
    print(
        f"{what}: {ours:.3f} {unit}; {peer}: {theirs:.3f} {unit};"
        f" ratio {line.ratio:.3f} (budget {budget})",
        flush=True,
    )


def nothing() -> None:
    """Do nothing."""


def side_by_side(
    *works: Callable[[], object], rounds: int = 5, after: Callable[[], object] = nothing
) -> list[float]:
    """Return the median seconds of each piece of work, taking turns after one unmeasured round.

    ``after`` each, what it left is cleared away, unmeasured.
    """
    times: list[list[float]] = [[] for _ in works]
    for i in range(rounds + 1):
        for work, seconds in zip(works, times, strict=True):
            began = time.perf_counter()
            work()
            took = time.perf_counter() - began
            if i:
                seconds.append(took)
            after()
    return [median(seconds) for seconds in times]


def taps(n: int, width: float = 1.0, seed: int = 0) -> list[np.ndarray]:
    """Return half-zero activations of n examples, shaped as those of All-CNN-C."""
    generator = np.random.default_rng(seed)
    shapes = [(side, side, round(channels * width)) for side, channels in SHAPES] + [(10,)]
    return [np.maximum(generator.standard_normal((n, *s), np.float32), 0) for s in shapes]


def grams_of(features: list[np.ndarray]) -> list[np.ndarray]:
    """Return the linear Grams of some taps."""
    return [gram.gram(x).values for x in features]


def grams() -> None:
    """Time Grams and HSIC of ten taps, one minibatch of 256."""
    features = taps(256)
    tensors = [torch.from_numpy(x).flatten(1) for x in features]

    def ours() -> None:
        pair_sums.minibatch_sums(grams_of(features), None, Cka())

    def theirs() -> None:
        products = torch.stack([x @ x.T for x in tensors])
        pytorch_hsic(products, products)

    ours_s, theirs_s = side_by_side(ours, theirs, rounds=15)
    tell("Grams and HSIC of 10 taps, 256 examples", ours_s, "pytorch-cka", theirs_s, "0.75")


def notebook() -> None:
    """Compute the whole matrix of 1,028 examples, against a loop over pairs of layers."""
    features = taps(1028)

    def ours() -> None:
        pair_sums.minibatch_sums(grams_of(features), None, Cka("biased"))

    def loop() -> None:
        n = len(features[0])
        H = jnp.eye(n) - 1 / n
        for i, X in enumerate(features):
            for Y in features[i:]:
                a, b = X.reshape(n, -1), Y.reshape(n, -1)
                K, L = jnp.asarray(a) @ jnp.asarray(a).T, jnp.asarray(b) @ jnp.asarray(b).T
                values = [jnp.trace(P @ H @ Q @ H) for P, Q in ((K, L), (K, K), (L, L))]
                jax.block_until_ready(values[0] / jnp.sqrt(values[1] * values[2]))

    ours_s, theirs_s = side_by_side(ours, loop, rounds=1)
    tell("10 layers, 1,028 examples", ours_s, "loop over pairs", theirs_s, "0.06")


@contextlib.contextmanager
def scratch() -> Iterator[Workspace]:
    """Yield a workspace that is deleted again."""
    with tempfile.TemporaryDirectory() as folder:
        yield Workspace.at(folder)


def a_network(
    width: float, n: int = 1024, depth: int = 1
) -> tuple[Samples, Callable[[np.ndarray], dict[str, jax.Array]]]:
    """Return random images and an untrained network."""
    network = AllCnnC(depth, width=width).network(10, 3, 32)
    statistics = np.full(3, 120.0), np.full(3, 60.0)
    variables = network.init(jax.random.key(0), *statistics)
    images = np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3), np.uint8)
    sample_set = SampleSet("noise", "test", n, (32, 32, 3), "0" * 64)
    samples = Samples(sample_set, np.arange(n), np.zeros(n, np.int32), images)
    return samples, lambda batch: network.apply(variables, batch)


def extraction() -> None:
    """Time an extraction of the default size into Zarr, against its forward passes alone."""
    samples, forward = a_network(1.0, DEFAULT_SAMPLES)
    names = iter(range(1000))

    def ours(
        workspace: Workspace, dtype: DType, what: Keep, compression: Compression = "none"
    ) -> None:
        source = LoadedNetwork("run", f"c{next(names)}", "sha256:0", forward)
        job = Extraction(
            source.run, source.checkpoint, dtype=dtype, keep=(what,), compression=compression
        )
        keep(workspace, source, samples, job)

    def forward_alone() -> None:
        for start in range(0, DEFAULT_SAMPLES, Extraction.batch_size):
            jax.block_until_ready(forward(samples.images[start : start + Extraction.batch_size]))

    with scratch() as workspace:
        works = [
            functools.partial(ours, workspace, "float32", "activations"),
            functools.partial(ours, workspace, "float16", "activations"),
            functools.partial(ours, workspace, "float32", "activations", "zstd"),
            functools.partial(ours, workspace, "float32", "grams"),
        ]

        def clear() -> None:
            shutil.rmtree(workspace.activations, ignore_errors=True)

        times_s = side_by_side(*works, forward_alone, rounds=3, after=clear)
        wide_s, narrow_s, zstd_s, grams_s, theirs_s = times_s
        cpu_s = [cpu_seconds(work) for work in (works[0], works[2], forward_alone)]
    tell("extraction into Zarr, float32", wide_s, "forward alone", theirs_s, "1.3")
    tell("extraction into Zarr, float16", narrow_s, "forward alone", theirs_s, "1.3")
    tell("extraction into Zarr, float32 by zstd", zstd_s, "forward alone", theirs_s, "-")
    tell("extraction of Grams alone", grams_s, "forward alone", theirs_s, "-")
    tell("float32, of the processor", cpu_s[0], "forward alone", cpu_s[2], "-", "CPU s")
    tell("float32 by zstd, of the processor", cpu_s[1], "forward alone", cpu_s[2], "-", "CPU s")


def write_network(
    path: Path, n: int, width: float = 0.25, run: str = "run"
) -> list[store.Representation]:
    """Store half-zero activations of n examples of ten classes in minibatches of 256."""
    shapes = [(side, side, round(channels * width)) for side, channels in SHAPES] + [(10,)]
    for index, shape in enumerate(shapes):
        writer = open_writer(path, n, shape, "float16", run, index)
        generator = np.random.default_rng(index)
        block = np.maximum(generator.standard_normal((256, *shape), np.float32), 0)
        block = block.astype(np.float16)
        while not writer.complete:
            # The same values in other sizes, since drawing is slow; equal rows would need float64.
            rows = block * np.float16(1 + writer.n_committed / 2**14)
            writer.append(rows[: min(256, n - writer.n_committed)])
    return store.open(path).find(run=run)


def open_writer(
    path: Path, n: int, shape: tuple[int, ...], dtype: DType, run: str = "run", index: int = 0
) -> store.Writer:
    """Open a tap of n examples of ten classes for writing, in minibatches of 256."""
    sample_set = SampleSet("noise", "test", n, (32, 32, 3), "0" * 64)
    key = store.RepresentationKey(sample_set.name, run, "final", f"tap{index}")
    made = ("bench", "2026-01-01T00:00:00+00:00")
    meta = store.RepresentationMeta(key, sample_set, "sha256:0", index, shape, dtype, 256, *made)
    return store.Writer.open(path, meta, np.arange(n), np.arange(n, dtype=np.int32) % 10)


def read_speed() -> None:
    """Read 2,048 examples in minibatches, against the same files raw with the same checksum."""
    with scratch() as workspace:
        stored = write_network(workspace.activations, 2048, width=1.0)
        folders = [workspace.activations / tap.key.path / "activations/c" for tap in stored]
        files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]

        def ours() -> None:
            for start in range(0, 2048, 256):
                for tap in stored:
                    tap.read(start, start + 256)

        def whole() -> None:
            for file in files:
                content = file.read_bytes()
                check(google_crc32c.value(content[:-4]), content[-4:])

        def in_pieces() -> None:
            for file in files:
                read_raw(file)

        ours_s, whole_s, pieces_s = side_by_side(ours, whole, in_pieces)
    tell("reading 2,048 examples", ours_s, "raw with checksum, in pieces", pieces_s, "1.43")
    tell("the same", ours_s, "raw with checksum, whole files", whole_s, "-")


def read_raw(file: Path) -> None:
    """Read a chunk's file into new memory, a mebibyte at a time as it is checksummed."""
    content, crc = np.empty(file.stat().st_size - 4, np.uint8), 0
    with file.open("rb", buffering=0) as opened:
        for start in range(0, content.size, 2**20):
            piece = content[start : start + 2**20]
            opened.readinto(piece.data)
            crc = google_crc32c.extend(crc, piece)
        check(crc, opened.read())


def check(crc: int, stored: bytes) -> None:
    """Refuse to time bytes that are not those that were written."""
    if crc.to_bytes(4, "little") != stored:
        raise ValueError(f"checksum {crc:08x}, stored {stored.hex()}")


def gram_tasks(workspace: Workspace, stored: Sequence[store.Representation]) -> list[GramTask]:
    """Return the arguments of the tasks that keep Grams."""
    places = str(workspace.activations), str(workspace.grams)
    return [
        (
            *places,
            store.GramKey(tap.key, "linear", "whole", 256, tap.meta.dtype, "sha256:0"),
        )
        for tap in stored
    ]


@contextlib.contextmanager
def connected(spec: ClusterSpec = THREADS) -> Iterator[Cluster]:
    """Yield workers that have started, which is not measured."""
    with Cluster(spec) as cluster:
        cluster.started  # noqa: B018 -- starts them
        yield cluster


def forget(workspace: Workspace, *, grams: bool = True) -> None:
    """Delete results, and kept Grams."""
    for path in (workspace.similarity, *([workspace.grams] if grams else [])):
        shutil.rmtree(path, ignore_errors=True)


EVERYTHING = Selection("*", "*")


def all_pairs() -> None:
    """Compare 10 networks of 10 taps, width 0.25, 2,048 examples, with each other from Zarr."""
    with scratch() as workspace, connected() as workers:
        for k in range(10):
            write_network(workspace.activations, 2048, run=f"run{k}")

        def ours() -> None:
            forget(workspace)
            compare(workspace, Comparison(EVERYTHING, EVERYTHING), cluster=workers)

        features = [torch.from_numpy(x).flatten(1) for x in taps(2048, 0.25)]
        pairs = 45

        def one_pair() -> None:
            cka_from_features(features, features)

        def one_pair_in_minibatches() -> None:
            for start in range(0, 2048, 256):
                batch = [x[start : start + 256] for x in features]
                cka_from_features(batch, batch)

        ours_s, whole_s, parts_s = side_by_side(ours, one_pair, one_pair_in_minibatches, rounds=3)
    what = "all pairs of 10 networks x 10 taps, from Zarr"
    tell(what, ours_s, "cka_from_features on one pair x 45", pairs * whole_s, "0.1")
    tell(what, ours_s, "the same in minibatches of 256", pairs * parts_s, "-")


def added_checkpoint() -> None:
    """Add one checkpoint to an all-pairs result of 20, against computing all 21 afresh."""
    with scratch() as workspace, connected() as workers:
        for k in range(21):
            write_network(workspace.activations, 1024, run=f"run{k:02}")
        job = Comparison(EVERYTHING, EVERYTHING)

        def afresh() -> None:
            forget(workspace)
            compare(workspace, job, cluster=workers)

        def added() -> None:
            forget(workspace, grams=False)
            for path in workspace.grams.glob("*/run20"):
                shutil.rmtree(path)
            compare(workspace, job, cluster=workers)

        afresh_s, added_s = side_by_side(afresh, added, rounds=3)
    tell("one checkpoint added to 20", added_s, "all 21 afresh", afresh_s, "0.1")


def nightly() -> None:
    """Time a night with one new checkpoint beside 20, against one that has all 21 to do."""
    with scratch() as workspace:
        run = write_checkpoints(workspace, 21)
        newest = workspace.checkpoints_folder(run) / "final"
        hidden = newest.with_name("hidden")
        plan = Nightly()

        def spend_night() -> float:
            began = time.perf_counter()
            with holding(workspace, plan) as work, Cluster() as workers:
                work_through(work, workers, lambda name, body: body(silent))
                work.end()
            assert work.summary.failed == work.summary.skipped == []
            return time.perf_counter() - began

        def spend_first_night() -> float:
            for path in workspace.root.iterdir():
                if path.name != "runs":
                    shutil.rmtree(path)
            return spend_night()

        newest.rename(hidden)
        spend_first_night()
        hidden.rename(newest)
        added_s, nothing_s = spend_night(), spend_night()
        whole_s = spend_first_night()
    tell("a night with one checkpoint new beside 20", added_s, "with all 21", whole_s, "0.1")
    tell("a night with nothing to do", nothing_s, "with all 21", whole_s, "-")


def report_page() -> None:
    """Time a report on 100 matrices, opened from the disk until all of it can be used."""
    path = find_browser()
    if path is None:
        print("report: no browser is here, which ALLCNN_CHROMIUM could name")
        return
    with scratch() as workspace, browsing(path) as browser:
        for seed in range(10):
            reports.write_run(workspace, reports.config(seed, epochs=60))
        side = reports.keys(reports.config(0).name, reports.CHECKPOINTS)
        for n in range(100):
            how = {"kernel": "rbf", "sigma": 0.1 * (1 + n // 10), "label": n % 10}
            reports.write_result(workspace, f"result-{n}", side, side, **how)
        address = write_report(workspace).as_uri()

        def load() -> float:
            with browser.new_page() as page:
                page.goto(address)
                return wait_ready(page) / 1000

        ready_s = median([load() for _ in range(6)][1:])
    tell("a report on 100 matrices, until it can be used", ready_s, "a second", 1, "1")


def write_checkpoints(workspace: Workspace, n: int) -> str:
    """Write a run of so many checkpoints of depth 1, untrained; return its name."""
    config = RunConfig.of(image_size=32, width=0.5, epochs=n - 1, checkpoint_every=1)
    entry = train.RunRecord(config, tuple("0123456789"), 1)
    run_record.write_record(workspace, entry)
    plan = train._plan(entry, 1198)
    names = ["init", *(f"epoch-{k:04d}" for k in range(1, n - 1)), "final"]
    for seed, name in enumerate(names):
        state = train._initial_state(
            plan, jax.random.key(seed), np.full(1, 120.0), np.full(1, 60.0)
        )
        checkpoints.save(workspace.checkpoints_folder(config.name) / name, state)
    return config.name


def classes() -> None:
    """Compare each of ten classes, against all examples together; both from activations."""
    with scratch() as workspace, connected() as workers:
        write_network(workspace.activations, 2048)
        every = Comparison(EVERYTHING, EVERYTHING)

        def run(job: Comparison) -> None:
            forget(workspace)
            compare(workspace, job, cluster=workers)

        def kept(job: Comparison) -> None:
            forget(workspace, grams=False)
            compare(workspace, job, cluster=workers)

        exact = replace(every, methods=(Method(Cka("exact")),))
        works = [
            functools.partial(f, job)
            for f, whole in ((run, every), (kept, every), (kept, exact))
            for job in (replace(whole, label="each"), whole)
        ]
        each_s, every_s, each_kept_s, every_kept_s, *exact_s = side_by_side(*works, rounds=5)
    tell("each of ten classes", each_s, "all examples together", every_s, "2")
    tell("the same from kept Grams", each_kept_s, "all examples", every_kept_s, "2")
    tell("the same, exact", exact_s[0], "all examples", exact_s[1], "2")


def comparison() -> None:
    """Time a comparison fed from Zarr, against reading alone plus computing alone."""
    with scratch() as workspace, connected() as workers:
        stored = write_network(workspace.activations, 2048, width=1.0)
        ranges = pair_sums.split_minibatches(2048, 256)
        features = [tap.read(0, 256) for tap in stored]

        def reading() -> None:
            for start, stop in ranges:
                for tap in stored:
                    tap.read(start, stop)

        def computing() -> None:
            for _ in ranges:
                pair_sums.minibatch_sums(grams_of(features), None, Cka())

        def ours() -> None:
            forget(workspace)
            compare(workspace, Comparison(EVERYTHING, EVERYTHING), cluster=workers)

        ours_s, *alone = side_by_side(ours, reading, computing, rounds=3)
        cpu_s = [cpu_seconds(work) for work in (reading, computing)]
    cores = len(os.sched_getaffinity(0))
    tell("comparison from Zarr, 2,048 examples", ours_s, "reading + computing", sum(alone), "-")
    tell("the same", ours_s, "their CPU seconds over the cores", sum(cpu_s) / cores, "1.2")


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the CPU seconds that a piece of work takes in all threads."""
    began = time.process_time()
    work()
    return time.process_time() - began


def dask_share() -> None:
    """Time the tasks of a comparison under Dask, against a plain loop over them in two threads."""
    with scratch() as workspace, connected() as workers:
        stored = write_network(workspace.activations, 10_000)
        tasks = gram_tasks(workspace, stored)

        def alone(task: GramTask) -> None:
            keep_grams(*task)

        def loop() -> None:
            forget(workspace)
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(alone, tasks))

        def dask() -> None:
            forget(workspace)
            workers.gather(keep_grams, tasks, "Grams", lambda *_: None)

        ours_s, theirs_s = side_by_side(dask, loop, rounds=3)
    tell("Grams of 10,000 examples under Dask", ours_s, "two plain threads", theirs_s, "1.05")


def scaling() -> None:
    """Time a comparison by two processes on a core each, against one."""
    with (
        scratch() as workspace,
        connected(ClusterSpec("local", 1)) as one,
        connected(ClusterSpec("local", 2)) as two,
    ):
        for k in range(4):
            write_network(workspace.activations, 4096, run=f"run{k}")

        def by(workers: Cluster) -> None:
            forget(workspace)
            compare(workspace, Comparison(EVERYTHING, EVERYTHING), cluster=workers)

        two_s, one_s = side_by_side(lambda: by(two), lambda: by(one), rounds=3)
    tell("two pinned processes, both cores' time", 2 * two_s, "one", one_s, "-")
    print(f"efficiency of two pinned processes: {one_s / (2 * two_s):.3f}", flush=True)


def memory() -> None:
    """Measure the peak memory of comparing 10,000 examples, against 1,000, in own processes."""
    grown = []
    for n in (10_000, 1_000):
        with scratch() as workspace:
            write_network(workspace.activations, n)
            command = [sys.executable, "-c", _PEAK, str(workspace.root)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            grown.append([float(word) / 1024 for word in done.stdout.split()])
    (large, large_before), (small, small_before) = grown
    tell("peak memory, 10,000 examples", large, "1,000 examples", small, "1.1", "MB")
    grown_by = large - large_before, small - small_before
    tell("the same, less the imports", grown_by[0], "1,000 examples", grown_by[1], "-", "MB")


_PEAK = """
import sys
from pathlib import Path
from allcnn.compare import compare
from allcnn.settings.comparison import Comparison
from allcnn.settings.selection import Selection
from allcnn.workspace.paths import Workspace
def peak():
    return Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
before = peak()
side = Selection("run", "final")
compare(Workspace.at(sys.argv[1]), Comparison(side, side))
print(peak(), before)
"""
"""A comparison alone in its process: kilobytes at the peak, and after the imports."""


def training_step() -> None:
    """Time a training step at width 1, batch 128, and one of Tiny-10, against PyTorch's."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    for config in (RunConfig.of(**preset("d1-v2")), RunConfig.of(**preset("tiny-10"))):
        entry = train.RunRecord(config, tuple("0123456789"), 3)
        images = np.random.default_rng(0).integers(0, 256, (128, 32, 32, 3), np.uint8)
        ours, theirs = our_steps(entry, images), torch_steps(entry.network, images)
        ours_s, theirs_s = (each / STEPS_A_TURN for each in side_by_side(ours, theirs))
        what = f"training step of {config.name}, batch 128"
        tell(what, ours_s, "PyTorch, channels last", theirs_s, "1.6")


def flops() -> None:
    """Count the operations of a training step, and print what they make of the whole recipe."""
    for name in ("d1-v2", "d1-v1", "d2-v2", "d4-v2", "d8-v2", "plain-66", "tiny-10"):
        config = RunConfig.of(**preset(name))
        entry = train.RunRecord(config, tuple("0123456789"), 3)
        an_image = step_flops(entry) / config.batch_size
        n_images = config.epochs * N_CIFAR10
        print(
            f"{name}: {an_image / 1e9:.2f} GFLOP an image,"
            f" {an_image * n_images / 1e15:.1f} PFLOP in {config.epochs} epochs"
        )


N_CIFAR10 = 50_000


def step_flops(entry: train.RunRecord) -> float:
    """Return the operations of one step as XLA counts them, padding left out."""
    plan = train._plan(entry, N_CIFAR10)
    statistics = np.full(3, 120.0), np.full(3, 60.0)
    state = jax.eval_shape(lambda: train._initial_state(plan, jax.random.key(0), *statistics))
    shape = jax.ShapeDtypeStruct
    labels = shape((N_CIFAR10,), jnp.int32)
    images, fill = shape((N_CIFAR10, 32, 32, 3), jnp.uint8), shape((3,), jnp.uint8)
    rows = shape((entry.config.batch_size,), jnp.int32)
    step = jax.jit(steps._step, static_argnums=0)
    lowered = step.lower(plan, state, steps.TrainingExamples(images, labels, fill), rows)
    return float(lowered.cost_analysis()["flops"])


STEPS_A_TURN = 4
"""Each begins beside the other's idle threads, which still spin, and in a cache that is not its."""


def our_steps(entry: train.RunRecord, images: np.ndarray) -> Callable[[], None]:
    """Return steps of ours, as training takes them, without augmentation as in PyTorch's."""
    plan = train._plan(entry, len(images))._replace(augmented=False)
    statistics = np.full(3, 120.0), np.full(3, 60.0)
    state = train._initial_state(plan, jax.random.key(0), *statistics)
    labels = jnp.zeros(len(images), jnp.int32)
    examples = steps.TrainingExamples(jnp.asarray(images), labels, jnp.zeros(3, jnp.uint8))
    order = np.arange(len(images), dtype=np.int32)

    def take() -> None:
        nonlocal state
        none = steps.Metrics.none(plan)
        state, metrics = steps.advance(plan, state, none, examples, order, np.int32(STEPS_A_TURN))
        jax.block_until_ready(metrics)

    return take


def torch_steps(network: ConvNet, images: np.ndarray) -> Callable[[], None]:
    """Return the same steps of the same network in PyTorch."""
    module = torch_network(network)
    optimiser = torch.optim.SGD(module.parameters(), 0.1, 0.9, nesterov=True, weight_decay=1e-3)
    channels_first = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    x = channels_first.contiguous(memory_format=torch.channels_last)
    labels = torch.zeros(len(images), dtype=torch.long)

    def take() -> None:
        for _ in range(STEPS_A_TURN):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(module(x), labels).backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), 2.0)
            optimiser.step()

    return take


def torch_network(network: ConvNet) -> torch.nn.Module:
    """Return the same network in PyTorch, channels last."""
    layers: list[torch.nn.Module] = []
    inputs = network.input_channels
    for layer in network.layers.blocks:
        padding = layer.kernel // 2 if layer.padding == "SAME" else 0
        layers += [
            torch.nn.Conv2d(
                inputs, layer.features, layer.kernel, layer.stride, padding, bias=False
            ),
            torch.nn.BatchNorm2d(layer.features),
            torch.nn.ReLU(),
        ]
        inputs = layer.features
    pooled = [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()]
    head = [torch.nn.Linear(inputs, network.n_classes)] if network.layers.is_linear else []
    module = torch.nn.Sequential(*layers, *pooled, *head)
    return module.to(memory_format=torch.channels_last)


N_EXAMPLES, MINIBATCH, N_CHECKPOINTS = 10_000, 256, 1000
"""What docs/scale.md plans for, beside the 17 taps of depth 2."""


def units() -> None:
    """Measure the cost of one of everything that docs/scale.md reckons with, on this device."""
    for measure in (start, forward_pass, grams_by_tap, stores, pairs, tasks, results):
        measure()


def say(what: str, seconds: float, amount: float = 0, unit: str = "") -> None:
    """Print what something takes, and how much a second that is."""
    rate = f"; {amount / seconds:.4g} {unit}/s" if amount else ""
    print(f"{what}: {1e3 * seconds:.4g} ms{rate}", flush=True)


def start() -> None:
    """Time what a process does before its first task; this one's own imports would count here."""
    imports = "import jax, allcnn.compare, allcnn.extract; jax.devices()"
    workers = f"""{imports}
from allcnn.cluster.cluster import Cluster
from allcnn.cluster.spec import ClusterSpec
with Cluster(ClusterSpec.parse("{{}}")) as cluster:
    cluster.started
"""
    codes = imports, workers.format(THREADS), workers.format(ONE_PROCESS)
    commands = ([sys.executable, "-c", code] for code in codes)
    quiet = functools.partial(subprocess.run, check=True, capture_output=True)
    times_s = side_by_side(*(functools.partial(quiet, c) for c in commands), rounds=3)
    for what, s in zip(("imports", f"and {THREADS}", f"and {ONE_PROCESS}"), times_s, strict=True):
        say(f"a process started and ended: {what}", s)


ONE_PROCESS = ClusterSpec("local", 1)


def forward_pass() -> None:
    """Time depth 2 at width 1, all 17 taps, and count its operations as XLA does."""
    samples, forward = a_network(1.0, MINIBATCH, depth=2)

    def run() -> None:
        jax.block_until_ready(forward(samples.images))

    began = time.perf_counter()
    run()
    first_s = time.perf_counter() - began
    (s,) = side_by_side(run, rounds=3)
    counted = float(jax.jit(forward).lower(samples.images).cost_analysis()["flops"])
    print(f"forward pass: {counted / MINIBATCH / 1e9:.3f} GFLOP an image")
    say(f"forward pass, minibatch of {MINIBATCH}", s, counted / 1e9, "GFLOP")
    say("its first run, with compilation", first_s)


def grams_by_tap() -> None:
    """Time the Gram of a minibatch of each tap of depth 2, where its rows lie and from the host."""
    samples, forward = a_network(1.0, MINIBATCH, depth=2)
    generator, total = np.random.default_rng(0), np.zeros(4)
    products_a_pair = 2 if products.backend() is products.XLA else 1
    for shape, count in Counter(tap_shapes(forward, samples.images[:1]).values()).items():
        rows = np.maximum(generator.standard_normal((MINIBATCH, *shape), np.float32), 0)
        there = jax.device_put(rows)
        works = (functools.partial(gram.gram, X) for X in (there, rows))
        there_s, host_s = side_by_side(*works, rounds=5)
        copied_s = fetched(rows)
        flop = products_a_pair * MINIBATCH**2 * math.prod(shape)
        total += count * np.array([there_s, host_s, copied_s, flop])
        say(f"Gram of {shape} ({count} taps), {flop / 1e9:.3f} GFLOP", there_s, flop / 1e9, "GFLOP")
    there_s, host_s, copied_s, flop = total
    say(f"Grams of a minibatch, all taps, {flop / 1e9:.1f} GFLOP", there_s, flop / 1e9, "GFLOP")
    say("the same from rows on the host, as extraction has them", host_s)
    n_bytes = 4 * flop / (products_a_pair * MINIBATCH)
    say("rows of a minibatch fetched from the device", copied_s, n_bytes / 1e6, "MB")


def fetched(rows: np.ndarray) -> float:
    """Return the median seconds of fetching an array from the device, each time a new one."""
    times = []
    for _ in range(5):
        there = jax.block_until_ready(jax.device_put(rows))
        began = time.perf_counter()
        np.asarray(there)
        times.append(time.perf_counter() - began)
    return median(times)


def stores() -> None:
    """Time writing and reading a minibatch of the first tap, and packed Grams."""
    with scratch() as workspace:
        shape, n_blocks = (32, 32, 96), 4
        writer = open_writer(workspace.activations, n_blocks * MINIBATCH, shape, "float32")
        rows = np.maximum(np.random.default_rng(0).standard_normal((MINIBATCH, *shape)), 0)
        rows = rows.astype(np.float32)
        (s,) = side_by_side(lambda: writer.append(rows), rounds=n_blocks - 1)
        say(f"a minibatch of {shape} written, to the disk", s, rows.nbytes / 1e6, "MB")
        (tap,) = store.open(workspace.activations).find()
        (s,) = side_by_side(lambda: tap.read(0, MINIBATCH), rounds=5)
        say("the same read from memory", s, rows.nbytes / 1e6, "MB")
        gram_stores(workspace.grams)


def gram_stores(path: Path, count: int = 48) -> None:
    """Time making, writing, finding, opening and reading packed Grams."""
    began = time.perf_counter()
    keys = write_grams(path, count)
    say(f"packed Grams of {N_EXAMPLES:,} examples written", (time.perf_counter() - began) / count)
    files = [file for file in (path / keys[0].path).rglob("*") if file.is_file()]
    n_bytes = sum(file.stat().st_size for file in files)
    print(f"their group: {len(files)} files, {n_bytes / 1e6:.3f} MB")
    opened = store.open_grams(path)
    length = opened[keys[0]].meta.block_length
    grams = [opened[key] for key in keys]
    find_s, open_s, read_s = side_by_side(
        opened.find,
        lambda: [opened[key] for key in keys],
        lambda: [each.read(0, length) for each in grams],
    )
    say("a group found, of a store's", find_s / count)
    say("a group opened by its key", open_s / count)
    n_bytes = 4 * length * store.model.triangles.triangle_size(MINIBATCH)
    say(f"a chunk of {length} packed Grams read from memory", read_s / count, n_bytes / 1e6, "MB")


def write_grams(path: Path, count: int, n: int = N_EXAMPLES) -> list[store.GramKey]:
    """Keep Grams of as many representations of n examples as are asked for."""
    sample_set = SampleSet("noise", "test", n, (32, 32, 3), "0" * 64)
    ranges = tuple(pair_sums.split_minibatches(n, MINIBATCH))
    examples = np.arange(n), np.arange(n, dtype=np.int32) % 10
    X = np.random.default_rng(0).standard_normal((MINIBATCH + count, 64)).astype(np.float32)
    K = X @ X.T
    keys = []
    for i in range(count):
        of = store.RepresentationKey(sample_set.name, f"run{i:04}", "final", "conv1")
        key = store.GramKey(of, "linear", "whole", MINIBATCH, "float32", "sha256:0")
        made = {"created_by": "bench", "created_at": "2026-01-01T00:00:00+00:00"}
        meta = store.GramMeta(key, sample_set, 0, ranges, n_taps=1, **made)
        with store.GramWriter.open(path, meta, *examples) as writer:
            for begin, end in ranges:
                # Another part of one large Gram each, so that they all differ.
                writer.append(K[i : i + end - begin, i : i + end - begin])
        keys.append(key)
    return keys


def pairs() -> None:
    """Time what a task does with a minibatch of the two sides of a block of pairs."""
    count = block_size(MINIBATCH)
    size = store.model.triangles.triangle_size(MINIBATCH)
    packed = list(np.random.default_rng(0).standard_normal((count, size), np.float32))
    Ks = store.unpack(np.stack(packed))
    Ls = Ks[::-1].copy()
    centre = jax.jit(pair_sums._features, static_argnames="measure")
    multiply = jax.jit(pair_sums._products)
    there = jax.device_put(Ks)
    F, G = (centre(Ms, Cka())[0] for Ms in (Ks, Ls))
    unpack_s, centre_s, multiply_s, cross_s, own_s = side_by_side(
        lambda: store.unpack(np.stack(packed)),
        lambda: jax.block_until_ready(centre(there, Cka())),
        lambda: jax.block_until_ready(multiply(F, G)),
        lambda: pair_sums.minibatch_sums(Ks, Ls, Cka()),
        lambda: pair_sums.minibatch_sums(Ks, None, Cka()),
        rounds=7,
    )
    flop = 2 * count**2 * MINIBATCH**2
    say(f"{count} Grams unpacked", unpack_s, 4e-6 * count * size, "packed MB")
    say(f"{count} Grams centred", centre_s, count, "Grams")
    say(f"{count} x {count} pairs, {flop / 1e9:.1f} GFLOP", multiply_s, flop / 1e9, "GFLOP")
    say("both sides centred and multiplied, from the host and back", cross_s)
    say("one side with itself, the same", own_s)


def idle(*_: object, wanted: Callable[[], bool]) -> None:
    """Do nothing, as a task."""


def sums(shape: tuple[int, ...], *, wanted: Callable[[], bool]) -> np.ndarray:
    """Return as many numbers as a task does."""
    return np.ones(shape)


def tasks(count: int = 200) -> None:
    """Time what Dask adds to a task, with the arguments and the results of a block of pairs."""
    side = block_size(MINIBATCH)
    sample_set = SampleSet("noise", "test", N_EXAMPLES, (32, 32, 3), "0" * 64)
    keys = [
        store.RepresentationKey(sample_set.name, f"run{i:04}", "final", "conv1")
        for i in range(side)
    ]
    rows = [
        Operand(store.GramKey(key, "linear", "whole", MINIBATCH, "float32", "sha256:0"), None)
        for key in keys
    ]
    print(f"arguments of a block of pairs: {2e-3 * len(pickle.dumps(rows)):.0f} kB")
    shape = (8, side, side)
    for spec in (THREADS, ONE_PROCESS):
        with connected(spec) as workers:

            def gather(body: Callable[..., object], calls: list[tuple[object, ...]]) -> None:
                workers.gather(body, calls, "nothing", lambda *_: None)

            bare_s, full_s, sums_s = side_by_side(
                functools.partial(gather, idle, [()] * count),
                functools.partial(gather, idle, [(rows, rows[::-1])] * count),
                functools.partial(gather, sums, [(shape,)] * 20),
                rounds=3,
            )
        say(f"a task of Dask, {spec}", bare_s / count)
        say(f"with the arguments of a block of pairs, {spec}", full_s / count)
        say(f"with its sums, {spec}", sums_s / 20, 8e-6 * math.prod(shape), "MB")


def results(count: int = N_CHECKPOINTS, n_minibatches: int = 40) -> None:
    """Time what the client does with the sums of all pairs, and the memory that it takes."""
    sample_set = SampleSet("noise", "test", N_EXAMPLES, (32, 32, 3), "0" * 64)
    made = sample_set, "sha256:0", 0, (1,), "float32", 1, "bench", "2026-01-01T00:00:00+00:00"
    keys = [
        store.RepresentationKey(sample_set.name, f"run{i:04}", "final", "conv1")
        for i in range(count)
    ]
    side = [Compared(store.RepresentationMeta(key, *made), "", 0, kept=True) for key in keys]
    own = np.ones((n_minibatches, count))
    cross = np.random.default_rng(0).random((n_minibatches, count, count))
    sizes = np.full(n_minibatches, MINIBATCH)
    part = Part(pair_sums.MinibatchSums(cross, own, own, sizes), np.zeros((0, count, count)), 0)
    how = Slot(Method(), None, "bench"), Comparison(EVERYTHING, EVERYTHING)
    none = [[None] * count] * 2

    with scratch() as workspace:

        def divide() -> store.SimilarityResult:
            return result_of(*how, (side, side), none, part)

        result = divide()
        works = {
            "divided, with standard errors": divide,
            "written": lambda: store.write_result(workspace.similarity, result),
            "drawn": lambda: figure_files.draw_comparison(workspace, result),
        }
        times_s = side_by_side(*works.values(), rounds=3)
        print(f"sums of {count:,} x {count:,} pairs: {cross.nbytes / 1e6:.0f} MB")
        for (what, step), s in zip(works.items(), times_s, strict=True):
            say(f"they are {what}, {peak_bytes(step) / 1e6:.0f} MB more", s)


def peak_bytes(work: Callable[[], object]) -> int:
    """Return the most memory that a piece of work takes beside what was there before."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def kept_grams() -> None:
    """Compare kept Grams: 10 networks of 10 taps, then one tap of 1,000 checkpoints, 6 GB."""
    for count, n_examples, rounds in ((100, 2048, 9), (N_CHECKPOINTS, N_EXAMPLES, 0)):
        with scratch() as workspace, connected() as workers:
            write_grams(workspace.grams, count, n_examples)
            times_s = []
            # The first one compiles, which counts where there is no other.
            for _ in range(rounds + 1):
                forget(workspace, grams=False)
                began = time.perf_counter()
                compare(workspace, Comparison(EVERYTHING, EVERYTHING), cluster=workers)
                times_s.append(time.perf_counter() - began)
            s = median(times_s[1:] or times_s)
            say(f"all pairs of {count:,} representations of {n_examples:,} examples", s)


if __name__ == "__main__":
    main()
