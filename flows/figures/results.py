"""What figures are drawn from: stored results, and where there are none, computed and kept ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from allcnn.cluster.cluster import Cluster
from allcnn.cluster.spec import THREADS, ClusterSpec
from allcnn.compare import SimilarityResult, compare
from allcnn.compare.catalogue import Catalogue
from allcnn.errors import ComparisonError
from allcnn.settings.comparison import Comparison
from allcnn.settings.selection import Selection
from allcnn.similarity.method import Method
from allcnn.workspace.checkpoint_names import checkpoint_order
from allcnn.workspace.paths import Workspace
from allcnn.workspace.snapshot import Snapshot
from flows.views.progress import Progress


@dataclass(frozen=True)
class Request:
    """How everything in a figure is compared; fields as those of ``Comparison``."""

    methods: tuple[Method, ...] = (Method(),)
    sample_set: str | None = None

    @property
    def method(self) -> Method:
        """The method, of figures that show one."""
        return self.methods[0]

    def job(self, rows: Selection, columns: Selection, **changes: Any) -> Comparison:
        """Return the comparison of two sides."""
        return Comparison(rows, columns, **vars(self) | changes)


class Sources:
    """The results of a workspace, as they are, or computed where they are not there yet."""

    def __init__(self, place: Workspace, spec: ClusterSpec = THREADS) -> None:
        self.place = Snapshot.of(place)
        self._spec = spec

    @cached_property
    def catalogue(self) -> Catalogue:
        """What is stored of results."""
        return Catalogue(self.place)

    def result(self, job: Comparison) -> SimilarityResult:
        """Return the result of a comparison that has one."""
        return self.results([job])[0]

    def results(self, jobs: Sequence[Comparison]) -> list[SimilarityResult]:
        """Return the results of comparisons, those of one after those of the other.

        Raises ComparisonError where one is neither stored nor can be computed, and where they are
        of several sample sets.
        """
        found = {job: self.catalogue.results(job) for job in jobs}
        missing = [job for job, results in found.items() if results is None]
        if missing:
            found |= self._computed(missing)
        results = [result for job in jobs for result in found[job] or ()]
        sets = dict.fromkeys(result.rows[0].sample_set for result in results)
        if len(sets) > 1:
            raise ComparisonError(
                f"what is stored of these networks is of several sample sets, {', '.join(sets)}",
                remedy="name the one to draw with --sample-set",
            )
        return results

    def _computed(self, jobs: list[Comparison]) -> dict[Comparison, list[SimilarityResult] | None]:
        found: dict[Comparison, list[SimilarityResult] | None] = {}
        with (
            Progress([1]) as progress,
            Cluster(self._spec, progress.tell) as cluster,
            progress.step("comparing") as report,
        ):
            if len(jobs) == 1:
                return {jobs[0]: compare(self.place, jobs[0], report, cluster)}
            for job in jobs:
                found[job] = compare(self.place, job, cluster=cluster)
                report(len(found), len(jobs), f"{job.rows} with {job.columns}")
        return found

    def checkpoints(self, run: str, request: Request) -> list[str]:
        """Return the checkpoints of a run that are stored, or compared with the last, in order."""
        final = Selection(run, "final")
        names = {each.checkpoint for each in self.place.stored_networks() if each.run == run}
        job = request.job(final, Selection(run, "*"))
        for network in self.catalogue.networks(job, job.method):
            if network.checkpoint not in names and self.catalogue.results(
                request.job(final, network)
            ):
                names.add(network.checkpoint)
        return sorted(names, key=lambda name: (checkpoint_order(name), name))
