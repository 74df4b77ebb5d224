"""What is stored as tables for people: sizes and ages in words, one line a network or a tap."""

from collections.abc import Sequence
from datetime import UTC, datetime

from allcnn.commands import command
from allcnn.similarity.kernels import served_by
from allcnn.workspace.paths import Workspace
from flows.views.browse import Listing, Network
from flows.views.stored import Stored, StoredTap
from flows.views.stored_results import StoredProbe, StoredResult
from flows.views.tables import aligned
from store.maintenance.damage import Damage

_MOST_NETWORKS = 3
_STATE = ("raw", "stored", "age", "state")


def listing_table(workspace: Workspace, listing: Listing) -> str:
    """Return a table each of activations, Grams, results and probes, and a line each damage."""
    tables = []
    if listing.activations:
        tables.append(_activations_table(listing.activations))
    if listing.grams:
        tables.append(_grams_table(listing.grams))
    if listing.results:
        tables.append(_results_table(listing.results))
    if listing.probes:
        tables.append(_probes_table(listing.probes))
    if listing.damaged:
        tables.append(damage_lines(workspace, listing.damaged))
    return "\n\n".join(tables)


def damage_lines(workspace: Workspace, damaged: Sequence[Damage]) -> str:
    """Return a line each damage, and what to do."""
    verify = command(workspace.root, "store", "verify", repair=True)
    advice = f"{verify} looks for more, and repairs what a checkpoint still gives"
    return "\n".join([*map(str, damaged), advice])


def network_table(network: Network) -> str:
    """Return what is known of one network, then a line a tap."""
    n, shape = network.sample_set.n_samples, " x ".join(map(str, network.sample_set.image_shape))
    dataset, split = network.sample_set.dataset, network.sample_set.split
    facts = [
        ("network", f"{network.run}@{network.checkpoint}"),
        ("sample set", f"{network.sample_set.name}: {n} examples of {dataset}/{split}, {shape}"),
        ("digest", ", ".join(network.checkpoint_digests)),
        ("written by", ", ".join(network.created_by)),
        ("written at", f"{network.created_at}, {age(network.created_at)} ago"),
    ]
    if network.attributes:
        shown = ", ".join(f"{name} {value}" for name, value in network.attributes.items())
        facts.append(("attributes", shown))
    facts += [("Grams", _grams_line(grams)) for grams in network.grams]
    taps = ["", _taps_table(network.taps)] if network.taps else []
    return "\n".join([aligned(facts), *taps])


def size(n_bytes: int) -> str:
    """Write a number of bytes as people do: ``940 B``, ``1.2 MB``."""
    scaled, units = float(n_bytes), ["B", "kB", "MB", "GB", "TB"]
    while scaled >= 999.5 and len(units) > 1:
        scaled, units = scaled / 1000, units[1:]
    digits = 0 if units[0] == "B" or scaled >= 99.95 else 1
    return f"{scaled:.{digits}f} {units[0]}"


def age(created_at: str, now: datetime | None = None) -> str:
    """Write how long ago a time was, in its largest unit: ``45 s``, ``3 h``, ``12 d``."""
    if not created_at:
        return "-"
    passed = (now or datetime.now(UTC)) - datetime.fromisoformat(created_at)
    s = max(0, int(passed.total_seconds()))
    for unit, seconds in (("d", 86_400), ("h", 3600), ("min", 60)):
        if s >= seconds:
            return f"{s // seconds} {unit}"
    return f"{s} s"


def _activations_table(entries: Sequence[Stored]) -> str:
    head = ("activations of", "sample set", "taps", "dtype", "rows", *_STATE)
    return aligned([head, *(_stored_row(entry, entry.kind) for entry in entries)])


def _grams_table(entries: Sequence[Stored]) -> str:
    head = ("Grams of", "sample set", "taps", "kind", "for", "minibatches", *_STATE)
    return aligned([head, *(_stored_row(entry, entry.kind, _kernels(entry)) for entry in entries)])


def _stored_row(entry: Stored, *kind: str) -> tuple[str, ...]:
    return (
        f"{entry.run}@{entry.checkpoint}",
        entry.sample_set,
        _n_taps(entry),
        *kind,
        f"{entry.n_committed} of {entry.n}",
        size(entry.raw_bytes),
        size(entry.stored_bytes),
        age(entry.created_at),
        _state(entry),
    )


def _results_table(results: Sequence[StoredResult]) -> str:
    head = ("result", "of", "sample set", "measure", "kernel", "values", "raw", "stored", "age")
    rows = [
        (
            result.name,
            _several(result.networks),
            result.sample_set,
            ", ".join(filter(None, (result.method["title"], result.method["qualifier"]))),
            result.method["kernel_title"],
            f"{result.n_rows} x {result.n_columns}",
            size(result.raw_bytes),
            size(result.stored_bytes),
            age(result.created_at),
        )
        for result in results
    ]
    return aligned([head, *rows])


def _probes_table(probes: Sequence[StoredProbe]) -> str:
    head = ("probe", "of", "trained on", "tested on", "taps", "pool", "raw", "stored", "age")
    rows = [
        (
            probe.name,
            f"{probe.run}@{probe.checkpoint}",
            probe.train_set,
            probe.sample_set,
            str(len(probe.taps)),
            probe.pool,
            size(probe.raw_bytes),
            size(probe.stored_bytes),
            age(probe.created_at),
        )
        for probe in probes
    ]
    return aligned([head, *rows])


def _taps_table(taps: Sequence[StoredTap]) -> str:
    head = ("tap", "shape", "dtype", "chunks", "codec", "rows", "raw", "stored", "digest", "state")
    rows = [
        (
            tap.tap,
            _by(tap.shape),
            tap.dtype,
            _by(tap.chunks),
            "+".join(tap.codecs[1:]) or "none",
            f"{tap.n_committed} of {tap.n}",
            size(tap.raw_bytes),
            size(tap.stored_bytes),
            tap.rows_digest,
            _state(tap),
        )
        for tap in taps
    ]
    return aligned([head, *rows])


def _n_taps(entry: Stored) -> str:
    n, missing = len(entry.taps), entry.n_missing_taps
    return f"{n} of {n + missing}" if missing else str(n)


def _grams_line(grams: Stored) -> str:
    taps = "1 tap" if len(grams.taps) == 1 else f"{_n_taps(grams)} taps"
    bound = grams.error_bound
    accuracy = "accuracy not known" if bound is None else f"squared distances within {bound:.1g}"
    return (
        f"{grams.kind} of {taps} for {_kernels(grams)}, {accuracy}, {size(grams.stored_bytes)},"
        f" {_state(grams)}"
    )


def _kernels(grams: Stored) -> str:
    """Return which kernels these Grams serve."""
    return served_by(grams.kind.partition("-")[0])


def _several(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_MOST_NETWORKS])
    more = len(names) - _MOST_NETWORKS
    return f"{shown} and {more} more" if more > 0 else shown


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _state(entry: Stored | StoredTap) -> str:
    return "complete" if entry.complete else "unfinished"
