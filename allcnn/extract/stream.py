"""Extract: load a checkpoint and examples, and give every minibatch of rows to the sinks."""

import functools
import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

import jax
import numpy as np

from allcnn.datasets import splits
from allcnn.errors import RunError
from allcnn.extract.forward import (
    Forward,
    Images,
    LoadedNetwork,
    Samples,
    narrowed,
    tap_shapes,
)
from allcnn.extract.resume import check_unclaimed, open_sinks
from allcnn.extract.sinks import Sink
from allcnn.machine_memory import check_room
from allcnn.networks.variables import abstract
from allcnn.progress import Report, silent
from allcnn.settings.extraction import DEFAULT_SAMPLES, Extraction
from allcnn.training.footprint import device_bytes
from allcnn.workspace import checkpoints, run_record
from allcnn.workspace.checkpoint_names import checkpoint_epoch
from allcnn.workspace.paths import Workspace
from store import Attributes, SampleSet


def extract(workspace: Workspace, job: Extraction, report: Report = silent) -> str:
    """Keep every tap of a checkpoint, or its Grams, or both; return the name of the sample set.

    Resumes after the last minibatch that a tap has; a finished extraction computes nothing.
    """
    config = run_record.read_record(workspace, job.run).config
    check_unclaimed(workspace, job, config.dataset)
    source = load_source(workspace, job.run, job.checkpoint)
    samples = load_samples(config.dataset, config.image_size, job.split, job.n_samples)
    keep(workspace, source, samples, job, report)
    return samples.sample_set.name


def load_source(workspace: Workspace, run: str, name: str) -> LoadedNetwork:
    """Load a checkpoint; raises RunError where it is missing or cannot be read."""
    entry = run_record.read_record(workspace, run)
    folder = workspace.find_checkpoint(run, name)
    variables, digest = checkpoints.load_variables(folder, abstract(entry.network))
    forward = functools.partial(entry.network.apply, variables)
    architecture = entry.config.architecture
    found_by: Attributes = {
        "architecture": architecture.reference,
        **architecture.to_json(),
        "seed": entry.config.seed,
        "epoch": entry.config.epochs if name == "final" else int(checkpoint_epoch(name)),
    }
    return LoadedNetwork(run, name, digest, forward, found_by)


def each_checkpoint(workspace: Workspace, job: Extraction) -> list[Extraction]:
    """Return one extraction a checkpoint where ``all`` are asked for, else the one."""
    if job.checkpoint != "all":
        return [job]
    workspace.find_run(job.run)
    names = workspace.checkpoints(job.run)
    if not names:
        raise RunError(f"run {job.run!r} has no checkpoints yet", remedy="train it first")
    return [replace(job, checkpoint=name) for name in names]


def load_samples(dataset: str, image_size: int, split: str, n_samples: int | None) -> Samples:
    """Load the first ``n_samples`` of the fixed shuffle of a split."""
    whole = splits.load(dataset, split, image_size)
    wanted = min(DEFAULT_SAMPLES, len(whole)) if n_samples is None else n_samples
    indices = splits.draw_samples(whole, wanted)
    shape = whole.images.shape[1:]
    sample_set = SampleSet(dataset, split, wanted, shape, splits.digest(whole, indices))
    return Samples(sample_set, indices, whole.labels[indices], whole.images[indices])


def keep(
    workspace: Workspace,
    source: LoadedNetwork,
    samples: Samples,
    job: Extraction,
    report: Report = silent,
) -> None:
    """Keep what the job asks for; one minibatch is written while the next is computed.

    Activations that are whole already are left alone, in minibatches of whatever size: a comparison
    regroups rows.
    """
    shapes = fitting_shapes(source, samples, job)
    with ExitStack() as writers:
        sinks = open_sinks(workspace, source, samples, job, shapes, writers)
        fill(sinks, source, samples, job, report)


def fitting_shapes(
    source: LoadedNetwork, samples: Samples, job: Extraction
) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the taps; raises ConfigError where a minibatch exceeds the memory."""
    batch = np.broadcast_to(samples.images[:1], (job.batch_size, *samples.images.shape[1:]))
    shapes = tap_shapes(source.forward, batch)
    check_room(
        f"a minibatch of {job.batch_size} images with all their taps",
        batch.nbytes + 4 * job.batch_size * sum(map(math.prod, shapes.values())),
        "use a smaller minibatch",
        device_bytes(),
    )
    return shapes


def fill(
    sinks: Sequence[Sink], source: LoadedNetwork, samples: Samples, job: Extraction, report: Report
) -> None:
    """Compute the minibatches that any sink lacks."""
    n, name = samples.sample_set.n_samples, f"{source.run}@{source.checkpoint}"
    every = splits.batch_ranges(n, job.batch_size)
    lacking = [span for span in every if any(sink.lacks(*span) for sink in sinks)]
    if lacking:
        report(lacking[0][0], n, name)
    else:
        report(n, n, f"{name}: already extracted")
    for start, stop in lacking:
        take_minibatch(sinks, source.forward, samples.images[start:stop], start, job)
        report(stop, n, name)
    for sink in sinks:
        sink.finish()


def take_minibatch(
    sinks: Sequence[Sink], forward: Forward, images: Images, start: int, job: Extraction
) -> None:
    """Compute a minibatch, and give the rows of every tap to all sinks."""
    # A function of its own, so that these taps are gone before the next ones are computed.
    missing = job.batch_size - len(images)
    # The last minibatch is filled up, so that one compiled program serves it too.
    taps = forward(np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0))))
    if "grams" in job.keep:
        # The host's products would fight with layers that are still computed for the processor.
        jax.block_until_ready(taps)  # type: ignore[no-untyped-call]
    for name, tap in taps.items():
        rows = narrowed(tap, job.dtype, len(images))
        for sink in sinks:
            sink.take(name, start, rows)
