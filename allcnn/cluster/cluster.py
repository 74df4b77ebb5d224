"""Give tasks to workers and gather what they return, whatever becomes of the workers."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Self

from dask.typing import Key
from distributed import CancelledError, Future, KilledWorker, as_completed

from allcnn.cluster.backends import QUEUE_S, Started, check_possible, started
from allcnn.cluster.spec import THREADS, ClusterSpec
from allcnn.cluster.worker import PACKAGE, Facts, look, run
from allcnn.errors import ClusterError, ConfigError
from store.storage.paths import Place

Done = Callable[[int, int], None]
"""Takes the tasks that are done, and how many there are."""

Tell = Callable[[str], None]
"""Takes a sentence for whoever watches."""

_LOOK_EVERY_S: Final = 2.0
_WAIT_S: Final = 0.05

_MEMORY_TOPIC: Final = "worker-restart-memory"
"""Under which Dask's nannies log that they ended a worker for its memory."""

NO_WORKERS_S: Final = 60.0
"""How long to wait where no worker is left; `QUEUE_S` where a user's function starts them."""

SILENT_S: Final = 60.0
"""How long to wait for an answer of the scheduler."""

STALLED_S: Final = 6 * 3600.0
"""How long to wait for the end of any task, where there are workers."""


class Cluster:
    """Workers that are started when they are first needed, and stopped at the end of a block.

    ``tell`` takes the dashboard's address and reports of workers that come and go. A scheduler that
    does not answer is refused before any work, even if no task needs it; with ``must_answer`` False
    it is only reported.
    """

    def __init__(
        self,
        spec: ClusterSpec = THREADS,
        tell: Tell = lambda _: None,
        *,
        must_answer: bool = True,
    ) -> None:
        self.spec = spec
        self._must_answer = must_answer
        self._tell = tell
        self._stack = ExitStack()
        self._started: Started | None = None
        self._watch: _Watch | None = None

    def __enter__(self) -> Self:
        try:
            check_possible(self.spec)
        except ClusterError as error:
            if self._must_answer:
                raise
            self._tell(str(error))
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop what was started; who needs workers later starts others."""
        self._started = self._watch = None
        # The scheduler may be gone.
        with suppress(OSError):
            self._stack.close()

    @property
    def started(self) -> Started:
        """The workers; raises ConfigError or ClusterError where there are none to be had."""
        if self._started is None:
            self._started = self._stack.enter_context(started(self.spec))
            self._tell(f"tasks run on {self._started.about}; dashboard {self._started.dashboard}")
        return self._started

    def check_sees(self, root: Place) -> None:
        """Raise unless every worker has what the tasks need: this package, and the workspace."""
        if self.spec.kind == "threads":
            return
        folder = str(root) if isinstance(root, Path) else None
        if str(root).startswith("memory://"):
            raise ConfigError(
                f"{root} lies in the memory of this process, and cluster is {self.spec}",
                remedy="use --cluster threads",
            )
        try:
            found = self.started.client.run(
                look, folder, on_error="return", callback_timeout=SILENT_S
            )
        except TimeoutError as error:
            raise ClusterError(
                f"a worker of {self.spec} does not answer within {SILENT_S:g} s",
                remedy=f"look at {self.started.dashboard}, and stop it or start it again",
            ) from error
        for worker, facts in found.items():
            self._check(worker, facts, folder)
        kinds = {(facts.device, facts.n_cores) for facts in found.values()}
        if len(kinds) > 1:
            found_kinds = ", ".join(f"{device} with {n} cores" for device, n in sorted(kinds))
            self._tell(
                f"workers differ ({found_kinds}): the last digits depend on which one takes a task"
            )

    def _check(self, worker: str, facts: Any, folder: str | None) -> None:
        """Raise ClusterError for a worker that cannot run the tasks."""
        found, remedy = "", "install the same allcnn-cka there as here"
        if not isinstance(facts, Facts):
            found = f"cannot run tasks ({facts})"
        elif facts.version != (here := version(PACKAGE)):
            found = f"has {PACKAGE} {facts.version}, and here is {here}"
        elif not facts.sees:
            found = f"has no folder {folder}"
            remedy = "give its machine the same file system, or keep the workspace at an address"
            remedy += " such as s3://"
        elif self.spec.kind == "gpu" and facts.device == "cpu":
            found = "finds no GPU, though this machine has one"
            remedy = "install JAX for it: pip install '.[cuda]'"
        if found:
            raise ClusterError(f"worker {worker} of {self.spec}", found, remedy=remedy)

    def gather(
        self,
        body: Callable[..., Any],
        calls: Sequence[Sequence[Any]],
        what: str,
        done: Done,
    ) -> list[Any]:
        """Run tasks and return what they return, in the order of the calls.

        The first error of a task is raised as it is, without waiting for the others, which are
        cancelled. Raises ClusterError where workers or the scheduler are gone for good; no wait
        is longer than the limits.
        """
        client = self.started.client
        futures = [client.submit(run, body, call, pure=False) for call in calls]
        try:
            found = self._collect(futures, what, done)
        except BaseException as error:
            # Also where this process is stopped: a scheduler of others would go on.
            with suppress(Exception):
                client.cancel(futures, force=True)
            if isinstance(error, ClusterError):
                self.close()  # so that another try begins with other workers
            raise
        return [found[future.key] for future in futures]

    def _collect(self, futures: Sequence[Future[Any]], what: str, done: Done) -> dict[Key, Any]:
        found: dict[Key, Any] = {}
        client = self.started.client
        ready = as_completed(futures, loop=client.loop, with_results=True, raise_errors=False)
        if self._watch is None:
            self._watch = _Watch(self.started, self.spec, self._tell)
        watch = self._watch
        watch.begin()
        while len(found) < len(futures):
            if not ready.has_ready():
                with ready.thread_condition:
                    ready.thread_condition.wait(_WAIT_S)
                watch.look(what)
                continue
            for future, result in ready.next_batch(block=False):
                found[future.key] = self._value(future, result, what)
                # Else what a worker returned would be computed again once that worker dies.
                future.release()
                done(len(found), len(futures))
            watch.progressed_at = time.monotonic()
        watch.workers()
        return found

    def _value(self, future: Future[Any], result: Any, what: str) -> Any:
        """Return what a task returned, or raise what became of it."""
        if future.status == "error":
            _, error, traceback = result
            if isinstance(error, KilledWorker):
                raise self._killed(error, what) from error
            raise error.with_traceback(traceback)
        if future.status != "finished" or isinstance(result, CancelledError):
            raise _gone(self.spec, what) from (result if isinstance(result, Exception) else None)
        return result

    def _killed(self, error: KilledWorker, what: str) -> ClusterError:
        """Say which task ended one worker after another, and whether for want of memory."""
        client, limit = self.started.client, self.started.memory_bytes
        cause = "they were killed, or their machines ran out of memory"
        with suppress(Exception):  # only to say more
            if client.get_events(_MEMORY_TOPIC):
                room = f" of {limit / 1e9:.1f} GB" if limit else ""
                cause = f"they went over their memory limit{room}"
        n_deaths = error.allowed_failures + 1
        return ClusterError(
            f"{what}: {n_deaths} workers died of the same task, one after the other: {cause}",
            remedy="what was finished is kept, so take fewer workers or smaller minibatches and run"
            " it again",
        )


class _Watch:
    """Notices between tasks that workers come and go, and when waiting has no point any more.

    It goes on from one gathering to the next.
    """

    def __init__(self, cluster: Started, spec: ClusterSpec, tell: Tell) -> None:
        self._cluster, self._spec, self._tell = cluster, spec, tell
        self._workers: set[str] | None = None

    def begin(self) -> None:
        """Note that tasks were given: until now none has ended, and the scheduler answered."""
        self._looked = self.progressed_at = self._answered = self._had_workers = time.monotonic()
        if self._workers is None:
            self.workers()

    def look(self, what: str) -> None:
        """Look every few seconds; raises ClusterError."""
        now = time.monotonic()
        if now - self._looked < _LOOK_EVERY_S:
            return
        self._looked = now
        workers = self.workers()
        now = time.monotonic()
        if workers is not None:
            self._answered = now
        if workers:
            self._had_workers = now
        # Workers of a batch system may have to wait in its queue again.
        no_workers_s = QUEUE_S if self._spec.kind == "function" else NO_WORKERS_S
        if self._cluster.client.status == "closed" or now - self._answered > SILENT_S:
            raise _gone(self._spec, what)
        if workers is None:
            return  # what does not answer is not known to have no workers, nor to have stalled
        if now - max(self._had_workers, self.progressed_at) > no_workers_s:
            raise ClusterError(
                f"{what}: all workers of {self._spec} are gone, and none came back within"
                f" {no_workers_s:g} s",
                remedy="start workers there and run it again: what was finished is kept",
            )
        if now - self.progressed_at > STALLED_S:
            raise ClusterError(
                f"{what}: no task of {self._spec} ended within {STALLED_S:g} s",
                remedy=f"look at its dashboard {self._cluster.dashboard}, and run it again: what"
                " was finished is kept",
            )

    def workers(self) -> set[str] | None:
        """Return the workers' addresses, and report those that came and went since the last look.

        None where the scheduler does not answer.
        """
        client = self._cluster.client
        if client.status != "running" or client.scheduler is None:
            return None
        try:
            # Short of the silence that is allowed, so that more than one question is asked.
            found = client.sync(client.scheduler.identity, callback_timeout=SILENT_S / 4)
        except (OSError, TimeoutError, RuntimeError):
            return None
        now = set(found["workers"])
        before = now if self._workers is None else self._workers
        self._workers = now
        for worker in sorted(before - now):
            self._tell(f"worker {worker} is gone; others take its tasks")
        for worker in sorted(now - before):
            self._tell(f"worker {worker} has come")
        return now


def _gone(spec: ClusterSpec, what: str) -> ClusterError:
    return ClusterError(
        f"{what}: the scheduler of {spec} is gone, or cannot be reached any more",
        remedy="what was finished is kept, so start it and run this again",
    )
