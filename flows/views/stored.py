"""What a workspace holds: described by plain values, and the error where that is nothing.

Values are the names, sizes and state of networks, taps, results and probes.
"""

import math
from collections.abc import Iterator, Sequence, Set
from contextlib import suppress
from typing import Any

from allcnn.advice import listing
from allcnn.errors import RunError
from allcnn.maintenance.inventory import KINDS
from allcnn.settings.selection import Selection
from allcnn.workspace.paths import Workspace
from store import (
    Grams,
    GramStore,
    Representation,
    RepresentationKey,
    Store,
    StoreError,
    has_store,
    open_grams,
)
from store import open as open_store
from store.arrays.reader import n_missing_taps
from store.maintenance.damage import METADATA, Damage, reason_of
from store.maintenance.usage import FORMS, Usage, measure, raw_bytes, result_facts
from store.records.results import method_of
from store.storage.paths import Place, child_names, walk_files
from store.storage.remote_errors import each
from store.zarrfiles.layout import Kind
from store.zarrfiles.metadata_files import read_array

Facts = dict[str, Any]
"""The facts on one thing, under their names in JSON."""


def nothing_fits(workspace: Workspace, *asked: object, **options: object) -> RunError:
    """Return the error that names all that was asked for; None stands for nothing."""
    texts = [str(each) for each in asked if each is not None]
    given = {name.replace("_", "-"): each for name, each in options.items() if each is not None}
    texts += [f"--{name} {value}" for name, value in given.items()]
    found = f"nothing is extracted yet in {workspace.root}"
    if texts and has_stores(workspace):
        found = f"nothing in {workspace.root} fits {' and '.join(texts)}"
    return RunError(found, remedy=listing(workspace))


def check_stores(workspace: Workspace) -> None:
    """Raise RunError where nothing was ever stored, as in a workspace of a mistyped name."""
    if not has_stores(workspace):
        raise nothing_fits(workspace)


def has_stores(workspace: Workspace) -> bool:
    """Return whether anything was ever stored in a workspace."""
    return any(has_store(workspace.store(kind)) for kind in KINDS)


def open_stores(workspace: Workspace) -> Iterator[Store | GramStore]:
    """Open the stores of activations and of Grams that there are."""
    if has_store(workspace.activations):
        yield open_store(workspace.activations)
    if has_store(workspace.grams):
        yield open_grams(workspace.grams)


class Files:
    """The files of networks, measured once each: that is slow at an address."""

    def __init__(self) -> None:
        self._found: dict[tuple[Kind, str], dict[str, Usage]] = {}

    def of(self, one: Representation | Grams) -> Usage | None:
        """Return what a group's files are."""
        kind, network = one.form.kind, "/".join(network_of(one))
        if (kind, network) not in self._found:
            found = measure(one.store_path, kind, network)
            self._found[kind, network] = {each.path: each for each in found if not each.is_file}
        return self._found[kind, network].get(one.meta.key.path)

    def n_bytes(self, one: Representation | Grams) -> int:
        """Return the bytes of a group's files."""
        found = self.of(one)
        return found.n_bytes if found else 0


def stored(group: Sequence[Representation | Grams], files: Files) -> Facts:
    """Sum up the taps of one network that are stored alike.

    ``n_committed`` is that of the tap with the fewest, of ``n`` rows, or of minibatches;
    ``n_missing_taps`` have no folder, as far as the others know; ``error_bound`` is the largest of
    Grams, of squared distances against usual ones, and None for activations, and where it is not
    known for a minibatch; ``raw_bytes`` counts committed values before compression,
    ``stored_bytes`` all files.
    """
    sample_set, run, checkpoint, kind = kind_of(group[0])
    # Grams may be wanted of some taps alone.
    n_missing = n_missing_taps([one for one in group if isinstance(one, Representation)])
    bounds = [bound for one in group if isinstance(one, Grams) for bound in one.bounds]
    known = [bound for bound in bounds if bound is not None and math.isfinite(bound)]
    return {
        "run": run,
        "checkpoint": checkpoint,
        "sample_set": sample_set,
        "kind": kind,
        "error_bound": max(known) if known and len(known) == len(bounds) else None,
        "taps": [key_of(one).tap for one in group],
        "n_missing_taps": n_missing,
        "n_committed": min(one.n_committed for one in group),
        "n": group[0].meta.length,
        "raw_bytes": sum(map(raw_bytes, group)),
        "stored_bytes": sum(map(files.n_bytes, group)),
        "created_at": max(one.meta.created_at for one in group),
        "complete": not n_missing and all(one.complete for one in group),
        "attributes": dict(group[0].meta.attributes),
    }


def stored_tap(tap: Representation, files: Files) -> Facts:
    """Look up how one tap is stored; reads no chunk. The digest is that of the committed rows."""
    array = read_array(tap.place / "activations")
    if array is None:
        raise RunError(f"{tap.place} has lost its array", remedy="verify the store")
    return {
        "tap": tap.key.tap,
        "shape": tap.meta.shape,
        "dtype": tap.meta.dtype,
        "chunks": array.chunks,
        "codecs": array.codec_names,
        "n_committed": tap.n_committed,
        "n": tap.meta.length,
        "raw_bytes": raw_bytes(tap),
        "stored_bytes": files.n_bytes(tap),
        "rows_digest": tap.rows_digest,
        "complete": tap.complete,
    }


def key_of(one: Representation | Grams) -> RepresentationKey:
    """Return the representation that this is, or whose Grams these are."""
    return one.key.of if isinstance(one, Grams) else one.key


def digest_of(one: Representation | Grams) -> str:
    """Return the digest of the checkpoint that this was extracted from."""
    return one.key.checkpoint_digest if isinstance(one, Grams) else one.meta.checkpoint_digest


def network_of(one: Representation | Grams) -> tuple[str, str, str]:
    """Return the sample set, the run and the checkpoint."""
    key = key_of(one)
    return key.sample_set, key.run, key.checkpoint


def kind_of(one: Representation | Grams) -> tuple[str, ...]:
    """Return the network, and the dtype of its activations or the kind of its Grams."""
    return (*network_of(one), one.key.variant if isinstance(one, Grams) else one.meta.dtype)


def find_records(
    place: Place, kind: Kind, pattern: Selection | None, among: Set[RepresentationKey] | None
) -> Iterator[Facts | Damage]:
    """Look up the results or probes of what a pattern names, and of something among these keys.

    ``sample_set`` is what a result compares, or what a probe was tested on.
    """
    form, described = FORMS[kind], _of_probe if kind == "probes" else _of_result

    def looked_up(name: str) -> Facts | Damage | None:
        try:
            if not form.has(place, name):
                return None  # it is being written
        except StoreError as error:
            return Damage(kind, name, METADATA, reason_of(error))
        found = result_facts(place, name, kind)
        if found is not None:
            raw, keys = found
            fits = pattern is None or any(pattern.matches(k.run, k.checkpoint, k.tap) for k in keys)
            if not fits or (among is not None and among.isdisjoint(keys)):
                return None
            with suppress(KeyError, TypeError, IndexError, StoreError):
                record = form.read_facts(place / name) or {}
                return described(record, keys) | {
                    "raw_bytes": raw,
                    "stored_bytes": sum(n_bytes for _, n_bytes, _ in walk_files(place / name)),
                    "created_at": record.get("provenance", {}).get("created_at", ""),
                }
        return Damage(kind, name, METADATA, "it is malformed")

    if has_store(place):
        yield from filter(None, each(place, looked_up, child_names(place)))


def _of_result(record: Facts, keys: list[RepresentationKey]) -> Facts:
    return {
        "name": record["name"],
        "sample_set": keys[0].sample_set,
        "n_rows": len(record["rows"]),
        "n_columns": len(record["columns"]),
        "networks": list(dict.fromkeys(f"{key.run}@{key.checkpoint}" for key in keys)),
        "method": method_of(record),
        "label": record.get("label"),
    }


def _of_probe(record: Facts, keys: list[RepresentationKey]) -> Facts:
    return {
        "name": record["name"],
        "run": keys[0].run,
        "checkpoint": keys[0].checkpoint,
        "train_set": record["train_set"],
        "sample_set": keys[0].sample_set,
        "taps": [key.tap for key in keys],
        "pool": record["pool"],
    }
