"""Disk usage of the groups of a store, from one walk over its files."""

import math
import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from store.arrays.committed import CommittedReader
from store.arrays.grams import GramStore
from store.arrays.reader import Store
from store.arrays.scan import CommittedStore
from store.errors import StoreError
from store.model.schema import RepresentationKey
from store.records.probes import PROBES
from store.records.records import DIGESTS, RecordForm
from store.records.results import RESULTS
from store.storage.paths import Place, check_inside, is_leftover, walk_files
from store.storage.remote_errors import reaching
from store.zarrfiles.layout import Kind
from store.zarrfiles.metadata_files import read_array, read_attributes

STORES: Final[dict[Kind, type[CommittedStore[Any]]]] = {"activations": Store, "grams": GramStore}
FORMS: Final[dict[Kind, RecordForm[Any]]] = {"similarity": RESULTS, "probes": PROBES}

DEPTHS: Final[dict[Kind, int]] = {
    **{kind: store.reader.form.depth for kind, store in STORES.items()},
    **dict.fromkeys(FORMS, 1),
}
"""Components of a group's path in each kind of store."""


@dataclass(frozen=True)
class Usage:
    """A group of a store, whole or not, or a file outside all groups.

    ``members`` are the names of what a group's folder holds, none for a file. A file left by an
    interrupted write counts as one of its own. ``changed`` is when the newest of its files was
    written, as a POSIX timestamp.
    """

    kind: Kind
    path: str
    members: frozenset[str]
    n_files: int
    n_bytes: int
    changed: float

    @property
    def is_file(self) -> bool:
        """Whether this is a file, and no group."""
        return not self.members

    @property
    def names(self) -> tuple[str, ...]:
        """Components of the path."""
        return tuple(self.path.split("/"))

    @property
    def group(self) -> str:
        """Path of the group that it is, or lies in; its own where it lies outside of groups."""
        return "/".join(self.names[: DEPTHS[self.kind]])


def measure(place: Place, kind: Kind, below: str = "") -> list[Usage]:
    """Return the contents of a store, or of one of its folders above groups, sorted by path.

    Symbolic links are not followed.
    """
    depth = DEPTHS[kind]
    found: dict[str, list[tuple[str, int, float]]] = defaultdict(list)
    with reaching(place):
        for name, n_bytes, changed in walk_files(place / below):
            path = f"{below}/{name}".lstrip("/")
            parts = path.split("/")
            is_file = len(parts) <= depth or is_leftover(parts[-1])
            group = path if is_file else "/".join(parts[:depth])
            found[group].append(("" if is_file else parts[depth], n_bytes, changed))
    usages = []
    for path, files in sorted(found.items()):
        members, sizes, times = zip(*files, strict=True)
        named = frozenset(filter(None, members))
        usages.append(Usage(kind, path, named, len(files), sum(sizes), max(times)))
    return usages


def linked_folders(place: Place, kind: Kind) -> list[str]:
    """Return the symbolic links in place of a group, or of a folder above groups."""
    if not isinstance(place, Path) or not place.is_dir():
        return []
    found: list[str] = []
    for folder, names, _ in os.walk(place):
        parts = Path(folder).relative_to(place).parts
        found += ["/".join([*parts, n]) for n in names if Path(folder, n).is_symlink()]
        if len(parts) + 1 >= DEPTHS[kind]:
            names.clear()
    return found


def raw_bytes(found: CommittedReader[Any]) -> int:
    """Return the bytes of the committed part of an array, as they are in memory."""
    return found.n_committed * found.row_bytes


def committed(place: Place, kind: Kind, network: tuple[str, ...]) -> dict[str, Any] | None:
    """Open the groups of a network by their paths, or return None where one is damaged.

    ``network`` is the sample set, the run and the checkpoint. A group that is being created, or
    that a kill left half removed, is not among them.
    """
    (sample_set, run, checkpoint), opened = network, STORES[kind](place)
    try:
        return {each.meta.key.path: each for each in opened.find(run, checkpoint, sample_set)}
    except StoreError:
        return None


def result_facts(
    place: Place, name: str, kind: Kind = "similarity"
) -> tuple[int, list[RepresentationKey]] | None:
    """Return the bytes of a record's arrays and its representations; None where it is damaged."""
    form = FORMS[kind]
    try:
        check_inside(place, place / name)
        attributes = read_attributes(place / name)
        if attributes is None or form.mark not in attributes:
            return None
        arrays = filter(None, (read_array(place / name / each) for each in attributes[DIGESTS]))
        n_bytes = sum(math.prod(each.shape) * np.dtype(each.dtype).itemsize for each in arrays)
        texts = dict.fromkeys(text for side in form.sides for text in attributes[form.mark][side])
        return n_bytes, [RepresentationKey.from_text(text) for text in texts]
    except (StoreError, KeyError, TypeError):
        return None


def networks(found: list[Usage]) -> Iterator[tuple[tuple[str, ...], list[Usage]]]:
    """Yield each sample set, run and checkpoint with its groups."""
    groups: dict[tuple[str, ...], list[Usage]] = defaultdict(list)
    for each in found:
        if not each.is_file:
            groups[each.names[:3]].append(each)
    yield from groups.items()
