"""Compute damaged Grams again, from the activations where these are whole."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from allcnn.errors import RunError
from allcnn.extract.gram_medians import keep_median_distance
from allcnn.maintenance.recompute import Network
from allcnn.maintenance.rewriter import Rewriting, Span
from allcnn.provenance import stamp
from allcnn.similarity import gram, pair_sums
from store import DamagedChunkError, GramKey, GramMeta, Grams, GramWriter, Representation
from store.maintenance.damage import Damage
from store.maintenance.verify_arrays import opened
from store.model.names import readable
from store.storage.paths import Place


class GramsAgain(Rewriting):
    """Grams, computed from the activations where these are whole, else by the network."""

    kind = "grams"

    def __init__(
        self, root: Place, network: Network, damage: Sequence[Damage], activations: Place
    ) -> None:
        self._activations = activations
        self._tap: Representation | None = None
        self._held: tuple[int, np.ndarray] = 0, np.empty(0)
        self._computed: dict[Span, list[gram.Gram]] = {}
        self._source: str | None = None
        self._unit: int | None = None
        super().__init__(root, network, damage)

    def _plan(self) -> None:
        found = opened(self._activations, "activations", self._path.rpartition("/")[0])
        tap = found if isinstance(found, Representation) and found.complete else None
        if isinstance(self._reader, Grams):
            self.meta, self._source = self._reader.meta, self._reader.rows_digest
        else:
            self.meta = _as_its_name_says(self._path, tap, self._network)
        key = self.meta.key
        version = (key.checkpoint_digest, key.dtype, self.meta.sample_set)
        if tap and (tap.meta.checkpoint_digest, tap.meta.dtype, tap.meta.sample_set) == version:
            self._use_activations(tap)
        else:
            self._use_network()
        self._set_blocks(self.meta)

    def _use_activations(self, tap: Representation) -> None:
        self._tap, self.origin = tap, "its activations"
        if self._source not in (None, tap.rows_digest):
            # Some of them would be of these activations, and some of earlier ones.
            self._reader, self._anew = None, True
            self.meta = _as_its_name_says(self._path, tap, self._network)
        if self._anew:
            self._source = tap.rows_digest

    def _use_network(self) -> None:
        key = self.meta.key
        self._network.check(key.checkpoint_digest, self.meta.sample_set)
        self._tap, self.origin = None, f"checkpoint {key.of.checkpoint} of run {key.of.run}"

    def _compute(self, block: Span) -> None:
        key = self.meta.key
        rows = (self._rows(start, stop) for start, stop in self.meta.ranges[slice(*block)])
        if isinstance(self._reader, Grams):
            self._unit = self._reader.unit
        grams: list[gram.Gram] = []
        for X in rows:
            grams.append(gram.gram(gram.pooled(X, key.pool), key.kernel, self._unit))
            self._unit = grams[-1].unit
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
        samples, labels = self._coordinates()
        if self._anew:
            self._clear("grams")
        writing = GramWriter.open(self._root, self.meta, samples, labels, source=self._source)
        with writing as writer:
            for (first, _), grams in sorted(self._computed.items(), key=lambda item: item[0]):
                if self._anew:
                    for K in grams:
                        writer.append(*K)
                else:
                    writer.replace(first, [K.values for K in grams], [K.bound for K in grams])
            keep_median_distance(writer)

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


def _as_its_name_says(path: str, tap: Representation | None, network: Network) -> GramMeta:
    """Return metadata of Grams by the name of their folder, which says nearly all."""
    folder, _, variant = path.rpartition("/")
    of = tap.key.text if tap else readable(folder)
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
    ranges = tuple(pair_sums.split_minibatches(sample_set.n_samples, key.batch_size))
    n_taps = tap.meta.n_taps if tap else len(network.shapes(key.batch_size))
    return GramMeta(key, sample_set, index, ranges, attributes=facts, n_taps=n_taps, **stamp())
