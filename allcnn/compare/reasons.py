"""Why what is stored cannot be compared, and which command helps."""

from allcnn.compare.sources import (
    Found,
    by_network,
    digests_of,
    missing_tap,
    network_of,
    sources_of,
)
from allcnn.config import Comparison, Selection
from allcnn.workspace import Workspace
from store import Grams, SampleSet


def why_not(
    workspace: Workspace, side: Selection, job: Comparison, sets: dict[str, list[Found]]
) -> str:
    """Say what keeps a selection from being compared, for the first representation in the way."""
    members = sets[job.sample_set] if job.sample_set in sets else next(iter(sets.values()))
    lacking = next((each for each in members if not each.versions(job)), None)
    if lacking is not None:
        return _why_unusable(workspace, lacking, job)
    for network, taps in by_network(members).items():
        missing = missing_tap(taps, side)
        if missing is not None:
            options = samples_flags(taps[0].sample_set)
            return (
                f"tap {missing} of {network} on {taps[0].key.sample_set}, counted from 0, is not"
                f" stored; {advice(workspace, network, options)}, or name the"
                f" taps, as in '{network}:conv[1-3]'"
            )
        if not sources_of(taps, job):
            return _why_mixed(workspace, network, taps, job)
    places: dict[Selection, list[str]] = {}
    for name, stored in sets.items():
        for network in dict.fromkeys(network_of(each.key) for each in stored):
            places.setdefault(network, []).append(name)
    spread = sorted(places.items(), key=lambda item: len(item[1]))
    told = ", ".join(f"{network} on {' and '.join(on)}" for network, on in (spread[0], spread[-1]))
    return (
        f"no sample set holds all networks of {side} whole: {told}; name one with --sample-set, or"
        " extract them alike"
    )


def _why_mixed(workspace: Workspace, network: Selection, taps: list[Found], job: Comparison) -> str:
    place, digests = f"{network} on {taps[0].key.sample_set}", digests_of(taps)
    if len(digests) > 1:
        folder = workspace.grams / taps[0].key.sample_set / network.run / network.checkpoint
        return (
            f"what is kept of {place} is of several checkpoints: {' and '.join(digests)}; delete"
            f" {folder}, and {advice(workspace, network, samples_flags(taps[0].sample_set))}"
        )
    dtypes = sorted({dtype for each in taps for _, dtype in each.versions(job)})
    return (
        f"the taps of {place} are kept in {' and '.join(dtypes)}, and in none all of them;"
        f" {advice(workspace, network, samples_flags(taps[0].sample_set))}"
    )


def _why_unusable(workspace: Workspace, found: Found, job: Comparison) -> str:
    network, on = network_of(found.key), found.key.sample_set
    tap = found.activations
    if tap is not None:
        meta = tap.meta
        options = f" --batch-size {meta.batch_rows} --dtype {meta.dtype}"
        again = advice(workspace, network, samples_flags(meta.sample_set) + options)
        return f"the activations of {network} on {on} are unfinished in {workspace.root}; {again}"
    some = found.grams[0].meta
    options = samples_flags(some.sample_set)
    if job.estimator == "exact":
        return (
            f"the exact estimator needs activations, and of {network} on {on} Grams alone are kept;"
            f" {advice(workspace, network, options)}"
        )
    kept = sorted({_describe(g) for g in found.grams})
    options += f" --keep grams --batch-size {job.batch_size} --dtype {some.key.dtype}"
    options += f" --kernel {job.kernel} --pool {job.pool}"
    return (
        f"the Grams kept of {found.key} on {on} are {' and '.join(kept)}, and {job.kernel}"
        f" {job.pool} ones in minibatches of {job.batch_size} are needed;"
        f" {advice(workspace, network, options)}"
    )


def _describe(grams: Grams) -> str:
    key = grams.key
    state = "" if grams.complete else ", unfinished"
    return f"{key.kernel} {key.pool} ones in minibatches of {key.batch_size}{state}"


def samples_flags(sample_set: SampleSet) -> str:
    """Return the options by which an extraction has these examples."""
    return f" --split {sample_set.split} --samples {sample_set.n_samples}"


def advice(workspace: Workspace, side: Selection, options: str = "") -> str:
    """Return which command stores what a selection names, as a part of a sentence."""
    if not side.is_network:
        return f"'allcnn store ls --workspace {workspace.root}' lists what is stored"
    command = f"allcnn extract {side.run} --checkpoint {side.checkpoint}{options}"
    # What is stored without a run may come from another program.
    foreign = options and side.run not in workspace.runs()
    other = ", or 'allcnn store import' again what another program made" if foreign else ""
    return f"run '{command} --workspace {workspace.root}'{other}"
