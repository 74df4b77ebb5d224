"""The median distance between examples that differ, of Grams and of samples, against float64."""

import weakref
from unittest.mock import patch

import numpy as np
import pytest

import store
from allcnn.similarity import gram, median_distance
from tests.oracles import activations, median_distance64

RANGES = [(0, 16), (16, 32), (32, 45)]


def of_grams(X, ranges=RANGES):
    return median_distance.median_of_grams(
        store.pack(gram.gram(X[start:stop]).values) for start, stop in ranges
    )


def of_rows(X, n=None, block_rows=16):
    common = gram.reference(X[:16])
    with patch.object(median_distance, "BLOCK_ROWS", block_rows):
        return median_distance.median_of_rows(
            lambda start, stop: X[start:stop], n or len(X), common
        )


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("mean", [0, 100])
def test_medians_are_those_of_explicit_differences(mean, dtype):
    X = activations(n=45, mean=mean, shape=(3, 300), dtype=dtype)
    assert of_grams(X) == pytest.approx(median_distance64(X, RANGES), rel=1e-5)
    for block_rows in (1, 16, 64):
        found = of_rows(X, 40, block_rows)
        assert found == pytest.approx(median_distance64(X[:40]), rel=1e-5)


@pytest.mark.parametrize("equal", [slice(0, 20), slice(5, 45), slice(0, 45, 2)])
@pytest.mark.parametrize("value", [0.0, 0.1])
def test_pairs_of_equal_examples_do_not_count(equal, value):
    X = activations(n=45, shape=(300,))
    X[equal] = value
    assert of_grams(X) == pytest.approx(median_distance64(X, RANGES), rel=1e-5)
    assert of_rows(X) == pytest.approx(median_distance64(X), rel=1e-5)


@pytest.mark.parametrize("size", [1e-3, 1e-6])
def test_pairs_that_nearly_agree_do_count(size):
    X = activations(n=45, shape=(300,))
    X[::2] = X[0] + size * X[::2]
    assert of_grams(X) == pytest.approx(median_distance64(X, RANGES), rel=1e-4)
    assert of_rows(X) == pytest.approx(median_distance64(X), rel=1e-4)


@pytest.mark.parametrize("rows", [[0], [44], slice(0, 45, 16)])
@pytest.mark.parametrize("size", [1e4, 1e7])
def test_examples_far_from_the_others_do_not_move_it(rows, size):
    X = activations(n=45, shape=(300,))
    X[rows, 7] += size
    assert of_grams(X) == pytest.approx(median_distance64(X, RANGES), rel=1e-4)
    assert of_rows(X) == pytest.approx(median_distance64(X), rel=1e-4)


def test_sorted_examples_have_the_median_of_all_of_them():
    X = np.sort(np.random.default_rng(0).exponential(size=(5000, 1)), axis=0)
    rows = median_distance.sample_rows(len(X))
    assert len(rows) == 1024
    assert (np.diff(rows) > 0).all()
    wanted = median_distance64(X[::5])
    assert of_rows(X[rows]) == pytest.approx(wanted, rel=0.02)
    np.testing.assert_array_equal(median_distance.sample_rows(1000), np.arange(1000))


def test_a_sample_meets_no_period_of_the_examples():
    rows = median_distance.sample_rows(16 * 1024)
    assert 0.03 < np.mean(rows % 16 == 0) < 0.1


def test_a_constant_has_no_median_and_what_is_not_finite_none_either():
    X = np.full((45, 6), 0.1, np.float32)
    assert of_grams(X) == of_rows(X) == 0.0
    X = activations(n=45, shape=(6,))
    X[3, 4] = np.nan
    assert np.isnan(of_grams(X))
    assert np.isnan(of_rows(X))


def test_two_blocks_are_held_and_only_the_first_n_read():
    X = activations(n=64, shape=(10,))
    alive, most, read = weakref.WeakSet(), [], set()

    class Block(np.ndarray):
        __hash__ = object.__hash__

    def read_block(start, stop):
        block = X[start:stop].copy().view(Block)
        alive.add(block)
        most.append(len(alive))
        read.update(range(start, stop))
        return block

    with patch.object(median_distance, "BLOCK_ROWS", 8):
        median_distance.median_of_rows(read_block, 50, gram.reference(X[:8]))
    assert max(most) == 2
    assert read == set(range(50))
    with pytest.raises(ValueError, match="median distance of 1 examples is not defined"):
        median_distance.median_of_rows(read_block, 1, gram.reference(X[:8]))
