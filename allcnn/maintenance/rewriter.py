"""What mending activations and Grams has in common: first compute, then remove and write."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

from allcnn.errors import AllcnnError
from allcnn.maintenance.recompute import Network
from store import GramMeta, RepresentationMeta, StoreError
from store.arrays.committed import CommittedReader, block_range
from store.arrays.writer import written
from store.maintenance.damage import Damage
from store.maintenance.remove import check_unlinked
from store.maintenance.verify_arrays import opened
from store.storage.claims import claim
from store.storage.paths import Place, check_inside, remove_tree
from store.zarrfiles.layout import Kind
from store.zarrfiles.metadata_files import NODE

Span = tuple[int, int]


class Rewriting(ABC):
    """One representation, or its Grams, of which something is written again.

    Attributes:
        damage: all that is damaged of it.
        blocks: what is to be computed, as ranges of its first axis.
        error: sentence of what went wrong, None as long as nothing did.
        origin: what it was computed from.
    """

    kind: ClassVar[Kind]

    def __init__(self, root: Place, network: Network, damage: Sequence[Damage]) -> None:
        self.damage = tuple(damage)
        self.blocks: tuple[Span, ...] = ()
        self.error: str | None = None
        self.origin = ""
        self._root = root
        self._path = damage[0].path
        self._network = network
        # Where no more than minibatches are damaged, all else stays as it is.
        self._anew = any(each.start is None for each in damage)
        found = opened(root, self.kind, self._path)
        self._reader = found if isinstance(found, CommittedReader) else None
        self._try(self._check_links)
        if self.error is None:
            self._try(self._plan)

    def compute(self, block: Span) -> None:
        """Compute one of the blocks."""
        if self.error is None and block in self.blocks:
            self._try(lambda: self._compute(block))

    def finish(self) -> None:
        """Write what is not written yet, and let others write."""
        if self.error is None:
            self._try(self._finish)
        self._close()

    @property
    def title(self) -> str:
        """Whose it is."""
        return "@".join(self._path.split("/")[1:3])

    @property
    def said(self) -> str:
        """How it was mended, and whether what was computed from it is of other bits now."""
        found = opened(self._root, self.kind, self._path)
        same = (
            self._reader is None or isinstance(found, str) or found.commits == self._reader.commits
        )
        how = "made anew" if self._anew else "computed again"
        others = "" if same else ", in other bits: another device or version wrote it first"
        return f"{how} from {self.origin}{others}"

    def _try(self, step: Callable[[], None]) -> None:
        try:
            step()
        except (StoreError, AllcnnError) as error:
            self.error = str(error)

    def _set_blocks(self, meta: RepresentationMeta | GramMeta) -> None:
        whole = range(-(-meta.length // meta.block_length))
        if not self._anew:
            found = [(d.start, d.stop) for d in self.damage if d.start is not None]
            self.blocks = tuple((start, stop) for start, stop in found if stop is not None)
        elif self._reader is None:
            self.blocks = tuple(block_range(meta, index) for index in whole)
        else:
            self.blocks = tuple((c.start, c.stop) for c in self._reader.commits)

    def _check_links(self) -> None:
        if self._anew:
            check_inside(self._root, self._root / self._path)
            # What a link within the store leads to is another group, perhaps a whole one.
            check_unlinked(self._root, self._path.split("/"))

    def _clear(self, array: str) -> None:
        """Remove the group, and nothing by way of a symbolic link."""
        folder = self._root / self._path
        self._check_links()
        check_unlinked(self._root, [*self._path.split("/"), array])
        with written(f"cannot remove {folder}"):
            held = claim(folder / array)
            try:
                # First, so that a kill leaves no damaged group.
                (folder / NODE).unlink(missing_ok=True)
                remove_tree(folder)
            finally:
                held.release()

    @abstractmethod
    def _plan(self) -> None:
        """Find out what to write, and whether that would be what was there."""

    @abstractmethod
    def _compute(self, block: Span) -> None:
        """Compute a block."""

    @abstractmethod
    def _finish(self) -> None:
        """Write the rest."""

    @abstractmethod
    def _close(self) -> None:
        """Let others write."""
