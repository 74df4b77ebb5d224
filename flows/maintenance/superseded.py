"""Which comparisons there are, and what is left of their earlier results."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from allcnn.compare.results import JOB
from allcnn.errors import ConfigError
from allcnn.maintenance.rerun_commands import recorded
from allcnn.settings.comparison import Comparison
from allcnn.workspace.paths import Workspace
from flows.maintenance.matrix_change import has_same_inputs, has_same_numbers
from store import SimilarityResult, StoreError, has_store, read_result
from store.maintenance.remove import remove
from store.maintenance.usage import Usage
from store.storage.paths import child_names, is_file
from store.zarrfiles.metadata_files import NODE

_SUFFIXES: Final = ("", "-errors", "-convergence", "-baseline")
"""Suffixes of the pictures of one result."""


@dataclass(frozen=True)
class KeptResult:
    """A result as it is stored, without its values."""

    name: str
    job: Comparison
    created_at: str


def kept_results(workspace: Workspace) -> Iterator[KeptResult | str]:
    """Yield the results that record their comparison, and the names of those that do not."""
    if not has_store(workspace.similarity):
        return
    for name in child_names(workspace.similarity):
        record = recorded(workspace.similarity / name)
        if not record:
            continue  # unfinished, or damaged, which verification reports
        provenance = record.get("provenance")
        try:
            known = provenance if isinstance(provenance, dict) else {}
            job = Comparison.from_json(known[JOB])
            yield KeptResult(name, job, str(known.get("created_at", "")))
        except (KeyError, ConfigError):
            yield name


def identity(job: Comparison) -> str:
    """Return a text that comparisons share only where they ask for the same numbers.

    How unusable networks are treated does not count.
    """
    return json.dumps(replace(job, unusable="refuse").to_json(), sort_keys=True)


def job_of(result: SimilarityResult) -> Comparison:
    """Return the comparison that makes a result of this version."""
    return Comparison.from_json(result.provenance[JOB])


def distinct(own: Iterable[Comparison], kept: Iterable[KeptResult]) -> list[Comparison]:
    """Return the comparisons to look at: the plan's first, then those of results, each once."""
    ordered = sorted(kept, key=lambda each: (each.created_at, each.name))
    found: dict[str, Comparison] = {}
    for job in [*own, *(each.job for each in ordered)]:
        found.setdefault(identity(job), job)  # the plan's skips what cannot be compared
    return list(found.values())


def read(workspace: Workspace, name: str) -> SimilarityResult | None:
    """Return a result, or None where it is gone or cannot be read any more."""
    try:
        return read_result(workspace.similarity, name)
    except StoreError:
        return None


def remove_superseded(workspace: Workspace, now: SimilarityResult, older: Iterable[str]) -> int:
    """Remove results of which every number is in a newer one; return how many.

    Those of checkpoints that have become others are kept, as nothing can compute them again. So are
    those that moved all the same, as of activations in another precision, or imported again.
    """
    n_removed = 0
    for name in older:
        before = read(workspace, name)
        if before is None or name == now.name:
            continue
        if has_same_inputs(before, now) and has_same_numbers(before, now):
            remove(workspace.similarity, Usage("similarity", name, frozenset({NODE}), 0, 0, 0.0))
            for suffix in _SUFFIXES:
                picture = workspace.figures / f"{name}{suffix}.png"
                if is_file(picture):
                    picture.unlink()
            n_removed += 1
    return n_removed
