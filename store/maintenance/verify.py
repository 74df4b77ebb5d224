"""Verify a whole store: every chunk, coordinate and piece of metadata.

One minibatch is in memory at a time. The remains of interrupted writes are no damage: neither a
group in the middle of its creation nor a chunk that was not committed.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from store.arrays.query import LEVELS
from store.arrays.tap_folders import REMOVED, removed_taps, tap_at
from store.errors import DamagedChunkError, SchemaError
from store.maintenance.damage import (
    FOLDER,
    METADATA,
    MISSING,
    Checked,
    Damage,
    Unfinished,
    reason_of,
)
from store.maintenance.expected_metadata import NoMetadataError, check_group, read_node
from store.maintenance.usage import DEPTHS, STORES
from store.maintenance.verify_arrays import COORDINATE_ARRAYS, examine
from store.maintenance.verify_records import examine_records
from store.model.names import TAP_DEPTH, fits, is_folder, is_tap_folder, tap_folder
from store.model.schema import SCHEMA_VERSION
from store.storage.claims import CLAIM
from store.storage.paths import (
    Address,
    Place,
    as_place,
    child_names,
    entry_names,
    is_leftover,
    walk_files,
)
from store.storage.remote_errors import reaching
from store.zarrfiles.layout import NAMED, STORE_MARK, Kind, open_root
from store.zarrfiles.metadata_files import NODE

TapsOf = Callable[[str], Sequence[str]]


def verify(
    path: Address,
    kind: Kind,
    *,
    sample_set: str = "*",
    run: str = "*",
    checkpoint: str = "*",
    tap: str = "*",
    result: str = "*",
    taps_of: TapsOf = lambda _: (),
) -> Iterator[Checked]:
    """Verify the representations whose names fit shell patterns.

    Yields every folder that was verified, with all that is damaged in it; no damage hides another.
    Results and probes are verified if their own name fits, and they are about such a
    representation.

    The name of a tap whose folder is missing comes from ``taps_of``, which returns the taps of a
    run's network as far as it knows them, or from the run's other checkpoints.

    Raises StoreLocationError where no store is, SchemaError for a foreign or newer one.
    """
    place, patterns = as_place(path), (sample_set, run, checkpoint, tap)
    with reaching(place):
        yield _root(place, kind)
        if kind in NAMED:
            yield from examine_records(place, kind, patterns, result)
        else:
            yield from _Walk(place, kind, patterns, taps_of).folders("")


def n_expected(path: Address, kind: Kind) -> int:
    """Return how many folders of data a store seems to hold, without opening any."""
    place = as_place(path)
    with reaching(place):
        found = [place]
        for depth in range(DEPTHS[kind]):
            is_one = partial(is_folder, depth=depth)
            found = [each / name for each in found for name in child_names(each, is_one)]
        return len(found)


def _root(place: Place, kind: Kind) -> Checked:
    """Check the metadata of the root; those of another program are no damage, but an error."""
    try:
        open_root(place, kind)
    except (SchemaError, DamagedChunkError) as error:
        if _is_newer(place) or not _holds_ours(place, kind):
            raise
        return Checked.damaged(kind, "", METADATA, reason_of(error))
    try:
        check_group(place, STORE_MARK)
    except SchemaError as error:
        return Checked.damaged(kind, "", METADATA, reason_of(error))
    return Checked(kind, "")


def _is_newer(place: Place) -> bool:
    with suppress(SchemaError, KeyError, TypeError):
        version = read_node(place)["attributes"][STORE_MARK]["schema_version"]
        return isinstance(version, int) and version > SCHEMA_VERSION
    return False


def _holds_ours(place: Place, kind: Kind) -> bool:
    """Return whether there is a group below a root as a store of this kind holds it."""
    nodes = [name for name, *_ in walk_files(place) if name.rpartition("/")[2] == NODE]
    found = (place / name for name in nodes if name.count("/") == DEPTHS[kind])
    return any(b'"allcnn_' in node.read_bytes() for node in found)


_NETWORK_DEPTH: Final = len(LEVELS) - 1


class _Walk:
    """Goes through the folders of a store of activations or of Grams."""

    def __init__(
        self, place: Place, kind: Kind, patterns: tuple[str, ...], taps_of: TapsOf
    ) -> None:
        self._place, self._kind, self._taps_of = place, kind, taps_of
        self._form, self._damaged = STORES[kind].reader.form, partial(Checked.damaged, kind)
        self._patterns = (*patterns, *["*"] * (self._form.depth - len(patterns)))

    def folders(self, path: str) -> Iterator[Checked]:
        """Verify the contents of a folder that fit, then the folder's own metadata."""
        depth, has_data, n_missing = path.count("/") + 1 if path else 0, False, 0
        is_whole = True
        for name in entry_names(self._place / path):
            below = f"{path}/{name}" if path else name
            if name[0] == "." or not (self._place / below).is_dir():
                continue
            called = tap_at(self._place, below) if depth == TAP_DEPTH else name
            if not fits(called, self._patterns[depth]):
                continue
            if not is_folder(name, depth):
                yield self._damaged(below, FOLDER, "no key has such a name")
                continue
            is_group = depth + 1 == self._form.depth
            for checked in [self._group(below)] if is_group else self.folders(below):
                has_data |= checked.is_data
                n_missing = max(n_missing, checked.n_missing_taps)
                is_whole &= not checked.unfinished
                yield checked
        if path:
            yield self._above(path, has_data)
        if depth == _NETWORK_DEPTH and n_missing:
            yield self._lacking(path, n_missing, is_whole)

    def _lacking(self, path: str, n_missing: int, is_whole: bool) -> Checked:
        """Report taps without a folder: all are made before any is filled, so they were lost."""
        n_lost = n_missing - len(removed_taps(self._place / path))
        if not is_whole or n_lost <= 0:
            return self._unfinished(path, f"taps are missing: {n_missing}")
        names = self._lost(path)
        if len(names) != n_lost:
            return self._damaged(path, MISSING, f"{n_lost} of them, whose names are not known")
        found = [Damage(self._kind, f"{path}/{name}", MISSING, "no folder") for name in names]
        return Checked(self._kind, path, tuple(found))

    def _lost(self, path: str) -> list[str]:
        """Return the folders of taps that a network lacks."""
        sample_set, run, _ = path.split("/")
        siblings = self._place / sample_set / run
        known = [tap_folder(tap) for tap in self._taps_of(run)]
        for name in [] if known else child_names(siblings):
            known += child_names(siblings / name, is_tap_folder)
        network = self._place / path
        there = {*child_names(network, is_tap_folder), *removed_taps(network)}
        return [name for name in dict.fromkeys(known) if name not in there]

    def _above(self, path: str, has_data: bool) -> Checked:
        """Check the metadata of a folder above representations."""
        try:
            check_group(self._place / path, REMOVED)
        except SchemaError as error:
            if has_data or not isinstance(error, NoMetadataError):
                return self._damaged(path, METADATA, reason_of(error))
            files = [name for name, *_ in walk_files(self._place / path) if "/" not in name]
            return self._odd(path, files)
        return Checked(self._kind, path)

    def _group(self, path: str) -> Checked:
        """Verify a representation, or its Grams, if it is one."""
        try:
            attributes = read_node(self._place / path).get("attributes", {})
            if not isinstance(attributes, dict) or self._form.mark in attributes:
                return examine(self._place, self._kind, path)
            lacks = f"it has no attribute {self._form.mark!r}"
        except NoMetadataError as error:
            lacks = reason_of(error)
        except SchemaError:
            return examine(self._place, self._kind, path)
        array = self._place / path / self._form.array
        # Chunks are written after the metadata, so these were here. A process that removes a group
        # begins with them, but holds a claim, which a kill leaves behind.
        if (array / "c").is_dir() and not (array / CLAIM).exists():
            return self._damaged(path, METADATA, lacks, is_data=True)
        ours = {self._form.array, *COORDINATE_ARRAYS}
        files = [name for name, *_ in walk_files(self._place / path)]
        odd = self._odd(path, [name for name in files if name.split("/")[0] not in ours])
        if odd.damage or not files:
            return odd
        return self._unfinished(path, "begun, or removed in part")

    def _unfinished(self, path: str, reason: str) -> Checked:
        return Checked(self._kind, path, unfinished=(Unfinished(self._kind, path, reason),))

    def _odd(self, path: str, files: list[str]) -> Checked:
        """Report a folder with files that no store wrote; a group in the making has none."""
        odd = [name for name in files if not (name == NODE or name[0] == "." or is_leftover(name))]
        if odd:
            return self._damaged(path, FOLDER, f"it holds {odd[0]!r}")
        return Checked(self._kind, path)
