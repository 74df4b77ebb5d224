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
        self.committed = {}  # tap -> rows that count
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
        assert self.writers[tap].n_committed == self.committed.setdefault(tap, 0)

    @precondition(lambda self: self._appendable())
    @rule(data=st.data())
    def append(self, data):
        tap = data.draw(st.sampled_from(self._appendable()))
        batch = self._next_batch(tap)
        self.writers[tap].append(batch)
        self.committed[tap] += len(batch)

    @precondition(lambda self: self._appendable())
    @rule(data=st.data(), n=st.integers(0, 5))
    def die_while_appending(self, data, n):
        tap = data.draw(st.sampled_from(self._appendable()))
        batch = self._next_batch(tap)
        try:
            with killed_before(n):
                self.writers[tap].append(batch)
            self.committed[tap] += len(batch)
        except Killed:
            # After the commit of the last minibatch there is one more change: the claim goes.
            found = store.open(self.path)[self.metas[tap].key].n_committed
            assert found - self.committed[tap] in {0, len(batch)}
            self.committed[tap] = found
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
            self.committed[tap] = 0
        except Killed:
            # Concurrent writes end in any order, so that it may have been whole by then.
            with suppress(StoreError, LookupError):
                found = store.open(self.path)[meta.key]
                np.testing.assert_array_equal(found.samples, coordinates(meta)[0])
                np.testing.assert_array_equal(found.labels, coordinates(meta)[1])
                self.committed[tap] = 0
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

    @precondition(lambda self: self.committed)
    @rule(data=st.data())
    def read(self, data):
        tap = data.draw(st.sampled_from(sorted(self.committed)))
        n = self.metas[tap].n_samples
        start, stop = sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n))))
        representation = store.open(self.path)[self.metas[tap].key]
        if stop > self.committed[tap]:
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
            assert not self.committed
            return
        found = {r.key.tap: r.n_committed for r in opened.find()}
        assert found == self.committed
        assert list(found) == [tap for tap in TAPS if tap in found]

    def _appendable(self):
        return sorted(tap for tap, writer in self.writers.items() if not writer.complete)

    def _absent(self):
        return [tap for tap in TAPS if tap not in self.committed]

    def _next_batch(self, tap):
        meta = self.metas[tap]
        return batches(meta, self.wanted[tap])[self.committed[tap] // meta.batch_rows]


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(
    max_examples=30,
    stateful_step_count=25,
    deadline=None,
    # A step writes to disk, and a busy machine makes that slow.
    suppress_health_check=[HealthCheck.too_slow],
)
