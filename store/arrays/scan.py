"""Find what one kind of store holds, by the names of folders and by metadata."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from store.arrays.committed import CommittedReader, Key, parse
from store.arrays.query import LEVELS, Query, Scalar, Wanted, facts
from store.errors import InvalidKeyError, StoreError, StoreLocationError, UnfinishedError
from store.model.names import is_folder
from store.storage.paths import Address, Place, as_place, check_inside, child_names
from store.storage.remote_errors import each, reaching
from store.zarrfiles.layout import open_root
from store.zarrfiles.metadata_files import NODE, read_attributes

R = TypeVar("R", bound=CommittedReader[Any])


@dataclass(frozen=True)
class Scan(Generic[R]):
    """What a look for groups found.

    Attributes:
        found: those that fit, sorted by sample set, run, checkpoint and position in the network.
        unreadable: by their paths, why others could not be opened; whether they fit is not known.
    """

    found: list[R]
    unreadable: dict[str, StoreError]


class CommittedStore(Generic[R]):
    """A store of committed arrays, read only; pickles as its path."""

    reader: type[R]
    unknown: ClassVar[type[StoreError]]

    def __init__(self, path: Address) -> None:
        self.path = as_place(path)
        open_root(self.path, self.reader.form.kind)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path,)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path}>"

    def find(
        self,
        run: Wanted = None,
        checkpoint: Wanted = None,
        sample_set: Wanted = None,
        **filters: Wanted,
    ) -> list[R]:
        """Open what is stored, complete or not, that fits all filters.

        A filter is ``name=value`` or, with ``__ge``, ``__gt``, ``__le``, ``__lt`` or ``__ne``
        after the name, a comparison: ``tap="conv*", epoch__ge=5, seed=range(4)``. Texts are
        names, or patterns with ``*``, ``?`` and ``[...]`` (in brackets, a character stands for
        itself); of several values any will do; what lacks a name fits no filter on it. Names are
        sample_set, run, checkpoint, tap, dataset, split,
        n_samples, dtype, complete, of Grams kernel, pool and batch_size, and every attribute.

        Sorted by sample set, run, the attribute ``epoch``, checkpoint and position in the network:
        checkpoints as they were trained, those without an epoch last. Raises QueryError for
        names that nothing in the store has, and for texts compared with numbers; and the error of
        the first group that may fit and cannot be opened: ``scan`` passes it over.
        """
        names = {"run": run, "checkpoint": checkpoint, "sample_set": sample_set}
        scan = self.scan(**names, **filters)
        for error in scan.unreadable.values():
            raise error
        return scan.found

    def scan(self, **filters: Wanted) -> Scan[R]:
        """Find as ``find`` does, and tell what cannot be opened instead of raising its error."""
        query = Query.parse(filters)
        scan = self._walk(query)
        if query.unsure(map(_facts, scan.found)).conditions:
            everything = self._walk(Query())
            if not everything.unreadable:  # which may have the name
                query.check(self.path, [_facts(one) for one in everything.found])
        if not (scan.found or scan.unreadable):
            open_root(self.path, self.reader.form.kind)  # else a store that is gone seems empty
        found = (one for one in scan.found if query.matches(_facts(one)))
        return Scan(_in_order(found), scan.unreadable)

    def _walk(self, query: Query) -> Scan[R]:
        """Open what lies in the folders that a query admits."""
        levels = (*LEVELS, *[None] * (self.reader.form.depth - len(LEVELS)))
        paths = _paths(self.path, levels, query)
        opened = dict(zip(paths, each(self.path, self._try_open, paths), strict=True))
        unreadable = {path: one for path, one in opened.items() if isinstance(one, StoreError)}
        return Scan([one for one in opened.values() if isinstance(one, self.reader)], unreadable)

    def _try_open(self, path: str) -> R | StoreError | None:
        try:
            return self._open(path)
        except StoreError as error:
            # An address that cannot be reached says nothing about what is stored there.
            if isinstance(error, StoreLocationError) and not isinstance(self.path, Path):
                raise
            return error

    def _get(self, key: Key) -> R:
        if not isinstance(getattr(key, "path", None), str):
            raise InvalidKeyError(
                f"{key!r} is no key",
                remedy=(
                    "find(run=..., checkpoint=..., tap=...) takes names, and every"
                    " representation that it finds has its key"
                ),
            )
        form, found = self.reader.form, self._open(key.path)
        # A path may say less than a key.
        if found is not None and found.meta.key == key:
            return found
        if found is None and read_attributes(self.path / key.path) is not None:
            raise UnfinishedError(f"{key} is being created in {self.path}", remedy=f"{form.finish}")
        raise self.unknown(f"{self.path} holds no {key} on {key.sample_set}; {form.verb} it first")

    def _open(self, path: str) -> R | None:
        folder = self.path / path
        check_inside(self.path, folder / NODE)
        with reaching(self.path):
            attributes = read_attributes(folder)
        stored = None if attributes is None else parse(self.reader.form, attributes, path)
        if attributes is None or stored is None:
            return None
        return self.reader(self.path, *stored, attributes)


def _paths(root: Place, levels: tuple[str | None, ...], query: Query) -> list[str]:
    """Return the paths of the groups in the folders that a query admits, level by level."""
    folders = [""]
    for depth, level in enumerate(levels):
        if level and (name := query.exact(level)):  # no other is listed
            folders = [f"{folder}/{name}".lstrip("/") for folder in folders]
            continue
        children = each(root, partial(_children, root, depth), folders)
        folders = [
            f"{folder}/{name}".lstrip("/")
            for folder, names in zip(folders, children, strict=True)
            for name in names
            if level is None or query.admits(level, name)
        ]
    return folders


def _children(root: Place, depth: int, folder: str) -> list[str]:
    return child_names(root / folder, partial(is_folder, depth=depth))


def _facts(one: CommittedReader[Any]) -> dict[str, Scalar]:
    return facts(one.meta, one.complete)


def _in_order(found: Iterable[R]) -> list[R]:
    groups = [(one.meta.key.path.split("/"), one) for one in found]
    epochs: dict[tuple[str, ...], float] = {}
    for parts, one in groups:
        network, epoch = tuple(parts[:3]), one.meta.attributes.get("epoch")
        number = epoch if isinstance(epoch, int | float) else math.inf
        epochs[network] = min(number, epochs.get(network, math.inf))

    def place(group: tuple[list[str], R]) -> tuple[Any, ...]:
        parts, one = group
        return parts[:2], epochs[tuple(parts[:3])], parts[2], one.meta.tap_index, parts[3:]

    return [one for _, one in sorted(groups, key=place)]
