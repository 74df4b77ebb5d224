"""Find what one kind of store holds, by the names of folders and by metadata."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from store.arrays.committed import CommittedReader
from store.arrays.query import LEVELS, Query, Scalar, Wanted, facts
from store.errors import StoreError, StoreLocationError
from store.model.names import is_folder
from store.model.schema import GramKey, RepresentationKey
from store.storage.paths import Address, as_place, child_names
from store.storage.remote_errors import each
from store.zarrfiles.layout import open_root

R = TypeVar("R", bound=CommittedReader[Any])


@dataclass(frozen=True)
class Scan(Generic[R]):
    """The groups that a search found.

    Attributes:
        found: those that fit, sorted by sample set, run, checkpoint and position in the network.
        unreadable: by their paths, why others could not be opened; whether they fit is not known.
    """

    found: list[R]
    unreadable: dict[str, StoreError]


class CommittedStore(Generic[R]):
    """A store of committed arrays, read only; pickles as its path."""

    reader: type[R]

    def __init__(self, path: Address) -> None:
        self.path = as_place(path)
        open_root(self.path, self.reader.form.kind)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path,)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path}>"

    def __getitem__(self, key: RepresentationKey | GramKey) -> R:
        """Open what is stored under one key.

        Raises UnknownRepresentationError, or UnknownGramsError, for what is not there, and
        UnfinishedError while it is being created.
        """
        return self.reader.get(self.path, key)

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
        """Find as ``find`` does; return errors of what cannot be opened instead of raising them."""
        query = Query.parse(filters)
        scan = self._walk(query)
        if query.unsure(map(_facts, scan.found)).conditions:
            everything = self._walk(Query())
            if not everything.unreadable:  # which may have the name
                query.check(self.path, [_facts(one) for one in everything.found])
        if not (scan.found or scan.unreadable):
            open_root(self.path, self.reader.form.kind)  # else a removed store seems empty
        found = (one for one in scan.found if query.matches(_facts(one)))
        return Scan(_in_order(found), scan.unreadable)

    def _walk(self, query: Query) -> Scan[R]:
        """Open what lies in the folders that a query admits."""
        paths = self._paths(query)
        opened = dict(zip(paths, each(self.path, self._try_open, paths), strict=True))
        unreadable = {path: one for path, one in opened.items() if isinstance(one, StoreError)}
        return Scan([one for one in opened.values() if isinstance(one, self.reader)], unreadable)

    def _paths(self, query: Query) -> list[str]:
        """Return the paths of the groups in the folders that a query admits, level by level."""
        paths = [""]
        for depth, level in enumerate((*LEVELS, None)[: self.reader.form.depth]):
            if level and (name := query.exact(level)):  # no other is listed
                paths = [f"{path}/{name}".lstrip("/") for path in paths]
                continue
            children = each(self.path, partial(self._children, depth), paths)
            paths = [
                f"{path}/{name}".lstrip("/")
                for path, names in zip(paths, children, strict=True)
                for name in names
                if level is None or query.admits(level, name)
            ]
        return paths

    def _children(self, depth: int, path: str) -> list[str]:
        return child_names(self.path / path, partial(is_folder, depth=depth))

    def _try_open(self, path: str) -> R | StoreError | None:
        try:
            return self.reader.at(self.path, path)
        except StoreError as error:
            # An address that cannot be reached says nothing about what is stored there.
            if isinstance(error, StoreLocationError) and not isinstance(self.path, Path):
                raise
            return error


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
