"""Train a linear classifier on every tap of networks, test it, and keep how well it does."""

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import accumulate
from typing import Any, Final

import numpy as np

import store
from allcnn.definitions.fields import json_of
from allcnn.probing import classifier
from allcnn.probing.probe_tasks import ProbedTap, Task, choose
from allcnn.progress import Report, silent
from allcnn.provenance import now, versions
from allcnn.settings.probing import Probing
from allcnn.settings.selection import Selection
from allcnn.workspace.paths import Workspace
from store import ProbeResult, Representation, StoreError
from store.model.strict_json import parse
from store.records.probes import ARRAYS
from store.records.records import check_writable
from store.storage.paths import Place, read_bytes, write_json
from store.storage.remote_errors import reaching

_METHOD: Final = 1
"""Raised with every change that moves numbers by more than a fit's tolerance."""

NETWORK_KNOWN_BY: Final = "network_known_by"
"""Where provenance says whether a digest or the name alone shows that both sets are of one
network."""

_Score = dict[str, Any]
"""One tap's numbers in a result; NaN where its activations are not finite."""


def probe(workspace: Workspace, job: Probing, report: Report = silent) -> list[ProbeResult]:
    """Probe the taps of networks and keep the results, one a network, in the order of training.

    Results computed from the same activations (by their digests) in the same way are read instead;
    a killed probe resumes after the last finished tap. Raises ProbeError where activations of a
    network are missing or cannot be used, before any work.
    """
    tasks = choose(workspace, job)
    ends = list(accumulate(len(task.taps) for task in tasks))
    results = []
    for task, end in zip(tasks, ends, strict=True):

        def tell(n_left: int, what: str, task: Task = task, end: int = end) -> None:
            report(end - n_left, ends[-1], f"{task.network}: {what}")

        results.append(_result(workspace.probes, task, job, tell))
        tell(0, "done")
    return results


def _result(
    place: Place, task: Task, job: Probing, tell: Callable[[int, str], None]
) -> ProbeResult:
    """Read the probe of one network, or compute and write it; a damaged one does not count."""
    name = _name(task, job)
    with suppress(StoreError):
        return store.read_probe(place, name)
    check_writable(place, "probes")
    # Not listed as a probe; reading the probe says that it is not finished.
    draft = place / f".{name}.partial"
    scores = _finished(draft, name, task, job)
    for n, tap in enumerate(task.taps):
        if tap.name not in scores:
            tell(len(task.taps) - n, tap.name)
            scores[tap.name] = _score(tap, task.classes, job)
            write_json(draft, scores)
    result = _put_together(name, task, job, scores)
    store.write_probe(place, result)
    with reaching(place), suppress(FileNotFoundError):
        draft.unlink()
    return result


def _finished(draft: Place, name: str, task: Task, job: Probing) -> dict[str, _Score]:
    """Return the taps that a killed probe had finished; none where its draft is damaged."""
    with suppress(OSError, ValueError, TypeError, LookupError):
        scores: dict[str, _Score] = parse(read_bytes(draft), constants=True)
        finished = tuple(tap for tap in task.taps if tap.name in scores)
        _put_together(name, replace(task, taps=finished), job, scores)  # checks the numbers
        return scores
    return {}


def _put_together(name: str, task: Task, job: Probing, scores: dict[str, _Score]) -> ProbeResult:
    numbers: dict[str, Any]
    numbers = {of: np.array([scores[tap.name][of] for tap in task.taps]) for of in ARRAYS}
    return ProbeResult(
        name=name,
        taps=tuple(tap.test.key for tap in task.taps),
        train_set=task.train_set.name,
        classes=task.classes,
        n_train=task.train_set.n_samples,
        n_test=task.test_set.n_samples,
        pool=job.pool,
        provenance=_provenance(task, job),
        **numbers,
    )


def _score(tap: ProbedTap, classes: tuple[int, ...], job: Probing) -> _Score:
    """Train on one tap and classify the test examples."""
    training, test = (
        classifier.FeatureSource(side.read, side.meta.n_samples, side.meta.batch_rows, job.pool)
        for side in (tap.train, tap.test)
    )
    given, wanted = (np.searchsorted(classes, side.labels) for side in (tap.train, tap.test))
    score: _Score = {
        "accuracy": np.nan,
        "train_accuracy": np.nan,
        "class_accuracy": [np.nan] * len(classes),
        "penalties": np.nan,
        "n_features": tap.count_features(job.pool),
    }
    found = classifier.train(training, given, len(classes), job.penalties)
    if found is None:
        return score
    predicted = classifier.evaluate(found, test)
    if np.any(predicted < 0):
        return score
    hits = predicted == wanted
    of_class = (hits[wanted == place] for place in range(len(classes)))
    return score | {
        "accuracy": hits.mean(),
        "train_accuracy": found.train_accuracy,
        "class_accuracy": [each.mean() if len(each) else np.nan for each in of_class],
        "penalties": found.penalty,
    }


def _name(task: Task, job: Probing) -> str:
    """Return a name that changes with everything that the result depends on."""

    def inputs_of(tap: Representation) -> list[str]:
        return [tap.key.text, tap.meta.checkpoint_digest, tap.meta.dtype, tap.rows_digest]

    inputs = {
        "method": _METHOD,
        "sets": [task.train_set.to_json(), task.test_set.to_json()],
        "taps": [[inputs_of(tap.train), inputs_of(tap.test)] for tap in task.taps],
        "pool": job.pool,
        "penalties": sorted(job.penalties),
    }
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:8]
    network = f"{task.network.run}_{task.network.checkpoint}"[:140]
    pooled = "-pooled" if job.pool == "mean" else ""
    return f"{network}{pooled}-probe-{digest}"


def _provenance(task: Task, job: Probing) -> dict[str, Any]:
    """Return who made a result from what, and by which settings it can be made again."""
    networks = Selection(task.network.run, task.network.checkpoint, job.networks.tap)
    train_set, test_set = task.train_set.name, task.test_set.name
    again = replace(job, networks=networks, train_set=train_set, test_set=test_set)
    return {
        "created_at": now(),
        "job": json_of(again),
        "versions": versions(),
        "sample_sets": {"train": task.train_set.to_json(), "test": task.test_set.to_json()},
        "checkpoint_digest": task.taps[0].test.meta.checkpoint_digest,
        NETWORK_KNOWN_BY: task.known_by,
        "rows_digests": {
            side.key.text: side.rows_digest for tap in task.taps for side in (tap.train, tap.test)
        },
    }
