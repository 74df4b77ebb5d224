"""Exact HSIC from tiles, against the whole float64 Gram matrix and the mean over 4-tuples."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allcnn.similarity import gram, tiled_hsic
from allcnn.similarity.derived import tile_kernel
from allcnn.similarity.kernels import Rbf
from allcnn.similarity.measures import Cka
from tests.oracles import activations, cka64, hsic_by_definition, median_distance64, song_hsic
from tests.sweeps import every


def grams(m, n, seed=0):
    """Return symmetric matrices with a large common offset, as no centring has removed it."""
    K = np.random.default_rng(seed).standard_normal((m, n, n))
    return (K + K.transpose(0, 2, 1) + 5).astype(np.float32)


def tiled(Ks, Ls, tile_rows):
    """Return exact sums of whole Gram matrices, cut into tiles."""
    n = Ks.shape[1]
    spans = tiled_hsic.tile_spans(n, tile_rows)

    def tile(Ms, first, second):
        return None if Ms is None else Ms[:, slice(*first), slice(*second)]

    tiles = [tiled_hsic.tile_sums(tile(Ks, a, b), tile(Ls, a, b), a == b) for a, b in spans]
    return tiled_hsic.exact_hsic(n, spans, tiles)


def by(oracle, Ks, Ls):
    return len(Ks[0]) * np.array([[oracle(K, L) for L in Ls] for K in Ks])


@settings(deadline=None, max_examples=60)
@given(st.integers(4, 40), st.integers(1, 45), st.integers(1, 3), st.integers(0, 9))
def test_tiles_of_any_size_give_the_hsic_of_the_whole(n, tile_rows, r, seed):
    Ks, Ls = grams(r, n, seed), grams(2, n, seed + 10)
    found = tiled(Ks, Ls, tile_rows)
    assert found.n_examples == n
    # Float64 sums of 40² products of about 5² have errors of 1e-16 of 4e4, here of sums of such.
    np.testing.assert_allclose(found.cross, by(song_hsic, Ks, Ls), rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.rows, by(song_hsic, Ks, Ks).diagonal(), rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.columns, by(song_hsic, Ls, Ls).diagonal(), rtol=0, atol=1e-10)
    own = tiled(Ks, None, tile_rows)
    np.testing.assert_allclose(own.cross, by(song_hsic, Ks, Ks), rtol=0, atol=1e-10)
    np.testing.assert_array_equal(own.cross, own.cross.T)
    np.testing.assert_array_equal(own.cross.diagonal(), own.rows)
    np.testing.assert_array_equal(own.rows, own.columns)


def test_a_long_list_with_itself_is_exactly_symmetric():
    cross = tiled(grams(37, 30), None, 11).cross
    np.testing.assert_array_equal(cross, cross.T)


@settings(deadline=None, max_examples=20)
@given(st.integers(4, 7), st.integers(1, 8), st.integers(0, 9))
def test_it_is_the_mean_over_tuples(n, tile_rows, seed):
    Ks, Ls = grams(1, n, seed), grams(2, n, seed + 10)
    wanted = by(hsic_by_definition, Ks, Ls)
    np.testing.assert_allclose(tiled(Ks, Ls, tile_rows).cross, wanted, rtol=0, atol=1e-10)


def test_blocks_of_a_tile_do_not_change_its_sums(monkeypatch):
    Ks, Ls = grams(2, 30), grams(3, 30, seed=1)
    whole = [tiled_hsic.tile_sums(Ks, Ls, on_diagonal) for on_diagonal in (True, False)]
    monkeypatch.setattr(tiled_hsic, "_BLOCK_ENTRIES", 100)  # of 3 rows
    for wanted, on_diagonal in zip(whole, (True, False), strict=True):
        found = tiled_hsic.tile_sums(Ks, Ls, on_diagonal)
        np.testing.assert_allclose(found.cross, wanted.cross, rtol=1e-13)
        for a, b in zip(
            (*found.rows, *found.columns), (*wanted.rows, *wanted.columns), strict=True
        ):
            np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-10)


@settings(deadline=None)
@given(st.integers(4, 60), st.integers(1, 70))
def test_spans_cover_every_pair_once(n, tile_rows):
    seen = np.zeros((n, n), int)
    for first, second in tiled_hsic.tile_spans(n, tile_rows):
        assert first <= second
        assert first[1] - first[0] <= tile_rows
        seen[slice(*first), slice(*second)] += 1
        if first != second:
            seen[slice(*second), slice(*first)] += 1
    np.testing.assert_array_equal(seen, 1)


def test_spans_are_in_fixed_order():
    a, b, c = (0, 4), (4, 8), (8, 9)
    assert tiled_hsic.tile_spans(9, 4) == [(a, a), (a, b), (a, c), (b, b), (b, c), (c, c)]


# From activations, in tiles that share one reference

N, TILE_ROWS, FRACTIONS = 512, 200, (0.2, 0.4, 0.8)


def representations(mean):
    """Return three of the same examples, with part of their signal in common."""
    common = activations(N, (60,), seed=1)
    widths = ((60,), (5, 5, 30), (120,))
    return [
        np.float32(
            activations(N, shape, mean, seed=i)
            + (common @ activations(60, shape, seed=i + 9).reshape(60, -1) / 20).reshape(N, *shape)
        )
        for i, shape in enumerate(widths, 2)
    ]


def tile_kernels(Xs, spans, kernel):
    """Yield the tiles of every representation's Gram, those of several bandwidths together."""
    references = [gram.reference(X[:32], "cosine" if kernel == "cosine" else "linear") for X in Xs]
    medians = [median_distance64(X) for X in Xs] if kernel == "rbf" else []
    for first, second in spans:
        sides = [(X[slice(*first)], X[slice(*second)]) for X in Xs]
        sides = [(A, A if first == second else B) for A, B in sides]
        if kernel == "rbf":
            yield np.stack(
                [
                    tile_kernel(gram.cross_gram(A, B, o), Rbf(f), median, o)
                    for (A, B), o, median in zip(sides, references, medians, strict=True)
                    for f in FRACTIONS
                ]
            )
        else:
            pairs = zip(sides, references, strict=True)
            yield np.stack([gram.cross_gram(A, B, o, kernel).values for (A, B), o in pairs])


def wanted_cka(Xs, kernel):
    if kernel != "rbf":
        return cka64(Xs, Xs, [], kernel=kernel, estimator="exact")
    wanted = np.full((len(Xs), len(FRACTIONS)) * 2, np.nan)
    for i, fraction in enumerate(FRACTIONS):
        wanted[:, i, :, i] = cka64(Xs, Xs, [], kernel=kernel, fraction=fraction, estimator="exact")
    return wanted.reshape(len(Xs) * len(FRACTIONS), -1)


@pytest.mark.parametrize(
    ("kernel", "mean", "atol"),
    every(
        4,
        [
            (kernel, *case)
            for kernel in ("linear", "rbf", "cosine")
            for case in ((0, 1e-5), (10, 1e-4), (1000, 1e-4))
        ],
    ),
)
def test_cka_of_512_examples_is_that_of_float64(kernel, mean, atol):
    Xs = representations(mean)
    spans = tiled_hsic.tile_spans(N, TILE_ROWS)
    tiles = [
        tiled_hsic.tile_sums(Ks, None, first == second)
        for (first, second), Ks in zip(spans, tile_kernels(Xs, spans, kernel), strict=True)
    ]
    found = Cka("exact").finish(tiled_hsic.exact_hsic(N, spans, tiles))
    wanted = wanted_cka(Xs, kernel)
    compared = np.isfinite(wanted)  # pairs of one bandwidth
    np.testing.assert_allclose(found[compared], wanted[compared], rtol=0, atol=atol)
    np.testing.assert_array_equal(found.diagonal(), 1)
    assert 0.02 < wanted[compared].min() < 0.9


@pytest.mark.parametrize("kernel", ["linear", "rbf", "cosine"])
def test_a_constant_representation_has_a_hsic_of_exactly_zero(kernel):
    X = np.full((40, 30), 0.1, np.float32)
    Y = activations(40, (30,))
    spans = tiled_hsic.tile_spans(40, 16)
    tiles = []
    for first, second in spans:
        a, b = slice(*first), slice(*second)
        # Not its mean to the last bit: the Gram is a small constant.
        base = "cosine" if kernel == "cosine" else "linear"
        references = [gram.reference(Z, base) for Z in (X, Y)]
        references[0] = references[0]._replace(row=references[0].row * np.float32(0.999))
        Ks = [gram.cross_gram(Z[a], Z[b], o, base) for Z, o in zip((X, Y), references, strict=True)]
        values = [
            tile_kernel(K, Rbf(1.0), 3.0, o) if kernel == "rbf" else K.values
            for K, o in zip(Ks, references, strict=True)
        ]
        tiles.append(tiled_hsic.tile_sums(np.stack(values), None, first == second))
    found = tiled_hsic.exact_hsic(40, spans, tiles)
    assert found.rows[0] == found.cross[0, 0] == 0
    assert found.rows[1] > 0


def test_what_is_not_finite_stays_with_its_own_representation():
    Ks = grams(2, 12)
    Ks[0, 3, :] = Ks[0, :, 3] = np.nan
    found = tiled(Ks, None, 5)
    assert np.isnan(found.cross[0]).all()
    assert np.isnan(found.rows[0])
    assert np.isfinite(found.cross[1, 1])


def test_sums_of_a_tile_are_small_and_pickle():
    sums = tiled_hsic.tile_sums(grams(2, 50), grams(3, 50), on_diagonal=True)
    data = pickle.dumps(sums)
    assert len(data) < 5000
    again = pickle.loads(data)
    np.testing.assert_array_equal(again.columns.margins, sums.columns.margins)


def test_refusals():
    with pytest.raises(ValueError, match="there are 3 examples; exact HSIC needs 4 or more"):
        tiled_hsic.tile_spans(3, 8)
    with pytest.raises(ValueError, match="a tile has 0 rows; use 1 or more"):
        tiled_hsic.tile_spans(8, 0)
    Ks = grams(1, 6)
    with pytest.raises(ValueError, match=r"tiles of shapes \(6, 6\) and \(6, 5\) cannot be"):
        tiled_hsic.tile_sums(Ks, Ks[:, :, :5], on_diagonal=False)
    with pytest.raises(ValueError, match=r"tile on the diagonal has shape \(6, 5\)"):
        tiled_hsic.tile_sums(Ks[:, :, :5], None, on_diagonal=True)
    with pytest.raises(ValueError, match="there are 3 tiles and the sums of 0"):
        tiled_hsic.exact_hsic(8, tiled_hsic.tile_spans(8, 4), [])
