"""The networks along the sides of matrices, each written once however many matrices share it."""

from collections.abc import Hashable, Sequence
from itertools import groupby
from typing import Any, TypeVar

from allcnn.compare import network_of
from store import RepresentationKey

K = TypeVar("K", bound=Hashable)

Groups = tuple[tuple[int, int], ...]


class Sides:
    """Numbers for sides; a hundred matrices of a thousand checkpoints mostly share theirs."""

    def __init__(self) -> None:
        self._networks: dict[tuple[str, str], int] = {}
        self._taps: dict[tuple[str, ...], int] = {}
        self._sides: dict[Groups, int] = {}

    def number(self, keys: Sequence[RepresentationKey]) -> int:
        """Return the number of a side: of the networks along it, with their taps."""
        groups = []
        for network, members in groupby(keys, key=network_of):
            taps = tuple(key.tap for key in members)
            named = (network.run, network.checkpoint)
            groups.append((_number(self._networks, named), _number(self._taps, taps)))
        return _number(self._sides, tuple(groups))

    def to_json(self) -> dict[str, Any]:
        """Return what the numbers stand for: a side is a list of pairs, of network and taps."""
        return {
            "networks": list(self._networks),
            "taps": list(self._taps),
            "sides": list(self._sides),
        }


def _number(known: dict[K, int], thing: K) -> int:
    return known.setdefault(thing, len(known))
