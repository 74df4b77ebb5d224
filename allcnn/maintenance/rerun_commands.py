"""Find the command that computes a damaged result or probe again: only then may a result go."""

from collections.abc import Mapping, Sequence
from typing import Any

from allcnn.commands import CommandLine, command
from allcnn.compare.results import JOB, is_current, slots
from allcnn.compare.select import choose
from allcnn.definitions.fields import settings_of
from allcnn.errors import AllcnnError, RunError
from allcnn.settings.comparison import Comparison
from allcnn.similarity.method import Method
from allcnn.workspace.paths import Workspace
from store import RepresentationKey, StoreError
from store.records.probes import PROBES
from store.records.results import RESULTS
from store.storage.paths import Place


def recorded(folder: Place) -> Mapping[str, Any]:
    """Return the facts of a result, as far as they can be read."""
    try:
        return RESULTS.read_facts(folder) or {}
    except StoreError:
        return {}


def command_for(workspace: Workspace, name: str, damaged: Sequence[str] = ()) -> CommandLine:
    """Return the command that computes a result again, exactly the same one.

    Raises RunError where none does, because its sources are gone, have changed, or lie in one of
    the folders of activations and Grams that stay ``damaged``.
    """
    record = recorded(workspace.similarity / name)
    if not record:
        raise RunError("its source is not known", remedy="delete it once it is computed again")
    if (other := record.get("name")) != name:
        raise RunError(f"rename the folder to {other}, which is the result that it holds")
    why = "what is stored gives another result now"
    try:
        _check_whole(record, damaged)
        job = Comparison.from_json(record["provenance"][JOB])
        sides = choose(workspace, job)
        label = None if job.label is None else int(job.label)
        is_same = name in [slot.name for slot in slots(job, [label], *sides)]
        if is_same and is_current(record["provenance"], sides):
            return command_of(workspace, job)
    except RunError:
        raise
    except (AllcnnError, StoreError) as error:
        why = str(error)
    except (KeyError, TypeError, ValueError) as error:
        found, remedy = f"is malformed ({error!r})", "compute that comparison again, then delete it"
        raise RunError("its record", found, remedy=remedy) from error
    again = "the comparison that wrote it computes it again in its place, if it still can"
    raise RunError(f"{again}: {why}")


def _check_whole(record: Mapping[str, Any], damaged: Sequence[str]) -> None:
    """Raise RunError for a result of damaged sources: its command would stop there."""
    for key in map(RepresentationKey.from_text, (*record["rows"], *record["columns"])):
        for path in damaged:
            if f"{key.path}/".startswith(f"{path}/") or path.startswith(f"{key.path}/"):
                what, found = f"{key} on {key.sample_set}", "is damaged, and is a source of it"
                raise RunError(what, found, remedy="restore that first, and repair again")


def probe_command(workspace: Workspace, name: str) -> CommandLine:
    """Return the command that computes a probe again; raises RunError where none is recorded."""
    try:
        facts = PROBES.read_facts(workspace.probes / name) or {}
        job = facts["provenance"]["job"]
        flags = {key: job[key] for key in ("train_set", "test_set", "pool")}
        flags["penalties"] = ",".join(map(str, job["penalties"]))
        networks = str(job["networks"])
    except (StoreError, KeyError, TypeError) as error:
        raise RunError("its source is not known", remedy="probe again, then delete it") from error
    return command(workspace.root, "probe", networks, **flags)


def command_of(workspace: Workspace, job: Comparison) -> CommandLine:
    """Return the command of a comparison."""
    found = Comparison.to_json(job)
    names = settings_of(job.method.measure) | settings_of(job.method.kernel)
    several = {name: found[name] for name in names}
    flags = {
        "measure": None if type(job.method.measure) is type(Method.measure) else found["measure"],
        "kernel": found["kernel"],
        **{n: ",".join(map(str, v)) if isinstance(v, list) else v for n, v in several.items()},
        "batch_size": job.method.minibatch,
        "pool": job.method.pool,
        "label": job.label,
        "permutations": job.permutations or None,
        "unusable": None if job.unusable == "refuse" else job.unusable,
        "sample_set": job.sample_set,
    }
    # Several networks, and single taps, are chosen by patterns alone.
    plain = all(side.is_network and side.tap == "*" for side in (job.rows, job.columns))
    name = "compare" if plain else "matrix"
    return command(workspace.root, name, job.rows, job.columns, **flags)
