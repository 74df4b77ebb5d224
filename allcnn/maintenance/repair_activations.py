"""Compute damaged minibatches of a representation again, or all of one that must be made anew."""

from collections.abc import Sequence
from dataclasses import replace

from allcnn.errors import RunError
from allcnn.maintenance.recompute import Network
from allcnn.maintenance.rewriter import Rewriting, Span
from allcnn.provenance import stamp
from store import Representation, RepresentationMeta, SchemaError, Writer
from store.arrays.writer import Compression
from store.maintenance.damage import Damage
from store.maintenance.verify_arrays import opened
from store.model.names import is_tap_folder, shown
from store.storage.paths import Place, child_names
from store.zarrfiles.metadata_files import read_array


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


def _like_a_sibling(root: Place, path: str, network: Network) -> RepresentationMeta:
    """Return metadata of a tap by those of another one of the same network."""
    folder, _, tap = path.rpartition("/")
    found = (
        opened(root, "activations", f"{folder}/{name}")
        for name in child_names(root / folder, is_tap_folder)
    )
    sibling = next((each.meta for each in found if isinstance(each, Representation)), None)
    if sibling is None:
        raise RunError(
            f"nothing in {root / folder} tells any more how it was extracted; {network.replacing()}"
        )
    name = shown(tap)
    index = network.tap_index(name, sibling.batch_rows)
    shape = network.shapes(sibling.batch_rows)[name]
    key = replace(sibling.key, tap=name)
    return replace(sibling, key=key, tap_index=index, shape=shape, **stamp())


def _compression(root: Place, path: str) -> Compression:
    """Return how a representation is, or others of its network are, compressed."""
    folder, _, tap = path.rpartition("/")
    for name in dict.fromkeys([tap, *child_names(root / folder, is_tap_folder)]):
        try:
            node = read_array(root / folder / name / "activations")
        except SchemaError:
            continue
        if node is not None:
            return "zstd" if "zstd" in node.codec_names else "none"
    return "none"
