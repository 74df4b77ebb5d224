"""Budgets, measured side by side in one process: each against its peer, medians of several rounds.

Run by `make bench`. Prints ratios; machines are noisy, so nothing here passes or fails.
"""

import argparse
import contextlib
import functools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median

import jax
import jax.numpy as jnp
import numpy as np
import torch
from cka.hsic import hsic as pytorch_hsic

import store
from allcnn import cluster, compare, hsic, kernels, network, train
from allcnn.config import DType, RunConfig
from allcnn.extract import Samples, Source, write_activations
from allcnn.workspace import Workspace
from store import SampleSet

SHAPES = [(32, 96), (32, 96), (16, 96), (16, 192), (16, 192), (8, 192), (6, 192), (6, 192), (6, 10)]
"""Side and channels of the nine blocks of All-CNN-C at depth 1 and width 1; the logits follow."""


def main() -> None:
    """Print one line a budget."""
    rows = {
        "grams": grams,
        "notebook": notebook,
        "extract": extraction,
        "compare": comparison,
        "dask": dask_share,
        "memory": memory,
        "step": training_step,
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", help=f"any of: {', '.join(rows)}; all by default")
    for name in parser.parse_args().rows or rows:
        rows[name]()


def tell(what: str, ours_s: float, theirs: str, theirs_s: float, budget: str) -> None:
    """Print a ratio and what it is made of."""
    print(
        f"{what}: {ours_s:.3f} s; {theirs}: {theirs_s:.3f} s;"
        f" ratio {ours_s / theirs_s:.3f} (budget {budget})",
        flush=True,
    )


def side_by_side(*works: Callable[[], object], rounds: int = 5) -> list[float]:
    """Return the median seconds of each piece of work, taking turns after one unmeasured round."""
    times: list[list[float]] = [[] for _ in works]
    for i in range(rounds + 1):
        for work, seconds in zip(works, times, strict=True):
            began = time.perf_counter()
            work()
            if i:
                seconds.append(time.perf_counter() - began)
    return [median(seconds) for seconds in times]


def taps(n: int, width: float = 1.0, seed: int = 0) -> list[np.ndarray]:
    """Return half-zero activations of n examples, shaped as those of All-CNN-C."""
    generator = np.random.default_rng(seed)
    shapes = [(side, side, round(channels * width)) for side, channels in SHAPES] + [(10,)]
    return [np.maximum(generator.standard_normal((n, *s), np.float32), 0) for s in shapes]


def grams() -> None:
    """Time Grams and HSIC of ten taps, one minibatch of 256."""
    features = taps(256)
    tensors = [torch.from_numpy(x).flatten(1) for x in features]

    def ours() -> None:
        hsic.minibatch_hsic([kernels.gram(x) for x in features])

    def theirs() -> None:
        products = torch.stack([x @ x.T for x in tensors])
        pytorch_hsic(products, products)

    ours_s, theirs_s = side_by_side(ours, theirs, rounds=15)
    tell("Grams and HSIC of 10 taps, 256 examples", ours_s, "pytorch-cka", theirs_s, "0.75")


def notebook() -> None:
    """Compute the whole matrix of 1,028 examples, against a loop over pairs of layers."""
    features = taps(1028)

    def ours() -> None:
        hsic.minibatch_hsic([kernels.gram(x) for x in features], estimator="biased")

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


def a_network(width: float) -> tuple[Samples, Callable[[np.ndarray], dict[str, jax.Array]]]:
    """Return random images and an untrained network of depth 1."""
    n = 1024
    spec = network.all_cnn_c(RunConfig(width=width), 10, 3)
    statistics = np.full(3, 120.0), np.full(3, 60.0)
    variables = network.init(spec, jax.random.key(0), *statistics)
    images = np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3), np.uint8)
    sample_set = SampleSet("noise", "test", n, (32, 32, 3), "0" * 64)
    samples = Samples(sample_set, np.arange(n), images, np.zeros(n, np.int32))
    return samples, lambda batch: network.apply(spec, variables, batch)


def extraction() -> None:
    """Time four minibatches of 256 into Zarr, against their forward passes alone."""
    samples, forward = a_network(1.0)
    names = iter(range(1000))

    def ours(workspace: Workspace, dtype: DType) -> None:
        source = Source("run", f"c{next(names)}", "sha256:0", forward)
        write_activations(workspace.activations, source, samples, 256, dtype)

    def forward_alone() -> None:
        for start in range(0, 1024, 256):
            jax.block_until_ready(forward(samples.images[start : start + 256]))

    with scratch() as workspace:
        wide, narrow = (functools.partial(ours, workspace, d) for d in ("float32", "float16"))
        wide_s, narrow_s, theirs_s = side_by_side(wide, narrow, forward_alone, rounds=3)
    tell("extraction into Zarr, float32", wide_s, "forward alone", theirs_s, "1.3")
    tell("extraction into Zarr, float16", narrow_s, "forward alone", theirs_s, "1.3")


def write_network(path: Path, n: int, width: float = 0.25) -> list[store.Representation]:
    """Store half-zero activations of n examples in minibatches of 256."""
    sample_set = SampleSet("noise", "test", n, (32, 32, 3), "0" * 64)
    shapes = [(side, side, round(channels * width)) for side, channels in SHAPES] + [(10,)]
    for index, shape in enumerate(shapes):
        key = store.RepresentationKey(sample_set.name, "run", "final", f"tap{index}")
        made = ("bench", "2026-01-01T00:00:00+00:00")
        meta = store.RepresentationMeta(
            key, sample_set, "sha256:0", index, shape, "float16", 256, *made
        )
        writer = store.Writer.open(path, meta, np.arange(n), np.zeros(n, np.int32))
        generator = np.random.default_rng(index)
        while not writer.complete:
            rows = min(256, n - writer.n_committed)
            values = generator.standard_normal((rows, *shape), np.float32)
            writer.append(np.maximum(values, 0))
    return store.open(path).find()


def minibatches(path: Path, stored: Sequence[store.Representation]) -> list[tuple[object, ...]]:
    """Return the arguments of the comparison's tasks."""
    operands = [compare.Operand(tap.key, None) for tap in stored]
    ranges = hsic.split_minibatches(stored[0].meta.n_samples, 256)
    return [(str(path), operands, None, start, stop, "unbiased") for start, stop in ranges]


def comparison() -> None:
    """Time a comparison fed from Zarr, against reading alone plus computing alone."""
    with scratch() as workspace:
        stored = write_network(workspace.activations, 2048, width=1.0)
        ranges = hsic.split_minibatches(2048, 256)
        features = [tap.read(0, 256) for tap in stored]
        tasks = minibatches(workspace.activations, stored)

        def reading() -> None:
            for start, stop in ranges:
                for tap in stored:
                    tap.read(start, stop)

        def computing() -> None:
            for _ in ranges:
                hsic.minibatch_hsic([kernels.gram(x) for x in features])

        with cluster.connect() as client:

            def ours() -> None:
                futures = [client.submit(compare.minibatch_sums, *t, pure=False) for t in tasks]
                client.gather(futures)

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
    """Time the tasks of a comparison under Dask, against a plain loop over them."""
    with scratch() as workspace:
        stored = write_network(workspace.activations, 10_000)
        tasks = minibatches(workspace.activations, stored)

        def loop() -> None:
            for task in tasks:
                compare.minibatch_sums(*task)

        def dask() -> None:
            with cluster.connect() as client:
                client.gather(
                    [client.submit(compare.minibatch_sums, *t, pure=False) for t in tasks]
                )

        ours_s, theirs_s = side_by_side(dask, loop, rounds=3)
    tell("comparison under Dask, 40 tasks", ours_s, "plain loop", theirs_s, "1.05")


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
    print(
        f"peak memory, 10,000 and 1,000 examples: {large:.0f} and {small:.0f} MB;"
        f" ratio {large / small:.3f} (budget 1.1);"
        f" without the imports: {large - large_before:.0f} and {small - small_before:.0f} MB",
        flush=True,
    )


_PEAK = """
import sys
from pathlib import Path
from allcnn.compare import compare
from allcnn.config import Comparison, Network
from allcnn.workspace import Workspace
def peak():
    return Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
before = peak()
side = Network("run", "final")
compare(Workspace.at(sys.argv[1]), Comparison(side, side))
print(peak(), before)
"""
"""A comparison alone in its process: kilobytes at the peak, and after the imports."""


def training_step() -> None:
    """Time a training step at width 1, batch 128, against PyTorch's, channels last."""
    config = RunConfig(dataset="cifar10")
    entry = train.RunRecord(config, tuple("0123456789"), 3)
    plan = train._plan(entry, 128)._replace(augmented=False)
    statistics = np.full(3, 120.0), np.full(3, 60.0)
    state = train._initial_state(plan, jax.random.key(0), *statistics)
    images = np.random.default_rng(0).integers(0, 256, (128, 32, 32, 3), np.uint8)
    examples = train.Examples(
        jnp.asarray(images), jnp.zeros(128, jnp.int32), jnp.zeros(3, jnp.uint8)
    )
    order = np.arange(128, dtype=np.int32)

    def ours() -> None:
        nonlocal state
        state, metrics = train._step(plan, state, examples, order, np.int32(0), jax.random.key(0))
        jax.block_until_ready(metrics)

    module, step = torch_network(entry.spec)
    optimiser = torch.optim.SGD(module.parameters(), 0.1, 0.9, nesterov=True, weight_decay=1e-4)
    x = (
        torch.from_numpy(images)
        .permute(0, 3, 1, 2)
        .float()
        .contiguous(memory_format=torch.channels_last)
    )
    labels = torch.zeros(128, dtype=torch.long)

    def theirs() -> None:
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(step(x), labels).backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 2.0)
        optimiser.step()

    ours_s, theirs_s = side_by_side(ours, theirs, rounds=3)
    tell("training step, width 1, batch 128", ours_s, "PyTorch", theirs_s, "1.6, a later issue")


def torch_network(spec: network.NetworkSpec) -> tuple[torch.nn.Module, Callable[..., torch.Tensor]]:
    """Return the same network in PyTorch, channels last."""
    layers: list[torch.nn.Module] = []
    inputs = spec.input_channels
    for layer in spec.layers:
        padding = layer.kernel // 2 if layer.padding == "SAME" else 0
        layers += [
            torch.nn.Conv2d(
                inputs, layer.features, layer.kernel, layer.stride, padding, bias=False
            ),
            torch.nn.BatchNorm2d(layer.features),
            torch.nn.ReLU(),
        ]
        inputs = layer.features
    module = torch.nn.Sequential(*layers).to(memory_format=torch.channels_last)
    return module, lambda x: module(x).mean((2, 3))


if __name__ == "__main__":
    main()
