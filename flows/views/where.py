"""Parse ``--where``: comparisons with names of networks, of results and of probes."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from allcnn.errors import ConfigError
from allcnn.settings.selection import Selection
from allcnn.similarity.method import Method
from store import QueryError
from store.arrays.query import LEVELS, Query, Wanted, parse_where

OF_RESULTS: Final[dict[str, Any]] = {
    "label": 0,
    **{name: each.kind() for name, each in Method.settings().items()},
}
"""Names that a result has itself, each with a value of its kind; others are of what it compares."""

OF_PROBES: Final[dict[str, Any]] = {"pool": ""}
"""Those of them that a probe has."""


@dataclass(frozen=True)
class Where:
    """A pattern and comparisons, which must all hold.

    Attributes:
        query: all of them.
        folders: those that folders answer by their names, so that no other is opened.
        of_networks: those that choose networks; a result or a probe is chosen by what it is about.
        of_results: those that a result or a probe answers itself.
        narrows: whether there is a comparison that chooses networks, beside the pattern.
    """

    query: Query
    folders: dict[str, Wanted]
    of_networks: Query
    of_results: Query
    narrows: bool

    @classmethod
    def parse(
        cls, pattern: Selection | None, texts: Sequence[str] = (), sample_set: str | None = None
    ) -> Self:
        """Read comparisons such as ``epoch>=5``; raises ConfigError for what compares nothing."""
        try:
            compared = _compared(texts)
            filters = compared | _named(pattern, sample_set, compared)
            query = Query.parse(filters, in_signs=True)
        except QueryError as error:
            raise ConfigError(error.finding, "", error.wanted, error.remedy) from error
        return cls(
            query,
            {name: wanted for name, wanted in filters.items() if name.split("__")[0] in LEVELS},
            Query(tuple(c for c in query.conditions if c.name not in OF_RESULTS)),
            Query(tuple(c for c in query.conditions if c.name in OF_RESULTS)),
            any(name.split("__")[0] not in OF_RESULTS for name in compared),
        )

    def admits(self, record: dict[str, Any]) -> bool:
        """Return whether a result or a probe fits the comparisons with its own names."""
        return self.of_results.matches(record | record.get("method", {}))


def _compared(texts: Sequence[str]) -> dict[str, Wanted]:
    compared: dict[str, Wanted] = {}
    for name, value in map(parse_where, texts):
        if name in compared:
            raise ConfigError(
                f"where compares {name} twice", remedy="join the values, as in seed=0,1"
            )
        compared[name] = value
    return compared


def _named(
    pattern: Selection | None, sample_set: str | None, compared: dict[str, Wanted]
) -> dict[str, Wanted]:
    named: dict[str, Wanted] = {} if sample_set is None else {"sample_set": sample_set}
    if pattern:
        named |= asdict(pattern)
    for name, value in named.items():
        if name in compared and value != "*":
            raise ConfigError(f"{name} is in the pattern and in --where", remedy="leave one out")
    return {name: value for name, value in named.items() if name not in compared}
