"""Take back damaged parts of a network's activations and Grams, and write them again.

A minibatch that is taken back does not count until it is written again; those behind it are kept.
So a repair that is killed has lost nothing, and extraction or another repair goes on with it.
"""

import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from allcnn.compare.reextract import extraction_of
from allcnn.compare.tasks import fill_grams, gram_writer
from allcnn.errors import AllcnnError, RunError
from allcnn.extract.resume import gram_metas, tap_metas
from allcnn.extract.sinks import ActivationSink, GramSink, Sink, missing_rows
from allcnn.extract.stream import fill, fitting_shapes
from allcnn.maintenance.findings import Outcome
from allcnn.maintenance.recompute import Recomputation
from allcnn.progress import Report
from allcnn.settings.extraction import Extraction
from allcnn.similarity import pair_sums
from allcnn.workspace.paths import Workspace
from store import DamagedChunkError, GramKey, Grams, GramWriter, Representation, StoreError, Writer
from store.arrays.committed import CommittedReader
from store.arrays.writer import CommittedWriter
from store.maintenance.damage import Damage
from store.maintenance.verify_arrays import opened
from store.model.names import is_tap_folder
from store.model.schema import Span
from store.storage.paths import Place, check_inside, child_names
from store.zarrfiles.layout import Kind


@dataclass
class _Group:
    """One representation, or its Grams, with its damage and the progress of its repair.

    It is made afresh (``whole``) where more than minibatches is damaged; ``reader`` is None where
    it cannot be read, ``writer`` until what is damaged was taken back.
    """

    root: Place
    damage: Sequence[Damage]
    reader: CommittedReader[Any] | None
    origin: str = ""
    writer: CommittedWriter[Any] | None = None
    error: str = ""

    def __post_init__(self) -> None:
        self.kind, self.path = self.damage[0].kind, self.damage[0].path
        self.whole = any(each.start is None for each in self.damage)

    @property
    def blocks(self) -> list[Span]:
        """The damaged blocks, where no more is damaged."""
        return [(d.start, d.stop) for d in self.damage if d.start is not None and d.stop]

    @property
    def afresh(self) -> int | None:
        """How much is written of one that is made afresh: no more than there was."""
        return (self.reader.n_recorded if self.reader else sys.maxsize) if self.whole else None

    def take_back(self, writer: CommittedWriter[Any], origin: str) -> None:
        """Take back what is damaged; a writer that makes the group afresh has done so."""
        if not self.whole:
            writer.take_back([start for start, _ in self.blocks])
        self.writer, self.origin = writer, origin

    def outcomes(self) -> Iterator[Outcome]:
        """Yield what became of each damage."""
        repaired = self.writer is not None and not self.writer.taken_back
        said = f"{'made again' if self.whole else 'computed again'} from {self.origin}"
        if self.reader and self.writer:
            now = {each.start: each for each in self.writer.commits}
            before = (*self.reader.commits, *self.reader.kept)
            if any(now.get(each.start, each) != each for each in before):
                said += ", in other bits: another device or version wrote it first"
        for each in self.damage:
            yield Outcome(each, repaired, said if repaired else self.error)


@contextmanager
def _failing(*groups: _Group) -> Iterator[None]:
    """Note an error of some groups, so that the others are repaired."""
    try:
        yield
    except (StoreError, AllcnnError) as error:
        for group in groups:
            group.error = group.error or str(error)


class NetworkRepair:
    """Repairs what is stored of one checkpoint on one sample set."""

    def __init__(self, workspace: Workspace, path: str, report: Report) -> None:
        self._network = Recomputation(workspace, *path.split("/"))
        self._workspace, self._report = workspace, report

    def repair(self, damage: Sequence[Damage]) -> Iterator[Outcome]:
        """Write activations, or Grams, again where they would be the same; leave others alone.

        Activations come from the checkpoint, Grams from whole activations or else from it.
        """
        groups = []
        for _, some in groupby(damage, lambda each: each.path):
            found = list(some)
            kind, path = found[0].kind, found[0].path
            root = self._workspace.store(kind)
            groups.append(_Group(root, found, self._opened(kind, path)))
        jobs: dict[Extraction, list[_Group]] = defaultdict(list)
        for group in groups:
            with _failing(group):
                check_inside(group.root, group.root / group.path)
                find_job = self._job_of_grams if group.kind == "grams" else self._job_of_rows
                job = find_job(group)
                if job is not None:
                    jobs[job].append(group)
        for job, members in jobs.items():
            with _failing(*members), ExitStack() as closing:
                self._extract(job, members, closing)
        for group in groups:
            yield from group.outcomes()

    def _opened(self, kind: Kind, path: str) -> CommittedReader[Any] | None:
        with suppress(StoreError):
            return opened(self._workspace.store(kind), kind, path)
        return None

    def _job_of_rows(self, group: _Group) -> Extraction:
        """Return the extraction that wrote activations, as they or their neighbours record it."""
        folder, _, tap = group.path.rpartition("/")
        for name in dict.fromkeys([tap, *child_names(group.root / folder, is_tap_folder)]):
            like = self._opened("activations", f"{folder}/{name}")
            with suppress(StoreError):
                if isinstance(like, Representation) and like.compression:
                    break
        else:
            found = "was extracted in a way that is not recorded"
            remedy = self._network.replacing()
            raise RunError(f"{group.root / group.path}", found, remedy=remedy)
        for each in filter(None, (group.reader, like)):
            self._network.check(each.meta.checkpoint_digest, each.meta.sample_set)
        return extraction_of(self._network.selection, like)

    def _job_of_grams(self, group: _Group) -> Extraction | None:
        """Compute Grams from activations, or return the extraction that needs none."""
        path, _, variant = group.path.rpartition("/")
        try:
            kernel, pool, size, dtype, _ = variant.split("-")
            how: dict[str, Any] = {"kernel": kernel, "pool": pool, "dtype": dtype}
            how["batch_size"] = int(size)
        except ValueError as error:
            raise RunError(group.path, "is no name of Grams", remedy="delete it") from error
        grams, tap = group.reader, self._opened("activations", path)
        if isinstance(tap, Representation) and tap.complete and tap.meta.dtype == dtype:
            key = GramKey(of=tap.key, checkpoint_digest=tap.meta.checkpoint_digest, **how)
            with suppress(DamagedChunkError):
                if self._from_activations(group, key, tap):
                    return None
        if grams is not None:
            self._network.check(grams.meta.key.checkpoint_digest, grams.meta.sample_set)
        network, of = self._network.selection, self._network.samples.sample_set
        how |= {"split": of.split, "n_samples": of.n_samples, "keep": ("grams",)}
        return Extraction(network.run, network.checkpoint, **how)

    def _from_activations(self, group: _Group, key: GramKey, tap: Representation) -> bool:
        """Compute Grams from activations, where they are of the same version and examples."""
        grams = group.reader
        if isinstance(grams, Grams):
            if (grams.key, grams.meta.sample_set) != (key, tap.meta.sample_set):
                return False
            if grams.rows_digest not in (None, tap.rows_digest):
                # Else some of them would be of these activations, and some of earlier ones.
                group.reader, group.whole = None, True
        elif key.path != group.path:
            return False
        ranges = pair_sums.split_minibatches(tap.meta.n_samples, key.batch_size)
        some = [(0, group.afresh)] if group.whole else group.blocks
        rows = [each for start, stop in some for each in ranges[start:stop]]
        for block in tap.commits:
            if any(start < block.stop and block.start < stop for start, stop in rows):
                tap.read(block.start, block.stop)  # raises before anything is taken back
        with gram_writer(group.root, tap, key, group.afresh) as writer:
            group.take_back(writer, "its activations")
            fill_grams(writer, tap, missing_rows(writer, only_taken_back=True))
        return True

    def _extract(self, job: Extraction, groups: Sequence[_Group], closing: ExitStack) -> None:
        """Compute each minibatch that a group lacks, once for all of them."""
        source, samples = self._network.source, self._network.samples
        shapes = fitting_shapes(source, samples, job)
        if "grams" in job.keep:
            metas: Mapping[str, Any] = gram_metas(source, samples, shapes, job)
            writers = self._writers(GramWriter, groups, metas, job, closing)
            sink: Sink = GramSink(writers, only_taken_back=True)
        else:
            metas = tap_metas(source, samples, shapes, job)
            writers = self._writers(Writer, groups, metas, job, closing)
            sink = ActivationSink(writers, closing, only_taken_back=True)
        fill([sink], source, samples, job, self._report)

    def _writers(
        self,
        kind: type[CommittedWriter[Any]],
        groups: Sequence[_Group],
        metas: Mapping[str, Any],
        job: Extraction,
        closing: ExitStack,
    ) -> dict[str, Any]:
        """Take back what is damaged of the groups that no other process writes."""
        of, samples, writers = self._network.selection, self._network.samples, {}
        taps = {meta.key.path: tap for tap, meta in metas.items()}
        for group in groups:
            with _failing(group):
                if group.path not in taps:
                    found = f"gives no {group.path}, only the taps {', '.join(metas)}"
                    raise RunError(str(of), found, "what is stored there is of another network")
                tap, coordinates = taps[group.path], (samples.indices, samples.labels)
                how: Any = {"compression": job.compression, "afresh": group.afresh}
                writer = kind.open(group.root, metas[tap], *coordinates, **how)
                closing.enter_context(writer)
                group.take_back(writer, f"checkpoint {of.checkpoint} of run {of.run}")
                writers[tap] = writer
        return writers
