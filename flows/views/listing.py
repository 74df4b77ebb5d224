"""Tables of what is stored for people, with sizes and ages in words."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from allcnn.commands import command
from allcnn.similarity.kernels import served_by
from allcnn.workspace.paths import Workspace
from flows.views.stored import Facts
from flows.views.tables import aligned, table
from store.maintenance.damage import Damage
from store.model.names import some_of


def listing_table(workspace: Workspace, listing: dict[str, list[Any]]) -> str:
    """Return a table each of activations, Grams, results and probes, and a line each damage."""
    rows = (
        [_network_row(each, "activations") for each in listing["activations"]],
        [_network_row(each, "Grams") for each in listing["grams"]],
        list(map(_result_row, listing["results"])),
        list(map(_probe_row, listing["probes"])),
    )
    damaged = [damage_lines(workspace, listing["damaged"])] if listing["damaged"] else []
    return "\n\n".join([*(table(some) for some in rows if some), *damaged])


def damage_lines(workspace: Workspace, damaged: Sequence[Damage]) -> str:
    """Return a line each damage, and what to do."""
    verify = command(workspace.root, "store", "verify", repair=True)
    advice = f"{verify} looks for more, and repairs what a checkpoint still gives"
    return "\n".join([*map(str, damaged), advice])


def network_table(network: Facts) -> str:
    """Return the facts on one network, then a line a tap."""
    of, created_at = network["sample_set"], network["created_at"]
    shape = " x ".join(map(str, of["image_shape"]))
    examples = f"{of['n_samples']} examples of {of['dataset']}/{of['split']}, {shape}"
    facts = [
        ("network", f"{network['run']}@{network['checkpoint']}"),
        ("sample set", f"{of['name']}: {examples}"),
        ("digest", ", ".join(network["checkpoint_digests"])),
        ("written by", ", ".join(network["created_by"])),
        ("written at", f"{created_at}, {age(created_at)} ago"),
    ]
    if attributes := network["attributes"].items():
        facts.append(("attributes", ", ".join(f"{name} {value}" for name, value in attributes)))
    facts += [("Grams", _grams_line(grams)) for grams in network["grams"]]
    taps = ["", table(list(map(_tap_row, network["taps"])))] if network["taps"] else []
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


def _network_row(entry: Facts, what: str) -> dict[str, str]:
    kind, done = {"dtype": entry["kind"]}, "rows"
    if what == "Grams":
        kind, done = {"kind": entry["kind"], "for": _kernels(entry)}, "minibatches"
    return {
        f"{what} of": f"{entry['run']}@{entry['checkpoint']}",
        "sample set": entry["sample_set"],
        "taps": _n_taps(entry),
        **kind,
        done: f"{entry['n_committed']} of {entry['n']}",
        **_sizes(entry),
        "state": _state(entry),
    }


def _result_row(result: Facts) -> dict[str, str]:
    method = result["method"]
    return {
        "result": result["name"],
        "of": some_of(result["networks"], 3),
        "sample set": result["sample_set"],
        "measure": ", ".join(filter(None, (method["title"], method["qualifier"]))),
        "kernel": method["kernel_title"],
        "values": f"{result['n_rows']} x {result['n_columns']}",
        **_sizes(result),
    }


def _probe_row(probe: Facts) -> dict[str, str]:
    return {
        "probe": probe["name"],
        "of": f"{probe['run']}@{probe['checkpoint']}",
        "trained on": probe["train_set"],
        "tested on": probe["sample_set"],
        "taps": str(len(probe["taps"])),
        "pool": probe["pool"],
        **_sizes(probe),
    }


def _tap_row(tap: Facts) -> dict[str, str]:
    return {
        "tap": tap["tap"],
        "shape": "x".join(map(str, tap["shape"])),
        "dtype": tap["dtype"],
        "chunks": "x".join(map(str, tap["chunks"])),
        "codec": "+".join(tap["codecs"][1:]) or "none",
        "rows": f"{tap['n_committed']} of {tap['n']}",
        **_sizes(tap),
        "digest": tap["rows_digest"],
        "state": _state(tap),
    }


def _sizes(entry: Facts) -> dict[str, str]:
    """Return the sizes, and where that is known the age."""
    sizes = {"raw": size(entry["raw_bytes"]), "stored": size(entry["stored_bytes"])}
    return sizes | ({"age": age(entry["created_at"])} if "created_at" in entry else {})


def _n_taps(entry: Facts) -> str:
    n, missing = len(entry["taps"]), entry["n_missing_taps"]
    return f"{n} of {n + missing}" if missing else str(n)


def _grams_line(grams: Facts) -> str:
    taps = "1 tap" if len(grams["taps"]) == 1 else f"{_n_taps(grams)} taps"
    bound = grams["error_bound"]
    accuracy = "accuracy not known" if bound is None else f"squared distances within {bound:.1g}"
    stored = f"{size(grams['stored_bytes'])}, {_state(grams)}"
    return f"{grams['kind']} of {taps} for {_kernels(grams)}, {accuracy}, {stored}"


def _kernels(grams: Facts) -> str:
    """Return which kernels these Grams serve."""
    return served_by(grams["kind"].partition("-")[0])


def _state(entry: Facts) -> str:
    return "complete" if entry["complete"] else "unfinished"
