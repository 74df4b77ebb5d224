"""Why what is stored cannot be compared, and which command helps."""

from collections.abc import Sequence

from allcnn.advice import extracting, importing, is_extracted, is_here, replace_stored, store_again
from allcnn.compare.candidates import (
    Found,
    Meta,
    by_network,
    digests_of,
    missing_tap,
    network_of,
    preference,
    sources_of,
)
from allcnn.compare.reextract import examples_of, store_whole
from allcnn.errors import AllcnnError
from allcnn.settings.comparison import Comparison
from allcnn.settings.selection import Selection
from allcnn.workspace import run_record
from allcnn.workspace.paths import Workspace
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
            again = store_whole(workspace, taps[0])
            return (
                f"tap {missing} of {network} on {taps[0].key.sample_set}, counted from 0, is not"
                f" stored; {again}, or name the taps, as in '{network}:conv[1-3]'"
            )
        if not sources_of(taps, job):
            return _why_mixed(workspace, network, taps, job)
    found = [each for members in sets.values() for each in members]
    places = {
        network: dict.fromkeys(each.key.sample_set for each in taps)
        for network, taps in by_network(found).items()
    }
    spread = sorted(places.items(), key=lambda item: len(item[1]))
    ends = ", ".join(f"{network} on {' and '.join(on)}" for network, on in (spread[0], spread[-1]))
    return (
        f"no sample set holds all networks of {side} whole: {ends}; compare those on one"
        f" of them with --sample-set, or {alike(workspace, [each.meta for each in found])}"
    )


def _why_mixed(workspace: Workspace, network: Selection, taps: list[Found], job: Comparison) -> str:
    examples, digests = taps[0].meta.sample_set, digests_of(taps)
    place, how = f"{network} on {examples.name}", examples_of(examples)
    if len(digests) > 1:
        again = (
            replace_stored(workspace, network, examples.name, how, "grams")
            if all(each.extracted for each in taps)
            else store_again(workspace, network)
        )
        return (
            f"what is kept of {place} is of several checkpoints: {' and '.join(digests)}; {again}"
        )
    dtypes = sorted({dtype for each in taps for _, dtype in each.versions(job)})
    return (
        f"the taps of {place} are kept in {' and '.join(dtypes)}, and in none all of them;"
        f" {store_again(workspace, network, **how)}"
    )


def _why_unusable(workspace: Workspace, found: Found, job: Comparison) -> str:
    network, on = network_of(found.key), found.key.sample_set
    if found.activations is not None:
        return (
            f"the activations of {network} on {on} are unfinished in {workspace.root};"
            f" {store_whole(workspace, found)}"
        )
    if job.method.is_whole:
        return (
            f"{job.method.measure.how} needs activations, and of {network} on {on} Grams alone are"
            f" kept; {store_whole(workspace, found)}"
        )
    how = examples_of(found.meta.sample_set)
    kept = sorted({_describe(g) for g in found.grams})
    method = job.method
    how |= {"keep": "grams", "batch_size": method.batch_size, "dtype": found.grams[0].key.dtype}
    how |= {"kernel": method.kernel.reference, "pool": method.pool}
    return (
        f"the Grams kept of {found.key} on {on} are {' and '.join(kept)}, and {method.kernel.base}"
        f" {method.pool} ones in minibatches of {method.batch_size} are needed;"
        f" {store_again(workspace, network, **how)}"
    )


def _describe(grams: Grams) -> str:
    key = grams.key
    state = "" if grams.complete else ", unfinished"
    return f"{key.kernel} {key.pool} ones in minibatches of {key.batch_size}{state}"


def alike(workspace: Workspace, stored: Sequence[Meta], wanted: str | None = None) -> str:
    """Say how to store networks on one sample set, on ``wanted`` if possible."""
    sets = {each.sample_set.name: each.sample_set for each in stored}
    on = {(network_of(each.of), each.sample_set.name) for each in stored}
    networks = list(dict.fromkeys(network_of(each.of) for each in stored))
    extracted = [each for each in stored if is_extracted(each.attributes)]
    lacking = {name: [n for n in networks if (n, name) not in on] for name in sets}
    whole = [name for name, missing in lacking.items() if not missing]
    if whole:
        return f"name one that all are stored on with --sample-set: {', '.join(whole)}"
    # Imported examples are not those of the data set, for all that is known.
    own = {each.sample_set for each in extracted}
    for sample_set in sorted(own, key=lambda s: (s.name == wanted, preference(s)), reverse=True):
        missing = lacking[sample_set.name]
        if all(_sees(workspace, network, sample_set) for network in missing):
            how = examples_of(sample_set)
            commands = [str(extracting(workspace, network, **how)) for network in missing]
            more = f", and likewise for {len(commands) - 3} more" if commands[3:] else ""
            return f"run {' and '.join(commands[:3])}{more}"
    if len({each.image_shape for each in sets.values()}) > 1 and len(extracted) == len(stored):
        shapes = sorted({" x ".join(map(str, each.image_shape)) for each in sets.values()})
        return (
            f"their images are {' and '.join(shapes)}, so that no sample set can be shown to all;"
            " compare networks of the same data set and image size"
        )
    return (
        "import one of them over the examples of the other, with --like RUN@CHECKPOINT"
        f" ({importing()} says how)"
    )


def _sees(workspace: Workspace, network: Selection, sample_set: SampleSet) -> bool:
    """Return whether a network can be extracted on these examples."""
    if not is_here(workspace, network):
        return False
    try:
        config = run_record.read_record(workspace, network.run).config
    except AllcnnError:
        return False
    seen = config.dataset, config.image_size
    return seen == (sample_set.dataset, sample_set.image_shape[0])
