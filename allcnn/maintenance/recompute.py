"""Check whether a stored network can be computed again as it was, and load its sources."""

import re
from contextlib import suppress
from functools import cached_property

from allcnn.advice import is_here, replace_stored, store_again
from allcnn.errors import RunError
from allcnn.extract import load_samples, load_source
from allcnn.extract.forward import LoadedNetwork, Samples
from allcnn.settings.run import RunConfig
from allcnn.settings.selection import Selection
from allcnn.workspace import run_record
from allcnn.workspace.paths import Workspace
from store import SampleSet


class Recomputation:
    """A checkpoint on one sample set, loaded when it is first needed."""

    def __init__(self, workspace: Workspace, sample_set: str, run: str, name: str) -> None:
        self._workspace, self._sample_set = workspace, sample_set
        self.selection = Selection(run, name)

    @cached_property
    def source(self) -> LoadedNetwork:
        """The checkpoint; raises RunError where it is gone or cannot be read."""
        self._check_run()
        return load_source(self._workspace, self.selection.run, self.selection.checkpoint)

    @cached_property
    def samples(self) -> Samples:
        """The examples; raises RunError where the data set has others now."""
        self._check_run()
        config, split, n_samples = self._examples()
        samples = load_samples(config.dataset, config.image_size, split, n_samples)
        if (name := samples.sample_set.name) != self._sample_set:
            found = f"gives {name} for {self._sample_set}"
            remedy = f"restore its files, or {self.replacing()}"
            raise RunError("the data set now", found, remedy=remedy)
        return samples

    def _check_run(self) -> None:
        if self.selection.run not in self._workspace.runs():
            # Perhaps it never was: others' activations are imported.
            what = f"nothing in {self._workspace.root}"
            remedy = f"restore the run, or {store_again(self._workspace, self.selection)}"
            raise RunError(what, "computes this", remedy=remedy)

    def _examples(self) -> tuple[RunConfig, str, int]:
        """Return the run's settings, and the split and number of the examples.

        Raises RunError where they are of other data.
        """
        config = run_record.read_record(self._workspace, self.selection.run).config
        named = rf"{re.escape(config.dataset)}-(.+)-(\d+)-.{{8}}"
        parts = re.fullmatch(named, self._sample_set)
        if parts is None:
            found = f"is of data set {config.dataset}, and {self._sample_set} is not a part of it"
            remedy = "write these activations again as they were written"
            raise RunError(f"run {self.selection.run!r}", found, remedy=remedy)
        return config, parts[1], int(parts[2])

    def check(self, digest: str, sample_set: SampleSet) -> None:
        """Raise RunError where rows computed now would be others than those that were stored."""
        if self.source.digest != digest:
            what = f"checkpoint {self.selection.checkpoint!r} of run {self.selection.run!r}"
            found = f"has the digest {self.source.digest}, and what is stored comes from {digest}"
            remedy = f"restore that checkpoint, or {self.replacing()}"
            raise RunError(what, found, remedy=remedy)
        if (now := self.samples.sample_set) != sample_set:
            found = f"have the digest {now.digest} now, and had {sample_set.digest} when they were"
            remedy = f"restore the data set, or {self.replacing()}"
            raise RunError(f"the examples of {self._sample_set}", f"{found} stored", remedy=remedy)

    def replacing(self) -> str:
        """Advise how to extract the network in the place of its stored data."""
        if not is_here(self._workspace, self.selection):
            return store_again(self._workspace, self.selection)
        how: dict[str, object] = {}
        with suppress(RunError):
            _, how["split"], how["samples"] = self._examples()
        return replace_stored(self._workspace, self.selection, self._sample_set, how)
