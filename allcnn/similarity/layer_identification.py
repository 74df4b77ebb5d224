"""Networks of one architecture compared with each other: layers identified, and mean matrices.

The check of a similarity measure by Kornblith et al. (2019, section 6.1 and Table 2): networks
that differ in their seed alone should have corresponding layers most alike.
"""

from collections.abc import Collection, Mapping, Sequence
from itertools import combinations, permutations
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


class Identification(NamedTuple):
    """The answers of every layer over all ordered pairs of different networks."""

    accuracy: float  # the share of all questions answered with the corresponding layer
    per_layer: Mapping[str, float]  # the same for each layer, in the networks' order
    n_pairs: int  # ordered pairs of networks, in each of which every layer is asked for once
    n_layers: int  # 1 / n_layers is the accuracy by chance
    confusion: Int[np.ndarray, "l l"]
    """How often layer i of one network found layer j of another. A row sums to ``n_pairs`` less
    the questions without an answer; its diagonal entry over ``n_pairs`` is the layer's share."""


def identify(
    matrix: Float[np.ndarray, "m m"],
    networks: Sequence[str],
    taps: Sequence[str],
    exclude: Collection[str] = ("logits",),
) -> Identification:
    """Ask with each layer of each network for the most similar layer of each other network.

    Row and column k of the similarities are tap ``taps[k]`` of network ``networks[k]``; the row's
    network asks and the column's answers. Rows may stand in any order that gives all networks
    the same taps in the same order. Taps to exclude are neither asked for nor offered.

    NaN is never the most similar, and a row of NaN alone has no answer. A layer that ties with a
    wrong one is not found: the first such layer counts as the answer.
    Raises ValueError for fewer than two networks and for networks whose taps differ.
    """
    layers, blocks = _as_blocks(matrix, networks, taps, exclude)
    n_layers, n_pairs = len(layers), len(blocks)
    places = np.arange(n_layers)
    # NaN is never the largest of its row.
    largest = np.where(np.isnan(blocks), -np.inf, blocks).max(axis=-1, keepdims=True)
    best = blocks == largest
    wrong = best & ~np.eye(n_layers, dtype=bool)
    answers = np.where(wrong.any(-1), wrong.argmax(-1), places)
    # Without this, a row of NaN alone would count as answered by its own layer.
    answered = best.any(-1, keepdims=True)
    confusion = ((answers[..., None] == places) & answered).sum(axis=0)
    shares = confusion.diagonal() / n_pairs
    accuracy = float(confusion.trace() / (n_pairs * n_layers))
    per_layer = dict(zip(layers, shares.tolist(), strict=True))
    return Identification(accuracy, per_layer, n_pairs, n_layers, confusion)


class Spread(NamedTuple):
    """The mean of n matrices, entry by entry, and their standard deviation."""

    mean: Float[np.ndarray, "r c"]  # of the values that are defined; NaN where none is
    deviation: Float[np.ndarray, "r c"]  # by n - 1; NaN where fewer than two are defined
    n: int


def spread(matrices: Sequence[Float[np.ndarray, "r c"]]) -> Spread:
    """Return mean and standard deviation of matrices of one shape; NaN counts as not there."""
    if not len(matrices):
        raise ValueError("there are no matrices to average; give one or more")
    values = np.ma.masked_invalid(np.stack([np.asarray(m, np.float64) for m in matrices]))
    n = values.count(axis=0)
    mean = values.mean(axis=0)
    squares = np.square(values - mean).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        deviation = np.sqrt(np.ma.filled(squares, 0.0) / (n - 1))
    deviation[n < 2] = np.nan
    return Spread(np.ma.filled(mean, np.nan), deviation, len(matrices))


def between_networks(
    matrix: Float[np.ndarray, "m m"], networks: Sequence[str], taps: Sequence[str]
) -> Spread:
    """Return mean and spread over all pairs of different networks of one architecture.

    Row and column k are tap ``taps[k]`` of network ``networks[k]`` (Kornblith et al. 2019, Figure
    2, and section 6.1). A pair counts once, by the mean of both orders: the two hold the same
    numbers, so that their difference is no spread between networks. Raises ValueError for fewer
    than two networks, and where taps differ.
    """
    _, blocks = _as_blocks(matrix, networks, taps)
    n = len(dict.fromkeys(networks))
    # Ordered pairs come row after row of all networks against each other, without the diagonal.
    of_pair = dict(zip(permutations(range(n), 2), blocks, strict=True))
    pairs = combinations(range(n), 2)
    return spread([spread([of_pair[i, j], of_pair[j, i]]).mean for i, j in pairs])


def _as_blocks(
    matrix: Float[np.ndarray, "m m"],
    networks: Sequence[str],
    taps: Sequence[str],
    exclude: Collection[str] = (),
) -> tuple[list[str], Float[np.ndarray, "p l l"]]:
    """Return the layers that all networks have, and the matrix of each ordered pair of networks.

    Arguments and errors are those of ``identify``; pairs of a network with itself are left out.
    """
    matrix, m = np.asarray(matrix), len(networks)
    if matrix.shape != (m, m) or len(taps) != m:
        raise ValueError(
            f"the similarities have shape {matrix.shape}, with {m} networks' names and"
            f" {len(taps)} taps; give a square matrix with one of each a row"
        )
    rows = _rows_by_network(networks, taps, exclude)
    if len(rows) < 2:
        raise ValueError(
            f"there are {len(rows)} networks ({', '.join(rows) or 'none'}); layers are identified"
            " between two or more"
        )
    first, *others = rows
    layers = list(rows[first])
    for other in others:
        if list(rows[other]) != layers:
            raise ValueError(
                f"networks {first} and {other} have the taps {', '.join(layers) or 'none'} and"
                f" {', '.join(rows[other]) or 'none'}; give networks of one architecture, their"
                " taps in the same order"
            )
    if not layers:
        raise ValueError(f"no taps of network {first} are left to ask for; exclude fewer")
    n, n_layers = len(rows), len(layers)
    order = np.array([list(of_network.values()) for of_network in rows.values()]).ravel()
    ordered = matrix[np.ix_(order, order)]
    blocks = ordered.reshape(n, n_layers, n, n_layers).swapaxes(1, 2)
    return layers, blocks[~np.eye(n, dtype=bool)]


def _rows_by_network(
    networks: Sequence[str], taps: Sequence[str], exclude: Collection[str]
) -> dict[str, dict[str, int]]:
    """Return the row of each tap of each network, both in the order of their first rows."""
    rows: dict[str, dict[str, int]] = {network: {} for network in networks}
    for k, (network, tap) in enumerate(zip(networks, taps, strict=True)):
        if tap in exclude:
            continue
        if tap in rows[network]:
            raise ValueError(
                f"tap {tap} of network {network} stands in rows {rows[network][tap]} and {k};"
                " give each tap of a network once"
            )
        rows[network][tap] = k
    return rows
