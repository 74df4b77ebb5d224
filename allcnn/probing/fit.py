"""Train a linear classifier on every tap of networks, test it, and keep how well it does."""

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Final

import numpy as np

import store
from allcnn.probing import classifier
from allcnn.probing.select import Tap, Task, choose
from allcnn.progress import Report, silent
from allcnn.provenance import now, versions
from allcnn.settings.probing import Probing
from allcnn.settings.selection import Selection
from allcnn.workspace.paths import Workspace
from store import ProbeResult, Representation, StoreError
from store.model.field_checks import check_count
from store.model.strict_json import parse
from store.records.records import check_writable
from store.storage.paths import Place, read_bytes, write_json
from store.storage.remote_errors import reaching

_METHOD: Final = 1
"""Raised with every change that moves the numbers, so that no older probe stands for a new one."""

JOB: Final = "job"
"""Where a probe's provenance tells its settings."""


NETWORK_KNOWN_BY: Final = "network_known_by"
"""Where it says whether a digest, or the name alone, tells that both sets are of one network."""


@dataclass(frozen=True)
class _Score:
    """How well a classifier does on one tap; NaN where its activations are not finite."""

    accuracy: float
    train_accuracy: float
    class_accuracy: tuple[float, ...]
    penalty: float
    n_features: int


def probe(workspace: Workspace, job: Probing, report: Report = silent) -> list[ProbeResult]:
    """Probe the taps of networks and keep the results; known ones are read instead.

    Returns one result a network, sorted by run and by checkpoint as they were trained. Known is
    what was computed from the same activations (by their digests) in the same way. A killed probe
    goes on after the last tap that was finished.

    Raises ProbeError where activations of a network are missing or do not serve, before any work.
    """
    tasks = choose(workspace, job)
    total, done = sum(len(task.taps) for task in tasks), 0
    results = []
    for task in tasks:
        work = _Work(workspace.probes, task, job)
        known = work.known()
        if known is None:
            check_writable(workspace.probes, "probes")
            known = work.result(partial(_tell, report, done, total))
            store.write_probe(workspace.probes, known)
            work.forget()
        done += len(task.taps)
        report(done, total, f"{task.network}: done")
        results.append(known)
    return results


def _tell(report: Report, before: int, total: int, n: int, detail: str) -> None:
    report(before + n, total, detail)


class _Work:
    """The probe of one network under way."""

    def __init__(self, place: Place, task: Task, job: Probing) -> None:
        self._place = place
        self._task = task
        self._job = job
        self.name = _name(task, job)
        # Nobody takes it for a probe, and readers are told that this one is not finished.
        self._draft = place / f".{self.name}.partial"

    def known(self) -> ProbeResult | None:
        """Return what was computed before; a damaged result does not count."""
        with suppress(StoreError):
            return store.read_probe(self._place, self.name)
        return None

    def result(self, report: Callable[[int, str], None]) -> ProbeResult:
        """Probe the taps that are not finished yet, and put all together."""
        scores = self._finished()
        for n, tap in enumerate(self._task.taps):
            name = tap.test.key.tap
            if name not in scores:
                report(n, f"{self._task.network}: {name}")
                scores[name] = _score(tap, self._task.classes, self._job)
                write_json(self._draft, {of: asdict(score) for of, score in scores.items()})
        return self._result([scores[tap.test.key.tap] for tap in self._task.taps])

    def forget(self) -> None:
        """Remove the draft, whose probe is finished."""
        with reaching(self._place), suppress(FileNotFoundError):
            self._draft.unlink()

    def _finished(self) -> dict[str, _Score]:
        """Return the taps that a killed probe of the same name had finished."""
        with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
            found = parse(read_bytes(self._draft), constants=True)
            scores = {of: _read_score(each) for of, each in found.items()}
            if all(len(s.class_accuracy) == len(self._task.classes) for s in scores.values()):
                return scores
        return {}

    def _result(self, scores: Sequence[_Score]) -> ProbeResult:
        task = self._task
        return ProbeResult(
            name=self.name,
            taps=tuple(tap.test.key for tap in task.taps),
            train_set=task.train_set.name,
            accuracy=np.array([score.accuracy for score in scores]),
            train_accuracy=np.array([score.train_accuracy for score in scores]),
            class_accuracy=np.array([score.class_accuracy for score in scores]),
            penalties=np.array([score.penalty for score in scores]),
            n_features=np.array([score.n_features for score in scores]),
            classes=task.classes,
            n_train=task.train_set.n_samples,
            n_test=task.test_set.n_samples,
            pool=self._job.pool,
            provenance=_provenance(task, self._job),
        )


def _score(tap: Tap, classes: tuple[int, ...], job: Probing) -> _Score:
    """Train on one tap and classify the test examples."""
    known = np.asarray(classes)
    training = _source(tap.train, job)
    found = classifier.train(
        training, np.searchsorted(known, tap.train.labels), len(classes), job.penalties
    )
    if found is None:
        return _undefined(tap, len(classes), job)
    predicted = classifier.evaluate(found.classifier, _source(tap.test, job))
    if np.any(predicted < 0):
        return _undefined(tap, len(classes), job)
    wanted = np.searchsorted(known, tap.test.labels)
    hits = predicted == wanted
    return _Score(
        accuracy=float(hits.mean()),
        train_accuracy=found.train_accuracy,
        class_accuracy=tuple(_share(hits[wanted == place]) for place in range(len(classes))),
        penalty=found.penalty,
        n_features=found.n_features,
    )


def _source(tap: Representation, job: Probing) -> classifier.Source:
    return classifier.Source(tap.read, tap.meta.n_samples, tap.meta.batch_rows, job.pool)


def _undefined(tap: Tap, n_classes: int, job: Probing) -> _Score:
    n_features = tap.count_features(job.pool)
    return _Score(np.nan, np.nan, (np.nan,) * n_classes, np.nan, n_features)


def _share(hits: np.ndarray) -> float:
    return float(hits.mean()) if len(hits) else float("nan")


def _read_score(values: dict[str, Any]) -> _Score:
    """Rebuild a score; raises TypeError, ValueError or KeyError for what is none."""
    shares = tuple(map(float, values["class_accuracy"]))
    numbers = {n: float(values[n]) for n in ("accuracy", "train_accuracy", "penalty")}
    if any(share < 0 or share > 1 for share in (*shares, *list(numbers.values())[:2])):
        raise ValueError("a share is not from 0 to 1")
    check_count("n_features", values["n_features"])
    return _Score(**numbers, class_accuracy=shares, n_features=values["n_features"])


def _name(task: Task, job: Probing) -> str:
    """Return a name that changes with everything that the result depends on."""
    inputs = {
        "method": _METHOD,
        "sets": [task.train_set.to_json(), task.test_set.to_json()],
        "taps": [[_inputs(tap.train), _inputs(tap.test)] for tap in task.taps],
        "pool": job.pool,
        "penalties": sorted(job.penalties),
    }
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:8]
    network = f"{task.network.run}_{task.network.checkpoint}"[:140]
    pooled = "-pooled" if job.pool == "mean" else ""
    return f"{network}{pooled}-probe-{digest}"


def _inputs(tap: Representation) -> list[str]:
    return [tap.key.text, tap.meta.checkpoint_digest, tap.meta.dtype, tap.rows_digest]


def _provenance(task: Task, job: Probing) -> dict[str, Any]:
    """Return who made a result from what, and by which settings it can be made again."""
    networks = Selection(task.network.run, task.network.checkpoint, job.networks.tap)
    train_set, test_set = task.train_set.name, task.test_set.name
    again = replace(job, networks=networks, train_set=train_set, test_set=test_set)
    return {
        "created_at": now(),
        JOB: again.to_json(),
        "versions": versions(),
        "sample_sets": {"train": task.train_set.to_json(), "test": task.test_set.to_json()},
        "checkpoint_digest": task.taps[0].test.meta.checkpoint_digest,
        NETWORK_KNOWN_BY: task.known_by,
        "rows_digests": {
            side.key.text: side.rows_digest for tap in task.taps for side in (tap.train, tap.test)
        },
    }
