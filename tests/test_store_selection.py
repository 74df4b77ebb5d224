"""Selecting: what NumPy would select, from no minibatch but those that hold it."""

import tracemalloc
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import store
from store import DamagedChunkError, QueryError, RowRangeError, UnfinishedError, Writer
from tests.faults import chunk_files, flip_bit
from tests.strategies import batches, coordinates, make_meta, make_rows


def fill(path, meta, n_batches=None):
    rows = make_rows(meta)
    with Writer.open(path, meta, *coordinates(meta)) as writer:
        for batch in batches(meta, rows)[:n_batches]:
            writer.append(batch)
    return store.open(path)[meta.key], rows


@pytest.fixture(scope="module")
def taps(tmp_path_factory):
    """Return a tap of each rank with its rows: 23 of them in minibatches of 4."""
    path = tmp_path_factory.mktemp("selection") / "a.zarr"
    shapes = [((3, 2, 5), "float32"), ((4, 5), "float16"), ((5,), "float64")]
    return [
        fill(path, make_meta(f"tap{i}", n_samples=23, shape=shape, dtype=dtype, tap_index=i))
        for i, (shape, dtype) in enumerate(shapes)
    ]


@pytest.fixture
def conv(taps):
    return taps[0]


def choices(n):
    """Draw what selects along an axis of n, as NumPy would take it."""
    bounds = st.none() | st.integers(-n, n)
    steps = st.none() | st.sampled_from([-3, -1, 1, 2, 5])
    several = st.lists(st.integers(-n, n - 1), max_size=2 * n)
    return st.one_of(
        st.none(),
        st.builds(slice, bounds, bounds, steps),
        several,
        several.map(lambda indices: np.array(indices, np.int32)),
        st.lists(st.booleans(), min_size=n, max_size=n).map(np.array),
    )


def taken(values, chosen, axis):
    if chosen is None:
        return values
    if isinstance(chosen, list):
        chosen = np.array(chosen, int)
    return values[(slice(None),) * axis + (chosen,)]


@given(
    st.integers(0, 2),
    choices(23),
    st.none() | st.integers(0, 9) | st.lists(st.integers(0, 9), max_size=4),
    choices(5),
    st.sampled_from([None, "mean"]),
)
@settings(deadline=None, max_examples=60)
def test_a_selection_is_what_numpy_selects(taps, which, rows, label, channels, space):
    tap, values = taps[which]
    samples, labels = coordinates(tap.meta)
    among = slice(None) if label is None else np.isin(taken(labels, rows, 0), label)
    wanted = taken(taken(values, rows, 0)[among], channels, -1 % values.ndim)
    if space:
        axes = tuple(range(1, wanted.ndim - 1))
        dtype = np.promote_types(values.dtype, np.float32)
        wanted = wanted.mean(axis=axes, dtype=np.float64).astype(dtype)
    found = tap.select(rows, label, channels, space)
    assert (found.shape, found.ndim, len(found)) == (wanted.shape, wanted.ndim, len(wanted))
    assert found.dtype == found.read().dtype == wanted.dtype
    np.testing.assert_array_equal(found.read(), wanted)
    np.testing.assert_array_equal(np.asarray(found), wanted)
    np.testing.assert_array_equal(found.samples, taken(samples, rows, 0)[among])
    np.testing.assert_array_equal(found.labels, taken(labels, rows, 0)[among])
    parts = [part.read() for part in found.parts()]
    np.testing.assert_array_equal(np.concatenate([wanted[:0], *parts]), wanted)


@given(choices(23), st.none() | st.just([0, 2]))
@settings(deadline=None, max_examples=40)
def test_every_minibatch_that_holds_a_row_is_read_once_and_no_other(taps, rows, channels):
    tap, _ = taps[0]
    selection = tap.select(rows, channels=channels)
    with mock.patch.object(type(tap), "_fill", autospec=True, side_effect=type(tap)._fill) as fill:
        selection.read()
    read = [call.args[1].start for call in fill.call_args_list]
    assert sorted(read) == sorted(set((selection.rows // 4 * 4).tolist()))


def test_other_minibatches_may_be_damaged(tmp_path):
    tap, rows = fill(tmp_path / "a.zarr", make_meta())
    flip_bit(chunk_files(tmp_path / "a.zarr" / tap.key.path / "activations")[1])
    np.testing.assert_array_equal(tap.select([9, 0], space=None).read(), rows[[9, 0]])
    with pytest.raises(DamagedChunkError, match="rows 4 to 7 of tap conv1"):
        tap.select([9, 4], channels=[0], space="mean").read()


def test_selecting_reads_no_activations(conv):
    with mock.patch.object(type(conv[0]), "_fill", side_effect=AssertionError):
        selection = conv[0].select(slice(0, 8), label=[0, 1], space="mean")
        assert selection.shape == (2, 5)
        assert selection.labels.tolist() == [0, 1]
        assert repr(selection).endswith("/tap0: float32 (2, 5)>")


@pytest.mark.parametrize("how", [{}, {"channels": [0, 3]}, {"space": "mean"}])
def test_memory_is_the_result_and_one_minibatch(tmp_path, how):
    meta = make_meta(n_samples=64, batch_rows=16, shape=(32, 32, 8))
    tap, rows = fill(tmp_path / "a.zarr", meta)
    selection = tap.select(np.arange(63, -1, -2), **how)
    n_bytes = selection.read().nbytes
    tracemalloc.start()
    selection.read()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < n_bytes + 1.2 * rows[:16].nbytes


def test_infinities_of_both_signs_have_no_mean(tmp_path):
    meta = make_meta(n_samples=4)
    rows = make_rows(meta)
    rows[1, 0, 0, 0], rows[1, 1, 1, 0] = np.inf, -np.inf
    with Writer.open(tmp_path / "a.zarr", meta, *coordinates(meta)) as writer:
        writer.append(rows)
    found = store.open(tmp_path / "a.zarr")[meta.key].select(space="mean").read()
    assert np.argwhere(np.isnan(found)).tolist() == [[1, 0]]


def test_rows_not_committed_are_not_selected(tmp_path):
    tap, rows = fill(tmp_path / "a.zarr", make_meta(), n_batches=2)
    np.testing.assert_array_equal(tap.select(slice(8)).read(), rows[:8])
    np.testing.assert_array_equal(tap.select(slice(2, 8), label=3).read(), rows[3:4])
    sentence = r"has 8 of 10 rows, and row 9 was selected; .*, or select rows before 8"
    for chosen in (None, slice(None), [0, 9], [-1]):
        with pytest.raises(UnfinishedError, match=sentence):
            tap.select(chosen, label=0)


@pytest.mark.parametrize(
    ("how", "error", "sentence"),
    [
        ({"rows": [0, 23]}, RowRangeError, "rows of .*:tap0 are 0 to 22, and 23 was asked for"),
        ({"rows": [-24]}, RowRangeError, "rows of .* are 0 to 22, and -24 was asked for"),
        ({"rows": slice(0, 24)}, RowRangeError, "and 24 was asked for"),
        ({"rows": slice(-24, 3)}, RowRangeError, "and -24 was asked for"),
        ({"rows": [0.5]}, QueryError, r"rows of .* are \[0.5\]; give a slice, a list of whole"),
        ({"rows": 3}, QueryError, "are 3; give a slice"),
        ({"rows": [[1], [2, 3]]}, QueryError, "give a slice"),
        ({"rows": [True, False]}, QueryError, "or a mask of 23"),
        ({"rows": slice("a", None)}, QueryError, "give whole numbers, and no step of 0"),
        ({"rows": slice(0, 4, 0)}, QueryError, "give whole numbers, and no step of 0"),
        ({"channels": [5]}, RowRangeError, "channels of .* are 0 to 4, and 5 was asked for"),
        ({"channels": "3"}, QueryError, "channels of .* are '3'; give a slice"),
        ({"label": 10}, QueryError, "has label 10; its labels are 0, 1, 2, 3, 4, 5, 6, 7, 8, 9"),
        ({"label": [1, -1]}, QueryError, "no example of digits-test-23-01234567 has label -1"),
        ({"label": "1"}, QueryError, "label is '1'; give a whole number, or a list of them"),
        ({"space": "max"}, QueryError, "space is 'max'; use 'mean', or None"),
    ],
)
def test_what_cannot_be_selected_is_refused(conv, how, error, sentence):
    with pytest.raises(error, match=sentence):
        conv[0].select(**how)


def test_an_array_without_a_copy_is_refused(conv):
    selection = conv[0].select(slice(2))
    assert np.asarray(selection, np.float64).dtype == np.float64
    with pytest.raises(ValueError, match="cannot be an array without a copy"):
        np.asarray(selection, copy=False)
