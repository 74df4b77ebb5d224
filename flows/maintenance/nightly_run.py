"""One nightly run on a workspace, in steps that a flow or a command takes one after the other."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import chain
from typing import Final, Protocol, TypeVar

from allcnn import compare as comparing
from allcnn.advice import store_missing
from allcnn.cluster.cluster import Cluster
from allcnn.compare import describe
from allcnn.compare.candidates import find, preference
from allcnn.compare.results import JOB
from allcnn.drawing import figure_files
from allcnn.errors import AllcnnError, ComparisonError, in_one_line
from allcnn.extract import keep, load_source
from allcnn.maintenance.inventory import NETWORK_KINDS, discard
from allcnn.progress import Report
from allcnn.provenance import now
from allcnn.settings.comparison import Comparison
from allcnn.workspace import run_record
from allcnn.workspace.nightly_ledger import Ledger, ledger_folder
from allcnn.workspace.paths import Snapshot, Workspace
from allcnn.workspace.run_locks import LostHoldError, holding_folder, kept_alive
from flows.maintenance import earlier_results
from flows.maintenance.nightly_summary import NightlySummary
from flows.maintenance.rotating_verification import verify_in_turn
from flows.maintenance.stale_networks import LoadedExamples, Piece, Skipped, is_other, survey
from flows.reporting import check_there, write_report
from flows.settings.nightly_plan import Nightly
from store import ClaimedError, SimilarityResult, StoreError, has_store
from store.maintenance.usage import measure
from store.storage.paths import Place, child_names, is_file

T = TypeVar("T")

_LOOK_EVERY_S: Final = 10.0
_CURVES: Final = "nightly-curves"
"""The picture of the learning curves of all runs."""


class NightlyRun:
    """The work of one nightly run; ``holding`` makes one.

    Each step changes the workspace only by whole pieces and notes them in the ledger, so that the
    next run finishes one that was killed.
    """

    def __init__(self, workspace: Workspace, plan: Nightly, renew: Callable[[], None]) -> None:
        self.workspace = Snapshot.of(workspace)
        self.plan = plan
        self.summary = NightlySummary(now())
        self._renew = renew
        self._examples = LoadedExamples()
        self._settled: set[str] = set()
        self._older: dict[str, list[earlier_results.KeptResult]] = {}
        self._ledger, lost = Ledger.read(workspace)
        if lost:
            self.summary.notes.append(lost)

    def pieces(self) -> list[Piece]:
        """Return what has to be stored; what cannot be is noted as skipped."""
        self._look_again()
        pending = list(self._unfinished())
        found = {(piece.network, piece.sample_set): piece for piece in pending}
        skipped = []
        for each in survey(self.workspace, self.plan, self._examples):
            if isinstance(each, Skipped):
                skipped.append(each)
            else:
                found.setdefault((each.network, each.sample_set), each)
        unusable = {each.what for each in skipped}
        n_present = sum(
            (network, sample_set) not in found and f"{network} on {sample_set}" not in unusable
            for network, sets in self.workspace.stored_networks().items()
            for sample_set in sets
        )
        # Last, so that a step that is tried again notes nothing twice.
        self._ledger.pending = [piece.to_json() for piece in pending]
        self.summary.skipped += skipped
        self.summary.n_present = n_present
        return list(found.values())

    def _look_again(self) -> None:
        """Ask again what exists: a nightly run takes hours, in which other processes write."""
        self.workspace = Snapshot(self.workspace.root)

    def _unfinished(self) -> Iterator[Piece]:
        """Yield what an earlier run removed, and did not store again before it was killed."""
        for values in self._ledger.pending:
            with suppress(AllcnnError, KeyError, TypeError, ValueError):
                piece = Piece.from_json(values)
                if piece.network.checkpoint in self.workspace.checkpoints(piece.network.run):
                    yield piece

    def store(self, piece: Piece, report: Report) -> None:
        """Store a network; where its checkpoint has become another one, what is stored goes first.

        Raises ClaimedError where another process writes it.
        """
        noted, network = piece.to_json(), piece.network
        # Before anything goes: what cannot be stored again has to stay.
        source = load_source(self.workspace, network.run, network.checkpoint)
        samples = [self._examples.of(self.workspace, job) for job in piece.jobs]
        if piece.again:
            if noted not in self._ledger.pending:
                self._ledger.pending.append(noted)
                self._ledger.write(self.workspace)
            # Not what a run that was killed has already stored again.
            self.workspace.forget([network])
            taps = find(self.workspace, network, piece.sample_set)
            if all(tap.extracted for tap in taps) and is_other(self.workspace, network, taps):
                self._discard(piece)
        for job, of_job in zip(piece.jobs, samples, strict=True):
            keep(self.workspace, source, of_job, job, self._renewing(report))
        self.workspace.forget([network])
        if piece.again:
            self._ledger.pending.remove(noted)
            self._ledger.write(self.workspace)
        done = self.summary.again if piece.again else self.summary.added
        done.append(f"{network} on {piece.sample_set}")

    def _discard(self, piece: Piece) -> None:
        path = f"{piece.sample_set}/{piece.network.run}/{piece.network.checkpoint}"
        stores = {kind: self.workspace.store(kind) for kind in NETWORK_KINDS}
        found = [measure(at, kind, path) for kind, at in stores.items() if has_store(at)]
        discard(self.workspace, [each for each in chain(*found) if not each.is_file])

    def comparisons(self) -> list[Comparison]:
        """Return the comparisons of the plan, and those of all results that record theirs."""
        self._look_again()
        # Once a run: looking for each of them would read all of them for each.
        self._older, n_silent = earlier_results.kept_results(self.workspace)
        if n_silent:
            silent = f"{n_silent} results of an earlier version do not say what they compare"
            self.summary.notes.append(f"{silent}, and stay")
        own = [job for name in self._sample_sets() for job in self.plan.comparisons(name)]
        if not own:
            found = f"no network that fits {self.plan.networks} is stored, so no matrix is computed"
            advice = store_missing(self.workspace, self.plan.networks)
            self.summary.notes.append(f"{found}; {advice}")
        jobs = {earlier_results.identity(job): job for job in own}
        for identity, older in self._older.items():
            jobs.setdefault(identity, older[0].job)  # the plan's skips what cannot be compared
        return list(jobs.values())

    def _sample_sets(self) -> list[str]:
        """Return the names of the examples on which the plan's networks are stored."""
        runs, names = self.workspace.runs(), set[str]()
        wanted = [
            each
            for each in self.workspace.stored_networks()
            if self.plan.networks.matches(each.run, each.checkpoint, "")
        ]
        for network in {each.run: each for each in wanted if each.run in runs}.values():
            with suppress(AllcnnError, StoreError, OSError):  # which the survey has reported
                job = self.plan.extraction_of(network.run, network.checkpoint)
                names.add(self._examples.of(self.workspace, job).sample_set.name)
        for network in (each for each in wanted if each.run not in runs):  # as of imports
            found = find(self.workspace, network, None, skip=True)
            if sets := {each.meta.sample_set for each in found}:
                names.add(max(sets, key=preference).name)
        return sorted(names & set(self.workspace.sample_sets()))

    def compare(self, job: Comparison, cluster: Cluster, report: Report) -> list[SimilarityResult]:
        """Bring the results of a comparison up to date, and note how they moved; return them.

        After ``comparisons``, which has found the results that were there before.
        """
        results = comparing.compare(self.workspace, job, self._renewing(report), cluster)
        for result in results:
            self._settle(result, Comparison.from_json(result.provenance[JOB]))
        self._note_left_out(job, results)
        return results

    def is_settled(self, job: Comparison) -> bool:
        """Return whether the result of a comparison was brought up to date in this run."""
        return earlier_results.identity(job) in self._settled

    def _settle(self, result: SimilarityResult, job: Comparison) -> None:
        """Note how a result moved since the last nightly run, and remove what it supersedes."""
        identity = earlier_results.identity(job)
        older = [each.name for each in self._older.get(identity, ())]
        if identity not in self._settled:
            last = self._ledger.results.get(identity)
            if last is None and older:  # the newest that was there before any nightly run
                last = sorted(older, key=lambda name: name != result.name)[-1]
            before = None if last is None else earlier_results.read(self.workspace, last)
            change = earlier_results.moved(before, result, _networks(result))
            self._ledger.results[identity] = result.name
            self._ledger.write(self.workspace)
            self._settled.add(identity)
            self.summary.moved.append(change)
        n_superseded = earlier_results.remove_superseded(self.workspace, result, older)
        self.summary.n_superseded += n_superseded

    def _note_left_out(self, job: Comparison, results: Sequence[SimilarityResult]) -> None:
        """Name the networks that a matrix leaves out, where nothing else reports them."""
        reported = " ".join(each.what for each in [*self.summary.skipped, *self.summary.failed])
        there = {(key.run, key.checkpoint) for r in results for key in (*r.rows, *r.columns)}
        for network in self.workspace.stored_on(job.sample_set) if job.sample_set else ():
            at = network.run, network.checkpoint
            wanted = any(side.matches(*at, side.tap) for side in (job.rows, job.columns))
            if wanted and at not in there and str(network) not in reported:
                reason = "it is not stored whole, or not as this matrix needs it; left out"
                self.summary.skipped.append(Skipped(f"{network} on {job.sample_set}", reason))

    def verify(self, report: Report) -> None:
        """Verify what is due, and repair what can be."""
        report = self._renewing(report)
        self.summary.verified = verify_in_turn(self.workspace, self._ledger, self.plan, report)
        self._ledger.write(self.workspace)

    def draw(self, results: Sequence[SimilarityResult], report: Report) -> None:
        """Draw what has no picture yet, and the learning curves where they have grown."""
        figures, report = self.workspace.figures, self._renewing(report)
        wanted = [each for each in results if not is_file(figures / f"{each.name}.png")]
        for done, result in enumerate(wanted, start=1):
            figure_files.draw_comparison(self.workspace, result)
            report(done, len(wanted), f"drawing {result.name}")
        n_epochs = self._n_epochs()
        is_drawn = is_file(figures / f"{_CURVES}.png")
        if n_epochs and not (is_drawn and n_epochs == self._ledger.curves):
            figure_files.draw_learning_curves(self.workspace, [*n_epochs], _CURVES)
            self._ledger.curves = n_epochs

    def _n_epochs(self) -> dict[str, int]:
        """Return how many epochs the curves of each run have, of runs that have any."""
        found = {}
        for run in self.workspace.runs():
            try:
                if history := run_record.read_history(self.workspace, run):
                    found[run] = len(history)
            except AllcnnError as error:
                self.summary.notes.append(str(error))
        return found

    def end(self) -> Place:
        """Write the report and the ledger; return the report's page."""
        self._renew()
        self.summary.ended_at = now()
        self._ledger.nights.append(self.summary.to_json())
        there = set(child_names(self.workspace.similarity))
        self._ledger.results = {
            identity: name for identity, name in self._ledger.results.items() if name in there
        }
        self._ledger.write(self.workspace)
        return write_report(self.workspace)

    def _renewing(self, report: Report) -> Report:
        def both(done: int, total: int, detail: str) -> None:
            self._renew()
            report(done, total, detail)

        return both


@contextmanager
def holding(
    workspace: Workspace, plan: Nightly, tell: Callable[[str], object] = lambda _: None
) -> Iterator[NightlyRun]:
    """Yield a nightly run, once no other one works on the workspace.

    Raises ClaimedError at once where one does and the plan is not to wait, and RunError where there
    is nothing to work on.
    """
    check_there(workspace)
    with ExitStack() as stack:
        while True:
            try:
                renew = stack.enter_context(holding_folder(ledger_folder(workspace)))
                break
            except ClaimedError as error:
                if plan.busy == "step-aside":
                    raise
                tell(f"waiting for another nightly run: {error}")
            time.sleep(_LOOK_EVERY_S)
        check = stack.enter_context(kept_alive(renew))
        yield NightlyRun(workspace, plan, check)


class Step(Protocol):
    """How a piece of work is taken: with a bar on a terminal, or as a task of a flow."""

    def __call__(self, name: str, work: Callable[[Report], T], /) -> T:
        """Do the work and return what it returns; raises what it raises."""


def work_through(run: NightlyRun, cluster: Cluster, step: Step) -> list[SimilarityResult]:
    """Take all steps of a nightly run; return the results of the comparisons.

    What fails is noted, and does not stop the other pieces.
    """
    for piece in _attempt(run, step, "survey", lambda _: run.pieces()) or []:
        name = f"store-{piece.network}"
        _attempt(run, step, name, partial(run.store, piece))
    results: list[SimilarityResult] = []
    for job in _attempt(run, step, "list", lambda _: run.comparisons()) or []:
        if run.is_settled(job):
            continue
        name = f"compare-{job.rows}-{job.columns}"
        found = _attempt(run, step, name, partial(run.compare, job, cluster))
        results += found or []
    _attempt(run, step, "verify", run.verify)
    _attempt(run, step, "draw", partial(run.draw, results))
    return results


def _attempt(run: NightlyRun, step: Step, name: str, work: Callable[[Report], T]) -> T | None:
    """Take a step; what it raises is noted instead."""
    try:
        return step(name, work)
    except LostHoldError:
        raise
    except (ClaimedError, ComparisonError) as error:
        # Another process works on it, or what a comparison asks for is gone.
        run.summary.skipped.append(Skipped(name, _sentence(error)))
    except Exception as error:
        run.summary.failed.append(Skipped(name, _sentence(error)))
    return None


def _sentence(error: Exception) -> str:
    kind = "" if isinstance(error, (AllcnnError, StoreError)) else f"{type(error).__name__}: "
    return f"{kind}{in_one_line(error)}"


def _networks(result: SimilarityResult) -> str:
    rows, columns = (describe.side(keys).label for keys in (result.rows, result.columns))
    of = rows if rows == columns else f"{rows} with {columns}"
    return f"{of}, {describe.method(result)}, on {result.rows[0].sample_set}"
