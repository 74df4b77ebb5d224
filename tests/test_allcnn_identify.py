"""Identified layers: known answers, what must not matter, and a slow loop that knows no arrays."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from allcnn.similarity.layer_identification import identify

NAN = float("nan")


def names(n_networks, *taps):
    """Return networks and taps of the rows, network after network."""
    return [f"s{k}" for k in range(n_networks) for _ in taps], list(taps) * n_networks


def two_networks(asks, answers):
    """Return a matrix from the block that s0 asks with and the one that s1 asks with."""
    asks, answers = np.array(asks), np.array(answers)
    own = np.ones_like(asks)
    return np.block([[own, asks], [answers, own]])


def by_loop(matrix, networks, taps, exclude):
    """Return found, asked and confusion by tap names, one question at a time."""
    found, asked, confusion = {}, {}, {}
    for i, network in enumerate(networks):
        if taps[i] in exclude:
            continue
        for other in dict.fromkeys(networks):
            if other == network:
                continue
            asked[taps[i]] = asked.get(taps[i], 0) + 1
            offered = [
                (float(matrix[i][j]), taps[j])
                for j in range(len(taps))
                if networks[j] == other and taps[j] not in exclude and not math.isnan(matrix[i][j])
            ]
            if not offered:
                continue
            top = max(value for value, _ in offered)
            best = [tap for value, tap in offered if value == top]
            answer = next((tap for tap in best if tap != taps[i]), taps[i])
            confusion[taps[i], answer] = confusion.get((taps[i], answer), 0) + 1
            found[taps[i]] = found.get(taps[i], 0) + (best == [taps[i]])
    return found, asked, confusion


def test_known_answers():
    # s0 finds all three layers of s1; s1 takes conv1 for conv2 and finds the other two.
    asks = [[0.9, 0.5, 0.1], [0.5, 0.8, 0.1], [0.1, 0.1, 0.2]]
    answers = [[0.4, 0.6, 0.1], [0.2, 0.9, 0.1], [-0.5, -0.4, -0.3]]
    result = identify(two_networks(asks, answers), *names(2, "conv1", "conv2", "pooled"))
    assert result.accuracy == 5 / 6
    assert result.per_layer == {"conv1": 0.5, "conv2": 1.0, "pooled": 1.0}
    assert list(result.per_layer) == ["conv1", "conv2", "pooled"]
    assert (result.n_pairs, result.n_layers) == (2, 3)
    np.testing.assert_array_equal(result.confusion, [[1, 1, 0], [0, 2, 0], [0, 0, 2]])


def test_the_row_asks_and_the_column_answers():
    # Rows find everything; columns, asked the other way round, would find layer 2 alone.
    block = [[0.5, 0.4], [0.6, 0.7]]
    result = identify(two_networks(block, block), *names(2, "a", "b"))
    assert result.accuracy == 1
    turned = identify(two_networks(block, block).T, *names(2, "a", "b"))
    assert turned.per_layer == {"a": 0, "b": 1}
    np.testing.assert_array_equal(turned.confusion, [[0, 2], [0, 2]])


def test_excluded_taps_are_neither_asked_for_nor_offered():
    # conv1 is most like the logits, which are unlike themselves.
    block = [[0.5, 0.4, 0.9], [0.4, 0.5, 0.0], [0.9, 0.9, 0.1]]
    taps = names(2, "conv1", "conv2", "logits")
    result = identify(two_networks(block, block), *taps)
    assert result.per_layer == {"conv1": 1.0, "conv2": 1.0}
    assert result.confusion.shape == (2, 2)
    all_taps = identify(two_networks(block, block), *taps, exclude=())
    assert all_taps.per_layer == {"conv1": 0.0, "conv2": 1.0, "logits": 0.0}
    assert identify(two_networks(block, block), *taps, exclude={"conv1"}).per_layer == {
        "conv2": 1.0,
        "logits": 0.0,
    }


def test_a_tie_with_a_wrong_layer_is_not_found():
    tied = [[0.7, 0.7, 0.1], [0.1, 0.7, 0.1], [0.7, 0.7, 0.7]]
    clear = np.eye(3)
    result = identify(two_networks(tied, clear), *names(2, "a", "b", "c"))
    assert result.per_layer == {"a": 0.5, "b": 1.0, "c": 0.5}
    np.testing.assert_array_equal(result.confusion, [[1, 1, 0], [0, 2, 0], [1, 0, 1]])


def test_nan_is_never_the_most_similar():
    block = [[0.1, NAN, NAN], [NAN, NAN, -0.5], [NAN, NAN, NAN]]
    result = identify(two_networks(block, np.eye(3)), *names(2, "a", "b", "c"))
    assert result.per_layer == {"a": 1.0, "b": 0.5, "c": 0.5}
    # The row of NaN alone has no answer: its counts are one short of the two pairs.
    np.testing.assert_array_equal(result.confusion, [[2, 0, 0], [0, 1, 1], [0, 0, 1]])


def test_infinite_values_are_compared_as_any_other():
    block = [[-np.inf, NAN], [np.inf, 1e300]]
    result = identify(two_networks(block, np.eye(2)), *names(2, "a", "b"))
    assert result.per_layer == {"a": 1.0, "b": 0.5}


def test_the_published_setting():
    """Ten networks of nine layers: 90 ordered pairs, each layer asked for 90 times."""
    taps = [*(f"conv{k + 1}" for k in range(8)), "pooled", "logits"]
    place = np.tile(np.arange(10.0), 10)
    result = identify(-abs(place[:, None] - place), *names(10, *taps))
    assert (result.n_pairs, result.n_layers, result.accuracy) == (90, 9, 1.0)
    np.testing.assert_array_equal(result.confusion, 90 * np.eye(9, dtype=int))


def test_chance_is_one_over_the_number_of_layers():
    rng = np.random.default_rng(0)
    result = identify(rng.random((100, 100)), *names(10, *"abcdefghij"))
    # 900 independent questions, each found with probability 1/10: four standard errors.
    assert abs(result.accuracy - 0.1) < 4 * math.sqrt(0.1 * 0.9 / 900)


@st.composite
def questions(draw):
    """Return a matrix with ties and NaN, and rows whose networks may be mixed."""
    n, n_taps = draw(st.integers(2, 4)), draw(st.integers(1, 4))
    taps = [*"abc"[: n_taps - 1], "logits"] if draw(st.booleans()) and n_taps > 1 else "abcd"
    networks, taps = names(n, *taps[:n_taps])
    values = st.sampled_from([NAN, -1.0, -0.25, 0.0, 0.5, 1.0, np.inf])
    matrix = draw(arrays(np.float64, (len(taps), len(taps)), elements=values))
    # Each network keeps the order of its taps, as the contract wants.
    turns = draw(st.permutations(networks))
    waiting = {
        f"s{k}": [i for i, network in enumerate(networks) if network == f"s{k}"] for k in range(n)
    }
    order = [waiting[network].pop(0) for network in turns]
    return matrix[np.ix_(order, order)], turns, [taps[i] for i in order]


@given(questions())
def test_a_slow_loop_agrees(asked):
    matrix, networks, taps = asked
    result = identify(matrix, networks, taps)
    found, total, confusion = by_loop(matrix, networks, taps, ("logits",))
    layers = list(result.per_layer)
    assert set(layers) == set(total)
    assert all(total[tap] == result.n_pairs for tap in layers)
    assert result.per_layer == {tap: found.get(tap, 0) / total[tap] for tap in layers}
    assert result.accuracy == pytest.approx(sum(found.values()) / sum(total.values()), rel=1e-15)
    wanted = [[confusion.get((a, b), 0) for b in layers] for a in layers]
    np.testing.assert_array_equal(result.confusion, wanted)


@given(questions(), st.randoms())
def test_the_order_of_the_networks_does_not_matter(asked, random):
    matrix, networks, taps = asked
    order = sorted(range(len(taps)), key=lambda k: networks[k])
    blocks = [[k for k in order if networks[k] == network] for network in set(networks)]
    random.shuffle(blocks)
    turned = [k for block in blocks for k in block]
    again = identify(
        matrix[np.ix_(turned, turned)],
        [networks[k] for k in turned],
        [taps[k] for k in turned],
    )
    result = identify(matrix, networks, taps)
    assert again[:4] == result[:4]
    np.testing.assert_array_equal(again.confusion, result.confusion)


def test_the_diagonal_blocks_are_not_looked_at():
    matrix = two_networks(np.eye(2), np.eye(2))
    matrix[:2, :2] = NAN
    matrix[2:, 2:] = [[0, 9], [9, 0]]
    assert identify(matrix, *names(2, "a", "b")).accuracy == 1


def test_refusals():
    square = np.eye(4)
    with pytest.raises(ValueError, match=r"there are 1 networks \(s\); .* between two or more"):
        identify(square, ["s"] * 4, list("abcd"))
    with pytest.raises(ValueError, match=r"there are 0 networks \(none\)"):
        identify(np.zeros((0, 0)), [], [])
    with pytest.raises(ValueError, match=r"shape \(4, 3\), with 4 networks' names and 4 taps"):
        identify(square[:, :3], list("sstt"), list("abab"))
    with pytest.raises(ValueError, match=r"with 4 networks' names and 3 taps; give a square"):
        identify(square, list("sstt"), list("aba"))
    with pytest.raises(ValueError, match="tap a of network s stands in rows 0 and 1"):
        identify(square, list("sstt"), list("aaab"))
    with pytest.raises(ValueError, match="no taps of network s are left to ask for"):
        identify(np.eye(2), list("st"), ["logits", "logits"])


@pytest.mark.parametrize(
    ("networks", "taps", "listed"),
    [
        ("sssttu", "abcabb", "networks s and t have the taps a, b, c and a, b;"),
        ("sstt", "abba", "networks s and t have the taps a, b and b, a;"),
        ("ssttuu", "ababac", "networks s and u have the taps a, b and a, c;"),
    ],
)
def test_networks_of_other_taps_are_refused(networks, taps, listed):
    with pytest.raises(ValueError, match=listed):
        identify(np.eye(len(taps)), list(networks), list(taps))


def test_networks_that_differ_in_an_excluded_tap_alone_are_compared():
    assert (
        identify(np.ones((3, 3)) * np.eye(3)[::-1], list("sst"), ["a", "logits", "a"]).accuracy == 1
    )
