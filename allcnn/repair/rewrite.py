"""Write damaged minibatches of a stored network again, and whole groups where no less will do.

Nothing is removed or written before what replaces it is computed.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Float32

from allcnn import data, hsic, kernels
from allcnn.errors import AllcnnError, RunError
from allcnn.provenance import stamp
from allcnn.repair.network import Network
from store import (
    ClaimedError,
    DamagedChunkError,
    GramKey,
    GramMeta,
    Grams,
    GramWriter,
    Representation,
    RepresentationMeta,
    SchemaError,
    StoreError,
    Writer,
)
from store.claim import is_claimed
from store.committed import CommittedReader, block_range
from store.damage import Damage
from store.examine import opened
from store.layout import Kind
from store.nodes import read_array
from store.place import Place, child_names, remove_tree
from store.writer import Compression

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

    def _clear(self, array: str) -> None:
        folder = self._root / self._path
        if is_claimed(folder / array):
            raise ClaimedError(f"{folder} is being written by another process; wait for it")
        remove_tree(folder)

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


class RowsAgain(Rewriting):
    """Activations, always computed by the network."""

    kind = "activations"

    def __init__(self, root: Place, network: Network, damage: Sequence[Damage]) -> None:
        self._writer: Writer | None = None
        super().__init__(root, network, damage)

    def _plan(self) -> None:
        if isinstance(self._reader, Representation):
            self.meta = self._reader.meta
        else:
            self.meta = _like_a_sibling(self._root, self._path, self._network)
        self._network.check(self.meta.checkpoint_digest, self.meta.sample_set)
        self._compression = _compression(self._root, self._path)
        self.origin = f"checkpoint {self.meta.key.checkpoint} of run {self.meta.key.run}"
        self._set_blocks(self.meta)

    def _compute(self, block: Span) -> None:
        taps = self._network.rows(*block, self.meta.batch_rows, self.meta.dtype)
        rows = taps[self.meta.key.tap]
        if self._writer is None:
            self._writer = self._open()
        if self._anew:
            self._writer.append(rows)
        else:
            self._writer.replace(block[0], rows)

    def _open(self) -> Writer:
        samples = self._network.samples
        if self._anew:
            self._clear("activations")
        return Writer.open(
            self._root, self.meta, samples.indices, samples.labels, self._compression
        )

    def _finish(self) -> None:
        # Of what had no minibatches yet there was nothing to compute.
        self._writer = self._writer or self._open()

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class GramsAgain(Rewriting):
    """Grams, computed from the activations where these are whole, else by the network."""

    kind = "grams"

    def __init__(
        self, root: Place, network: Network, damage: Sequence[Damage], activations: Place
    ) -> None:
        self._activations = activations
        self._tap: Representation | None = None
        self._held: tuple[int, np.ndarray] = 0, np.empty(0)
        self._computed: dict[Span, list[Float32[np.ndarray, "n n"]]] = {}
        super().__init__(root, network, damage)

    def _plan(self) -> None:
        found = opened(self._activations, "activations", self._path.rpartition("/")[0])
        tap = found if isinstance(found, Representation) and found.complete else None
        if isinstance(self._reader, Grams):
            self.meta = self._reader.meta
        else:
            self.meta = _as_its_name_says(self._path, tap, self._network)
        key = self.meta.key
        version = (key.checkpoint_digest, key.dtype, self.meta.sample_set)
        if tap and (tap.meta.checkpoint_digest, tap.meta.dtype, tap.meta.sample_set) == version:
            self._tap, self.origin = tap, "its activations"
        else:
            self._use_network()
        self._set_blocks(self.meta)

    def _use_network(self) -> None:
        key = self.meta.key
        self._network.check(key.checkpoint_digest, self.meta.sample_set)
        self._tap, self.origin = None, f"checkpoint {key.of.checkpoint} of run {key.of.run}"

    def _compute(self, block: Span) -> None:
        key = self.meta.key
        rows = (self._rows(start, stop) for start, stop in self.meta.ranges[slice(*block)])
        grams = [kernels.gram(kernels.pooled(X, key.pool), key.kernel) for X in rows]
        self._computed[block] = grams

    def _rows(self, start: int, stop: int) -> Float[np.ndarray, "n ..."]:
        if self._tap is not None:
            try:
                return self._stored(self._tap, start, stop)
            except DamagedChunkError:
                self._use_network()
        key = self.meta.key
        return self._network.rows(start, stop, key.batch_size, key.dtype)[key.of.tap]

    def _finish(self) -> None:
        # All are small, and known now: only here may the group go.
        median = self._median()
        samples, labels = self._coordinates()
        if self._anew:
            self._clear("grams")
        with GramWriter.open(self._root, self.meta, samples, labels) as writer:
            for (first, _), grams in sorted(self._computed.items(), key=lambda item: item[0]):
                if self._anew:
                    for K in grams:
                        writer.append(K)
                else:
                    writer.replace(first, grams)
            if median is not None and writer.median_distance is None:
                writer.set_median_distance(median)

    def _stored(self, tap: Representation, start: int, stop: int) -> Float[np.ndarray, "n ..."]:
        """Read rows, and with them those of the next minibatches in the same chunk."""
        first, held = self._held
        if not first <= start < stop <= first + len(held):
            end = min(max(stop, start + tap.meta.batch_rows), self.meta.n_samples)
            try:
                first, held = start, tap.read(start, end)
            except DamagedChunkError:
                first, held = start, tap.read(start, stop)
            self._held = first, held
        return held[start - first : stop - first]

    def _coordinates(self) -> tuple[np.ndarray, np.ndarray]:
        if self._tap is not None:
            return self._tap.samples, self._tap.labels
        return self._network.samples.indices, self._network.samples.labels

    def _close(self) -> None:
        self._held = 0, np.empty(0)

    def _median(self) -> float | None:
        """Return the median distance to keep with Grams that are made anew."""
        if not self._anew:
            return None
        if isinstance(self._reader, Grams):
            return self._reader.median_distance
        if not _has_median(self._root, self._path):
            return None
        key = self.meta.key
        n = min(kernels.BANDWIDTH_EXAMPLES, self.meta.n_samples)
        parts = [self._rows(*span) for span in data.batch_ranges(n, key.batch_size)]
        X = kernels.pooled(np.concatenate(parts), key.pool)
        return kernels.median_distance(lambda a, b: X[a:b], n, kernels.BANDWIDTH_BLOCK)


def _like_a_sibling(root: Place, path: str, network: Network) -> RepresentationMeta:
    """Return metadata of a tap by those of another one of the same network."""
    folder, _, tap = path.rpartition("/")
    found = (opened(root, "activations", f"{folder}/{name}") for name in child_names(root / folder))
    sibling = next((each.meta for each in found if isinstance(each, Representation)), None)
    if sibling is None:
        raise RunError(
            f"nothing in {root / folder} tells any more how it was extracted; delete it, and"
            " extract again with 'allcnn extract'"
        )
    index = network.tap_index(tap, sibling.batch_rows)
    shape = network.shapes(sibling.batch_rows)[tap]
    key = replace(sibling.key, tap=tap)
    return replace(sibling, key=key, tap_index=index, shape=shape, **stamp())


def _as_its_name_says(path: str, tap: Representation | None, network: Network) -> GramMeta:
    """Return metadata of Grams by the name of their folder, which says nearly all."""
    of, _, variant = path.rpartition("/")
    digest = tap.meta.checkpoint_digest if tap else network.source.digest
    try:
        kernel, pool, batch_size, dtype, _ = variant.split("-")
        named = {"kernel": kernel, "pool": pool, "batch_size": int(batch_size), "dtype": dtype}
        key = GramKey.from_json({"of": of, "checkpoint_digest": digest} | named)
    except ValueError as error:
        raise RunError(f"{path} is no name of Grams ({error}); delete that folder") from error
    if key.variant != variant:
        raise RunError(f"{path} are Grams of another checkpoint than {digest}; delete that folder")
    sample_set = tap.meta.sample_set if tap else network.samples.sample_set
    index = tap.meta.tap_index if tap else network.tap_index(key.of.tap, key.batch_size)
    facts = tap.meta.attributes if tap else network.source.attributes
    ranges = tuple(hsic.split_minibatches(sample_set.n_samples, key.batch_size))
    return GramMeta(key, sample_set, index, ranges, attributes=facts, **stamp())


def _has_median(root: Place, path: str) -> bool:
    """Return whether such Grams of another tap of the network have a median distance."""
    of, _, variant = path.rpartition("/")
    folder = of.rpartition("/")[0]
    found = [
        opened(root, "grams", f"{folder}/{tap}/{variant}") for tap in child_names(root / folder)
    ]
    return any(isinstance(each, Grams) and each.median_distance is not None for each in found)


def _compression(root: Place, path: str) -> Compression:
    """Return how a representation is, or others of its network are, compressed."""
    folder, _, tap = path.rpartition("/")
    for name in dict.fromkeys([tap, *child_names(root / folder)]):
        try:
            node = read_array(root / folder / name / "activations")
        except SchemaError:
            continue
        if node is not None:
            return "zstd" if "zstd" in node.codec_names else "none"
    return "none"
