"""A store under random use, against a dict of arrays."""

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

import store
from store import StoreError, UnfinishedError, Writer
from tests.faults import Killed, end_claims, killed_before
from tests.strategies import batches, coordinates, make_rows, metas

TAPS = ("conv1", "conv2", "logits")


class StoreMachine(RuleBasedStateMachine):
    """Writers and readers come and go; some die while they write."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "a.zarr"
        self.wanted = {}  # tap -> the array that it will have
        self.blocks = {}  # tap -> minibatches that were committed, False for those taken back
        self.writers = {}

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @initialize(meta=metas)
    def choose(self, meta):
        self.metas = {
            tap: store.RepresentationMeta(
                **vars(meta)
                | {
                    "key": store.RepresentationKey(*meta.key.path.split("/")[:3], tap),
                    "tap_index": i,
                }
            )
            for i, tap in enumerate(TAPS)
        }
        self.wanted = {tap: make_rows(m, seed=i) for i, (tap, m) in enumerate(self.metas.items())}

    @rule(tap=st.sampled_from(TAPS))
    def open_writer(self, tap):
        meta = self.metas[tap]
        if tap in self.writers:
            if not self.writers[tap].complete:
                with pytest.raises(store.ClaimedError, match="of this process; close it first"):
                    Writer.open(self.path, meta, *coordinates(meta))
            self.writers[tap].close()
        self.writers[tap] = Writer.open(self.path, meta, *coordinates(meta))
        self.blocks.setdefault(tap, [])
        assert self.writers[tap].n_committed == self._n_committed(tap)

    @precondition(lambda self: self._appendable())
    @rule(data=st.data())
    def append(self, data):
        tap = data.draw(st.sampled_from(self._appendable()))
        batch = self._next_batch(tap)
        self.writers[tap].append(batch)
        self._commit(tap)

    def _commit(self, tap):
        index = self._n_whole(tap)
        self.blocks[tap][index : index + 1] = [True]

    @precondition(lambda self: self._written())
    @rule(data=st.data(), n=st.integers(0, 3))
    def take_back(self, data, n):
        """Perhaps die while that is noted."""
        tap = data.draw(st.sampled_from(self._written()))
        before, batch_rows = self.blocks[tap], self.metas[tap].batch_rows
        taken = data.draw(st.sets(st.integers(0, len(before) - 1), min_size=1))
        after = [whole and i not in taken for i, whole in enumerate(before)]
        self.open_writer(tap)
        try:
            with killed_before(n):
                self.writers[tap].take_back([i * batch_rows for i in taken])
            self.blocks[tap] = after
        except Killed:
            found = store.open(self.path)[self.metas[tap].key]
            missing = {start // batch_rows for start, _ in found.taken_back}
            self.blocks[tap] = [i not in missing for i in range(len(before))]
            assert self.blocks[tap] in (before, after)
            self._all_die()

    @precondition(lambda self: self._appendable())
    @rule(data=st.data(), n=st.integers(0, 5))
    def die_while_appending(self, data, n):
        tap = data.draw(st.sampled_from(self._appendable()))
        batch = self._next_batch(tap)
        try:
            with killed_before(n):
                self.writers[tap].append(batch)
            self._commit(tap)
        except Killed:
            # After the commit of the last minibatch there is one more change: the claim goes.
            found = store.open(self.path)[self.metas[tap].key].n_committed
            if found != self._n_committed(tap):
                self._commit(tap)
            self._all_die()

    @precondition(lambda self: self._absent())
    @rule(data=st.data(), n=st.integers(0, 30))
    def die_while_creating(self, data, n):
        tap = data.draw(st.sampled_from(self._absent()))
        self._all_die()
        meta = self.metas[tap]
        try:
            with killed_before(n):
                Writer.open(self.path, meta, *coordinates(meta))
            self.blocks[tap] = []
        except Killed:
            # Concurrent writes end in any order, so that it may have been whole by then.
            with suppress(StoreError, LookupError):
                found = store.open(self.path)[meta.key]
                np.testing.assert_array_equal(found.samples, coordinates(meta)[0])
                np.testing.assert_array_equal(found.labels, coordinates(meta)[1])
                self.blocks[tap] = []
        end_claims()

    def _all_die(self):
        end_claims()
        self.writers.clear()

    @precondition(lambda self: self._appendable())
    @rule(data=st.data())
    def append_the_wrong_rows(self, data):
        tap = data.draw(st.sampled_from(self._appendable()))
        batch = self._next_batch(tap)
        with pytest.raises(store.MisalignedWriteError):
            self.writers[tap].append(np.concatenate([batch, batch]))

    @precondition(lambda self: self.blocks)
    @rule(data=st.data())
    def read(self, data):
        tap = data.draw(st.sampled_from(sorted(self.blocks)))
        n = self.metas[tap].n_samples
        start, stop = sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n))))
        representation = store.open(self.path)[self.metas[tap].key]
        if stop > self._n_committed(tap):
            with pytest.raises(UnfinishedError):
                representation.read(start, stop)
        else:
            found = representation.read(start, stop)
            assert found.tobytes() == self.wanted[tap][start:stop].tobytes()

    @invariant()
    def lists_what_was_committed(self):
        try:
            opened = store.open(self.path)
        except StoreError:
            assert not self.blocks
            return
        found = {r.key.tap: r.n_committed for r in opened.find()}
        assert found == {tap: self._n_committed(tap) for tap in self.blocks}
        assert list(found) == [tap for tap in TAPS if tap in found]

    def _appendable(self):
        return sorted(tap for tap, writer in self.writers.items() if not writer.complete)

    def _absent(self):
        return [tap for tap in TAPS if tap not in self.blocks]

    def _written(self):
        return sorted(tap for tap, blocks in self.blocks.items() if blocks)

    def _n_whole(self, tap):
        return [*self.blocks[tap], False].index(False)

    def _n_committed(self, tap):
        meta = self.metas[tap]
        return min(self._n_whole(tap) * meta.batch_rows, meta.n_samples)

    def _next_batch(self, tap):
        meta = self.metas[tap]
        return batches(meta, self.wanted[tap])[self._n_whole(tap)]


def few_or_many(n: int) -> settings:
    return settings(
        max_examples=n,
        stateful_step_count=25,
        deadline=None,
        # A step writes to disk, and a busy machine makes that slow.
        suppress_health_check=[HealthCheck.too_slow],
    )


class TestStoreMachine(StoreMachine.TestCase):
    settings = few_or_many(20)


@pytest.mark.slow
class TestStoreMachineOften(StoreMachine.TestCase):
    settings = few_or_many(60)
