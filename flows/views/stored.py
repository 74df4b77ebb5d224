"""What one network, tap or result is in a store: names, sizes and state, as plain values."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from allcnn.errors import RunError
from store import Grams, Representation, RepresentationKey
from store.arrays.reader import n_missing_taps
from store.maintenance.usage import Usage, measure, raw_bytes
from store.zarrfiles.layout import Kind
from store.zarrfiles.metadata_files import read_array


@dataclass(frozen=True)
class Stored:
    """Activations, or Grams of one kind, of one run and checkpoint on one sample set.

    ``n_committed`` is that of the tap with the fewest, of ``n`` rows, or of minibatches;
    ``n_missing_taps`` have no folder, as far as the others know;
    ``error_bound`` is the largest of Grams, of squared distances against usual ones; None for
    activations, and for Grams with a minibatch of which none is known;
    ``raw_bytes`` counts what is committed, before compression; ``stored_bytes`` all files.
    """

    run: str
    checkpoint: str
    sample_set: str
    kind: str
    error_bound: float | None
    taps: tuple[str, ...]
    n_missing_taps: int
    n_committed: int
    n: int
    raw_bytes: int
    stored_bytes: int
    created_at: str
    complete: bool
    attributes: dict[str, Any]


@dataclass(frozen=True)
class StoredTap:
    """How the activations of one tap are stored; ``rows_digest`` stands for its committed rows."""

    tap: str
    shape: tuple[int, ...]
    dtype: str
    chunks: tuple[int, ...]
    codecs: tuple[str, ...]
    n_committed: int
    n: int
    raw_bytes: int
    stored_bytes: int
    rows_digest: str
    complete: bool


class Files:
    """What lies in the folders of networks, looked up once each: at an address that is slow."""

    def __init__(self) -> None:
        self._found: dict[tuple[Kind, tuple[str, str, str]], dict[str, Usage]] = {}

    def of(self, one: Representation | Grams) -> Usage | None:
        """Return what a group's files are."""
        return self._network(one).get(one.meta.key.path)

    def _network(self, one: Representation | Grams) -> dict[str, Usage]:
        kind, network = one.form.kind, network_of(one)
        if (kind, network) not in self._found:
            found = measure(one.store_path, kind, "/".join(network))
            groups = {each.path: each for each in found if not each.is_file}
            self._found[kind, network] = groups
        return self._found[kind, network]


def stored(group: Sequence[Representation | Grams], files: Files) -> Stored:
    """Sum up the taps of one network that are stored alike."""
    sample_set, run, checkpoint, kind = kind_of(group[0])
    # Grams may be wanted of some taps alone.
    n_missing = n_missing_taps([one for one in group if isinstance(one, Representation)])
    return Stored(
        run=run,
        checkpoint=checkpoint,
        sample_set=sample_set,
        kind=kind,
        error_bound=_error_bound(group),
        taps=tuple(key.tap for key in map(key_of, group)),
        n_missing_taps=n_missing,
        n_committed=min(one.n_committed for one in group),
        n=group[0].meta.length,
        raw_bytes=sum(map(raw_bytes, group)),
        stored_bytes=sum(_stored_bytes(one, files) for one in group),
        created_at=max(one.meta.created_at for one in group),
        complete=not n_missing and all(one.complete for one in group),
        attributes=dict(group[0].meta.attributes),
    )


def stored_tap(tap: Representation, files: Files) -> StoredTap:
    """Look up how one tap is stored; reads no chunk."""
    array = read_array(tap.place / "activations")
    if array is None:
        raise RunError(f"{tap.place} has lost its array", remedy="verify the store")
    return StoredTap(
        tap=tap.key.tap,
        shape=tap.meta.shape,
        dtype=tap.meta.dtype,
        chunks=array.chunks,
        codecs=array.codec_names,
        n_committed=tap.n_committed,
        n=tap.meta.length,
        raw_bytes=raw_bytes(tap),
        stored_bytes=_stored_bytes(tap, files),
        rows_digest=tap.rows_digest,
        complete=tap.complete,
    )


def key_of(one: Representation | Grams) -> RepresentationKey:
    """Return the representation that this is, or whose Grams these are."""
    return one.key.of if isinstance(one, Grams) else one.key


def network_of(one: Representation | Grams) -> tuple[str, str, str]:
    """Return the sample set, the run and the checkpoint."""
    key = key_of(one)
    return key.sample_set, key.run, key.checkpoint


def kind_of(one: Representation | Grams) -> tuple[str, ...]:
    """Return the network, and what tells apart what is kept of it."""
    kind = one.key.variant if isinstance(one, Grams) else one.meta.dtype
    return (*network_of(one), kind)


def _error_bound(group: Sequence[Representation | Grams]) -> float | None:
    bounds = [bound for one in group if isinstance(one, Grams) for bound in one.bounds]
    known = [bound for bound in bounds if bound is not None and math.isfinite(bound)]
    return max(known) if known and len(known) == len(bounds) else None


def _stored_bytes(one: Representation | Grams, files: Files) -> int:
    found = files.of(one)
    return found.n_bytes if found else 0
