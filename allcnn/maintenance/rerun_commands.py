"""Whether a damaged result can be had again, and by which command: only then may it go."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from allcnn.commands import Command, command
from allcnn.compare.results import is_current, slots
from allcnn.compare.select import choose
from allcnn.definitions.fields import settings_of
from allcnn.errors import AllcnnError, RunError
from allcnn.settings.comparison import Comparison
from allcnn.settings.selection import Selection
from allcnn.similarity.method import Method
from allcnn.workspace.paths import Workspace
from store import RepresentationKey, StoreError
from store.records.records import read_facts
from store.records.results import RESULTS, method_of
from store.storage.paths import Place
from store.zarrfiles.metadata_files import read_array

_SIDES = ("rows", "columns")


def recorded(folder: Place) -> Mapping[str, Any]:
    """Return what a result says of itself, as far as that can be read."""
    try:
        return read_facts(folder, RESULTS) or {}
    except StoreError:
        return {}


def command_for(workspace: Workspace, name: str, unmended: Sequence[str] = ()) -> Command:
    """Return the command that computes a result again, exactly the same one.

    Raises RunError where no command does: with patterns of networks, of which a result does not
    tell, or where what it was computed from is there no more, or stays damaged.

    Args:
        workspace: that holds the result.
        name: the result's.
        unmended: paths of activations, Grams and folders that stay damaged.
    """
    folder = workspace.similarity / name
    record = recorded(folder)
    if not record:
        raise RunError("nothing tells what it came from; delete it once it is computed again")
    if record.get("name") != name:
        raise RunError(
            f"rename the folder to {record.get('name')}, which is the result that it holds"
        )
    reason = "what is stored gives another result now"
    try:
        _check_whole(record, unmended)
        for job in _jobs(record, _n_permutations(folder)):
            try:
                if _gives(workspace, job, record):
                    return command_of(workspace, job)
            except (AllcnnError, StoreError) as error:
                reason = str(error)
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"its record is malformed ({error}); compute that comparison again, then delete it"
        ) from error
    raise RunError(
        f"the comparison that wrote it computes it again in its place, if it still can: {reason}"
    )


def _check_whole(record: Mapping[str, Any], unmended: Sequence[str]) -> None:
    """Refuse what came from something damaged: its command would stop there."""
    for key in map(RepresentationKey.from_text, (*record["rows"], *record["columns"])):
        of = key.path
        for path in unmended:
            if f"{of}/".startswith(f"{path}/") or path.startswith(f"{of}/"):
                raise RunError(
                    f"{key} on {key.sample_set} is damaged, from which it came; restore that first,"
                    " and repair again"
                )


def _gives(workspace: Workspace, job: Comparison, record: Mapping[str, Any]) -> bool:
    rows, columns = choose(workspace, job)
    labels = None if record.get("label") is None else (int(record["label"]),)
    names = [slot.name for slot in slots(job, labels, rows, columns)]
    return record["name"] in names and is_current(record["provenance"], (rows, columns))


def _jobs(record: Mapping[str, Any], n_permutations: int) -> Iterator[Comparison]:
    """Yield the comparisons that may have given a result, as far as it tells."""
    sides = [[RepresentationKey.from_text(text) for text in record[side]] for side in _SIDES]
    found = method_of(record)
    how: dict[str, Any] = {
        "sample_set": sides[0][0].sample_set,
        "label": record.get("label"),
        "permutations": n_permutations,
        "methods": (Method.from_json(_settings(found)),),
    }
    for rows in _selections(sides[0]):
        for columns in _selections(sides[1]):
            yield Comparison(rows, columns, **how)


def _settings(method: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a stored method, without what shows it or was found by it."""
    known = Method.settings(str(method["measure"]), str(method["kernel"]))
    whole = {"batch_size"} if method["is_whole"] else set()
    return {name: value for name, value in method.items() if name in known.keys() - whole}


def _selections(keys: list[RepresentationKey]) -> Iterator[Selection]:
    """Yield the selections that may have chosen a side: all taps of a network, or one of them."""
    networks = {(key.run, key.checkpoint) for key in keys}
    if len(networks) == 1:
        yield Selection(*next(iter(networks)))
        if len(keys) == 1:
            yield Selection(keys[0].run, keys[0].checkpoint, keys[0].tap)


def _n_permutations(folder: Place) -> int:
    try:
        node = read_array(folder / "baseline")
    except StoreError:
        return 0
    return node.shape[0] if node else 0


def command_of(workspace: Workspace, job: Comparison) -> Command:
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
