"""Look a whole store through for damage: every chunk, coordinate and piece of metadata.

One minibatch is in memory at a time. What a kill leaves behind is no damage: neither a group in the
middle of its creation nor a chunk that was not committed.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final

from store.arrays.query import LEVELS
from store.arrays.removed_taps import REMOVED, removed_taps
from store.arrays.tap_names import tap_at
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
from store.maintenance.expected_metadata import group_problem, read_node
from store.maintenance.verify_arrays import COORDINATE_ARRAYS, READERS, examine
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
from store.zarrfiles.metadata_files import NODE, SEAL

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
    """Look through what is stored of the representations whose names fit shell patterns.

    Yields every folder that was looked through, with all that is damaged in it; no damage hides
    another. Of results and probes, those of a name that fits, that are about such a representation.

    A tap whose folder is gone is named by ``taps_of``, which returns the taps of a run's network as
    far as it knows them, or by the run's other checkpoints.

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
    """Return how many folders of data a store seems to hold, without looking into any."""
    place = as_place(path)
    depth = 1 if kind in NAMED else READERS[kind].form.depth
    with reaching(place):
        return _n_below(place, depth)


def _n_below(place: Place, depth: int, above: int = 0) -> int:
    names = child_names(place, partial(is_folder, depth=above))
    if above + 1 == depth:
        return len(names)
    return sum(_n_below(place / name, depth, above + 1) for name in names)


def _root(place: Place, kind: Kind) -> Checked:
    """Look at the metadata of the root; those of another program are no damage, but an error."""
    try:
        open_root(place, kind)
    except (SchemaError, DamagedChunkError) as error:
        if _is_newer(place) or not _holds_ours(place, kind):
            raise
        return _checked(kind, "", METADATA, reason_of(error))
    node = read_node(place)
    assert isinstance(node, dict)
    return _checked(kind, "", METADATA, group_problem(node, frozenset({STORE_MARK, SEAL})))


def _is_newer(place: Place) -> bool:
    node = read_node(place)
    attributes = node.get("attributes") if isinstance(node, dict) else None
    mark = attributes.get(STORE_MARK) if isinstance(attributes, dict) else None
    version = mark.get("schema_version") if isinstance(mark, dict) else None
    return isinstance(version, int) and version > SCHEMA_VERSION


def _holds_ours(place: Place, kind: Kind) -> bool:
    """Return whether something lies below a root that a store of this kind holds."""
    depth = 1 if kind in NAMED else READERS[kind].form.depth
    nodes = [name for name, *_ in walk_files(place) if name.rpartition("/")[2] == NODE]
    found = (place / name for name in nodes if name.count("/") == depth)
    return any(b'"allcnn_' in node.read_bytes() for node in found)


_NETWORK_DEPTH: Final = len(LEVELS) - 1


class _Walk:
    """Goes through the folders of a store of activations or of Grams."""

    def __init__(
        self, place: Place, kind: Kind, patterns: tuple[str, ...], taps_of: TapsOf
    ) -> None:
        self._place, self._kind, self._taps_of = place, kind, taps_of
        self._form = READERS[kind].form
        self._patterns = (*patterns, *["*"] * (self._form.depth - len(patterns)))

    def folders(self, path: str) -> Iterator[Checked]:
        """Look through what is in a folder and fits, then at the folder's own metadata."""
        depth, has_data, n_missing = path.count("/") + 1 if path else 0, False, 0
        is_whole = True
        for name in _folder_names(self._place / path):
            below = f"{path}/{name}" if path else name
            if not fits(self._name(below, depth), self._patterns[depth]):
                continue
            if not is_folder(name, depth):
                yield self._told(below, FOLDER, "no key has such a name")
            elif depth + 1 == self._form.depth:
                checked = self._group(below)
                has_data |= checked.is_data
                n_missing = max(n_missing, checked.n_missing_taps)
                is_whole &= not checked.unfinished
                yield checked
            else:
                for checked in self.folders(below):
                    has_data |= checked.is_data
                    n_missing = max(n_missing, checked.n_missing_taps)
                    is_whole &= not checked.unfinished
                    yield checked
        if path:
            yield self._above(path, has_data)
        if depth == _NETWORK_DEPTH and n_missing:
            yield self._lacking(path, n_missing, is_whole)

    def _lacking(self, path: str, n_missing: int, is_whole: bool) -> Checked:
        """Tell of taps without a folder: all are made before any is filled, so they were lost."""
        n_lost = n_missing - len(removed_taps(self._place / path))
        if not is_whole or n_lost <= 0:
            return self._unfinished(path, f"taps are missing: {n_missing}")
        names = self._lost(path)
        if len(names) != n_lost:
            return self._told(path, MISSING, f"{n_lost} of them, whose names nothing tells")
        found = [Damage(self._kind, f"{path}/{name}", MISSING, "no folder") for name in names]
        return Checked(self._kind, path, tuple(found))

    def _lost(self, path: str) -> list[str]:
        """Return the folders of taps that a network should have and has not."""
        sample_set, run, _ = path.split("/")
        siblings = self._place / sample_set / run
        known = [tap_folder(tap) for tap in self._taps_of(run)]
        for name in [] if known else child_names(siblings):
            known += child_names(siblings / name, is_tap_folder)
        network = self._place / path
        there = {*child_names(network, is_tap_folder), *removed_taps(network)}
        return [name for name in dict.fromkeys(known) if name not in there]

    def _name(self, path: str, depth: int) -> str:
        """Return what a folder stands for."""
        return tap_at(self._place, path) if depth == TAP_DEPTH else path.rpartition("/")[2]

    def _above(self, path: str, has_data: bool) -> Checked:
        """Look at the metadata of a folder above representations."""
        node = read_node(self._place / path)
        if node is not None:
            problem = (
                group_problem(node, frozenset({SEAL, REMOVED})) if isinstance(node, dict) else node
            )
            return self._told(path, METADATA, problem)
        if has_data:
            return self._told(path, METADATA, f"it has no {NODE}")
        files = [name for name, *_ in walk_files(self._place / path) if "/" not in name]
        return self._odd(path, files)

    def _group(self, path: str) -> Checked:
        """Look through a representation, or its Grams, if it is one."""
        lacks = self._lacks(read_node(self._place / path))
        if lacks is None:
            return examine(self._place, self._kind, path)
        array = self._place / path / self._form.array
        # Chunks are written after the metadata, so these were here. Whoever removes a group begins
        # with them, but holds a claim, which a kill leaves behind.
        if (array / "c").is_dir() and not (array / CLAIM).exists():
            damage = Damage(self._kind, path, METADATA, lacks)
            return Checked(self._kind, path, (damage,), is_data=True)
        ours = {self._form.array, *COORDINATE_ARRAYS}
        files = [name for name, *_ in walk_files(self._place / path)]
        odd = self._odd(path, [name for name in files if name.split("/")[0] not in ours])
        if odd.damage or not files:
            return odd
        return self._unfinished(path, "begun, or removed in part")

    def _unfinished(self, path: str, reason: str) -> Checked:
        return Checked(self._kind, path, unfinished=(Unfinished(self._kind, path, reason),))

    def _lacks(self, node: dict[str, Any] | str | None) -> str | None:
        """Return what a folder lacks that a representation has from its beginning."""
        if node is None:
            return f"it has no {NODE}"
        attributes = node.get("attributes", {}) if isinstance(node, dict) else None
        if isinstance(attributes, dict) and self._form.mark not in attributes:
            return f"it has no attribute {self._form.mark!r}"
        return None

    def _odd(self, path: str, files: list[str]) -> Checked:
        """Name a folder with files that no store wrote; in one in the making there are none."""
        odd = [name for name in files if not (name == NODE or name[0] == "." or is_leftover(name))]
        return self._told(path, FOLDER, f"it holds {odd[0]!r}" if odd else None)

    def _told(self, path: str, part: str, problem: str | None) -> Checked:
        return _checked(self._kind, path, part, problem)


def _checked(kind: Kind, path: str, part: str, problem: str | None) -> Checked:
    return Checked(kind, path, (Damage(kind, path, part, problem),) if problem else ())


def _folder_names(place: Place) -> list[str]:
    """Return the names of folders, hidden ones aside, whether or not keys can have them."""
    names = [name for name in entry_names(place) if name[0] != "."]
    return [name for name in names if (place / name).is_dir()]
