"""Which checkpoints are not stored as they are now, and what of them has to be stored."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any, Self

from allcnn.compare.candidates import Found, find, missing_tap, sources_of
from allcnn.compare.current import is_found_current
from allcnn.compare.reextract import as_stored
from allcnn.definitions.fields import check_name
from allcnn.errors import AllcnnError
from allcnn.extract import Samples, load_samples
from allcnn.settings.extraction import Extraction
from allcnn.settings.selection import Selection
from allcnn.workspace import run_record
from allcnn.workspace.paths import Workspace
from flows.settings.nightly_plan import Nightly
from store import StoreError
from store.model.names import check_component


@dataclass(frozen=True)
class Piece:
    """A network that has to be stored.

    Attributes:
        network: run and checkpoint.
        sample_set: name of the examples.
        jobs: how, one after the other.
        again: whether what is stored of it comes from another checkpoint, and has to go first.
    """

    network: Selection
    sample_set: str
    jobs: tuple[Extraction, ...]
    again: bool

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "network": [self.network.run, self.network.checkpoint],
            "sample_set": self.sample_set,
            "jobs": [asdict(job) | {"keep": list(job.keep)} for job in self.jobs],
            "again": self.again,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Rebuild it; raises KeyError, TypeError or ConfigError for other values."""
        run, checkpoint = values["network"]
        check_name("run", run)
        check_name("checkpoint", checkpoint)
        check_component("sample set", values["sample_set"])
        jobs = tuple(Extraction(**job | {"keep": tuple(job["keep"])}) for job in values["jobs"])
        return cls(Selection(run, checkpoint), values["sample_set"], jobs, bool(values["again"]))


@dataclass(frozen=True)
class Skipped:
    """Something that a nightly run leaves as it is, and why."""

    what: str
    reason: str


class LoadedExamples:
    """The examples of sample sets, each loaded once in a nightly run."""

    def __init__(self) -> None:
        self._load = cache(load_samples)

    def of(self, workspace: Workspace, job: Extraction) -> Samples:
        """Return those of an extraction; raises DatasetError, ConfigError or RunError."""
        config = run_record.read_record(workspace, job.run).config
        return self._load(config.dataset, config.image_size, job.split, job.n_samples)


def survey(
    workspace: Workspace, plan: Nightly, examples: LoadedExamples
) -> Iterator[Piece | Skipped]:
    """Yield what has to be stored, run after run, and what cannot be.

    Checkpoints of the plan's networks that are not stored whole on its examples; and all that is
    stored, on whatever examples, of a checkpoint that has become another one.
    """
    for run in workspace.runs():
        try:
            yield from _survey_run(workspace, plan, examples, run)
        except (AllcnnError, StoreError, OSError) as error:
            yield Skipped(f"run {run}", str(error))


def _survey_run(
    workspace: Workspace, plan: Nightly, examples: LoadedExamples, run: str
) -> Iterator[Piece | Skipped]:
    stored = {each: sets for each, sets in workspace.stored_networks().items() if each.run == run}
    trained = [Selection(run, name) for name in workspace.checkpoints(run)]
    wanted = [each for each in trained if plan.networks.matches(run, each.checkpoint, "")]
    own = ""
    if wanted:
        own = examples.of(workspace, plan.extraction_of(run, wanted[0].checkpoint)).sample_set.name
    for network in (each for each in stored if each not in trained):
        for sample_set in stored[network]:
            yield from _left_over(workspace, network, sample_set)
    for network in trained:
        own_sets = [own] if network in wanted else []
        for sample_set in dict.fromkeys([*sorted(stored.get(network, [])), *own_sets]):
            is_own = sample_set in own_sets
            try:
                found = _piece(workspace, plan, examples, network, sample_set, is_own)
            except (AllcnnError, StoreError, OSError) as error:
                found = Skipped(f"{network} on {sample_set}", str(error))
            if found is not None:
                yield found


def _left_over(workspace: Workspace, network: Selection, sample_set: str) -> Iterator[Skipped]:
    """Report what an earlier run of the same name left, and the one that is there has not."""
    taps = find(workspace, network, sample_set)
    if taps and not any(is_found_current(workspace, network, tap) for tap in taps):
        # Nothing can extract it again, so that its removal is not advised.
        reason = "it is left of an earlier run of that name, and not compared"
        yield Skipped(f"{network} on {sample_set}", reason)


def _piece(
    workspace: Workspace,
    plan: Nightly,
    examples: LoadedExamples,
    network: Selection,
    sample_set: str,
    is_own: bool,
) -> Piece | Skipped | None:
    """Return what has to be stored of a network on one sample set."""
    taps = find(workspace, network, sample_set)
    own = plan.extraction_of(network.run, network.checkpoint)
    other = is_other(workspace, network, taps)
    if (other or is_own) and not all(tap.extracted for tap in taps):
        reason = "it is not of the run of that name, but imported; store it under another name"
        return Skipped(f"{network} on {sample_set}", reason)
    if other:
        jobs = list(as_stored(network, taps))
        if is_own:
            jobs.append(replace(own, n_samples=taps[0].meta.n_samples))
        jobs = list(dict.fromkeys(jobs))
        name = examples.of(workspace, jobs[0]).sample_set.name
        if name != sample_set:
            reason = f"its checkpoint is another one now, and the data set now gives {name}"
            return Skipped(f"{network} on {sample_set}", reason)
        return Piece(network, sample_set, tuple(jobs), again=True)
    if is_own and not _is_whole(plan, network, sample_set, taps):
        return Piece(network, sample_set, (own,), again=False)
    return None


def is_other(workspace: Workspace, network: Selection, taps: list[Found]) -> bool:
    """Return whether something is stored of a network that comes from another checkpoint."""
    return not all(is_found_current(workspace, network, tap) for tap in taps)


def _is_whole(plan: Nightly, network: Selection, sample_set: str, taps: list[Found]) -> bool:
    """Return whether the plan's comparisons can be computed from what is stored of a network."""
    if not taps or missing_tap(taps, network) is not None:
        return False
    return all(sources_of(taps, job) for job in plan.comparisons(sample_set))
