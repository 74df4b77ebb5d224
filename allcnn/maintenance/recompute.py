"""The rows of a stored network computed again from its checkpoint, and only those asked for."""

import re
from collections.abc import Mapping
from functools import cached_property

import numpy as np
from jaxtyping import Float

from allcnn.advice import is_here, replace_stored, store_again
from allcnn.datasets import splits
from allcnn.errors import RunError
from allcnn.extract import load_samples, load_source
from allcnn.extract.forward import Samples, Source, padded, tap_shapes
from allcnn.extract.stream import take_minibatch
from allcnn.settings.extraction import Extraction, extracted_dtype
from allcnn.settings.selection import Selection
from allcnn.workspace import run_record
from allcnn.workspace.paths import Workspace
from store import DType, SampleSet

Taps = Mapping[str, Float[np.ndarray, "n ..."]]

_SAMPLE_SET = re.compile(r"(.+)-(\d+)-.{8}")


class Network:
    """A checkpoint on one sample set, loaded when it is first needed."""

    def __init__(self, workspace: Workspace, sample_set: str, run: str, name: str) -> None:
        self._workspace = workspace
        self._sample_set = sample_set
        self._run = run
        self._name = name
        self._last: tuple[tuple[int, int, DType], Taps] | None = None

    @cached_property
    def source(self) -> Source:
        """The checkpoint; raises RunError where it is gone or cannot be read."""
        self._check_run()
        return load_source(self._workspace, self._run, self._name)

    @cached_property
    def samples(self) -> Samples:
        """The examples; raises RunError where the data set has others now."""
        self._check_run()
        config = run_record.read_record(self._workspace, self._run).config
        found = self._examples(config.dataset)
        if found is None:
            raise RunError(
                f"run {self._run!r} is of data set {config.dataset}, and {self._sample_set} is not"
                " a part of it; write these activations again as they were written"
            )
        samples = load_samples(config.dataset, config.image_size, *found)
        if samples.sample_set.name != self._sample_set:
            raise RunError(
                f"the data set now gives {samples.sample_set.name} for {self._sample_set}; restore"
                f" its files, or {self.replacing()}"
            )
        return samples

    def _check_run(self) -> None:
        if self._run not in self._workspace.runs():
            # Perhaps it never was: others' activations are imported.
            raise RunError(
                f"nothing in {self._workspace.root} computes this; restore the run, or"
                f" {store_again(self._workspace, self._network)}"
            )

    def check(self, digest: str, sample_set: SampleSet) -> None:
        """Raise RunError where rows computed now would be others than those that were stored."""
        if self.source.digest != digest:
            raise RunError(
                f"checkpoint {self._name!r} of run {self._run!r} has the digest"
                f" {self.source.digest}, and what is stored comes from {digest}; restore that"
                f" checkpoint, or {self.replacing()}"
            )
        if self.samples.sample_set != sample_set:
            raise RunError(
                f"the examples of {self._sample_set} have the digest"
                f" {self.samples.sample_set.digest} now, and had {sample_set.digest} when they were"
                f" stored; restore the data set, or {self.replacing()}"
            )

    def replacing(self) -> str:
        """Say how to extract the network in the place of what is stored of it."""
        if not is_here(self._workspace, self._network):
            return store_again(self._workspace, self._network)
        config = run_record.read_record(self._workspace, self._run).config
        split, n_samples = self._examples(config.dataset) or (None, None)
        how = {"split": split, "samples": n_samples}
        return replace_stored(self._workspace, self._network, self._sample_set, how)

    def _examples(self, dataset: str) -> tuple[str, int] | None:
        """Return the split and the number of the examples, None where they are of other data."""
        rest = self._sample_set.removeprefix(f"{dataset}-")
        found = _SAMPLE_SET.fullmatch(rest)
        return None if rest == self._sample_set or not found else (found[1], int(found[2]))

    @property
    def _network(self) -> Selection:
        return Selection(self._run, self._name)

    def shapes(self, batch_size: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of an example of every tap, in the network's order."""
        images = padded(self.samples.images[:1], batch_size)
        return tap_shapes(self.source.forward, images)

    def tap_index(self, tap: str, batch_size: int) -> int:
        """Return the position of a tap; raises RunError where the network has none of the name."""
        taps = list(self.shapes(batch_size))
        if tap not in taps:
            raise RunError(
                f"run {self._run!r} has no tap {tap!r}, only {', '.join(taps)}; what is"
                " stored under that name is of another network"
            )
        return taps.index(tap)

    def rows(self, start: int, stop: int, batch_size: int, dtype: DType) -> Taps:
        """Return some rows of all taps, from the batches in which extraction computes them.

        ``start`` is where a batch begins; the last batch is kept, for other taps to ask for it.
        """
        n, parts = self.samples.sample_set.n_samples, []
        for first, _ in splits.batch_ranges(stop - start, batch_size):
            first += start
            parts.append(self._batch(first, min(first + batch_size, n), batch_size, dtype))
        if len(parts) == 1:
            return {tap: rows[: stop - start] for tap, rows in parts[0].items()}
        return {
            tap: np.concatenate([part[tap] for part in parts])[: stop - start] for tap in parts[0]
        }

    def _batch(self, start: int, stop: int, batch_size: int, dtype: DType) -> Taps:
        how = (start, batch_size, dtype)
        if self._last is None or self._last[0] != how:
            self._last = None  # two batches at once may be more than the memory holds
            job = Extraction(
                self._run, self._name, batch_size=batch_size, dtype=extracted_dtype(dtype)
            )
            found = _Collected()
            take_minibatch(
                [found], self.source.forward, self.samples.images[start:stop], start, job
            )
            self._last = how, found.taps
        return self._last[1]


class _Collected:
    """Holds what extraction would keep."""

    next_row = 0

    def __init__(self) -> None:
        self.taps: dict[str, Float[np.ndarray, "n ..."]] = {}

    def take(self, tap: str, start: int, rows: Float[np.ndarray, "n ..."]) -> None:
        self.taps[tap] = rows

    def finish(self) -> None:
        pass
