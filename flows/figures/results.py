"""The results that figures show: stored ones, or computed ones, which are kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from allcnn.cluster.cluster import Cluster
from allcnn.cluster.spec import THREADS, ClusterSpec
from allcnn.compare import SimilarityResult, compare
from allcnn.compare.catalogue import Catalogue
from allcnn.errors import ComparisonError
from allcnn.progress import Report
from allcnn.settings.comparison import Comparison
from allcnn.settings.selection import Selection
from allcnn.similarity.method import Method
from allcnn.workspace.checkpoint_names import checkpoint_epoch
from allcnn.workspace.paths import Workspace
from flows.views.progress import Progress


def compute(
    place: Workspace, jobs: Sequence[Comparison], spec: ClusterSpec
) -> list[list[SimilarityResult]]:
    """Compute the results of comparisons, with the progress on standard error."""
    with (
        Progress([1]) as progress,
        Cluster(spec, progress.tell) as cluster,
        progress.step("comparing") as report,
    ):
        return compare_each(place, jobs, report, cluster)


def compare_each(
    place: Workspace, jobs: Sequence[Comparison], report: Report, cluster: Cluster
) -> list[list[SimilarityResult]]:
    """Compute the results of comparisons, and report each of several as it is done."""
    if len(jobs) == 1:
        return [compare(place, jobs[0], report, cluster)]
    found = []
    for job in jobs:
        found.append(compare(place, job, cluster=cluster))
        report(len(found), len(jobs), f"{job.rows} with {job.columns}")
    return found


@dataclass(frozen=True)
class Sources:
    """The results of a workspace by some methods, stored or else computed.

    The methods and the sample set are fields of every ``Comparison`` in a figure.
    """

    place: Workspace
    methods: tuple[Method, ...] = (Method(),)
    sample_set: str | None = None
    spec: ClusterSpec = THREADS

    @property
    def method(self) -> Method:
        """The method of figures that show one."""
        return self.methods[0]

    @cached_property
    def catalogue(self) -> Catalogue:
        """The stored results."""
        return Catalogue(self.place)

    def job(self, rows: Selection, columns: Selection | None = None, **changes: Any) -> Comparison:
        """Return the comparison of two sides, or of one with itself."""
        own = {"methods": self.methods, "sample_set": self.sample_set}
        return Comparison(rows, columns or rows, **own | changes)

    def result(self, job: Comparison) -> SimilarityResult:
        """Return the result of a comparison that has one."""
        return self.results([job])[0]

    def results(self, jobs: Sequence[Comparison]) -> list[SimilarityResult]:
        """Return the results of comparisons in their order.

        Raises ComparisonError where one is neither stored nor can be computed, and where they are
        of several sample sets.
        """
        found = {job: self.catalogue.results(job) for job in jobs}
        missing = [job for job, results in found.items() if results is None]
        if missing:
            found |= zip(missing, compute(self.place, missing, self.spec), strict=True)
        results = [result for job in jobs for result in found[job] or ()]
        sets = dict.fromkeys(result.rows[0].sample_set for result in results)
        if len(sets) > 1:
            raise ComparisonError(
                f"the stored results of these networks are of several sample sets,"
                f" {', '.join(sets)}",
                remedy="name the one to draw with --sample-set",
            )
        return results

    def checkpoints(self, run: str) -> list[str]:
        """Return the checkpoints of a run that are stored, or compared with the last, in order."""
        final = Selection(run, "final")
        names = {each.checkpoint for each in self.place.stored_networks() if each.run == run}
        for network in self.catalogue.networks(self.job(final, Selection(run, "*")), self.method):
            if network.checkpoint not in names and self.catalogue.results(self.job(final, network)):
                names.add(network.checkpoint)
        return sorted(names, key=lambda name: (checkpoint_epoch(name), name))
